#!/usr/bin/env bash
# Fuzzes everything that reads bytes from outside, each target for some seconds, and prints executions, time and findings.
# Needs a nightly toolchain and cargo-fuzz (cargo install cargo-fuzz).
#
#   scripts/fuzz.sh [SECONDS] [TARGET...]      default: 600 seconds, all targets
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-600}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cd fuzz/fuzz_targets && ls ./*.rs | sed 's|^./||; s|\.rs$||')
cargo test --release --quiet --test it -- --exact --ignored mutations::write_the_corpus >/dev/null
findings=0
for target in "${targets[@]}"; do
  log=$(mktemp)
  # A reader may use 2 GB and 20 seconds for an input; the embedded model's files are the largest seeds.
  if cargo +nightly fuzz run "$target" -- -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=20 -max_len=65536 -print_final_stats=1 \
    >"$log" 2>&1; then found=none; else found=$(grep -m1 'Test unit written to\|SUMMARY' "$log" || tail -n 1 "$log") findings=$((findings + 1)); fi
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  printf '%-12s %12s executions in %s s, finding: %s\n' "$target" "${executions:-0}" "$seconds" "$found"
  rm -f "$log"
done
exit $((findings > 0))
