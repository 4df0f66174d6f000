//! The state that changes during a run, and its checkpoints.
//!
//! Randomness is a function of seed and step, so the state consists of the step, the adapter, the optimizer and the position
//! in the data: a run that resumes from a checkpoint samples the same tokens as one that was never stopped.

use crate::config::LoraSection;
use crate::disk::atomic;
use crate::grpo::adamw::{AdamW, ParameterLayout};
use crate::model::config::ModelConfig;
use crate::model::lora::Adapter;
use crate::model::peft::{load_adapter, save_adapter};
use crate::model::safetensors::{Dtype, SafetensorsFile, Writer};
use crate::run::RunDir;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// The state of a run after `counters.step` steps.
#[derive(Clone)]
pub struct TrainState {
    pub counters: Counters,
    pub adapter: Adapter,
    pub adamw: AdamW,
}

/// The progress of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counters {
    pub step: usize,
    /// Optimizer updates, including skipped ones: the position in the learning rate schedule.
    pub updates: usize,
    /// Updates that changed the adapter.
    pub optimizer_steps: u64,
    /// Questions used from the data, over all epochs.
    pub questions: u64,
    /// Tokens of all prompts and completions so far.
    pub num_tokens: u64,
}

/// The format version of a checkpoint, in its counters' file. Files without one have version 1.
const VERSION: u64 = 1;

pub const COUNTERS: &str = "trainer_state.json";
pub const OPTIMIZER: &str = "optimizer.safetensors";
pub const ADAPTER: &str = "adapter";

impl Counters {
    fn to_json(&self) -> Result<Vec<u8>> {
        let mut file = serde_json::to_value(self)?;
        file["version"] = VERSION.into();
        let mut text = serde_json::to_vec_pretty(&file)?;
        text.push(b'\n');
        Ok(text)
    }

    fn from_json(text: &[u8]) -> Result<Self> {
        let mut file: serde_json::Map<String, Value> = serde_json::from_slice(text)?;
        let version = file.remove("version").map_or(Some(1), |it| it.as_u64());
        ensure!(
            version == Some(VERSION),
            "the checkpoint's format is not supported by this version of `rft`, which reads version {VERSION}\n\
             hint: resume the run with the version of `rft` that started it"
        );
        Ok(serde_json::from_value(Value::Object(file))?)
    }
}

impl TrainState {
    pub fn new(config: &ModelConfig, lora: &LoraSection, seed: u64) -> Result<Self> {
        let adapter = Adapter::new(config, lora, seed)?;
        let adamw = AdamW::new(adapter.params.len());
        Ok(Self { counters: Counters::default(), adapter, adamw })
    }

    /// The state of the newest valid checkpoint of `run`; `None` without one. For each newer checkpoint that is damaged,
    /// `skipped` is called with its step and the error.
    pub fn resume(
        run: &RunDir,
        config: &ModelConfig,
        lora: &LoraSection,
        skipped: impl FnMut(usize, anyhow::Error),
    ) -> Result<Option<Self>> {
        let newest = run.newest_checkpoint(skipped)?;
        newest.map(|step| Self::load(&run.checkpoint(step), config, lora)).transpose()
    }

    /// Writes a checkpoint folder, completely or not at all. `base` is the model's name for the adapter's file.
    pub fn save(&self, folder: &Path, base: &str) -> Result<()> {
        self.save_with(folder, base, |_| Ok(()))
    }

    /// Like [`TrainState::save`]; `add` writes more files to the folder.
    pub fn save_with(&self, folder: &Path, base: &str, add: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        atomic::commit_dir(folder, |folder| {
            save_adapter(&self.adapter, &folder.join(ADAPTER), base)?;
            let moments = self.adamw.state(&layout(&self.adapter));
            let shapes: Vec<_> = moments.iter().map(|(name, values)| (name.clone(), vec![values.len()])).collect();
            let mut file = Writer::create(&folder.join(OPTIMIZER), &shapes, Dtype::F32)?;
            for (name, values) in &moments {
                file.write(name, values)?;
            }
            file.finish()?;
            add(folder)?;
            atomic::write(&folder.join(COUNTERS), &self.counters.to_json()?)
        })
    }

    /// Reads a checkpoint folder.
    pub fn load(folder: &Path, config: &ModelConfig, lora: &LoraSection) -> Result<Self> {
        let adapter = load_adapter(&folder.join(ADAPTER), config, Some(lora))?;
        let path = folder.join(COUNTERS);
        let text = std::fs::read(&path).with_context(|| format!("read `{}`", path.display()))?;
        let counters = Counters::from_json(&text).with_context(|| format!("read `{}`", path.display()))?;
        let file = SafetensorsFile::open(&folder.join(OPTIMIZER))?;
        let moments: BTreeMap<String, Vec<f32>> =
            file.tensors().keys().map(|name| Ok((name.clone(), file.read(name)?))).collect::<Result<_>>()?;
        let adamw = AdamW::from_state(&moments, &layout(&adapter), counters.optimizer_steps)?;
        Ok(Self { counters, adapter, adamw })
    }
}

fn layout(adapter: &Adapter) -> ParameterLayout {
    adapter.slots.iter().map(|(name, slot)| (name.clone(), slot.range.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_have_a_version() {
        let counters = Counters { step: 3, num_tokens: 70, ..Counters::default() };
        let text = String::from_utf8(counters.to_json().unwrap()).unwrap();
        assert_eq!(Counters::from_json(text.as_bytes()).unwrap(), counters);
        assert!(text.contains("\"version\": 1"), "{text}");
        let other = text.replace("\"version\": 1", "\"version\": 2");
        let error = Counters::from_json(other.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("hint: resume the run with"), "{error}");
        let mut before: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
        before.remove("version");
        assert_eq!(Counters::from_json(&serde_json::to_vec(&before).unwrap()).unwrap(), counters);
    }
}
