//! The gradient pass: groups of one optimizer update ► packed micro-batches ► gradient of the adapter.

use super::learner::{Learner, OutOfMemory};
use super::objective::{CompletionTerms, Normalizer, Objective};
use super::totals::{SamplingGap, Totals};
use crate::config::DistillKl;
use crate::grpo::learner::Keep;
use crate::model::lora::Adapter;
use crate::model::pack::Pack;
use crate::ops::head::TokenStats;
use crate::rollout::Completion;
use anyhow::Result;
use std::collections::VecDeque;
use std::ops::Range;

/// How many times a micro-batch that does not fit in the device's memory is halved.
const MAX_HALVINGS: usize = 3;

/// A prompt and those of its completions that belong to the update.
#[derive(Clone)]
pub struct TrainGroup<'a> {
    pub prompt: &'a [u32],
    /// The prompt that the teacher sees, if a prompt is distilled.
    pub teacher: Option<&'a [u32]>,
    pub completions: Vec<TrainCompletion<'a>>,
}

#[derive(Clone, Copy)]
pub struct TrainCompletion<'a> {
    pub tokens: &'a [u32],
    /// Log-probabilities recorded when the tokens were sampled.
    pub logprobs: &'a [f32],
    /// Importance weight of each token; `None`: 1.
    pub weights: Option<&'a [f32]>,
    pub advantage: f32,
    pub masked: bool,
}

impl<'a> TrainCompletion<'a> {
    /// `coefficient` times the importance weight of each token.
    fn weigh(&self, coefficient: f32, tokens: &mut [f32]) {
        tokens.fill(coefficient);
        if let Some(weights) = self.weights {
            assert_eq!(weights.len(), tokens.len(), "one weight per token");
            tokens.iter_mut().zip(weights).for_each(|(value, weight)| *value *= weight);
        }
    }

    /// A completion as it was sampled, without advantage.
    pub fn unweighted(completion: &'a Completion) -> Self {
        Self {
            tokens: &completion.tokens,
            logprobs: &completion.logprobs,
            weights: None,
            advantage: 0.0,
            masked: false,
        }
    }
}

impl<'a> TrainGroup<'a> {
    /// All of a prompt's completions, none of them masked.
    pub fn whole(prompt: &'a [u32], completions: &'a [Completion], advantages: &[f32]) -> Self {
        let completion = |(completion, &advantage): (&'a Completion, &f32)| TrainCompletion {
            advantage,
            ..TrainCompletion::unweighted(completion)
        };
        Self { prompt, teacher: None, completions: completions.iter().zip(advantages).map(completion).collect() }
    }
}

/// How the pass is split and computed; none of it changes the result beyond rounding.
#[derive(Clone, Copy, Debug)]
pub struct PassPlan {
    /// The temperature that the tokens were sampled at; log-probabilities are of logits / temperature.
    pub temperature: f32,
    /// Maximum rows of a packed micro-batch. A completion is never split, so a longer one is a micro-batch by itself.
    pub max_tokens: usize,
    pub gradient_checkpointing: bool,
    /// The policy has changed since the tokens were sampled: the recorded log-probabilities are the old ones of the
    /// ratio. Otherwise the ratio is exactly 1, and the recorded ones are used to measure the gap between sampler and
    /// trainer.
    pub off_policy: bool,
}

/// The results of a pass besides the gradient.
#[derive(Clone, Debug, Default)]
pub struct PassResult {
    pub totals: Totals,
    /// |sampled - recomputed| log-probability of each token, if the policy has not changed since.
    pub sampling_gap: SamplingGap,
    /// Completions whose gradient is not zero by construction.
    pub completions_with_signal: usize,
    pub micro_batches: usize,
    /// Micro-batches that did not fit in the device's memory and were halved.
    pub out_of_memory: usize,
    /// Rows that were computed in the decoder.
    pub rows: usize,
}

