//! The decoder on the device: a packed micro-batch forward and back, block by block, as `model::decoder` does it on the CPU.
//!
//! The residual stream is bf16, and products that end in it are accumulated into it by the product itself (beta = 1), so
//! that a sum is rounded once.

use super::Gpu;
use super::adapter::{DeviceAdapter, Lora};
use super::blas::Matrix;
use super::lora::{Group, Scratch};
use super::memory::{Arena, Buffer};
use super::ops;
use super::pack::DevicePack;
use super::weights::{Block, Frozen, Linear, Origin};
use crate::device::memory::layout::{Backward, BlockWork, Cache, Forward, Layout, Saved};
use crate::grpo::learner::Keep;
use crate::model::config::ModelConfig;
use crate::ops::attention::Heads;
use anyhow::Result;
use half::bf16;

/// A decoder whose weights are on the device.
pub struct Decoder {
    pub config: ModelConfig,
    pub frozen: Frozen,
}

/// The tokens of a pass.
#[derive(Clone, Copy)]
pub struct Tokens {
    /// (rows)
    pub ids: Buffer<i32>,
    pub positions: Buffer<i32>,
}

/// Where a block puts its keys and values: row r's at slot `slots[r]`, cell `cells[r]`.
#[derive(Clone, Copy)]
pub struct KeyStore {
    pub cache: Cache,
    pub slots: Buffer<i32>,
    pub cells: Buffer<i32>,
}

impl KeyStore {
    const NOWHERE: KeyStore = KeyStore {
        cache: Cache { keys: Buffer::NULL, values: Buffer::NULL, capacity: 0 },
        slots: Buffer::NULL,
        cells: Buffer::NULL,
    };
}

impl Decoder {
    pub fn load(gpu: &Gpu, config: ModelConfig, origin: &Origin, positions: usize) -> Result<Self> {
        let frozen = Frozen::load(gpu, &config, origin, positions)?;
        Ok(Self { config, frozen })
    }

    pub fn heads(&self) -> Heads {
        self.config.heads()
    }

    /// As far as memory goes.
    pub fn layout<'a>(&'a self, adapter: Option<&'a DeviceAdapter>) -> Layout<'a> {
        Layout { config: &self.config, lora: adapter.map(|adapter| adapter.block(0).shape()) }
    }

    pub fn eps(&self) -> f32 {
        self.config.rms_norm_eps as f32
    }

    /// The forward pass of a packed micro-batch, in memory from `arena`.
    pub fn forward(
        &self,
        gpu: &Gpu,
        arena: &mut Arena,
        adapter: Option<&DeviceAdapter>,
        pack: &DevicePack,
        keep: Keep,
    ) -> Result<Forward> {
        let pass = self.layout(adapter).forward(arena, pack.rows, keep)?;
        let scratch = &mut Scratch::Arena(arena);
        self.through_blocks(
            gpu,
            scratch,
            adapter,
            pack.tokens(),
            &pass,
            |_| KeyStore::NOWHERE,
            self.branches(gpu, pack),
        )?;
        arena.reset(pass.kept);
        Ok(pass)
    }

    /// Hidden rows after the last norm of packed prompts, whose keys and values go to the caches of the blocks: row r's to slot
    /// `slots[r]`, cell `cells[r]`. They lie in memory from `arena`.
    #[allow(clippy::too_many_arguments, reason = "the device, its memory, and where everything goes")]
    pub fn prefill(
        &self,
        gpu: &Gpu,
        arena: &mut Arena,
        adapter: Option<&DeviceAdapter>,
        pack: &DevicePack,
        caches: &[Cache],
        slots: Buffer<i32>,
        cells: Buffer<i32>,
    ) -> Result<Buffer<bf16>> {
        let pass = self.layout(adapter).forward(arena, pack.rows, Keep::Nothing)?;
        let store = |i: usize| KeyStore { cache: caches[i], slots, cells };
        let scratch = &mut Scratch::Arena(arena);
        self.through_blocks(gpu, scratch, adapter, pack.tokens(), &pass, store, self.branches(gpu, pack))?;
        Ok(pass.hidden)
    }

    /// Attention over the rows themselves: each sees its group's prompt and its own branch.
    fn branches(&self, gpu: &Gpu, pack: &DevicePack) -> impl Fn(usize, &Saved) -> Result<()> {
        let heads = self.heads();
        move |_, saved| ops::branch_attention(gpu, saved.qkv, saved.attended, saved.lse, pack, heads)
    }

