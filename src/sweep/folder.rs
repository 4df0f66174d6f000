//! A sweep on disk, and the progress of each part of it, all of which is read from the disk.
//!
//! ```text
//! sweep.json          the definition of the sweep: its runs and evaluations
//! configs/RUN.toml    the plain configuration of each run, for `rft train --config`
//! runs/RUN/           run directories
//! evals/EVAL/         evaluations
//! logs/NAME.log       the output of each process; NAME.failed if the last one failed; NAME.starts counts a job's starts
//! tune/               with [sweep.tune]: its trials, in the same form
//! tune.json           with [sweep.tune]: the value chosen for each arm
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::expand::{Eval, Sweep, SweepRun};
use super::file::SweepEvalSection;
use crate::config::{self, ConfigLayers, RunConfig};
use crate::disk::atomic::{self, write_error};
use crate::disk::files;
use crate::disk::lock::{self, Lock, is_held};
use crate::run::dir::is_name;
use crate::run::status::{self, RunStatus};
use crate::run::{Manifest, RunDir, metrics, tuning};
use crate::stats::mean;

/// The folder of a sweep.
#[derive(Clone, Debug)]
pub struct SweepFolder {
    pub path: PathBuf,
}

/// `sweep.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SweepRecord {
    pub rft: String,
    pub name: String,
    pub demonstration: bool,
    pub notes: Vec<String>,
    pub seeds: Vec<u64>,
    pub runs: Vec<SweepRun>,
    pub evals: Vec<Eval>,
    /// Arguments of every evaluation.
    pub eval_args: Vec<String>,
}

/// The state of a task: of a run as `rft runs` has it, or of an evaluation; and `Waiting`, which only tasks have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// Not started.
    Waiting,
    /// A process is working on it.
    Running,
    /// It was interrupted and will be resumed.
    Interrupted,
    /// The last process ended with an error.
    Failed,
    Done,
}

impl TaskState {
    pub fn name(self) -> &'static str {
        match self {
            TaskState::Waiting => "waiting",
            TaskState::Running => "running",
            TaskState::Interrupted => "interrupted",
            TaskState::Failed => "failed",
            TaskState::Done => "done",
        }
    }
}

/// The state of a run, from its directory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RunView {
    pub state: TaskState,
    pub step: usize,
    /// If it is known.
    pub steps: Option<usize>,
    /// Reward of the last step.
    pub reward: Option<f64>,
    /// Mean time per step.
    pub seconds: Option<f64>,
}

impl RunView {
    /// Seconds until a run is trained, for a single process; from its own speed, else from the mean speed of `all` runs.
    pub fn seconds_left(&self, all: &[RunView]) -> Option<f64> {
        if self.state == TaskState::Done {
            return Some(0.0);
        }
        let known: Vec<f64> = all.iter().filter_map(|it| it.seconds).collect();
        let seconds = self.seconds.or_else(|| (!known.is_empty()).then(|| mean(&known)))?;
        Some(self.steps?.saturating_sub(self.step) as f64 * seconds)
    }
}

/// `3 done, 1 running`.
pub fn tally(states: &[TaskState]) -> String {
    let kinds = [TaskState::Done, TaskState::Running, TaskState::Interrupted, TaskState::Failed, TaskState::Waiting];
    let count = |kind: TaskState| states.iter().filter(|it| **it == kind).count();
    let parts =
        kinds.into_iter().filter(|kind| count(*kind) > 0).map(|kind| format!("{} {}", count(kind), kind.name()));
    parts.collect::<Vec<_>>().join(", ")
}

const RECORD: &str = "sweep.json";
const PARTS: [&str; 4] = ["configs", "runs", "evals", "logs"];

/// The folder of the trials of `[sweep.tune]`, which is the folder of a sweep too.
const TRIALS: &str = "tune";

/// Keys that may differ between machines that work on the same sweep.
const OF_MACHINE: [&str; 4] = ["run.dir", "run.name", "run.device", "train.threads"];

