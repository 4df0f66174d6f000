//! The table of the runs of a folder or a sweep.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Result;
use serde::Serialize;
use serde_json::json;

use super::event::{WatchEvent, WatchFeed};
use crate::disk::lock::is_held;
use crate::run::RunDir;
use crate::run::status::{self, RunState, RunStatus};
use crate::sweep::folder::{RunView, SweepFolder, TaskState, tally};

/// The runs of a folder or a sweep, as a table.
pub struct TableFeed {
    path: PathBuf,
    is_sweep: bool,
    /// What was read of each run, with what its files looked like then: a folder can have hundreds of finished runs.
    known: BTreeMap<PathBuf, (Stamp, RunRow)>,
    sent: Option<WatchEvent>,
}

/// Changes whenever the state or the progress of a run changes.
type Stamp = (Vec<Option<(u64, SystemTime)>>, bool);

/// A run in the table.
#[derive(Clone, Debug, Serialize)]
struct RunRow {
    name: String,
    state: &'static str,
    step: usize,
    steps: Option<usize>,
    reward: Option<f64>,
    seconds_left: Option<f64>,
    /// The arm of a sweep, else the name of the prior prompt.
    arm: String,
    seed: u64,
    /// Absent in a sweep.
    model: Option<String>,
    /// The states of its evaluations in a sweep.
    evaluations: Option<String>,
    /// Whether it has a directory that can be shown.
    is_started: bool,
    #[serde(skip)]
    view: Option<RunView>,
    #[serde(skip)]
    started: Option<String>,
}

impl TableFeed {
    /// The runs in the folder `path`.
    pub fn of_folder(path: &Path) -> Self {
        Self { path: path.to_owned(), is_sweep: false, known: BTreeMap::new(), sent: None }
    }

    /// The runs of the sweep in `path`, with those that have not started.
    pub fn of_sweep(path: &Path) -> Self {
        Self { is_sweep: true, ..Self::of_folder(path) }
    }

    fn folder(&mut self) -> Result<WatchEvent> {
        let (mut rows, mut skipped) = (Vec::new(), Vec::new());
        for run in status::runs_in(&self.path)? {
            // One damaged run must not hide the others.
            match self.row(&run, &[], || Ok(RunRow::of_status(RunStatus::read(&RunDir::open(&run)?)?))) {
                Ok(row) => rows.push(row),
                Err(error) => skipped.push(format!("{}: {error:#}", run.display())),
            }
        }
        // Newest first: it is most likely the one of interest.
        rows.sort_by(|a, b| b.started.cmp(&a.started).then_with(|| a.name.cmp(&b.name)));
        let title = status::name(&self.path);
        Ok(WatchEvent::new("table", &json!({ "title": title, "note": "", "rows": rows, "skipped": skipped })))
    }

    fn sweep(&mut self) -> Result<WatchEvent> {
        let (folder, record) = SweepFolder::open_current(&self.path)?;
        let (mut rows, mut skipped) = (Vec::new(), Vec::new());
        for run in &record.runs {
            let read = || {
                let view = folder.run_view(&run.name)?;
                Ok(RunRow::of_view(&run.name, &run.arm, run.seed, view))
            };
            match self.row(&folder.run_path(&run.name), &[folder.failed_path(&run.name)], read) {
                Ok(row) => rows.push(row),
                Err(error) => skipped.push(format!("{}: {error:#}", run.name)),
            }
        }
        let views: Vec<RunView> = rows.iter().filter_map(|row| row.view).collect();
        for row in &mut rows {
            let evals = record.evals.iter().filter(|eval| eval.run.as_deref() == Some(&row.name));
            row.evaluations = Some(tally(&evals.map(|eval| folder.eval_state(eval)).collect::<Vec<_>>()));
            row.seconds_left = row.view.and_then(|view| view.seconds_left(&views));
        }
        let done = views.iter().filter(|view| view.state == TaskState::Done).count();
        let evals: Vec<TaskState> = record.evals.iter().map(|eval| folder.eval_state(eval)).collect();
        let mut note = format!("{done} of {} runs done", record.runs.len());
        if !evals.is_empty() {
            note += &format!("; evaluations: {}", tally(&evals));
        }
        Ok(WatchEvent::new("table", &json!({ "title": record.name, "note": note, "rows": rows, "skipped": skipped })))
    }

    /// The row of the run at `path`, which is read again only if its files, or those of `more`, have changed.
    fn row(&mut self, path: &Path, more: &[PathBuf], read: impl FnOnce() -> Result<RunRow>) -> Result<RunRow> {
        let stamp = stamp(path, more);
        if let Some((known, row)) = self.known.get(path)
            && *known == stamp
        {
            return Ok(row.clone());
        }
        let row = read()?;
        self.known.insert(path.to_owned(), (stamp, row.clone()));
        Ok(row)
    }
}

fn stamp(run: &Path, more: &[PathBuf]) -> Stamp {
    let parts = ["", "metrics.jsonl", "manifest.json", "eval", "checkpoints"].map(|part| run.join(part));
    let of = |path: &PathBuf| {
        let metadata = path.metadata().ok()?;
        Some((metadata.len(), metadata.modified().ok()?))
    };
    (parts.iter().chain(more).map(of).collect(), is_held(run))
}

impl RunRow {
    fn of_status(status: RunStatus) -> Self {
        let seconds_left = status.seconds_left().filter(|_| status.state == RunState::Running);
        Self {
            name: status.name,
            state: status.state.name(),
            step: status.step,
            steps: Some(status.steps),
            reward: status.reward,
            seconds_left,
            arm: status.prompt,
            seed: status.seed,
            model: Some(status.model),
            evaluations: None,
            is_started: true,
            view: None,
            started: status.started,
        }
    }

    fn of_view(name: &str, arm: &str, seed: u64, view: RunView) -> Self {
        Self {
            name: name.to_owned(),
            state: view.state.name(),
            step: view.step,
            steps: view.steps,
            reward: view.reward,
            seconds_left: None,
            arm: arm.to_owned(),
            seed,
            model: None,
            evaluations: None,
            is_started: view.state != TaskState::Waiting,
            view: Some(view),
            started: None,
        }
    }
}

impl WatchFeed for TableFeed {
    fn news(&mut self, events: &mut Vec<WatchEvent>) -> Result<()> {
        let table = if self.is_sweep { self.sweep()? } else { self.folder()? };
        if self.sent.as_ref() != Some(&table) {
            events.push(table.clone());
            self.sent = Some(table);
        }
        Ok(())
    }
}
