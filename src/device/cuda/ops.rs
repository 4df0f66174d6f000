//! The kernels of `src/device/cuda/kernels`, each behind a function with the types that it takes. The shapes of launches and the
//! meaning of the arguments are explained in the kernels' files; a signature stands here and there, and nowhere else.

use super::Gpu;
use super::launch::{Shape, launch};
use super::memory::{Arena, Buffer};
use super::pack::DevicePack;
use crate::device::memory::REPORTED;
use crate::device::memory::layout::{Cache, DecodeSpans, Rows};
use crate::ops::attention::Heads;
use crate::rng::Stream;
use crate::rollout::Sampling;
use anyhow::Result;
use half::bf16;

/// Threads of the kernels that give a thread 8 values.
const THREADS: usize = 256;
/// Threads of the kernels that give a block a row of logits.
const ROW_THREADS: usize = 512;

/// Cosine and sine by position.
pub type Rope = [Buffer<f32>; 2];

fn by_row(rows: usize, width: usize) -> Shape {
    Shape::new(rows, 32 * width.div_ceil(256))
}

/// A thread for 8 values of q and k.
fn by_head(rows: usize, heads: Heads) -> Shape {
    by_eight(rows * (heads.query + heads.kv) * heads.dim)
}

fn by_eight(values: usize) -> Shape {
    Shape::new((values / 8).div_ceil(THREADS), THREADS)
}

/// `to` (rows, width) = mean + deviation · the normals of `stream`.
pub fn fill_normal(
    gpu: &Gpu,
    to: Rows,
    rows: usize,
    width: usize,
    stream: &Stream,
    mean: f64,
    deviation: f64,
) -> Result<()> {
    let [low, high] = stream.key();
    let (count, shape) = (rows * width, Shape::new((rows * width).div_ceil(THREADS), THREADS));
    launch!(
        gpu, "fill_normal_bf16", shape;
        to.buffer, count as u64, width, to.stride, low, high, mean, deviation
    )
}

/// `width` values from `start` on of each of `rows` rows: to `to` (rows, width).
pub fn copy_columns(gpu: &Gpu, from: Rows, start: usize, to: Buffer<bf16>, rows: usize, width: usize) -> Result<()> {
    let columns = from.buffer.slice(start..from.buffer.len());
    launch!(gpu, "copy_columns", by_eight(rows * width); columns, to, from.stride, rows, width)
}

/// Rows of `from` (_, width) by index.
pub fn gather_rows(gpu: &Gpu, from: Buffer<bf16>, index: Buffer<i32>, to: Buffer<bf16>, width: usize) -> Result<()> {
    let shape = Shape::new(index.len(), (32 * width.div_ceil(256)).min(256));
    launch!(gpu, "gather_rows", shape; from, index, to, width)
}

/// Row i of `to` = the sum of the rows of `from` that `pairs[starts[i]..starts[i + 1]]` name.
pub fn scatter_rows(
    gpu: &Gpu,
    from: Buffer<bf16>,
    starts: Buffer<i32>,
    pairs: Buffer<i32>,
    to: Buffer<bf16>,
    width: usize,
) -> Result<()> {
    let shape = Shape::new(starts.len() - 1, (32 * width.div_ceil(256)).min(256));
    launch!(gpu, "scatter_rows", shape; from, starts, pairs, to, width)
}

/// y = rms_norm(x)·weight, with the 1/rms of each row left in `scales` unless that is null.
#[allow(clippy::too_many_arguments, reason = "the arguments of a kernel")]
pub fn rms_norm(
    gpu: &Gpu,
    x: Buffer<bf16>,
    weight: Buffer<bf16>,
    y: Rows,
    scales: Buffer<f32>,
    rows: usize,
    width: usize,
    eps: f32,
) -> Result<()> {
    let (no_residual, shape) = (Buffer::<bf16>::NULL, by_row(rows, width));
    launch!(gpu, "rms_norm_forward", shape; x, no_residual, weight, y.buffer, scales, width, y.stride, eps)
}

