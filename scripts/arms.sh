#!/usr/bin/env bash
# Trains the embedded model under each shipped prior prompt. Fails unless every arm learns: the 95 % intervals of held-out
# accuracy (and of format, if the prompt asks for one) before and after training must not overlap.
#
#   scripts/arms.sh [FOLDER]     writes runs to FOLDER (default: a new temporary folder); about a minute per run on two cores
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-$(mktemp -d)}
mkdir -p "$out"
cargo build --release --quiet
failed=0
for arm in null-example reasoning planning code recall none; do
  rate=1e-3
  [ "$arm" = none ] && rate=2e-3 # its only reward is accuracy
  start=$SECONDS
  target/release/rft train --ppe "$arm" --name "$arm" --set run.dir="$out" --set train.learning_rate=$rate \
    >"$out/$arm.txt" 2>"$out/$arm.log" || { cat "$out/$arm.log"; exit 1; }
  echo "== $arm ($((SECONDS - start)) s)"
  grep -E '^held-out' "$out/$arm.log"
  if grep -q 'intervals .* overlap' "$out/$arm.txt"; then failed=1; fi
done
echo "runs and logs: $out"
exit $failed
