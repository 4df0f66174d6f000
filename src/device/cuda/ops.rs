//! The kernels of `src/device/cuda/kernels`, each with a function that checks its types. The shapes of launches and the
//! meaning of the arguments are explained in the kernels' files; a signature is written there and here, and nowhere else.
//! Each function gives the launch the number of values of a buffer that the kernel uses, which the launch checks, and the
//! bytes that it reads and writes, which a recorded GPU counts. The contents of a buffer of indices are on
//! the device and cannot be checked: the caller is responsible for them.

use super::Gpu;
use super::launch::{Argument, LaunchShape, launch};
use super::memory::{Arena, Buffer};
use super::pack::DevicePack;
use crate::device::memory::REPORTED;
use crate::device::memory::layout::{Cache, DecodeSpans, StridedRows};
use crate::ops::attention::Heads;
use crate::rng::Stream;
use crate::rollout::Sampling;
use anyhow::Result;
use half::bf16;

/// Threads per block of the kernels in which a thread processes 8 values.
const THREADS: usize = 256;
/// Threads per block of the kernels in which a block processes a row of logits.
const ROW_THREADS: usize = 512;

/// Bytes of a value.
const BF16: usize = 2;
const F32: usize = 4;

/// Cosine and sine by position.
pub type Rope = [Buffer<f32>; 2];

fn by_row(rows: usize, width: usize) -> LaunchShape {
    LaunchShape::new(rows, 32 * width.div_ceil(256))
}

/// One thread per 8 values of q and k.
fn by_head(rows: usize, heads: Heads) -> LaunchShape {
    by_eight(rows * (heads.query + heads.kv) * heads.dim)
}

fn by_eight(values: usize) -> LaunchShape {
    LaunchShape::new((values / 8).div_ceil(THREADS), THREADS)
}

/// `to` (rows, width) = mean + deviation · normal values of `stream`.
pub fn fill_normal(
    gpu: &Gpu,
    to: StridedRows,
    rows: usize,
    width: usize,
    stream: &Stream,
    mean: f64,
    deviation: f64,
) -> Result<()> {
    let [low, high] = stream.key();
    let (count, shape) = (rows * width, LaunchShape::new((rows * width).div_ceil(THREADS), THREADS));
    // SAFETY: a thread per value of `to`.
    unsafe {
        launch!(
            gpu, "fill_normal_bf16", shape;
            to.at_least(rows, width).written(), count as u64, width, to.stride, low, high, mean, deviation
        )
    }
}

/// Copies `width` values of each of `rows` rows, starting at `start`, to `to` (rows, width).
pub fn copy_columns(
    gpu: &Gpu,
    from: StridedRows,
    start: usize,
    to: Buffer<bf16>,
    rows: usize,
    width: usize,
) -> Result<()> {
    let columns = StridedRows { buffer: from.buffer.slice(start..from.buffer.len()), stride: from.stride };
    // SAFETY: a thread per 8 values of `to`.
    unsafe {
        launch!(
            gpu, "copy_columns", by_eight(rows * width);
            columns.at_least(rows, width), to.at_least(rows * width).written(), from.stride, rows, width
        )
    }
}

/// Rows of `from` (_, width) by index. All indices must be rows of `from`.
pub fn gather_rows(gpu: &Gpu, from: Buffer<bf16>, index: Buffer<i32>, to: Buffer<bf16>, width: usize) -> Result<()> {
    let (rows, shape) = (index.len(), LaunchShape::new(index.len(), (32 * width.div_ceil(256)).min(256)));
    // SAFETY: a block per row of `to`; of `from` only the rows in the index are read.
    unsafe {
        launch!(
            gpu, "gather_rows", shape;
            from.at_least(width).reads(BF16 * rows * width), index.at_least(rows), to.at_least(rows * width).written(),
            width
        )
    }
}

/// Row i of `to` = the sum of the rows of `from` with the numbers `pairs[starts[i]..starts[i + 1]]`.
pub fn scatter_rows(
    gpu: &Gpu,
    from: Buffer<bf16>,
    starts: Buffer<i32>,
    pairs: Buffer<i32>,
    to: Buffer<bf16>,
    width: usize,
) -> Result<()> {
    let rows = starts.len() - 1;
    let shape = LaunchShape::new(rows, (32 * width.div_ceil(256)).min(256));
    // SAFETY: a block per row of `to`; every pair is one row of `from`.
    unsafe {
        launch!(
            gpu, "scatter_rows", shape;
            from.at_least(pairs.len() * width), starts.at_least(rows + 1), pairs.at_least(pairs.len()),
            to.at_least(rows * width).written(), width
        )
    }
}

