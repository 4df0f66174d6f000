//! The command of each run and evaluation: `rft train` or `rft eval`, new or resumed.

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::expand::Eval;
use super::folder::{SweepFolder, SweepRecord, TaskState};
use crate::config::MixEntry;
use crate::disk::files;
use crate::disk::lock::is_held;

/// A process of a sweep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SweepTask {
    pub name: String,
    pub kind: TaskKind,
    /// The run that has to be done first.
    pub needs: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskKind {
    Run,
    Eval,
}

/// All tasks in the order in which they start: first the untrained model, because it does not need training and finds missing
/// data early; then each run, followed by its evaluations.
pub fn tasks(record: &SweepRecord) -> Vec<SweepTask> {
    let eval = |eval: &Eval| SweepTask { name: eval.name.clone(), kind: TaskKind::Eval, needs: eval.run.clone() };
    let mut tasks: Vec<SweepTask> = record.evals.iter().filter(|it| it.run.is_none()).map(eval).collect();
    for run in &record.runs {
        tasks.push(SweepTask { name: run.name.clone(), kind: TaskKind::Run, needs: None });
        tasks.extend(record.evals.iter().filter(|it| it.run.as_ref() == Some(&run.name)).map(eval));
    }
    tasks
}

/// The next action for a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextAction {
    /// Nothing.
    Done,
    /// Another process is working on it.
    Busy,
    /// Arguments of `rft`.
    Start(Vec<String>),
}

/// The next action for a task, according to the files on disk. Removes incomplete files of a process that was killed before it
/// wrote its record.
pub fn next(folder: &SweepFolder, record: &SweepRecord, task: &SweepTask) -> Result<NextAction> {
    match task.kind {
        TaskKind::Run => match folder.run_view(&task.name)?.state {
            TaskState::Done => Ok(NextAction::Done),
            TaskState::Running => Ok(NextAction::Busy),
            _ => train(folder, &task.name).map(NextAction::Start),
        },
        TaskKind::Eval => {
            let eval = record.eval(&task.name).with_context(|| format!("unknown evaluation `{}`", task.name))?;
            match folder.eval_state(eval) {
                TaskState::Done => Ok(NextAction::Done),
                TaskState::Running => Ok(NextAction::Busy),
                _ => Ok(NextAction::Start(evaluate(folder, record, eval))),
            }
        }
    }
}

/// `rft train` for a run that is not done.
fn train(folder: &SweepFolder, run: &str) -> Result<Vec<String>> {
    let path = folder.run_path(run);
    if !path.is_dir() {
        return Ok(fresh(folder, run));
    }
    // Without a manifest nothing has been trained yet, so there is nothing to resume.
    if !path.join("manifest.json").is_file() {
        if is_held(&path) {
            bail!("another process is working on `{}`", path.display());
        }
        files::remove_dir_all(&path).with_context(|| format!("remove `{}`", path.display()))?;
        return Ok(fresh(folder, run));
    }
    Ok(strings(["train", "--yes", "--resume", &shown(&path)]))
}

/// `rft train` for a run that does not exist yet.
pub fn fresh(folder: &SweepFolder, run: &str) -> Vec<String> {
    strings(["train", "--yes", "--config", &shown(&folder.config_path(run))])
}

/// `rft eval`, which resumes by itself.
pub fn evaluate(folder: &SweepFolder, record: &SweepRecord, eval: &Eval) -> Vec<String> {
    let mut args = strings(["eval", "--yes"]);
    match &eval.run {
        Some(run) => args.extend(strings(["--adapter", &shown(&folder.run_path(run))])),
        None => args.extend(strings(["--config", &shown(&folder.config_path(&eval.config))])),
    }
    if let Some(ppe) = &eval.ppe {
        args.extend(strings(["--ppe", ppe]));
    }
    if !eval.mix.is_empty() {
        args.extend(strings(["--set", &MixEntry::setting(&eval.mix)]));
    }
    args.extend(record.eval_args.iter().cloned());
    args.extend(strings(["--out", &shown(&folder.eval_path(&eval.name))]));
    args
}

/// A command quoted for a shell.
pub fn in_shell(args: &[String]) -> String {
    let plain = |it: &str| !it.is_empty() && it.chars().all(|c| c.is_ascii_alphanumeric() || "-_./=,:+@%".contains(c));
    let quoted = |it: &String| if plain(it) { it.clone() } else { format!("'{}'", it.replace('\'', r"'\''")) };
    args.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn strings<const N: usize>(parts: [&str; N]) -> Vec<String> {
    parts.map(str::to_owned).to_vec()
}
