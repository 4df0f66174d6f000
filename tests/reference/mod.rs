//! The slow twin of the decoder: Qwen2, Qwen3 and Llama in plain candle operations, every weight a [`Var`].
//!
//! It pretrains the embedded model (`examples/pretrain_tiny`) and is the oracle that every hand-written gradient is tested
//! against, so it is written to be obviously right: batches without padding, tensors by their Hugging Face names, no fused
//! operation (candle's fused softmax, norm and rotary cut the gradient without an error). It runs in the dtype of its
//! weights; f64 makes finite differences sharp.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::{ops::rms_norm_slow, rotary_emb::rope_slow};

use rft::model::config::{Llama3Scaling, ModelConfig};
use rft::rng::{Purpose, Stream, name_hash};

/// A decoder whose weights, and adapter where it has one, can be differentiated.
pub struct Reference {
    config: ModelConfig,
    weights: BTreeMap<String, Var>,
    adapter: BTreeMap<String, Var>,
    /// What the adapter's product is multiplied by: alpha / r, or alpha / sqrt(r) for rsLoRA.
    scale: f64,
}

/// Keys and values of tokens already seen, one pair a layer: (batch, kv heads, tokens, head_dim).
pub struct Past(Vec<(Tensor, Tensor)>);

impl Reference {
    /// A decoder of `tensors`, under their Hugging Face names (`model.layers.0.self_attn.q_proj.weight` ...).
    ///
    /// # Errors
    /// A tensor that [`shapes`] asks for is missing or has another shape.
    pub fn new(config: ModelConfig, tensors: &BTreeMap<String, Tensor>) -> Result<Self> {
        let weights = take(&shapes(&config), tensors)?;
        Ok(Self { config, weights, adapter: BTreeMap::new(), scale: 0.0 })
    }

    /// The same decoder with a LoRA adapter under PEFT's names
    /// (`base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight`, (r, in); `lora_B`, (out, r)).
    ///
    /// # Errors
    /// Where A has no B, or a shape fits no projection of this decoder.
    pub fn with_lora(self, adapter: &BTreeMap<String, Tensor>, scale: f64) -> Result<Self> {
        let mut expected = BTreeMap::new();
        for (name, a) in adapter.iter().filter(|(name, _)| name.ends_with(".lora_A.weight")) {
            let base = name.strip_prefix("base_model.model.").unwrap_or(name).replace(".lora_A.", ".");
            let [out, inner] = *self.weight(&base)?.dims() else { anyhow::bail!("`{base}` is not a matrix") };
            let r = a.dim(0)?;
            expected.insert(name.clone(), vec![r, inner]);
            expected.insert(name.replace("lora_A", "lora_B"), vec![out, r]);
        }
        ensure!(expected.len() == adapter.len(), "the adapter holds tensors that are not a pair of lora_A and lora_B");
        Ok(Self { adapter: take(&expected, adapter)?, scale, ..self })
    }

    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The weights by name.
    pub fn vars(&self) -> &BTreeMap<String, Var> {
        &self.weights
    }

    /// The adapter's tensors by name; empty without [`Self::with_lora`].
    pub fn lora_vars(&self) -> &BTreeMap<String, Var> {
        &self.adapter
    }

