//! The decoder on the device: the forward and backward of a packed micro-batch, block by block, as in
//! `device::cpu::decoder`.
//!
//! The residual stream is bf16, and the products whose result is added to it add its previous value (beta = 1), so that
//! a sum is rounded only once.

use super::Gpu;
use super::adapter::DeviceAdapter;
use super::matrix::Matrix;
use super::memory::{Arena, Buffer};
use super::ops;
use super::pack::{DevicePack, Tokens};
use super::weights::{CudaBlock, CudaLinear, Frozen, WeightOrigin};
use crate::device::memory::layout::{Backward, BlockBuffers, BlockWork, Cache, Forward, MemoryLayout, StridedRows};
use crate::device::memory::lora::LoraColumns;
use crate::grpo::learner::Keep;
use crate::model::config::ModelConfig;
use crate::model::lora::BlockLora;
use crate::ops::attention::Heads;
use anyhow::Result;
use half::bf16;

/// A decoder whose weights are on the device.
pub struct CudaDecoder {
    pub config: ModelConfig,
    pub frozen: Frozen,
    /// The columns next to the weights for an adapter.
    lora: LoraColumns,
}

/// Where a block stores its keys and values: row r's at slot `slots[r]`, cell `cells[r]`.
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

impl CudaDecoder {
    /// Loads a decoder for sequences of up to `positions` tokens, with room for an adapter of these columns.
    pub fn load(
        gpu: &Gpu,
        config: ModelConfig,
        origin: &WeightOrigin,
        positions: usize,
        lora: LoraColumns,
    ) -> Result<Self> {
        let frozen = Frozen::load(gpu, &config, origin, positions, lora)?;
        Ok(Self { config, frozen, lora })
    }

    pub fn heads(&self) -> Heads {
        self.config.heads()
    }

