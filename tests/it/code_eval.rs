//! HumanEval+: the reference solutions pass, nothing that is no solution does, and the sanitiser finds what is there.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Instant;

use rayon::prelude::*;
use rft::eval::code::{CodeVerdict, Status, Task, Tasks, grade, grade_response, sanitize};
use rft::sandbox::Sandbox;

/// Tells why a test is left out where the sandbox does not work.
pub fn sandbox() -> Option<&'static Sandbox> {
    static SANDBOX: OnceLock<Option<Sandbox>> = OnceLock::new();
    let made = SANDBOX.get_or_init(|| Sandbox::probe(false).inspect_err(|error| eprintln!("skipped: {error:#}")).ok());
    made.as_ref()
}

fn tasks() -> Option<Tasks> {
    let Some(folder) = std::env::var_os("RFT_DATA_DIR").map(PathBuf::from) else {
        eprintln!("skipped: RFT_DATA_DIR is not set");
        return None;
    };
    Some(Tasks::load(&folder).unwrap())
}

/// The verdicts of one program for each task, several at a time.
fn grade_all(sandbox: &Sandbox, tasks: &Tasks, program: impl Fn(&Task) -> String + Sync) -> Vec<CodeVerdict> {
    tasks.tasks.par_iter().map(|task| grade(sandbox, task, &program(task)).unwrap()).collect()
}

#[test]
fn all_reference_solutions_pass() {
    let (Some(sandbox), Some(tasks)) = (sandbox(), tasks()) else { return };
    assert_eq!(tasks.tasks.len(), 164);
    let start = Instant::now();
    for time in ["with expected outputs computed or cached", "with expected outputs at hand"] {
        let verdicts = grade_all(sandbox, &tasks, |task| format!("{}{}", task.prompt, task.canonical_solution));
        for (task, verdict) in tasks.tasks.iter().zip(&verdicts) {
            assert_eq!((verdict.base, verdict.plus), (Status::Passed, Status::Passed), "{}: {verdict:?}", task.id);
        }
        println!("164 reference solutions, base and plus, {time}: {:.1} s", start.elapsed().as_secs_f64());
    }
}

#[test]
fn what_is_no_solution_passes_nothing() {
    let (Some(sandbox), Some(tasks)) = (sandbox(), tasks()) else { return };
    for body in ["pass", "return None", "return 'rft'"] {
        let program = |task: &Task| format!("{}\n    {body}\n", task.prompt);
        for (task, verdict) in tasks.tasks.iter().zip(grade_all(sandbox, &tasks, program)) {
            assert_ne!(verdict.base, Status::Passed, "{} with `{body}`", task.id);
            assert_ne!(verdict.plus, Status::Passed, "{} with `{body}`", task.id);
        }
    }
}