/// Adds the gradient of x to `dx`, and leaves y in the place of `dy`.
#[allow(clippy::too_many_arguments, reason = "the arguments of a kernel")]
pub fn rms_norm_backward(
    gpu: &Gpu,
    dy: Buffer<bf16>,
    x: Buffer<bf16>,
    scales: Buffer<f32>,
    weight: Buffer<bf16>,
    dx: Rows,
    rows: usize,
    width: usize,
) -> Result<()> {
    launch!(gpu, "rms_norm_backward", by_row(rows, width); dy, x, scales, weight, dx.buffer, width, dx.stride)
}

/// Normalises each head of q and k in place; `weights` are q's and k's, one after the other. What they were goes to `before`,
/// unless that is null.
#[allow(clippy::too_many_arguments, reason = "the arguments of a kernel")]
pub fn qk_norm(
    gpu: &Gpu,
    qkv: Buffer<bf16>,
    weights: Buffer<bf16>,
    before: Buffer<bf16>,
    rows: usize,
    heads: Heads,
    eps: f32,
) -> Result<()> {
    launch!(
        gpu, "qk_norm_forward", by_head(rows, heads);
        qkv, weights, before, rows, heads.query, heads.kv, heads.dim, eps
    )
}

/// Turns the gradient of the normalised q and k into that of what they were before, in place.
#[allow(clippy::too_many_arguments, reason = "the arguments of a kernel")]
pub fn qk_norm_backward(
    gpu: &Gpu,
    d_qkv: Rows,
    weights: Buffer<bf16>,
    before: Buffer<bf16>,
    rows: usize,
    heads: Heads,
    eps: f32,
) -> Result<()> {
    launch!(
        gpu, "qk_norm_backward", by_head(rows, heads);
        d_qkv.buffer, weights, before, rows, heads.query, heads.kv, heads.dim, d_qkv.stride, eps
    )
}

/// Adds the bias and turns q and k by their positions, in place. Row r's key and value go to the cache too, at slot `slots[r]`
/// and cell `cells[r]`, unless the cache is null.
#[allow(clippy::too_many_arguments, reason = "the arguments of a kernel")]
pub fn qkv_rope(
    gpu: &Gpu,
    qkv: Buffer<bf16>,
    bias: Buffer<bf16>,
    rope: Rope,
    positions: Buffer<i32>,
    cache: Cache,
    slots: Buffer<i32>,
    cells: Buffer<i32>,
    rows: usize,
    heads: Heads,
) -> Result<()> {
    let threads = rows * (heads.query + 2 * heads.kv) * heads.dim / 16;
    let [cos, sin] = rope;
    launch!(
        gpu, "qkv_rope_forward", Shape::new(threads.div_ceil(THREADS), THREADS);
        qkv, bias, cos, sin, positions, cache.keys, cache.values, slots, cells, rows, heads.query, heads.kv, heads.dim,
        cache.capacity
    )
}

/// Turns the gradient of q and k back, in place.
pub fn qkv_rope_backward(
    gpu: &Gpu,
    d_qkv: Rows,
    rope: Rope,
    positions: Buffer<i32>,
    rows: usize,
    heads: Heads,
) -> Result<()> {
    let threads = rows * (heads.query + heads.kv) * heads.dim / 16;
    let [cos, sin] = rope;
    launch!(
        gpu, "qkv_rope_backward", Shape::new(threads.div_ceil(THREADS), THREADS);
        d_qkv.buffer, cos, sin, positions, rows, heads.query, heads.kv, heads.dim, d_qkv.stride
    )
}

/// `gate_up` (rows, 2·width) -> `y` (rows, width)
pub fn swiglu(gpu: &Gpu, gate_up: Rows, y: Rows, rows: usize, width: usize) -> Result<()> {
    let shape = by_eight(rows * width);
    launch!(gpu, "swiglu_forward", shape; gate_up.buffer, y.buffer, gate_up.stride, y.stride, rows, width)
}

/// The gradient of gate and up takes their place, and y that of `dy`.
pub fn swiglu_backward(gpu: &Gpu, dy: Buffer<bf16>, gate_up: Rows, rows: usize, width: usize) -> Result<()> {
    launch!(gpu, "swiglu_backward", by_eight(rows * width); dy, gate_up.buffer, gate_up.stride, rows, width)
}