    /// Logits (batch, len, vocab) of `ids` (batch, len).
    pub fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let (batch, len) = ids.dims2()?;
        let (hidden, _) = self.hidden(ids, None)?;
        let logits = self.head(&hidden.flatten_to(1)?)?;
        Ok(logits.reshape((batch, len, self.config.vocab_size))?)
    }

    /// Final hidden states (batch, len, hidden), normed, of `ids` (batch, len) that follow `past`; and the past that now
    /// includes them. A past of one row is shared by every row of the batch, gradient included.
    pub fn hidden(&self, ids: &Tensor, past: Option<&Past>) -> Result<(Tensor, Past)> {
        let (batch, len) = ids.dims2()?;
        let width = self.config.hidden_size;
        let start = past.map_or(Ok(0), |past| past.0[0].0.dim(2))?;
        let embedding = self.weight("model.embed_tokens.weight")?;
        let (device, dtype) = (embedding.device(), embedding.dtype());
        let table = Rotary::new(&self.config, start, len, device, dtype)?;
        let mask = causal_mask(start, len, device, dtype)?;

        let mut x = embedding.index_select(&ids.flatten_all()?, 0)?; // (batch * len, hidden)
        let mut seen = Vec::with_capacity(self.config.num_hidden_layers);
        for layer in 0..self.config.num_hidden_layers {
            let name = format!("model.layers.{layer}");
            let normed = self.norm(&x, &format!("{name}.input_layernorm"))?;
            let before = past.map(|past| &past.0[layer]);
            let (attended, keys_values) = self.attention(&normed, &name, (batch, len), &table, &mask, before)?;
            x = (x + attended)?;
            let normed = self.norm(&x, &format!("{name}.post_attention_layernorm"))?;
            x = (x + self.mlp(&normed, &name)?)?;
            seen.push(keys_values);
        }
        let hidden = self.norm(&x, "model.norm")?.reshape((batch, len, width))?;
        Ok((hidden, Past(seen)))
    }

    /// Logits (rows, vocab) of final hidden states (rows, hidden).
    pub fn head(&self, hidden: &Tensor) -> Result<Tensor> {
        let name = if self.config.tie_word_embeddings { "model.embed_tokens.weight" } else { "lm_head.weight" };
        Ok(hidden.matmul(&self.weight(name)?.t()?)?)
    }

    /// `x` is (batch * len, hidden), as is the result.
    fn attention(
        &self,
        x: &Tensor,
        layer: &str,
        (batch, len): (usize, usize),
        table: &Rotary,
        mask: &Tensor,
        past: Option<&(Tensor, Tensor)>,
    ) -> Result<(Tensor, (Tensor, Tensor))> {
        let ModelConfig { num_attention_heads: heads, num_key_value_heads: kv_heads, head_dim, .. } = self.config;
        let by_head = |projection: &str, heads: usize| -> Result<Tensor> {
            let y = self.linear(x, &format!("{layer}.self_attn.{projection}_proj"))?;
            let y = y.reshape((batch, len, heads, head_dim))?;
            let y = match self.config.qk_norm && projection != "v" {
                true => self.norm(&y, &format!("{layer}.self_attn.{projection}_norm"))?,
                false => y,
            };
            Ok(y.transpose(1, 2)?.contiguous()?) // (batch, heads, len, head_dim)
        };
        let q = table.rotate(&by_head("q", heads)?)?;
        let mut k = table.rotate(&by_head("k", kv_heads)?)?;
        let mut v = by_head("v", kv_heads)?;
        if let Some((past_k, past_v)) = past {
            let behind = |past: &Tensor, new: &Tensor| -> Result<Tensor> {
                let (_, kv_heads, start, head_dim) = past.dims4()?;
                let shared = past.broadcast_as((batch, kv_heads, start, head_dim))?;
                Ok(Tensor::cat(&[&shared, new], 2)?.contiguous()?)
            };
            (k, v) = (behind(past_k, &k)?, behind(past_v, &v)?);
        }

        // The heads / kv_heads query heads that share a key head stand as rows of one product.
        let (group, total) = (heads / kv_heads, k.dim(2)?);
        let q = q.reshape((batch, kv_heads, group * len, head_dim))?;
        let scores = (q.matmul(&k.t()?)? * (head_dim as f64).powf(-0.5))?;
        let scores = scores.reshape((batch, kv_heads, group, len, total))?.broadcast_add(mask)?;
        let weights = softmax(&scores)?.reshape((batch, kv_heads, group * len, total))?;
        let mixed = weights.matmul(&v)?.reshape((batch, heads, len, head_dim))?;
        let mixed = mixed.transpose(1, 2)?.reshape((batch * len, heads * head_dim))?;
        Ok((self.linear(&mixed, &format!("{layer}.self_attn.o_proj"))?, (k, v)))
    }

    fn mlp(&self, x: &Tensor, layer: &str) -> Result<Tensor> {
        let gate = self.linear(x, &format!("{layer}.mlp.gate_proj"))?.silu()?;
        let up = self.linear(x, &format!("{layer}.mlp.up_proj"))?;
        self.linear(&(gate * up)?, &format!("{layer}.mlp.down_proj"))
    }

    /// (rows, in) to (rows, out), with bias and adapter where there are such tensors.
    fn linear(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        let mut y = x.matmul(&self.weight(&format!("{name}.weight"))?.t()?)?;
        if let Some(bias) = self.weights.get(&format!("{name}.bias")) {
            y = y.broadcast_add(bias)?;
        }
        let part = |which| self.adapter.get(&format!("base_model.model.{name}.lora_{which}.weight"));
        if let (Some(a), Some(b)) = (part("A"), part("B")) {
            y = (y + (x.matmul(&a.t()?)?.matmul(&b.t()?)? * self.scale)?)?;
        }
        Ok(y)
    }

    fn norm(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        Ok(rms_norm_slow(&x.contiguous()?, self.weight(&format!("{name}.weight"))?, self.config.rms_norm_eps as f32)?)
    }

    fn weight(&self, name: &str) -> Result<&Tensor> {
        self.weights.get(name).map(Var::as_tensor).with_context(|| format!("the decoder has no tensor `{name}`"))
    }
}