/// y = rms_norm(x)·weight. Writes the 1/rms of each row to `scales` unless that is null.
#[allow(clippy::too_many_arguments, reason = "the arguments of a kernel")]
pub fn rms_norm(
    gpu: &Gpu,
    x: Buffer<bf16>,
    weight: Buffer<bf16>,
    y: StridedRows,
    scales: Buffer<f32>,
    rows: usize,
    width: usize,
    eps: f32,
) -> Result<()> {
    let (no_residual, shape) = (Buffer::<bf16>::NULL, by_row(rows, width));
    // SAFETY: a block per row, of `width` values.
    unsafe {
        launch!(
            gpu, "rms_norm_forward", shape;
            x.at_least(rows * width), no_residual.at_least(0), weight.at_least(width),
            y.at_least(rows, width).written(), scales.null_or_at_least(rows).written(), width, y.stride, eps
        )
    }
}

/// Adds the gradient of x to `dx`, and replaces `dy` by y.
#[allow(clippy::too_many_arguments, reason = "the arguments of a kernel")]
pub fn rms_norm_backward(
    gpu: &Gpu,
    dy: Buffer<bf16>,
    x: Buffer<bf16>,
    scales: Buffer<f32>,
    weight: Buffer<bf16>,
    dx: StridedRows,
    rows: usize,
    width: usize,
) -> Result<()> {
    // SAFETY: a block per row, of `width` values.
    unsafe {
        launch!(
            gpu, "rms_norm_backward", by_row(rows, width);
            dy.at_least(rows * width).updated(), x.at_least(rows * width), scales.at_least(rows), weight.at_least(width),
            dx.at_least(rows, width).updated(), width, dx.stride
        )
    }
}

/// Normalizes each head of q and k in place; `weights` are q's and k's, one after the other. The previous values are
/// copied to `before`, unless that is null.
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
    let own = rows * (heads.query + heads.kv) * heads.dim;
    // SAFETY: a thread per 8 values of q and k, which `before` contains without the values of v.
    unsafe {
        launch!(
            gpu, "qk_norm_forward", by_head(rows, heads);
            qkv.at_least(rows * heads.qkv_width()).updates(BF16 * own), weights.at_least(2 * heads.dim),
            before.null_or_at_least(own).written(), rows, heads.query, heads.kv, heads.dim, eps
        )
    }
}

/// Replaces the gradient of the normalized q and k by that of the previous values, in place.
#[allow(clippy::too_many_arguments, reason = "the arguments of a kernel")]
pub fn qk_norm_backward(
    gpu: &Gpu,
    d_qkv: StridedRows,
    weights: Buffer<bf16>,
    before: Buffer<bf16>,
    rows: usize,
    heads: Heads,
    eps: f32,
) -> Result<()> {
    let own = rows * (heads.query + heads.kv) * heads.dim;
    // SAFETY: as in the forward.
    unsafe {
        launch!(
            gpu, "qk_norm_backward", by_head(rows, heads);
            d_qkv.at_least(rows, heads.qkv_width()).updates(BF16 * own), weights.at_least(2 * heads.dim), before.at_least(own), rows,
            heads.query, heads.kv, heads.dim, d_qkv.stride, eps
        )
    }
}

/// Adds the bias and rotates q and k by their positions, in place. Row r's key and value are also written to the cache,
/// at slot `slots[r]` and cell `cells[r]`, unless the cache is null. Slots and cells must be in the cache, positions in
/// the tables.
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
    let ([cos, sin], width, angles) = (rope, heads.qkv_width(), heads.dim / 2);
    let (slot, used) = (heads.kv * cache.capacity * heads.dim, if cache.keys.is_empty() { 0 } else { rows });
    let (turned, cached) =
        ([cos, sin].map(|it| it.at_least(angles).reads(F32 * rows * angles)), used * heads.kv * heads.dim);
    let [keys, values] = [cache.keys, cache.values].map(|it| it.at_least(slot).writes(BF16 * cached));
    let [cos, sin] = turned;
    // SAFETY: a thread per 16 values of a row; the tables and the cache are used at the given positions, slots and
    // cells.
    unsafe {
        launch!(
            gpu, "qkv_rope_forward", LaunchShape::new(threads.div_ceil(THREADS), THREADS);
            qkv.at_least(rows * width).updated(), bias.null_or_at_least(width), cos, sin, positions.at_least(rows), keys,
            values, slots.at_least(used), cells.at_least(used), rows, heads.query, heads.kv, heads.dim, cache.capacity
        )
    }
}

