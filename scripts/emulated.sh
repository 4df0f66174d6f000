#!/usr/bin/env bash
# Tests the CUDA path of a binary on the emulated GPU of tests/device more thoroughly than `cargo test`: on every GPU model, with
# deferred work, other thread orders, failing allocations and every objective. Needs g++, but neither a GPU nor CUDA.
#
#   scripts/emulated.sh BINARY [FOLDER] [PART ...]
#
# Writes logs to FOLDER (default: a new temporary folder). Parts (default: all but the last three, which take longer):
#   selftest    every check with five seeds, and in reverse and shuffled thread order
#   modes       the self-test with guard pages around every buffer, and with work deferred until the program waits for it
#   profiles    the self-test on every GPU model; training with rank 32 on the L40S
#   faults      two training steps with the 1st to 40th allocation failing
#   objectives  two training steps with every loss, and with Qwen3's norms, a Llama shape and odd ranks
#   commands    generate, merge, and a sweep with two GPUs
#   run         the full default run of the embedded model on the emulated GPU and on the CPU
#   widths      the layer sizes of Qwen2.5-7B with 2 layers and random weights: 8 rows of 4 tokens, and one training step
#   model       with MODEL=FILE.gguf: greedy tokens on the emulated GPU and on the CPU, and one training step
set -uo pipefail
cd "$(dirname "$0")/.."
binary=$(realpath "${1:?usage: scripts/emulated.sh BINARY [FOLDER] [PART ...]}")
out=$(realpath -m "${2:-$(mktemp -d)}")
shift; [ $# -gt 0 ] && shift
parts=${*:-selftest modes profiles faults objectives commands}
mkdir -p "$out"
table=$out/table.txt
: >"$table"

tests/device/build.sh src/device/cuda/kernels "$out/device" || exit 1
export LD_LIBRARY_PATH=$out/device RFT_RUN__DIR=$out/runs

wanted() { [[ " $parts " == *" $1 "* ]]; }

# part NAME COMMAND...: runs the command and records its result, its seconds and its last line.
part() {
  local name=$1 log started=$SECONDS status verdict
  shift
  log=$out/${name// /-}.log
  "$@" >"$log" 2>&1
  status=$?
  verdict=ok
  [ $status -eq 0 ] || verdict=FAILED
  printf '%-36s %-7s %5ss  %s\n' "$name" "$verdict" $((SECONDS - started)) "$(tail -n 1 "$log" | cut -c1-150)" | tee -a "$table"
  return $status
}

small=(train --ppe null-example --device cuda --steps 2 --set rollout.prompts_per_step=2 --set rollout.num_generations=4
  --set eval.questions=0)

if wanted selftest; then
  for seed in 1 2 3 4 5; do part "selftest seed $seed" "$binary" selftest --seed "$seed"; done
  for order in reverse shuffled; do part "selftest $order" env RFT_EMU_ORDER=$order "$binary" selftest; done
fi

if wanted modes; then
  part "selftest guarded" env RFT_EMU_ALIGN=16 "$binary" selftest --guarded
  part "selftest deferred" env RFT_EMU_DEFERRED=1 "$binary" selftest
fi

if wanted profiles; then
  for gpu in a100 l40s b200 rtx5090; do
    part "selftest $gpu" env RFT_EMU_GPU=$gpu "$binary" selftest
  done
  part "train l40s rank 32" env RFT_EMU_GPU=l40s "$binary" "${small[@]}" --set lora.r=32 --set lora.lora_alpha=32 --name l40s
  part "train without pools" env RFT_EMU_POOLS=0 "$binary" "${small[@]}" --name no-pools
fi

if wanted faults; then
  # Each run exits with code 1 and one error, or succeeds with the memory it has.
  failing() {
    local n codes=""
    for n in $(seq 1 40); do
      RFT_EMU_FAIL_ALLOCATION=$n "$binary" "${small[@]}" --name "fault-$n" >"$out/fault-$n.log" 2>&1
      case $? in
        0) codes+="." ;;
        1) codes+="e"; grep -q '^error: ' "$out/fault-$n.log" && grep -q '^hint: ' "$out/fault-$n.log" || { codes+="?"; bad=1; } ;;
        *) codes+="X"; bad=1 ;;
      esac
    done
    echo "$codes (. success, e error with a hint, ? error without a hint, X anything else)"
    [ -z "${bad:-}" ]
  }
  part "allocations 1 to 40 fail" failing