/// Attention over packed groups: `qkv` -> `out` (rows, query heads · head dim), with the log-sum-exp of each row and head.
pub fn branch_attention(
    gpu: &Gpu,
    qkv: Buffer<bf16>,
    out: Rows,
    lse: Buffer<f32>,
    pack: &DevicePack,
    heads: Heads,
) -> Result<()> {
    let kernel = match heads.dim {
        32 => "branch_attention_forward_d32",
        64 => "branch_attention_forward_d64",
        _ => "branch_attention_forward_d128",
    };
    let blocks = [heads.kv, pack.tiles.queries.len(), 1];
    let shape = Shape { blocks, threads: 128, shared: 768 * heads.dim };
    launch!(gpu, kernel, shape; qkv, out.buffer, lse, pack.query_tiles, heads.query / heads.kv, out.stride)
}

/// The gradient of `qkv`, all of which is written to `d_qkv`.
#[allow(clippy::too_many_arguments, reason = "the arguments of four kernels")]
pub fn branch_attention_backward(
    gpu: &Gpu,
    arena: &mut Arena,
    qkv: Buffer<bf16>,
    out: Rows,
    lse: Buffer<f32>,
    d_out: Buffer<bf16>,
    d_qkv: Rows,
    pack: &DevicePack,
    heads: Heads,
) -> Result<()> {
    let Heads { query, kv, dim } = heads;
    let (group, count, tiles) = (query / kv, pack.rows * query, &pack.tiles);
    let mark = arena.mark();
    let dots = arena.take::<f32>(count)?;
    let partial = arena.take::<f32>(tiles.partial_len(heads))?;
    let shape = Shape::new((count * dim / 8).div_ceil(256), 256);
    launch!(gpu, "branch_attention_dots", shape; out.buffer, d_out, dots, count, query, dim, out.stride)?;
    let (by_queries, by_keys) = match dim {
        32 => ("branch_attention_backward_queries_d32", "branch_attention_backward_keys_d32"),
        64 => ("branch_attention_backward_queries_d64", "branch_attention_backward_keys_d64"),
        _ => ("branch_attention_backward_queries_d128", "branch_attention_backward_keys_d128"),
    };
    let shared = if dim == 128 { 768 * dim } else { 1024 * dim };
    let shape = Shape { blocks: [kv, tiles.queries.len(), 1], threads: 128, shared };
    launch!(gpu, by_queries, shape; qkv, lse, d_out, dots, d_qkv.buffer, pack.query_tiles, group, d_qkv.stride)?;
    let shape = Shape { blocks: [kv, tiles.keys.len(), 1], threads: 128, shared: 768 * dim + 1024 };
    launch!(
        gpu, by_keys, shape;
        qkv, lse, d_out, dots, d_qkv.buffer, partial, pack.key_tiles, group, d_qkv.stride
    )?;
    let shape = Shape { blocks: [kv, tiles.sums.len(), 1], threads: 256, shared: 0 };
    launch!(
        gpu, "branch_attention_backward_sum", shape;
        partial, d_qkv.buffer, pack.sum_tiles, group, dim, d_qkv.stride
    )?;
    arena.reset(mark);
    Ok(())
}

/// Where the rows of a decode step have their keys and values.
#[derive(Clone, Copy)]
pub struct DecodeRows {
    pub rows: usize,
    pub prompt_slots: Buffer<i32>,
    pub prompt_lens: Buffer<i32>,
    pub slots: Buffer<i32>,
    /// Cells of its slot that a row sees, its new token's among them.
    pub counts: Buffer<i32>,
}

