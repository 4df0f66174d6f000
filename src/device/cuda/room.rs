//! Errors of a GPU without enough memory: what is needed, what is free, and what to do about it.

use anyhow::{Error, Result, anyhow};
use cudarc::driver::{CudaContext, DriverError, sys};
use indicatif::HumanBytes;

/// Maximum memory that CUDA itself uses at startup. If more is in use, it belongs to other programs.
const CUDA_ITSELF: usize = 2 << 30;

/// The memory of a GPU, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub free: usize,
    pub total: usize,
    /// Free when this process started to use the GPU.
    pub free_at_start: usize,
}

impl Room {
    /// The current memory of a context's GPU.
    pub fn of(context: &CudaContext, free_at_start: usize) -> Result<Self> {
        let (free, total) = context.mem_get_info()?;
        Ok(Self { free, total, free_at_start })
    }

    /// The error message if `wanted` bytes for `what` are not available; `hint` is what the user can do about it.
    pub fn lacking(&self, gpu: &str, what: &str, wanted: usize, hint: &str) -> String {
        let size = |bytes: usize| HumanBytes(bytes as u64);
        let (wanted, free, total) = (size(wanted), size(self.free), size(self.total));
        let message = format!("not enough memory on {gpu} for {what}: {wanted} needed, {free} of {total} free");
        match self.total - self.free_at_start {
            others if others > CUDA_ITSELF => format!(
                "{message} ({} were in use before `rft` started)\n\
                 hint: end other programs on this GPU (see `nvidia-smi`), or choose another with `--device cuda:NUMBER`",
                size(others)
            ),
            _ => format!("{message}\nhint: {hint}"),
        }
    }
}

/// Whether the driver reported that the GPU is out of memory.
pub fn is_full(error: &Error) -> bool {
    let full = |error: &DriverError| error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY;
    error.chain().any(|cause| cause.downcast_ref::<DriverError>().is_some_and(full))
}

/// Adds a hint about a full GPU to the error of something that uses memory outside the arena: a context, a kernel, a
/// graph.
pub fn explain(error: Error) -> Error {
    if !is_full(&error) {
        return error;
    }
    error.context(
        "the GPU has no memory left for CUDA itself\nhint: end other programs on this GPU (see `nvidia-smi`), or choose another with `--device cuda:NUMBER`",
    )
}

/// The error if `bytes` for `what` could not be allocated.
pub fn cannot_take(error: Error, gpu: &str, room: Result<Room>, bytes: usize, what: &str) -> Error {
    match room {
        Ok(room) if is_full(&error) => {
            anyhow!(room.lacking(gpu, what, bytes, "end other programs on this GPU, or use a GPU with more memory"))
        }
        _ => error.context(format!("allocate GPU memory for {what}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    const GIB: usize = 1 << 30;

    #[test]
    fn a_full_gpu_is_explained_by_what_fills_it() {
        let room = Room { free: 3 * GIB, total: 24 * GIB, free_at_start: 23 * GIB };
        let message = room.lacking("GPU X", "the weights", 15 * GIB, "use a smaller model");
        let want = "not enough memory on GPU X for the weights: 15.00 GiB needed, 3.00 GiB of 24.00 GiB free";
        assert_eq!(message, format!("{want}\nhint: use a smaller model"));

        let room = Room { free_at_start: 4 * GIB, ..room };
        let message = room.lacking("GPU X", "the weights", 15 * GIB, "use a smaller model");
        let others = " (20.00 GiB were in use before `rft` started)\nhint: end other programs on this GPU";
        assert!(message.starts_with(&format!("{want}{others}")), "{message}");
    }

    #[test]
    fn only_the_drivers_lack_of_memory_is_explained() {
        let full = Err::<(), _>(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)).context("load").unwrap_err();
        assert!(explain(full).to_string().contains("no memory left for CUDA itself\nhint: end other programs"));
        assert_eq!(explain(anyhow::anyhow!("another")).to_string(), "another");
    }
}
