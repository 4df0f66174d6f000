//! Keeps a job that gets nowhere from being requeued for ever.
//!
//! A time limit that is shorter than a step ends every process of a run where it began, and each of them asks to be started again.
//! So a requeued job counts its starts at the same place.

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

/// Starts in a row at the same place, after which there is no other.
const MOST: u32 = 3;

#[derive(Serialize, Deserialize)]
struct Starts {
    place: u64,
    count: u32,
}

/// Counts a start of `task`, which Slurm has requeued `restarts` times.
///
/// # Errors
/// It has been started here often enough; its log says so too.
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
            "`{}` was started {MOST} times in a row and got no further\n\
             hint: one step, or one completion of an evaluation, has to fit into `slurm.time`; start the sweep again with more of it",
            task.name
        );
        writeln!(log(folder, task)?, "error: {error}").context("write the log")?;
        bail!(error);
    }
    atomic::write(&path, &serde_json::to_vec(&Starts { place, count })?)
}

/// How far a task is: the step of a run's newest checkpoint, the bytes of an evaluation.
fn place(folder: &SweepFolder, task: &SweepTask) -> Result<u64> {
    match task.kind {
        TaskKind::Run => match RunDir::open(&folder.run_path(&task.name)) {
            Ok(run) => Ok(run.checkpoints()?.last().map_or(0, |step| *step as u64)),
            Err(_) => Ok(0),
        },
        TaskKind::Eval => Ok(bytes(&folder.eval_path(&task.name))),
    }
}

/// Of all files below `path`; 0 where it does not exist.
fn bytes(path: &Path) -> u64 {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|it| if it.path().is_dir() { bytes(&it.path()) } else { it.metadata().map_or(0, |it| it.len()) }).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_starts_at_one_place_are_enough() {
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
        // A step further, and a job that was submitted anew, begin the count again.
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
