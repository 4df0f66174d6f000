//! Training on the device: the CUDA side of `grpo::learner`.

use super::adapter::DeviceAdapter;
use super::decoder::CudaDecoder;
use super::logits::{HeadStats, Logits, head_backward, head_distill, head_stats};
use super::matrix::Matrix;
use super::memory::{Buffer, DeviceArena};
use super::ops;
use super::pack::DevicePack;
use super::{Gpu, Shared};
use crate::device::memory::arena::Mark;
use crate::device::memory::layout::{Forward, HeadWork, TeacherWork, metadata_bytes};
use crate::grpo::adamw::{AdamW, Hyper, LargestChange};
use crate::grpo::learner::Keep;
use crate::grpo::learner::Learner;
use crate::model::lora::Adapter;
use crate::model::pack::Pack;
use crate::ops::attention_tiles::Tiles;
use crate::ops::distill::DistillStats;
use crate::ops::head::TokenStats;
use anyhow::{Context, Result, anyhow, ensure};
use half::bf16;
use std::cell::RefMut;

/// Trains on a GPU, in the memory that it shares with the rollouts.
pub struct CudaLearner<'a> {
    shared: &'a Shared,
    pass: Option<Pass>,
    /// The teacher's pass, until the next forward pass.
    teacher: Option<TeacherPass>,
    /// The optimizer step of the moments on the device, if they are there.
    moments_at: Option<u64>,
}

/// The last forward pass.
struct Pass {
    pack: DevicePack,
    forward: Forward,
    keep: Keep,
    /// (rows, hidden); null if there is no backward pass.
    d_hidden: Buffer<bf16>,
    /// The teacher's hidden rows, if a prompt is distilled: (pairs, hidden)
    teacher: Option<Buffer<bf16>>,
}

/// What is kept of a teacher's pass, at the start of the arena.
struct TeacherPass {
    /// (pairs, hidden)
    rows: Buffer<bf16>,
    end: Mark,
}