fi

if wanted objectives; then
  for loss in grpo dapo dr_grpo bnpo gspo cispo; do
    part "train $loss" "$binary" "${small[@]}" --set grpo.loss_type=$loss --set grpo.epsilon_high=5.0 --set grpo.num_iterations=2 --set grpo.beta=0.01 --name "$loss"
  done
  for rank in 1 3 7 12; do
    part "train rank $rank" "$binary" "${small[@]}" --set lora.r=$rank --name "rank-$rank"
  done
  part "train some modules" "$binary" "${small[@]}" --set 'lora.target_modules=["q_proj","v_proj"]' --name modules
  part "train with checkpointing" "$binary" "${small[@]}" --set train.gradient_checkpointing=true --name checkpointing
  for kind in qwen3 llama; do
    scripts/random-model.py "$kind" 2 "$out/$kind"
    part "train $kind" "$binary" "${small[@]}" --model "$out/$kind" --data arithmetic --name "$kind"
  done
fi

if wanted commands; then
  [ -e "$out/runs/grpo" ] || "$binary" "${small[@]}" --name grpo >/dev/null 2>&1
  part generate "$binary" generate --device cuda --adapter "$out/runs/grpo" "Anna has 12 apples and buys 5 more. How many apples does she have?"
  part merge "$binary" merge "$out/runs/grpo" --out "$out/merged"
  part evaluate "$binary" eval --device cuda --bench arithmetic-1 --limit 16 --out "$out/eval"
  cat >"$out/two.toml" <<'TOML'
[sweep]
name = "two"
seeds = [1, 2]
[sweep.grid]
"prompt.ppe" = ["reasoning", "null-example"]
[run]
device = "cuda"
[train]
steps = 2
[rollout]
prompts_per_step = 2
num_generations = 4
[eval]
questions = 0
TOML
  part "sweep on two GPUs" env RFT_EMU_DEVICES=2 bash -c "cd '$out' && '$binary' sweep two.toml --jobs 2 --gpus 0,1"
fi

if wanted run; then
  part "default run, CPU" "$binary" train --ppe null-example --device cpu --name default-cpu
  part "default run, emulated GPU" "$binary" train --ppe null-example --device cuda --name default-cuda
  grep -h '^held-out' "$out"/default-run*.log
fi

if wanted widths; then
  scripts/random-model.py qwen2.5-7b 2 "$out/7b"
  part "7B widths: one step" env RFT_EMU_SUMMARY=1 "$binary" train --device cuda --ppe reasoning --model "$out/7b" --data arithmetic --steps 1 \
    --set lora.r=32 --set rollout.prompts_per_step=1 --set rollout.num_generations=8 --set rollout.max_completion_length=4 \
    --set eval.questions=0 --name widths
fi

if wanted model; then
  greedy() {
    local device
    for device in cpu cuda; do
      "$binary" generate --device $device --model "${MODEL:?a GGUF file or a folder}" --temperature 0 --max-tokens 8 \
        --output-format json "What is 7 times 8?" >"$out/greedy-$device.json" || return 1
    done
    python3 - "$out"/greedy-{cpu,cuda}.json <<'PY'
import json, sys
cpu, cuda = (json.load(open(path)) for path in sys.argv[1:])
apart = max(abs(a - b) for a, b in zip(cpu["logprobs"], cuda["logprobs"]))
print(cpu["tokens"], cuda["tokens"], f"log-probabilities differ by at most {apart:.4f}")
sys.exit(cpu["tokens"] != cuda["tokens"] or apart > 0.1)
PY
  }
  part "model: greedy tokens" greedy
  part "model: one training step" "$binary" train --device cuda --ppe reasoning --model "$MODEL" --data arithmetic --steps 1 \
    --set rollout.prompts_per_step=1 --set rollout.num_generations=2 --set rollout.max_completion_length=8 --set eval.questions=0 --name model
fi

echo
cat "$table"
! grep -q FAILED "$table"
