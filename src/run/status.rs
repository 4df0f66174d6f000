//! The state and progress of a run, read from its directory.

use std::fs::{self, DirEntry};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use super::dir::RunDir;
use super::manifest::Manifest;
use super::metrics::{self, MetricsRecord};
use crate::config::EvalSection;
use crate::disk::lock::is_held;
use crate::stats::mean;

/// The state of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// A process is working on it.
    Running,
    /// All steps are done, and the final evaluation.
    Done,
    /// It stopped early, and `rft train --resume` continues from its newest checkpoint, or from the start without one.
    Interrupted,
}

impl RunState {
    pub fn name(self) -> &'static str {
        match self {
            RunState::Running => "running",
            RunState::Done => "done",
            RunState::Interrupted => "interrupted",
        }
    }
}

/// A run, as `rft runs` lists it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunStatus {
    pub name: String,
    pub state: RunState,
    /// Steps done.
    pub step: usize,
    /// Total number of steps.
    pub steps: usize,
    /// Of the last step.
    pub reward: Option<f64>,
    pub prompt: String,
    pub model: String,
    pub seed: u64,
    /// Start time: RFC 3339, UTC.
    pub started: Option<String>,
    /// Mean time of the last steps.
    pub seconds_per_step: Option<f64>,
}

/// Number of steps whose mean time predicts the time of the next ones.
const RECENT: usize = 10;

impl RunStatus {
    /// # Errors
    /// The directory has no manifest, or one of its files cannot be read.
    pub fn read(run: &RunDir) -> Result<Self> {
        let manifest = Manifest::read(run)?;
        let records = if run.metrics().is_file() { metrics::read(&run.metrics())? } else { Vec::new() };
        let training: Vec<&MetricsRecord> =
            records.iter().filter(|record| record.values.contains_key("reward")).collect();
        let step = training.last().map_or(0, |record| record.step);
        let state = match () {
            () if is_held(run.path()) => RunState::Running,
            () if step >= manifest.steps && is_finished(run, manifest.steps)? => RunState::Done,
            () => RunState::Interrupted,
        };
        Ok(Self {
            name: name(run.path()),
            state,
            step,
            steps: manifest.steps,
            reward: training.last().and_then(|record| record.values["reward"]),
            prompt: manifest.prompt_label(),
            model: manifest.model.path,
            seed: manifest.seed,
            started: manifest.sessions.first().map(|session| session.started.clone()),
            seconds_per_step: seconds_per_step(&training),
        })
    }

    /// Seconds until the last step, at the speed of the last ones.
    pub fn seconds_left(&self) -> Option<f64> {
        Some(self.steps.saturating_sub(self.step) as f64 * self.seconds_per_step?)
    }
}

fn seconds_per_step(training: &[&MetricsRecord]) -> Option<f64> {
    let recent = &training[training.len().saturating_sub(RECENT)..];
    let times: Vec<f64> = recent.iter().filter_map(|record| *record.values.get("step_time")?).collect();
    (!times.is_empty()).then(|| mean(&times))
}

/// Whether `path` is a run directory.
pub fn is_run(path: &Path) -> bool {
    path.join("manifest.json").is_file()
}

/// The run directories in `folder`, in the order of their names. The default folder `runs` may be missing: `rft train` creates
/// it.
pub fn runs_in(folder: &Path) -> Result<Vec<PathBuf>> {
    if folder == Path::new("runs") && !folder.exists() {
        return Ok(Vec::new());
    }
    let context = || format!("read the runs in `{}`", folder.display());
    let entries: Vec<DirEntry> = fs::read_dir(folder).and_then(Iterator::collect).with_context(context)?;
    let mut runs: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).filter(|path| is_run(path)).collect();
    runs.sort();
    Ok(runs)
}

/// The resolved configuration as plain TOML, with the keys of the version that wrote it.
///
/// # Errors
/// The file is missing or not valid TOML.
pub fn read_config(run: &RunDir) -> Result<toml::Table> {
    let path = run.config();
    let text = fs::read_to_string(&path).with_context(|| format!("read `{}`", path.display()))?;
    toml::from_str(&text).with_context(|| format!("parse `{}`", path.display()))
}

/// The last part of a path.
pub fn name(path: &Path) -> String {
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    whole.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Whether a run with all steps done is finished.
fn is_finished(run: &RunDir, steps: usize) -> Result<bool> {
    // Checkpoints are large; if the user removed them, the run is not meant to be resumed.
    if run.checkpoints()?.is_empty() {
        return Ok(run.adapter().is_dir());
    }
    // Another version of the program may have had other keys.
    let eval = read_config(run).ok().and_then(|mut config| config.remove("eval")?.try_into::<EvalSection>().ok());
    eval.map_or(Ok(run.adapter().is_dir()), |eval| run.is_finished(steps, &eval))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::manifest::{PromptIdentity, RunSession, SourceRecord};
    use std::collections::BTreeMap;

    fn manifest() -> Manifest {
        let source = |path: &str| SourceRecord { path: path.into(), revision: None, files: BTreeMap::new() };
        let prompt =
            PromptIdentity { name: "none".into(), wording: "rft".into(), sha256: "00".into(), mixture: Vec::new() };
        let sessions = vec![RunSession::start(jiff::Timestamp::now(), "cpu", 1, None)];
        Manifest {
            seed: 7,
            steps: 2,
            model: source("tiny"),
            data: source("arithmetic"),
            prompt,
            distilled: None,
            template: None,
            init_adapter: None,
            difficulty: None,
            held_out: None,
            files: BTreeMap::new(),
            sessions,
        }
    }

    #[test]
    fn a_run_passes_through_its_states() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path(), Some("first"), "tiny").unwrap();
        manifest().write(&run).unwrap();
        let state = || RunStatus::read(&RunDir::open(&folder.path().join("first")).unwrap()).unwrap();
        assert_eq!((state().state, state().steps, state().reward), (RunState::Running, 2, None));
        let path = run.path().to_owned();
        drop(run);
        assert_eq!(state().state, RunState::Interrupted);
        fs::create_dir_all(path.join("checkpoints/step-000001")).unwrap();
        fs::write(path.join("metrics.jsonl"), "{\"step\":1,\"reward\":0.5}\n{\"step\":1,\"eval/greedy/accuracy\":1}\n")
            .unwrap();
        let interrupted = state();
        assert_eq!((interrupted.state, interrupted.step, interrupted.reward), (RunState::Interrupted, 1, Some(0.5)));
        fs::write(path.join("metrics.jsonl"), "{\"step\":1,\"reward\":0.5}\n{\"step\":2,\"reward\":null}\n").unwrap();
        fs::create_dir(path.join("adapter")).unwrap();
        fs::write(path.join("config.toml"), "[eval]\npath = \"held-out\"\nquestions = 8\nevery = 0\ngreedy = false\n")
            .unwrap();
        assert_eq!(state().state, RunState::Interrupted);
        fs::create_dir(path.join("eval")).unwrap();
        fs::write(path.join("eval/step-000002-sampled.jsonl"), "").unwrap();
        assert_eq!((state().state, state().reward, state().seed), (RunState::Done, None, 7));
        fs::remove_dir_all(path.join("checkpoints")).unwrap();
        fs::remove_dir_all(path.join("eval")).unwrap();
        assert_eq!(state().state, RunState::Done);
    }
}
