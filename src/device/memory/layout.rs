//! The layout of an arena on the CUDA path, piece by piece: for training passes and for rollouts.
//!
//! The same functions lay out a GPU's arena and an unlimited one without memory, so the plan equals the allocation.

use super::arena::{Arena, Buffer, Mark, padded};
use super::lora::LoraColumns;
use super::{LOGITS_ROWS, REPORTED};
use crate::grpo::learner::Keep;
use crate::model::config::ModelConfig;
use crate::ops::attention::{Heads, Part};
use crate::ops::attention_tiles::{DECODE_SPAN, Tiles};
use anyhow::Result;
use half::bf16;

/// Number of values of one partial sum of squares; `CHUNK` of adamw.cu.
pub const CHUNK: usize = 16_384;
/// Maximum bytes of a pack's metadata per row: a prompt of one token has a tile of queries and one of keys.
const METADATA: usize = 96;
/// Maximum loss from rounding a few dozen pieces up to an arena's alignment.
const ROUNDING: usize = 64 << 10;

/// Bytes of the frozen weights in bf16 with the adapters' columns next to them, and of cosines and sines in f32 for
/// this number of positions.
pub fn weight_bytes(config: &ModelConfig, positions: usize, lora: LoraColumns) -> usize {
    // Every tensor may be rounded up to the arena's alignment.
    let padding = Arena::ALIGNMENT * (config.tensors().len() + 8);
    let values = config.parameters() + config.num_hidden_layers * lora.values(config);
    2 * values + 4 * positions * config.head_dim + padding
}

/// Bytes of an adapter of `len` values: f32 weights, gradient and two moments, and sums of squares.
pub fn adapter_bytes(len: usize) -> usize {
    16 * len + 8 * len.div_ceil(CHUNK) + 16 * Arena::ALIGNMENT
}

/// Maximum bytes of the metadata of packs with this number of rows.
pub fn metadata_bytes(rows: usize) -> usize {
    METADATA * rows + ROUNDING
}

/// The sizes of a model that determine its memory.
#[derive(Clone, Copy)]
pub struct MemoryLayout<'a> {
    pub config: &'a ModelConfig,
    /// Zeros if no adapter is applied.
    pub lora: LoraColumns,
}

/// Rows that begin `stride` values apart. The values of each may be followed by room for an adapter's columns, which
/// contain the row's x·Aᵀ.
#[derive(Clone, Copy)]
pub struct StridedRows {
    pub buffer: Buffer<bf16>,
    pub stride: usize,
}

impl StridedRows {
    /// `rows` rows of `width` values and `columns` more.
    pub fn take(arena: &mut Arena, rows: usize, width: usize, columns: usize) -> Result<Self> {
        let stride = width + columns;
        Ok(Self { buffer: arena.take(rows * stride)?, stride })
    }

    /// Rows of `width` values without gaps.
    pub fn plain(buffer: Buffer<bf16>, width: usize) -> Self {
        Self { buffer, stride: width }
    }
}

/// A forward pass. Shapes: (rows, ...)
pub struct Forward {
    /// The residual stream before each block and after the last. If nothing is kept, two buffers alternate.
    pub streams: Vec<Buffer<bf16>>,
    /// One per block; the same memory for all, unless everything is kept.
    pub saved: Vec<BlockBuffers>,
    /// After the last norm, and the norm's 1/rms.
    pub hidden: Buffer<bf16>,
    pub scales: Buffer<f32>,
    pub work: BlockWork,
    /// The start of the data that the backward pass needs.
    pub kept: Mark,
}

/// What a block's backward needs, in addition to the block's input. Shapes: (rows, ...)
#[derive(Clone, Copy)]
pub struct BlockBuffers {
    pub input_scales: Buffer<f32>,
    /// The adapters' x·Aᵀ of the normed rows and of the activated ones: (rows, their columns). Empty if no backward
    /// follows.
    pub qkv_shrunk: Buffer<bf16>,
    pub gate_up_shrunk: Buffer<bf16>,
    pub down_shrunk: Buffer<bf16>,
    /// q and k before the norm on their heads, if there is one.
    pub unnormed: Buffer<bf16>,
    /// Positions applied.
    pub qkv: Buffer<bf16>,
    /// With x·Aᵀ of the adapter of o.
    pub attended: StridedRows,
    pub lse: Buffer<f32>,
    pub middle: Buffer<bf16>,
    pub middle_scales: Buffer<f32>,
    /// Replaced by its gradient, with the columns that an adapter has after a gradient.
    pub gate_up: StridedRows,
}