    /// From the tokens to the hidden rows after the last norm. `attend` is given a block's index and its q, k and v with
    /// positions applied, and leaves what attention gives: over a cache, or over the rows themselves.
    #[allow(clippy::too_many_arguments, reason = "the device, its memory, and where everything goes")]
    pub fn through_blocks(
        &self,
        gpu: &Gpu,
        scratch: &mut Scratch,
        adapter: Option<&DeviceAdapter>,
        tokens: Tokens,
        pass: &Forward,
        store: impl Fn(usize) -> KeyStore,
        attend: impl Fn(usize, &Saved) -> Result<()>,
    ) -> Result<()> {
        let (rows, hidden, layers) = (tokens.ids.len(), self.config.hidden_size, self.frozen.blocks.len());
        ops::gather_rows(gpu, self.frozen.embedding, tokens.ids, pass.streams[0], hidden)?;
        for (i, block) in self.frozen.blocks.iter().enumerate() {
            let lora = adapter.map(|adapter| adapter.block(i));
            let (x, out, saved) = (pass.streams[i], pass.streams[i + 1], &pass.saved[i]);
            let attend = |saved: &Saved| attend(i, saved);
            self.block_forward(gpu, scratch, block, lora, tokens, x, out, saved, &pass.work, store(i), attend)?;
        }
        let last = pass.streams[layers];
        ops::rms_norm(gpu, last, self.frozen.norm, pass.hidden, pass.scales, rows, hidden, self.eps())
    }

    /// Adds the adapter's gradients, from that of the hidden rows of `pass`, which kept what `keep` says and is overwritten.
    #[allow(clippy::too_many_arguments, reason = "the device, its memory, and the operands of the chain rule")]
    pub fn backward(
        &self,
        gpu: &Gpu,
        arena: &mut Arena,
        adapter: &DeviceAdapter,
        pack: &DevicePack,
        pass: &Forward,
        keep: Keep,
        d_hidden: Buffer<bf16>,
    ) -> Result<()> {
        assert!(keep != Keep::Nothing, "a backward pass needs a forward pass that kept something");
        let (rows, hidden, layers) = (pack.rows, self.config.hidden_size, self.frozen.blocks.len());
        let back = self.layout(Some(adapter)).backward(arena, rows, keep)?;
        back.dx.zero(gpu)?;
        let last = pass.streams[layers];
        ops::rms_norm_backward(gpu, d_hidden, last, pass.scales, self.frozen.norm, back.dx, rows, hidden)?;
        for (i, block) in self.frozen.blocks.iter().enumerate().rev() {
            let (lora, input) = (adapter.block(i), pass.streams[i]);
            let saved = match &back.again {
                Some((out, saved, work)) => {
                    let (scratch, nowhere) = (&mut Scratch::Arena(arena), KeyStore::NOWHERE);
                    let (lora, tokens, attend) = (Some(lora), pack.tokens(), self.branches(gpu, pack));
                    let attend = |saved: &Saved| attend(i, saved);
                    self.block_forward(gpu, scratch, block, lora, tokens, input, *out, saved, work, nowhere, attend)?;
                    saved
                }
                None => &pass.saved[i],
            };
            self.block_backward(gpu, arena, block, lora, pack, input, saved, &back)?;
        }
        Ok(())
    }

    /// `x` (rows, hidden) -> `out` (rows, hidden), and what the backward needs in `saved`.
    #[allow(clippy::too_many_arguments, reason = "the device, its memory, and the operands of a block")]
    fn block_forward(
        &self,
        gpu: &Gpu,
        scratch: &mut Scratch,
        block: &Block,
        lora: Option<Lora>,
        tokens: Tokens,
        x: Buffer<bf16>,
        out: Buffer<bf16>,
        saved: &Saved,
        work: &BlockWork,
        store: KeyStore,
        attend: impl FnOnce(&Saved) -> Result<()>,
    ) -> Result<()> {
        let (rows, heads, config) = (tokens.ids.len(), self.heads(), &self.config);
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let BlockWork { normed, activated } = *work;
        let mut adapted = |layer: &Linear, lora: Option<Group>, x, y, low, accumulate| {
            adapted(gpu, scratch, layer, lora, x, rows, y, low, accumulate)
        };

        ops::rms_norm(gpu, x, block.input_norm, normed, saved.input_scales, rows, hidden, self.eps())?;
        adapted(&block.qkv, lora.map(|lora| lora.qkv), normed, saved.qkv, saved.qkv_low, false)?;
        if config.qk_norm {
            ops::qk_norm(gpu, saved.qkv, block.qk_norm, saved.unnormed, rows, heads, self.eps())?;
        }
        let KeyStore { cache, slots, cells } = store;
        let (bias, rope) = (block.qkv_bias, self.frozen.rope);
        ops::qkv_rope(gpu, saved.qkv, bias, rope, tokens.positions, cache, slots, cells, rows, heads)?;
        attend(saved)?;

        saved.middle.copy_from(gpu, x.slice(0..rows * hidden))?;
        adapted(&block.o, lora.map(|lora| lora.o), saved.attended, saved.middle, saved.o_low, true)?;
        ops::rms_norm(gpu, saved.middle, block.post_norm, normed, saved.middle_scales, rows, hidden, self.eps())?;
        adapted(&block.gate_up, lora.map(|it| it.gate_up), normed, saved.gate_up, saved.gate_up_low, false)?;
        ops::swiglu(gpu, saved.gate_up, activated, rows, inner)?;
        out.copy_from(gpu, saved.middle.slice(0..rows * hidden))?;
        adapted(&block.down, lora.map(|lora| lora.down), activated, out, saved.down_low, true)
    }