/// Rotates the gradient of q and k back, in place.
pub fn qkv_rope_backward(
    gpu: &Gpu,
    d_qkv: StridedRows,
    rope: Rope,
    positions: Buffer<i32>,
    rows: usize,
    heads: Heads,
) -> Result<()> {
    let threads = rows * (heads.query + heads.kv) * heads.dim / 16;
    let angles = heads.dim / 2;
    let [cos, sin] = rope.map(|it| it.at_least(angles).reads(F32 * rows * angles));
    let turned = BF16 * rows * (heads.query + heads.kv) * heads.dim;
    // SAFETY: a thread per 16 values of q or k; the tables are used at the given positions.
    unsafe {
        launch!(
            gpu, "qkv_rope_backward", LaunchShape::new(threads.div_ceil(THREADS), THREADS);
            d_qkv.at_least(rows, heads.qkv_width()).updates(turned), cos, sin, positions.at_least(rows), rows, heads.query, heads.kv, heads.dim, d_qkv.stride
        )
    }
}

/// `gate_up` (rows, 2·width) -> `y` (rows, width)
pub fn swiglu(gpu: &Gpu, gate_up: StridedRows, y: StridedRows, rows: usize, width: usize) -> Result<()> {
    let shape = by_eight(rows * width);
    // SAFETY: a thread per 8 values of `y`.
    unsafe {
        launch!(
            gpu, "swiglu_forward", shape;
            gate_up.at_least(rows, 2 * width), y.at_least(rows, width).written(), gate_up.stride, y.stride, rows, width
        )
    }
}

/// Replaces gate and up by their gradient, and `dy` by y.
pub fn swiglu_backward(gpu: &Gpu, dy: Buffer<bf16>, gate_up: StridedRows, rows: usize, width: usize) -> Result<()> {
    // SAFETY: a thread per 8 values of `dy`.
    unsafe {
        launch!(
            gpu, "swiglu_backward", by_eight(rows * width);
            dy.at_least(rows * width).updated(), gate_up.at_least(rows, 2 * width).updated(), gate_up.stride, rows, width
        )
    }
}

/// Attention over packed groups: `qkv` -> `out` (rows, query heads · head dim), with the log-sum-exp of each row and
/// head.
pub fn branch_attention(
    gpu: &Gpu,
    qkv: Buffer<bf16>,
    out: StridedRows,
    lse: Buffer<f32>,
    pack: &DevicePack,
    heads: Heads,
) -> Result<()> {
    let kernel = match heads.dim {
        32 => "branch_attention_forward_d32",
        64 => "branch_attention_forward_d64",
        _ => "branch_attention_forward_d128",
    };
    let (rows, tiles) = (pack.rows, pack.tiles.queries.len());
    let shape = LaunchShape { blocks: [tiles, heads.kv, 1], threads: 128, shared: 768 * heads.dim };
    // SAFETY: the tiles are of the pack's rows, 5 numbers each.
    unsafe {
        launch!(
            gpu, kernel, shape;
            qkv.at_least(rows * heads.qkv_width()), out.at_least(rows, heads.out_width()).written(),
            lse.at_least(rows * heads.query).written(), pack.query_tiles.at_least(5 * tiles), heads.query / heads.kv,
            out.stride
        )?;
    }
    count_flops(gpu, || 4.0 * pair_flops(pack, heads));
    Ok(())
}

/// An operation for each pair of a query and a key that it sees, each of its heads and each of their dimensions.
fn pair_flops(pack: &DevicePack, heads: Heads) -> f64 {
    (pack.tiles.pairs() * heads.query * heads.dim) as f64
}

/// Where work is recorded, adds the operations of the last launch.
fn count_flops(gpu: &Gpu, flops: impl FnOnce() -> f64) {
    if let Some(recorder) = gpu.recorder() {
        recorder.complete(flops(), 0);
    }
}

