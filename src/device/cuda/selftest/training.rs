//! The gradient pass in too little memory, and some steps of training.

use super::SelftestCase;
use super::lab::{Lab, Twin, distance, rounded};
use super::model::{ModelPair, POSITIONS, as_stored, check_gradient, shape, twins};
use crate::config::{ConfigLayers, resolve};
use crate::device::Extent;
use crate::device::cpu::learner::CpuLearner;
use crate::device::cuda::Shared;
use crate::device::cuda::engine::CudaEngine;
use crate::device::cuda::learner::CudaLearner;
use crate::device::cuda::weights::WeightOrigin;
use crate::grpo::adamw::{AdamW, Hyper};
use crate::grpo::advantage::advantages;
use crate::grpo::learner::{Keep, Learner};
use crate::grpo::objective::Objective;
use crate::grpo::pass::{PassPlan, PassResult, TrainGroup, gradient_pass, unreached_tensors};
use crate::model::lora::Adapter;
use crate::model::pack::Pack;
use crate::model::source::ModelSource;
use crate::model::weights::Weights;
use crate::rng::{Purpose, Stream};
use crate::rollout::{Completion, Engine, Prompt, RolloutRequest, Sampling, Unwatched};
use anyhow::{Context, Result};

/// A checkpoint whose values bf16 can represent, so that both devices have the same.
struct Rounded<'a>(&'a dyn Weights);

impl Weights for Rounded<'_> {
    fn get(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        Ok(self.0.get(name, shape)?.into_iter().map(rounded).collect())
    }

    fn contains(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}

/// A batch of an update.
struct UpdateBatch {
    prompts: Vec<Prompt>,
    groups: Vec<Vec<Completion>>,
    advantages: Vec<Vec<f32>>,
    temperature: f32,
}

impl UpdateBatch {
    /// Log-probabilities of all tokens, by completion.
    fn logprobs(&self, learner: &mut dyn Learner, adapter: &Adapter) -> Result<Vec<f32>> {
        let mut logprobs = Vec::new();
        learner.begin(adapter)?;
        for (prompt, group) in self.prompts.iter().zip(&self.groups) {
            let mut pack = Pack::default();
            pack.push(&prompt.ids, &group.iter().map(|completion| &completion.tokens[..]).collect::<Vec<_>>());
            learner.forward(Some(adapter), &pack, Keep::Nothing)?;
            logprobs.extend(learner.token_stats(&pack, self.temperature)?.iter().map(|stats| stats.logprob));
        }
        Ok(logprobs)
    }

    /// The gradient of an update.
    fn pass(
        &self,
        learner: &mut dyn Learner,
        adapter: &Adapter,
        objective: &Objective,
        max_tokens: usize,
    ) -> Result<(Vec<f32>, PassResult)> {
        let groups: Vec<TrainGroup> = self
            .prompts
            .iter()
            .zip(self.groups.iter().zip(&self.advantages))
            .map(|(prompt, (completions, advantages))| TrainGroup::whole(&prompt.ids, completions, advantages))
            .collect();
        let lengths: Vec<usize> = self.groups.iter().flatten().map(|completion| completion.tokens.len()).collect();
        let normalizer = objective.normalizer(&lengths, &vec![false; lengths.len()]);
        let plan =
            PassPlan { temperature: self.temperature, max_tokens, gradient_checkpointing: false, off_policy: false };
        learner.begin(adapter)?;
        let result = gradient_pass(learner, adapter, &groups, objective, &normalizer, &plan)?;
        Ok((learner.gradient()?, result))
    }
}

/// A micro-batch that does not fit is halved, and the gradient stays the same.
pub fn memory() -> Vec<SelftestCase> {
    vec![SelftestCase::new("", in_too_little_memory)]
}

fn in_too_little_memory(lab: &mut Lab) -> Result<()> {
    let config = shape(6, 2, 64, 376);
    let pair = ModelPair::new(lab, &config, 16, 512 << 20)?;
    let grpo = resolve(&ConfigLayers::default())?.config.grpo;
    let objective = Objective::new(&grpo, 64)?;
    let mut batch = UpdateBatch { prompts: Vec::new(), groups: Vec::new(), advantages: Vec::new(), temperature: 1.0 };
    for key in 0..3 {
        batch.prompts.push(Prompt { ids: lab.below(20, config.vocab_size), key });
        let completion = |lab: &mut Lab, len| Completion {
            tokens: lab.below(len, config.vocab_size),
            logprobs: vec![-6.0; len],
            finish: crate::rollout::Finish::Length,
            server: None,
        };
        batch.groups.push([40, 61, 33, 52].map(|len| completion(lab, len)).into());
        batch.advantages.push(vec![1.0, -0.5, 0.25, -0.75]);
    }
    let (whole, fitted) = batch.pass(&mut CudaLearner::new(&pair.gpu), &pair.adapter, &objective, 4_096)?;
    lab.holds("a micro-batch that fits is not halved", fitted.out_of_memory == 0 && fitted.micro_batches == 1);
    // Less and less memory, until a micro-batch has to be halved.
    let used = pair.gpu.arena.borrow().peak() as u64;
    let mut cut = None;
    for sixteenths in (4..16).rev() {
        pair.gpu.arena.borrow_mut().limit((used * sixteenths / 16) as usize);
        let passed = batch.pass(&mut CudaLearner::new(&pair.gpu), &pair.adapter, &objective, 4_096);
        let (grads, result) = passed.context("a pass in little memory")?;
        if result.out_of_memory > 0 {
            cut = Some((grads, result));
            break;
        }
    }
    let (halved, result) = cut.context("no amount of memory was too little")?;
    lab.holds("a micro-batch that does not fit is halved", result.micro_batches > 1);
    let of = |cpu, adapter| batch.pass(&mut CpuLearner::new(cpu), adapter, &objective, 4_096).map(|(grads, _)| grads);
    let twin = Twin { exact: of(&pair.cpu, &pair.adapter)?, rounded: of(&pair.rounded, &pair.kept)? };
    // Smaller products may sum in another order, and a prompt in two parts is rounded twice.
    lab.value("the gradient in parts compared with the whole one", distance(&halved, &whole), twin.bar());
    check_gradient(lab, "", &pair.adapter, &halved, &twin);
    Ok(())
}