    /// Turns the gradient of the block's output in `back.dx` into that of its input.
    #[allow(clippy::too_many_arguments, reason = "the operands of the chain rule")]
    fn block_backward(
        &self,
        gpu: &Gpu,
        arena: &mut Arena,
        block: &Block,
        lora: Lora,
        pack: &DevicePack,
        input: Buffer<bf16>,
        saved: &Saved,
        back: &Backward,
    ) -> Result<()> {
        let (rows, heads, config) = (pack.rows, self.heads(), &self.config);
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let Backward { dx: d, normed, d_normed, activated, d_activated, d_attended, d_qkv, .. } = *back;

        ops::swiglu(gpu, saved.gate_up, activated, rows, inner)?;
        adapted_backward(gpu, arena, &block.down, lora.down, activated, saved.down_low, d, rows, d_activated)?;
        // The gradient takes the place of gate and up: nothing reads them again.
        ops::swiglu_backward(gpu, d_activated, saved.gate_up, rows, inner)?;
        ops::rms_norm_again(gpu, saved.middle, saved.middle_scales, block.post_norm, normed, rows, hidden)?;
        let (low, d_gate_up) = (saved.gate_up_low, saved.gate_up);
        adapted_backward(gpu, arena, &block.gate_up, lora.gate_up, normed, low, d_gate_up, rows, d_normed)?;
        ops::rms_norm_backward(gpu, d_normed, saved.middle, saved.middle_scales, block.post_norm, d, rows, hidden)?;

        adapted_backward(gpu, arena, &block.o, lora.o, saved.attended, saved.o_low, d, rows, d_attended)?;
        ops::branch_attention_backward(
            gpu,
            arena,
            saved.qkv,
            saved.attended,
            saved.lse,
            d_attended,
            d_qkv,
            pack,
            heads,
        )?;
        ops::qkv_rope_backward(gpu, d_qkv, self.frozen.rope, pack.positions, rows, heads)?;
        if config.qk_norm {
            ops::qk_norm_backward(gpu, d_qkv, block.qk_norm, saved.unnormed, rows, heads, self.eps())?;
        }
        ops::rms_norm_again(gpu, input, saved.input_scales, block.input_norm, normed, rows, hidden)?;
        adapted_backward(gpu, arena, &block.qkv, lora.qkv, normed, saved.qkv_low, d_qkv, rows, d_normed)?;
        ops::rms_norm_backward(gpu, d_normed, input, saved.input_scales, block.input_norm, d, rows, hidden)
    }
}

/// A frozen layer and its adapter: `y` (rows, outputs), added to what is there where `accumulate`.
#[allow(clippy::too_many_arguments, reason = "the operands of a product and its adapter's")]
fn adapted(
    gpu: &Gpu,
    scratch: &mut Scratch,
    layer: &Linear,
    lora: Option<Group>,
    x: Buffer<bf16>,
    rows: usize,
    y: Buffer<bf16>,
    low: Buffer<bf16>,
    accumulate: bool,
) -> Result<()> {
    match lora {
        // The adapter writes and the large product adds itself on top: one reading of y less than the other way round.
        Some(lora) if lora.covers() => {
            lora.forward(gpu, scratch, x, rows, y, low, accumulate)?;
            linear(gpu, layer, x, y, rows, true)
        }
        Some(lora) => {
            linear(gpu, layer, x, y, rows, accumulate)?;
            lora.forward(gpu, scratch, x, rows, y, low, true)
        }
        None => linear(gpu, layer, x, y, rows, accumulate),
    }
}

/// `y = x · Wᵀ`, or `y += x · Wᵀ`: (rows, inputs) -> (rows, outputs).
fn linear(gpu: &Gpu, linear: &Linear, x: Buffer<bf16>, y: Buffer<bf16>, rows: usize, accumulate: bool) -> Result<()> {
    let weight = Matrix::new(linear.weight, linear.outputs, linear.inputs);
    gpu.blas.product(Matrix::new(x, rows, linear.inputs), weight.t(), Matrix::new(y, rows, linear.outputs), accumulate)
}

/// Writes the gradient `dx` (rows, inputs) of the input and adds the adapter's gradient. The weights are frozen and get none.
#[allow(clippy::too_many_arguments, reason = "the operands of a product rule")]
fn adapted_backward(
    gpu: &Gpu,
    arena: &mut Arena,
    layer: &Linear,
    lora: Group,
    x: Buffer<bf16>,
    low: Buffer<bf16>,
    dy: Buffer<bf16>,
    rows: usize,
    dx: Buffer<bf16>,
) -> Result<()> {
    // As in `adapted`: dx = dy · W is added on top by the product itself.
    let written = lora.backward(gpu, arena, x, low, dy, rows, dx)?;
    let weight = Matrix::new(layer.weight, layer.outputs, layer.inputs);
    gpu.blas.product(Matrix::new(dy, rows, layer.outputs), weight, Matrix::new(dx, rows, layer.inputs), written)
}
