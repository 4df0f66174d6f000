//! The interface that an update needs from a device: passes of packed micro-batches, and the optimizer's step.
//!
//! The gradient pass, the objectives and the training loop are written once, for [`Learner`]; each device in
//! `crate::device` implements it.

use super::adamw::{AdamW, Hyper, LargestChange};
use crate::model::lora::Adapter;
use crate::model::pack::Pack;
use crate::ops::distill::DistillStats;
use crate::ops::head::TokenStats;
use anyhow::Result;
use indicatif::HumanBytes;
use std::ops::Range;

/// A model on a device, with the gradient of an adapter and the optimizer's moments.
///
/// The adapter is on the host too, for checkpoints and the log: [`Learner::step`] keeps both equal. The order of calls
/// is `begin`, then for each micro-batch `forward`, `token_stats` if the coefficients depend on them,
/// `head_backward` and `backward`, then `gradient_norm` and `step`. To distill, `teach` comes before `forward`, and
/// `distill_backward` replaces `head_backward`.
pub trait Learner {
    /// Starts an update of `adapter` with a gradient of zero.
    fn begin(&mut self, adapter: &Adapter) -> Result<()>;

    /// The forward pass of `pack`, with the adapter or without. It keeps the values that `keep` requires.
    ///
    /// # Errors
    /// [`OutOfMemory`] if a smaller pack might fit; nothing has been added to the gradient then.
    fn forward(&mut self, adapter: Option<&Adapter>, pack: &Pack, keep: Keep) -> Result<()>;

    /// Log-probability and entropy of every pair of the last forward pass.
    fn token_stats(&mut self, pack: &Pack, temperature: f32) -> Result<Vec<TokenStats>>;

    /// The same, and the gradient of the hidden rows, if the derivative of the loss is `coefficients` for each pair's
    /// log-probability and `entropy` for each pair's entropy.
    fn head_backward(
        &mut self,
        pack: &Pack,
        temperature: f32,
        coefficients: &[f32],
        entropy: f32,
    ) -> Result<Vec<TokenStats>>;

    /// The forward pass of the teacher, which has no adapter. The hidden rows of its pairs are kept until the backward pass of the
    /// next pack, whose pairs must have the same targets in the same order.
    ///
    /// # Errors
    /// As [`Learner::forward`].
    fn teach(&mut self, pack: &Pack) -> Result<()>;

    /// As [`Learner::head_backward`], for a loss that is the sum over the pairs of `weights` times the divergence from the teacher.
    fn distill_backward(&mut self, pack: &Pack, temperature: f32, weights: &[f32]) -> Result<Vec<DistillStats>>;

    /// Backpropagates the gradient of the hidden rows through the blocks and adds the adapter's gradient.
    fn backward(&mut self, adapter: &Adapter, pack: &Pack) -> Result<()>;

    /// The gradient so far, in the layout of the adapter's parameters.
    fn gradient(&mut self) -> Result<Vec<f32>>;

    /// Euclidean norm of the gradient; not finite if a gradient is not.
    fn gradient_norm(&mut self, adapter: &Adapter) -> Result<f64>;

    /// Updates `adapter` with the gradient, clipped to `max_norm` (0: not clipped). [`Learner::gradient_norm`] comes
    /// first. `adamw.step` is increased; its moments may be outdated until [`Learner::moments`]. Returns the largest change
    /// of a parameter, in all and in those of [`lora_b`].
    fn step(&mut self, adapter: &mut Adapter, adamw: &mut AdamW, hyper: &Hyper, max_norm: f64)
    -> Result<LargestChange>;

    /// Copies the moments after step `adamw.step` to `adamw`, for a checkpoint.
    fn moments(&mut self, adamw: &mut AdamW) -> Result<()>;

    /// Peak of the device's memory that the run has used so far, in bytes; `None` if it is unknown.
    fn peak_memory(&self) -> Option<u64>;
}

/// The ranges of all B of the adapter, in ascending order.
pub fn lora_b(adapter: &Adapter) -> Vec<Range<usize>> {
    let b = adapter.slots.iter().filter(|(name, _)| name.contains(".lora_B."));
    let mut ranges: Vec<Range<usize>> = b.map(|(_, slot)| slot.range.clone()).collect();
    ranges.sort_unstable_by_key(|range| range.start);
    ranges
}

/// What a forward pass keeps for the backward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    Nothing,
    /// Each block's input: the block is recomputed in the backward pass (gradient checkpointing).
    Inputs,
    Everything,
}

/// A batch does not fit in the device's memory.
#[derive(Debug, thiserror::Error)]
#[error("{} of GPU memory are needed, {} are free", HumanBytes(*wanted as u64), HumanBytes(*left as u64))]
pub struct OutOfMemory {
    pub wanted: usize,
    pub left: usize,
}
