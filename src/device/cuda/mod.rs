//! The CUDA path: the same decoder, rollouts and gradient pass as on the CPU, in bf16 on one GPU.
//!
//! One device, one stream and one host thread that launches, so the order of the calls is the order of the work. Products
//! with the frozen weights go through cuBLASLt ([`blas`]); all else is kernels of our own (`src/device/cuda/kernels`, launched by
//! [`launch`]). Weights come from files through [`staging`]. Nothing is added up in an order that depends on timing: the same
//! run on the same GPU gives the same bits.

pub mod adapter;
pub mod blas;
pub mod choices;
pub mod decoder;
pub mod engine;
pub mod images;
pub mod launch;
pub mod learner;
pub mod lora;
pub mod memory;
pub mod ops;
pub mod pack;
pub mod perf;
pub mod probe;
pub mod room;
pub mod selftest;
pub mod slabs;
pub mod staging;
pub mod weights;

use self::pack::DevicePack;
use crate::device::Extent;
use crate::device::memory::RESERVE;
use crate::device::memory::layout::{HeadWork, Layout, SlabSize, adapter_bytes, metadata_bytes, weight_bytes};
use crate::device::memory::lora::LoraColumns;
use crate::grpo::learner::Keep;
use crate::model::config::ModelConfig;
use crate::model::lora::Adapter;
use crate::model::pack::Pack;
use crate::model::source::Source;
use crate::ops::attention_tiles::Tiles;
use anyhow::{Context, Result, ensure};
use cudarc::driver::{CudaContext, CudaStream, sys};
use indicatif::HumanBytes;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// What rollouts and training share: the device, the model, the adapter, and the memory that they use in turn.
pub struct Shared {
    pub gpu: Rc<Gpu>,
    pub decoder: decoder::Decoder,
    /// Memory for an adapter, where one is applied or trained.
    pub adapter: Option<adapter::DeviceAdapter>,
    pub arena: RefCell<memory::DeviceArena>,
}

/// The device with everything that is launched on it.
pub struct Gpu {
    pub stream: Arc<CudaStream>,
    pub kernels: launch::Kernels,
    pub blas: blas::Blas,
    pub name: String,
    /// Bytes of memory that were free as it was opened.
    free_at_start: usize,
    /// Whether every piece of an arena is an allocation of its own, for a tool that looks for overruns.
    pub guarded: bool,
}

impl Gpu {
    /// Opens GPU number `ordinal`.
    pub fn open(ordinal: usize) -> Result<Self> {
        Self::start(ordinal).map_err(room::explain).with_context(|| format!("start on GPU {ordinal}"))
    }

    fn start(ordinal: usize) -> Result<Self> {
        let opened = || format!("open GPU {ordinal}\nhint: `nvidia-smi` lists the GPUs that the driver sees");
        let stream = new_stream(ordinal).with_context(opened)?;
        let context = stream.context().clone();
        // SAFETY: there is one stream, so no event has to order the uses of a buffer.
        unsafe { context.disable_event_tracking() };
        let (free_at_start, _) = context.mem_get_info()?;
        let capability = context.compute_capability()?;
        let name = context.name()?;
        ensure!(
            capability >= (8, 0),
            "{name} has compute capability {capability:?}; bf16 on tensor cores needs (8, 0)"
        );
        keep_pool(&context)?;
        let kernels = launch::Kernels::load(&context).context("load the kernels")?;
        let blas = blas::Blas::new(stream.clone(), &name)?;
        Ok(Self { stream, kernels, blas, name, free_at_start, guarded: false })
    }

    /// Waits for all work that was issued.
    pub fn synchronize(&self) -> Result<()> {
        self.stream.synchronize().context("wait for the GPU")
    }

    /// Makes the device's context that of this thread, as copies need it.
    pub fn bind(&self) -> Result<()> {
        Ok(self.stream.context().bind_to_thread()?)
    }
}

