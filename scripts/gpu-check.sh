#!/usr/bin/env bash
# Checks and measures a binary on a machine with a GPU. Needs a CUDA driver and PyTorch, but not Rust. Compares results with the
# CPU, trains the embedded model, and measures speed relative to the device's floors and to transformers + PEFT. A part that fails
# or takes too long does not stop the others. A table of all results is printed at the end.
#
#   scripts/gpu-check.sh BINARY [FOLDER] [PART ...]
#
# BINARY is built elsewhere with `cargo build --release` and stripped. Logs are written to FOLDER (default: a new temporary
# folder). Parts: sanity selftest train perf peers sanitizer (default: all). All parts take at most 10 minutes (BUDGET, in
# seconds). PYTHON is the interpreter that has PyTorch; SHAPE is the model's shape (default: qwen2.5-7b).
set -uo pipefail
cd "$(dirname "$0")/.."
binary=${1:?usage: scripts/gpu-check.sh BINARY [FOLDER] [PART ...]}
out=${2:-$(mktemp -d)}
shift; [ $# -gt 0 ] && shift
parts=${*:-sanity selftest train perf peers sanitizer}
python=${PYTHON:-python3}
shape=${SHAPE:-qwen2.5-7b}
mkdir -p "$out"
end=$((SECONDS + ${BUDGET:-585}))
table=$out/table.txt
: >"$table"

# Use the CUDA libraries that are installed with PyTorch, in whichever folders of its packages they are.
libraries=$("$python" - <<'PY'
import glob, os, site, sysconfig
roots = {sysconfig.get_paths()["purelib"], *site.getsitepackages(), site.getusersitepackages()}
found = {os.path.dirname(path) for root in roots for path in glob.glob(root + "/nvidia/*/lib/lib*.so*")}
print(":".join(sorted(found)))
PY
)
export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}

row() { printf '%-42s %-8s %4ss  %s\n' "$1" "$2" "$3" "$4" >>"$table"; }

# part NAME LIMIT COMMAND...: runs the command with a time limit, which is reduced if the budget is short, and records its result.
part() {
  local name=$1 limit=$2 log started=$SECONDS status verdict note
  shift 2
  log=$out/${name// /-}.log
  [ $((end - SECONDS)) -lt "$limit" ] && limit=$((end - SECONDS))
  if [ "$limit" -lt 3 ]; then
    row "$name" skipped 0 "no time left"
    return 1
  fi
  echo "== $name" >&2
  timeout -k 5 "$limit" "$@" >"$log" 2>&1
  status=$?
  case $status in
    0) verdict=ok ;;
    124 | 137) verdict="too slow" ;;
    *) verdict=FAILED ;;
  esac
  note=$(grep -m 1 '^error: ' "$log" || tail -n 1 "$log")
  row "$name" "$verdict" $((SECONDS - started)) "${note:0:160}"
  return $status
}

wanted() { [[ " $parts " == *" $1 "* ]]; }

if wanted sanity; then
  part driver 20 nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
  part libraries 20 "$binary" doctor
  part start 20 "$binary" --version
fi

# Train the embedded model on the CPU while the checks run. The GPU's run is compared with it.
if wanted train; then
  timeout -k 5 200 "$binary" train --ppe null-example --device cpu --threads 8 --set run.dir="$out/runs" --name tiny-cpu \
    >"$out/train-tiny-cpu.log" 2>&1 &
  cpu_run=$!
fi

if wanted selftest; then
  # One group at a time, because a crash destroys the GPU context of its process.
  groups=$(timeout 60 "$binary" selftest --list 2>"$out/selftest-list.log") ||
    row selftest FAILED 0 "$(head -n 1 "$out/selftest-list.log" | cut -c1-160)"
  for group in $groups; do
    part "selftest $group" 60 "$binary" selftest --filter "$group" || {
      # With this setting, launches wait for their kernel, so the error names the kernel that failed.
      grep -q 'CUDA_ERROR\|panicked' "$out/selftest-$group.log" &&
        part "again $group" 60 env CUDA_LAUNCH_BLOCKING=1 "$binary" selftest --filter "$group"
    }
  done
  grep -h '^FAILED' "$out"/selftest-*.log "$out"/again-*.log >"$out/failed-checks.txt" 2>/dev/null
fi

if wanted train; then
  part "train tiny" 150 "$binary" train --ppe null-example --device cuda --set run.dir="$out/runs" --name tiny-cuda

  # Train the same few steps twice: completions and adapter must be identical.
  for run in first second; do
    part "train $run" 60 "$binary" train --ppe null-example --device cuda --set run.dir="$out/runs" --name "$run" \
      --steps 8 --set eval.questions=0
  done
  for file in completions.jsonl adapter/adapter_model.safetensors; do
    if ! [ -e "$out/runs/first/$file" ] || ! [ -e "$out/runs/second/$file" ]; then
      row "the same twice: ${file##*/}" skipped - "not written by both runs"
    elif cmp "$out/runs/first/$file" "$out/runs/second/$file" >"$out/same.log" 2>&1; then
      row "the same twice: ${file##*/}" ok - "identical after 8 steps"
    else
      row "the same twice: ${file##*/}" FAILED - "$(tail -n 1 "$out/same.log")"
    fi
  done

  wait "$cpu_run" && row "train tiny on the CPU" ok - "" || row "train tiny on the CPU" FAILED - "$(tail -n 1 "$out/train-tiny-cpu.log")"
fi

if wanted perf; then
  # Run `step` before `ops`: three GRPO steps at this shape, each of which must change the adapter.
  for what in decode train step ops; do
    part "perf $what" 130 "$binary" perf "$what" --model-shape "$shape"
  done
fi

if wanted peers; then
  size=${shape#qwen2.5-}
  part "peer train 1024" 75 "$python" benches/peers/train.py --shape "$size" --length 1024
  part "peer train 4096" 75 "$python" benches/peers/train.py --shape "$size" --length 4096
  part "peer generate" 90 "$python" benches/peers/generate.py --shape "$size" --batch 8 64
  part "peer grpo" 120 "$python" benches/peers/grpo.py --shape "$size"
fi

if wanted sanitizer; then
  sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | head -n 1)
  if [ -n "$sanitizer" ]; then
    for group in swiglu rows attention; do
      part "memcheck $group" 45 "$sanitizer" --tool memcheck --error-exitcode 3 "$binary" selftest --guarded --filter "$group"
    done
    part "racecheck swiglu" 45 "$sanitizer" --tool racecheck --error-exitcode 3 "$binary" selftest --filter swiglu
  else
    row sanitizer skipped 0 "compute-sanitizer is not installed"
  fi
fi

echo
if [ -s "$out/failed-checks.txt" ]; then
  echo "Checks that failed:"
  cat "$out/failed-checks.txt"
  echo
fi
for log in "$out"/train-tiny*.log; do
  [ -e "$log" ] && echo "$(basename "$log" .log):" && grep -h '^held-out' "$log"
done
echo
for log in "$out"/perf-*.log; do
  [ -e "$log" ] && sed "s/^/  /" "$log" && echo
done
for log in "$out"/peer-*.log; do
  [ -e "$log" ] && grep -h '^{"peer"' "$log"
done
echo
cat "$table"
! grep -q 'FAILED' "$table"
