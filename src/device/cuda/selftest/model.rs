//! The forward and backward of a small random decoder with its adapter, compared with the CPU's.

use super::case::{SelftestCase, name};
use super::lab::{Lab, Twin, distance, rounded};
use crate::config::LoraSection;
use crate::device::Extent;
use crate::device::cpu::decoder::{CpuDecoder, Precision};
use crate::device::cpu::learner::CpuLearner;
use crate::device::cuda::Shared;
use crate::device::cuda::learner::CudaLearner;
use crate::device::cuda::pack::DevicePack;
use crate::device::cuda::weights::WeightOrigin;
use crate::grpo::adamw::global_norm;
use crate::grpo::learner::{Keep, Learner};
use crate::model::config::{Architecture, ModelConfig};
use crate::model::lora::Adapter;
use crate::model::pack::Pack;
use crate::model::weights::Weights;
use crate::ops::attention::Heads;
use crate::rng::{Purpose, Stream, name_hash};
use anyhow::Result;

/// Positions of the small decoders.
pub const POSITIONS: usize = 320;

/// A decoder of two blocks, whose widths are not multiples of a tile and whose vocabulary is odd.
pub fn shape(query: usize, kv: usize, dim: usize, inner: usize) -> ModelConfig {
    ModelConfig {
        head_dim: dim,
        tie_word_embeddings: kv == 1,
        max_position_embeddings: POSITIONS,
        eos_token_ids: vec![1],
        ..ModelConfig::qwen2(2, 264, (query, kv), inner, 515)
    }
}

/// The same in another model family.
pub fn qwen3(config: ModelConfig) -> ModelConfig {
    ModelConfig { architecture: Architecture::Qwen3, qk_norm: true, qkv_bias: false, ..config }
}

/// Random weights that bf16 can represent, of a size at which every part of a block matters.
pub struct TestWeights(pub u64);

impl Weights for TestWeights {
    fn get(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let stream = Stream::new(self.0, Purpose::ModelInit, &[name_hash(name)]);
        let (mean, deviation) = match shape {
            [_] if name.ends_with("norm.weight") => (1.0, 0.1),
            [_] => (0.0, 0.1),
            [_, inputs] if name.contains("proj") => (0.0, 1.0 / (*inputs as f64).sqrt()),
            _ => (0.0, 0.15),
        };
        let len = shape.iter().product::<usize>() as u64;
        Ok((0..len).map(|i| rounded((mean + deviation * stream.normal(i)) as f32)).collect())
    }

    fn contains(&self, _name: &str) -> bool {
        true
    }
}

/// The same model on both devices, with an adapter that has an effect.
pub struct ModelPair {
    pub cpu: CpuDecoder,
    /// The CPU's with the GPU's rounding.
    pub rounded: CpuDecoder,
    pub gpu: Shared,
    pub adapter: Adapter,
    /// The adapter as the GPU's products read it.
    pub kept: Adapter,
}

/// An adapter whose A and scale · B are rounded to bf16.
pub fn as_stored(adapter: &Adapter) -> Adapter {
    let mut stored = adapter.clone();
    for block in &adapter.blocks {
        for group in [&block.qkv, &block.o, &block.gate_up, &block.down] {
            stored.params[group.a.clone()].iter_mut().for_each(|a| *a = rounded(*a));
            for part in &group.parts {
                stored.params[part.b.clone()].iter_mut().for_each(|b| *b = rounded(group.scale * *b) / group.scale);
            }
        }
    }
    stored
}

/// Loads a decoder for the CPU in f32, and the same with the GPU's rounding.
pub fn twins(config: &ModelConfig, weights: &dyn Weights) -> Result<[CpuDecoder; 2]> {
    let exact = CpuDecoder::load(config.clone(), weights, POSITIONS)?;
    let mut rounded = CpuDecoder::load(config.clone(), weights, POSITIONS)?;
    rounded.precision = Precision::Bf16;
    Ok([exact, rounded])
}

impl ModelPair {
    pub fn new(lab: &mut Lab, config: &ModelConfig, rank: usize, bytes: u64) -> Result<Self> {
        let weights = TestWeights(lab.stream().u64(0));
        let mut adapter = Adapter::new(config, &LoraSection::all_linear(rank), 5)?;
        let values = lab.normals(adapter.params.len(), 1.0);
        for (name, slot) in &adapter.slots {
            let deviation = if name.contains(".lora_B.") { 0.02 } else { 0.06 };
            for i in slot.range.clone() {
                adapter.params[i] = rounded(deviation * values[i]);
            }
        }
        let extent =
            Extent { positions: POSITIONS, max_rows: 64, working_bytes: Some(bytes), keep: None, taught: false };
        let origin = WeightOrigin::Checkpoint(&weights);
        let gpu = Shared::on(lab.gpu.clone(), config.clone(), &origin, Some(&adapter), &extent)?;
        let [cpu, rounded] = twins(config, &weights)?;
        Ok(Self { cpu, rounded, gpu, kept: as_stored(&adapter), adapter })
    }
}

