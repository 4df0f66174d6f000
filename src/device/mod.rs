//! Where a model computes: on the CPU, or on a GPU where there is one.
//!
//! What a device has to do is defined where it is used: `rollout::Engine` completes prompts, `grpo::learner::Learner` trains.

pub mod candle;
pub mod cpu;
pub mod cuda;
pub mod memory;

use crate::config::RunConfig;
use crate::grpo::learner::{Keep, Learner};
use crate::model::lora::Adapter;
use crate::model::pack::Pack;
use crate::model::source::Source;
use crate::rollout::Engine;
use anyhow::{Result, bail};
use cpu::decoder::Decoder;
use cpu::engine::CpuEngine;
use cpu::learner::CpuLearner;
use std::fmt;
use std::path::Path;

/// A device to compute on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    Cpu,
    /// The GPU of this number.
    Cuda(usize),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

impl Device {
    /// The device that `run.device` names: `cpu`, `cuda`, `cuda:1`, or `auto` for a GPU where there is one.
    pub fn choose(name: &str) -> Result<Device> {
        let ordinal = match name {
            "cpu" => return Ok(Device::Cpu),
            "auto" if gpus() == 0 => return Ok(Device::Cpu),
            "auto" | "cuda" => Some(0),
            _ => name.strip_prefix("cuda:").and_then(|number| number.parse().ok()),
        };
        match ordinal {
            None => bail!("`run.device` is `{name}`\nhint: it is `auto`, `cpu`, `cuda` or `cuda:NUMBER`"),
            Some(ordinal) if ordinal >= gpus() => bail!(
                "GPU {ordinal} was not found: {}\nhint: `rft doctor` lists the driver, libraries and GPUs; or use `--device cpu`",
                match gpus() {
                    0 => "no CUDA driver with a GPU is available".to_owned(),
                    count => format!("the driver lists {count}"),
                }
            ),
            Some(ordinal) => Ok(Device::Cuda(ordinal)),
        }
    }
}

/// GPUs that the driver lets this process see; 0 where there is no driver.
pub fn gpus() -> usize {
    cuda::count()
}

/// How much memory a model is to work in.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Longest prompt and completion together.
    pub positions: usize,
    /// Branches decoded at the same time.
    pub max_rows: usize,
    /// Bytes of a GPU's memory for rollouts and training, beside weights and adapter; `None`: what is free.
    pub working_bytes: Option<u64>,
    /// What passes of training keep; `None` where nothing is trained.
    pub keep: Option<Keep>,
}

impl Extent {
    /// For a run: all of a GPU that is free.
    pub fn of(config: &RunConfig) -> Self {
        let rollout = &config.rollout;
        Self {
            positions: rollout.max_sequence_length(),
            max_rows: rollout.max_rows,
            working_bytes: None,
            keep: Some(if config.train.gradient_checkpointing { Keep::Inputs } else { Keep::Everything }),
        }
    }
}

/// A model whose weights are on a device.
pub enum Loaded {
    Cpu { decoder: Box<Decoder>, max_rows: usize },
    Cuda { shared: Box<cuda::Shared>, max_rows: usize },
}

impl Loaded {
    /// Loads the weights of `source`. `adapter` is one of the shape that will be applied or trained.
    pub fn load(device: Device, source: &Source, adapter: Option<&Adapter>, extent: &Extent) -> Result<Loaded> {
        let max_rows = extent.max_rows;
        match device {
            Device::Cpu => {
                let decoder = Decoder::load(source.config.clone(), source.weights.as_ref(), extent.positions)?;
                Ok(Loaded::Cpu { decoder: Box::new(decoder), max_rows })
            }
            Device::Cuda(ordinal) => {
                let shared = cuda::Shared::load(ordinal, source, adapter, extent)?;
                Ok(Loaded::Cuda { shared: Box::new(shared), max_rows })
            }
        }
    }

    /// Multiplies by the algorithms that the file at `path` names, and adds to it those that are chosen from now on: another
    /// algorithm gives other bits. Returns a warning where those were chosen on another GPU or by another version of cuBLASLt.
    pub fn keep_products(&self, path: &Path) -> Result<Option<String>> {
        match self {
            Loaded::Cpu { .. } => Ok(None),
            Loaded::Cuda { shared, .. } => shared.gpu.blas.keep_choices(path),
        }
    }

    /// What completes prompts.
    pub fn engine(&self) -> Box<dyn Engine + '_> {
        match self {
            Loaded::Cpu { decoder, max_rows } => Box::new(CpuEngine { decoder, max_rows: *max_rows }),
            Loaded::Cuda { shared, max_rows } => Box::new(cuda::engine::CudaEngine::new(shared, *max_rows)),
        }
    }

    /// Logits (rows, vocabulary) of every row of a pack, from a pass that keeps nothing.
    pub fn logits(&self, adapter: Option<&Adapter>, pack: &Pack) -> Result<Vec<f32>> {
        match self {
            Loaded::Cpu { decoder, .. } => {
                Ok(decoder.head().logits(&decoder.forward(adapter, pack, Keep::Nothing).hidden))
            }
            Loaded::Cuda { shared, .. } => shared.logits(adapter, pack),
        }
    }

    /// What learns.
    pub fn learner(&self) -> Box<dyn Learner + '_> {
        match self {
            Loaded::Cpu { decoder, .. } => Box::new(CpuLearner::new(decoder)),
            Loaded::Cuda { shared, .. } => Box::new(cuda::learner::CudaLearner::new(shared)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_by_name() {
        assert_eq!(Device::choose("cpu").unwrap(), Device::Cpu);
        assert!(Device::choose("tpu").unwrap_err().to_string().contains("hint: it is `auto`"));
        assert!(Device::choose("cuda:x").unwrap_err().to_string().contains("`cuda:x`"));
        if gpus() == 0 {
            assert_eq!(Device::choose("auto").unwrap(), Device::Cpu);
            for name in ["cuda", "cuda:1"] {
                assert!(Device::choose(name).unwrap_err().to_string().contains("hint: `rft doctor`"));
            }
        }
        assert_eq!(Device::Cuda(1).to_string(), "cuda:1");
    }
}
