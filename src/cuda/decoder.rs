//! The decoder on the device: a packed micro-batch forward and back, block by block, as `model::decoder` does it on the CPU.
//!
//! The residual stream is bf16, and products that end in it are accumulated into it by the product itself (beta = 1), so
//! that a sum is rounded once.

use super::Gpu;
use super::adapter::{DeviceAdapter, Lora};
use super::blas::Matrix;
use super::lora::Group;
use super::memory::{Arena, Buffer};
use super::ops::{self, Cache};
use super::pack::DevicePack;
use super::weights::{Block, Frozen, Linear, Origin};
use crate::model::config::ModelConfig;
use crate::model::decoder::Keep;
use crate::ops::attention::Heads;
use crate::plan::LOGITS_ROWS;
use anyhow::Result;
use half::bf16;

/// Bytes of a pack's metadata, at most, for one of its rows: a prompt of one token has a tile of queries and one of keys.
const METADATA: usize = 96;
/// What a few dozen pieces lose by being rounded up to an arena's alignment.
const ROUNDING: usize = 64 << 10;
/// Columns of shrunk rows of a block, at most: four groups of up to 3 x 128.
const LOW_COLUMNS: usize = 4 * 3 * 128;

/// A decoder whose weights are on the device.
pub struct Decoder {
    pub config: ModelConfig,
    pub frozen: Frozen,
}

/// A forward pass, as far as its backward needs it. All of it lies in the arena that the pass was given.
pub struct Activations {
    /// After the last norm: (rows, hidden)
    pub hidden: Buffer<bf16>,
    /// Before the last norm: (rows, hidden), and its 1/rms: (rows)
    last: Buffer<bf16>,
    last_scales: Buffer<f32>,
    blocks: Vec<Kept>,
}

enum Kept {
    Nothing,
    Input(Buffer<bf16>),
    Everything(Saved),
}

/// What a block's backward needs. Shapes: (rows, ...)
struct Saved {
    input: Buffer<bf16>,
    input_scales: Buffer<f32>,
    qkv_low: Buffer<bf16>,
    /// Positions applied.
    qkv: Buffer<bf16>,
    attended: Buffer<bf16>,
    lse: Buffer<f32>,
    o_low: Buffer<bf16>,
    middle: Buffer<bf16>,
    middle_scales: Buffer<f32>,
    gate_up_low: Buffer<bf16>,
    gate_up: Buffer<bf16>,
    down_low: Buffer<bf16>,
}

/// Where a pass puts its keys and values: row r's at slot `slots[r]`, cell `cells[r]`.
#[derive(Clone, Copy)]
struct KeyStore {
    cache: Cache,
    slots: Buffer<i32>,
    cells: Buffer<i32>,
}

impl KeyStore {
    const NOWHERE: KeyStore = KeyStore {
        cache: Cache { keys: Buffer::NULL, values: Buffer::NULL, capacity: 0 },
        slots: Buffer::NULL,
        cells: Buffer::NULL,
    };
}

impl Decoder {
    pub fn load(gpu: &Gpu, config: ModelConfig, origin: &Origin, positions: usize) -> Result<Self> {
        let frozen = Frozen::load(gpu, &config, origin, positions)?;
        Ok(Self { config, frozen })
    }

    pub fn heads(&self) -> Heads {
        let config = &self.config;
        Heads { query: config.num_attention_heads, kv: config.num_key_value_heads, dim: config.head_dim }
    }

    pub fn eps(&self) -> f32 {
        self.config.rms_norm_eps as f32
    }

    /// The forward pass of a packed micro-batch, in memory from `arena`.
    pub fn forward(
        &self,
        gpu: &Gpu,
        arena: &mut Arena,
        adapter: Option<&DeviceAdapter>,
        pack: &DevicePack,
        keep: Keep,
    ) -> Result<Activations> {
        let hidden = self.config.hidden_size;
        let rows = pack.rows;
        let take = |arena: &mut Arena| arena.take::<bf16>(rows * hidden);
        // Without a backward pass two streams do, in turn.
        let spare = if keep == Keep::Nothing { Some([take(arena)?, take(arena)?]) } else { None };
        let mut x = match spare {
            Some([first, _]) => first,
            None => take(arena)?,
        };
        ops::gather_rows(gpu, self.frozen.embedding, pack.tokens, x, hidden)?;
        let mut blocks = Vec::with_capacity(self.frozen.blocks.len());
        for (i, block) in self.frozen.blocks.iter().enumerate() {
            let out = match spare {
                Some(streams) => streams[(i + 1) % 2],
                None => take(arena)?,
            };
            let lora = adapter.map(|adapter| adapter.block(i));
            let mark = arena.mark();
            let saved = self.block_forward(gpu, arena, block, lora, pack, x, out, None)?;
            blocks.push(match keep {
                Keep::Nothing => Kept::Nothing,
                Keep::Inputs => Kept::Input(x),
                Keep::Everything => Kept::Everything(saved),
            });
            if keep != Keep::Everything {
                arena.reset(mark);
            }
            x = out;
        }
        let normed = take(arena)?;
        let scales = arena.take(rows)?;
        ops::rms_norm(gpu, x, self.frozen.norm, normed, scales, rows, hidden, self.eps())?;
        Ok(Activations { hidden: normed, last: x, last_scales: scales, blocks })
    }

