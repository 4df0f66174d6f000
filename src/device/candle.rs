//! Our decoder against candle's own Qwen2, Qwen3 and Llama, on the same weights.
//!
//! The other side shares no code with ours: `candle-nn` reads the files, `candle-transformers` has the decoders. Only a GGUF
//! file is read by us for both, because candle's decoders of full precision do not take one.

use super::{Device, Extent, LoadedModel};
use crate::model::checkpoint::weight_files;
use crate::model::config::{Architecture, ModelConfig};
use crate::model::lora::Adapter;
use crate::model::source::{ModelOrigin, ModelSource};
use crate::model::weights::Weights;
use crate::model::{embedded, pack::Pack, peft};
use crate::rollout::{Prompt, RolloutRequest, Sampling, Unwatched};
use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Activation, Init, VarBuilder};
use candle_transformers::models::{llama, qwen2, qwen3};
use std::collections::BTreeMap;
use std::path::Path;

/// Tokens that are decoded after the prompt.
pub const CONTINUATION: usize = 32;

/// Memory on a GPU for a short sequence.
const WORKING_BYTES: u64 = 1 << 30;

/// The largest absolute differences between our decoder and candle's. A value that is not finite gives infinity.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    /// Logits after the prompt.
    pub prefill: f32,
    /// Logits after each further token: candle decodes with its KV cache, ours come from the packed pass that training uses.
    pub decoded: f32,
    /// Log-probabilities that our rollout gave to the tokens as it drew them, with our KV cache.
    pub rollout: f32,
    /// Whether our side computed in f32.
    pub f32: bool,
}

/// Compares our decoder with the weights of `ours` with candle's with those of `theirs`, which are the same model unless a test
/// wants to see a difference. `adapter`, a folder, is applied on our side and merged into the weights on the other. The prompt
/// goes through both, then [`CONTINUATION`] tokens that our side draws.
pub fn compare(
    device: Device,
    ours: &ModelSource,
    theirs: &ModelSource,
    adapter: Option<&Path>,
    prompt: &[u32],
) -> Result<Comparison> {
    ensure!(!prompt.is_empty(), "the prompt has no tokens");
    let (tokens, logprobs, logits) = run_ours(device, ours, adapter, prompt)?;
    let mut model = CandleModel::load(device, theirs, adapter, prompt.len() + CONTINUATION)
        .with_context(|| format!("load `{}` with candle", theirs.name))?;
    let (vocab, mut errors) = (ours.config.vocab_size, [0.0f32; 3]);
    for (i, &token) in tokens.iter().enumerate() {
        let expected = match i {
            0 => model.logits(prompt, 0),
            _ => model.logits(&tokens[i - 1..i], prompt.len() + i - 1),
        };
        let expected = expected.context("run candle's decoder")?;
        let row = prompt.len() - 1 + i;
        let error = largest_difference(&logits[row * vocab..(row + 1) * vocab], &expected);
        let which = usize::from(i > 0);
        errors[which] = errors[which].max(error);
        errors[2] = errors[2].max(largest_difference(&[logprobs[i]], &[log_softmax(&expected, token as usize)]));
    }
    let [prefill, decoded, rollout] = errors;
    Ok(Comparison { prefill, decoded, rollout, f32: device == Device::Cpu })
}

/// Tokens sampled after the prompt, their log-probabilities, and the logits (rows, vocabulary) of prompt and tokens.
fn run_ours(
    device: Device,
    source: &ModelSource,
    adapter: Option<&Path>,
    prompt: &[u32],
) -> Result<(Vec<u32>, Vec<f32>, Vec<f32>)> {
    let load = |folder| {
        let (peft, tensors) = peft::load(folder)?;
        Adapter::from_tensors(&source.config, &peft.section(), &tensors)
    };
    let adapter = adapter.map(load).transpose()?;
    let positions = prompt.len() + CONTINUATION;
    let extent = Extent { positions, max_rows: 1, working_bytes: Some(WORKING_BYTES), keep: None, taught: false };
    let loaded = LoadedModel::load(device, source, adapter.as_ref(), &extent)?;
    let request = RolloutRequest {
        prompts: &[Prompt { ids: prompt.to_vec(), key: 0 }],
        num_generations: 1,
        sampling: &Sampling::plain(1.0),
        max_completion_length: CONTINUATION,
        seed: 1,
        step: 0,
        ends: &|_| false,
        stop_tokens: &[],
    };
    let completions = loaded.engine().generate(adapter.as_ref(), &request, &mut Unwatched)?;
    let completion =
        completions.and_then(|mut groups| groups.pop()?.pop()).context("a rollout completes its prompt")?;
    let mut pack = Pack::default();
    pack.push(prompt, &[&completion.tokens]);
    let logits = loaded.logits(adapter.as_ref(), &pack)?;
    Ok((completion.tokens, completion.logprobs, logits))
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    if a.len() != b.len() || a.iter().chain(b).any(|x| !x.is_finite()) {
        return f32::INFINITY;
    }
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn log_softmax(logits: &[f32], token: usize) -> f32 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&it| f64::from(it - most).exp()).sum();
    (f64::from(logits[token] - most) - sum.ln()) as f32
}

