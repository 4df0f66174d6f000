#!/usr/bin/env bash
# Checks that a sweep gives the same results with and without Slurm. Starts slurmctld and slurmd on this machine, in a temporary
# folder, executes six small runs there, requeues one in the middle, signals another that its time is up, and compares adapters
# and evaluations byte for byte with those of the same sweep without Slurm.
#
#   scripts/slurm-check.sh [RFT]     run as root; needs slurmctld, slurmd and munge (Debian: slurm-wlm); installs nothing
set -euo pipefail
cd "$(dirname "$0")/.."
rft=$(realpath "${1:-target/release/rft}")
for program in slurmctld slurmd munged sbatch squeue scontrol; do
    command -v "$program" >/dev/null || { echo "$program not found; on Debian, install slurm-wlm"; exit 2; }
done
[ "$(id -u)" = 0 ] || { echo "slurmd must be started as root"; exit 2; }

work=$(mktemp -d)
chmod 755 "$work"
pids=()
# From here on, no command can reach another cluster.
export SLURM_CONF="$work/slurm.conf"
finish() {
    # The processes of a job keep running after the daemons end, so cancel the jobs first.
    squeue --noheader --format=%A 2>/dev/null | sort -u | xargs --no-run-if-empty scancel 2>/dev/null || true
    for _ in $(seq 30); do [ -z "$(squeue --noheader 2>/dev/null)" ] && break; sleep 1; done
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    [ -n "${KEEP:-}" ] || rm -rf "$work"
}
trap finish EXIT

# munge with its own socket and key.
mkdir -m 700 "$work/munge"
mkdir -m 755 "$work/munge.run"
head -c 1024 /dev/urandom >"$work/munge/key"
chmod 400 "$work/munge/key"
munged --foreground --force --key-file="$work/munge/key" --socket="$work/munge.run/socket" \
    --pid-file="$work/munge.run/pid" --log-file="$work/munge/log" --seed-file="$work/munge/seed" 2>"$work/munge/out" &
pids+=($!)

host=$(hostname -s)
mkdir -p "$work/state" "$work/spool"
cat >"$work/slurm.conf" <<CONF
ClusterName=check
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$work/munge.run/socket
CredType=cred/munge
SlurmctldPort=16817
SlurmdPort=16818
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=1,sched_interval=5
MpiDefault=none
ReturnToService=2
KillWait=20
MinJobAge=300
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=main Nodes=$host Default=YES State=UP MaxTime=INFINITE
CONF
for _ in $(seq 50); do [ -S "$work/munge.run/socket" ] && break; sleep 0.1; done
slurmctld -D -f "$SLURM_CONF" >"$work/slurmctld.out" 2>&1 & pids+=($!)
slurmd -D -f "$SLURM_CONF" >"$work/slurmd.out" 2>&1 & pids+=($!)
for _ in $(seq 60); do sinfo -h -o %T 2>/dev/null | grep -q '^idle' && break; sleep 1; done
sinfo || { tail "$work"/slurm*.log "$work"/slurm*.out; exit 1; }

# Six runs that save their state at every step.
cat >"$work/sweep.toml" <<'SWEEP'
preset = "tiny"
rollout.prompts_per_step = 4
rollout.num_generations = 4
train.steps = 16
train.save_steps = 1
eval.questions = 8
[sweep]
name = "six"
seeds = [1, 2]
jobs = 2
[sweep.grid]
"prompt.ppe" = ["reasoning", "null-example", "none"]
[sweep.eval]
benchmarks = ["arithmetic-1"]
limit = 16
max_tokens = 64
[slurm]
partition = "main"
cpus = 1
time = "10:00"
signal = 20
SWEEP
cd "$work"
step() { tail -n 1 "through/runs/$1/metrics.jsonl" 2>/dev/null | sed -n 's/.*"step":\([0-9]*\).*/\1/p'; }

"$rft" sweep sweep.toml --slurm --out through >through.out 2>through.err & follower=$!
for _ in $(seq 600); do [ "$(step reasoning-s1 || true)" -ge 3 ] 2>/dev/null && break; sleep 0.2; done
runs=$(sed -n 's/^job *\([0-9]*\) submitted: runs.*/\1/p' through.err)
echo "requeue ${runs}_0 at step $(step reasoning-s1)"
scontrol requeue "${runs}_0"
# Send another run the signal for an approaching time limit; its job requeues itself.
for _ in $(seq 600); do [ "$(step null-example-s1 || true)" -ge 3 ] 2>/dev/null && break; sleep 0.2; done
echo "SIGUSR1 to ${runs}_1 at step $(step null-example-s1)"
# scancel repeats the signal until the job confirms it, but the job has already ended by then.
timeout 10 scancel --batch --signal=USR1 "${runs}_1" 2>/dev/null || true
wait "$follower" || { cat through.err; tail -n 20 through/logs/*; exit 1; }
cat through.err through.out

for run in reasoning-s1 null-example-s1; do
    sessions=$(grep -c '"started"' "through/runs/$run/manifest.json")
    echo "$run: $sessions sessions"
    [ "$sessions" -ge 2 ] || { echo "$run was not interrupted"; exit 1; }
done
"$rft" sweep sweep.toml --out alone >alone.out 2>alone.err
compared=0
while read -r file; do
    cmp "alone/$file" "through/$file" || exit 1
    compared=$((compared + 1))
done < <(cd alone && find runs/*/adapter runs/*/completions.jsonl evals -type f ! -name .lock | sort)
echo "$compared files are identical"
