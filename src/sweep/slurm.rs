//! A sweep as Slurm job arrays: their tasks, their scripts, and the output of Slurm's commands.
//!
//! The runs are one array. The evaluations of a run are one task of a second array with the same number, which `aftercorr` starts
//! when that run has succeeded. Evaluations that do not wait for a run are a third array.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::file::SlurmSection;
use super::folder::{SweepRecord, TaskState};
use super::task::in_shell;

/// A job array, before or after it is submitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Array {
    pub kind: String,
    /// For each task number, the names of the runs or evaluations that the task does in sequence.
    pub tasks: BTreeMap<usize, Vec<String>>,
}

/// The arrays to submit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlurmPlan {
    pub runs: Array,
    /// The evaluations of those runs.
    pub evals: Array,
    /// The evaluations of runs that are already in the queue, by the job of the run.
    pub evals_after: BTreeMap<u64, Array>,
    /// The evaluations that can start now.
    pub ready: Array,
}

impl Array {
    pub fn new(kind: &str) -> Self {
        Self { kind: kind.to_owned(), tasks: BTreeMap::new() }
    }

    fn add(&mut self, number: usize, name: &str) {
        self.tasks.entry(number).or_default().push(name.to_owned());
    }

    /// `0,2-4`.
    pub fn numbers(&self) -> String {
        let mut ranges: Vec<(usize, usize)> = Vec::new();
        for &number in self.tasks.keys() {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == number => *last = number,
                _ => ranges.push((number, number)),
            }
        }
        let shown =
            |(first, last): (usize, usize)| if first == last { first.to_string() } else { format!("{first}-{last}") };
        ranges.into_iter().map(shown).collect::<Vec<_>>().join(",")
    }
}

/// The tasks that are neither done on disk nor in the queue. `queued` has the job of each task that is waiting or running.
pub fn plan(record: &SweepRecord, states: &BTreeMap<String, TaskState>, queued: &BTreeMap<String, u64>) -> SlurmPlan {
    let (mut runs, mut evals, mut ready) = (Array::new("runs"), Array::new("evals"), Array::new("ready"));
    let mut evals_after: BTreeMap<u64, Array> = BTreeMap::new();
    let is_done = |name: &str| states.get(name) == Some(&TaskState::Done);
    for (number, run) in record.runs.iter().enumerate() {
        if !is_done(&run.name) && !queued.contains_key(&run.name) {
            runs.add(number, &run.name);
        }
    }
    for (number, eval) in record.evals.iter().enumerate() {
        if is_done(&eval.name) || queued.contains_key(&eval.name) {
            continue;
        }
        let run = eval.run.as_deref().and_then(|name| record.runs.iter().position(|it| it.name == name));
        match run {
            // Numbers after those of the runs.
            None => ready.add(record.runs.len() + number, &eval.name),
            Some(run) if is_done(&record.runs[run].name) => ready.add(run, &eval.name),
            Some(run) => match queued.get(&record.runs[run].name) {
                Some(job) => evals_after.entry(*job).or_insert_with(|| Array::new("evals")).add(run, &eval.name),
                None => evals.add(run, &eval.name),
            },
        }
    }
    SlurmPlan { runs, evals, evals_after, ready }
}

/// The script of an array, for `sbatch`.
pub fn script(sweep: &str, folder: &Path, rft: &Path, section: &SlurmSection, array: &Array) -> String {
    let mut options = vec![
        format!("--job-name={sweep}-{}", array.kind),
        format!("--array={}{}", array.numbers(), section.parallel.map(|it| format!("%{it}")).unwrap_or_default()),
        format!("--output={}", in_shell(&[folder.join("logs/slurm-%A-%a.log").display().to_string()])),
        "--open-mode=append".to_owned(),
        "--requeue".to_owned(),
        format!("--signal=B:USR1@{}", section.signal),
    ];
    let given = [
        ("partition", &section.partition),
        ("account", &section.account),
        ("gres", &section.gres),
        ("time", &section.time),
        ("mem", &section.mem),
        ("cpus-per-task", &section.cpus.map(|it| it.to_string())),
    ];
    options.extend(given.into_iter().filter_map(|(name, value)| Some(format!("--{name}={}", value.as_ref()?))));
    options.extend(section.options.iter().cloned());
    let mut text = "#!/bin/bash\n# Written by `rft sweep --slurm`.\n".to_owned();
    for option in options {
        _ = writeln!(text, "#SBATCH {option}");
    }
    text.push('\n');
    for line in &section.setup {
        _ = writeln!(text, "{line}");
    }
    let threads = section.cpus.map(|cpus| format!(" --threads {cpus}")).unwrap_or_default();
    let quoted = |path: &Path| in_shell(&[path.display().to_string()]);
    _ = writeln!(text, "declare -a tasks");
    for (number, names) in &array.tasks {
        _ = writeln!(text, "tasks[{number}]='{}'", names.join(" "));
    }
    _ = write!(
        text,
        r#"
# Forward signals to the running process, which saves its state and ends.
trap 'kill -USR1 "$child" 2>/dev/null' USR1
trap 'kill -TERM "$child" 2>/dev/null' TERM
for name in ${{tasks[$SLURM_ARRAY_TASK_ID]}}; do
    {rft} sweep task {folder} "$name"{threads} &
    child=$!
    # A signal interrupts `wait` before the process has ended.
    while wait "$child"; status=$?; kill -0 "$child" 2>/dev/null; do :; done
    # 138: the process got SIGUSR1 because its time is up. It resumes after it is requeued.
    if [ "$status" = 138 ]; then
        scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"
    fi
    [ "$status" = 0 ] || exit "$status"
done
"#,
        rft = quoted(rft),
        folder = quoted(folder),
    );
    text
}

