//! Which parts of CUDA this machine has, for `rft doctor`: nothing is allocated and no kernel is loaded.

use cudarc::cublaslt;
use cudarc::driver::{CudaContext, sys};
use serde::Serialize;

/// The parts that were found.
#[derive(Debug, Serialize)]
pub struct CudaFindings {
    /// The newest CUDA version that the driver supports, such as `12.8`; `None` if there is no driver.
    pub driver: Option<String>,
    /// The version of cuBLASLt in the library's format: 120804 is 12.8.4. `None` if the library was not found.
    pub cublaslt: Option<usize>,
    pub gpus: Vec<GpuFindings>,
    /// The targets and the compiler of the kernels.
    pub kernels: &'static str,
    /// The missing parts, with the package to install.
    pub missing: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct GpuFindings {
    pub name: String,
    pub compute_capability: (i32, i32),
    /// Bytes; `None` if the GPU could not be opened.
    pub memory: Option<usize>,
}

/// Looks for the driver, cuBLASLt and the GPUs.
pub fn probe() -> CudaFindings {
    let driver = driver_version();
    let cublaslt = cublaslt_version();
    let gpus = (0..super::count()).filter_map(|ordinal| gpu(ordinal).ok()).collect();
    let mut missing = Vec::new();
    if driver.is_none() {
        missing.push(
            "no CUDA driver (libcuda.so.1): install NVIDIA's driver, in Debian and Ubuntu the package `nvidia-driver`; \
             a container needs `--gpus all`"
                .to_owned(),
        );
    } else if super::count() == 0 {
        missing.push("the CUDA driver lists no GPU: check `nvidia-smi` and CUDA_VISIBLE_DEVICES".to_owned());
    }
    if cublaslt.is_none() && driver.is_some() {
        missing.push(
            "cuBLASLt (libcublasLt.so.12 or .13) was not found: run `pip install nvidia-cublas-cu12` and add its `lib` folder to \
             LD_LIBRARY_PATH, or install the package `libcublas-12-8` from NVIDIA's repository"
                .to_owned(),
        );
    }
    CudaFindings { driver, cublaslt, gpus, kernels: super::images::ORIGIN, missing }
}

fn driver_version() -> Option<String> {
    if !super::gpu::driver_is_present() {
        return None;
    }
    let mut version = 0;
    // SAFETY: the driver is loaded, and the call writes one int.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().ok()?;
    Some(format!("{}.{}", version / 1000, version % 1000 / 10))
}

fn cublaslt_version() -> Option<usize> {
    if !super::blas::library_is_present() {
        return None;
    }
    // SAFETY: the library is loaded, and the call has no arguments.
    Some(unsafe { cublaslt::sys::cublasLtGetVersion() })
}

fn gpu(ordinal: usize) -> anyhow::Result<GpuFindings> {
    let context = CudaContext::new(ordinal)?;
    Ok(GpuFindings {
        name: context.name()?,
        compute_capability: context.compute_capability()?,
        memory: context.mem_get_info().ok().map(|(_, total)| total),
    })
}
