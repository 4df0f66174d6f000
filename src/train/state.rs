//! What changes during a run, and its checkpoints.
//!
//! Randomness is a function of seed and step, so step, adapter, optimiser and the place in the data are all of it: a run
//! that goes on from a checkpoint draws the same tokens as one that never stopped.

use crate::config::LoraSection;
use crate::disk::atomic;
use crate::grpo::adamw::{AdamW, Layout};
use crate::model::config::ModelConfig;
use crate::model::lora::Adapter;
use crate::model::peft::{load_adapter, save_adapter};
use crate::model::safetensors::{Dtype, SafetensorsFile, Writer};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// The state of a run after `counters.step` steps.
pub struct TrainState {
    pub counters: Counters,
    pub adapter: Adapter,
    pub adamw: AdamW,
}

/// How far a run is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counters {
    pub step: usize,
    /// Optimiser updates, those that were skipped included: the place in the learning-rate schedule.
    pub updates: usize,
    /// Updates that moved the adapter.
    pub optimizer_steps: u64,
    /// Questions taken from the data, over all epochs.
    pub questions: u64,
    /// Tokens of all prompts and completions so far.
    pub num_tokens: u64,
}

const COUNTERS: &str = "trainer_state.json";
const OPTIMIZER: &str = "optimizer.safetensors";
const ADAPTER: &str = "adapter";

impl TrainState {
    pub fn new(config: &ModelConfig, lora: &LoraSection, seed: u64) -> Result<Self> {
        let adapter = Adapter::new(config, lora, seed)?;
        let adamw = AdamW::new(adapter.params.len());
        Ok(Self { counters: Counters::default(), adapter, adamw })
    }

    /// Writes a checkpoint folder that appears whole or not at all. `base` is the model's name for the adapter's file.
    pub fn save(&self, folder: &Path, base: &str) -> Result<()> {
        atomic::commit_dir(folder, |folder| {
            save_adapter(&self.adapter, &folder.join(ADAPTER), base)?;
            let moments = self.adamw.state(&layout(&self.adapter));
            let shapes: Vec<_> = moments.iter().map(|(name, values)| (name.clone(), vec![values.len()])).collect();
            let mut file = Writer::create(&folder.join(OPTIMIZER), &shapes, Dtype::F32)?;
            for (name, values) in &moments {
                file.write(name, values)?;
            }
            file.finish()?;
            let mut counters = serde_json::to_vec_pretty(&self.counters)?;
            counters.push(b'\n');
            atomic::write(&folder.join(COUNTERS), &counters)
        })
    }

    /// Reads a checkpoint folder.
    pub fn load(folder: &Path, config: &ModelConfig, lora: &LoraSection) -> Result<Self> {
        let adapter = load_adapter(&folder.join(ADAPTER), config, Some(lora))?;
        let path = folder.join(COUNTERS);
        let text = std::fs::read(&path).with_context(|| format!("read `{}`", path.display()))?;
        let counters: Counters = serde_json::from_slice(&text).with_context(|| format!("read `{}`", path.display()))?;
        let file = SafetensorsFile::open(&folder.join(OPTIMIZER))?;
        let moments: BTreeMap<String, Vec<f32>> =
            file.tensors().keys().map(|name| Ok((name.clone(), file.read(name)?))).collect::<Result<_>>()?;
        let adamw = AdamW::from_state(&moments, &layout(&adapter), counters.optimizer_steps)?;
        Ok(Self { counters, adapter, adamw })
    }
}

fn layout(adapter: &Adapter) -> Layout {
    adapter.slots.iter().map(|(name, slot)| (name.clone(), slot.range.clone())).collect()
}
