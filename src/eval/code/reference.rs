//! What a task's own solution returns, and how long it takes. Computed in the sandbox and kept in the user's cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};

use super::Task;
use crate::disk::{atomic, hash};
use crate::sandbox::{Limits, Outcome, Program, Sandbox, Value};

/// Changes with what is stored.
const FORMAT: &str = "1";
/// For all inputs together.
const TIME: Duration = Duration::from_secs(600);

/// Outputs of the reference solution, in the order of the inputs.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Reference {
    pub base: Vec<Expected>,
    pub plus: Vec<Expected>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Expected {
    pub value: Value,
    pub seconds: f64,
}

impl Reference {
    /// From the cache, or else by running the solution, and into the cache.
    pub fn of(task: &Task, sandbox: &Sandbox) -> Result<Reference> {
        let path = cache().map(|folder| folder.join(format!("{}.json", key(task, sandbox))));
        if let Some(reference) = path.as_deref().and_then(|path| read(path, task)) {
            return Ok(reference);
        }
        let run = |inputs| outputs(task, sandbox, inputs).with_context(|| format!("run the solution of {}", task.id));
        let reference = Reference { base: run(&task.base)?, plus: run(&task.plus)? };
        if let Some(path) = path {
            // Without a cache the next run computes it again; that is no reason to fail.
            _ = write(&path, &reference);
        }
        Ok(reference)
    }
}

fn outputs(task: &Task, sandbox: &Sandbox, inputs: &[Vec<Value>]) -> Result<Vec<Expected>> {
    let source = format!("{}{}", task.prompt, task.canonical_solution);
    let program = Program { source: &source, entry_point: &task.entry_point };
    let mut session = sandbox.load(&program, &Limits::time(TIME))?;
    let mut expected = Vec::with_capacity(inputs.len());
    let mut failure = None;
    session.call_all(inputs.iter().map(|input| (input.as_slice(), TIME)), |outcome, time| match outcome {
        Outcome::Value(value) => {
            expected.push(Expected { value, seconds: time.as_secs_f64() });
            true
        }
        other => {
            failure = Some(anyhow!("{other:?} for input {}", expected.len()));
            false
        }
    });
    failure.map_or(Ok(expected), Err)
}

/// A folder in the user's cache.
fn cache() -> Option<PathBuf> {
    let set = std::env::var_os("XDG_CACHE_HOME").filter(|it| !it.is_empty()).map(PathBuf::from);
    let cache = set.or_else(|| std::env::home_dir().map(|home| home.join(".cache")))?;
    Some(cache.join("rft").join("code"))
}

/// Of all that the outputs depend on.
fn key(task: &Task, sandbox: &Sandbox) -> String {
    let text = format!(
        "{FORMAT}\n{}\n{}\n{}{}\n{:?}\n{:?}",
        sandbox.python().version,
        task.entry_point,
        task.prompt,
        task.canonical_solution,
        task.base,
        task.plus
    );
    hash::sha256(text.as_bytes())
}

fn read(path: &Path, task: &Task) -> Option<Reference> {
    let reference: Reference = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let is_whole = reference.base.len() == task.base.len() && reference.plus.len() == task.plus.len();
    is_whole.then_some(reference)
}

fn write(path: &Path, reference: &Reference) -> Result<()> {
    fs::create_dir_all(path.parent().context("a file in a folder")?)?;
    atomic::write(path, &serde_json::to_vec(reference)?)
}
