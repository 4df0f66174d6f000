//! A sweep on disk, and how far each part of it is: nothing is remembered anywhere else.
//!
//! ```text
//! sweep.json          what the sweep is: its runs and evaluations
//! configs/RUN.toml    the plain configuration of each run; `rft train --config` takes it as well
//! runs/RUN/           run directories
//! evals/EVAL/         evaluations
//! logs/NAME.log       what each process said; beside it NAME.failed where the last one failed, and NAME.starts, a job's count
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::expand::{Eval, Run, Sweep};
use super::file::EvalSection;
use crate::config::{self, Layers, RunConfig};
use crate::disk::atomic::{self, write_error};
use crate::disk::lock::{self, Lock, is_held};
use crate::run::dir::is_name;
use crate::run::{Manifest, RunDir, metrics};

/// The folder of a sweep.
#[derive(Clone, Debug)]
pub struct Folder {
    pub path: PathBuf,
}

/// `sweep.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub rft: String,
    pub name: String,
    pub demonstration: bool,
    pub notes: Vec<String>,
    pub seeds: Vec<u64>,
    pub runs: Vec<Run>,
    pub evals: Vec<Eval>,
    /// Arguments that every evaluation takes.
    pub eval_args: Vec<String>,
}

/// How far a run or an evaluation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing was done yet.
    Waiting,
    /// A process is at work on it.
    Running,
    /// It was begun and goes on from there.
    Stopped,
    /// The last process ended with an error.
    Failed,
    Done,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Running => "running",
            State::Stopped => "stopped",
            State::Failed => "failed",
            State::Done => "done",
        }
    }
}

/// A run as its directory tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RunView {
    pub state: State,
    pub step: usize,
    /// Where it is known.
    pub steps: Option<usize>,
    /// Of the last step.
    pub reward: Option<f64>,
    /// Of a step, on average.
    pub seconds: Option<f64>,
}

const RECORD: &str = "sweep.json";
const PARTS: [&str; 4] = ["configs", "runs", "evals", "logs"];

/// What may differ between two machines that go on with one sweep.
const OF_MACHINE: [&str; 4] = ["run.dir", "run.name", "run.device", "train.threads"];

