//! What an update asks of a device: passes of packed micro-batches, and the optimiser's step.
//!
//! The gradient pass, the objectives and the training loop are written once, against [`Learner`]; each device in
//! `crate::device` implements it.

use super::adamw::{AdamW, Hyper};
use crate::model::lora::Adapter;
use crate::model::pack::Pack;
use crate::ops::head::TokenStats;
use anyhow::Result;
use indicatif::HumanBytes;

/// A model on a device, with the gradient of an adapter and what the optimiser remembers.
///
/// The adapter lives on the host too, as checkpoints and the log need it: [`Learner::step`] leaves both the same. The order
/// of calls is `begin`, then for each micro-batch `forward`, `token_stats` where the coefficients depend on them,
/// `head_backward` and `backward`, then `gradient_norm` and `step`.
pub trait Learner {
    /// Starts an update of `adapter` with a gradient of zero.
    fn begin(&mut self, adapter: &Adapter) -> Result<()>;

    /// The forward pass of `pack`, with the adapter or without, which keeps what `keep` says.
    ///
    /// # Errors
    /// [`OutOfMemory`] where a smaller pack might do; nothing has been added to the gradient then.
    fn forward(&mut self, adapter: Option<&Adapter>, pack: &Pack, keep: Keep) -> Result<()>;

    /// Log-probability and entropy of every pair of the last forward pass.
    fn token_stats(&mut self, pack: &Pack, temperature: f32) -> Result<Vec<TokenStats>>;

    /// The same, and the gradient of the hidden rows where the loss changes by `coefficients` with each pair's log-probability
    /// and by `entropy` with each pair's entropy.
    fn head_backward(
        &mut self,
        pack: &Pack,
        temperature: f32,
        coefficients: &[f32],
        entropy: f32,
    ) -> Result<Vec<TokenStats>>;

    /// Carries the gradient of the hidden rows back through the blocks and adds the adapter's.
    fn backward(&mut self, adapter: &Adapter, pack: &Pack) -> Result<()>;

    /// The gradient so far, laid out as the adapter's parameters.
    fn gradient(&mut self) -> Result<Vec<f32>>;

    /// Euclidean norm of the gradient; not finite where a gradient is not.
    fn gradient_norm(&mut self, adapter: &Adapter) -> Result<f64>;

    /// Moves `adapter` along the gradient, whose norm was asked for and is clipped to `max_norm` (0: not clipped).
    /// `adamw.step` counts on; its moments may lag behind until [`Learner::moments`].
    fn step(&mut self, adapter: &mut Adapter, adamw: &mut AdamW, hyper: &Hyper, max_norm: f64) -> Result<()>;

    /// Brings the moments of `adamw` up to date, for a checkpoint.
    fn moments(&mut self, adamw: &mut AdamW) -> Result<()>;
}

/// What of a forward pass is kept for the backward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    Nothing,
    /// Each block's input: the block is computed again in the backward (gradient checkpointing).
    Inputs,
    Everything,
}

/// A batch does not fit the device's memory.
#[derive(Debug, thiserror::Error)]
#[error("{} of GPU memory are needed, {} are free", HumanBytes(*wanted as u64), HumanBytes(*left as u64))]
pub struct OutOfMemory {
    pub wanted: usize,
    pub left: usize,
}