impl SweepFolder {
    /// Writes `sweep` to `path`, or opens an existing sweep there. Runs and evaluations may have been added since.
    ///
    /// # Errors
    /// The folder contains something else, or the sweep has changed.
    pub fn prepare(path: &Path, sweep: &Sweep) -> Result<(SweepFolder, SweepRecord, Lock)> {
        let folder = SweepFolder { path: path.to_owned() };
        let is_new = !folder.record_path().is_file();
        if is_new && holds_other_things(path) {
            bail!("`{}` is not a sweep: it has no {RECORD}\nhint: choose another folder with --out", path.display());
        }
        let record = SweepRecord::of(sweep);
        if !is_new {
            let (_, before) = SweepFolder::open(path)?;
            folder.check(&before, &record, sweep)?;
        }
        for part in PARTS {
            let part = path.join(part);
            files::create_dir_all(&part).map_err(|error| write_error(&part, &error))?;
        }
        let lock = folder.lock()?;
        for run in &record.runs {
            let mut config = sweep.configs[&run.name].clone();
            config.run.name = Some(run.name.clone());
            config.run.dir = path.join("runs").display().to_string();
            let file = folder.config_path(&run.name);
            let text = format!("# rft train --config {}\n\n{}", file.display(), config::to_toml(&config, None));
            if fs::read_to_string(&file).ok().as_deref() != Some(&text) {
                atomic::write(&file, text.as_bytes())?;
            }
        }
        // Written last, so that a folder with a record is complete.
        let mut text = serde_json::to_vec_pretty(&record)?;
        text.push(b'\n');
        atomic::write(&folder.record_path(), &text)?;
        Ok((folder, record, lock))
    }

    /// The folder of the trials of the sweep at `path`.
    pub fn of_trials(path: &Path) -> PathBuf {
        path.join(TRIALS)
    }

    /// Opens the sweep at `path`, or its trials if its own runs have not been started yet.
    pub fn open_current(path: &Path) -> Result<(SweepFolder, SweepRecord)> {
        let trials = Self::of_trials(path);
        let is_tuning = !path.join(RECORD).is_file() && trials.join(RECORD).is_file();
        Self::open(if is_tuning { &trials } else { path })
    }

    /// Opens the sweep at `path`.
    pub fn open(path: &Path) -> Result<(SweepFolder, SweepRecord)> {
        let folder = SweepFolder { path: path.to_owned() };
        let file = folder.record_path();
        ensure!(
            file.is_file(),
            "`{}` is not a sweep: it has no {RECORD}\nhint: pass the folder that `rft sweep` printed, such as `sweeps/NAME`",
            path.display()
        );
        let text = fs::read(&file).with_context(|| format!("read `{}`", file.display()))?;
        let record: SweepRecord =
            serde_json::from_slice(&text).with_context(|| format!("parse `{}`", file.display()))?;
        // Names become paths, and the file is not trusted.
        if let Some(name) = record.names().find(|name| !is_name(name)) {
            bail!("`{}`: `{name}` is not a valid name of a run, an evaluation or a benchmark", file.display());
        }
        Ok((folder, record))
    }

    /// Keeps a second `rft sweep` from working on the same folder.
    fn lock(&self) -> Result<Lock> {
        let path = self.path.display();
        lock::take(&self.path)?.with_context(|| {
            format!(
                "another `rft sweep` is working on `{path}`\nhint: run `rft sweep status {path}` to see its progress"
            )
        })
    }

    /// Checks that the new sweep contains everything that the existing one defines.
    fn check(&self, before: &SweepRecord, now: &SweepRecord, sweep: &Sweep) -> Result<()> {
        let changed = |what: String| {
            let path = self.path.display();
            anyhow::anyhow!(
                "`{path}` contains a different version of this sweep: {what}\n\
                 hint: choose another folder with --out, or remove this one to start again"
            )
        };
        let simple = [
            ("name", before.name == now.name),
            ("demonstration", before.demonstration == now.demonstration),
            ("notes", before.notes == now.notes),
        ];
        if let Some((key, _)) = simple.into_iter().find(|(_, same)| !same) {
            return Err(changed(format!("sweep.{key} differs")));
        }
        if before.eval_args != now.eval_args {
            return Err(changed(format!(
                "the options of its evaluations were `{}`, now `{}`",
                before.eval_args.join(" "),
                now.eval_args.join(" ")
            )));
        }
        for run in &before.runs {
            let Some(same) = now.runs.iter().find(|it| it.name == run.name) else {
                return Err(changed(format!("it has a run `{}`", run.name)));
            };
            let found: Table = self.read_config_text(&run.name)?;
            let wanted = Table::try_from(&sweep.configs[&run.name])?;
            if let Some(key) = difference(&found, &wanted) {
                let shown =
                    |table: &Table| value_at(table, &key).map_or_else(|| "nothing".to_owned(), Value::to_string);
                return Err(changed(format!(
                    "`{key}` of run `{}` was {}, now {}",
                    run.name,
                    shown(&found),
                    shown(&wanted)
                )));
            }
            if (&run.arm, run.seed) != (&same.arm, same.seed) {
                return Err(changed(format!("run `{}` had arm `{}` and seed {}", run.name, run.arm, run.seed)));
            }
        }
        match before.evals.iter().find(|eval| !now.evals.contains(eval)) {
            Some(eval) => Err(changed(format!("its evaluation `{}` has other settings now", eval.name))),
            None => Ok(()),
        }
    }

