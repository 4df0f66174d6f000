#!/usr/bin/env bash
# Runs `rft` on the emulated GPU (tests/device) with too little memory and with failing allocations. Each run must
# succeed, or exit with code 1, a one-line error and a hint.
#
#   scripts/emulated-faults.sh BINARY DEVICE [ALLOCATIONS]
#
# BINARY is `rft`, DEVICE the output folder of `tests/device/build.sh`, and ALLOCATIONS the number of allocations to fail, one
# per run (default: 40). Takes a few minutes.
set -uo pipefail
binary=$(realpath "${1:?usage: scripts/emulated-faults.sh BINARY DEVICE [ALLOCATIONS]}")
device=$(realpath "${2:?usage: scripts/emulated-faults.sh BINARY DEVICE [ALLOCATIONS]}")
allocations=${3:-40}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export LD_LIBRARY_PATH=$device XDG_CACHE_HOME=$folder
runs=0 failures=0

# run NAME SETTING COMMAND...
run() {
  local name=$1 setting=$2 status errors verdict
  shift 2
  rm -rf runs
  env "RFT_EMU_$setting" timeout -k 5 300 "$binary" "$@" >out 2>err
  status=$?
  errors=$(grep -c '^error: ' err)
  runs=$((runs + 1))
  verdict=FAILED
  if [ $status = 0 ]; then
    verdict=works
  elif [ $status = 1 ] && [ "$1" = selftest ] && grep -q '^FAILED' out && ! grep -q panicked out; then
    verdict=$(grep -m 1 '^FAILED' out)
  elif [ $status = 1 ] && [ "$errors" = 1 ] && grep -q '^hint: ' err && ! grep -q panicked err; then
    verdict=$(grep '^error: ' err)
  fi
  grep -qE '(^| )0 B are free|bytes (of device memory )?(are )?needed|^emulated device: ' out err && verdict=FAILED
  [ "$verdict" = FAILED ] && { failures=$((failures + 1)); cat out err; }
  printf '%-10s %-22s exit %s  %s\n' "$name" "$setting" "$status" "${verdict:0:150}"
}

train=(train --ppe null-example --device cuda --steps 1 --name run --set eval.questions=0
  --set rollout.prompts_per_step=2 --set rollout.num_generations=4)
generate=(generate --device cuda --max-tokens 2 "What is 3 plus 4?")
for mib in 8 31 33 64 300 512 540 544 546 548 550 552 553 554 555 556 557 558 560 600; do
  run train "MEMORY_MIB=$mib" "${train[@]}"
done
for mib in 8 64 512 545 546 547 548 549 550 560; do
  run generate "MEMORY_MIB=$mib" "${generate[@]}"
done
for mib in 64 1000 1056 1060 1200 1600; do
  run selftest "MEMORY_MIB=$mib" selftest --filter swiglu
done
for n in $(seq 1 6); do
  run train "FAIL_ALLOCATION=$n" "${train[@]}"
  run generate "FAIL_ALLOCATION=$n" "${generate[@]}"
done
# In guarded mode, every buffer is a separate allocation.
for n in $(seq 1 "$allocations"); do
  for group in swiglu checkpointing; do
    run selftest "FAIL_ALLOCATION=$n" selftest --guarded --filter "$group"
  done
done
echo "$runs runs, $failures failed"
[ $failures = 0 ]
