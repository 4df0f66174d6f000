//! The devices that run a model: the CPU, or a GPU.
//!
//! The interfaces of a device are defined where they are used: `rollout::Engine` completes prompts,
//! `grpo::learner::Learner` trains.

pub mod cpu;
pub mod cuda;
mod extent;
pub mod memory;

use crate::grpo::learner::Learner;
use crate::model::lora::Adapter;
use crate::model::source::ModelSource;
use crate::rollout::Engine;
use anyhow::{Context, Result, bail};
use cpu::decoder::CpuDecoder;
use cpu::engine::CpuEngine;
use cpu::learner::CpuLearner;
use std::fmt;
use std::path::Path;

pub use extent::Extent;

/// A device to compute on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    Cpu,
    /// The GPU with this number.
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
    /// The device that `run.device` names: `cpu`, `cuda`, `cuda:1`, or `auto` for a GPU if there is one.
    pub fn choose(name: &str) -> Result<Device> {
        let ordinal = match name {
            "cpu" => return Ok(Device::Cpu),
            "auto" if gpus() == 0 => return Ok(Device::Cpu),
            "auto" | "cuda" => Some(0),
            _ => name.strip_prefix("cuda:").and_then(|number| number.parse().ok()),
        };
        match ordinal {
            None => bail!(
                "`run.device`: expected a device, found `{name}`\nhint: use `auto`, `cpu`, `cuda` or `cuda:NUMBER`"
            ),
            Some(ordinal) if ordinal >= gpus() => bail!(
                "GPU {ordinal} was not found: {}\nhint: run `rft doctor` to check the driver, libraries and GPUs, or use `--device cpu`",
                match gpus() {
                    0 => "no CUDA driver with a GPU is available".to_owned(),
                    count => format!("the driver lists {count}"),
                }
            ),
            Some(ordinal) => Ok(Device::Cuda(ordinal)),
        }
    }
}

/// Number of GPUs that the driver makes available to this process; 0 if there is no driver.
pub fn gpus() -> usize {
    cuda::count()
}

/// Makes the process use `count` threads; `None`: one per core. Must be called once, before anything is computed.
pub fn use_threads(count: Option<usize>) -> Result<()> {
    match count {
        Some(threads) => {
            rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().context("start the worker threads")
        }
        None => Ok(()),
    }
}

/// A model whose weights are on a device.
pub enum LoadedModel {
    Cpu { decoder: Box<CpuDecoder>, max_rows: usize },
    Cuda { shared: Box<cuda::Shared>, max_rows: usize },
}

impl LoadedModel {
    /// Loads the weights of `source`. `adapter` has the shape of the one that will be applied or trained.
    pub fn load(
        device: Device,
        source: &ModelSource,
        adapter: Option<&Adapter>,
        extent: &Extent,
    ) -> Result<LoadedModel> {
        let max_rows = extent.max_rows;
        match device {
            Device::Cpu => {
                let decoder = CpuDecoder::load(source.config.clone(), source.weights.as_ref(), extent.positions)?;
                Ok(LoadedModel::Cpu { decoder: Box::new(decoder), max_rows })
            }
            Device::Cuda(ordinal) => {
                let shared = cuda::Shared::load(ordinal, source, adapter, extent)?;
                Ok(LoadedModel::Cuda { shared: Box::new(shared), max_rows })
            }
        }
    }

    /// Uses the matrix product algorithms in the file at `path`, and adds to it those that are chosen from now on:
    /// another algorithm gives different bits. Returns a warning if those were chosen on another GPU or by another
    /// version of cuBLASLt.
    pub fn keep_products(&self, path: &Path) -> Result<Option<String>> {
        match self {
            LoadedModel::Cpu { .. } => Ok(None),
            LoadedModel::Cuda { shared, .. } => shared.gpu.blas.keep_choices(path),
        }
    }

    /// The engine that completes prompts.
    pub fn engine(&self) -> Box<dyn Engine + '_> {
        match self {
            LoadedModel::Cpu { decoder, max_rows } => Box::new(CpuEngine { decoder, max_rows: *max_rows }),
            LoadedModel::Cuda { shared, max_rows } => Box::new(cuda::engine::CudaEngine::new(shared, *max_rows)),
        }
    }

    /// The learner that trains.
    pub fn learner(&self) -> Box<dyn Learner + '_> {
        match self {
            LoadedModel::Cpu { decoder, .. } => Box::new(CpuLearner::new(decoder)),
            LoadedModel::Cuda { shared, .. } => Box::new(cuda::learner::CudaLearner::new(shared)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_by_name() {
        assert_eq!(Device::choose("cpu").unwrap(), Device::Cpu);
        assert!(Device::choose("tpu").unwrap_err().to_string().contains("hint: use `auto`"));
        assert!(Device::choose("cuda:x").unwrap_err().to_string().contains("`cuda:x`"));
        if gpus() == 0 {
            assert_eq!(Device::choose("auto").unwrap(), Device::Cpu);
            for name in ["cuda", "cuda:1"] {
                assert!(Device::choose(name).unwrap_err().to_string().contains("hint: run `rft doctor`"));
            }
        }
        assert_eq!(Device::Cuda(1).to_string(), "cuda:1");
    }
}