    /// Hidden rows after the last norm of packed prompts, whose keys and values go to the caches of the blocks: row r's to slot
    /// `slots[r]`, cell `cells[r]`. They lie in memory from `arena`.
    #[allow(clippy::too_many_arguments, reason = "the device, its memory, and where everything goes")]
    pub fn prefill(
        &self,
        gpu: &Gpu,
        arena: &mut Arena,
        adapter: Option<&DeviceAdapter>,
        pack: &DevicePack,
        caches: &[Cache],
        slots: Buffer<i32>,
        cells: Buffer<i32>,
    ) -> Result<Buffer<bf16>> {
        let (rows, hidden) = (pack.rows, self.config.hidden_size);
        let streams = [arena.take::<bf16>(rows * hidden)?, arena.take::<bf16>(rows * hidden)?];
        ops::gather_rows(gpu, self.frozen.embedding, pack.tokens, streams[0], hidden)?;
        for (i, block) in self.frozen.blocks.iter().enumerate() {
            let mark = arena.mark();
            let lora = adapter.map(|adapter| adapter.block(i));
            let kept = Some(KeyStore { cache: caches[i], slots, cells });
            self.block_forward(gpu, arena, block, lora, pack, streams[i % 2], streams[(i + 1) % 2], kept)?;
            arena.reset(mark);
        }
        let [x, normed] = if self.frozen.blocks.len().is_multiple_of(2) { streams } else { [streams[1], streams[0]] };
        ops::rms_norm(gpu, x, self.frozen.norm, normed, Buffer::NULL, rows, hidden, self.eps())?;
        Ok(normed)
    }

    /// Bytes, at most, that [`Decoder::prefill`] takes for so many rows, metadata of their pack included.
    pub fn forward_bytes(&self, adapter: Option<&DeviceAdapter>, rows: usize) -> usize {
        let (heads, config) = (self.heads(), &self.config);
        let inner = config.intermediate_size;
        let row = 2 * (4 * config.hidden_size + heads.qkv_width() + heads.out_width() + 3 * inner + LOW_COLUMNS)
            + 4 * (heads.query + 2);
        let lora = adapter.map_or(0, |adapter| adapter.block(0).most_bytes(|group| group.forward_bytes(rows)));
        rows * (row + METADATA) + lora + ROUNDING
    }

    /// Bytes, at most, that the head and the blocks of a backward pass take beyond what the forward pass left.
    pub fn backward_bytes(&self, adapter: &DeviceAdapter, pack: &DevicePack, keep: Keep) -> usize {
        let (heads, config, rows) = (self.heads(), &self.config, pack.rows);
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let block = 2 * (3 * hidden + (2 * inner).max(heads.out_width() + heads.qkv_width()));
        let attention = 4 * (rows * heads.query + pack.tiles.partial_len(heads));
        let lora = adapter.block(0).most_bytes(|group| group.backward_bytes(rows));
        let again = if keep == Keep::Inputs { self.forward_bytes(Some(adapter), rows) } else { 0 };
        let pairs = pack.pairs.rows.len();
        let logits = (LOGITS_ROWS as usize).min(pairs) * (config.vocab_size.next_multiple_of(8) * 4 + 2 * hidden);
        let head = pairs * (20 + 2 * hidden) + logits;
        (rows * block + attention.max(lora) + again).max(head) + ROUNDING
    }