/// Attention of one new token a row, whose key and value are in the cache already.
#[allow(clippy::too_many_arguments, reason = "the arguments of two kernels")]
pub fn decode_attention(
    gpu: &Gpu,
    qkv: Buffer<bf16>,
    prompt: Cache,
    own: Cache,
    at: DecodeRows,
    spans: DecodeSpans,
    out: Rows,
    heads: Heads,
) -> Result<()> {
    let (by_span, sum) = match heads.dim {
        32 => ("decode_attention_spans_d32", "decode_attention_sum_d32"),
        64 => ("decode_attention_spans_d64", "decode_attention_sum_d64"),
        _ => ("decode_attention_spans_d128", "decode_attention_sum_d128"),
    };
    let group = heads.query / heads.kv;
    let shape = Shape { blocks: [at.rows, heads.kv, spans.spans], threads: 128, shared: 0 };
    launch!(
        gpu, by_span, shape;
        qkv, prompt.keys, prompt.values, own.keys, own.values, at.prompt_slots, at.prompt_lens, at.slots, at.counts,
        spans.sums, spans.statistics, group, prompt.capacity, own.capacity
    )?;
    let shape = Shape { blocks: [at.rows, heads.query, 1], threads: heads.dim, shared: 0 };
    launch!(
        gpu, sum, shape;
        spans.sums, spans.statistics, at.prompt_lens, at.counts, out.buffer, group, spans.spans, out.stride
    )
}

/// Reports what was drawn to the host, and moves the rows that go on by one place. `capacity` is the longest completion.
#[allow(clippy::too_many_arguments, reason = "the arguments of a kernel")]
pub fn rollout_advance(
    gpu: &Gpu,
    tokens: Buffer<u32>,
    logprobs: Buffer<f32>,
    counts: Buffer<i32>,
    done: Buffer<i32>,
    positions: Buffer<i32>,
    cells: Buffer<i32>,
    report: Buffer<u32>,
    stops: Buffer<u32>,
    capacity: usize,
    rows: usize,
) -> Result<()> {
    launch!(
        gpu, "rollout_advance", Shape::new(rows.div_ceil(128), 128);
        tokens, logprobs, counts, done, positions, cells, report, REPORTED, stops, stops.len(), capacity, rows
    )
}

/// Rows of logits in f32, whose first `vocab` columns count.
#[derive(Clone, Copy)]
pub struct Logits {
    pub buffer: Buffer<f32>,
    pub rows: usize,
    pub vocab: usize,
    pub stride: usize,
}

/// Of each row: log-probability of its target, entropy, and ln Σ exp(logits / T).
#[derive(Clone, Copy)]
pub struct HeadStats {
    pub logprob: Buffer<f32>,
    pub entropy: Buffer<f32>,
    pub lse: Buffer<f32>,
}

pub fn head_stats(gpu: &Gpu, logits: Logits, targets: Buffer<i32>, stats: HeadStats, temperature: f32) -> Result<()> {
    launch!(
        gpu, "head_forward_f32", Shape::new(logits.rows, ROW_THREADS);
        logits.buffer, targets, stats.logprob, stats.entropy, stats.lse, logits.vocab, logits.stride as u64, temperature
    )
}

/// The gradient of the logits takes the first half of their rows, as bf16.
pub fn head_backward(
    gpu: &Gpu,
    logits: Logits,
    targets: Buffer<i32>,
    stats: HeadStats,
    d_logprob: Buffer<f32>,
    d_entropy: Buffer<f32>,
    temperature: f32,
) -> Result<()> {
    launch!(
        gpu, "head_backward_f32", Shape::new(logits.rows, ROW_THREADS);
        logits.buffer, targets, stats.entropy, stats.lse, d_logprob, d_entropy, logits.vocab, logits.stride as u64,
        temperature
    )
}

/// Draws a token for each row that is not done, with its log-probability under the untruncated distribution. `keys` (rows, 2)
/// are the keys of the branches' streams, `positions` the places of the tokens in their completions; `done` may be null.
#[allow(clippy::too_many_arguments, reason = "the arguments of a kernel")]
pub fn sample(
    gpu: &Gpu,
    logits: Logits,
    keys: Buffer<u32>,
    positions: Buffer<i32>,
    done: Buffer<i32>,
    tokens: Buffer<u32>,
    logprobs: Buffer<f32>,
    sampling: &Sampling,
) -> Result<()> {
    launch!(
        gpu, "sampler_f32", Shape::new(logits.rows, ROW_THREADS);
        logits.buffer, keys, positions, done, tokens, logprobs, logits.vocab, logits.stride as u64,
        sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p
    )
}