/// The gradient of `qkv`; all of `d_qkv` is written.
#[allow(clippy::too_many_arguments, reason = "the arguments of four kernels")]
pub fn branch_attention_backward(
    gpu: &Gpu,
    arena: &mut Arena,
    qkv: Buffer<bf16>,
    out: StridedRows,
    lse: Buffer<f32>,
    d_out: Buffer<bf16>,
    d_qkv: StridedRows,
    pack: &DevicePack,
    heads: Heads,
) -> Result<()> {
    let Heads { query, kv, dim } = heads;
    let (group, count, tiles) = (query / kv, pack.rows * query, &pack.tiles);
    let mark = arena.mark();
    let dots = arena.take::<f32>(count)?;
    let partial = arena.take::<f32>(tiles.partial_len(heads))?;
    let all = qkv.at_least(pack.rows * heads.qkv_width());
    // Who writes the gradients of keys and values: the second kernel, or the last one where there are partial sums.
    let summed: usize = tiles.sums.iter().map(|tile| tile.count as usize).sum();
    let d_all = d_qkv.at_least(pack.rows, heads.qkv_width());
    let (d_queries, d_keys, d_summed) = (
        d_all.writes(BF16 * count * dim),
        d_all.writes(BF16 * (pack.rows - summed) * 2 * kv * dim),
        d_all.writes(BF16 * summed * 2 * kv * dim),
    );
    let (out_at, d_out) = (out.at_least(pack.rows, query * dim), d_out.at_least(count * dim));
    let [lse, dots] = [lse, dots].map(|buffer| buffer.at_least(count));
    let partial = partial.at_least(tiles.partial_len(heads));
    let (queries, keys, sums) = (tiles.queries.len(), tiles.keys.len(), tiles.sums.len());
    let (by_queries, by_keys) = match dim {
        32 => ("branch_attention_backward_queries_d32", "branch_attention_backward_keys_d32"),
        64 => ("branch_attention_backward_queries_d64", "branch_attention_backward_keys_d64"),
        _ => ("branch_attention_backward_queries_d128", "branch_attention_backward_keys_d128"),
    };
    let lines = LaunchShape::new((count * dim / 8).div_ceil(256), 256);
    let shared = if dim == 128 { 768 * dim } else { 1024 * dim };
    let of_queries = LaunchShape { blocks: [queries, kv, 1], threads: 128, shared };
    let of_keys = LaunchShape { blocks: [keys, kv, 1], threads: 128, shared: 768 * dim + 1024 };
    let of_sums = LaunchShape { blocks: [sums, kv, 1], threads: 256, shared: 0 };
    // SAFETY: the tiles are of the pack's rows and of the slots of `partial`, with 5, 7 and 4 numbers each.
    unsafe {
        launch!(gpu, "branch_attention_dots", lines; out_at, d_out, dots.written(), count, query, dim, out.stride)?;
        let tiles = pack.query_tiles.at_least(5 * queries);
        launch!(gpu, by_queries, of_queries; all, lse, d_out, dots, d_queries, tiles, group, d_qkv.stride)?;
        count_flops(gpu, || 6.0 * pair_flops(pack, heads));
        let tiles = pack.key_tiles.at_least(7 * keys);
        launch!(
            gpu, by_keys, of_keys; all, lse, d_out, dots, d_keys, partial.written(), tiles, group, d_qkv.stride
        )?;
        count_flops(gpu, || 8.0 * pair_flops(pack, heads));
        let tiles = pack.sum_tiles.at_least(4 * sums);
        launch!(gpu, "branch_attention_backward_sum", of_sums; partial, d_summed, tiles, group, dim, d_qkv.stride)?;
    }
    arena.reset(mark);
    Ok(())
}

/// Positions of the keys and values of the rows of a decode step.
#[derive(Clone, Copy)]
pub struct DecodeRows {
    pub rows: usize,
    pub prompt_slots: Buffer<i32>,
    pub prompt_lens: Buffer<i32>,
    pub slots: Buffer<i32>,
    /// Number of cells of its slot that a row sees, including its new token.
    pub counts: Buffer<i32>,
}

/// Keys that the rows of a step see together, and the spans that those are cut into. The lengths are on the device: only
/// where work is recorded they are known, and elsewhere nobody asks.
#[derive(Clone, Copy, Default)]
struct VisibleKeys {
    prompt: usize,
    own: usize,
    spans: usize,
}