/// Buffers of a block's forward. Shapes: (rows, ...)
#[derive(Clone, Copy)]
pub struct BlockWork {
    pub normed: StridedRows,
    pub activated: StridedRows,
}

/// A backward pass through the blocks. Shapes: (rows, ...)
pub struct Backward {
    pub dx: StridedRows,
    /// If only inputs were kept: the block's output, and the results and buffers of its forward.
    pub again: Option<(Buffer<bf16>, BlockBuffers, BlockWork)>,
    /// Replaced by the normed rows.
    pub d_normed: Buffer<bf16>,
    /// Replaced by the activated rows.
    pub d_activated: Buffer<bf16>,
    /// These two replace the previous one.
    pub d_attended: Buffer<bf16>,
    pub d_qkv: StridedRows,
}

/// The head over (hidden row, target) pairs, in chunks of rows whose logits are in memory at once.
pub struct HeadWork {
    /// (pairs)
    pub logprob: Buffer<f32>,
    pub entropy: Buffer<f32>,
    pub lse: Buffer<f32>,
    pub d_logprob: Buffer<f32>,
    pub d_entropy: Buffer<f32>,
    /// (pairs, hidden); null if there is no backward pass.
    pub d_rows: Buffer<bf16>,
    /// Rows of a chunk, and the stride of the rows of logits.
    pub chunk: usize,
    pub stride: usize,
    /// (chunk, hidden)
    pub rows: Buffer<bf16>,
    /// (chunk, stride)
    pub logits: Buffer<f32>,
}

/// What the head needs in addition if a prompt is distilled over the whole vocabulary.
pub struct TeacherWork {
    /// (pairs)
    pub kl: Buffer<f32>,
    /// Statistics of the teacher: (chunk)
    pub logprob: Buffer<f32>,
    pub entropy: Buffer<f32>,
    pub lse: Buffer<f32>,
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

/// The size of a rollout's memory.
#[derive(Clone, Copy, Debug)]
pub struct SlabSize {
    /// Completions decoded at the same time.
    pub rows: usize,
    pub prompt_slots: usize,
    /// Maximum prompt length, maximum completion length, number of stop tokens.
    pub prompt: usize,
    pub completion: usize,
    pub stops: usize,
}

/// Buffers of a rollout besides its caches.
pub struct SlabMemory {
    /// Each prompt's last row after the last norm: (prompt slots, hidden)
    pub prompt_hidden: Buffer<bf16>,
    pub state: DecodeState,
    pub work: StepWork,
    pub stops: Buffer<u32>,
    /// What the host reads for each row: its number of tokens, then a ring of the last tokens, at their number modulo
    /// [`REPORTED`], and a ring of the bits of their log-probabilities. (rows, [`SlabMemory::REPORT`])
    pub report: Buffer<u32>,
}

impl SlabMemory {
    /// Words of a row's report.
    pub const REPORT: usize = 1 + 2 * REPORTED;
}

/// One per row.
pub struct DecodeState {
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
}

/// Buffers of a decode step. Shapes: (rows, ...)
pub struct StepWork {
    /// A forward pass that keeps nothing.
    pub pass: Forward,
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
    /// Number of spans of a row of `keys` keys.
    pub fn of(keys: usize) -> usize {
        keys.div_ceil(DECODE_SPAN)
    }

    /// For rows of up to `keys` keys.
    pub fn new(arena: &mut Arena, rows: usize, heads: Heads, keys: usize) -> Result<Self> {
        let spans = Self::of(keys);
        let lines = rows * heads.query * spans;
        Ok(Self { spans, sums: arena.take(lines * heads.dim)?, statistics: arena.take(lines * 2)? })
    }
}

/// Stride of the rows of logits.
pub fn logits_stride(config: &ModelConfig) -> usize {
    config.vocab_size.next_multiple_of(8)
}

impl MemoryLayout<'_> {
    /// A forward pass that keeps the values that `keep` requires.
    pub fn forward(&self, arena: &mut Arena, rows: usize, keep: Keep) -> Result<Forward> {
        let (values, layers) = (rows * self.config.hidden_size, self.config.num_hidden_layers);
        let count = if keep == Keep::Nothing { 2 } else { layers + 1 };
        let streams: Vec<_> = (0..count).map(|_| arena.take(values)).collect::<Result<_>>()?;
        let streams = (0..=layers).map(|block| streams[block % count]).collect();
        let (hidden, scales) = (arena.take(values)?, arena.take(rows)?);
        let blocks = if keep == Keep::Everything { layers } else { 0 };
        let mut saved: Vec<BlockBuffers> = (0..blocks).map(|_| self.saved(arena, rows, true)).collect::<Result<_>>()?;
        let kept = arena.mark();
        if saved.is_empty() {
            saved = vec![self.saved(arena, rows, false)?; layers];
        }
        Ok(Forward { streams, saved, hidden, scales, work: self.block_work(arena, rows)?, kept })
    }

