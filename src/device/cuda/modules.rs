//! Loaded kernels.

use super::images;
use anyhow::{Context, Result, bail};
use cudarc::driver::{CudaContext, CudaFunction, CudaModule};
use cudarc::nvrtc::Ptx;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The compiled files of `src/device/cuda/kernels`, and the kernels used so far, by name.
#[derive(Default)]
pub struct Kernels {
    modules: Vec<Arc<CudaModule>>,
    pub(super) found: RefCell<BTreeMap<&'static str, CudaFunction>>,
}

impl Kernels {
    pub fn load(context: &Arc<CudaContext>) -> Result<Self> {
        let load = |image: images::Image| {
            let loaded = context.load_module(Ptx::from_binary(image.data));
            loaded
                .with_context(|| format!("load `{}.cu` ({})\nhint: update NVIDIA's driver", image.file, images::ORIGIN))
        };
        let images = images::for_capability(context.compute_capability()?)?;
        let modules = images.into_iter().map(load).collect::<Result<_>>()?;
        Ok(Self { modules, found: RefCell::default() })
    }

    pub(super) fn find(&self, name: &str) -> Result<CudaFunction> {
        match self.modules.iter().find_map(|module| module.load_function(name).ok()) {
            Some(kernel) => Ok(kernel),
            None => bail!("there is no kernel `{name}`"),
        }
    }
}
