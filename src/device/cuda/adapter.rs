//! The adapter on the device: master weights, gradient and moments in f32. Products read a bf16 copy of the weights,
//! which is stored next to the frozen weights.

use super::Gpu;
use super::launch::{Argument, LaunchShape, launch};
use super::memory::{Buffer, DeviceArena};
use super::weights::Frozen;
use crate::device::memory::layout::{CHUNK, adapter_bytes};
use crate::grpo::adamw::{AdamW, Hyper, LargestChange};
use crate::grpo::learner::lora_b;
use crate::model::lora::{Adapter, BlockLora};
use anyhow::{Context, Result};
use rayon::prelude::*;
use std::cell::RefCell;

/// All buffers have the layout of the host's `Adapter::params`.
pub struct DeviceAdapter {
    pub blocks: Vec<BlockLora>,
    pub params: Buffer<f32>,
    pub grads: Buffer<f32>,
    m: Buffer<f32>,
    v: Buffer<f32>,
    /// Sums of squares by chunk, f64 as pairs of words.
    partial: Buffer<u64>,
    norm: Buffer<u64>,
    /// Number of applied updates, number of skipped updates, whether the last one was applied.
    step: Buffer<u32>,
    constants: Buffer<f32>,
    /// The host's copy of the weights on the device.
    current: RefCell<Vec<f32>>,
    arena: DeviceArena,
}

impl DeviceAdapter {
    /// Memory for an adapter of this shape; [`DeviceAdapter::upload`] fills it.
    pub fn new(gpu: &Gpu, adapter: &Adapter) -> Result<Self> {
        let len = adapter.params.len();
        let chunks = len.div_ceil(CHUNK);
        let mut arena = DeviceArena::new(gpu, adapter_bytes(len), "the adapter")?;
        Ok(Self {
            blocks: adapter.blocks.clone(),
            params: arena.take(len)?,
            grads: arena.take(len)?,
            m: arena.take(len)?,
            v: arena.take(len)?,
            partial: arena.take(chunks)?,
            norm: arena.take(1)?,
            step: arena.take(3)?,
            constants: arena.take(4)?,
            current: RefCell::default(),
            arena,
        })
    }

    /// Bytes of device memory of the adapter and its optimizer.
    pub fn bytes(&self) -> usize {
        self.arena.peak()
    }

    /// Copies weights to the device, unless they are already there. Returns whether it did.
    pub fn upload(&self, gpu: &Gpu, adapter: &Adapter) -> Result<bool> {
        let mut current = self.current.borrow_mut();
        let same = |(a, b): (&[f32], &[f32])| a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits());
        let pieces = current.par_chunks(CHUNK).zip(adapter.params.par_chunks(CHUNK));
        if current.len() == adapter.params.len() && pieces.all(same) {
            return Ok(false);
        }
        current.clone_from(&adapter.params);
        self.params.upload(gpu, &adapter.params)?;
        Ok(true)
    }

    /// Writes the weights next to the frozen ones, where products read them.
    pub fn write_beside(&self, gpu: &Gpu, frozen: &Frozen) -> Result<()> {
        for (block, lora) in frozen.blocks.iter().zip(&self.blocks) {
            block.qkv.write_lora(gpu, &lora.qkv, self.params)?;
            block.o.write_lora(gpu, &lora.o, self.params)?;
            block.gate_up.write_lora(gpu, &lora.gate_up, self.params)?;
            block.down.write_lora(gpu, &lora.down, self.params)?;
        }
        Ok(())
    }

    /// Copies moments to the device.
    pub fn load_moments(&self, gpu: &Gpu, adamw: &AdamW) -> Result<()> {
        self.m.upload(gpu, &adamw.m)?;
        self.v.upload(gpu, &adamw.v)?;
        self.step.upload(gpu, &[u32::try_from(adamw.step).context("count the steps")?, 0, 0])?;
        gpu.synchronize()
    }

    /// Copies the weights to the host, and returns their largest change.
    pub fn fetch(&self, gpu: &Gpu, adapter: &mut Adapter) -> Result<LargestChange> {
        let params = self.params.download(gpu)?;
        let change = LargestChange::between(&adapter.params, &params, &lora_b(adapter));
        adapter.params = params;
        self.current.borrow_mut().clone_from(&adapter.params);
        Ok(change)
    }

    /// The current moments.
    pub fn moments(&self, gpu: &Gpu, adamw: &mut AdamW) -> Result<()> {
        adamw.m = self.m.download(gpu)?;
        adamw.v = self.v.download(gpu)?;
        Ok(())
    }

    /// Launches the sum of the gradient's squares, waits for it, and returns the norm.
    pub fn gradient_norm(&self, gpu: &Gpu) -> Result<f64> {
        let len = self.grads.len();
        let chunks = len.div_ceil(CHUNK);
        // SAFETY: a block per chunk of the gradient.
        unsafe {
            launch!(
                gpu, "adamw_squares", LaunchShape::new(chunks, 512);
                self.grads.at_least(len), self.partial.at_least(chunks).written(), len as u64
            )?;
        }
        let partial = self.partial.download(gpu)?;
        Ok(partial.into_iter().map(f64::from_bits).sum::<f64>().sqrt())
    }

    /// One step of AdamW with the gradient whose squares were summed last. The weights that products read do not change
    /// until [`DeviceAdapter::write_beside`].
    pub fn optimizer_step(&self, gpu: &Gpu, hyper: &Hyper, max_norm: f64) -> Result<()> {
        let len = self.params.len();
        let chunks = self.partial.len();
        let [params, grads, m, v] = [self.params, self.grads, self.m, self.v].map(|buffer| buffer.at_least(len));
        let (step, constants) = (self.step.at_least(3), self.constants.at_least(4));
        let [params, m, v] = [params, m, v].map(Argument::updated);
        // SAFETY: one block reads the sums of all chunks; a thread per 8 values updates them.
        unsafe {
            launch!(
                gpu, "adamw_prepare", LaunchShape::new(1, 1024);
                self.partial.at_least(chunks), chunks, self.norm.at_least(1).written(), step.updated(), constants.written(), hyper.lr, hyper.beta1,
                hyper.beta2, hyper.weight_decay, max_norm
            )?;
            launch!(
                gpu, "adamw_update", LaunchShape::new(len.div_ceil(8 * 256), 256);
                params, grads, m, v, step, constants, hyper.beta1, hyper.beta2, hyper.eps as f32, len as u64
            )
        }
    }
}
