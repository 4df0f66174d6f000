//! The frozen weights on the device, in bf16 and in Hugging Face's layout: (out, in).

use super::Gpu;
use super::matrix::Matrix;
use super::memory::{Buffer, DeviceArena};
use super::ops;
use super::staging::Staging;
use crate::device::memory::layout::{StridedRows, weight_bytes};
use crate::device::memory::lora::LoraColumns;
use crate::model::config::ModelConfig;
use crate::model::weights::{Weights, check_odd};
use crate::ops::rope::RopeTable;
use crate::rng::{Purpose, Stream, name_hash};
use anyhow::{Context, Result};
use half::bf16;

/// A linear layer, or several that read the same input, joined by rows, with the columns and rows of an adapter.
#[derive(Clone, Copy)]
pub struct CudaLinear {
    /// (outputs + lora, inputs + lora): [W | scale·B] above [A | unused]
    pub storage: Buffer<bf16>,
    pub inputs: usize,
    pub outputs: usize,
    /// The adapter's rows and columns.
    pub lora: usize,
}

impl CudaLinear {
    /// Stride of the rows of the storage.
    pub fn stride(&self) -> usize {
        self.inputs + self.lora
    }

    /// The submatrix of this size at the start of the storage.
    pub fn matrix(&self, rows: usize, columns: usize) -> Matrix<bf16> {
        Matrix::new(self.storage, rows, columns).with_stride(self.stride())
    }

    /// (lora, inputs)
    pub fn a(&self) -> Matrix<bf16> {
        let start = self.outputs * self.stride();
        Matrix::new(self.storage.slice(start..self.storage.len()), self.lora, self.inputs).with_stride(self.stride())
    }

    /// scale·B: (outputs, lora)
    pub fn b(&self) -> Matrix<bf16> {
        self.matrix(self.outputs, self.stride()).columns(self.inputs, self.lora)
    }
}

/// The weights of a block.
pub struct CudaBlock {
    pub input_norm: Buffer<bf16>,
    /// hidden -> q, k and v side by side
    pub qkv: CudaLinear,
    /// (qkv width), or null
    pub qkv_bias: Buffer<bf16>,
    /// (2, head dim): the weights of the norms on q and k, or null
    pub qk_norm: Buffer<bf16>,
    pub o: CudaLinear,
    pub post_norm: Buffer<bf16>,
    /// hidden -> gate and up side by side
    pub gate_up: CudaLinear,
    pub down: CudaLinear,
}

/// All weights of a decoder.
pub struct Frozen {
    /// (vocabulary, hidden)
    pub embedding: Buffer<bf16>,
    pub blocks: Vec<CudaBlock>,
    pub norm: Buffer<bf16>,
    /// (vocabulary, hidden); the embedding if the two are tied
    pub head: Buffer<bf16>,
    /// Cosine and sine, (positions, head dim / 2).
    pub rope: [Buffer<f32>; 2],
    /// The memory that the buffers point into.
    arena: DeviceArena,
}

/// The source of weights.
pub enum WeightOrigin<'a> {
    Checkpoint(&'a dyn Weights),
    /// Generated on the device from this seed, to measure speed and memory of a shape whose checkpoint is not
    /// available.
    Random(u64),
}

impl Frozen {
    /// Loads weights for sequences of up to `positions` tokens, with room for an adapter of these columns.
    pub fn load(
        gpu: &Gpu,
        config: &ModelConfig,
        origin: &WeightOrigin,
        positions: usize,
        lora: LoraColumns,
    ) -> Result<Self> {
        let bytes = weight_bytes(config, positions, lora);
        let arena = DeviceArena::new(gpu, bytes, "the weights")?;
        let staging = match origin {
            WeightOrigin::Checkpoint(_) => Some(Staging::new(gpu)?),
            WeightOrigin::Random(_) => None,
        };
        let mut loader = Loader { gpu, origin, arena, staging };
        let (hidden, vocab) = (config.hidden_size, config.vocab_size);
        let q = config.num_attention_heads * config.head_dim;
        let kv = config.num_key_value_heads * config.head_dim;

        let embedding = loader.join(&[("model.embed_tokens.weight".to_owned(), &[vocab, hidden])])?;
        let blocks = (0..config.num_hidden_layers)
            .map(|layer| {
                let name = |name: &str| format!("model.layers.{layer}.{name}");
                let norm = |which: &str| name(&format!("{which}_layernorm.weight"));
                let mut linear = |parts: &[(&str, usize)], inputs: usize, columns: usize| {
                    let named = |(part, outputs): &(&str, usize)| (name(&format!("{part}_proj.weight")), *outputs);
                    loader.linear(&parts.iter().map(named).collect::<Vec<_>>(), inputs, columns)
                };
                let qkv = linear(&[("self_attn.q", q), ("self_attn.k", kv), ("self_attn.v", kv)], hidden, lora.qkv)?;
                let o = linear(&[("self_attn.o", hidden)], q, lora.o)?;
                let inner = config.intermediate_size;
                let gate_up = linear(&[("mlp.gate", inner), ("mlp.up", inner)], hidden, lora.gate_up)?;
                let down = linear(&[("mlp.down", hidden)], inner, lora.down)?;
                let qkv_bias = if config.qkv_bias {
                    let bias = |which: &str| name(&format!("self_attn.{which}_proj.bias"));
                    loader.join(&[(bias("q"), &[q]), (bias("k"), &[kv]), (bias("v"), &[kv])])?
                } else {
                    Buffer::NULL
                };
                let qk_norm = if config.qk_norm {
                    let norm = |which: &str| name(&format!("self_attn.{which}_norm.weight"));
                    loader.join(&[(norm("q"), &[config.head_dim]), (norm("k"), &[config.head_dim])])?
                } else {
                    Buffer::NULL
                };
                Ok(CudaBlock {
                    input_norm: loader.join(&[(norm("input"), &[hidden])])?,
                    qkv,
                    qkv_bias,
                    qk_norm,
                    o,
                    post_norm: loader.join(&[(norm("post_attention"), &[hidden])])?,
                    gate_up,
                    down,
                })
            })
            .collect::<Result<_>>()?;
        let norm = loader.join(&[("model.norm.weight".to_owned(), &[hidden])])?;
        let head = if config.tie_word_embeddings {
            embedding
        } else {
            loader.join(&[("lm_head.weight".to_owned(), &[vocab, hidden])])?
        };
        let table = RopeTable::new(&config.rope_frequencies(), positions);
        let mut angles = |values: &[f32]| -> Result<Buffer<f32>> {
            let buffer = loader.arena.take(values.len())?;
            buffer.upload(gpu, values)?;
            Ok(buffer)
        };
        let rope = [angles(table.cos())?, angles(table.sin())?];
        gpu.synchronize()?;
        Ok(Self { embedding, blocks, norm, head, rope, arena: loader.arena })
    }

