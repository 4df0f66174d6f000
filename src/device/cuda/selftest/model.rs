//! A small random decoder with its adapter, forward and back, against the CPU's.

use super::lab::{Lab, distance, rounded};
use super::{BF16, EXACT, GRADIENT};
use crate::config::LoraSection;
use crate::device::Extent;
use crate::device::cpu::decoder::Decoder;
use crate::device::cpu::learner::CpuLearner;
use crate::device::cuda::Shared;
use crate::device::cuda::learner::CudaLearner;
use crate::device::cuda::pack::DevicePack;
use crate::device::cuda::weights::Origin;
use crate::grpo::learner::{Keep, Learner};
use crate::model::config::{Architecture, ModelConfig};
use crate::model::lora::Adapter;
use crate::model::pack::Pack;
use crate::model::weights::Weights;
use crate::rng::{Purpose, Stream, name_hash};
use anyhow::Result;

/// Positions of the small decoders.
pub const POSITIONS: usize = 320;

/// A decoder of two blocks, whose widths are no multiples of a tile and whose vocabulary is odd.
pub fn shape(query: usize, kv: usize, dim: usize, inner: usize) -> ModelConfig {
    ModelConfig {
        head_dim: dim,
        tie_word_embeddings: kv == 1,
        max_position_embeddings: POSITIONS,
        eos_token_ids: vec![1],
        ..ModelConfig::qwen2(2, 264, (query, kv), inner, 515)
    }
}

/// The same in another family.
pub fn qwen3(config: ModelConfig) -> ModelConfig {
    ModelConfig { architecture: Architecture::Qwen3, qk_norm: true, qkv_bias: false, ..config }
}

/// Random weights that bf16 can hold, of a size at which every part of a block matters.
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

/// The same model on both devices, with an adapter that does something.
pub struct Pair {
    pub cpu: Decoder,
    pub gpu: Shared,
    pub adapter: Adapter,
}

impl Pair {
    pub fn new(lab: &mut Lab, config: &ModelConfig, rank: usize, bytes: u64) -> Result<Self> {
        let weights = TestWeights(lab.stream().u64(0));
        Self::of(lab, config, &weights, rank, bytes)
    }

    pub fn of(lab: &mut Lab, config: &ModelConfig, weights: &dyn Weights, rank: usize, bytes: u64) -> Result<Self> {
        let mut adapter = Adapter::new(config, &LoraSection::all_linear(rank), 5)?;
        let values = lab.normals(adapter.params.len(), 1.0);
        for (name, slot) in &adapter.slots {
            let deviation = if name.contains(".lora_B.") { 0.02 } else { 0.06 };
            for i in slot.range.clone() {
                adapter.params[i] = rounded(deviation * values[i]);
            }
        }
        let extent = Extent { positions: POSITIONS, max_rows: 64, working_bytes: Some(bytes), keep: None };
        let origin = Origin::Checkpoint(weights);
        let gpu = Shared::on(lab.gpu.clone(), config.clone(), &origin, Some(&adapter), &extent)?;
        Ok(Self { cpu: Decoder::load(config.clone(), weights, POSITIONS)?, gpu, adapter })
    }
}

