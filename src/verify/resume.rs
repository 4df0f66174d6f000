//! n + n steps against 2n: a run without interruption, and one that is killed after its checkpoint and resumed.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::child::RftProcess;
use super::compare::{ComparedPart, compare};
use crate::config::{RunConfig, to_toml};
use crate::disk::atomic;
use crate::run::{RunDir, Stop};

/// Questions of the two evaluations; a run's own number would take most of the time.
const HELD_OUT: usize = 16;

/// Trains `config` for 2 · `steps` steps twice, in `folder`: once as a whole, and once killed in the step after the checkpoint
/// of step `steps` and resumed by another process. `say` receives the name of each phase when it starts.
///
/// # Errors
/// A process fails, or ends before it can be killed.
pub fn verify_resume(
    config: &RunConfig,
    steps: usize,
    folder: &Path,
    stop: &Stop,
    say: &mut dyn FnMut(&str),
) -> Result<Vec<ComparedPart>> {
    let mut config = config.clone();
    config.train.steps = Some(2 * steps);
    config.train.save_steps = steps;
    config.eval.questions = config.eval.questions.min(HELD_OUT);
    config.run.dir = folder.display().to_string();
    config.run.name = None;
    let file = folder.join("config.toml");
    atomic::write(&file, to_toml(&config, None).as_bytes())?;
    let file = file.display().to_string();
    let start = |name: &str| {
        let args = ["train", "--yes", "--config", &file, "--name", name];
        RftProcess::start(&args, &folder.join(format!("{name}.log")))
    };

    say(&format!("a run of {} steps without interruption", 2 * steps));
    start("whole")?.finish(stop).context("train without interruption")?;

    say(&format!("a run that is killed in the step after its checkpoint of step {steps}"));
    let path = folder.join("killed");
    start("killed")?.kill_after(&path, steps, stop).context("train until the kill")?;
    let killed = RunDir::open(&path)?;
    let newest = killed.newest_checkpoint(|_, _| ())?;
    ensure!(
        newest == Some(steps),
        "the killed run was expected to have a checkpoint of step {steps}, found {}",
        newest.map_or("none".to_owned(), |step| format!("step {step}"))
    );

    say(&format!("the killed run, resumed from step {steps}"));
    let args = ["train", "--yes", "--resume", &path.display().to_string()];
    RftProcess::start(&args, &folder.join("resumed.log"))?.finish(stop).context("resume the killed run")?;
    compare(&RunDir::open(&folder.join("whole"))?, &killed, 2 * steps)
}