/// One of candle's decoders, with its KV cache.
struct CandleModel {
    decoder: CandleDecoder,
    device: candle_core::Device,
}

enum CandleDecoder {
    Qwen2(qwen2::ModelForCausalLM),
    Qwen3(qwen3::ModelForCausalLM),
    Llama(llama::Llama, llama::Cache),
}

impl CandleModel {
    /// `positions`: tokens that will go through it.
    fn load(device: Device, source: &ModelSource, adapter: Option<&Path>, positions: usize) -> Result<Self> {
        let (device, dtype) = candle_device(device)?;
        let mut builder = weights(source, dtype, &device)?;
        if let Some(folder) = adapter {
            let scale = peft::load_config(folder)?.section().scale();
            let adapter = candle_core::safetensors::load(folder.join(peft::WEIGHTS), &device)?.into_iter().collect();
            let merged = Merged { base: builder.set_dtype(DType::F32), adapter, scale };
            builder = VarBuilder::from_backend(Box::new(merged), dtype, device.clone());
        }
        let config = &source.config;
        let decoder = match config.architecture {
            Architecture::Qwen2 => {
                ensure!(
                    config.qkv_bias && !config.qk_norm,
                    "candle's Qwen2 has biases on q, k and v, and no norms on them"
                );
                ensure_plain_heads(config)?;
                CandleDecoder::Qwen2(qwen2::ModelForCausalLM::new(&qwen2_config(config, positions), builder)?)
            }
            Architecture::Qwen3 => {
                ensure!(!config.qkv_bias && config.qk_norm, "candle's Qwen3 has norms on q and k, and no biases");
                CandleDecoder::Qwen3(qwen3::ModelForCausalLM::new(&qwen3_config(config, positions), builder)?)
            }
            Architecture::Llama => {
                ensure!(!config.qkv_bias && !config.qk_norm, "candle's Llama has no biases or norms on q, k and v");
                ensure_plain_heads(config)?;
                let config = llama_config(config, positions);
                let cache = llama::Cache::new(true, dtype, &config, &device)?;
                CandleDecoder::Llama(llama::Llama::load(builder, &config)?, cache)
            }
        };
        Ok(Self { decoder, device })
    }

    /// Logits (vocabulary) after the last of `tokens`, the first of which is at position `start`. Earlier ones are in the cache.
    fn logits(&mut self, tokens: &[u32], start: usize) -> Result<Vec<f32>> {
        let input = Tensor::new(tokens, &self.device)?.unsqueeze(0)?;
        let logits = match &mut self.decoder {
            CandleDecoder::Qwen2(decoder) => decoder.forward(&input, start)?,
            CandleDecoder::Qwen3(decoder) => decoder.forward(&input, start)?,
            CandleDecoder::Llama(decoder, cache) => decoder.forward(&input, start, cache)?,
        };
        Ok(logits.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?)
    }
}

/// Where candle computes: with the feature `candle-cuda` on the same GPU in bf16, else on the CPU in f32.
fn candle_device(device: Device) -> Result<(candle_core::Device, DType)> {
    match device {
        #[cfg(feature = "candle-cuda")]
        Device::Cuda(ordinal) => Ok((candle_core::Device::new_cuda_with_stream(ordinal)?, DType::BF16)),
        _ => Ok((candle_core::Device::Cpu, DType::F32)),
    }
}

/// The weights as candle reads them.
fn weights<'a>(source: &'a ModelSource, dtype: DType, device: &candle_core::Device) -> Result<VarBuilder<'a>> {
    Ok(match &source.origin {
        // SAFETY: the files are mapped, as we map them: whoever shortens one ends this program.
        ModelOrigin::Folder(folder) => unsafe {
            VarBuilder::from_mmaped_safetensors(&weight_files(folder)?, dtype, device)?
        },
        ModelOrigin::Embedded => VarBuilder::from_slice_safetensors(embedded::WEIGHTS, dtype, device)?,
        ModelOrigin::Gguf(_) => {
            let ours = Ours { weights: source.weights.as_ref(), config: &source.config };
            VarBuilder::from_backend(Box::new(ours), dtype, device.clone())
        }
    })
}

/// Weights that our reader reads.
struct Ours<'a> {
    weights: &'a dyn Weights,
    config: &'a ModelConfig,
}