fn random_pack(lab: &mut Lab, vocab: usize) -> Pack {
    let mut pack = Pack::default();
    for (prompt, completions) in [(37, vec![20, 1, 90]), (3, vec![41, 2]), (70, vec![33, 65, 5, 5])] {
        let prompt = lab.below(prompt, vocab);
        let completions: Vec<Vec<u32>> = completions.into_iter().map(|len| lab.below(len, vocab)).collect();
        pack.push(&prompt, &completions.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }
    pack
}

/// Log-probabilities, entropies, and the gradient of a fixed sum of them.
fn gradient(
    learner: &mut dyn Learner,
    adapter: &Adapter,
    pack: &Pack,
    coefficients: &[f32],
    keep: Keep,
) -> Result<[Vec<f32>; 3]> {
    learner.begin(adapter)?;
    learner.forward(Some(adapter), pack, keep)?;
    let stats = learner.token_stats(pack, 0.9)?;
    learner.head_backward(pack, 0.9, coefficients, 0.05)?;
    learner.backward(adapter, pack)?;
    let logprobs = stats.iter().map(|stats| stats.logprob).collect();
    Ok([logprobs, stats.iter().map(|stats| stats.entropy).collect(), learner.gradient()?])
}

/// Checks a gradient as a whole, and the tensor whose error is largest relative to the effect of rounding. If a few
/// tokens make up most of a tensor's gradient, the rounded reference can be close to the exact one by chance: so no
/// tensor's bound is below that of the whole gradient.
pub fn check_gradient(lab: &mut Lab, what: &str, adapter: &Adapter, got: &[f32], twin: &Twin) {
    lab.near(&format!("{what}gradient"), got, twin);
    let least = twin.bar();
    let tensors =
        adapter.tensors(got).into_iter().zip(adapter.tensors(&twin.exact)).zip(adapter.tensors(&twin.rounded));
    let checked = tensors.map(|(((name, _, got), (_, _, exact)), (_, _, rounded))| {
        let twin = Twin { exact, rounded };
        (name, distance(&got, &twin.exact), twin.bar().max(least))
    });
    // NaN counts as the worst error.
    let rank = |(_, error, bar): &(String, f64, f64)| if error.is_nan() { f64::INFINITY } else { error / bar };
    if let Some((name, error, bar)) = checked.max_by(|a, b| rank(a).total_cmp(&rank(b))) {
        lab.value(&format!("{what}gradient of {name}, worst tensor"), error, bar);
    }
}

pub fn decoder() -> Vec<SelftestCase> {
    // The second as in Qwen3: a norm on the heads of q and k, no bias.
    [(4, 4, 32, 8), (6, 2, 64, 12), (7, 1, 128, 32), (8, 1, 64, 64)]
        .map(|(query, kv, dim, rank)| {
            let family = shape(query, kv, dim, 376);
            let family = if kv == 2 { qwen3(family) } else { family };
            let name = format!("{}, rank {rank}", name(Heads { query, kv, dim }));
            SelftestCase::new(name, move |lab| one_decoder(lab, &family, rank))
        })
        .into()
}

fn one_decoder(lab: &mut Lab, family: &ModelConfig, rank: usize) -> Result<()> {
    let pair = ModelPair::new(lab, family, rank, 512 << 20)?;
    let pack = random_pack(lab, pair.cpu.config.vocab_size);
    for (with, adapter) in [("with its adapter", Some(&pair.adapter)), ("without", None)] {
        pair.gpu.make_current(&pair.adapter)?;
        let hidden = |cpu: &CpuDecoder, adapter| cpu.forward(adapter, &pack, Keep::Nothing).hidden;
        let kept = adapter.map(|_| &pair.kept);
        let twin = Twin { exact: hidden(&pair.cpu, adapter), rounded: hidden(&pair.rounded, kept) };
        let at = DevicePack::new(&lab.gpu, &mut lab.arena, &pack, pair.cpu.heads())?;
        let decoder = &pair.gpu.decoder;
        let got = decoder.forward(&lab.gpu, &mut lab.arena, adapter.is_some(), &at, Keep::Nothing)?.hidden;
        let got = lab.read(got)?;
        lab.near(&format!("hidden rows {with}"), &got, &twin);
    }
    let coefficients = lab.normals(pack.pairs.len(), 1.0);
    let of = |learner: &mut dyn Learner, adapter| gradient(learner, adapter, &pack, &coefficients, Keep::Everything);
    let mut learner = CudaLearner::new(&pair.gpu);
    let [got, got_entropies, got_grads] = of(&mut learner, &pair.adapter)?;
    let [exact, exact_entropies, exact_grads] = of(&mut CpuLearner::new(&pair.cpu), &pair.adapter)?;
    let [rounded, rounded_entropies, rounded_grads] = of(&mut CpuLearner::new(&pair.rounded), &pair.kept)?;
    lab.near("log-probabilities", &got, &Twin { exact, rounded });
    lab.near("entropies", &got_entropies, &Twin { exact: exact_entropies, rounded: rounded_entropies });
    let norm = global_norm(&got_grads, &pair.adapter.ranges());
    lab.value("norm of the gradient", (learner.gradient_norm(&pair.adapter)? / norm - 1.0).abs(), 1e-6);
    check_gradient(lab, "", &pair.adapter, &got_grads, &Twin { exact: exact_grads, rounded: rounded_grads });
    Ok(())
}

/// Distilling over the whole vocabulary: the teacher has no adapter and longer prompts.
pub fn distillation() -> Vec<SelftestCase> {
    vec![SelftestCase::new("", one_distillation)]
}

fn one_distillation(lab: &mut Lab) -> Result<()> {
    let pair = ModelPair::new(lab, &shape(6, 2, 64, 376), 16, 512 << 20)?;
    let vocab = pair.cpu.config.vocab_size;
    let (mut pack, mut teacher) = (Pack::default(), Pack::default());
    for (prompt, longer, completions) in [(3, 61, vec![20, 1, 90]), (37, 45, vec![41, 2])] {
        let (prompt, longer) = (lab.below(prompt, vocab), lab.below(longer, vocab));
        let completions: Vec<Vec<u32>> = completions.into_iter().map(|len| lab.below(len, vocab)).collect();
        let completions: Vec<&[u32]> = completions.iter().map(Vec::as_slice).collect();
        pack.push(&prompt, &completions);
        teacher.push(&longer, &completions);
    }
    let weights: Vec<f32> = lab.normals(pack.pairs.len(), 1.0).into_iter().map(f32::abs).collect();
    let of = |learner: &mut dyn Learner, adapter: &Adapter, keep| -> Result<[Vec<f32>; 2]> {
        learner.begin(adapter)?;
        learner.teach(&teacher)?;
        learner.forward(Some(adapter), &pack, keep)?;
        let stats = learner.distill_backward(&pack, 0.9, &weights)?;
        learner.backward(adapter, &pack)?;
        Ok([stats.iter().map(|stats| stats.kl).collect(), learner.gradient()?])
    };
    let mut learner = CudaLearner::new(&pair.gpu);
    let [got, got_grads] = of(&mut learner, &pair.adapter, Keep::Everything)?;
    let [exact, exact_grads] = of(&mut CpuLearner::new(&pair.cpu), &pair.adapter, Keep::Everything)?;
    let [rounded, rounded_grads] = of(&mut CpuLearner::new(&pair.rounded), &pair.kept, Keep::Everything)?;
    lab.near("divergences", &got, &Twin { exact, rounded });
    check_gradient(lab, "", &pair.adapter, &got_grads, &Twin { exact: exact_grads, rounded: rounded_grads });
    let [_, again] = of(&mut learner, &pair.adapter, Keep::Inputs)?;
    lab.same("equal bits with checkpointing", &again, &got_grads);
    Ok(())
}

/// A backward pass that recomputes its blocks gives the same bits, and so does the same pass a second time.
pub fn checkpointing() -> Vec<SelftestCase> {
    let case = SelftestCase::new("", |lab| {
        let pair = ModelPair::new(lab, &shape(6, 2, 64, 376), 16, 512 << 20)?;
        let pack = random_pack(lab, pair.cpu.config.vocab_size);
        let coefficients = lab.normals(pack.pairs.len(), 1.0);
        let mut learner = CudaLearner::new(&pair.gpu);
        let mut grads =
            |keep| gradient(&mut learner, &pair.adapter, &pack, &coefficients, keep).map(|[_, _, grads]| grads);
        let (kept, again, inputs) = (grads(Keep::Everything)?, grads(Keep::Everything)?, grads(Keep::Inputs)?);
        lab.same("equal bits when repeated", &again, &kept);
        lab.same("equal bits with checkpointing", &inputs, &kept);
        Ok(())
    });
    vec![case]
}
