//! HumanEval+: programs are right if they return what the reference solution returns, on the inputs of HumanEval
//! (`base`) and on the many more of evalplus (`plus`).
//!
//! The semantics are those of evalplus 0.3: comparison, tolerance, the oracle of `find_zero`, and a limit for each input
//! of four times the reference's time, four seconds at least; what a program waits for a processor does not count. Where
//! evalplus compares inside the process that runs the program, we compare outside of it, and the inputs come in an order
//! of their own.

mod compare;
mod find;
mod reference;
mod task;
mod tasks;

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};

pub use find::{extract, sanitize, solution};
pub use reference::cache;
pub use task::Task;
pub use tasks::Tasks;

pub(crate) use compare::{is_right, tolerances};

use crate::disk::hash;
use crate::rng::{Purpose, Stream};
use crate::sandbox::{Limits, Outcome, Program, Sandbox, Value};
use compare::is_zero;
use reference::ANSWER;
use task::{Expected, Reference};

/// Least time for an input, in seconds.
const LEAST: f64 = 4.0;
/// Times the reference's time that an input may take.
const FACTOR: f64 = 4.0;
/// Most time for all inputs, in seconds; one more is for the start.
const MOST: f64 = 60.0;
/// The only task with an oracle of its own.
const FIND_ZERO: &str = "find_zero";

/// How a program did on a set of inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Passed,
    /// An output differs.
    Wrong,
    /// An exception, on the way to an output or before.
    Raised,
    TimedOut,
    /// The process ended, or tried to write its own verdict.
    Died,
    /// There is no program in the response.
    Unparsable,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Status::Passed => "passed",
            Status::Wrong => "wrong",
            Status::Raised => "raised",
            Status::TimedOut => "timed out",
            Status::Died => "died",
            Status::Unparsable => "unparsable",
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeVerdict {
    pub base: Status,
    /// Passed only where `base` has, too; otherwise the same.
    pub plus: Status,
    /// What went wrong first.
    pub detail: Option<String>,
}

impl CodeVerdict {
    fn both(status: Status, detail: Option<String>) -> CodeVerdict {
        CodeVerdict { base: status, plus: status, detail }
    }
}

/// Grades a response: finds the program in it and runs it.
///
/// # Errors
/// The sandbox does not work, or not with the reference solution.
pub fn grade_response(sandbox: &Sandbox, task: &Task, response: &str, answer_tag: Option<&str>) -> Result<CodeVerdict> {
    match solution(sandbox, task, response, answer_tag)? {
        Some(program) => grade(sandbox, task, &program),
        None => Ok(CodeVerdict::both(Status::Unparsable, Some(format!("no function `{}`", task.entry_point)))),
    }
}

/// Grades a whole program. (Of a completion, put the prompt before it.)
///
/// # Errors
/// As for [`grade_response`].
pub fn grade(sandbox: &Sandbox, task: &Task, program: &str) -> Result<CodeVerdict> {
    let reference = match task.reference.get() {
        Some(reference) => reference,
        None => {
            let made = Reference::of(task, sandbox)?;
            task.reference.get_or_init(|| made)
        }
    };
    let (base, detail) = run(sandbox, task, program, &task.base, &reference.base)?;
    if base != Status::Passed {
        return Ok(CodeVerdict::both(base, detail));
    }
    let (plus, detail) = run(sandbox, task, program, &task.plus, &reference.plus)?;
    Ok(CodeVerdict { base, plus, detail })
}

/// Runs a program on inputs until one goes wrong.
fn run(
    sandbox: &Sandbox,
    task: &Task,
    program: &str,
    inputs: &[Vec<Value>],
    expected: &[Expected],
) -> Result<(Status, Option<String>)> {
    let limits: Vec<f64> = expected.iter().map(|it| LEAST.max(FACTOR * it.seconds)).collect();
    let tolerances = tolerances(task.tolerance, expected.iter().map(|it| &it.value));
    let time = Duration::from_secs_f64(limits.iter().sum::<f64>().min(MOST) + 1.0);
    let mut session = sandbox.load(
        &Program { source: program, entry_point: &task.entry_point },
        &Limits { answer: ANSWER, ..Limits::time(time) },
    )?;
    // A program cannot know by heart what comes next.
    let digits = &hash::sha256(task.id.as_bytes())[..16];
    let order = Stream::new(u64::from_str_radix(digits, 16)?, Purpose::InputOrder, &[]).permutation(inputs.len());
    let calls = order.iter().map(|&index| (inputs[index].as_slice(), Duration::from_secs_f64(limits[index])));
    let mut turn = order.iter();
    let mut failed = None;
    session.call_all(calls, |outcome, _| {
        let Some(&index) = turn.next() else { return false };
        let (expected, tolerance) = (&expected[index].value, tolerances[index]);
        let (status, what) = match outcome {
            Outcome::Value(output) => {
                let passes = match task.entry_point.as_str() {
                    FIND_ZERO => is_zero(&inputs[index], &output, tolerance),
                    _ => is_right(&output, expected, tolerance),
                };
                if passes {
                    return true;
                }
                (Status::Wrong, format!("{} instead of {}", shown(&output), shown(expected)))
            }
            Outcome::Raised(what) => (Status::Raised, what),
            Outcome::TimedOut => (Status::TimedOut, "time is up".to_owned()),
            Outcome::Died(what) => (Status::Died, what),
        };
        failed = Some((status, Some(format!("{what}, input {index}"))));
        false
    });
    Ok(failed.unwrap_or((Status::Passed, None)))
}

/// A value as a message shows it.
pub(crate) fn shown(value: &Value) -> String {
    const LONGEST: usize = 80;
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
