//! Sweeps: expanding their files, and running them on one machine and on a cluster.

mod cluster;
mod expand;
mod tune;
mod work;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rft::sweep::{Sweep, SweepFile};
use serde_json::Value;

use crate::cli::{rft, with};
use crate::train::Trace;

fn read(text: &str, sets: &[&str]) -> anyhow::Result<Sweep> {
    let folder = with("lab.toml", text.as_bytes());
    let path = folder.path().join("lab.toml");
    let sets: Vec<String> = sets.iter().map(|it| (*it).to_owned()).collect();
    let sweep = SweepFile::read(path.to_str().unwrap(), &sets).and_then(|file| rft::sweep::expand(&file));
    sweep.map_err(|error| {
        let text = format!("{error:#}");
        anyhow::anyhow!(text.replace(&format!("{}/", folder.path().display()), ""))
    })
}

fn sweep(text: &str) -> Sweep {
    read(text, &[]).unwrap()
}

/// Two arms and two seeds, four steps each: takes a few seconds.
const SMALL: &str = r#"
preset = "tiny"
rollout.prompts_per_step = 2
rollout.num_generations = 4
train.steps = 4
train.save_steps = 1
eval.questions = 8
[sweep]
name = "small"
seeds = [1, 2]
jobs = 2
[sweep.grid]
"prompt.ppe" = ["reasoning", "none"]
[sweep.eval]
benchmarks = ["arithmetic-1", "arithmetic-2"]
test_prompts = ["own", "none"]
limit = 4
max_tokens = 48
"#;

fn run_sweep(folder: &Path, args: &[&str]) -> (Option<i32>, String) {
    let output = rft(folder).args(["sweep", "sweep.toml"]).args(args).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// The results of a sweep that do not depend on the clock.
fn results(sweep: &Path) -> (BTreeMap<String, Trace>, BTreeMap<PathBuf, Vec<u8>>) {
    let listed = |folder: &str| -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> =
            fs::read_dir(sweep.join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    };
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let runs = listed("runs").into_iter().map(|run| (name(&run), Trace::of(&run))).collect();
    let mut files = BTreeMap::new();
    let mut open = listed("evals");
    open.extend(listed("configs"));
    open.push(sweep.join("sweep.json"));
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if name(&path) != ".lock" {
            files.insert(path.strip_prefix(sweep).unwrap().to_owned(), fs::read(&path).unwrap());
        }
    }
    (runs, files)
}

fn status(folder: &Path, sweep: &str) -> Value {
    let output = rft(folder).args(["sweep", "status", sweep, "--output-format", "json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn states(folder: &Path, sweep: &str) -> BTreeMap<String, String> {
    let status = status(folder, sweep);
    let parts = ["runs", "evals"].into_iter().flat_map(|part| status[part].as_array().unwrap().clone());
    parts.map(|it| (it["name"].as_str().unwrap().to_owned(), it["state"].as_str().unwrap().to_owned())).collect()
}