impl VisibleKeys {
    fn by(gpu: &Gpu, at: DecodeRows) -> Result<Self> {
        let Some(recorder) = gpu.recorder() else { return Ok(Self::default()) };
        let lengths = |of| -> Result<Vec<usize>> {
            Ok(recorder.integers(of, at.rows)?.into_iter().map(|it| it.max(0) as usize).collect())
        };
        let (prompt, own) = (lengths(at.prompt_lens)?, lengths(at.counts)?);
        let spans = prompt.iter().zip(&own).map(|(prompt, own)| DecodeSpans::of(prompt + own)).sum();
        Ok(Self { prompt: prompt.iter().sum(), own: own.iter().sum(), spans })
    }
}

/// Attention of one new token per row, whose key and value are in the cache already. Slots and counts must be in the
/// caches.
#[allow(clippy::too_many_arguments, reason = "the arguments of two kernels")]
pub fn decode_attention(
    gpu: &Gpu,
    qkv: Buffer<bf16>,
    prompt: Cache,
    own: Cache,
    at: DecodeRows,
    spans: DecodeSpans,
    out: StridedRows,
    heads: Heads,
) -> Result<()> {
    let (by_span, sum) = match heads.dim {
        32 => ("decode_attention_spans_d32", "decode_attention_sum_d32"),
        64 => ("decode_attention_spans_d64", "decode_attention_sum_d64"),
        _ => ("decode_attention_spans_d128", "decode_attention_sum_d128"),
    };
    let (rows, group, lines) = (at.rows, heads.query / heads.kv, at.rows * heads.query * spans.spans);
    let seen = VisibleKeys::by(gpu, at)?;
    let slot = |of: Cache, buffer: Buffer<bf16>, keys: usize| {
        buffer.at_least(heads.kv * of.capacity * heads.dim).reads(BF16 * keys * heads.kv * heads.dim)
    };
    let [prompt_keys, prompt_values] = [prompt.keys, prompt.values].map(|it| slot(prompt, it, seen.prompt));
    let [own_keys, own_values] = [own.keys, own.values].map(|it| slot(own, it, seen.own));
    let [prompt_lens, counts] = [at.prompt_lens, at.counts].map(|it| it.at_least(rows));
    // A row has no sums of spans that it does not have.
    let used = seen.spans * heads.query;
    let sums = spans.sums.at_least(lines * heads.dim).reads(F32 * used * heads.dim);
    let statistics = spans.statistics.at_least(2 * lines).reads(F32 * used * 2);
    let of_spans = LaunchShape { blocks: [rows, heads.kv, spans.spans], threads: 128, shared: 0 };
    let of_rows = LaunchShape { blocks: [rows, heads.query, 1], threads: heads.dim, shared: 0 };
    // SAFETY: a line of sums per row, head and span; the caches are used at the given slots and counts.
    unsafe {
        launch!(
            gpu, by_span, of_spans;
            qkv.at_least(rows * heads.qkv_width()).reads(BF16 * rows * heads.out_width()), prompt_keys, prompt_values,
            own_keys, own_values, at.prompt_slots.at_least(rows), prompt_lens, at.slots.at_least(rows), counts,
            sums.written(), statistics.written(), group, prompt.capacity, own.capacity
        )?;
        if let Some(recorder) = gpu.recorder() {
            let flops = 4.0 * ((seen.prompt + seen.own) * heads.out_width()) as f64;
            recorder.complete(flops, heads.kv * (rows * spans.spans - seen.spans));
        }
        let to = out.at_least(rows, heads.out_width()).written();
        launch!(gpu, sum, of_rows; sums, statistics, prompt_lens, counts, to, group, spans.spans, out.stride)
    }
}

/// Reports the sampled tokens to the host, and advances the unfinished rows. `capacity` is the maximum completion
/// length.
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
    let [counts, done, positions, cells] =
        [counts, done, positions, cells].map(|buffer| buffer.at_least(rows).updated());
    // SAFETY: a thread per row, with a line of the report: a count, and `REPORTED` tokens and log-probabilities.
    unsafe {
        launch!(
            gpu, "rollout_advance", LaunchShape::new(rows.div_ceil(128), 128);
            tokens.at_least(rows), logprobs.at_least(rows), counts, done, positions, cells,
            report.at_least(rows * (1 + 2 * REPORTED)).writes(rows * 3 * F32), REPORTED, stops.at_least(stops.len()), stops.len(), capacity, rows
        )
    }
}

