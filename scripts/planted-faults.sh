#!/usr/bin/env bash
# Plants faults in the CUDA kernels, one at a time, and runs the self-test on the emulated device with each. The self-test must
# fail in the group of checks that the fault belongs to. This shows that the tolerances are small enough.
#
#   scripts/planted-faults.sh BINARY [FAULT ...]      default: all faults; --list prints their names
#
# BINARY is `rft` built from this source. GROUPS_OF_CHECKS is a comma-separated list of the groups to run (default: all but
# rollout). DEVICE is an output folder of tests/device/build.sh (default: a new one). Needs g++, but no GPU. Each fault takes a
# minute on one core, mostly for the self-test.
set -euo pipefail
cd "$(dirname "$0")/.."
kernels=src/device/cuda/kernels

# NAME | GROUP that must fail | FILE | sed command
faults() {
  grep -v '^ *#' <<'FAULTS'
dropped-bias      | rope             | qkv_rope.cu                   | s/if \(bias\) \{/if (false) {/
rope-position     | rope             | qkv_rope.cu                   | s/positions\[row\]\) \* half \+ column, 1\)/positions[row] + 1) * half + column, 1)/
transposed-tile   | attention        | attention.cuh                 | s/ldmatrix_x4_trans\(columns/ldmatrix_x4(columns/
missing-barrier   | attention        | branch_attention.cu           | s/^ *__syncthreads\(\);  \/\/ the copies have arrived.*//
dropped-row       | attention        | branch_attention.cu           | s/return row < used \?/return row < used - 1 ?/
future-token      | attention        | branch_attention.cu           | s/const int last = first_last - start/const int last = 1 + first_last - start/
softmax-scale     | decode-attention | attention.cuh                 | s/D == 128 \? 0\.08838834764831845f/D == 128 ? 0.09f/
stale-split       | attention        | branch_attention_backward.cu  | s/partial \+ slot \* of_slot/partial/
no-dot-correction | attention        | branch_attention_backward.cu  | s/dots\[line\] = sum/dots[line] = 0.9f * sum/
dropped-span      | decode-attention | decode_attention.cu           | s/s < used; \+\+s\) \{/s < max(used - 1, 1); ++s) {/
uncorrected-adamw | adamw            | adamw.cu                      | s/lr \/ \(1 - pow\(beta1, static_cast<double>\(step\[MADE\]\)\)\)/lr/
hot-sampler       | sampler          | sampler.cu                    | s/scale = 1\.0f \/ policy_temperature/scale = 1.0f/
one-sided-clip    | adamw            | adamw.cu                      | s/max_norm == 0 \?/max_norm >= 0 ?/
lost-entropy      | head             | head.cu                       | s/by_logprob \* of_logprob - by_entropy \* of_entropy/by_logprob * of_logprob/
half-silu         | swiglu           | swiglu.cu                     | s/s \* \(1\.0f \+ gate\[i\] \* \(1\.0f - s\)\)/s/
norm-of-sum       | rms-norm         | rms_norm.cu                   | s/weighted\[i\] - v\[i\] \* common/weighted[i]/
shared-weight     | qk-norm          | qk_norm.cu                    | s/at\.is_query \? 0 : dim/0/
dropped-pair      | rows             | rows.cu                       | s/end = starts\[blockIdx\.x \+ 1\]/end = starts[blockIdx.x + 1] - 1/
unscaled-lora     | lora             | lora.cu                       | s/scale \* b\[/b[/
ignored-stop      | advance          | rollout.cu                    | s/ended \|= stops\[i\] == token/ended |= stops[i] == ~token/
FAULTS
}
trim() { sed -E 's/^ +| +$//g' <<<"$1"; }

if [ "${1:-}" = --list ]; then
  faults | cut -d'|' -f1 | tr -d ' '
  exit
fi
binary=$(realpath "${1:?usage: scripts/planted-faults.sh BINARY [FAULT ...]}")
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
device=${DEVICE:-$work/device}
[ -e "$device/libcuda.so.1" ] || tests/device/build.sh "$kernels" "$device"
groups=${GROUPS_OF_CHECKS:-$("$binary" selftest --list | grep -vx rollout | paste -sd,)}

# Prints the groups that fail on the device in folder $1, each once.
failing() {
  LD_LIBRARY_PATH=$1 "$binary" selftest --filter "$groups" --output-format json >"$work/checks" 2>"$work/log" || true
  if ! grep -q '^[0-9]* checks, [0-9]* failed$' "$work/log"; then
    # The device found the fault itself and stopped the process. The last check belongs to this group or the one before.
    echo "stopped: $(grep -m 1 . "$work/log")" >&2
  fi
  sed -nE '/"ok":false/s/.*"name":"([^:"]*).*/\1/p' "$work/checks" | awk '!seen[$0]++' | paste -sd' '
}

missed=0
printf '%-18s %-17s %-8s %s\n' fault group verdict "groups that failed"
sound=$(failing "$device")
printf '%-18s %-17s %-8s %s\n' none - "$([ -z "$sound" ] && echo ok || echo FAILS)" "$sound"
[ -z "$sound" ] || missed=1
while IFS='|' read -r name group file edit; do
  name=$(trim "$name") group=$(trim "$group") file=$(trim "$file") edit=$(trim "$edit")
  [ $# -eq 0 ] || [[ " $* " == *" $name "* ]] || continue
  rm -rf "$work/kernels" "$work/faulty"
  cp -r "$kernels" "$work/kernels"
  sed -E -i "$edit" "$work/kernels/$file"
  if cmp -s "$kernels/$file" "$work/kernels/$file"; then
    echo "$name: no match in $file for $edit" >&2
    exit 2
  fi
  tests/device/build.sh "$work/kernels" "$work/faulty" "$device"
  found=$(failing "$work/faulty")
  if [[ " $found " == *" $group "* ]]; then verdict=found; else verdict=MISSED missed=1; fi
  printf '%-18s %-17s %-8s %s\n' "$name" "$group" "$verdict" "$found"
done < <(faults)
exit $missed
