//! A sweep on a Slurm cluster, which is simulated by scripts.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use insta::assert_snapshot;
use tempfile::TempDir;

use super::tune::TUNED;
use super::{SMALL, results, run_sweep, states};
use crate::cli::{rft, rft_path, with};

/// Scripts in place of Slurm's commands. They record submitted arrays and run their tasks one after another when the queue is
/// queried.
fn slurm() -> TempDir {
    let bin = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = bin.path().join(name);
        fs::write(&path, format!("#!/bin/bash\ncd \"$(dirname \"$0\")\"\n{text}")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    write(
        "sbatch",
        r#"
echo "sbatch $*" >>calls
script=$(cd "$OLDPWD" && realpath "${@: -1}")
id=$((100 + $(wc -l <calls)))
numbers=$(sed -n 's/^#SBATCH --array=\([^%]*\).*/\1/p' "$script" | tr , '\n')
for range in $numbers; do
    for number in $(seq "${range%-*}" "${range#*-}"); do echo "$id|$number|$script|$OLDPWD" >>queue; done
done
echo "$id;cluster"
"#,
    );
    // In the first query everything is pending; each later query runs one more task.
    write(
        "squeue",
        r#"
echo "squeue $*" >>calls
[ -e queue ] || exit 0
if [ -e looked ] && [ -s queue ]; then
    IFS='|' read -r id number script place < <(head -n 1 queue)
    sed -i 1d queue
    (cd "$place" && PATH=$OLDPATH SLURM_ARRAY_JOB_ID=$id SLURM_ARRAY_TASK_ID=$number bash "$script" >>"$OLDPWD/out" 2>&1)
    echo "${id}_$number|FAILED|1:0" >>ended
fi
touch looked
while IFS='|' read -r id number rest; do echo "${id}_$number|PENDING"; done <queue
"#,
    );
    write("sacct", "echo \"sacct $*\" >>calls\ncat ended\n");
    bin
}

#[test]
fn a_cluster_gives_the_same_results_as_one_machine() {
    let bin = slurm();
    let calls = || fs::read_to_string(bin.path().join("calls")).unwrap();
    let text = format!(
        "{SMALL}\n[[sweep.list]]\nname = \"broken\"\n\"data.path\" = \"missing.jsonl\"\n[slurm]\npartition = \"gpu\"\ngres = \"gpu:1\"\ntime = \"1:00:00\"\ncpus = 1\nparallel = 2\nsetup = [\"export GREETING='hello there'\"]\n"
    );
    let folder = with("sweep.toml", text.as_bytes());
    let path = std::env::var("PATH").unwrap();
    let run = |args: &[&str]| {
        let output = rft(folder.path())
            .args(["sweep", "sweep.toml", "--slurm", "--set=sweep.seeds=[1]"])
            .args(args)
            .env("PATH", format!("{}:{path}", bin.path().display()))
            .env("OLDPATH", &path)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = run(&[]);
    let slurm_out = fs::read_to_string(bin.path().join("out")).unwrap_or_default();
    assert_eq!(code, Some(1), "{said}\n{slurm_out}");
    assert!(said.contains("failed   broken-s1: FAILED, exit code 1:0"), "{said}");
    assert!(said.contains("there is no data file `missing.jsonl`"), "{said}");
    let found = states(folder.path(), "sweeps/small");
    assert_eq!((found["reasoning-s1"].as_str(), found["broken-s1"].as_str()), ("done", "failed"));
    assert_eq!(found["none-s1-under-none"], "done");
    let submitted: Vec<String> = calls().lines().filter(|it| it.starts_with("sbatch")).map(str::to_owned).collect();
    assert_eq!(
        submitted,
        [
            "sbatch --parsable sweeps/small/slurm/ready.sh",
            "sbatch --parsable sweeps/small/slurm/runs.sh",
            "sbatch --parsable --dependency=aftercorr:102 --kill-on-invalid-dep=yes sweeps/small/slurm/evals.sh",
        ]
    );
    let script = fs::read_to_string(folder.path().join("sweeps/small/slurm/runs.sh")).unwrap();
    let rft = rft_path().display().to_string();
    assert_snapshot!(script.replace(&rft, "rft"), @r#"
    #!/bin/bash
    # Written by `rft sweep --slurm`.
    #SBATCH --job-name=small-runs
    #SBATCH --array=0-2%2
    #SBATCH --output=sweeps/small/logs/slurm-%A-%a.log
    #SBATCH --open-mode=append
    #SBATCH --requeue
    #SBATCH --signal=B:USR1@120
    #SBATCH --partition=gpu
    #SBATCH --gres=gpu:1
    #SBATCH --time=1:00:00
    #SBATCH --cpus-per-task=1

    export GREETING='hello there'
    declare -a tasks
    tasks[0]='reasoning-s1'
    tasks[1]='none-s1'
    tasks[2]='broken-s1'

    # Forward signals to the running process, which saves its state and ends.
    trap 'kill -USR1 "$child" 2>/dev/null' USR1
    trap 'kill -TERM "$child" 2>/dev/null' TERM
    for name in ${tasks[$SLURM_ARRAY_TASK_ID]}; do
        rft sweep task sweeps/small "$name" --threads 1 &
        child=$!
        # A signal interrupts `wait` before the process has ended.
        while wait "$child"; status=$?; kill -0 "$child" 2>/dev/null; do :; done
        # 138: the process got SIGUSR1 because its time is up. It resumes after it is requeued.
        if [ "$status" = 138 ]; then
            scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
        fi
        [ "$status" = 0 ] || exit "$status"
    done
    "#);

    // The results are the same as on one machine, and only missing tasks are submitted again.
    let alone = with("sweep.toml", SMALL.as_bytes());
    let (code, said) = run_sweep(alone.path(), &["--set=sweep.seeds=[1]"]);
    assert_eq!(code, Some(0), "{said}");
    let (here, there) = (results(&alone.path().join("sweeps/small")), results(&folder.path().join("sweeps/small")));
    assert!(here.0.iter().all(|(name, trace)| there.0.get(name) == Some(trace)));
    for (path, bytes) in here.1.iter().filter(|(path, _)| path.starts_with("evals")) {
        assert!(there.1.get(path) == Some(bytes), "{}", path.display());
    }
    let before = calls().lines().filter(|it| it.starts_with("sbatch")).count();
    let (code, said) = run(&[]);
    assert!(code == Some(1) && said.contains("failed   broken-s1"), "{said}");
    let again: Vec<String> =
        calls().lines().filter(|it| it.starts_with("sbatch")).skip(before).map(str::to_owned).collect();
    assert_eq!(again.len(), 2, "{again:?}");
    let script = fs::read_to_string(folder.path().join("sweeps/small/slurm/runs.sh")).unwrap();
    assert!(script.contains("--array=2%2"), "{script}");
}

/// The study is submitted after the trials are done and a value is chosen.
#[test]
fn trials_are_an_array_of_their_own() {
    let bin = slurm();
    let folder = with("sweep.toml", TUNED.as_bytes());
    let path = std::env::var("PATH").unwrap();
    let output = rft(folder.path())
        .args(["sweep", "sweep.toml", "--slurm"])
        .env("PATH", format!("{}:{path}", bin.path().display()))
        .env("OLDPATH", &path)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let calls = fs::read_to_string(bin.path().join("calls")).unwrap();
    let submitted: Vec<&str> = calls.lines().filter(|it| it.starts_with("sbatch")).collect();
    assert_eq!(
        submitted,
        ["sbatch --parsable sweeps/small/tune/slurm/runs.sh", "sbatch --parsable sweeps/small/slurm/runs.sh"]
    );
    let script = fs::read_to_string(folder.path().join("sweeps/small/tune/slurm/runs.sh")).unwrap();
    assert!(script.contains("#SBATCH --job-name=small-trials-runs\n") && script.contains("--array=0-3\n"), "{script}");

    let alone = with("sweep.toml", TUNED.as_bytes());
    let (code, said) = run_sweep(alone.path(), &[]);
    assert_eq!(code, Some(0), "{said}");
    let read = |folder: &std::path::Path| fs::read(folder.join("sweeps/small/tune.json")).unwrap();
    assert!(read(folder.path()) == read(alone.path()), "the choices differ");
    assert_eq!(states(folder.path(), "sweeps/small")["none-s1"], "done");
}
