//! The frozen weights on the device, in bf16 and in Hugging Face's layout: (out, in).

use super::Gpu;
use super::memory::{Buffer, DeviceArena};
use super::ops;
use super::staging::Staging;
use crate::device::memory::layout::weight_bytes;
use crate::model::config::ModelConfig;
use crate::model::weights::Weights;
use crate::ops::rope::RopeTable;
use crate::rng::{Purpose, Stream, name_hash};
use anyhow::{Context, Result, ensure};
use half::bf16;

/// A linear layer, or several that read the same input, joined by rows.
#[derive(Clone, Copy)]
pub struct Linear {
    /// (outputs, inputs)
    pub weight: Buffer<bf16>,
    pub inputs: usize,
    pub outputs: usize,
}

/// The weights of a block.
pub struct Block {
    pub input_norm: Buffer<bf16>,
    /// hidden -> q, k and v side by side
    pub qkv: Linear,
    /// (qkv width), or null
    pub qkv_bias: Buffer<bf16>,
    /// (2, head dim): the weights of the norms on q and k, or null
    pub qk_norm: Buffer<bf16>,
    pub o: Linear,
    pub post_norm: Buffer<bf16>,
    /// hidden -> gate and up side by side
    pub gate_up: Linear,
    pub down: Linear,
}

/// All weights of a decoder.
pub struct Frozen {
    /// (vocabulary, hidden)
    pub embedding: Buffer<bf16>,
    pub blocks: Vec<Block>,
    pub norm: Buffer<bf16>,
    /// hidden -> vocabulary; the embedding where the two are tied
    pub head: Linear,
    /// Cosine and sine, (positions, head dim / 2).
    pub rope: [Buffer<f32>; 2],
    /// What the buffers point into.
    arena: DeviceArena,
}

/// Where weights come from.
pub enum Origin<'a> {
    Checkpoint(&'a dyn Weights),
    /// Drawn on the device from this seed, to measure speed and memory in a shape whose checkpoint is not at hand.
    Random(u64),
}

impl Frozen {
    /// Loads weights for sequences of up to `positions` tokens.
    pub fn load(gpu: &Gpu, config: &ModelConfig, origin: &Origin, positions: usize) -> Result<Self> {
        let bytes = weight_bytes(config, positions);
        let arena = DeviceArena::new(gpu, bytes, "the weights")?;
        let mut loader = Loader { gpu, origin, arena, staging: Staging::new(gpu)? };
        let (hidden, vocab) = (config.hidden_size, config.vocab_size);
        let q = config.num_attention_heads * config.head_dim;
        let kv = config.num_key_value_heads * config.head_dim;

        let embedding = loader.join(&[("model.embed_tokens.weight".to_owned(), &[vocab, hidden])])?;
        let blocks = (0..config.num_hidden_layers)
            .map(|layer| {
                let name = |name: &str| format!("model.layers.{layer}.{name}");
                let norm = |which: &str| name(&format!("{which}_layernorm.weight"));
                let mut linear = |parts: &[(&str, usize)], inputs: usize| -> Result<Linear> {
                    let shapes: Vec<[usize; 2]> = parts.iter().map(|(_, outputs)| [*outputs, inputs]).collect();
                    let named: Vec<(String, &[usize])> = parts
                        .iter()
                        .zip(&shapes)
                        .map(|((part, _), shape)| (name(&format!("{part}_proj.weight")), &shape[..]))
                        .collect();
                    let outputs = parts.iter().map(|(_, outputs)| outputs).sum();
                    Ok(Linear { weight: loader.join(&named)?, inputs, outputs })
                };
                let qkv = linear(&[("self_attn.q", q), ("self_attn.k", kv), ("self_attn.v", kv)], hidden)?;
                let o = linear(&[("self_attn.o", hidden)], q)?;
                let inner = config.intermediate_size;
                let gate_up = linear(&[("mlp.gate", inner), ("mlp.up", inner)], hidden)?;
                let down = linear(&[("mlp.down", hidden)], inner)?;
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
                Ok(Block {
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
        let table = RopeTable::new(config, positions);
        let mut angles = |values: &[f32]| -> Result<Buffer<f32>> {
            let buffer = loader.arena.take(values.len())?;
            buffer.upload(gpu, values)?;
            Ok(buffer)
        };
        let rope = [angles(table.cos())?, angles(table.sin())?];
        gpu.synchronize()?;
        let head = Linear { weight: head, inputs: hidden, outputs: vocab };
        Ok(Self { embedding, blocks, norm, head, rope, arena: loader.arena })
    }

    /// Bytes of device memory that the weights take.
    pub fn bytes(&self) -> usize {
        self.arena.peak()
    }
}

struct Loader<'a> {
    gpu: &'a Gpu,
    origin: &'a Origin<'a>,
    arena: DeviceArena,
    staging: Staging,
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
            match self.origin {
                Origin::Checkpoint(weights) => self.read(*weights, name, shape, part, *shape.last().unwrap_or(&1))?,
                Origin::Random(seed) => {
                    // The values of `RandomWeights`, made where they are needed.
                    let stream = Stream::new(*seed, Purpose::ModelInit, &[name_hash(name)]);
                    let norm = name.ends_with("norm.weight");
                    let (mean, deviation) = if norm { (1.0, 0.0) } else { (0.0, 0.02) };
                    ops::fill_normal(self.gpu, part, &stream, mean, deviation)?;
                }
            }
        }
        Ok(buffer)
    }

    /// Copies a tensor to the start of `to`, where a row begins every `stride` values.
    fn read(
        &mut self,
        weights: &dyn Weights,
        name: &str,
        shape: &[usize],
        to: Buffer<bf16>,
        stride: usize,
    ) -> Result<()> {
        let width = shape.last().copied().unwrap_or(1);
        let rows = shape.iter().rev().skip(1).product();
        let copied = weights
            .bf16(name, shape)
            .and_then(|mut reader| self.staging.copy_rows(self.gpu, &mut reader, rows, width, to, stride));
        let odd = copied.with_context(|| format!("read tensor `{name}`"))?;
        ensure!(
            odd == 0,
            "tensor `{name}` has {odd} values that are NaN or infinite in bf16\n\
             hint: the checkpoint is damaged, or comes from a training that failed; download it again or use another"
        );
        Ok(())
    }
}
