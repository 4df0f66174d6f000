//! One GPU with its stream, its kernels and cuBLASLt.

use super::blas::Blas;
use super::modules::Kernels;
use super::record::{MEMORY, Recorder};
use super::room::{self, Room};
use anyhow::{Context, Result, bail, ensure};
use cudarc::driver::{CudaContext, CudaStream, sys};
use std::rc::Rc;
use std::sync::Arc;

/// The device, with the stream and libraries that use it.
pub struct Gpu {
    pub(super) target: GpuTarget,
    pub kernels: Kernels,
    pub blas: Blas,
    pub name: String,
    /// Bytes of memory that were free when it was opened.
    pub(super) free_at_start: usize,
    /// Whether every piece of an arena is a separate allocation, for a tool that detects overruns.
    pub guarded: bool,
}

/// Where work goes.
pub(super) enum GpuTarget {
    Stream(Arc<CudaStream>),
    /// No driver: what would be issued is recorded.
    Recorder(Rc<Recorder>),
}

impl Gpu {
    /// A GPU without a driver, which records what is issued to it.
    pub fn recorded(recorder: Rc<Recorder>) -> Self {
        let name = "a recorded GPU".to_owned();
        let (kernels, blas) = (Kernels::default(), Blas::recorded(recorder.clone()));
        Self { target: GpuTarget::Recorder(recorder), kernels, blas, name, free_at_start: MEMORY, guarded: false }
    }

    /// The stream that everything is issued to.
    ///
    /// # Errors
    /// When work is recorded.
    pub fn stream(&self) -> Result<&Arc<CudaStream>> {
        match &self.target {
            GpuTarget::Stream(stream) => Ok(stream),
            GpuTarget::Recorder(_) => bail!("a recorded GPU has no stream"),
        }
    }

    /// What records the work, if it is not issued.
    pub fn recorder(&self) -> Option<&Recorder> {
        match &self.target {
            GpuTarget::Stream(_) => None,
            GpuTarget::Recorder(recorder) => Some(recorder),
        }
    }

    /// Opens GPU number `ordinal`.
    pub fn open(ordinal: usize) -> Result<Self> {
        Self::start(ordinal).map_err(room::explain).with_context(|| format!("start on GPU {ordinal}"))
    }

    fn start(ordinal: usize) -> Result<Self> {
        let opened = || format!("open GPU {ordinal}\nhint: run `nvidia-smi` to list the available GPUs");
        let stream = new_stream(ordinal).with_context(opened)?;
        let context = stream.context().clone();
        // SAFETY: there is one stream, so the uses of a buffer need no events to order them.
        unsafe { context.disable_event_tracking() };
        let (free_at_start, _) = context.mem_get_info()?;
        let capability = context.compute_capability()?;
        let name = context.name()?;
        ensure!(
            capability >= (8, 0),
            "{name} has compute capability {capability:?}, but bf16 on tensor cores needs (8, 0)"
        );
        keep_pool(&context)?;
        let kernels = Kernels::load(&context).context("load the kernels")?;
        let blas = Blas::new(stream.clone(), &name)?;
        Ok(Self { target: GpuTarget::Stream(stream), kernels, blas, name, free_at_start, guarded: false })
    }

    /// Waits for all work that was issued.
    pub fn synchronize(&self) -> Result<()> {
        match self.recorder() {
            Some(_) => Ok(()),
            None => self.stream()?.synchronize().context("wait for the GPU"),
        }
    }

    /// Makes the device's context current on this thread, which copies require.
    pub fn bind(&self) -> Result<()> {
        Ok(self.stream()?.context().bind_to_thread()?)
    }

    /// Its current memory.
    pub fn room(&self) -> Result<Room> {
        match self.recorder() {
            Some(_) => Ok(Room { free: MEMORY, total: MEMORY, free_at_start: MEMORY }),
            None => Room::of(self.stream()?.context(), self.free_at_start),
        }
    }
}

/// The only stream, to which all work is issued.
#[cfg(not(feature = "candle-cuda"))]
fn new_stream(ordinal: usize) -> Result<Arc<CudaStream>> {
    Ok(CudaContext::new(ordinal)?.new_stream()?)
}

/// The stream of candle's device, so that candle's models can run on it alongside ours.
#[cfg(feature = "candle-cuda")]
fn new_stream(ordinal: usize) -> Result<Arc<CudaStream>> {
    let device = candle_core::Device::new_cuda_with_stream(ordinal)?;
    Ok(device.as_cuda_device()?.cuda_stream())
}

/// Number of GPUs that the driver lists; 0 if there is no driver.
pub fn count() -> usize {
    if !driver_is_present() {
        return 0;
    }
    CudaContext::device_count().map_or(0, |count| count.max(0) as usize)
}

/// Whether a CUDA driver can be loaded.
#[cfg(feature = "load-cuda")]
pub(super) fn driver_is_present() -> bool {
    // SAFETY: this only opens the driver's library.
    unsafe { sys::is_culib_present() }
}

/// A binary that links to the driver would not start without it.
#[cfg(not(feature = "load-cuda"))]
pub(super) fn driver_is_present() -> bool {
    true
}

/// Makes the allocator keep freed memory: otherwise it is returned to the driver at every synchronization. A GPU
/// without memory pools has no such allocator, and memory is allocated by the driver itself.
fn keep_pool(context: &CudaContext) -> Result<()> {
    if !context.has_async_alloc() {
        return Ok(());
    }
    let mut pool = std::ptr::null_mut();
    let mut keep = u64::MAX;
    context.bind_to_thread()?;
    // SAFETY: both calls receive valid pointers to the type of their attribute.
    unsafe {
        sys::cuDeviceGetDefaultMemPool(&mut pool, context.cu_device()).result()?;
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut keep).cast()).result()?;
    }
    Ok(())
}