    /// Adds the adapter's gradients, from that of `activations.hidden`, which is overwritten.
    pub fn backward(
        &self,
        gpu: &Gpu,
        arena: &mut Arena,
        adapter: &DeviceAdapter,
        pack: &DevicePack,
        activations: &Activations,
        d_hidden: Buffer<bf16>,
    ) -> Result<()> {
        let (rows, hidden) = (pack.rows, self.config.hidden_size);
        let dx = arena.take::<bf16>(rows * hidden)?;
        dx.zero(gpu)?;
        let Activations { last, last_scales, .. } = *activations;
        ops::rms_norm_backward(gpu, d_hidden, last, last_scales, self.frozen.norm, dx, rows, hidden)?;
        for (i, kept) in activations.blocks.iter().enumerate().rev() {
            let block = &self.frozen.blocks[i];
            let lora = adapter.block(i);
            let mark = arena.mark();
            match kept {
                Kept::Everything(saved) => self.block_backward(gpu, arena, block, lora, pack, saved, dx)?,
                Kept::Input(input) => {
                    let out = arena.take(rows * hidden)?;
                    let saved = self.block_forward(gpu, arena, block, Some(lora), pack, *input, out, None)?;
                    self.block_backward(gpu, arena, block, lora, pack, &saved, dx)?;
                }
                Kept::Nothing => panic!("a backward pass needs a forward pass that kept something"),
            }
            arena.reset(mark);
        }
        Ok(())
    }

    /// `x` (rows, hidden) -> `out` (rows, hidden), and what the backward needs.
    #[allow(clippy::too_many_arguments, reason = "the device, its memory, and the operands of a block")]
    fn block_forward(
        &self,
        gpu: &Gpu,
        arena: &mut Arena,
        block: &Block,
        lora: Option<Lora>,
        pack: &DevicePack,
        x: Buffer<bf16>,
        out: Buffer<bf16>,
        store: Option<KeyStore>,
    ) -> Result<Saved> {
        let (rows, heads, config) = (pack.rows, self.heads(), &self.config);
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let low = |arena: &mut Arena, group: fn(&Lora) -> usize| -> Result<Buffer<bf16>> {
            lora.as_ref().map_or(Ok(Buffer::NULL), |lora| arena.take(rows * group(lora)))
        };
        let saved = Saved {
            input: x,
            input_scales: arena.take(rows)?,
            qkv_low: low(arena, |lora| lora.qkv.low_width())?,
            qkv: arena.take(rows * heads.qkv_width())?,
            attended: arena.take(rows * heads.out_width())?,
            lse: arena.take(rows * heads.query)?,
            o_low: low(arena, |lora| lora.o.low_width())?,
            middle: arena.take(rows * hidden)?,
            middle_scales: arena.take(rows)?,
            gate_up_low: low(arena, |lora| lora.gate_up.low_width())?,
            gate_up: arena.take(rows * 2 * inner)?,
            down_low: low(arena, |lora| lora.down.low_width())?,
        };
        let mark = arena.mark();
        let normed = arena.take::<bf16>(rows * hidden)?;
        let activated = arena.take::<bf16>(rows * inner)?;

        ops::rms_norm(gpu, x, block.input_norm, normed, saved.input_scales, rows, hidden, self.eps())?;
        adapted(gpu, arena, &block.qkv, lora.map(|lora| lora.qkv), normed, rows, saved.qkv, saved.qkv_low, false)?;
        let KeyStore { cache, slots, cells } = store.unwrap_or(KeyStore::NOWHERE);
        let rope = self.frozen.rope;
        ops::qkv_rope(gpu, saved.qkv, block.qkv_bias, rope, pack.positions, cache, slots, cells, rows, heads)?;
        ops::branch_attention(gpu, saved.qkv, saved.attended, saved.lse, pack, heads)?;

        saved.middle.copy_from(gpu, x)?;
        adapted(gpu, arena, &block.o, lora.map(|lora| lora.o), saved.attended, rows, saved.middle, saved.o_low, true)?;
        ops::rms_norm(gpu, saved.middle, block.post_norm, normed, saved.middle_scales, rows, hidden, self.eps())?;
        let gate_up = lora.map(|lora| lora.gate_up);
        adapted(gpu, arena, &block.gate_up, gate_up, normed, rows, saved.gate_up, saved.gate_up_low, false)?;
        ops::swiglu(gpu, saved.gate_up, activated, rows, inner)?;
        out.copy_from(gpu, saved.middle)?;
        adapted(gpu, arena, &block.down, lora.map(|lora| lora.down), activated, rows, out, saved.down_low, true)?;
        arena.reset(mark);
        Ok(saved)
    }