/// Rows of f32 logits, of which the first `vocab` columns are used.
#[derive(Clone, Copy)]
pub struct Logits {
    pub buffer: Buffer<f32>,
    pub rows: usize,
    pub vocab: usize,
    pub stride: usize,
}

impl Logits {
    fn values(&self) -> Argument {
        self.buffer.at_least(self.rows * self.stride)
    }
}

/// Per row: log-probability of its target, entropy, and ln Σ exp(logits / T).
#[derive(Clone, Copy)]
pub struct HeadStats {
    pub logprob: Buffer<f32>,
    pub entropy: Buffer<f32>,
    pub lse: Buffer<f32>,
}

/// The statistics of each row. Targets must be tokens of the vocabulary.
pub fn head_stats(gpu: &Gpu, logits: Logits, targets: Buffer<i32>, stats: HeadStats, temperature: f32) -> Result<()> {
    let rows = logits.rows;
    let [logprob, entropy, lse] =
        [stats.logprob, stats.entropy, stats.lse].map(|buffer| buffer.at_least(rows).written());
    // SAFETY: a block per row, which reads `stride` logits and writes one value of each kind.
    unsafe {
        launch!(
            gpu, "head_forward_f32", LaunchShape::new(rows, ROW_THREADS);
            logits.values(), targets.at_least(rows), logprob, entropy, lse, logits.vocab, logits.stride as u64, temperature
        )
    }
}

/// The gradient of the logits replaces the first half of their rows, as bf16.
pub fn head_backward(
    gpu: &Gpu,
    logits: Logits,
    targets: Buffer<i32>,
    stats: HeadStats,
    d_logprob: Buffer<f32>,
    d_entropy: Buffer<f32>,
    temperature: f32,
) -> Result<()> {
    let rows = logits.rows;
    let [entropy, lse, d_logprob, d_entropy] =
        [stats.entropy, stats.lse, d_logprob, d_entropy].map(|buffer| buffer.at_least(rows));
    // SAFETY: a block per row, which stays within the row's `stride` values.
    unsafe {
        launch!(
            gpu, "head_backward_f32", LaunchShape::new(rows, ROW_THREADS);
            logits.values().moves(|bytes| (bytes, bytes / 2)), targets.at_least(rows), entropy, lse, d_logprob, d_entropy, logits.vocab,
            logits.stride as u64, temperature
        )
    }
}

/// The divergence of each row from the teacher's, in `kl`, and the gradient of its sum with `weights`, which replaces the first half of
/// the rows of `logits`, as bf16. `lse` are those of [`head_stats`], of both.
#[allow(clippy::too_many_arguments, reason = "the arguments of a kernel")]
pub fn head_distill(
    gpu: &Gpu,
    logits: Logits,
    teacher: Buffer<f32>,
    [lse, teacher_lse]: [Buffer<f32>; 2],
    weights: Buffer<f32>,
    kl: Buffer<f32>,
    temperature: f32,
) -> Result<()> {
    let Logits { rows, vocab, stride, .. } = logits;
    let [lse, teacher_lse, weights] = [lse, teacher_lse, weights].map(|buffer| buffer.at_least(rows));
    // SAFETY: a block per row, which stays within the `stride` values of its two rows.
    unsafe {
        launch!(
            gpu, "head_distill_f32", LaunchShape::new(rows, ROW_THREADS);
            logits.values().moves(|bytes| (2 * bytes, bytes / 2)), teacher.at_least(rows * stride).reads(2 * F32 * rows * stride),
            lse, teacher_lse, weights, kl.at_least(rows).written(), vocab, stride as u64, temperature
        )
    }
}

/// Samples a token for each unfinished row, with its log-probability under the untruncated distribution. `keys` (rows,
/// 2) are the keys of the completions' streams, `positions` the indices of the tokens in their completions; `done` may
/// be null.
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
    let rows = logits.rows;
    // SAFETY: a block per row, which reads `stride` logits and a key of two words.
    unsafe {
        launch!(
            gpu, "sampler_f32", LaunchShape::new(rows, ROW_THREADS);
            logits.values(), keys.at_least(2 * rows), positions.at_least(rows), done.null_or_at_least(rows),
            tokens.at_least(rows).written(), logprobs.at_least(rows).written(), logits.vocab, logits.stride as u64, sampling.temperature,
            sampling.top_k, sampling.top_p, sampling.min_p
        )
    }
}