    fn saved(&self, arena: &mut Arena, rows: usize, back: bool) -> Result<BlockBuffers> {
        let (config, heads, lora) = (self.config, self.config.heads(), self.lora);
        let shrunk = |columns: usize| if back { rows * columns } else { 0 };
        Ok(BlockBuffers {
            input_scales: arena.take(rows)?,
            qkv_shrunk: arena.take(shrunk(lora.qkv))?,
            gate_up_shrunk: arena.take(shrunk(lora.gate_up))?,
            down_shrunk: arena.take(shrunk(lora.down))?,
            unnormed: arena.take(if config.qk_norm { rows * (heads.query + heads.kv) * heads.dim } else { 0 })?,
            qkv: arena.take(rows * heads.qkv_width())?,
            attended: StridedRows::take(arena, rows, heads.out_width(), lora.o)?,
            lse: arena.take(rows * heads.query)?,
            middle: arena.take(rows * config.hidden_size)?,
            middle_scales: arena.take(rows)?,
            gate_up: StridedRows::take(arena, rows, 2 * config.intermediate_size, lora.gate_up)?,
        })
    }

    fn block_work(&self, arena: &mut Arena, rows: usize) -> Result<BlockWork> {
        let (hidden, inner, lora) = (self.config.hidden_size, self.config.intermediate_size, self.lora);
        Ok(BlockWork {
            normed: StridedRows::take(arena, rows, hidden, lora.qkv.max(lora.gate_up))?,
            activated: StridedRows::take(arena, rows, inner, lora.down)?,
        })
    }

