//! The manifest: the inputs and versions of a run, so that it can be repeated, without information about the machine's user.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::dir::RunDir;
use crate::disk::atomic;
use crate::disk::hash::sha256;
use crate::prompt::{Mixture, WeightedPrompt};

/// `manifest.json`. Its values do not change during the life of a run, except that sessions are added, and that a session whose
/// inputs have changed replaces their hashes; the earlier ones are in [`RunSession::changes`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub seed: u64,
    /// Seed of the whole run.
    pub steps: usize,
    pub model: SourceRecord,
    pub data: SourceRecord,
    /// The prior prompt of the rollouts.
    pub prompt: PromptIdentity,
    /// The prior prompt that was distilled; the rollouts have none then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distilled: Option<PromptIdentity>,
    /// The user's own chat template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<SourceRecord>,
    /// The adapter that the run started from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_adapter: Option<SourceRecord>,
    /// The source of the held-out questions, if they are not taken from the training data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out: Option<SourceRecord>,
    /// The file with the pass rates by which training questions were selected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difficulty: Option<SourceRecord>,
    /// SHA-256 of the files of the run directory that are inputs. Empty in manifests of older versions.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// The process that started the run, then each process that resumed it.
    pub sessions: Vec<RunSession>,
}

impl Manifest {
    /// The prior prompt that the run learns from: under which it samples, or which it distills.
    pub fn learned_prompt(&self) -> &PromptIdentity {
        self.distilled.as_ref().unwrap_or(&self.prompt)
    }

    /// The name of [`Manifest::learned_prompt`], and whether it is distilled.
    pub fn prompt_label(&self) -> String {
        match &self.distilled {
            Some(distilled) => format!("{} distilled", distilled.name),
            None => self.prompt.name.clone(),
        }
    }
}

/// The source of weights or questions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceRecord {
    /// The source as the user passed it.
    pub path: String,
    /// The commit, for a Hub id.
    pub revision: Option<String>,
    /// SHA-256 by file name, and under `all` that of all its weights or questions together.
    pub files: BTreeMap<String, String>,
}

/// The prior prompt, and whose wording it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PromptIdentity {
    pub name: String,
    pub wording: String,
    /// SHA-256 of the text; of a mixture, of the file with all prompts.
    pub sha256: String,
    /// The prompts of a mixture; empty for a single prompt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mixture: Vec<MixedPrompt>,
}

/// One of the prior prompts of a mixture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MixedPrompt {
    pub name: String,
    pub weight: f64,
    pub wording: String,
    /// SHA-256 of the text.
    pub sha256: String,
}

impl From<&Mixture> for PromptIdentity {
    fn from(mixture: &Mixture) -> Self {
        let part = |WeightedPrompt { prompt, weight }: &WeightedPrompt| MixedPrompt {
            name: prompt.name.clone(),
            weight: *weight,
            wording: prompt.wording.clone(),
            sha256: sha256(prompt.text.as_bytes()),
        };
        let parts: Vec<MixedPrompt> = mixture.parts().iter().map(part).collect();
        Self {
            name: mixture.name(),
            wording: mixture.wording(),
            sha256: match &parts[..] {
                [one] => one.sha256.clone(),
                _ => sha256(mixture.to_toml().as_bytes()),
            },
            mixture: if mixture.is_mixed() { parts } else { Vec::new() },
        }
    }
}

/// One process of the run. Results are bit-identical for equal version, target, processor and device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunSession {
    /// RFC 3339, UTC.
    pub started: String,
    /// The command as typed, with the program's name without its folder.
    pub command: Vec<String>,
    /// The step of the checkpoint that it resumed from.
    pub resumed_from: Option<usize>,
    pub rft: String,
    /// Commit that the program was built from, if the build could determine it.
    pub git: Option<String>,
    pub target: String,
    /// Instruction sets that change the rounding of sums.
    pub cpu: Vec<String>,
    /// Cargo features of the build.
    pub features: Vec<String>,
    pub device: String,
    pub threads: usize,
    /// The inputs that had changed since the session before, which the user accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<InputChange>,
}

/// An input that differs from the one that the run was using.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputChange {
    /// Which one, such as "data file `train.jsonl`".
    pub input: String,
    /// SHA-256; absent if the file is new.
    pub before: Option<String>,
    /// SHA-256; absent if the file is missing.
    pub after: Option<String>,
}

