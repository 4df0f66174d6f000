//! A model on a GPU, with everything that rollouts and training share.

use super::adapter::DeviceAdapter;
use super::decoder::CudaDecoder;
use super::gpu::Gpu;
use super::matrix::Matrix;
use super::memory::DeviceArena;
use super::pack::DevicePack;
use super::weights::WeightOrigin;
use crate::device::extent::Extent;
use crate::device::memory::RESERVE;
use crate::device::memory::layout::{HeadWork, MemoryLayout, SlabSize, adapter_bytes, metadata_bytes, weight_bytes};
use crate::device::memory::lora::LoraColumns;
use crate::grpo::learner::Keep;
use crate::model::config::ModelConfig;
use crate::model::lora::Adapter;
use crate::model::pack::Pack;
use crate::model::source::ModelSource;
use crate::ops::attention_tiles::Tiles;
use anyhow::{Context, Result, ensure};
use indicatif::HumanBytes;
use std::cell::RefCell;
use std::rc::Rc;

/// What rollouts and training share: the device, the model, the adapter, and the memory that they use in turn.
pub struct Shared {
    pub gpu: Rc<Gpu>,
    pub decoder: CudaDecoder,
    /// Memory for an adapter, if one is applied or trained.
    pub adapter: Option<DeviceAdapter>,
    pub arena: RefCell<DeviceArena>,
}

impl Shared {
    /// Loads a model on GPU number `ordinal`, and allocates its memory.
    pub fn load(ordinal: usize, source: &ModelSource, adapter: Option<&Adapter>, extent: &Extent) -> Result<Self> {
        check(&source.config)?;
        let origin = WeightOrigin::Checkpoint(source.weights.as_ref());
        Self::on(Rc::new(Gpu::open(ordinal)?), source.config.clone(), &origin, adapter, extent)
    }

    /// The same on an open GPU, and with weights from any source.
    pub fn on(
        gpu: Rc<Gpu>,
        config: ModelConfig,
        origin: &WeightOrigin,
        adapter: Option<&Adapter>,
        extent: &Extent,
    ) -> Result<Self> {
        check(&config)?;
        let lora = adapter.map_or_else(LoraColumns::default, |adapter| LoraColumns::of(&adapter.blocks[0]));
        check_room(&gpu, &config, adapter, extent, lora)?;
        let decoder = CudaDecoder::load(&gpu, config, origin, extent.positions, lora)?;
        let device_adapter = adapter.map(|adapter| DeviceAdapter::new(&gpu, adapter)).transpose()?;
        // Allocations in stream order are available after the stream has reached them.
        gpu.synchronize()?;
        let free = gpu.room()?.free.saturating_sub(RESERVE);
        let bytes = extent.working_bytes.map_or(free, |wanted| free.min(wanted as usize));
        let arena = RefCell::new(DeviceArena::new(&gpu, bytes, "rollouts and training")?);
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
        let head = Matrix::new(decoder.frozen.head, vocab, hidden);
        let mut values = Vec::with_capacity(rows * vocab);
        for start in (0..rows).step_by(chunk) {
            let len = chunk.min(rows - start);
            let from = Matrix::new(pass.hidden.slice(start * hidden..(start + len) * hidden), len, hidden);
            gpu.blas.product(from, head.t(), Matrix::new(logits, len, vocab).with_stride(stride))?;
            let padded = logits.slice(0..len * stride).download(gpu)?;
            values.extend(padded.chunks(stride).flat_map(|row| &row[..vocab]));
        }
        Ok(values)
    }
}

/// Returns an error, before anything is loaded, if the weights, the adapter, and the smallest batch of the longest
/// sequence cannot fit.
fn check_room(
    gpu: &Gpu,
    config: &ModelConfig,
    adapter: Option<&Adapter>,
    extent: &Extent,
    lora: LoraColumns,
) -> Result<()> {
    let weights = weight_bytes(config, extent.positions, lora);
    let trained = adapter.map_or(0, |adapter| adapter_bytes(adapter.params.len()));
    let layout = MemoryLayout { config, lora };
    let one = SlabSize { rows: 1, prompt_slots: 1, prompt: 1, completion: extent.positions - 1, stops: 0 };
    let rollout = layout.rollout_bytes(one);
    let training = extent.keep.map_or(0, |keep| layout.sequence_bytes(extent.positions, keep, extent.taught));
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

/// Returns an error for shapes that the kernels do not support.
fn check(config: &ModelConfig) -> Result<()> {
    ensure!(
        [32, 64, 128].contains(&config.head_dim),
        "the CUDA path supports heads of width 32, 64 and 128, not {}\nhint: use `--device cpu`",
        config.head_dim
    );
    let group = config.num_attention_heads / config.num_key_value_heads;
    ensure!(
        group <= 8,
        "the CUDA path supports up to 8 query heads per KV head, not {group}\nhint: use `--device cpu`"
    );
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    ensure!(
        hidden <= 8_192 && hidden.is_multiple_of(8) && inner.is_multiple_of(8),
        "the CUDA path supports widths that are multiples of 8, with a hidden width up to 8192, not {hidden} and {inner}\n\
         hint: use `--device cpu`"
    );
    Ok(())
}
