//! Errors of a GPU whose memory is full: what is needed, what is free, and what to do about it.

use anyhow::{Error, Result, anyhow};
use cudarc::driver::{CudaContext, DriverError, sys};
use indicatif::HumanBytes;

/// What CUDA itself may take as it starts. More than that was taken by other programs.
const CUDA_ITSELF: usize = 2 << 30;

/// The memory of a GPU, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub free: usize,
    pub total: usize,
    /// Free as this process came to the GPU.
    pub free_at_start: usize,
}

impl Room {
    /// Of the GPU of a context, as it is now.
    pub fn of(context: &CudaContext, free_at_start: usize) -> Result<Self> {
        let (free, total) = context.mem_get_info()?;
        Ok(Self { free, total, free_at_start })
    }

    /// The message where `wanted` bytes for `what` are more than there are; `hint` is what the user may do about it.
    pub fn lacking(&self, gpu: &str, what: &str, wanted: usize, hint: &str) -> String {
        let size = |bytes: usize| HumanBytes(bytes as u64);
        let (wanted, free, total) = (size(wanted), size(self.free), size(self.total));
        let message = format!("no room on {gpu} for {what}: {wanted} are needed, {free} of {total} are free");
        match self.total - self.free_at_start {
            others if others > CUDA_ITSELF => format!(
                "{message} ({} were in use before `rft` started)\n\
                 hint: `nvidia-smi` lists the programs that use this GPU; end them, or choose another GPU with `--device cuda:NUMBER`",
                size(others)
            ),
            _ => format!("{message}\nhint: {hint}"),
        }
    }
}

/// Whether the driver had no memory left on the GPU.
pub fn is_full(error: &Error) -> bool {
    let full = |error: &DriverError| error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY;
    error.chain().any(|cause| cause.downcast_ref::<DriverError>().is_some_and(full))
}

/// Adds what to do about a full GPU to the error of something that takes memory beside ours: a context, a kernel, a graph.
pub fn explain(error: Error) -> Error {
    if !is_full(&error) {
        return error;
    }
    error.context(
        "the GPU has no memory left for CUDA itself\nhint: `nvidia-smi` lists the programs that use this GPU; end them, or choose another GPU with `--device cuda:NUMBER`",
    )
}

/// The error where `bytes` for `what` could not be taken.
pub fn cannot_take(error: Error, gpu: &str, room: Result<Room>, bytes: usize, what: &str) -> Error {
    match room {
        Ok(room) if is_full(&error) => {
            anyhow!(room.lacking(gpu, what, bytes, "end what else uses this GPU, or use one with more memory"))
        }
        _ => error.context(format!("take GPU memory for {what}")),
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
        let want = "no room on GPU X for the weights: 15.00 GiB are needed, 3.00 GiB of 24.00 GiB are free";
        assert_eq!(message, format!("{want}\nhint: use a smaller model"));

        let room = Room { free_at_start: 4 * GIB, ..room };
        let message = room.lacking("GPU X", "the weights", 15 * GIB, "use a smaller model");
        let others = " (20.00 GiB were in use before `rft` started)\nhint: `nvidia-smi` lists";
        assert!(message.starts_with(&format!("{want}{others}")), "{message}");
    }

    #[test]
    fn only_the_drivers_want_of_memory_is_explained() {
        let full = Err::<(), _>(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)).context("load").unwrap_err();
        assert!(explain(full).to_string().contains("no memory left for CUDA itself\nhint: `nvidia-smi`"));
        assert_eq!(explain(anyhow::anyhow!("another")).to_string(), "another");
    }
}
