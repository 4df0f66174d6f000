//! Stops jobs that would be requeued forever without progress.
//!
//! If the time limit is shorter than a step, every process of a run ends without progress and is requeued. A requeued job
//! therefore counts its starts without progress.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::folder::SweepFolder;
use super::local::log;
use super::task::{SweepTask, TaskKind};
use crate::disk::atomic;
use crate::run::RunDir;

/// The maximum number of consecutive starts without progress.
const MOST: u32 = 3;

#[derive(Serialize, Deserialize)]
struct Starts {
    place: u64,
    count: u32,
}

/// Counts a start of `task`, which Slurm has requeued `restarts` times.
///
/// # Errors
/// It was started too often without progress. The error is also written to its log.
pub fn count(folder: &SweepFolder, task: &SweepTask, restarts: u32) -> Result<()> {
    let path = folder.starts_path(&task.name);
    let place = place(folder, task)?;
    let before = fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Starts>(&text).ok());
    let count = match before {
        Some(before) if restarts > 0 && before.place == place => before.count + 1,
        _ => 1,
    };
    if count > MOST {
        let error = format!(
            "`{}` was started {MOST} times in a row without progress\n\
             hint: increase `slurm.time`, so that one step or one completion of an evaluation fits into it, and start the sweep again",
            task.name
        );
        writeln!(log(folder, task)?, "error: {error}").context("write the log")?;
        bail!(error);
    }
    atomic::write(&path, &serde_json::to_vec(&Starts { place, count })?)
}

/// The progress of a task: the step of a run's newest checkpoint, or the bytes of an evaluation.
fn place(folder: &SweepFolder, task: &SweepTask) -> Result<u64> {
    match task.kind {
        TaskKind::Run => match RunDir::open(&folder.run_path(&task.name)) {
            Ok(run) => Ok(run.checkpoints()?.last().map_or(0, |step| *step as u64)),
            Err(_) => Ok(0),
        },
        TaskKind::Eval => Ok(bytes(&folder.eval_path(&task.name))),
    }
}

/// Total size of all files below `path`; 0 if it does not exist.
fn bytes(path: &Path) -> u64 {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|it| if it.path().is_dir() { bytes(&it.path()) } else { it.metadata().map_or(0, |it| it.len()) }).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fourth_start_without_progress_is_an_error() {
        let place = tempfile::tempdir().unwrap();
        let folder = SweepFolder { path: place.path().to_owned() };
        fs::create_dir(place.path().join("logs")).unwrap();
        let run = SweepTask { name: "a-s1".into(), kind: TaskKind::Run, needs: None };
        let checkpoint = |step: usize| {
            fs::create_dir_all(folder.run_path("a-s1").join(format!("checkpoints/step-{step:06}"))).unwrap();
        };
        let start = |restarts| count(&folder, &run, restarts);
        (0..3).for_each(|restarts| start(restarts).unwrap());
        let error = start(3).unwrap_err().to_string();
        assert!(error.contains("3 times in a row") && error.contains("hint: "), "{error}");
        assert!(fs::read_to_string(folder.log_path("a-s1")).unwrap().contains("3 times in a row"));
        // A new checkpoint and a newly submitted job reset the count.
        checkpoint(1);
        (4..7).for_each(|restarts| start(restarts).unwrap());
        start(7).unwrap_err();
        start(0).unwrap();
        start(1).unwrap();

        let eval = SweepTask { name: "base".into(), kind: TaskKind::Eval, needs: None };
        fs::create_dir_all(folder.eval_path("base").join("arithmetic")).unwrap();
        for restarts in 0..6 {
            fs::write(folder.eval_path("base").join("arithmetic/samples.jsonl"), "x".repeat(restarts as usize))
                .unwrap();
            count(&folder, &eval, restarts).unwrap();
        }
    }
}
