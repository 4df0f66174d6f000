//! What the CUDA path takes of an arena, piece by piece: for the passes of training and for rollouts.
//!
//! The same functions lay out a GPU's arena and an endless one without memory, so what is planned is what is taken.

use super::LOGITS_ROWS;
use super::arena::{Arena, Buffer, Mark, padded};
use super::lora::BlockShape;
use crate::grpo::learner::Keep;
use crate::model::config::ModelConfig;
use crate::ops::attention::Heads;
use crate::ops::attention_tiles::DECODE_SPAN;
use anyhow::Result;
use half::bf16;

/// Values of one partial sum of squares; `CHUNK` of adamw.cu.
pub const CHUNK: usize = 16_384;
/// Bytes of a pack's metadata, at most, for one of its rows: a prompt of one token has a tile of queries and one of keys.
const METADATA: usize = 96;
/// What a few dozen pieces lose by being rounded up to an arena's alignment.
const ROUNDING: usize = 64 << 10;

/// Bytes of the frozen weights in bf16, with cosines and sines in f32 for so many positions.
pub fn weight_bytes(config: &ModelConfig, positions: usize) -> usize {
    // Every tensor may be rounded up to the arena's alignment.
    let padding = Arena::ALIGNMENT * (config.tensors().len() + 8);
    2 * config.parameters() + 4 * positions * config.head_dim + padding
}

/// Bytes of an adapter of `len` values: f32 weights, gradient and two moments, a bf16 copy, and sums of squares.
pub fn adapter_bytes(len: usize) -> usize {
    18 * len + 8 * len.div_ceil(CHUNK) + 16 * Arena::ALIGNMENT
}

/// Bytes of the metadata of packs of so many rows, at most.
pub fn metadata_bytes(rows: usize) -> usize {
    METADATA * rows + ROUNDING
}

/// A model as far as memory goes.
#[derive(Clone, Copy)]
pub struct Layout<'a> {
    pub config: &'a ModelConfig,
    pub lora: Option<BlockShape<'a>>,
}

/// A forward pass. Shapes: (rows, ...)
pub struct Forward {
    /// The residual stream before each block and after the last. Where nothing is kept, two take turns.
    pub streams: Vec<Buffer<bf16>>,
    /// Of each block; the same memory for all, unless everything is kept.
    pub saved: Vec<Saved>,
    /// After the last norm, and the norm's 1/rms.
    pub hidden: Buffer<bf16>,
    pub scales: Buffer<f32>,
    pub work: BlockWork,
    /// What the backward pass needs lies before.
    pub kept: Mark,
}

/// What a block's backward needs, beside the block's input. Shapes: (rows, ...)
#[derive(Clone, Copy)]
pub struct Saved {
    pub input_scales: Buffer<f32>,
    pub qkv_low: Buffer<bf16>,
    /// q and k before the norm on their heads, where there is one.
    pub unnormed: Buffer<bf16>,
    /// Positions applied.
    pub qkv: Buffer<bf16>,
    pub attended: Buffer<bf16>,
    pub lse: Buffer<f32>,
    pub o_low: Buffer<bf16>,
    pub middle: Buffer<bf16>,
    pub middle_scales: Buffer<f32>,
    pub gate_up_low: Buffer<bf16>,
    pub gate_up: Buffer<bf16>,
    pub down_low: Buffer<bf16>,
}

/// What a block's forward works on. Shapes: (rows, ...)
#[derive(Clone, Copy)]
pub struct BlockWork {
    pub normed: Buffer<bf16>,
    pub activated: Buffer<bf16>,
}

/// A backward pass through the blocks. Shapes: (rows, ...)
pub struct Backward {
    pub dx: Buffer<bf16>,
    /// Where only inputs were kept: the block's output, and what its forward leaves and works on.
    pub again: Option<(Buffer<bf16>, Saved, BlockWork)>,
    pub normed: Buffer<bf16>,
    pub d_normed: Buffer<bf16>,
    pub activated: Buffer<bf16>,
    pub d_activated: Buffer<bf16>,
    /// These two take the place of the two before.
    pub d_attended: Buffer<bf16>,
    pub d_qkv: Buffer<bf16>,
}