impl PassResult {
    /// Adds a micro-batch whose gradient is complete, with its own totals.
    fn add(&mut self, micro: &Micro, mut totals: Totals, stats: &[TokenStats], off_policy: bool) {
        if !off_policy {
            for (completion, range) in micro.completions() {
                let recomputed: Vec<f32> = stats[range].iter().map(|stats| stats.logprob).collect();
                self.sampling_gap.add_completion(completion.logprobs, &recomputed);
            }
        }
        totals.non_finite_logprobs = stats.iter().filter(|stats| !stats.logprob.is_finite()).count();
        self.totals.merge(&totals);
        self.completions_with_signal += micro.ranges.len();
        self.micro_batches += 1;
        self.rows += micro.pack.tokens.len() + micro.teacher.tokens.len();
    }
}

/// Adds the gradient of the update's loss to the learner's. `normalizer` covers all completions of the update, also
/// those left out here because their gradient is zero.
pub fn gradient_pass(
    learner: &mut dyn Learner,
    adapter: &Adapter,
    groups: &[TrainGroup],
    objective: &Objective,
    normalizer: &Normalizer,
    plan: &PassPlan,
) -> Result<PassResult> {
    let pass = gradient_pass_unless(learner, adapter, groups, objective, normalizer, plan, &|| false)?;
    Ok(pass.expect("never canceled"))
}

/// Like [`gradient_pass`]; `None` if `cancelled` returns true before a micro-batch, and the gradient is incomplete then.
pub fn gradient_pass_unless(
    learner: &mut dyn Learner,
    adapter: &Adapter,
    groups: &[TrainGroup],
    objective: &Objective,
    normalizer: &Normalizer,
    plan: &PassPlan,
    cancelled: &dyn Fn() -> bool,
) -> Result<Option<PassResult>> {
    let mut result = PassResult::default();
    let live = |completion: &TrainCompletion| {
        !completion.tokens.is_empty() && !objective.skips(completion.advantage, completion.masked)
    };
    let mut waiting: VecDeque<(Micro, usize)> =
        micro_batches(groups, live, plan.max_tokens).into_iter().map(|micro| (micro, 0)).collect();
    while let Some((micro, halvings)) = waiting.pop_front() {
        if cancelled() {
            return Ok(None);
        }
        match micro_batch(learner, adapter, &micro, objective, normalizer, plan, &mut result) {
            Ok(()) => {}
            // Nothing has been added to the gradient yet, and the normalizer does not depend on micro-batches: the
            // smaller parts give the same sum.
            Err(error) if error.is::<OutOfMemory>() && halvings < MAX_HALVINGS && micro.ranges.len() > 1 => {
                result.out_of_memory += 1;
                let smaller = micro_batches(&micro.groups, |_| true, micro.rows().div_ceil(2));
                smaller.into_iter().rev().for_each(|part| waiting.push_front((part, halvings + 1)));
            }
            Err(error) if error.is::<OutOfMemory>() => {
                let rows = micro.rows();
                return Err(error.context(format!(
                    "not enough memory for a micro-batch of {rows} tokens, which cannot be split further\n\
                     hint: lower `rollout.max_completion_length`, or set `train.gradient_checkpointing` to true"
                )));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Some(result))
}

/// Packed parts of groups.
#[derive(Default)]
pub(super) struct Micro<'a> {
    pub pack: Pack,
    /// The same completions after the teacher's prompts; empty without a teacher.
    teacher: Pack,
    groups: Vec<TrainGroup<'a>>,
    /// The pairs of each completion.
    pub ranges: Vec<Range<usize>>,
}

impl<'a> Micro<'a> {
    /// Every completion with its pairs.
    fn completions(&self) -> impl Iterator<Item = (&TrainCompletion<'a>, Range<usize>)> {
        self.groups.iter().flat_map(|group| &group.completions).zip(self.ranges.iter().cloned())
    }

    /// The rows of the larger of its two packs.
    fn rows(&self) -> usize {
        self.pack.tokens.len().max(self.teacher.tokens.len())
    }

    /// The same after the prompts of `group`, without its completions.
    fn rows_with(&self, group: &TrainGroup) -> usize {
        let teacher = group.teacher.map_or(0, |prompt| self.teacher.tokens.len() + prompt.len());
        teacher.max(self.pack.tokens.len() + group.prompt.len())
    }

    /// Adds some of the completions of `group`.
    fn push(&mut self, group: &TrainGroup<'a>, completions: Vec<TrainCompletion<'a>>) {
        let tokens: Vec<&[u32]> = completions.iter().map(|completion| completion.tokens).collect();
        self.ranges.extend(self.pack.push(group.prompt, &tokens));
        if let Some(prompt) = group.teacher {
            self.teacher.push(prompt, &tokens);
        }
        self.groups.push(TrainGroup { completions, ..*group });
    }
}

/// Fills packs in order with the completions that are `live`; a group that does not fit continues in the next pack,
/// with its prompt repeated.
pub(super) fn micro_batches<'a>(
    groups: &[TrainGroup<'a>],
    live: impl Fn(&TrainCompletion) -> bool,
    max_tokens: usize,
) -> Vec<Micro<'a>> {
    let mut micros = vec![Micro::default()];
    for group in groups {
        let mut rest: Vec<TrainCompletion> =
            group.completions.iter().filter(|completion| live(completion)).copied().collect();
        while !rest.is_empty() {
            let micro = micros.last_mut().expect("never empty");
            let mut rows = micro.rows_with(group);
            let fits = rest.iter().take_while(|completion| {
                rows += completion.tokens.len() - 1;
                rows <= max_tokens
            });
            let count = match fits.count() {
                // An empty pack accepts a completion of any length.
                0 if micro.groups.is_empty() => 1,
                count => count,
            };
            let taken: Vec<TrainCompletion> = rest.drain(..count).collect();
            if !taken.is_empty() {
                micro.push(group, taken);
            }
            if !rest.is_empty() {
                micros.push(Micro::default());
            }
        }
    }
    micros.retain(|micro| !micro.groups.is_empty());
    micros
}