/// At temperature 1 the embedded model is so certain that a few tokens make up most of the gradient, and their rounding
/// most of its error: from 1 % to 10 % by seed. At this temperature all tokens count, and it is 0.5 % to 1.5 %.
const TEMPERATURE: f32 = 4.0;

/// Three steps on the embedded model, rewarded by a hash of the tokens.
pub fn training() -> Vec<SelftestCase> {
    vec![SelftestCase::new("", three_steps)]
}

fn three_steps(lab: &mut Lab) -> Result<()> {
    let source = ModelSource::open_embedded()?;
    let run = resolve(&ConfigLayers::default())?.config;
    let mut adapter = Adapter::new(&source.config, &run.lora, 42)?;
    let extent =
        Extent { positions: POSITIONS, max_rows: 32, working_bytes: Some(512 << 20), keep: None, taught: false };
    let weights = Rounded(source.weights.as_ref());
    let origin = WeightOrigin::Checkpoint(&weights);
    let shared = Shared::on(lab.gpu.clone(), source.config.clone(), &origin, Some(&adapter), &extent)?;
    let [exact, rounded] = twins(&source.config, &weights)?;
    let mut learner = CudaLearner::new(&shared);
    let unreached = unreached_tensors(&mut learner, &adapter, &[5, 6, 7], &[8, 9, 10, 11])?;
    lab.holds(&format!("every adapter tensor gets a gradient {unreached:?}"), unreached.is_empty());
    let objective = Objective::new(&run.grpo, 48)?;
    let mut adamw = AdamW::new(adapter.params.len());
    let first = adapter.params.clone();
    let sampling = Sampling::plain(TEMPERATURE);
    for step in 1..=3 {
        let prompts: Vec<Prompt> =
            (0..4).map(|key| Prompt { ids: lab.below(21, source.config.vocab_size), key }).collect();
        let request = RolloutRequest {
            prompts: &prompts,
            num_generations: 8,
            sampling: &sampling,
            max_completion_length: 48,
            seed: lab.stream().u64(0),
            step,
            ends: &|_| false,
            stop_tokens: &source.config.eos_token_ids,
        };
        let made = CudaEngine::new(&shared, 32).generate(Some(&adapter), &request, &mut Unwatched)?;
        let groups = made.context("the rollout was canceled")?;
        let reward = |completion: &Completion| {
            let tokens: Vec<u64> = completion.tokens.iter().map(|&token| u64::from(token)).collect();
            Stream::new(step, Purpose::Test, &tokens).f64(0)
        };
        let rewards: Vec<Vec<f64>> = groups.iter().map(|group| group.iter().map(reward).collect()).collect();
        let advantages = advantages(&rewards, run.grpo.scale_rewards).values;
        let batch = UpdateBatch { prompts, groups, advantages, temperature: TEMPERATURE };
        let kept = as_stored(&adapter);
        let (mut exact, mut rounded) = (CpuLearner::new(&exact), CpuLearner::new(&rounded));
        let twin = Twin { exact: batch.logprobs(&mut exact, &adapter)?, rounded: batch.logprobs(&mut rounded, &kept)? };
        let sampled: Vec<f32> =
            batch.groups.iter().flatten().flat_map(|completion| &completion.logprobs).copied().collect();
        lab.near(&format!("step {step}: log-probabilities of the rollout"), &sampled, &twin);
        let learned = batch.logprobs(&mut learner, &adapter)?;
        lab.near(&format!("step {step}: log-probabilities of training"), &learned, &twin);
        let (grads, result) = batch.pass(&mut learner, &adapter, &objective, 4_096)?;
        lab.holds(&format!("step {step}: a finite loss"), result.totals.loss.is_finite());
        let of = |cpu: &mut CpuLearner, adapter: &Adapter| {
            batch.pass(cpu, adapter, &objective, 4_096).map(|(grads, _)| grads)
        };
        let twin = Twin { exact: of(&mut exact, &adapter)?, rounded: of(&mut rounded, &kept)? };
        check_gradient(lab, &format!("step {step}: "), &adapter, &grads, &twin);

        let hyper = Hyper { lr: 1e-3, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.0 };
        let norm = learner.gradient_norm(&adapter)?;
        lab.holds(&format!("step {step}: a finite gradient"), norm.is_finite() && norm > 0.0);
        learner.step(&mut adapter, &mut adamw, &hyper, 1.0)?;
    }
    let moved = distance(&adapter.params, &first);
    lab.holds(&format!("the adapter changed by {moved:.1e} of its norm"), moved > 0.0 && moved.is_finite());
    Ok(())
}
