//! A run whose folder or logs are deleted or moved while it works ends with an error at its next write.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::cli::{folder, rft_path};
use crate::progress::{held_reward, hold_after, release, until};

/// Completions of a step.
const STEP: usize = 2 * 2;

/// Trains, and holds the run in its second step, where `lose` deletes something. Returns the exit code and the error.
fn lose(folder: &Path, sets: &[&str], lose: impl FnOnce(&Path)) -> (Option<i32>, String) {
    hold_after(folder, STEP);
    let mut child = Command::new(rft_path())
        .args(["train", "--ppe=none", "--threads=1", "--steps=3", "--name=run", "--set=eval.questions=0"])
        .args(["--set=rollout.prompts_per_step=2", "--set=rollout.num_generations=2"])
        .arg(format!("--set={}", held_reward()))
        .args(sets)
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("step 1/3") {
        line.clear();
        assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "the run ended before its first step");
    }
    // Step 1 is saved when the first completion of step 2 is held.
    until("step 2", || {
        let asked = fs::read_to_string(folder.join("asked")).unwrap_or_default();
        (asked.lines().count() > STEP).then_some(())
    });
    lose(&folder.join("runs/run"));
    release(folder);
    let mut said = String::new();
    stderr.read_to_string(&mut said).unwrap();
    (child.wait().unwrap().code(), said)
}

#[test]
fn a_deleted_or_moved_run_directory_is_noticed_at_the_next_write() {
    let at_home = folder();
    let (code, said) = lose(at_home.path(), &[], |run| fs::remove_dir_all(run).unwrap());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("error: the run directory `runs/run` was deleted, moved or replaced"), "{said}");
    assert!(!at_home.path().join("runs/run").exists(), "no part of a run is written to a new folder");

    let at_home = folder();
    let moved = at_home.path().join("elsewhere");
    let (code, said) = lose(at_home.path(), &["--set=train.save_steps=1"], |run| fs::rename(run, &moved).unwrap());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("hint: if it was moved, resume the run"), "{said}");
    let output =
        Command::new(rft_path()).args(["train", "--resume", "elsewhere"]).current_dir(at_home.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("step 2/3") && !said.contains("step 1/3"), "{said}");
}

#[test]
fn a_deleted_or_replaced_log_is_noticed_at_the_next_write() {
    let delete = |name: &'static str| {
        move |run: &Path| {
            let files = fs::read_dir(run).unwrap().map(|entry| entry.unwrap().path());
            let named = |path: &std::path::PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(name);
            files.filter(named).for_each(|path| fs::remove_file(path).unwrap());
        }
    };
    for name in ["completions.jsonl", "metrics.jsonl", "events.out.tfevents"] {
        let folder = folder();
        let (code, said) = lose(folder.path(), &[], delete(name));
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(&format!("`runs/run/{name}")) && said.contains("was deleted, moved"), "{said}");
    }
    let folder = folder();
    let (code, said) = lose(folder.path(), &[], |run| {
        fs::copy(run.join("completions.jsonl"), run.join("copy")).unwrap();
        fs::rename(run.join("copy"), run.join("completions.jsonl")).unwrap();
    });
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("completions.jsonl` was deleted, moved or replaced"), "{said}");
}