    /// The sizes that determine its memory, with or without the adapter.
    pub fn layout(&self, adapted: bool) -> MemoryLayout<'_> {
        MemoryLayout { config: &self.config, lora: if adapted { self.lora } else { LoraColumns::default() } }
    }

    pub fn eps(&self) -> f32 {
        self.config.rms_norm_eps as f32
    }

    /// The forward pass of a packed micro-batch, in memory from `arena`.
    pub fn forward(
        &self,
        gpu: &Gpu,
        arena: &mut Arena,
        adapted: bool,
        pack: &DevicePack,
        keep: Keep,
    ) -> Result<Forward> {
        let pass = self.layout(adapted).forward(arena, pack.rows, keep)?;
        let attend = self.completions(gpu, pack);
        self.through_blocks(gpu, adapted, pack.tokens(), &pass, |_| KeyStore::NOWHERE, attend)?;
        arena.reset(pass.kept);
        Ok(pass)
    }

    /// Hidden rows after the last norm of packed prompts, whose keys and values are written to the caches of the
    /// blocks: row r's at slot `slots[r]`, cell `cells[r]`. The hidden rows are in memory from `arena`.
    #[allow(clippy::too_many_arguments, reason = "the device, its memory, and all outputs")]
    pub fn prefill(
        &self,
        gpu: &Gpu,
        arena: &mut Arena,
        adapted: bool,
        pack: &DevicePack,
        caches: &[Cache],
        slots: Buffer<i32>,
        cells: Buffer<i32>,
    ) -> Result<Buffer<bf16>> {
        let pass = self.layout(adapted).forward(arena, pack.rows, Keep::Nothing)?;
        let store = |i: usize| KeyStore { cache: caches[i], slots, cells };
        self.through_blocks(gpu, adapted, pack.tokens(), &pass, store, self.completions(gpu, pack))?;
        Ok(pass.hidden)
    }

    /// Attention over the rows themselves: each sees its group's prompt and its own completion.
    fn completions(&self, gpu: &Gpu, pack: &DevicePack) -> impl Fn(usize, &BlockBuffers) -> Result<()> {
        let heads = self.heads();
        move |_, saved| ops::branch_attention(gpu, saved.qkv, saved.attended, saved.lse, pack, heads)
    }

    /// From the tokens to the hidden rows after the last norm. `attend` receives a block's index and its q, k and v
    /// with positions applied, and writes the attention outputs: over a cache, or over the rows themselves.
    #[allow(clippy::too_many_arguments, reason = "the device, its memory, and all outputs")]
    pub fn through_blocks(
        &self,
        gpu: &Gpu,
        adapted: bool,
        tokens: Tokens,
        pass: &Forward,
        store: impl Fn(usize) -> KeyStore,
        attend: impl Fn(usize, &BlockBuffers) -> Result<()>,
    ) -> Result<()> {
        let (rows, hidden, layers) = (tokens.ids.len(), self.config.hidden_size, self.frozen.blocks.len());
        ops::gather_rows(gpu, self.frozen.embedding, tokens.ids, pass.streams[0], hidden)?;
        for (i, block) in self.frozen.blocks.iter().enumerate() {
            let (x, out, saved) = (pass.streams[i], pass.streams[i + 1], &pass.saved[i]);
            let attend = |saved: &BlockBuffers| attend(i, saved);
            self.block_forward(gpu, block, adapted, tokens, x, out, saved, &pass.work, store(i), attend)?;
        }
        let last = pass.streams[layers];
        let to = StridedRows::plain(pass.hidden, hidden);
        ops::rms_norm(gpu, last, self.frozen.norm, to, pass.scales, rows, hidden, self.eps())
    }

    /// Adds the adapter's gradients, from those of the hidden rows of `pass`, which kept values as in `keep` and is
    /// overwritten.
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
        assert!(keep != Keep::Nothing, "a backward pass needs the values that a forward pass kept");
        let (rows, hidden, layers) = (pack.rows, self.config.hidden_size, self.frozen.blocks.len());
        let back = self.layout(true).backward(arena, rows, keep)?;
        back.dx.buffer.zero(gpu)?;
        let last = pass.streams[layers];
        ops::rms_norm_backward(gpu, d_hidden, last, pass.scales, self.frozen.norm, back.dx, rows, hidden)?;
        for (i, block) in self.frozen.blocks.iter().enumerate().rev() {
            let (lora, input) = (&adapter.blocks[i], pass.streams[i]);
            let saved = match &back.again {
                Some((out, saved, work)) => {
                    let (tokens, nowhere, attend) = (pack.tokens(), KeyStore::NOWHERE, self.completions(gpu, pack));
                    let attend = |saved: &BlockBuffers| attend(i, saved);
                    self.block_forward(gpu, block, true, tokens, input, *out, saved, work, nowhere, attend)?;
                    saved
                }
                None => &pass.saved[i],
            };
            self.block_backward(gpu, arena, block, lora, adapter.grads, pack, input, saved, &back)?;
        }
        Ok(())
    }

    /// `x` (rows, hidden) -> `out` (rows, hidden), and what the backward needs in `saved`.
    #[allow(clippy::too_many_arguments, reason = "the device, its memory, and the operands of a block")]
    fn block_forward(
        &self,
        gpu: &Gpu,
        block: &CudaBlock,
        adapted: bool,
        tokens: Tokens,
        x: Buffer<bf16>,
        out: Buffer<bf16>,
        saved: &BlockBuffers,
        work: &BlockWork,
        store: KeyStore,
        attend: impl FnOnce(&BlockBuffers) -> Result<()>,
    ) -> Result<()> {
        let (rows, heads, config) = (tokens.ids.len(), self.heads(), &self.config);
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let BlockWork { normed, activated } = *work;
        let plain = |x| StridedRows::plain(x, hidden);
        // The adapter's x·Aᵀ for rows that are overwritten before the backward.
        let keep = |from: StridedRows, layer: &CudaLinear, to: Buffer<bf16>| {
            let columns = if to.is_empty() { 0 } else { layer.lora };
            ops::copy_columns(gpu, from, layer.inputs, to, rows, columns)
        };

        ops::rms_norm(gpu, x, block.input_norm, normed, saved.input_scales, rows, hidden, self.eps())?;
        block.qkv.forward(gpu, adapted, normed, rows, None, StridedRows::plain(saved.qkv, heads.qkv_width()))?;
        keep(normed, &block.qkv, saved.qkv_shrunk)?;
        if config.qk_norm {
            ops::qk_norm(gpu, saved.qkv, block.qk_norm, saved.unnormed, rows, heads, self.eps())?;
        }
        let KeyStore { cache, slots, cells } = store;
        let (bias, rope) = (block.qkv_bias, self.frozen.rope);
        ops::qkv_rope(gpu, saved.qkv, bias, rope, tokens.positions, cache, slots, cells, rows, heads)?;
        attend(saved)?;

        block.o.forward(gpu, adapted, saved.attended, rows, Some(x), plain(saved.middle))?;
        ops::rms_norm(gpu, saved.middle, block.post_norm, normed, saved.middle_scales, rows, hidden, self.eps())?;
        block.gate_up.forward(gpu, adapted, normed, rows, None, saved.gate_up)?;
        keep(normed, &block.gate_up, saved.gate_up_shrunk)?;
        ops::swiglu(gpu, saved.gate_up, activated, rows, inner)?;
        block.down.forward(gpu, adapted, activated, rows, Some(saved.middle), plain(out))?;
        keep(activated, &block.down, saved.down_shrunk)
    }

    /// Replaces the gradient of the block's output in `back.dx` by that of its input.
    #[allow(clippy::too_many_arguments, reason = "the operands of the chain rule")]
    fn block_backward(
        &self,
        gpu: &Gpu,
        arena: &mut Arena,
        block: &CudaBlock,
        lora: &BlockLora,
        grads: Buffer<f32>,
        pack: &DevicePack,
        input: Buffer<bf16>,
        saved: &BlockBuffers,
        back: &Backward,
    ) -> Result<()> {
        let (rows, heads, config) = (pack.rows, self.heads(), &self.config);
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let Backward { dx: d, d_normed, d_activated, d_attended, d_qkv, .. } = *back;
        let kept = |shrunk: Buffer<bf16>, layer: &CudaLinear| Matrix::new(shrunk, rows, layer.lora);

        // For each layer: the gradient of its input; the operation that gives the previous gradient and restores the
        // input in place; then the gradients of the adapter, from the input and the gradient of the output.
        block.down.input_gradient(gpu, d, rows, d_activated)?;
        ops::swiglu_backward(gpu, d_activated, saved.gate_up, rows, inner)?;
        let (activated, shrunk) = (StridedRows::plain(d_activated, inner), kept(saved.down_shrunk, &block.down));
        block.down.lora_gradient(gpu, &lora.down, grads, activated, shrunk, d, rows)?;

        block.gate_up.input_gradient(gpu, saved.gate_up, rows, d_normed)?;
        ops::rms_norm_backward(gpu, d_normed, saved.middle, saved.middle_scales, block.post_norm, d, rows, hidden)?;
        let (normed, shrunk) = (StridedRows::plain(d_normed, hidden), kept(saved.gate_up_shrunk, &block.gate_up));
        block.gate_up.lora_gradient(gpu, &lora.gate_up, grads, normed, shrunk, saved.gate_up, rows)?;

        block.o.input_gradient(gpu, d, rows, d_attended)?;
        let shrunk = Matrix::behind(saved.attended, rows, block.o.inputs, block.o.lora);
        block.o.lora_gradient(gpu, &lora.o, grads, saved.attended, shrunk, d, rows)?;
        let (attended, lse) = (saved.attended, saved.lse);
        ops::branch_attention_backward(gpu, arena, saved.qkv, attended, lse, d_attended, d_qkv, pack, heads)?;
        ops::qkv_rope_backward(gpu, d_qkv, self.frozen.rope, pack.positions, rows, heads)?;
        if config.qk_norm {
            ops::qk_norm_backward(gpu, d_qkv, block.qk_norm, saved.unnormed, rows, heads, self.eps())?;
        }
        block.qkv.input_gradient(gpu, d_qkv, rows, d_normed)?;
        ops::rms_norm_backward(gpu, d_normed, input, saved.input_scales, block.input_norm, d, rows, hidden)?;
        let shrunk = kept(saved.qkv_shrunk, &block.qkv);
        block.qkv.lora_gradient(gpu, &lora.qkv, grads, normed, shrunk, d_qkv, rows)
    }
}
