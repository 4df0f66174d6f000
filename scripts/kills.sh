#!/usr/bin/env bash
# Kills training runs and evaluations of the embedded model at random moments (SIGKILL), resumes each until it is done, and compares
# the files with those of an undisturbed run. Prints the number of kills and of differences; fails if there is a difference.
#
#   scripts/kills.sh [TRAINING-KILLS] [EVALUATION-KILLS]      RFT: the binary [target/release/rft]; SEED [1]
set -uo pipefail
repo=$(cd "$(dirname "$0")/.." && pwd)
rft=$(realpath "${RFT:-$repo/target/release/rft}")
train_kills=${1:-200} eval_kills=${2:-60}
RANDOM=${SEED:-1}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# What must be equal: the adapter, every completion, and all metrics but times, speeds and memory.
run_digest() {
  (cd "$1" && cat adapter/adapter_model.safetensors completions.jsonl eval/* &&
    sed -E 's/,?"(step_time|rollout_time|tokens_per_second|peak_memory_gib|[a-z_]*seconds)":[0-9.e+-]+//g' metrics.jsonl) | sha256sum
}
eval_digest() { (cd "$1" && cat ./*/questions.jsonl ./*/samples.jsonl ./*/grades.jsonl ./*/results.json) | sha256sum; }

# undisturbed FINISHED-COMMAND: its duration in milliseconds.
milliseconds() { local start; start=$(date +%s%N); "$@" >log 2>&1 || { cat log; exit 1; }; echo $((($(date +%s%N) - start) / 1000000)); }

# attack KILLS DIGEST RESULT FIRST-COMMAND NEXT-COMMAND LIMIT-MS: commands are names of functions that start the work in $1.
attack() {
  local kills=0 runs=0 differences=0 wanted=$1 digest=$2 reference=$3 first=$4 next=$5 limit=$6 folder
  while [ "$kills" -lt "$wanted" ]; do
    runs=$((runs + 1)) folder=attempt-$runs
    local command=$first tries=0
    while :; do
      $command "$folder" >log 2>&1 &
      local id=$! pause=$((RANDOM * limit / 32768))
      # Later attempts get more time, so that each run ends.
      sleep "$(printf '%d.%03d' $(((pause + tries * limit / 8) / 1000)) $(((pause + tries * limit / 8) % 1000)))"
      if kill -9 "$id" 2>/dev/null; then
        wait "$id" 2>/dev/null
        kills=$((kills + 1)) tries=$((tries + 1))
        $started "$folder" && command=$next || { rm -rf "$folder" "runs/$folder"; command=$first; }
      else
        wait "$id" || { echo "attempt $runs ended with an error:"; cat log; differences=$((differences + 1)); }
        break
      fi
    done
    [ "$($digest "$(where "$folder")")" = "$reference" ] || { differences=$((differences + 1)); echo "attempt $runs differs"; }
    rm -rf "$folder" "runs/$folder"
  done
  echo "$what: $kills kills in $runs runs, $differences differences"
  [ "$differences" -eq 0 ]
}

settings=(--ppe null-example --steps 6 --set train.save_steps=1 --set eval.questions=8 --set eval.every=3 --set train.threads=1
  --set rollout.prompts_per_step=4 --set rollout.num_generations=4)
train_first() { exec "$rft" train "${settings[@]}" --name "$1"; }
train_next() { exec "$rft" train --resume "runs/$1"; }
train_started() { [ -f "runs/$1/manifest.json" ]; }
eval_any() { exec "$rft" eval --bench arithmetic --limit 60 --ppe reasoning --out "$1"; }
always() { true; }

failed=0
what=training started=train_started
where() { echo "runs/$1"; }
limit=$(milliseconds "$rft" train "${settings[@]}" --name reference)
attack "$train_kills" run_digest "$(run_digest runs/reference)" train_first train_next "$limit" || failed=1
what=evaluation started=always
where() { echo "$1"; }
limit=$(milliseconds "$rft" eval --bench arithmetic --limit 60 --ppe reasoning --out reference)
attack "$eval_kills" eval_digest "$(eval_digest reference)" eval_any eval_any "$limit" || failed=1
exit $failed
