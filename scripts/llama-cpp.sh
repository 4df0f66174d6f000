#!/bin/sh
# Checks that llama.cpp computes the same as rft from the GGUF files that `rft merge --gguf` and `rft export --gguf` write.
#
#   scripts/llama-cpp.sh [MODEL...]     MODEL is a .gguf file or a Hugging Face folder, besides the embedded model
#
# Installs llama.cpp (the package xllamacpp) into a virtual environment that is removed at the end; VENV=FOLDER keeps one and
# uses it again. CARGO is the command that runs the tests (default: cargo).
set -eu
cd "$(dirname "$0")/.."
venv=${VENV:-}
if [ -z "$venv" ]; then
  venv=$(mktemp -d)
  trap 'rm -r "$venv"' EXIT
fi
if ! "$venv/bin/python" -c 'import xllamacpp' 2> /dev/null; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --only-binary :all: xllamacpp==2026.10.11549
fi
models=$(printf '%s,' "$@")
RFT_TEST_REQUIRE=llama-cpp RFT_LLAMA_CPP="$venv/bin/python" RFT_LLAMA_CPP_MODELS="$models" \
  ${CARGO:-cargo} test --release --test it -- --nocapture llama_cpp::
