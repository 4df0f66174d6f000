//! The first phase of a sweep with `[sweep.tune]`: the trials, and the choice of a value for each arm.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use super::Worker;
use crate::disk::lock::Lock;
use crate::run::tuning::{FILE, TuneRecord};
use crate::sweep::{SweepFolder, Trials, choice};

/// The end of the phase.
pub enum Tuned {
    /// Every arm has its value. The lock of the trials is `None` if their folder was removed after the choice.
    Chosen(TuneRecord, Option<Lock>),
    /// The trials are not done, and `rft` ends with this exit code.
    Unfinished(ExitCode),
}

/// Does the missing trials and writes the choice, unless it was made earlier.
pub fn run(worker: &Worker, out: &Path, trials: &Trials, earlier: Option<TuneRecord>) -> Result<Tuned> {
    let path = SweepFolder::of_trials(out);
    if let Some(record) = earlier.clone().filter(|it| choice::is_complete(it, trials)) {
        // The choice is valid only if these are still the trials of the file.
        let exists = path.join("sweep.json").is_file();
        let prepared = exists.then(|| SweepFolder::prepare(&path, &trials.sweep)).transpose()?;
        tell(&record, out, true);
        return Ok(Tuned::Chosen(record, prepared.map(|(.., lock)| lock)));
    }
    eprintln!("phase    1 of 2: {}; then the study with the chosen values", describe(trials));
    let (folder, record, lock) = SweepFolder::prepare(&path, &trials.sweep)?;
    let ends = worker.work(&folder, &record, &trials.sweep)?;
    if let Some(code) = worker.stopped() {
        if worker.slurm {
            eprintln!("the runs of the study are submitted by the same command, after the trials are done");
        }
        return Ok(Tuned::Unfinished(code));
    }
    let failed = choice::failures(&ends)?;
    let record = choice::choose(trials, &folder, &failed, earlier)?;
    record.write(out)?;
    tell(&record, out, false);
    Ok(Tuned::Chosen(record, Some(lock)))
}

/// `6 trials choose train.learning_rate for 2 arms (16 steps each, 128 held-out training questions)`
pub fn describe(trials: &Trials) -> String {
    let (runs, arms) = (trials.sweep.runs.len(), trials.arms.len());
    let steps = match trials.steps {
        Some(steps) => format!("{steps} steps each"),
        None => "as many steps as the study".to_owned(),
    };
    format!(
        "{runs} trials choose {} for {arms} arm{} ({steps}, {} held-out training questions)",
        trials.key,
        if arms == 1 { "" } else { "s" },
        trials.questions
    )
}

/// Prints the choice for each arm.
fn tell(record: &TuneRecord, out: &Path, is_earlier: bool) {
    for arm in &record.arms {
        eprintln!("choice   {}", choice::line(arm, &record.key));
    }
    let how = if is_earlier { "chosen earlier, see" } else { "written to" };
    eprintln!("         {how} {}", out.join(FILE).display());
    eprintln!("phase    2 of 2: the study with the chosen values");
}
