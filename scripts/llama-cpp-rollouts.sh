#!/usr/bin/env bash
# Trains the embedded model twice, with rollouts in the process and on llama.cpp's server, and compares the held-out accuracies.
# The server gets the adapter of every step by a restart. Then checks that a server with another adapter stops the first step.
#
#   scripts/llama-cpp-rollouts.sh [STEPS]
#
# Installs llama.cpp (the package xllamacpp) into a virtual environment that is removed at the end; VENV=FOLDER keeps one and
# uses it again. RFT is the program (default: target/release/rft).
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
rft=$(realpath "${RFT:-$root/target/release/rft}")
steps=${1:-20}
work=$(mktemp -d)
venv=${VENV:-$work/venv}
port=$((20000 + RANDOM % 20000))
trap 'kill "$(cat "$work/pid" 2> /dev/null)" 2> /dev/null || true; rm -rf "$work"' EXIT
if ! "$venv/bin/python" -c 'import xllamacpp' 2> /dev/null; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --only-binary :all: xllamacpp==2026.10.11549
fi
cd "$work"

# The base model as GGUF: merged with an adapter that has practically not moved.
"$rft" train --quiet --ppe reasoning --steps 1 --name base --set train.learning_rate=1e-12 --set eval.questions=0 > /dev/null
"$rft" merge runs/base --gguf --dtype f32 --out base.gguf > /dev/null

cat > reload.sh << END
#!/usr/bin/env bash
# Restarts the server with the adapter in the folder that is given.
set -euo pipefail
if [ -f "$work/pid" ]; then
  kill "\$(cat "$work/pid")"
  while kill -0 "\$(cat "$work/pid")" 2> /dev/null; do sleep 0.05; done
fi
setsid "$venv/bin/python" "$root/tests/oracle/llama_cpp_server.py" "$work/base.gguf" $port "\$1/adapter.gguf" > "$work/server.log" 2>&1 < /dev/null &
echo \$! > "$work/pid"
for _ in \$(seq 600); do
  if (exec 3<> /dev/tcp/127.0.0.1/$port) 2> /dev/null && grep -q '^http' "$work/server.log"; then exit 0; fi
  sleep 0.1
done
tail -n 3 "$work/server.log"
exit 1
END
chmod +x reload.sh
common=(--quiet --ppe reasoning --steps "$steps" --set rollout.prompts_per_step=8)
servers=(--set "rollout.endpoints=[\"http://127.0.0.1:$port\"]" --set rollout.server=command --set rollout.requests_per_endpoint=4)

echo "local rollouts"
"$rft" train "${common[@]}" --name local
echo "rollouts on llama.cpp"
"$rft" train "${common[@]}" --name served "${servers[@]}" --set "rollout.reload_command=[\"$work/reload.sh\"]"
python3 - << 'END'
import json

keys = ["sampling/sampling_logp_difference/mean", "sampling/sampling_logp_difference/max", "sampling/adapter_effect"]
keys += [f"sampling/importance_sampling_ratio/{end}" for end in ("min", "mean", "max")]
lines = [json.loads(line) for line in open("runs/served/metrics.jsonl")]
for key in keys:
    values = [value for line in lines if (value := line.get(key, line.get("values", {}).get(key))) is not None]
    print(f"{key:45} min {min(values):.5f}  mean {sum(values) / len(values):.5f}  max {max(values):.5f}  ({len(values)} steps)")
END

echo "a server with another adapter"
kill "$(cat pid)"
"$rft" export runs/served --gguf > /dev/null
mkdir -p other && cp runs/served/adapter.gguf other/adapter.gguf
rm pid && ./reload.sh other
if "$rft" train "${common[@]}" --name wrong "${servers[@]}" --set 'rollout.reload_command=["true"]' --set eval.questions=0 2> wrong.log; then
  echo "error: the run was not stopped" >&2
  exit 1
fi
grep "^error: step 1: " wrong.log