/// The head over (hidden row, target) pairs, in chunks of rows whose logits are held at once.
pub struct HeadWork {
    /// (pairs)
    pub logprob: Buffer<f32>,
    pub entropy: Buffer<f32>,
    pub lse: Buffer<f32>,
    pub d_logprob: Buffer<f32>,
    pub d_entropy: Buffer<f32>,
    /// (pairs, hidden); null where nothing is carried back.
    pub d_rows: Buffer<bf16>,
    /// Rows of a chunk, and from one row of logits to the next.
    pub chunk: usize,
    pub stride: usize,
    /// (chunk, hidden)
    pub rows: Buffer<bf16>,
    /// (chunk, stride)
    pub logits: Buffer<f32>,
}

/// Keys and values of one block of the decoder: (slots, KV heads, capacity, head dim) each.
#[derive(Clone, Copy)]
pub struct Cache {
    pub keys: Buffer<bf16>,
    pub values: Buffer<bf16>,
    pub capacity: usize,
}

/// How large the memory of a rollout is.
#[derive(Clone, Copy, Debug)]
pub struct SlabSize {
    /// Branches decoded at the same time.
    pub rows: usize,
    pub prompt_slots: usize,
    /// Longest prompt, longest completion, number of stop tokens.
    pub prompt: usize,
    pub completion: usize,
    pub stops: usize,
}

/// What a rollout works on beside its caches.
pub struct SlabMemory {
    /// Each prompt's last row after the last norm: (prompt slots, hidden)
    pub prompt_hidden: Buffer<bf16>,
    pub state: State,
    pub work: StepWork,
    pub stops: Buffer<u32>,
    /// (rows, completion)
    pub out_tokens: Buffer<u32>,
    pub out_logprobs: Buffer<f32>,
}

/// Of each row.
pub struct State {
    pub tokens: Buffer<u32>,
    pub logprobs: Buffer<f32>,
    /// (rows, 2)
    pub keys: Buffer<u32>,
    pub prompt_slots: Buffer<i32>,
    pub prompt_lens: Buffer<i32>,
    pub slots: Buffer<i32>,
    pub counts: Buffer<i32>,
    pub done: Buffer<i32>,
    pub positions: Buffer<i32>,
    pub cells: Buffer<i32>,
    pub draws: Buffer<i32>,
}

/// What a step of decoding works on. Shapes: (rows, ...)
pub struct StepWork {
    /// A forward pass that keeps nothing.
    pub pass: Forward,
    /// Partial sums of LoRA's shrink.
    pub lora: Buffer<f32>,
    pub attention: DecodeSpans,
    pub logits: Buffer<f32>,
}

/// Memory for the spans of a decode step.
#[derive(Clone, Copy)]
pub struct DecodeSpans {
    pub spans: usize,
    pub sums: Buffer<f32>,
    pub statistics: Buffer<f32>,
}

impl DecodeSpans {
    /// For rows of up to `keys` keys.
    pub fn new(arena: &mut Arena, rows: usize, heads: Heads, keys: usize) -> Result<Self> {
        let spans = keys.div_ceil(DECODE_SPAN);
        let lines = rows * heads.query * spans;
        Ok(Self { spans, sums: arena.take(lines * heads.dim)?, statistics: arena.take(lines * 2)? })
    }
}

/// From a value of one row to the next in rows of logits.
pub fn logits_stride(config: &ModelConfig) -> usize {
    config.vocab_size.next_multiple_of(8)
}