fn micro_batch(
    learner: &mut dyn Learner,
    adapter: &Adapter,
    micro: &Micro,
    objective: &Objective,
    normalizer: &Normalizer,
    plan: &PassPlan,
    result: &mut PassResult,
) -> Result<()> {
    let pack = &micro.pack;
    // The reference sees the teacher's prompts, if a prompt is distilled.
    let other = if objective.distill.is_some() { &micro.teacher } else { pack };
    let keep = if plan.gradient_checkpointing { Keep::Inputs } else { Keep::Everything };
    if objective.distill == Some(DistillKl::Full) {
        learner.teach(other)?;
        learner.forward(Some(adapter), pack, keep)?;
        return distill_backward(learner, adapter, micro, objective, normalizer, plan, result);
    }
    let reference: Option<Vec<f32>> = match objective.needs_reference() {
        true => {
            learner.forward(None, other, Keep::Nothing)?;
            let stats = learner.token_stats(other, plan.temperature)?;
            Some(stats.iter().map(|stats| stats.logprob).collect())
        }
        false => None,
    };
    learner.forward(Some(adapter), pack, keep)?;

    // The coefficients of the log-probabilities: known in advance if every ratio is 1, else from a first pass over
    // the head; the logits are then computed a second time.
    let mut coefficients = vec![0.0f32; pack.pairs.len()];
    let mut totals = Totals::default();
    let mut finish = |stats: &[TokenStats], coefficients: &mut [f32]| {
        let logprobs: Vec<f32> = stats.iter().map(|stats| stats.logprob).collect();
        let entropies: Vec<f32> = stats.iter().map(|stats| stats.entropy).collect();
        for (completion, range) in micro.completions() {
            let terms = CompletionTerms {
                logprobs: &logprobs[range.clone()],
                old: plan.off_policy.then_some(completion.logprobs),
                reference: reference.as_ref().map(|reference| &reference[range.clone()]),
                entropy: Some(&entropies[range.clone()]),
                weights: completion.weights,
                advantage: completion.advantage,
                masked: completion.masked,
            };
            objective.completion(&terms, normalizer, &mut coefficients[range], &mut totals);
        }
    };
    let entropy = objective.entropy_grad(normalizer);
    let stats = if objective.needs_two_passes(plan.off_policy) {
        let stats = learner.token_stats(pack, plan.temperature)?;
        finish(&stats, &mut coefficients);
        learner.head_backward(pack, plan.temperature, &coefficients, entropy)?;
        stats
    } else {
        for (completion, range) in micro.completions() {
            let coefficient = objective.fixed_coefficient(completion.advantage, range.len(), normalizer);
            completion.weigh(coefficient, &mut coefficients[range]);
        }
        let stats = learner.head_backward(pack, plan.temperature, &coefficients, entropy)?;
        finish(&stats, &mut coefficients);
        stats
    };
    learner.backward(adapter, pack)?;
    result.add(micro, totals, &stats, plan.off_policy);
    Ok(())
}