    fn read_config_text(&self, run: &str) -> Result<Table> {
        let file = self.config_path(run);
        let text = fs::read_to_string(&file).with_context(|| format!("read `{}`", file.display()))?;
        text.parse().with_context(|| format!("parse `{}`", file.display()))
    }

    fn record_path(&self) -> PathBuf {
        self.path.join(RECORD)
    }

    pub fn config_path(&self, run: &str) -> PathBuf {
        self.path.join("configs").join(format!("{run}.toml"))
    }

    /// The configuration of a run.
    pub fn config(&self, run: &str) -> Result<RunConfig> {
        let layers = ConfigLayers { files: vec![self.config_path(run)], ..ConfigLayers::default() };
        Ok(config::resolve(&layers)?.config)
    }

    pub fn run_path(&self, run: &str) -> PathBuf {
        self.path.join("runs").join(run)
    }

    pub fn eval_path(&self, eval: &str) -> PathBuf {
        self.path.join("evals").join(eval)
    }

    /// The log of the processes of a run or an evaluation.
    pub fn log_path(&self, name: &str) -> PathBuf {
        self.path.join("logs").join(format!("{name}.log"))
    }

    /// The mark of a failed process, next to its log.
    pub fn failed_path(&self, name: &str) -> PathBuf {
        self.path.join("logs").join(format!("{name}.failed"))
    }

    /// The number of times a cluster job has started without progress.
    pub fn starts_path(&self, name: &str) -> PathBuf {
        self.path.join("logs").join(format!("{name}.starts"))
    }

    /// The progress of a run.
    pub fn run_view(&self, run: &str) -> Result<RunView> {
        let path = self.run_path(run);
        let mut view = RunView { state: TaskState::Waiting, step: 0, steps: None, reward: None, seconds: None };
        if path.is_dir() {
            let dir = RunDir::open(&path)?;
            let config = self.config(run)?;
            // A process that has just started has not written either file yet.
            view.steps = Manifest::read(&dir).ok().map(|it| it.steps).filter(|it| *it > 0).or(config.train.steps);
            let lines = if dir.metrics().is_file() { metrics::read(&dir.metrics())? } else { Vec::new() };
            let value = |name: &str| lines.iter().rev().find_map(|line| *line.values.get(name)?);
            view.step = lines.last().map_or(0, |line| line.step);
            view.reward = value("reward");
            let times: Vec<f64> = lines.iter().filter_map(|line| *line.values.get("step_time")?).collect();
            view.seconds = (!times.is_empty()).then(|| mean(&times));
            view.state = match dir.manifest().is_file() {
                _ if is_held(&path) => TaskState::Running,
                true if view.steps.is_some() && RunStatus::read(&dir)?.state == status::RunState::Done => {
                    TaskState::Done
                }
                _ => TaskState::Interrupted,
            };
        } else {
            view.steps = self.config(run)?.train.steps;
        }
        view.state = self.or_failed(run, view.state);
        Ok(view)
    }

    /// The progress of an evaluation, with the number of existing samples.
    pub fn eval_state(&self, eval: &Eval) -> TaskState {
        let path = self.eval_path(&eval.name);
        let state = match path.is_dir() {
            false => TaskState::Waiting,
            true if is_held(&path) => TaskState::Running,
            true if eval.benches.iter().all(|bench| path.join(bench).join("results.json").is_file()) => TaskState::Done,
            true => TaskState::Interrupted,
        };
        self.or_failed(&eval.name, state)
    }