impl Folder {
    /// Writes `sweep` down at `path`, or goes on with what stands there. Runs and evaluations may have been added since.
    ///
    /// # Errors
    /// Something else stands there, or the sweep has changed.
    pub fn prepare(path: &Path, sweep: &Sweep) -> Result<(Folder, Record, Lock)> {
        let folder = Folder { path: path.to_owned() };
        let is_new = !folder.record_path().is_file();
        if is_new && holds_other_things(path) {
            bail!("`{}` is no sweep: it has no {RECORD}\nhint: choose another folder with --out", path.display());
        }
        let record = Record::of(sweep);
        if !is_new {
            let (_, before) = Folder::open(path)?;
            folder.check(&before, &record, sweep)?;
        }
        for part in PARTS {
            let part = path.join(part);
            fs::create_dir_all(&part).map_err(|error| write_error(&part, &error))?;
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
        // Last, so that a folder with a record is complete.
        let mut text = serde_json::to_vec_pretty(&record)?;
        text.push(b'\n');
        atomic::write(&folder.record_path(), &text)?;
        Ok((folder, record, lock))
    }

    /// The sweep that stands at `path`.
    pub fn open(path: &Path) -> Result<(Folder, Record)> {
        let folder = Folder { path: path.to_owned() };
        let file = folder.record_path();
        ensure!(
            file.is_file(),
            "`{}` is no sweep: it has no {RECORD}\nhint: give the folder that `rft sweep` named, such as `sweeps/NAME`",
            path.display()
        );
        let text = fs::read(&file).with_context(|| format!("read `{}`", file.display()))?;
        let record: Record = serde_json::from_slice(&text).with_context(|| format!("parse `{}`", file.display()))?;
        // Names become paths, and the file may be a stranger's.
        if let Some(name) = record.names().find(|name| !is_name(name)) {
            bail!("`{}`: `{name}` is no name of a run, an evaluation or a benchmark", file.display());
        }
        Ok((folder, record))
    }

    /// Keeps a second `rft sweep` from working on the same folder.
    fn lock(&self) -> Result<Lock> {
        let path = self.path.display();
        lock::take(&self.path)?.with_context(|| {
            format!("another `rft sweep` is at work on `{path}`\nhint: `rft sweep status {path}` tells how far it is")
        })
    }

    /// Whether all that was asked for before is asked for still.
    fn check(&self, before: &Record, now: &Record, sweep: &Sweep) -> Result<()> {
        let changed = |what: String| {
            let path = self.path.display();
            anyhow::anyhow!(
                "`{path}` was made by another form of this sweep: {what}\n\
                 hint: choose another folder with --out, or remove this one to start anew"
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
                "evaluations were asked for by `{}`, now by `{}`",
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
                    "`{key}` of run `{}` was {} and is {} now",
                    run.name,
                    shown(&found),
                    shown(&wanted)
                )));
            }
            if (&run.arm, run.seed) != (&same.arm, same.seed) {
                return Err(changed(format!("run `{}` was of arm `{}` and seed {}", run.name, run.arm, run.seed)));
            }
        }
        match before.evals.iter().find(|eval| !now.evals.contains(eval)) {
            Some(eval) => Err(changed(format!("it has an evaluation `{}` that is asked for otherwise now", eval.name))),
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
        let layers = Layers { files: vec![self.config_path(run)], ..Layers::default() };
        Ok(config::resolve(&layers)?.config)
    }

    pub fn run_path(&self, run: &str) -> PathBuf {
        self.path.join("runs").join(run)
    }

    pub fn eval_path(&self, eval: &str) -> PathBuf {
        self.path.join("evals").join(eval)
    }

    /// What the processes of a run or an evaluation said.
    pub fn log_path(&self, name: &str) -> PathBuf {
        self.path.join("logs").join(format!("{name}.log"))
    }

    /// Stands beside the log of a process that failed.
    pub fn failed_path(&self, name: &str) -> PathBuf {
        self.path.join("logs").join(format!("{name}.failed"))
    }

    /// How often a job of a cluster has started at the same place.
    pub fn starts_path(&self, name: &str) -> PathBuf {
        self.path.join("logs").join(format!("{name}.starts"))
    }

    /// How far a run is.
    pub fn run_view(&self, run: &str) -> Result<RunView> {
        let path = self.run_path(run);
        let mut view = RunView { state: State::Waiting, step: 0, steps: None, reward: None, seconds: None };
        if path.is_dir() {
            let dir = RunDir::open(&path)?;
            let config = self.config(run)?;
            // A process that has just begun has written neither yet.
            view.steps = Manifest::read(&dir).ok().map(|it| it.steps).filter(|it| *it > 0).or(config.train.steps);
            let lines = if dir.metrics().is_file() { metrics::read(&dir.metrics())? } else { Vec::new() };
            let value = |name: &str| lines.iter().rev().find_map(|line| *line.values.get(name)?);
            view.step = lines.last().map_or(0, |line| line.step);
            view.reward = value("reward");
            let times: Vec<f64> = lines.iter().filter_map(|line| *line.values.get("step_time")?).collect();
            view.seconds = (!times.is_empty()).then(|| crate::stats::mean(&times));
            view.state = match view.steps {
                _ if is_held(&path) => State::Running,
                Some(steps) if dir.manifest().is_file() && dir.is_finished(steps, &config.eval)? => State::Done,
                _ => State::Stopped,
            };
        } else {
            view.steps = self.config(run)?.train.steps;
        }
        view.state = self.or_failed(run, view.state);
        Ok(view)
    }

    /// How far an evaluation is, with the number of samples there.
    pub fn eval_state(&self, eval: &Eval) -> State {
        let path = self.eval_path(&eval.name);
        let state = match path.is_dir() {
            false => State::Waiting,
            true if is_held(&path) => State::Running,
            true if eval.benches.iter().all(|bench| path.join(bench).join("results.json").is_file()) => State::Done,
            true => State::Stopped,
        };
        self.or_failed(&eval.name, state)
    }

    fn or_failed(&self, name: &str, state: State) -> State {
        let is_open = matches!(state, State::Waiting | State::Stopped);
        if is_open && self.failed_path(name).is_file() { State::Failed } else { state }
    }

    /// The states of all runs and evaluations, by name.
    pub fn states(&self, record: &Record) -> Result<BTreeMap<String, State>> {
        let runs = record.runs.iter().map(|run| Ok((run.name.clone(), self.run_view(&run.name)?.state)));
        let evals = record.evals.iter().map(|eval| Ok((eval.name.clone(), self.eval_state(eval))));
        runs.chain(evals).collect()
    }
}

impl Record {
    pub fn of(sweep: &Sweep) -> Record {
        Record {
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

    /// All names that folders and files are called by.
    fn names(&self) -> impl Iterator<Item = &str> {
        let runs = self.runs.iter().map(|it| &it.name);
        let evals =
            self.evals.iter().flat_map(|it| [&it.name, &it.config].into_iter().chain(&it.run).chain(&it.benches));
        runs.chain(evals).map(String::as_str)
    }

    pub fn run(&self, name: &str) -> Option<&Run> {
        self.runs.iter().find(|it| it.name == name)
    }

    pub fn eval(&self, name: &str) -> Option<&Eval> {
        self.evals.iter().find(|it| it.name == name)
    }
}

/// The arguments that all evaluations of a sweep share.
fn eval_args(section: &EvalSection) -> Vec<String> {
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

/// Whether something stands in a folder that no sweep has put there.
fn holds_other_things(path: &Path) -> bool {
    let own = |name: &str| name == lock::FILE || PARTS.contains(&name);
    fs::read_dir(path).is_ok_and(|entries| entries.flatten().any(|it| !it.file_name().to_str().is_some_and(own)))
}

/// The first dotted key in which two configurations differ, but for what is the machine's.
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
