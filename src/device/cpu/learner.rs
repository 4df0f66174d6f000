//! Training on the CPU.

use super::decoder::{Activations, CpuDecoder};
use crate::device::memory::machine;
use crate::grpo::adamw::{AdamW, Hyper, LargestChange, clip_scale, global_norm};
use crate::grpo::learner::{Keep, Learner, lora_b};
use crate::model::lora::Adapter;
use crate::model::pack::Pack;
use crate::ops::distill::DistillStats;
use crate::ops::head::{TokenGrad, TokenStats};
use anyhow::Result;

/// Trains on the CPU, in f32.
pub struct CpuLearner<'a> {
    decoder: &'a CpuDecoder,
    grads: Vec<f32>,
    norm: f64,
    /// The last forward pass, with the gradient of its hidden rows.
    pass: Option<(Activations, Vec<f32>)>,
    /// The teacher's hidden rows: (pairs, hidden)
    teacher: Vec<f32>,
}

impl<'a> CpuLearner<'a> {
    pub fn new(decoder: &'a CpuDecoder) -> Self {
        Self { decoder, grads: Vec::new(), norm: 0.0, pass: None, teacher: Vec::new() }
    }

    fn pass(&mut self) -> &mut (Activations, Vec<f32>) {
        self.pass.as_mut().expect("a forward pass came before")
    }
}

impl Learner for CpuLearner<'_> {
    fn begin(&mut self, adapter: &Adapter) -> Result<()> {
        self.grads.clear();
        self.grads.resize(adapter.params.len(), 0.0);
        Ok(())
    }

    fn forward(&mut self, adapter: Option<&Adapter>, pack: &Pack, keep: Keep) -> Result<()> {
        let activations = self.decoder.forward(adapter, pack, keep);
        let d_hidden = vec![0.0; if keep == Keep::Nothing { 0 } else { activations.hidden.len() }];
        self.pass = Some((activations, d_hidden));
        Ok(())
    }

    fn token_stats(&mut self, pack: &Pack, temperature: f32) -> Result<Vec<TokenStats>> {
        let head = self.decoder.head();
        Ok(head.forward(&self.pass().0.hidden, &pack.pairs, temperature))
    }

    fn head_backward(
        &mut self,
        pack: &Pack,
        temperature: f32,
        coefficients: &[f32],
        entropy: f32,
    ) -> Result<Vec<TokenStats>> {
        let decoder = self.decoder;
        let (activations, d_hidden) = self.pass();
        let grad = |i: usize, _| TokenGrad { logprob: coefficients[i], entropy };
        let stats = decoder.head().backward(&activations.hidden, &pack.pairs, temperature, grad, d_hidden);
        decoder.precision.round(d_hidden);
        Ok(stats)
    }

    fn teach(&mut self, pack: &Pack) -> Result<()> {
        let activations = self.decoder.forward(None, pack, Keep::Nothing);
        self.teacher = self.decoder.head().gather(&activations.hidden, &pack.pairs);
        Ok(())
    }

    fn distill_backward(&mut self, pack: &Pack, temperature: f32, weights: &[f32]) -> Result<Vec<DistillStats>> {
        let (decoder, teacher) = (self.decoder, std::mem::take(&mut self.teacher));
        let (activations, d_hidden) = self.pass();
        let stats = decoder.head().distill(&activations.hidden, &pack.pairs, &teacher, temperature, weights, d_hidden);
        decoder.precision.round(d_hidden);
        Ok(stats)
    }

    fn backward(&mut self, adapter: &Adapter, pack: &Pack) -> Result<()> {
        let (activations, d_hidden) = self.pass.take().expect("a forward pass came before");
        self.decoder.backward(adapter, pack, activations, &d_hidden, &mut self.grads);
        Ok(())
    }

    fn gradient(&mut self) -> Result<Vec<f32>> {
        Ok(self.grads.clone())
    }

    fn gradient_norm(&mut self, adapter: &Adapter) -> Result<f64> {
        self.norm = global_norm(&self.grads, &adapter.ranges());
        Ok(self.norm)
    }

    fn step(
        &mut self,
        adapter: &mut Adapter,
        adamw: &mut AdamW,
        hyper: &Hyper,
        max_norm: f64,
    ) -> Result<LargestChange> {
        let (watched, scale) = (lora_b(adapter), clip_scale(self.norm, max_norm));
        Ok(adamw.step_and_measure(&mut adapter.params, &self.grads, hyper, scale, &watched))
    }

    fn moments(&mut self, _adamw: &mut AdamW) -> Result<()> {
        Ok(())
    }

    fn peak_memory(&self) -> Option<u64> {
        machine::peak_resident()
    }
}