/// Softmax over the last dimension. Its value does not depend on the maximum that keeps it finite, so the maximum needs
/// no gradient.
fn softmax(x: &Tensor) -> Result<Tensor> {
    let exp = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?.exp()?;
    Ok(exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)?)
}

/// Log-probabilities (rows) of `targets` (rows, u32) under `logits` (rows, vocab).
pub fn log_probabilities(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let shifted = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?.detach())?;
    let chosen = shifted.gather(&targets.unsqueeze(1)?, 1)?.squeeze(1)?;
    Ok((chosen - shifted.exp()?.sum(D::Minus1)?.log()?)?)
}

/// Zero if a token may attend, minus infinity if it may not: (len, start + len).
fn causal_mask(start: usize, len: usize, device: &Device, dtype: DType) -> Result<Tensor> {
    let total = start + len;
    let mask: Vec<f32> =
        (0..len * total).map(|i| if i % total > start + i / total { f32::NEG_INFINITY } else { 0.0 }).collect();
    Ok(Tensor::from_vec(mask, (len, total), device)?.to_dtype(dtype)?)
}

/// Cosines and sines of positions start..start + len, each (len, head_dim / 2), computed in f32 whatever the weights are.
struct Rotary {
    cos: Tensor,
    sin: Tensor,
}

impl Rotary {
    fn new(config: &ModelConfig, start: usize, len: usize, device: &Device, dtype: DType) -> Result<Self> {
        let half = config.head_dim / 2;
        let frequencies: Vec<f32> = (0..half)
            .map(|i| {
                let frequency = config.rope_theta.powf(-(i as f64) / half as f64);
                config.rope_scaling.map_or(frequency, |scaling| llama3(frequency, scaling)) as f32
            })
            .collect();
        let angle = |i: usize| (start + i / half) as f32 * frequencies[i % half];
        let table = |f: fn(f32) -> f32| -> Result<Tensor> {
            let values: Vec<f32> = (0..len * half).map(|i| f(angle(i))).collect();
            Ok(Tensor::from_vec(values, (len, half), device)?.to_dtype(dtype)?)
        };
        Ok(Self { cos: table(f32::cos)?, sin: table(f32::sin)? })
    }

    fn rotate(&self, x: &Tensor) -> Result<Tensor> {
        Ok(rope_slow(x, &self.cos, &self.sin)?)
    }
}

/// Llama 3.1's long-context frequencies: short waves stay, long ones are slowed by `factor`, between them a blend.
fn llama3(frequency: f64, scaling: Llama3Scaling) -> f64 {
    let turns = scaling.original_max_position_embeddings as f64 * frequency / std::f64::consts::TAU;
    let blend = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
    let blend = blend.clamp(0.0, 1.0);
    frequency * (blend + (1.0 - blend) / scaling.factor)
}