    /// Bytes of device memory of the weights.
    pub fn bytes(&self) -> usize {
        self.arena.peak()
    }
}

struct Loader<'a> {
    gpu: &'a Gpu,
    origin: &'a WeightOrigin<'a>,
    arena: DeviceArena,
    /// For weights that come from a checkpoint.
    staging: Option<Staging>,
}

impl Loader<'_> {
    /// Tensors of these names and shapes, one after the other.
    fn join(&mut self, parts: &[(String, &[usize])]) -> Result<Buffer<bf16>> {
        let len = |shape: &[usize]| shape.iter().product::<usize>();
        let buffer = self.arena.take(parts.iter().map(|(_, shape)| len(shape)).sum())?;
        let mut start = 0;
        for (name, shape) in parts {
            let part = buffer.slice(start..start + len(shape));
            start += len(shape);
            self.fill(name, shape, StridedRows::plain(part, shape[shape.len() - 1]))?;
        }
        Ok(buffer)
    }

    /// Layers of these names and outputs that read the same input, joined by rows, with room for `columns` of an
    /// adapter.
    fn linear(&mut self, parts: &[(String, usize)], inputs: usize, columns: usize) -> Result<CudaLinear> {
        let (outputs, stride) = (parts.iter().map(|(_, outputs)| outputs).sum::<usize>(), inputs + columns);
        let storage = self.arena.take((outputs + columns) * stride)?;
        let mut start = 0;
        for (name, outputs) in parts {
            let rows = storage.slice(start * stride..(start + outputs) * stride);
            start += outputs;
            self.fill(name, &[*outputs, inputs], StridedRows { buffer: rows, stride })?;
        }
        Ok(CudaLinear { storage, inputs, outputs, lora: columns })
    }

    /// Writes the tensor of this name and shape to rows as wide as its last dimension.
    fn fill(&mut self, name: &str, shape: &[usize], to: StridedRows) -> Result<()> {
        let width = shape[shape.len() - 1];
        match self.origin {
            WeightOrigin::Checkpoint(weights) => self.read(*weights, name, shape, to),
            WeightOrigin::Random(seed) => {
                // The values of `RandomWeights`, generated on the device.
                let stream = Stream::new(*seed, Purpose::ModelInit, &[name_hash(name)]);
                let norm = name.ends_with("norm.weight");
                let (mean, deviation) = if norm { (1.0, 0.0) } else { (0.0, 0.02) };
                let rows = shape.iter().product::<usize>() / width;
                ops::fill_normal(self.gpu, to, rows, width, &stream, mean, deviation)
            }
        }
    }

    /// Copies a tensor from the checkpoint.
    fn read(&mut self, weights: &dyn Weights, name: &str, shape: &[usize], to: StridedRows) -> Result<()> {
        let width = shape.last().copied().unwrap_or(1);
        let rows = shape.iter().rev().skip(1).product();
        let staging = self.staging.as_mut().context("stage a checkpoint")?;
        let copied = weights
            .bf16(name, shape)
            .and_then(|mut reader| staging.copy_rows(self.gpu, &mut reader, rows, width, to.buffer, to.stride));
        let odd = copied.with_context(|| format!("read tensor `{name}`"))?;
        check_odd(name, odd, " in bf16")
    }
}