    /// Turns the gradient `d` of the block's output into that of its input, in place.
    #[allow(clippy::too_many_arguments, reason = "the operands of the chain rule")]
    fn block_backward(
        &self,
        gpu: &Gpu,
        arena: &mut Arena,
        block: &Block,
        lora: Lora,
        pack: &DevicePack,
        saved: &Saved,
        d: Buffer<bf16>,
    ) -> Result<()> {
        let (rows, heads, config) = (pack.rows, self.heads(), &self.config);
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let normed = arena.take::<bf16>(rows * hidden)?;
        let d_normed = arena.take::<bf16>(rows * hidden)?;

        let mark = arena.mark();
        let activated = arena.take::<bf16>(rows * inner)?;
        let d_activated = arena.take::<bf16>(rows * inner)?;
        ops::swiglu(gpu, saved.gate_up, activated, rows, inner)?;
        adapted_backward(gpu, arena, &block.down, lora.down, activated, saved.down_low, d, rows, d_activated)?;
        // The gradient takes the place of gate and up: nothing reads them again.
        ops::swiglu_backward(gpu, d_activated, saved.gate_up, rows, inner)?;
        arena.reset(mark);
        ops::rms_norm_again(gpu, saved.middle, saved.middle_scales, block.post_norm, normed, rows, hidden)?;
        let (low, d_gate_up) = (saved.gate_up_low, saved.gate_up);
        adapted_backward(gpu, arena, &block.gate_up, lora.gate_up, normed, low, d_gate_up, rows, d_normed)?;
        ops::rms_norm_backward(gpu, d_normed, saved.middle, saved.middle_scales, block.post_norm, d, rows, hidden)?;

        let d_attended = arena.take::<bf16>(rows * heads.out_width())?;
        let d_qkv = arena.take::<bf16>(rows * heads.qkv_width())?;
        adapted_backward(gpu, arena, &block.o, lora.o, saved.attended, saved.o_low, d, rows, d_attended)?;
        ops::branch_attention_backward(
            gpu,
            arena,
            saved.qkv,
            saved.attended,
            saved.lse,
            d_attended,
            d_qkv,
            pack,
            heads,
        )?;
        ops::qkv_rope_backward(gpu, d_qkv, self.frozen.rope, pack.positions, rows, heads)?;
        ops::rms_norm_again(gpu, saved.input, saved.input_scales, block.input_norm, normed, rows, hidden)?;
        adapted_backward(gpu, arena, &block.qkv, lora.qkv, normed, saved.qkv_low, d_qkv, rows, d_normed)?;
        ops::rms_norm_backward(gpu, d_normed, saved.input, saved.input_scales, block.input_norm, d, rows, hidden)
    }
}

/// A frozen layer and its adapter: `y` (rows, outputs), added to what is there where `accumulate`.
#[allow(clippy::too_many_arguments, reason = "the operands of a product and its adapter's")]
fn adapted(
    gpu: &Gpu,
    arena: &mut Arena,
    layer: &Linear,
    lora: Option<Group>,
    x: Buffer<bf16>,
    rows: usize,
    y: Buffer<bf16>,
    low: Buffer<bf16>,
    accumulate: bool,
) -> Result<()> {
    match lora {
        // The adapter writes and the large product adds itself on top: one reading of y less than the other way round.
        Some(lora) if lora.covers() => {
            lora.forward(gpu, arena, x, rows, y, low, accumulate)?;
            linear(gpu, layer, x, y, rows, true)
        }
        Some(lora) => {
            linear(gpu, layer, x, y, rows, accumulate)?;
            lora.forward(gpu, arena, x, rows, y, low, true)
        }
        None => linear(gpu, layer, x, y, rows, accumulate),
    }
}

/// `y = x · Wᵀ`, or `y += x · Wᵀ`: (rows, inputs) -> (rows, outputs).
pub fn linear(
    gpu: &Gpu,
    linear: &Linear,
    x: Buffer<bf16>,
    y: Buffer<bf16>,
    rows: usize,
    accumulate: bool,
) -> Result<()> {
    let weight = Matrix::new(linear.weight, linear.outputs, linear.inputs);
    gpu.blas.product(Matrix::new(x, rows, linear.inputs), weight.t(), Matrix::new(y, rows, linear.outputs), accumulate)
}

/// Writes the gradient `dx` (rows, inputs) of the input and adds the adapter's gradient. The weights are frozen and get none.
#[allow(clippy::too_many_arguments, reason = "the operands of a product rule")]
fn adapted_backward(
    gpu: &Gpu,
    arena: &mut Arena,
    layer: &Linear,
    lora: Group,
    x: Buffer<bf16>,
    low: Buffer<bf16>,
    dy: Buffer<bf16>,
    rows: usize,
    dx: Buffer<bf16>,
) -> Result<()> {
    // As in `adapted`: dx = dy · W is added on top by the product itself.
    let written = lora.backward(gpu, arena, x, low, dy, rows, dx)?;
    let weight = Matrix::new(layer.weight, layer.outputs, layer.inputs);
    gpu.blas.product(Matrix::new(dy, rows, layer.outputs), weight, Matrix::new(dx, rows, layer.inputs), written)
}
