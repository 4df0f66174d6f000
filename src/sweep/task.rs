//! The command of each run and evaluation: `rft train` or `rft eval`, started anew or going on.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::expand::Eval;
use super::folder::{Folder, Record, State};
use crate::disk::lock::is_held;

/// A process of a sweep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    pub name: String,
    pub kind: Kind,
    /// The run that has to be done before.
    pub needs: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Run,
    Eval,
}

/// All tasks in the order in which they are best started: the base first, since it needs no training and shows soonest where
/// data are missing; then each run and, after it, its evaluations.
pub fn tasks(record: &Record) -> Vec<Task> {
    let eval = |eval: &Eval| Task { name: eval.name.clone(), kind: Kind::Eval, needs: eval.run.clone() };
    let mut tasks: Vec<Task> = record.evals.iter().filter(|it| it.run.is_none()).map(eval).collect();
    for run in &record.runs {
        tasks.push(Task { name: run.name.clone(), kind: Kind::Run, needs: None });
        tasks.extend(record.evals.iter().filter(|it| it.run.as_ref() == Some(&run.name)).map(eval));
    }
    tasks
}

/// What is to be done for `task` now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing.
    Done,
    /// Another process is at work on it.
    Busy,
    /// Arguments of `rft`.
    Start(Vec<String>),
}

/// What is to be done for a task, by what is on disk. Leavings of a process that was killed before it had written down what
/// it is are removed.
pub fn next(folder: &Folder, record: &Record, task: &Task) -> Result<Next> {
    match task.kind {
        Kind::Run => match folder.run_view(&task.name)?.state {
            State::Done => Ok(Next::Done),
            State::Running => Ok(Next::Busy),
            _ => train(folder, &task.name).map(Next::Start),
        },
        Kind::Eval => {
            let eval = record.eval(&task.name).with_context(|| format!("there is no evaluation `{}`", task.name))?;
            match folder.eval_state(eval) {
                State::Done => Ok(Next::Done),
                State::Running => Ok(Next::Busy),
                _ => Ok(Next::Start(evaluate(folder, record, eval))),
            }
        }
    }
}

/// `rft train` for a run that is not done.
fn train(folder: &Folder, run: &str) -> Result<Vec<String>> {
    let path = folder.run_path(run);
    if !path.is_dir() {
        return Ok(fresh(folder, run));
    }
    // Without a manifest nothing was trained yet, and there is nothing to go on with.
    if !path.join("manifest.json").is_file() {
        if is_held(&path) {
            bail!("another process is at work on `{}`", path.display());
        }
        fs::remove_dir_all(&path).with_context(|| format!("remove `{}`", path.display()))?;
        return Ok(fresh(folder, run));
    }
    Ok(strings(["train", "--yes", "--resume", &shown(&path)]))
}

/// `rft train` for a run that does not exist.
pub fn fresh(folder: &Folder, run: &str) -> Vec<String> {
    strings(["train", "--yes", "--config", &shown(&folder.config_path(run))])
}

/// `rft eval`; it goes on by itself.
pub fn evaluate(folder: &Folder, record: &Record, eval: &Eval) -> Vec<String> {
    let mut args = strings(["eval", "--yes"]);
    match &eval.run {
        Some(run) => args.extend(strings(["--adapter", &shown(&folder.run_path(run))])),
        None => args.extend(strings(["--config", &shown(&folder.config_path(&eval.config))])),
    }
    if let Some(ppe) = &eval.ppe {
        args.extend(strings(["--ppe", ppe]));
    }
    args.extend(record.eval_args.iter().cloned());
    args.extend(strings(["--out", &shown(&folder.eval_path(&eval.name))]));
    args
}

/// A command as a shell reads it.
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