/// The ID of a job, from the output of `sbatch --parsable`.
pub fn job_of(reply: &str) -> Result<u64> {
    let line = reply.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    let number = line.split(';').next().unwrap_or_default().trim();
    number.parse().with_context(|| format!("sbatch: expected a job ID, found `{}`", reply.trim()))
}

/// The output formats of `squeue` and `sacct`, with one line per task of an array.
pub const QUEUE_FORMAT: &str = "--format=%i|%T";
pub const ACCOUNT_FORMAT: &str = "--format=JobID,State,ExitCode";

/// The tasks (job, number) that `squeue` lists as waiting, running or ending, with their states.
pub fn queue(reply: &str) -> BTreeMap<(u64, usize), String> {
    let ended = ["COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE"];
    let line = |line: &str| {
        let (id, state) = line.trim().split_once('|')?;
        let state = state.split('|').next()?.trim();
        (!ended.contains(&state)).then_some((task_of(id)?, state.to_owned()))
    };
    reply.lines().filter_map(line).collect()
}

/// The final states of tasks according to `sacct`: state and exit code.
pub fn accounts(reply: &str) -> BTreeMap<(u64, usize), String> {
    let line = |line: &str| {
        let mut fields = line.trim().split('|');
        let (id, state, code) = (fields.next()?, fields.next()?, fields.next()?);
        Some((task_of(id)?, format!("{state}, exit code {code}")))
    };
    reply.lines().filter_map(line).collect()
}

/// `12_3`: job 12, number 3.
fn task_of(id: &str) -> Option<(u64, usize)> {
    let (job, number) = id.split_once('_')?;
    Some((job.parse().ok()?, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::expand::{Eval, SweepRun};

    fn record() -> SweepRecord {
        let run = |name: &str| SweepRun { name: name.into(), arm: name.into(), seed: 1, varies: BTreeMap::new() };
        let eval = |name: &str, run: Option<&str>| Eval {
            name: name.into(),
            run: run.map(str::to_owned),
            arm: None,
            seed: None,
            test_prompt: "none".into(),
            benches: vec!["arithmetic".into()],
            ppe: None,
            mix: Vec::new(),
            config: "a".into(),
        };
        SweepRecord {
            rft: "0".into(),
            name: "s".into(),
            demonstration: false,
            notes: Vec::new(),
            seeds: vec![1],
            runs: ["a", "b", "c", "d"].map(run).into(),
            evals: vec![
                eval("base", None),
                eval("a-own", Some("a")),
                eval("a-none", Some("a")),
                eval("b-own", Some("b")),
                eval("c-own", Some("c")),
                eval("d-own", Some("d")),
            ],
            eval_args: Vec::new(),
        }
    }

    fn array(kind: &str, tasks: &[(usize, &[&str])]) -> Array {
        let names = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect();
        Array { kind: kind.into(), tasks: tasks.iter().map(|(number, it)| (*number, names(it))).collect() }
    }

    #[test]
    fn what_is_done_or_queued_is_not_submitted() {
        let everything = plan(&record(), &BTreeMap::new(), &BTreeMap::new());
        assert_eq!(everything.runs, array("runs", &[(0, &["a"]), (1, &["b"]), (2, &["c"]), (3, &["d"])]));
        assert_eq!(
            everything.evals,
            array("evals", &[(0, &["a-own", "a-none"]), (1, &["b-own"]), (2, &["c-own"]), (3, &["d-own"])])
        );
        assert_eq!((everything.ready, everything.evals_after), (array("ready", &[(4, &["base"])]), BTreeMap::new()));

        let states =
            [("a", TaskState::Done), ("base", TaskState::Done), ("a-own", TaskState::Done), ("d", TaskState::Failed)];
        let states = states.map(|(name, state)| (name.to_owned(), state)).into();
        let queued = [("b".to_owned(), 7), ("c".to_owned(), 7), ("c-own".to_owned(), 8)].into();
        let rest = plan(&record(), &states, &queued);
        assert_eq!(rest.runs, array("runs", &[(3, &["d"])]));
        assert_eq!(rest.evals, array("evals", &[(3, &["d-own"])]));
        assert_eq!(rest.ready, array("ready", &[(0, &["a-none"])]));
        assert_eq!(rest.evals_after, [(7, array("evals", &[(1, &["b-own"])]))].into());
    }

    #[test]
    fn numbers_are_written_as_ranges() {
        let numbers = |list: &[usize]| {
            let tasks: Vec<(usize, &[&str])> = list.iter().map(|it| (*it, &["x"][..])).collect();
            array("runs", &tasks).numbers()
        };
        assert_eq!(numbers(&[0, 1, 2, 4, 7, 8]), "0-2,4,7-8");
        assert_eq!(numbers(&[3]), "3");
    }

    #[test]
    fn replies_are_read() {
        assert_eq!(job_of("123\n").unwrap(), 123);
        assert_eq!(job_of("sbatch: note\n123;cluster\n").unwrap(), 123);
        assert!(job_of("sbatch: error: nothing").is_err());
        let found = queue("12_0|RUNNING\n12_1|PENDING\n12_2|COMPLETED\n13|RUNNING\n\n 12_4|COMPLETING|None\n");
        let expected = [((12, 0), "RUNNING"), ((12, 1), "PENDING"), ((12, 4), "COMPLETING")];
        assert_eq!(found, expected.map(|(task, state)| (task, state.to_owned())).into());
        let ended = accounts("12_0|COMPLETED|0:0\n12_1|FAILED|1:0\n12_1.batch|FAILED|1:0\n12_[3-5]|PENDING|0:0\n");
        assert_eq!(ended.len(), 2);
        assert_eq!(ended[&(12, 1)], "FAILED, exit code 1:0");
    }
}