fn random_pack(lab: &mut Lab, vocab: usize) -> Pack {
    let mut pack = Pack::default();
    for (prompt, branches) in [(37, vec![20, 1, 90]), (3, vec![41, 2]), (70, vec![33, 65, 5, 5])] {
        let prompt = lab.below(prompt, vocab);
        let branches: Vec<Vec<u32>> = branches.into_iter().map(|len| lab.below(len, vocab)).collect();
        pack.push(&prompt, &branches.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }
    pack
}

/// Log-probabilities and the gradient of a fixed sum of them, and of entropies.
fn gradient(
    learner: &mut dyn Learner,
    adapter: &Adapter,
    pack: &Pack,
    coefficients: &[f32],
    keep: Keep,
) -> Result<(Vec<f32>, Vec<f32>, Vec<f32>)> {
    learner.begin(adapter)?;
    learner.forward(Some(adapter), pack, keep)?;
    let stats = learner.token_stats(pack, 0.9)?;
    learner.head_backward(pack, 0.9, coefficients, 0.05)?;
    learner.backward(adapter, pack)?;
    let logprobs = stats.iter().map(|stats| stats.logprob).collect();
    Ok((logprobs, stats.iter().map(|stats| stats.entropy).collect(), learner.gradient()?))
}

/// The tensor whose gradient is furthest off.
pub fn worst(adapter: &Adapter, got: &[f32], want: &[f32]) -> (String, f64) {
    let tensors = adapter.tensors(got).into_iter().zip(adapter.tensors(want));
    let errors = tensors.map(|((name, _, got), (_, _, want))| (name, distance(&got, &want)));
    // NaN is worse than anything.
    let rank = |error: f64| if error.is_nan() { f64::INFINITY } else { error };
    errors.max_by(|a, b| rank(a.1).total_cmp(&rank(b.1))).unwrap_or_default()
}

pub fn decoder(lab: &mut Lab) -> Result<()> {
    for (query, kv, dim, rank) in [(4, 4, 32, 8), (6, 2, 64, 12), (7, 1, 128, 32), (8, 1, 64, 64)] {
        lab.arena.clear();
        // The second as Qwen3 is: a norm on the heads of q and k, no bias.
        let family = shape(query, kv, dim, 376);
        let family = if kv == 2 { qwen3(family) } else { family };
        let pair = Pair::new(lab, &family, rank, 512 << 20)?;
        let pack = random_pack(lab, pair.cpu.config.vocab_size);
        let what = format!("{query} heads over {kv} of {dim}, rank {rank}");
        for (with, adapter) in [("with its adapter", Some(&pair.adapter)), ("without", None)] {
            pair.gpu.make_current(&pair.adapter)?;
            let want = pair.cpu.forward(adapter, &pack, Keep::Nothing).hidden;
            let at = DevicePack::new(&lab.gpu, &mut lab.arena, &pack, pair.cpu.heads())?;
            let decoder = &pair.gpu.decoder;
            let got = decoder.forward(&lab.gpu, &mut lab.arena, adapter.is_some(), &at, Keep::Nothing)?.hidden;
            lab.compare_bf16(&format!("{what}: hidden rows {with}"), got, &want, BF16)?;
        }
        let coefficients = lab.normals(pack.pairs.len(), 1.0);
        let (mut gpu, mut cpu) = (CudaLearner::new(&pair.gpu), CpuLearner::new(&pair.cpu));
        let (got, got_entropies, got_grads) =
            gradient(&mut gpu, &pair.adapter, &pack, &coefficients, Keep::Everything)?;
        let (want, entropies, grads) = gradient(&mut cpu, &pair.adapter, &pack, &coefficients, Keep::Everything)?;
        lab.compare(&format!("{what}: log-probabilities"), &got, &want, BF16);
        lab.compare(&format!("{what}: entropies"), &got_entropies, &entropies, BF16);
        let norm = |values: &[f32]| values.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
        let (found, wanted) = (gpu.gradient_norm(&pair.adapter)?, norm(&got_grads));
        lab.value(&format!("{what}: norm of the gradient"), (found / wanted - 1.0).abs(), 1e-6);
        let (name, error) = worst(&pair.adapter, &got_grads, &grads);
        lab.value(&format!("{what}: gradients, worst of {name}"), error, GRADIENT);
    }
    Ok(())
}

/// A backward pass that computes its blocks again gives the same bits, and so does the same pass a second time.
pub fn checkpointing(lab: &mut Lab) -> Result<()> {
    let pair = Pair::new(lab, &shape(6, 2, 64, 376), 16, 512 << 20)?;
    let pack = random_pack(lab, pair.cpu.config.vocab_size);
    let coefficients = lab.normals(pack.pairs.len(), 1.0);
    let mut learner = CudaLearner::new(&pair.gpu);
    let mut grads = |keep| gradient(&mut learner, &pair.adapter, &pack, &coefficients, keep).map(|found| found.2);
    let (kept, again, inputs) = (grads(Keep::Everything)?, grads(Keep::Everything)?, grads(Keep::Inputs)?);
    lab.compare("the same bits twice", &again, &kept, EXACT);
    lab.compare("the same bits from kept inputs", &inputs, &kept, EXACT);
    Ok(())
}