impl Manifest {
    pub fn read(run: &RunDir) -> Result<Self> {
        Self::read_file(&run.manifest())
    }

    /// Reads a `manifest.json`.
    pub fn read_file(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("read `{}`", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("parse `{}`", path.display()))
    }

    /// When the run was started; `None` in a damaged or edited file.
    pub fn started(&self) -> Option<Timestamp> {
        self.sessions.first()?.started.parse().ok()
    }

    /// Writes the file, or replaces it after a session was added.
    pub fn write(&self, run: &RunDir) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(self).context("encode the manifest")?;
        text.push(b'\n');
        atomic::write(&run.manifest(), &text)
    }
}

/// A time in UTC, to the second: `2026-11-30T06:15:00Z`.
fn text(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

impl RunSession {
    /// A session of this process, which started at `time`.
    pub fn start(time: Timestamp, device: &str, threads: usize, resumed_from: Option<usize>) -> Self {
        Self {
            started: text(time),
            command: command(env::args_os().map(|argument| argument.to_string_lossy().into_owned())),
            resumed_from,
            rft: env!("CARGO_PKG_VERSION").to_owned(),
            git: option_env!("RFT_GIT_HASH").map(str::to_owned),
            target: option_env!("RFT_TARGET")
                .map_or_else(|| format!("{}-{}", env::consts::ARCH, env::consts::OS), str::to_owned),
            cpu: instruction_sets(),
            features: option_env!("RFT_FEATURES")
                .map_or_else(Vec::new, |names| names.split_terminator(',').map(str::to_owned).collect()),
            device: device.to_owned(),
            threads,
            changes: Vec::new(),
        }
    }
}

fn command(arguments: impl Iterator<Item = String>) -> Vec<String> {
    let mut command: Vec<String> = arguments.collect();
    if let Some(program) = command.first_mut()
        && let Some(name) = Path::new(program).file_name()
    {
        *program = name.to_string_lossy().into_owned();
    }
    command
}

#[cfg(target_arch = "x86_64")]
fn instruction_sets() -> Vec<String> {
    let sets = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
    ];
    sets.into_iter().filter(|&(_, present)| present).map(|(name, _)| name.to_owned()).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn instruction_sets() -> Vec<String> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_added_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path(), None, "tiny").unwrap();
        let source = |path: &str| SourceRecord {
            path: path.into(),
            revision: None,
            files: BTreeMap::from([("model.safetensors".into(), "00".into())]),
        };
        let mut manifest = Manifest {
            seed: 42,
            steps: 40,
            model: source("tiny"),
            data: source("arithmetic"),
            prompt: PromptIdentity {
                name: "null-example".into(),
                wording: "rft".into(),
                sha256: "00".into(),
                mixture: Vec::new(),
            },
            distilled: None,
            template: None,
            init_adapter: None,
            difficulty: None,
            held_out: None,
            files: BTreeMap::new(),
            sessions: vec![RunSession::start(Timestamp::now(), "cpu", 2, None)],
        };
        manifest.write(&run).unwrap();
        let mut again = Manifest::read(&run).unwrap();
        assert_eq!(again, manifest);
        assert_eq!((&again.model, &again.data), (&manifest.model, &manifest.data));

        let session = RunSession::start(Timestamp::now(), "cpu", 1, Some(20));
        again.sessions.push(session.clone());
        again.write(&run).unwrap();
        manifest.sessions.push(session);
        assert_eq!(Manifest::read(&run).unwrap(), manifest);
    }

    #[test]
    fn a_session_records_time_and_command_but_no_folder() {
        let session = RunSession::start(Timestamp::now(), "cpu", 2, None);
        let started: Timestamp = session.started.parse().unwrap();
        assert!((0..60).contains(&Timestamp::now().duration_since(started).as_secs()) && session.started.len() == 20);
        assert!(!session.command[0].contains('/'), "{:?}", session.command);
        let typed = ["/home/ada/bin/rft", "train", "--data", "a/b.jsonl"].map(str::to_owned);
        assert_eq!(command(typed.into_iter()), ["rft", "train", "--data", "a/b.jsonl"]);
    }
}