/// What the head computes besides the statistics of each pair.
enum HeadTask<'t> {
    Statistics,
    /// The gradient, from the derivatives by each log-probability and by every entropy.
    Gradient(&'t [f32], f32),
    /// The divergence from the teacher, and the gradient of its sum with these weights.
    Distill(&'t [f32]),
}

impl<'a> CudaLearner<'a> {
    pub fn new(shared: &'a Shared) -> Self {
        Self { shared, pass: None, teacher: None, moments_at: None }
    }

    fn parts(&self) -> (&'a Gpu, &'a CudaDecoder, &'a DeviceAdapter, RefMut<'a, DeviceArena>) {
        let Shared { gpu, decoder, adapter, arena } = self.shared;
        (gpu, decoder, adapter.as_ref().expect("a learner has an adapter"), arena.borrow_mut())
    }

    /// Processes the pairs in chunks of rows whose logits are in memory at once. The gradient of the hidden rows, if there is one, is
    /// stored in the pass. Without a teacher, the divergences are zero.
    fn head(&mut self, pack: &Pack, temperature: f32, task: &HeadTask) -> Result<Vec<DistillStats>> {
        let (gpu, decoder, _, mut arena) = self.parts();
        let arena = &mut *arena;
        let pass = self.pass.as_ref().context("there was no forward pass")?;
        let (hidden, vocab, count) = (decoder.config.hidden_size, decoder.config.vocab_size, pack.pairs.len());
        let mark = arena.mark();
        let layout = decoder.layout(false);
        let back = !matches!(task, HeadTask::Statistics);
        let work = layout.head(arena, count, back)?;
        let HeadWork { chunk, stride, rows, logits: buffer, d_rows, .. } = work;
        let mut teacher: Option<(Buffer<bf16>, TeacherWork)> = None;
        match task {
            HeadTask::Statistics => {}
            HeadTask::Gradient(values, entropy) => {
                work.d_logprob.upload(gpu, values)?;
                work.d_entropy.upload(gpu, &vec![*entropy; count])?;
            }
            HeadTask::Distill(weights) => {
                work.d_logprob.upload(gpu, weights)?;
                let rows = pass.teacher.context("there was no pass of the teacher")?;
                ensure!(rows.len() == count * hidden, "the teacher's pass had other pairs");
                teacher = Some((rows, layout.teacher(arena, count)?));
            }
        }
        let stats = HeadStats { logprob: work.logprob, entropy: work.entropy, lse: work.lse };
        let head = Matrix::new(decoder.frozen.head, vocab, hidden);
        for start in (0..count).step_by(chunk.max(1)) {
            let range = start..(start + chunk).min(count);
            let len = range.len();
            let logits = Logits { buffer, rows: len, vocab, stride };
            let part = HeadStats {
                logprob: stats.logprob.slice(range.clone()),
                entropy: stats.entropy.slice(range.clone()),
                lse: stats.lse.slice(range.clone()),
            };
            let targets = pass.pack.pairs.targets.slice(range.clone());
            ops::gather_rows(gpu, pass.forward.hidden, pass.pack.pairs.rows.slice(range.clone()), rows, hidden)?;
            let out = Matrix::new(buffer, len, vocab).with_stride(stride);
            gpu.blas.product(Matrix::new(rows, len, hidden), head.t(), out)?;
            head_stats(gpu, logits, targets, part, temperature)?;
            let by_logprob = work.d_logprob.slice(range.clone());
            match &teacher {
                None if !back => continue,
                None => {
                    let by_entropy = work.d_entropy.slice(range.clone());
                    head_backward(gpu, logits, targets, part, by_logprob, by_entropy, temperature)?;
                }
                Some((rows, work)) => {
                    let rows = rows.slice(range.start * hidden..range.end * hidden);
                    let out = Matrix::new(work.logits, len, vocab).with_stride(stride);
                    gpu.blas.product(Matrix::new(rows, len, hidden), head.t(), out)?;
                    let of_teacher = HeadStats { logprob: work.logprob, entropy: work.entropy, lse: work.lse };
                    head_stats(gpu, Logits { buffer: work.logits, ..logits }, targets, of_teacher, temperature)?;
                    let kl = work.kl.slice(range.clone());
                    head_distill(gpu, logits, work.logits, [part.lse, work.lse], by_logprob, kl, temperature)?;
                }
            }
            // Each row of the gradient is the first half of the row of the f32 logits.
            let d_logits = Matrix::new(buffer.as_bf16(), len, vocab).with_stride(2 * stride);
            let to = d_rows.slice(range.start * hidden..range.end * hidden);
            gpu.blas.product(d_logits, head, Matrix::new(to, len, hidden))?;
        }
        if back {
            let pairs = &pass.pack.pairs;
            ops::scatter_rows(gpu, d_rows, pairs.starts, pairs.by_row, pass.d_hidden, hidden)?;
        }
        let (logprobs, entropies) = (stats.logprob.download(gpu)?, stats.entropy.download(gpu)?);
        let kls = teacher.map_or_else(|| Ok(vec![0.0; count]), |(_, work)| work.kl.download(gpu))?;
        arena.reset(mark);
        let stats = logprobs.into_iter().zip(entropies).zip(kls);
        Ok(stats.map(|((logprob, entropy), kl)| DistillStats { token: TokenStats { logprob, entropy }, kl }).collect())
    }

    fn token_head(&mut self, pack: &Pack, temperature: f32, task: &HeadTask) -> Result<Vec<TokenStats>> {
        Ok(self.head(pack, temperature, task)?.into_iter().map(|stats| stats.token).collect())
    }
}

impl Learner for CudaLearner<'_> {
    fn begin(&mut self, adapter: &Adapter) -> Result<()> {
        self.shared.make_current(adapter)?;
        self.teacher = None;
        let (gpu, _, device, _) = self.parts();
        device.grads.zero(gpu)
    }

    fn forward(&mut self, adapter: Option<&Adapter>, pack: &Pack, keep: Keep) -> Result<()> {
        let (gpu, decoder, _, mut arena) = self.parts();
        self.pass = None;
        let teacher = self.teacher.take();
        match &teacher {
            Some(teacher) => arena.reset(teacher.end),
            None => arena.clear(),
        }
        let adapted = adapter.is_some();
        // After a forward pass, an allocation must not fail: part of the micro-batch could already be in the gradient.
        let (heads, rows) = (decoder.heads(), pack.tokens.len());
        let partial = Tiles::new(&pack.parts, heads.query / heads.kv).partial_len(heads);
        let (layout, pairs) = (decoder.layout(adapted), pack.pairs.len());
        let bytes = match teacher {
            Some(_) => layout.taught_pass_bytes(rows, pairs, partial, keep),
            None => layout.pass_bytes(rows, pairs, partial, keep),
        };
        arena.reserve(metadata_bytes(rows) + bytes.total())?;
        let pack = DevicePack::new(gpu, &mut arena, pack, heads)?;
        let forward = decoder.forward(gpu, &mut arena, adapted, &pack, keep)?;
        let d_hidden = match keep {
            Keep::Nothing => Buffer::NULL,
            _ => arena.take(forward.hidden.len())?,
        };
        let teacher = teacher.map(|teacher| teacher.rows);
        self.pass = Some(Pass { pack, forward, keep, d_hidden, teacher });
        Ok(())
    }

    fn token_stats(&mut self, pack: &Pack, temperature: f32) -> Result<Vec<TokenStats>> {
        self.token_head(pack, temperature, &HeadTask::Statistics)
    }

    fn head_backward(
        &mut self,
        pack: &Pack,
        temperature: f32,
        coefficients: &[f32],
        entropy: f32,
    ) -> Result<Vec<TokenStats>> {
        self.token_head(pack, temperature, &HeadTask::Gradient(coefficients, entropy))
    }

    fn teach(&mut self, pack: &Pack) -> Result<()> {
        let (gpu, decoder, _, mut arena) = self.parts();
        (self.pass, self.teacher) = (None, None);
        arena.clear();
        let (layout, heads, rows) = (decoder.layout(false), decoder.heads(), pack.tokens.len());
        let kept = layout.teacher_rows(&mut arena, pack.pairs.len())?;
        let end = arena.mark();
        arena.reserve(layout.prefill_bytes(rows))?;
        let pack = DevicePack::new(gpu, &mut arena, pack, heads)?;
        let forward = decoder.forward(gpu, &mut arena, false, &pack, Keep::Nothing)?;
        let hidden = decoder.config.hidden_size;
        ops::gather_rows(gpu, forward.hidden, pack.pairs.rows, kept, hidden)?;
        self.teacher = Some(TeacherPass { rows: kept, end });
        Ok(())
    }

    fn distill_backward(&mut self, pack: &Pack, temperature: f32, weights: &[f32]) -> Result<Vec<DistillStats>> {
        self.head(pack, temperature, &HeadTask::Distill(weights))
    }

    fn backward(&mut self, _adapter: &Adapter, _pack: &Pack) -> Result<()> {
        let (gpu, decoder, device, mut arena) = self.parts();
        let Pass { pack, forward, keep, d_hidden, .. } = self.pass.take().context("there was no forward pass")?;
        let done = decoder.backward(gpu, &mut arena, device, &pack, &forward, keep, d_hidden);
        // Part of it may be in the gradient now, so this must not be an `OutOfMemory`, which would be retried in
        // halves.
        done.map_err(|error| anyhow!("backward pass: {error:#}"))
    }

    fn gradient(&mut self) -> Result<Vec<f32>> {
        let (gpu, _, device, _) = self.parts();
        device.grads.download(gpu)
    }

    fn gradient_norm(&mut self, _adapter: &Adapter) -> Result<f64> {
        let (gpu, _, device, _) = self.parts();
        device.gradient_norm(gpu)
    }

    fn step(
        &mut self,
        adapter: &mut Adapter,
        adamw: &mut AdamW,
        hyper: &Hyper,
        max_norm: f64,
    ) -> Result<LargestChange> {
        let (gpu, decoder, device, _) = self.parts();
        // The first step of a run, from scratch or from a checkpoint.
        if self.moments_at != Some(adamw.step) {
            device.load_moments(gpu, adamw)?;
        }
        device.optimizer_step(gpu, hyper, max_norm)?;
        device.write_beside(gpu, &decoder.frozen)?;
        adamw.step += 1;
        self.moments_at = Some(adamw.step);
        device.fetch(gpu, adapter)
    }

    fn moments(&mut self, adamw: &mut AdamW) -> Result<()> {
        // Before the first step, and after the user of this learner has gone back to an earlier one, the host's moments are
        // the current ones.
        if self.moments_at != Some(adamw.step) {
            return Ok(());
        }
        let (gpu, _, device, _) = self.parts();
        device.moments(gpu, adamw)
    }

    /// Weights, adapter, and the part of the arena that was in use at its peak, without CUDA's own memory.
    fn peak_memory(&self) -> Option<u64> {
        let (_, decoder, device, arena) = self.parts();
        Some((decoder.frozen.bytes() + device.bytes() + arena.peak()) as u64)
    }
}