impl SimpleBackend for Ours<'_> {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _init: Init,
        dtype: DType,
        device: &candle_core::Device,
    ) -> candle_core::Result<Tensor> {
        let values = self.weights.get(name, shape.dims()).map_err(candle_core::Error::wrap)?;
        Tensor::from_vec(values, shape, device)?.to_dtype(dtype)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &candle_core::Device) -> candle_core::Result<Tensor> {
        let shape = self.config.tensors().into_iter().find(|(it, _)| it == name);
        let (_, shape) = shape.ok_or_else(|| candle_core::Error::CannotFindTensor { path: name.to_owned() })?;
        self.get(shape.into(), name, Init::default(), dtype, device)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.weights.contains(name)
    }
}

/// W + scale · B A: weights with an adapter of PEFT's names in them.
struct Merged<'a> {
    /// In f32.
    base: VarBuilder<'a>,
    adapter: BTreeMap<String, Tensor>,
    scale: f64,
}

impl Merged<'_> {
    fn merge(&self, name: &str, base: Tensor, dtype: DType) -> candle_core::Result<Tensor> {
        let part = |part: &str| {
            let module = name.strip_suffix(".weight")?;
            self.adapter.get(&format!("base_model.model.{module}.lora_{part}.weight"))
        };
        let merged = match (part("A"), part("B")) {
            (Some(a), Some(b)) => (base + (b.matmul(a)? * self.scale)?)?,
            _ => base,
        };
        merged.to_dtype(dtype)
    }
}

impl SimpleBackend for Merged<'_> {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        init: Init,
        dtype: DType,
        _device: &candle_core::Device,
    ) -> candle_core::Result<Tensor> {
        self.merge(name, self.base.get_with_hints(shape, name, init)?, dtype)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, _device: &candle_core::Device) -> candle_core::Result<Tensor> {
        self.merge(name, self.base.get_unchecked(name)?, dtype)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.base.contains_tensor(name)
    }
}

fn ensure_plain_heads(config: &ModelConfig) -> Result<()> {
    let (heads, hidden) = (config.num_attention_heads, config.hidden_size);
    if config.head_dim * heads != hidden {
        bail!("candle's decoder has heads of width {hidden} / {heads}, and these have {}", config.head_dim);
    }
    Ok(())
}

fn qwen2_config(config: &ModelConfig, positions: usize) -> qwen2::Config {
    qwen2::Config {
        vocab_size: config.vocab_size,
        hidden_size: config.hidden_size,
        intermediate_size: config.intermediate_size,
        num_hidden_layers: config.num_hidden_layers,
        num_attention_heads: config.num_attention_heads,
        num_key_value_heads: config.num_key_value_heads,
        max_position_embeddings: positions,
        sliding_window: positions,
        max_window_layers: 0,
        tie_word_embeddings: config.tie_word_embeddings,
        rope_theta: config.rope_theta,
        rms_norm_eps: config.rms_norm_eps,
        use_sliding_window: false,
        hidden_act: Activation::Silu,
    }
}

fn qwen3_config(config: &ModelConfig, positions: usize) -> qwen3::Config {
    qwen3::Config {
        vocab_size: config.vocab_size,
        hidden_size: config.hidden_size,
        intermediate_size: config.intermediate_size,
        num_hidden_layers: config.num_hidden_layers,
        num_attention_heads: config.num_attention_heads,
        head_dim: config.head_dim,
        attention_bias: false,
        num_key_value_heads: config.num_key_value_heads,
        max_position_embeddings: positions,
        sliding_window: None,
        max_window_layers: 0,
        tie_word_embeddings: config.tie_word_embeddings,
        rope_theta: config.rope_theta,
        rms_norm_eps: config.rms_norm_eps,
        use_sliding_window: false,
        hidden_act: Activation::Silu,
    }
}

fn llama_config(config: &ModelConfig, positions: usize) -> llama::Config {
    llama::Config {
        hidden_size: config.hidden_size,
        intermediate_size: config.intermediate_size,
        vocab_size: config.vocab_size,
        num_hidden_layers: config.num_hidden_layers,
        num_attention_heads: config.num_attention_heads,
        num_key_value_heads: config.num_key_value_heads,
        use_flash_attn: false,
        rms_norm_eps: config.rms_norm_eps,
        rope_theta: config.rope_theta as f32,
        bos_token_id: None,
        eos_token_id: None,
        rope_scaling: config.rope_scaling.map(|scaling| llama::Llama3RopeConfig {
            factor: scaling.factor as f32,
            low_freq_factor: scaling.low_freq_factor as f32,
            high_freq_factor: scaling.high_freq_factor as f32,
            original_max_position_embeddings: scaling.original_max_position_embeddings,
            rope_type: llama::Llama3RopeType::Llama3,
        }),
        max_position_embeddings: positions,
        tie_word_embeddings: config.tie_word_embeddings,
    }
}