    fn or_failed(&self, name: &str, state: TaskState) -> TaskState {
        let is_open = matches!(state, TaskState::Waiting | TaskState::Interrupted);
        if is_open && self.failed_path(name).is_file() { TaskState::Failed } else { state }
    }

    /// The states of all runs and evaluations, by name.
    pub fn states(&self, record: &SweepRecord) -> Result<BTreeMap<String, TaskState>> {
        let runs = record.runs.iter().map(|run| Ok((run.name.clone(), self.run_view(&run.name)?.state)));
        let evals = record.evals.iter().map(|eval| Ok((eval.name.clone(), self.eval_state(eval))));
        runs.chain(evals).collect()
    }
}

impl SweepRecord {
    pub fn of(sweep: &Sweep) -> SweepRecord {
        SweepRecord {
            rft: env!("CARGO_PKG_VERSION").to_owned(),
            name: sweep.name.clone(),
            demonstration: sweep.demonstration,
            notes: sweep.notes.clone(),
            seeds: sweep.seeds.clone(),
            runs: sweep.runs.clone(),
            evals: sweep.evals.clone(),
            eval_args: sweep.eval.as_ref().map_or_else(Vec::new, eval_args),
        }
    }

    /// All names that are used for folders and files.
    fn names(&self) -> impl Iterator<Item = &str> {
        let runs = self.runs.iter().map(|it| &it.name);
        let evals =
            self.evals.iter().flat_map(|it| [&it.name, &it.config].into_iter().chain(&it.run).chain(&it.benches));
        runs.chain(evals).map(String::as_str)
    }

    pub fn run(&self, name: &str) -> Option<&SweepRun> {
        self.runs.iter().find(|it| it.name == name)
    }

    pub fn eval(&self, name: &str) -> Option<&Eval> {
        self.evals.iter().find(|it| it.name == name)
    }
}

/// The arguments shared by all evaluations of a sweep.
fn eval_args(section: &SweepEvalSection) -> Vec<String> {
    let mut args = vec!["--bench".to_owned(), section.benchmarks.join(",")];
    let mut flag = |name: &str, value: Option<String>| {
        args.extend(value.into_iter().flat_map(|value| [name.to_owned(), value]));
    };
    flag("--samples", section.samples.map(|it| it.to_string()));
    flag("--limit", section.limit.map(|it| it.to_string()));
    flag("--max-tokens", section.max_tokens.map(|it| it.to_string()));
    flag("--temperature", section.temperature.map(|it| it.to_string()));
    flag("--top-p", section.top_p.map(|it| it.to_string()));
    flag("--seed", Some(section.seed.to_string()));
    args
}

/// Whether a folder contains something that does not belong to a sweep.
fn holds_other_things(path: &Path) -> bool {
    let own = |name: &str| [lock::FILE, TRIALS, tuning::FILE].contains(&name) || PARTS.contains(&name);
    fs::read_dir(path).is_ok_and(|entries| entries.flatten().any(|it| !it.file_name().to_str().is_some_and(own)))
}

/// The first dotted key in which two configurations differ, except for keys that depend on the machine.
fn difference(a: &Table, b: &Table) -> Option<String> {
    let (mut keys, mut seen) = (Vec::new(), std::collections::BTreeSet::new());
    for table in [a, b] {
        collect(table, "", &mut keys);
    }
    keys.into_iter()
        .filter(|key| seen.insert(key.clone()) && !OF_MACHINE.contains(&key.as_str()))
        .find(|key| value_at(a, key) != value_at(b, key))
}

fn collect(table: &Table, prefix: &str, keys: &mut Vec<String>) {
    for (name, value) in table {
        match value {
            Value::Table(inner) => collect(inner, &format!("{prefix}{name}."), keys),
            _ => keys.push(format!("{prefix}{name}")),
        }
    }
}

fn value_at<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    let mut parts = key.split('.');
    let first = table.get(parts.next()?)?;
    parts.try_fold(first, |value, part| value.as_table()?.get(part))
}
