//! The outputs and times of a task's own solution, computed in the sandbox and kept in the user's cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use super::task::{CodeTask, Expected, ReferenceOutputs};
use crate::disk::{atomic, cache, files, hash};
use crate::sandbox::{CallOutcome, Program, PythonValue, Sandbox, SandboxLimits};

/// Maximum output, in bytes: the task `tri` returns a list of a million floats.
pub(super) const ANSWER: usize = 64 << 20;
/// Version of the stored format.
const FORMAT: &str = "2";
/// Larger outputs are not cached, because reading them takes longer than computing them.
const LARGEST: usize = 4 << 20;
/// Seconds for all inputs together.
const TIME: Duration = Duration::from_secs(600);

impl ReferenceOutputs {
    /// Reads the outputs from the cache, or else runs the solution and caches its outputs.
    pub fn of(task: &CodeTask, sandbox: &Sandbox) -> Result<ReferenceOutputs> {
        let path = cache().map(|folder| folder.join(format!("{}.txt", key(task, sandbox))));
        if let Some(reference) = path.as_deref().and_then(|path| read(path, task)) {
            return Ok(reference);
        }
        let run = |inputs| outputs(task, sandbox, inputs).with_context(|| format!("run the solution of {}", task.id));
        let reference = ReferenceOutputs { base: run(&task.base)?, plus: run(&task.plus)? };
        if let Some(path) = path {
            // Without a cache, the next run computes it again, so this is not an error.
            _ = write(&path, &reference);
        }
        Ok(reference)
    }
}

fn outputs(task: &CodeTask, sandbox: &Sandbox, inputs: &[Vec<PythonValue>]) -> Result<Vec<Expected>> {
    let source = format!("{}{}", task.prompt, task.canonical_solution);
    let program = Program { source: &source, entry_point: &task.entry_point };
    let mut session = sandbox.load(&program, &SandboxLimits { answer: ANSWER, ..SandboxLimits::time(TIME) })?;
    let mut expected = Vec::with_capacity(inputs.len());
    let mut failure = None;
    session.call_all(inputs.iter().map(|input| (input.as_slice(), TIME)), |outcome, time| match outcome {
        CallOutcome::Value(value) => {
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

/// The folder of expected outputs in the user's cache.
pub fn cache() -> Option<PathBuf> {
    cache::folder().map(|folder| folder.join("code"))
}

/// A hash of everything that the outputs depend on.
fn key(task: &CodeTask, sandbox: &Sandbox) -> String {
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

/// One line per input: the time in seconds, and the value.
fn write(path: &Path, reference: &ReferenceOutputs) -> Result<()> {
    let mut text = String::new();
    for Expected { value, seconds } in reference.base.iter().chain(&reference.plus) {
        text.push_str(&format!("{seconds} "));
        value.write_wire(&mut text);
        text.push('\n');
        if text.len() > LARGEST {
            return Ok(());
        }
    }
    files::create_dir_all(path.parent().context("the file has a parent folder")?)?;
    atomic::write(path, text.as_bytes())
}

fn read(path: &Path, task: &CodeTask) -> Option<ReferenceOutputs> {
    let text = fs::read_to_string(path).ok()?;
    let line = |line: &str| {
        let (seconds, value) = line.split_once(' ')?;
        Some(Expected { value: PythonValue::read_wire(value).ok()?, seconds: seconds.parse().ok()? })
    };
    let mut base: Vec<Expected> = text.lines().map(line).collect::<Option<_>>()?;
    if base.len() != task.base.len() + task.plus.len() {
        return None;
    }
    let plus = base.split_off(task.base.len());
    Some(ReferenceOutputs { base, plus })
}