impl Layout<'_> {
    /// A forward pass that keeps what `keep` says.
    pub fn forward(&self, arena: &mut Arena, rows: usize, keep: Keep) -> Result<Forward> {
        let (values, layers) = (rows * self.config.hidden_size, self.config.num_hidden_layers);
        let count = if keep == Keep::Nothing { 2 } else { layers + 1 };
        let streams: Vec<_> = (0..count).map(|_| arena.take(values)).collect::<Result<_>>()?;
        let streams = (0..=layers).map(|block| streams[block % count]).collect();
        let (hidden, scales) = (arena.take(values)?, arena.take(rows)?);
        let blocks = if keep == Keep::Everything { layers } else { 0 };
        let mut saved: Vec<Saved> = (0..blocks).map(|_| self.saved(arena, rows)).collect::<Result<_>>()?;
        let kept = arena.mark();
        if saved.is_empty() {
            saved = vec![self.saved(arena, rows)?; layers];
        }
        Ok(Forward { streams, saved, hidden, scales, work: self.block_work(arena, rows)?, kept })
    }

    fn saved(&self, arena: &mut Arena, rows: usize) -> Result<Saved> {
        let (config, heads) = (self.config, self.config.heads());
        // Without an adapter there are no shrunk rows.
        let [qkv_low, o_low, gate_up_low, down_low] =
            self.lora.map_or([0; 4], |it| [it.qkv, it.o, it.gate_up, it.down].map(|group| rows * group.low_width()));
        Ok(Saved {
            input_scales: arena.take(rows)?,
            qkv_low: arena.take(qkv_low)?,
            unnormed: arena.take(if config.qk_norm { rows * (heads.query + heads.kv) * heads.dim } else { 0 })?,
            qkv: arena.take(rows * heads.qkv_width())?,
            attended: arena.take(rows * heads.out_width())?,
            lse: arena.take(rows * heads.query)?,
            o_low: arena.take(o_low)?,
            middle: arena.take(rows * config.hidden_size)?,
            middle_scales: arena.take(rows)?,
            gate_up_low: arena.take(gate_up_low)?,
            gate_up: arena.take(rows * 2 * config.intermediate_size)?,
            down_low: arena.take(down_low)?,
        })
    }

    fn block_work(&self, arena: &mut Arena, rows: usize) -> Result<BlockWork> {
        let (hidden, inner) = (self.config.hidden_size, self.config.intermediate_size);
        Ok(BlockWork { normed: arena.take(rows * hidden)?, activated: arena.take(rows * inner)? })
    }

    /// A backward pass of what `keep` has kept.
    pub fn backward(&self, arena: &mut Arena, rows: usize, keep: Keep) -> Result<Backward> {
        let (hidden, inner, heads) =
            (rows * self.config.hidden_size, rows * self.config.intermediate_size, self.config.heads());
        let dx = arena.take(hidden)?;
        let mut end = arena.mark();
        let again = if keep == Keep::Inputs {
            let (out, saved) = (arena.take(hidden)?, self.saved(arena, rows)?);
            let start = arena.mark();
            let work = self.block_work(arena, rows)?;
            end = arena.mark();
            // A block is computed again before its backward begins.
            arena.reset(start);
            Some((out, saved, work))
        } else {
            None
        };
        let (normed, d_normed) = (arena.take(hidden)?, arena.take(hidden)?);
        let start = arena.mark();
        let (activated, d_activated) = (arena.take(inner)?, arena.take(inner)?);
        end = end.max(arena.mark());
        arena.reset(start);
        let (d_attended, d_qkv) = (arena.take(rows * heads.out_width())?, arena.take(rows * heads.qkv_width())?);
        let end = end.max(arena.mark());
        arena.reset(end);
        Ok(Backward { dx, again, normed, d_normed, activated, d_activated, d_attended, d_qkv })
    }

    pub fn head(&self, arena: &mut Arena, pairs: usize, back: bool) -> Result<HeadWork> {
        let (hidden, chunk, stride) = (self.config.hidden_size, LOGITS_ROWS.min(pairs), logits_stride(self.config));
        Ok(HeadWork {
            logprob: arena.take(pairs)?,
            entropy: arena.take(pairs)?,
            lse: arena.take(pairs)?,
            d_logprob: arena.take(pairs)?,
            d_entropy: arena.take(pairs)?,
            d_rows: if back { arena.take(pairs * hidden)? } else { Buffer::NULL },
            chunk,
            stride,
            rows: arena.take(chunk * hidden)?,
            logits: arena.take(chunk * stride)?,
        })
    }

    /// Bytes of partial sums that one operation of a pass takes and gives back, at most. Attention's has `partial` values.
    fn scratch_bytes(&self, rows: usize, partial: usize, back: bool) -> usize {
        let lora = |amount: fn(&super::lora::GroupShape, usize) -> usize| {
            self.lora.map_or(0, |lora| lora.most(|group| amount(group, rows)))
        };
        let forward = lora(|group, rows| group.forward_bytes(rows));
        if !back {
            return forward;
        }
        let attention = padded(4 * rows * self.config.num_attention_heads) + padded(4 * partial);
        forward.max(lora(|group, rows| group.backward_bytes(rows))).max(attention)
    }

    /// What a micro-batch takes: of its rows, of its (hidden row, target) pairs, and of partial sums of attention (values).
    pub fn pass_bytes(&self, rows: usize, pairs: usize, partial: usize, keep: Keep) -> PassBytes {
        let endless = "an arena that never ends";
        let mut arena = Arena::endless();
        let pass = self.forward(&mut arena, rows, keep).expect(endless);
        let forward = arena.used() + self.scratch_bytes(rows, partial, false);
        arena.reset(pass.kept);
        let back = keep != Keep::Nothing;
        if back {
            // The gradient of the hidden rows.
            arena.take::<bf16>(pass.hidden.len()).expect(endless);
        }
        let (kept, mark) = (arena.used(), arena.mark());
        self.head(&mut arena, pairs, back).expect(endless);
        let head = arena.used() - kept;
        arena.reset(mark);
        let mut blocks = forward.saturating_sub(kept);
        if back {
            self.backward(&mut arena, rows, keep).expect(endless);
            blocks = blocks.max(arena.used() - kept + self.scratch_bytes(rows, partial, true));
        }
        PassBytes { kept, blocks, head }
    }

    /// Bytes, at most, that the prompts of a rollout take for so many of their tokens, metadata included.
    pub fn prefill_bytes(&self, rows: usize) -> usize {
        let mut arena = Arena::endless();
        self.forward(&mut arena, rows, Keep::Nothing).expect("an arena that never ends");
        arena.used() + self.scratch_bytes(rows, 0, false) + metadata_bytes(rows)
    }

    /// Keys and values of all blocks, for so many slots of `capacity` tokens.
    pub fn caches(&self, arena: &mut Arena, slots: usize, capacity: usize) -> Result<Vec<Cache>> {
        let heads = self.config.heads();
        let values = slots * heads.kv * capacity * heads.dim;
        (0..self.config.num_hidden_layers)
            .map(|_| Ok(Cache { keys: arena.take(values)?, values: arena.take(values)?, capacity }))
            .collect()
    }

    pub fn slabs(&self, arena: &mut Arena, size: SlabSize) -> Result<SlabMemory> {
        let (config, heads, rows) = (self.config, self.config.heads(), size.rows);
        let hidden = config.hidden_size;
        let partial = self.lora.map_or(0, |lora| lora.most(|group| group.decode_values(rows)));
        Ok(SlabMemory {
            prompt_hidden: arena.take(size.prompt_slots * hidden)?,
            state: State {
                tokens: arena.take(rows)?,
                logprobs: arena.take(rows)?,
                keys: arena.take(2 * rows)?,
                prompt_slots: arena.take(rows)?,
                prompt_lens: arena.take(rows)?,
                slots: arena.take(rows)?,
                counts: arena.take(rows)?,
                done: arena.take(rows)?,
                positions: arena.take(rows)?,
                cells: arena.take(rows)?,
                draws: arena.take(rows)?,
            },
            work: StepWork {
                pass: self.forward(arena, rows, Keep::Nothing)?,
                lora: arena.take(partial)?,
                attention: DecodeSpans::new(arena, rows, heads, size.prompt + size.completion)?,
                logits: arena.take(rows * logits_stride(config))?,
            },
            stops: arena.take(size.stops)?,
            out_tokens: arena.take(rows * size.completion)?,
            out_logprobs: arena.take(rows * size.completion)?,
        })
    }
}

/// Bytes of a micro-batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassBytes {
    /// What the forward pass leaves for the backward, and the gradient of the hidden rows.
    pub kept: usize,
    /// What the blocks work on beside that, forward or backward.
    pub blocks: usize,
    /// What the head works on, before the blocks' backward.
    pub head: usize,
}

impl PassBytes {
    pub fn total(&self) -> usize {
        self.kept + self.blocks.max(self.head)
    }
}