impl Shared {
    /// Loads a model on GPU number `ordinal`, and takes the memory that it is to work in.
    pub fn load(ordinal: usize, source: &Source, adapter: Option<&Adapter>, extent: &Extent) -> Result<Self> {
        check(&source.config)?;
        let origin = weights::Origin::Checkpoint(source.weights.as_ref());
        Self::on(Rc::new(Gpu::open(ordinal)?), source.config.clone(), &origin, adapter, extent)
    }

    /// The same on a GPU that is open, and with weights from anywhere.
    pub fn on(
        gpu: Rc<Gpu>,
        config: ModelConfig,
        origin: &weights::Origin,
        adapter: Option<&Adapter>,
        extent: &Extent,
    ) -> Result<Self> {
        check(&config)?;
        let lora = adapter.map_or_else(LoraColumns::default, |adapter| LoraColumns::of(&adapter.blocks[0]));
        check_room(&gpu, &config, adapter, extent, lora)?;
        let decoder = decoder::Decoder::load(&gpu, config, origin, extent.positions, lora)?;
        let device_adapter = adapter.map(|adapter| adapter::DeviceAdapter::new(&gpu, adapter)).transpose()?;
        // What was taken in the order of the stream is there when the stream has come so far.
        gpu.synchronize()?;
        let free = gpu.room()?.free.saturating_sub(RESERVE);
        let bytes = extent.working_bytes.map_or(free, |wanted| free.min(wanted as usize));
        let arena = RefCell::new(memory::DeviceArena::new(&gpu, bytes, "rollouts and training")?);
        Ok(Self { gpu, decoder, adapter: device_adapter, arena })
    }

    /// Makes `adapter` the one that the decoder applies.
    pub fn make_current(&self, adapter: &Adapter) -> Result<()> {
        let device = self.adapter.as_ref().context("the model was loaded without room for an adapter")?;
        if device.upload(&self.gpu, adapter)? {
            device.write_beside(&self.gpu, &self.decoder.frozen)?;
            self.gpu.synchronize()?;
        }
        Ok(())
    }

    /// Logits (rows, vocabulary) of every row of a pack, from a pass that keeps nothing.
    pub fn logits(&self, adapter: Option<&Adapter>, pack: &Pack) -> Result<Vec<f32>> {
        adapter.map_or(Ok(()), |adapter| self.make_current(adapter))?;
        let (gpu, decoder, arena) = (&*self.gpu, &self.decoder, &mut *self.arena.borrow_mut());
        let (heads, rows) = (decoder.heads(), pack.tokens.len());
        let (hidden, vocab) = (decoder.config.hidden_size, decoder.config.vocab_size);
        let layout = decoder.layout(adapter.is_some());
        let partial = Tiles::new(&pack.parts, heads.query / heads.kv).partial_len(heads);
        arena.clear();
        arena.reserve(metadata_bytes(rows) + layout.pass_bytes(rows, rows, partial, Keep::Nothing).total())?;
        let pack = DevicePack::new(gpu, arena, pack, heads)?;
        let pass = decoder.forward(gpu, arena, adapter.is_some(), &pack, Keep::Nothing)?;
        let HeadWork { chunk, stride, logits, .. } = layout.head(arena, rows, false)?;
        let head = blas::Matrix::new(decoder.frozen.head, vocab, hidden);
        let mut values = Vec::with_capacity(rows * vocab);
        for start in (0..rows).step_by(chunk) {
            let len = chunk.min(rows - start);
            let from = blas::Matrix::new(pass.hidden.slice(start * hidden..(start + len) * hidden), len, hidden);
            gpu.blas.product(from, head.t(), blas::Matrix::new(logits, len, vocab).with_stride(stride))?;
            let padded = logits.slice(0..len * stride).download(gpu)?;
            values.extend(padded.chunks(stride).flat_map(|row| &row[..vocab]));
        }
        Ok(values)
    }
}

