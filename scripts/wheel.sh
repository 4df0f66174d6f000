#!/usr/bin/env bash
# Builds the wheel with maturin, installs it in a fresh virtual environment whose PATH has no Rust, and runs the README's first
# command with it. Needs python3 and access to the Python registry.
#
#   scripts/wheel.sh [FOLDER]        FOLDER keeps the wheel; default: target/wheels
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(realpath -m "${1:-target/wheels}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/build"
"$work/build/bin/pip" install --quiet 'maturin>=1.7,<2'
PATH="$work/build/bin:$PATH" maturin build --release --out "$out"
wheel=$(ls -t "$out"/rft_grpo-*.whl | head -n 1)
echo "wheel    $(basename "$wheel"), $(($(stat -c %s "$wheel") >> 20)) MiB"

python3 -m venv "$work/fresh"
"$work/fresh/bin/pip" install --quiet "$wheel"
export PATH="$work/fresh/bin:/usr/bin:/bin"
if command -v cargo > /dev/null || command -v rustc > /dev/null; then
  echo "error: Rust is on the PATH of the fresh environment" >&2
  exit 1
fi
cd "$work"
rft --version
time rft train --ppe null-example --quiet