/// The backward pass of the divergence from the teacher over the whole vocabulary, after both forward passes.
fn distill_backward(
    learner: &mut dyn Learner,
    adapter: &Adapter,
    micro: &Micro,
    objective: &Objective,
    normalizer: &Normalizer,
    plan: &PassPlan,
    result: &mut PassResult,
) -> Result<()> {
    let mut weights = vec![0.0f32; micro.pack.pairs.len()];
    for (completion, range) in micro.completions() {
        let weight = objective.distill_weight(range.len(), normalizer);
        completion.weigh(weight, &mut weights[range]);
    }
    let stats = learner.distill_backward(&micro.pack, plan.temperature, &weights)?;
    learner.backward(adapter, &micro.pack)?;
    let mut totals = Totals::default();
    for (_, range) in micro.completions() {
        totals.add_distilled(&stats[range.clone()], &weights[range]);
    }
    let stats: Vec<TokenStats> = stats.iter().map(|stats| stats.token).collect();
    result.add(micro, totals, &stats, plan.off_policy);
    Ok(())
}

/// The names of adapter tensors for which the gradient of Σ log-probability is zero, NaN or infinite.
/// Run before the first step: any mistake that silently cuts a gradient shows here. In a new adapter B is zero, so that
/// A gets no gradient; therefore the check uses a copy with a nonzero B.
pub fn unreached_tensors(
    learner: &mut dyn Learner,
    adapter: &Adapter,
    prompt: &[u32],
    tokens: &[u32],
) -> Result<Vec<String>> {
    let mut probe = adapter.clone();
    for (name, slot) in &adapter.slots {
        let values = &mut probe.params[slot.range.clone()];
        if name.contains(".lora_B.") && values.iter().all(|value| *value == 0.0) {
            // Any fixed pattern works; alternating signs keep the adapter's part small.
            values.iter_mut().enumerate().for_each(|(i, value)| *value = if i % 2 == 0 { 1e-3 } else { -1e-3 });
        }
    }
    let mut pack = Pack::default();
    pack.push(prompt, &[tokens]);
    learner.begin(&probe)?;
    learner.forward(Some(&probe), &pack, Keep::Everything)?;
    learner.head_backward(&pack, 1.0, &vec![1.0; pack.pairs.len()], 0.0)?;
    learner.backward(&probe, &pack)?;
    let grads = learner.gradient()?;
    let unreached = |range: &Range<usize>| {
        let grads = &grads[range.clone()];
        grads.iter().any(|g| !g.is_finite()) || grads.iter().all(|g| *g == 0.0)
    };
    Ok(adapter.slots.iter().filter(|(_, slot)| unreached(&slot.range)).map(|(name, _)| name.clone()).collect())
}