    /// A backward pass with the values that were kept according to `keep`.
    pub fn backward(&self, arena: &mut Arena, rows: usize, keep: Keep) -> Result<Backward> {
        let (config, heads, lora) = (self.config, self.config.heads(), self.lora);
        let hidden = rows * config.hidden_size;
        let dx = StridedRows::take(arena, rows, config.hidden_size, lora.o.max(lora.down))?;
        let mut end = arena.mark();
        let again = if keep == Keep::Inputs {
            let (out, saved) = (arena.take(hidden)?, self.saved(arena, rows, true)?);
            let start = arena.mark();
            let work = self.block_work(arena, rows)?;
            end = arena.mark();
            // A block is recomputed before its backward begins.
            arena.reset(start);
            Some((out, saved, work))
        } else {
            None
        };
        let d_normed = arena.take(hidden)?;
        let start = arena.mark();
        let d_activated = arena.take(rows * config.intermediate_size)?;
        end = end.max(arena.mark());
        arena.reset(start);
        let d_attended = arena.take(rows * heads.out_width())?;
        let d_qkv = StridedRows::take(arena, rows, heads.qkv_width(), lora.qkv)?;
        let end = end.max(arena.mark());
        arena.reset(end);
        Ok(Backward { dx, again, d_normed, d_activated, d_attended, d_qkv })
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

    /// Next to the buffers of [`MemoryLayout::head`].
    pub fn teacher(&self, arena: &mut Arena, pairs: usize) -> Result<TeacherWork> {
        let chunk = LOGITS_ROWS.min(pairs);
        Ok(TeacherWork {
            kl: arena.take(pairs)?,
            logprob: arena.take(chunk)?,
            entropy: arena.take(chunk)?,
            lse: arena.take(chunk)?,
            logits: arena.take(chunk * logits_stride(self.config))?,
        })
    }

    /// The teacher's hidden rows, which are kept until the backward pass: (pairs, hidden).
    pub fn teacher_rows(&self, arena: &mut Arena, pairs: usize) -> Result<Buffer<bf16>> {
        arena.take(pairs * self.config.hidden_size)
    }

    /// The memory of a micro-batch: for its rows, its (hidden row, target) pairs, and partial sums of attention
    /// (values).
    pub fn pass_bytes(&self, rows: usize, pairs: usize, partial: usize, keep: Keep) -> PassBytes {
        self.bytes_of(rows, pairs, partial, keep, false)
    }

    /// The same with the head of a distillation over the whole vocabulary, without [`MemoryLayout::teacher_rows`]. The teacher's own
    /// pass keeps nothing, and needs less than that of the same number of rows which follows it.
    pub fn taught_pass_bytes(&self, rows: usize, pairs: usize, partial: usize, keep: Keep) -> PassBytes {
        self.bytes_of(rows, pairs, partial, keep, true)
    }

    fn bytes_of(&self, rows: usize, pairs: usize, partial: usize, keep: Keep, taught: bool) -> PassBytes {
        let endless = "an unlimited arena";
        let mut arena = Arena::endless();
        let pass = self.forward(&mut arena, rows, keep).expect(endless);
        let forward = arena.used();
        arena.reset(pass.kept);
        let back = keep != Keep::Nothing;
        if back {
            // The gradient of the hidden rows.
            arena.take::<bf16>(pass.hidden.len()).expect(endless);
        }
        let (kept, mark) = (arena.used(), arena.mark());
        self.head(&mut arena, pairs, back).expect(endless);
        if taught {
            self.teacher(&mut arena, pairs).expect(endless);
        }
        let head = arena.used() - kept;
        arena.reset(mark);
        let mut blocks = forward.saturating_sub(kept);
        if back {
            self.backward(&mut arena, rows, keep).expect(endless);
            // The backward of attention allocates its sums in addition, and frees them.
            let sums = padded(4 * rows * self.config.num_attention_heads) + padded(4 * partial);
            blocks = blocks.max(arena.used() - kept + sums);
        }
        PassBytes { kept, blocks, head }
    }

    /// Maximum bytes for the prompts of a rollout with this number of tokens, including metadata.
    pub fn prefill_bytes(&self, rows: usize) -> usize {
        let mut arena = Arena::endless();
        self.forward(&mut arena, rows, Keep::Nothing).expect("an unlimited arena");
        arena.used() + metadata_bytes(rows)
    }

    /// Bytes of a rollout of this size, with a prefill of its longest prompt.
    pub fn rollout_bytes(&self, size: SlabSize) -> usize {
        let endless = "an unlimited arena";
        let mut arena = Arena::endless();
        self.caches(&mut arena, size.prompt_slots, size.prompt).expect(endless);
        self.caches(&mut arena, size.rows, size.completion).expect(endless);
        self.slabs(&mut arena, size).expect(endless);
        arena.used() + self.prefill_bytes(size.prompt)
    }

    /// Bytes of a pass over one prompt with one completion, with this number of rows together; `taught`: of a distillation over the
    /// whole vocabulary.
    pub fn sequence_bytes(&self, rows: usize, keep: Keep, taught: bool) -> usize {
        let heads = self.config.heads();
        let part = Part { prompt: 0..1, branches: std::iter::once(1..rows).collect() };
        let partial = Tiles::new(&[part], heads.query / heads.kv).partial_len(heads);
        let teacher = if taught { padded(2 * rows * self.config.hidden_size) } else { 0 };
        metadata_bytes(rows) + teacher + self.bytes_of(rows, rows, partial, keep, taught).total()
    }

    /// Keys and values of all blocks, for this number of slots of `capacity` tokens.
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
        Ok(SlabMemory {
            prompt_hidden: arena.take(size.prompt_slots * hidden)?,
            state: DecodeState {
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
            },
            work: StepWork {
                pass: self.forward(arena, rows, Keep::Nothing)?,
                attention: DecodeSpans::new(arena, rows, heads, size.prompt + size.completion)?,
                logits: arena.take(rows * logits_stride(config))?,
            },
            stops: arena.take(size.stops)?,
            report: arena.take(rows * SlabMemory::REPORT)?,
        })
    }
}

/// Bytes of a micro-batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassBytes {
    /// What the forward pass keeps for the backward, and the gradient of the hidden rows.
    pub kept: usize,
    /// The buffers of the blocks in addition to that, forward or backward.
    pub blocks: usize,
    /// The buffers of the head, before the blocks' backward.
    pub head: usize,
}

impl PassBytes {
    pub fn total(&self) -> usize {
        self.kept + self.blocks.max(self.head)
    }
}