/// Refuses, before anything is loaded, what cannot fit: the weights, the adapter, and the shortest batch of the longest
/// sequence.
fn check_room(
    gpu: &Gpu,
    config: &ModelConfig,
    adapter: Option<&Adapter>,
    extent: &Extent,
    lora: LoraColumns,
) -> Result<()> {
    let weights = weight_bytes(config, extent.positions, lora);
    let trained = adapter.map_or(0, |adapter| adapter_bytes(adapter.params.len()));
    let layout = Layout { config, lora };
    let one = SlabSize { rows: 1, prompt_slots: 1, prompt: 1, completion: extent.positions - 1, stops: 0 };
    let rollout = layout.rollout_bytes(one);
    let training = extent.keep.map_or(0, |keep| layout.sequence_bytes(extent.positions, keep));
    let room = gpu.room()?;
    let wanted = weights + trained + rollout.max(training) + RESERVE;
    let hint = if weights + trained + RESERVE > room.total {
        "use a smaller model or a GPU with more memory; `rft plan` shows what a run needs"
    } else if training > rollout && extent.keep == Some(Keep::Everything) {
        "set `train.gradient_checkpointing` to true, or lower `rollout.max_completion_length`; `rft plan` shows what a run needs"
    } else {
        "lower `rollout.max_completion_length` or `rollout.max_prompt_length`; `rft plan` shows what a run needs"
    };
    let size = |bytes: usize| HumanBytes(bytes as u64);
    let what = format!(
        "the model and a sequence of {} tokens (weights {}, adapter {}, work {}, CUDA {})",
        extent.positions,
        size(weights),
        size(trained),
        size(rollout.max(training)),
        size(RESERVE)
    );
    ensure!(wanted <= room.free, room.lacking(&gpu.name, &what, wanted, hint));
    Ok(())
}

/// Refuses shapes that the kernels are not made for.
fn check(config: &ModelConfig) -> Result<()> {
    ensure!(
        [32, 64, 128].contains(&config.head_dim),
        "heads of width {} are not in the CUDA path, which has 32, 64 and 128\nhint: use `--device cpu`",
        config.head_dim
    );
    let group = config.num_attention_heads / config.num_key_value_heads;
    ensure!(group <= 8, "{group} query heads share a KV head; the CUDA path has up to 8\nhint: use `--device cpu`");
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    ensure!(
        hidden <= 8_192 && hidden.is_multiple_of(8) && inner.is_multiple_of(8),
        "the CUDA path has widths that are multiples of 8, up to 8192 for the hidden one; these are {hidden} and {inner}\n\
         hint: use `--device cpu`"
    );
    Ok(())
}

/// The one stream that everything is issued to.
#[cfg(not(feature = "candle-cuda"))]
fn new_stream(ordinal: usize) -> Result<Arc<CudaStream>> {
    Ok(CudaContext::new(ordinal)?.new_stream()?)
}

/// The stream of candle's device, so that candle's models can be run beside ours.
#[cfg(feature = "candle-cuda")]
fn new_stream(ordinal: usize) -> Result<Arc<CudaStream>> {
    let device = candle_core::Device::new_cuda_with_stream(ordinal)?;
    Ok(device.as_cuda_device()?.cuda_stream())
}

/// GPUs that the driver sees; 0 where there is no driver.
pub fn count() -> usize {
    if !driver_is_present() {
        return 0;
    }
    CudaContext::device_count().map_or(0, |count| count.max(0) as usize)
}

/// Whether there is a CUDA driver to load.
#[cfg(feature = "load-cuda")]
fn driver_is_present() -> bool {
    // SAFETY: this opens the driver's library and nothing else.
    unsafe { sys::is_culib_present() }
}

/// A binary that links to the driver does not start without one.
#[cfg(not(feature = "load-cuda"))]
fn driver_is_present() -> bool {
    true
}

/// Tells the allocator to keep what is freed: otherwise it goes back to the driver at every synchronization. A GPU without
/// memory pools has no such allocator, and memory is taken from the driver itself.
fn keep_pool(context: &CudaContext) -> Result<()> {
    if !context.has_async_alloc() {
        return Ok(());
    }
    let mut pool = std::ptr::null_mut();
    let mut keep = u64::MAX;
    context.bind_to_thread()?;
    // SAFETY: both calls are given valid pointers to what their attribute takes.
    unsafe {
        sys::cuDeviceGetDefaultMemPool(&mut pool, context.cu_device()).result()?;
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut keep).cast()).result()?;
    }
    Ok(())
}