/// The tensors of a decoder: Hugging Face names and shapes, a projection being (out, in).
pub fn shapes(config: &ModelConfig) -> BTreeMap<String, Vec<usize>> {
    let (hidden, vocab) = (config.hidden_size, config.vocab_size);
    let mut shapes = BTreeMap::from([
        ("model.embed_tokens.weight".to_owned(), vec![vocab, hidden]),
        ("model.norm.weight".to_owned(), vec![hidden]),
    ]);
    if !config.tie_word_embeddings {
        shapes.insert("lm_head.weight".to_owned(), vec![vocab, hidden]);
    }
    for layer in 0..config.num_hidden_layers {
        let mut add = |name: &str, shape: Vec<usize>| shapes.insert(format!("model.layers.{layer}.{name}"), shape);
        for name in ["input_layernorm.weight", "post_attention_layernorm.weight"] {
            add(name, vec![hidden]);
        }
        for (name, out, inner) in projections(config) {
            add(&format!("{name}.weight"), vec![out, inner]);
            if config.qkv_bias && ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"].contains(&name) {
                add(&format!("{name}.bias"), vec![out]);
            }
        }
        if config.qk_norm {
            for name in ["self_attn.q_norm.weight", "self_attn.k_norm.weight"] {
                add(name, vec![config.head_dim]);
            }
        }
    }
    shapes
}

/// The seven projections of a layer: name, outputs, inputs.
fn projections(config: &ModelConfig) -> [(&'static str, usize, usize); 7] {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let q = config.num_attention_heads * config.head_dim;
    let kv = config.num_key_value_heads * config.head_dim;
    [
        ("self_attn.q_proj", q, hidden),
        ("self_attn.k_proj", kv, hidden),
        ("self_attn.v_proj", kv, hidden),
        ("self_attn.o_proj", hidden, q),
        ("mlp.gate_proj", inner, hidden),
        ("mlp.up_proj", inner, hidden),
        ("mlp.down_proj", hidden, inner),
    ]
}

/// Weights drawn for `config`: normal with deviation `std`, the scales of norms around 1. f32, on the CPU.
pub fn random_weights(config: &ModelConfig, seed: u64, std: f64) -> Result<BTreeMap<String, Tensor>> {
    random(shapes(config), seed, std)
}

/// A LoRA adapter of rank `r` on the projections `modules` (`q_proj` ...), A and B both normal with deviation `std`, so
/// that no gradient vanishes for a zero B. PEFT's names; f32, on the CPU.
pub fn random_adapter(
    config: &ModelConfig,
    modules: &[&str],
    r: usize,
    seed: u64,
    std: f64,
) -> Result<BTreeMap<String, Tensor>> {
    let mut shapes = BTreeMap::new();
    for layer in 0..config.num_hidden_layers {
        for (name, out, inner) in projections(config) {
            if modules.iter().any(|module| name.ends_with(module)) {
                let prefix = format!("base_model.model.model.layers.{layer}.{name}");
                shapes.insert(format!("{prefix}.lora_A.weight"), vec![r, inner]);
                shapes.insert(format!("{prefix}.lora_B.weight"), vec![out, r]);
            }
        }
    }
    random(shapes, seed, std)
}

fn random(shapes: BTreeMap<String, Vec<usize>>, seed: u64, std: f64) -> Result<BTreeMap<String, Tensor>> {
    let mut tensors = BTreeMap::new();
    for (name, shape) in shapes {
        let stream = Stream::new(seed, Purpose::ModelInit, &[name_hash(&name)]);
        let mean = if name.ends_with("norm.weight") { 1.0 } else { 0.0 };
        let count: usize = shape.iter().product();
        let values: Vec<f32> = (0..count as u64).map(|i| (mean + std * stream.normal(i)) as f32).collect();
        tensors.insert(name, Tensor::from_vec(values, shape, &Device::Cpu)?);
    }
    Ok(tensors)
}

/// The tensors that `shapes` names, as variables.
fn take(shapes: &BTreeMap<String, Vec<usize>>, tensors: &BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Var>> {
    let mut vars = BTreeMap::new();
    for (name, shape) in shapes {
        let tensor = tensors.get(name).with_context(|| format!("the tensor `{name}` is missing"))?;
        ensure!(tensor.dims() == shape, "the tensor `{name}` has shape {:?}, not {shape:?}", tensor.dims());
        vars.insert(name.clone(), Var::from_tensor(tensor)?);
    }
    Ok(vars)
}

#[cfg(test)]
mod tests;
