//! The fused decoder gives the values and gradients of the slow reference.

use crate::reference::{Reference, log_probabilities, random_weights};
use candle_core::{Device, Tensor};
use rft::config::LoraSection;
use rft::device::cpu::decoder::CpuDecoder;
use rft::grpo::learner::Keep;
use rft::model::config::{Architecture, Llama3Scaling, ModelConfig};
use rft::model::lora::Adapter;
use rft::model::pack::Pack;
use rft::model::weights::Weights;
use rft::ops::head::{TokenGrad, TokenStats};
use rft::rng::{Purpose, Stream};
use std::collections::BTreeMap;

/// Weights in memory, by name.
struct Held(BTreeMap<String, Tensor>);

impl Weights for Held {
    fn get(&self, name: &str, shape: &[usize]) -> anyhow::Result<Vec<f32>> {
        let tensor = &self.0[name];
        assert_eq!(tensor.dims(), shape, "{name}");
        Ok(tensor.flatten_all()?.to_vec1()?)
    }

    fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

fn config(architecture: Architecture) -> ModelConfig {
    let llama = architecture == Architecture::Llama;
    ModelConfig {
        architecture,
        vocab_size: 61,
        hidden_size: 24,
        intermediate_size: 40,
        num_hidden_layers: 2,
        num_attention_heads: 6,
        num_key_value_heads: 2,
        head_dim: if architecture == Architecture::Qwen3 { 12 } else { 4 },
        rms_norm_eps: 1e-6,
        rope_theta: 1e4,
        rope_scaling: llama.then_some(Llama3Scaling {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 64,
        }),
        qkv_bias: architecture == Architecture::Qwen2,
        qk_norm: architecture == Architecture::Qwen3,
        tie_word_embeddings: llama,
        max_position_embeddings: 256,
        eos_token_ids: vec![0],
    }
}

fn lora(modules: &[&str]) -> LoraSection {
    let target_modules = modules.iter().map(ToString::to_string).collect();
    LoraSection { lora_alpha: 4.5, target_modules, ..LoraSection::all_linear(3) }
}

/// An adapter with values in every tensor: with B at zero, A would have no gradient.
fn filled_adapter(config: &ModelConfig, section: &LoraSection) -> Adapter {
    let mut adapter = Adapter::new(config, section, 5).unwrap();
    let stream = Stream::new(6, Purpose::Test, &[]);
    for (i, value) in adapter.params.iter_mut().enumerate() {
        *value = 0.2 * stream.normal(i as u64) as f32;
    }
    adapter
}

fn tokens(path: u64, len: usize, vocab: usize) -> Vec<u32> {
    let stream = Stream::new(7, Purpose::Test, &[path]);
    (0..len as u64).map(|i| stream.below(i, vocab as u64) as u32).collect()
}

/// Two groups: G = 3 with a completion of one token, and a group whose spans cross the blocks of the attention.
fn groups(vocab: usize) -> Vec<(Vec<u32>, Vec<Vec<u32>>)> {
    vec![
        (tokens(0, 5, vocab), vec![tokens(1, 4, vocab), tokens(2, 1, vocab), tokens(3, 7, vocab)]),
        (tokens(4, 67, vocab), vec![tokens(5, 66, vocab), tokens(6, 3, vocab)]),
    ]
}

fn pack(groups: &[(Vec<u32>, Vec<Vec<u32>>)]) -> Pack {
    let mut pack = Pack::default();
    for (prompt, completions) in groups {
        let completions: Vec<&[u32]> = completions.iter().map(Vec::as_slice).collect();
        pack.push(prompt, &completions);
    }
    pack
}

/// A loss with a separate weight for every log-probability and every entropy.
fn weights_of_loss(index: usize) -> TokenGrad {
    let stream = Stream::new(8, Purpose::Test, &[]);
    TokenGrad {
        logprob: stream.normal(index as u64) as f32,
        entropy: 0.5 * stream.normal(index as u64 + 10_000) as f32,
    }
}

/// Log-probabilities, entropies and adapter gradients of the fused decoder for the loss above.
fn fused(
    decoder: &CpuDecoder,
    adapter: &Adapter,
    pack: &Pack,
    keep: Keep,
    first: usize,
) -> (Vec<TokenStats>, Vec<f32>) {
    let activations = decoder.forward(Some(adapter), pack, keep);
    let mut d_hidden = vec![0.0; activations.hidden.len()];
    let grad = |i, _| weights_of_loss(first + i);
    let stats = decoder.head().backward(&activations.hidden, &pack.pairs, 0.8, grad, &mut d_hidden);
    let mut grads = vec![0.0; adapter.params.len()];
    decoder.backward(adapter, pack, activations, &d_hidden, &mut grads);
    (stats, grads)
}

/// The same with candle's autograd, each completion separately: prompt and completion in one row, no packing.
fn reference(
    config: &ModelConfig,
    tensors: &BTreeMap<String, Tensor>,
    adapter: &Adapter,
    groups: &[(Vec<u32>, Vec<Vec<u32>>)],
) -> (Vec<TokenStats>, BTreeMap<String, Vec<f32>>) {
    let lora: BTreeMap<String, Tensor> = adapter
        .tensors(&adapter.params)
        .into_iter()
        .map(|(name, shape, values)| (name, Tensor::from_vec(values, &shape, &Device::Cpu).unwrap()))
        .collect();
    let scale = adapter.section.lora_alpha / adapter.section.r as f64;
    let twin = Reference::new(config.clone(), tensors).unwrap().with_lora(&lora, scale).unwrap();
    let mut stats = Vec::new();
    let mut loss = Tensor::zeros((), candle_core::DType::F32, &Device::Cpu).unwrap();
    for (prompt, completions) in groups {
        for completion in completions {
            let ids: Vec<u32> = prompt.iter().chain(completion).copied().collect();
            let ids = Tensor::new(ids, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
            let logits = twin.forward(&ids).unwrap().squeeze(0).unwrap();
            let logits = (logits.narrow(0, prompt.len() - 1, completion.len()).unwrap() / 0.8).unwrap();
            let targets = Tensor::new(completion.as_slice(), &Device::Cpu).unwrap();
            let logprobs = log_probabilities(&logits, &targets).unwrap();
            let all = candle_nn::ops::log_softmax(&logits, 1).unwrap();
            let entropies = (all.exp().unwrap() * &all).unwrap().sum(1).unwrap().neg().unwrap();
            let values = (logprobs.to_vec1::<f32>().unwrap(), entropies.to_vec1::<f32>().unwrap());
            let first = stats.len();
            let grads: Vec<TokenGrad> = (0..completion.len()).map(|i| weights_of_loss(first + i)).collect();
            let by =
                |f: fn(&TokenGrad) -> f32| Tensor::new(grads.iter().map(f).collect::<Vec<_>>(), &Device::Cpu).unwrap();
            let part = ((logprobs * by(|g| g.logprob)).unwrap() + (entropies * by(|g| g.entropy)).unwrap()).unwrap();
            loss = (loss + part.sum_all().unwrap()).unwrap();
            stats.extend(values.0.into_iter().zip(values.1).map(|(logprob, entropy)| TokenStats { logprob, entropy }));
        }
    }
    let store = loss.backward().unwrap();
    let grads = twin
        .lora_vars()
        .iter()
        .map(|(name, var)| (name.clone(), store.get(var).unwrap().flatten_all().unwrap().to_vec1().unwrap()))
        .collect();
    (stats, grads)
}

fn largest_difference(a: impl IntoIterator<Item = f32>, b: impl IntoIterator<Item = f32>) -> f32 {
    a.into_iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn close_relative(name: &str, got: &[f32], expected: &[f32], tolerance: f32) {
    let norm = |x: &[f32]| x.iter().map(|x| x * x).sum::<f32>().sqrt();
    let difference: Vec<f32> = got.iter().zip(expected).map(|(a, b)| a - b).collect();
    let relative = norm(&difference) / norm(expected).max(1e-12);
    assert!(relative < tolerance, "{name}: relative error {relative}");
}

fn check(architecture: Architecture, modules: &[&str]) {
    let config = config(architecture);
    let tensors = random_weights(&config, 3, 0.3).unwrap();
    let decoder = CpuDecoder::load(config.clone(), &Held(tensors.clone()), 256).unwrap();
    let adapter = filled_adapter(&config, &lora(modules));
    let groups = groups(config.vocab_size);
    let pack = pack(&groups);
    let (stats, grads) = fused(&decoder, &adapter, &pack, Keep::Everything, 0);
    let (expected_stats, expected_grads) = reference(&config, &tensors, &adapter, &groups);
    let logprobs = largest_difference(stats.iter().map(|s| s.logprob), expected_stats.iter().map(|s| s.logprob));
    let entropies = largest_difference(stats.iter().map(|s| s.entropy), expected_stats.iter().map(|s| s.entropy));
    assert!(logprobs < 2e-5 && entropies < 2e-5, "log-probabilities differ by {logprobs}, entropies by {entropies}");
    assert_eq!(adapter.slots.len(), expected_grads.len());
    for (name, slot) in &adapter.slots {
        let got = slot.read(&grads);
        assert!(got.iter().any(|g| *g != 0.0), "no gradient reaches {name}");
        close_relative(name, &got, &expected_grads[name], 1e-4);
    }
}

#[test]
fn qwen2_equals_the_reference_decoder() {
    check(Architecture::Qwen2, &["all-linear"]);
}

#[test]
fn qwen3_equals_the_reference_decoder() {
    check(Architecture::Qwen3, &["all-linear"]);
}

#[test]
fn llama_equals_the_reference_decoder() {
    check(Architecture::Llama, &["all-linear"]);
}

#[test]
fn any_subset_of_modules_can_be_adapted() {
    check(Architecture::Qwen2, &["v_proj", "up_proj"]);
    check(Architecture::Qwen2, &["q_proj", "v_proj", "o_proj", "down_proj"]);
}

/// Keeping only the inputs of the blocks gives the same bits.
#[test]
fn checkpointed_equals_plain() {
    let config = config(Architecture::Qwen3);
    let decoder = CpuDecoder::load(config.clone(), &Held(random_weights(&config, 3, 0.3).unwrap()), 256).unwrap();
    let adapter = filled_adapter(&config, &lora(&["all-linear"]));
    let pack = pack(&groups(config.vocab_size));
    assert_eq!(
        fused(&decoder, &adapter, &pack, Keep::Everything, 0),
        fused(&decoder, &adapter, &pack, Keep::Inputs, 0)
    );
}

/// One pack, or a micro-batch for each completion with the prompt repeated.
#[test]
fn splitting_a_group_does_not_change_gradients() {
    let config = config(Architecture::Qwen2);
    let decoder = CpuDecoder::load(config.clone(), &Held(random_weights(&config, 3, 0.3).unwrap()), 256).unwrap();
    let adapter = filled_adapter(&config, &lora(&["all-linear"]));
    let groups = groups(config.vocab_size);
    let (stats, grads) = fused(&decoder, &adapter, &pack(&groups), Keep::Everything, 0);
    let (mut split_stats, mut split_grads) = (Vec::new(), vec![0.0; grads.len()]);
    for (prompt, completions) in &groups {
        for completion in completions {
            let one = pack(&[(prompt.clone(), vec![completion.clone()])]);
            let (stats, grads) = fused(&decoder, &adapter, &one, Keep::Everything, split_stats.len());
            split_stats.extend(stats);
            split_grads.iter_mut().zip(grads).for_each(|(sum, grad)| *sum += grad);
        }
    }
    assert_eq!(stats, split_stats, "a completion's values depend on its pack");
    close_relative("all tensors", &split_grads, &grads, 1e-5);
}
