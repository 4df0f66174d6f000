//! The kernels that work on rows of logits: the head's and the sampler. As in `ops.rs`, each has a function that checks its types.

use super::Gpu;
use super::launch::{Argument, LaunchShape, launch};
use super::memory::Buffer;
use crate::rollout::Sampling;
use anyhow::Result;

/// Threads per block, which processes a row.
const ROW_THREADS: usize = 512;

/// Bytes of a value.
const F32: usize = 4;

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
