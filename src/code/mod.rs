//! HumanEval+: a program is correct if it returns the same values as the reference solution, on the inputs of HumanEval
//! (`base`) and on the many more of evalplus (`plus`).
//!
//! The semantics are those of evalplus 0.3: comparison, tolerance, the oracle of `find_zero`, and a limit for each input of
//! four times the reference's time, but at least four seconds; time that a program waits for a processor does not count.
//! evalplus compares inside the process that runs the program. We compare outside of it, and use the inputs in a different
//! order.

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
pub use task::CodeTask;
pub use tasks::Tasks;

pub(crate) use compare::{is_right, tolerances};

use crate::disk::hash;
use crate::rng::{Purpose, Stream};
use crate::sandbox::{CallOutcome, Program, PythonValue, Sandbox, SandboxLimits};
use compare::is_zero;
use reference::ANSWER;
use task::{Expected, ReferenceOutputs};

/// Minimum time limit for an input, in seconds.
const LEAST: f64 = 4.0;
/// Time limit for an input, as a multiple of the reference's time.
const FACTOR: f64 = 4.0;
/// Maximum time for all inputs, in seconds; one more second is for the start.
const MOST: f64 = 60.0;
/// The only task with its own oracle.
const FIND_ZERO: &str = "find_zero";

/// The result of a program on a set of inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TestStatus {
    Passed,
    /// An output differs.
    Wrong,
    /// An exception, during a call or before.
    Raised,
    TimedOut,
    /// The process ended, or tried to write its own verdict.
    Died,
    /// The completion does not contain a program.
    Unparsable,
}

impl fmt::Display for TestStatus {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            TestStatus::Passed => "passed",
            TestStatus::Wrong => "wrong",
            TestStatus::Raised => "raised",
            TestStatus::TimedOut => "timed out",
            TestStatus::Died => "died",
            TestStatus::Unparsable => "unparsable",
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeVerdict {
    pub base: TestStatus,
    /// Passed only if `base` passed too; otherwise the same status.
    pub plus: TestStatus,
    /// The first failure.
    pub detail: Option<String>,
}

impl CodeVerdict {
    fn both(status: TestStatus, detail: Option<String>) -> CodeVerdict {
        CodeVerdict { base: status, plus: status, detail }
    }
}

/// Grades a whole program. (To grade a continuation of the prompt, put the prompt before it.)
///
/// # Errors
/// The sandbox does not work, or the reference solution fails in it.
pub fn grade(sandbox: &Sandbox, task: &CodeTask, program: &str) -> Result<CodeVerdict> {
    let reference = match task.reference.get() {
        Some(reference) => reference,
        None => {
            let made = ReferenceOutputs::of(task, sandbox)?;
            task.reference.get_or_init(|| made)
        }
    };
    let (base, detail) = run(sandbox, task, program, &task.base, &reference.base)?;
    if base != TestStatus::Passed {
        return Ok(CodeVerdict::both(base, detail));
    }
    let (plus, detail) = run(sandbox, task, program, &task.plus, &reference.plus)?;
    Ok(CodeVerdict { base, plus, detail })
}

/// Runs a program on inputs until one fails.
fn run(
    sandbox: &Sandbox,
    task: &CodeTask,
    program: &str,
    inputs: &[Vec<PythonValue>],
    expected: &[Expected],
) -> Result<(TestStatus, Option<String>)> {
    let limits: Vec<f64> = expected.iter().map(|it| LEAST.max(FACTOR * it.seconds)).collect();
    let tolerances = tolerances(task.tolerance, expected.iter().map(|it| &it.value));
    let time = Duration::from_secs_f64(limits.iter().sum::<f64>().min(MOST) + 1.0);
    let mut session = sandbox.load(
        &Program { source: program, entry_point: &task.entry_point },
        &SandboxLimits { answer: ANSWER, ..SandboxLimits::time(time) },
    )?;
    // In an order that a program cannot know in advance.
    let digits = &hash::sha256(task.id.as_bytes())[..16];
    let order = Stream::new(u64::from_str_radix(digits, 16)?, Purpose::InputOrder, &[]).permutation(inputs.len());
    let calls = order.iter().map(|&index| (inputs[index].as_slice(), Duration::from_secs_f64(limits[index])));
    let mut turn = order.iter();
    let mut failed = None;
    session.call_all(calls, |outcome, _| {
        let Some(&index) = turn.next() else { return false };
        let (expected, tolerance) = (&expected[index].value, tolerances[index]);
        let (status, what) = match outcome {
            CallOutcome::Value(output) => {
                let passes = match task.entry_point.as_str() {
                    FIND_ZERO => is_zero(&inputs[index], &output, tolerance),
                    _ => is_right(&output, expected, tolerance),
                };
                if passes {
                    return true;
                }
                (TestStatus::Wrong, format!("{} instead of {}", shown(&output), shown(expected)))
            }
            CallOutcome::Raised(what) => (TestStatus::Raised, what),
            CallOutcome::TimedOut => (TestStatus::TimedOut, "time is up".to_owned()),
            CallOutcome::Died(what) => (TestStatus::Died, what),
        };
        failed = Some((status, Some(format!("{what}, input {index}"))));
        false
    });
    Ok(failed.unwrap_or((TestStatus::Passed, None)))
}

/// A value in a message.
pub(crate) fn shown(value: &PythonValue) -> String {
    const LONGEST: usize = 80;
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
