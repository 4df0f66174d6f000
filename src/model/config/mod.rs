//! The shape of a decoder.

mod json;
mod known;

use crate::ops::attention::Heads;
use anyhow::{Result, ensure};

pub use known::known_shape;

/// Shape and options of a Qwen2, Qwen3 or Llama decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    pub architecture: Architecture,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub head_dim: usize,
    pub rms_norm_eps: f64,
    pub rope_theta: f64,
    pub rope_scaling: Option<Llama3Scaling>,
    /// Biases on q, k and v (Qwen2).
    pub qkv_bias: bool,
    /// RMSNorm on each head of q and k (Qwen3).
    pub qk_norm: bool,
    /// The head is the embedding, transposed.
    pub tie_word_embeddings: bool,
    pub max_position_embeddings: usize,
    /// End-of-sequence ids of config and generation_config, ascending.
    pub eos_token_ids: Vec<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    Qwen2,
    Qwen3,
    Llama,
}

/// The frequency scaling of Llama 3.1 and later.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Llama3Scaling {
    pub factor: f64,
    pub low_freq_factor: f64,
    pub high_freq_factor: f64,
    pub original_max_position_embeddings: usize,
}

impl ModelConfig {
    /// A Qwen2 decoder with this number of query heads and KV heads, and the options that most of its small checkpoints
    /// share. Other options can be set: `ModelConfig { head_dim: 64, ..ModelConfig::qwen2(...) }`.
    pub fn qwen2(layers: usize, hidden: usize, heads: (usize, usize), inner: usize, vocab: usize) -> Self {
        Self {
            architecture: Architecture::Qwen2,
            vocab_size: vocab,
            hidden_size: hidden,
            intermediate_size: inner,
            num_hidden_layers: layers,
            num_attention_heads: heads.0,
            num_key_value_heads: heads.1,
            head_dim: hidden / heads.0,
            rms_norm_eps: 1e-6,
            rope_theta: 1e4,
            rope_scaling: None,
            qkv_bias: true,
            qk_norm: false,
            tie_word_embeddings: true,
            max_position_embeddings: 1024,
            eos_token_ids: Vec::new(),
        }
    }

    pub fn heads(&self) -> Heads {
        Heads { query: self.num_attention_heads, kv: self.num_key_value_heads, dim: self.head_dim }
    }

    /// The frequencies of the rotary embedding, in f32 as the models were trained: (head_dim / 2).
    pub fn rope_frequencies(&self) -> Vec<f32> {
        let frequency = |i: usize| self.rope_theta.powf(-((2 * i) as f64) / self.head_dim as f64);
        let scaled = |frequency| self.rope_scaling.map_or(frequency, |scaling| scaled(frequency, scaling));
        (0..self.head_dim / 2).map(|i| scaled(frequency(i)) as f32).collect()
    }

    /// Every tensor of a checkpoint of this shape: Hugging Face's name and (out, in) shape, in the order of the forward
    /// pass.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let hidden = self.hidden_size;
        let q = self.num_attention_heads * self.head_dim;
        let kv = self.num_key_value_heads * self.head_dim;
        let mut tensors = vec![("model.embed_tokens.weight".to_owned(), vec![self.vocab_size, hidden])];
        for layer in 0..self.num_hidden_layers {
            let mut add =
                |name: &str, shape: &[usize]| tensors.push((format!("model.layers.{layer}.{name}"), shape.to_vec()));
            add("input_layernorm.weight", &[hidden]);
            for (projection, rows) in [("q", q), ("k", kv), ("v", kv)] {
                add(&format!("self_attn.{projection}_proj.weight"), &[rows, hidden]);
                if self.qkv_bias {
                    add(&format!("self_attn.{projection}_proj.bias"), &[rows]);
                }
            }
            if self.qk_norm {
                add("self_attn.q_norm.weight", &[self.head_dim]);
                add("self_attn.k_norm.weight", &[self.head_dim]);
            }
            add("self_attn.o_proj.weight", &[hidden, q]);
            add("post_attention_layernorm.weight", &[hidden]);
            add("mlp.gate_proj.weight", &[self.intermediate_size, hidden]);
            add("mlp.up_proj.weight", &[self.intermediate_size, hidden]);
            add("mlp.down_proj.weight", &[hidden, self.intermediate_size]);
        }
        tensors.push(("model.norm.weight".to_owned(), vec![hidden]));
        if !self.tie_word_embeddings {
            tensors.push(("lm_head.weight".to_owned(), vec![self.vocab_size, hidden]));
        }
        tensors
    }

    /// Number of weights.
    pub fn parameters(&self) -> usize {
        self.tensors().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }

    /// Returns an error for shapes that no decoder has, so that later code may multiply and divide them freely.
    pub(super) fn check(self) -> Result<Self> {
        const LIMIT: usize = 1 << 24; // far above any real dimension; the product of two stays below 2^48
        const LAYERS: usize = 4096; // keeps the list of tensors short
        ensure!(
            (1..=LAYERS).contains(&self.num_hidden_layers),
            "`num_hidden_layers` of the model configuration is {}",
            self.num_hidden_layers
        );
        for (name, value) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
        ] {
            ensure!((1..=LIMIT).contains(&value), "`{name}` of the model configuration is {value}");
        }
        ensure!(
            self.num_attention_heads.is_multiple_of(self.num_key_value_heads),
            "{} attention heads cannot share {} key-value heads evenly",
            self.num_attention_heads,
            self.num_key_value_heads
        );
        ensure!(
            self.head_dim.is_multiple_of(2),
            "`head_dim` is {}; rotary embedding needs an even number",
            self.head_dim
        );
        // Far wider than what models use: 10,000 to 100,000,000, and 1e-6 to 1e-5.
        ensure!(
            (1.0..=1e12).contains(&self.rope_theta),
            "`rope_theta` of the model configuration is {:e}, expected 1 to 1e12",
            self.rope_theta
        );
        ensure!(
            (1e-20..=1e-2).contains(&self.rms_norm_eps),
            "`rms_norm_eps` of the model configuration is {:e}, expected 1e-20 to 0.01",
            self.rms_norm_eps
        );
        if let Some(scaling) = self.rope_scaling {
            let Llama3Scaling { factor, low_freq_factor: low, high_freq_factor: high, .. } = scaling;
            let context = scaling.original_max_position_embeddings;
            ensure!(
                (1.0..=1e6).contains(&factor)
                    && low > 0.0
                    && low < high
                    && high <= 1e6
                    && (1..=LIMIT).contains(&context),
                "the scaling of the rotary embedding has the factors {factor:e}, {low:e} and {high:e} for a context of {context}, \
                 which are not those of Llama 3"
            );
        }
        Ok(self)
    }
}

/// Llama 3.1's interpolation: low frequencies are divided by `factor`, high ones kept, with a smooth transition in
/// between.
fn scaled(frequency: f64, scaling: Llama3Scaling) -> f64 {
    let wavelength = std::f64::consts::TAU / frequency;
    let context = scaling.original_max_position_embeddings as f64;
    if wavelength > context / scaling.low_freq_factor {
        frequency / scaling.factor
    } else if wavelength < context / scaling.high_freq_factor {
        frequency
    } else {
        let smooth =
            (context / wavelength - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
        (1.0 - smooth) * frequency / scaling.factor + smooth * frequency
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A small Qwen2 shape for tests.
    pub(crate) fn tiny() -> ModelConfig {
        ModelConfig {
            max_position_embeddings: 256,
            eos_token_ids: vec![1, 2],
            ..ModelConfig::qwen2(2, 16, (4, 2), 48, 64)
        }
    }
}
