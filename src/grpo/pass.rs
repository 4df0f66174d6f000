//! The gradient pass: groups of one optimiser update ► packed micro-batches ► gradient of the adapter.

use super::objective::{BranchTerms, Normaliser, Objective};
use super::totals::{SamplingGap, Totals};
use crate::model::decoder::{Decoder, Keep};
use crate::model::lora::Adapter;
use crate::model::pack::Pack;
use crate::ops::head::{TokenGrad, TokenStats};
use std::ops::Range;

/// A prompt and those of its branches that belong to the update.
pub struct TrainGroup<'a> {
    pub prompt: &'a [u32],
    pub branches: Vec<TrainBranch<'a>>,
}

#[derive(Clone, Copy)]
pub struct TrainBranch<'a> {
    pub tokens: &'a [u32],
    /// Log-probabilities recorded when the tokens were drawn.
    pub sampled: &'a [f32],
    pub advantage: f32,
    pub masked: bool,
}

/// How the pass is cut and computed; none of it changes the result beyond rounding.
#[derive(Clone, Copy, Debug)]
pub struct PassPlan {
    /// The temperature that the tokens were drawn at; log-probabilities are of logits / temperature.
    pub temperature: f32,
    /// Most rows of a packed micro-batch. A branch is atomic, so one that is longer is a micro-batch of its own.
    pub max_tokens: usize,
    pub gradient_checkpointing: bool,
    /// The policy has moved since the tokens were drawn: the recorded log-probabilities are the old ones of the ratio.
    /// Otherwise the ratio is exactly 1, and the recorded ones serve to measure the gap between sampler and trainer.
    pub off_policy: bool,
}

/// What a pass found beside the gradient.
#[derive(Clone, Debug, Default)]
pub struct PassResult {
    pub totals: Totals,
    /// |sampled - recomputed| log-probability of each token, where the policy has not moved since.
    pub sampling_gap: SamplingGap,
    /// Branches whose gradient is not zero by construction.
    pub branches_with_signal: usize,
    pub micro_batches: usize,
    /// Rows that went through the decoder.
    pub rows: usize,
}

/// Adds the gradient of the update's loss to `grads`, laid out as the adapter's parameters. `normaliser` is of all
/// branches of the update, also of those left out here because their gradient is zero.
pub fn gradient_pass(
    decoder: &Decoder,
    adapter: &Adapter,
    groups: &[TrainGroup],
    objective: &Objective,
    normaliser: &Normaliser,
    plan: &PassPlan,
    grads: &mut [f32],
) -> PassResult {
    let mut result = PassResult::default();
    for micro in micro_batches(groups, objective, plan.max_tokens) {
        micro_batch(decoder, adapter, &micro, objective, normaliser, plan, grads, &mut result);
    }
    result
}

/// A packed micro-batch with the branches whose tokens are its pairs.
struct Micro<'a> {
    pack: Pack,
    branches: Vec<(TrainBranch<'a>, Range<usize>)>,
}

/// Fills packs in order; a group that does not fit goes on in the next pack, with its prompt repeated.
fn micro_batches<'a>(groups: &[TrainGroup<'a>], objective: &Objective, max_tokens: usize) -> Vec<Micro<'a>> {
    let mut micros = vec![Micro { pack: Pack::default(), branches: Vec::new() }];
    for group in groups {
        let live = group.branches.iter().filter(|b| !b.tokens.is_empty() && !objective.skips(b.advantage, b.masked));
        let mut rest: Vec<TrainBranch> = live.copied().collect();
        while !rest.is_empty() {
            let micro = micros.last_mut().expect("never empty");
            let mut rows = micro.pack.tokens.len() + group.prompt.len();
            let fits = rest.iter().take_while(|branch| {
                rows += branch.tokens.len() - 1;
                rows <= max_tokens
            });
            let count = match fits.count() {
                // An empty pack takes a branch of any length.
                0 if micro.branches.is_empty() => 1,
                count => count,
            };
            let taken: Vec<TrainBranch> = rest.drain(..count).collect();
            if !taken.is_empty() {
                let tokens: Vec<&[u32]> = taken.iter().map(|branch| branch.tokens).collect();
                let ranges = micro.pack.push(group.prompt, &tokens);
                micro.branches.extend(taken.into_iter().zip(ranges));
            }
            if !rest.is_empty() {
                micros.push(Micro { pack: Pack::default(), branches: Vec::new() });
            }
        }
    }
    micros.retain(|micro| !micro.branches.is_empty());
    micros
}

#[allow(clippy::too_many_arguments, reason = "the body of the loop above")]
fn micro_batch(
    decoder: &Decoder,
    adapter: &Adapter,
    micro: &Micro,
    objective: &Objective,
    normaliser: &Normaliser,
    plan: &PassPlan,
    grads: &mut [f32],
    result: &mut PassResult,
) {
    let Micro { pack, branches } = micro;
    let head = decoder.head();
    let reference: Option<Vec<f32>> = (objective.beta != 0.0).then(|| {
        let activations = decoder.forward(None, pack, Keep::Nothing);
        let stats = head.forward(&activations.hidden, &pack.pairs, plan.temperature);
        stats.iter().map(|stats| stats.logprob).collect()
    });
    let keep = if plan.gradient_checkpointing { Keep::Inputs } else { Keep::Everything };
    let activations = decoder.forward(Some(adapter), pack, keep);

    // The coefficients of the log-probabilities: known beforehand where every ratio is 1, else from a first pass over
    // the head; the logits are then computed a second time.
    let mut coefficients = vec![0.0f32; pack.pairs.len()];
    let mut totals = Totals::default();
    let mut finish = |stats: &[TokenStats], coefficients: &mut [f32]| {
        let logprobs: Vec<f32> = stats.iter().map(|stats| stats.logprob).collect();
        let entropies: Vec<f32> = stats.iter().map(|stats| stats.entropy).collect();
        for (branch, range) in branches {
            let terms = BranchTerms {
                logprobs: &logprobs[range.clone()],
                old: plan.off_policy.then_some(branch.sampled),
                reference: reference.as_ref().map(|reference| &reference[range.clone()]),
                entropy: Some(&entropies[range.clone()]),
                advantage: branch.advantage,
                masked: branch.masked,
            };
            objective.branch(&terms, normaliser, &mut coefficients[range.clone()], &mut totals);
        }
    };
    let entropy = objective.entropy_grad(normaliser);
    let mut d_hidden = vec![0.0; activations.hidden.len()];
    let stats = if objective.needs_two_passes(plan.off_policy) {
        let stats = head.forward(&activations.hidden, &pack.pairs, plan.temperature);
        finish(&stats, &mut coefficients);
        let grad = |i: usize, _| TokenGrad { logprob: coefficients[i], entropy };
        head.backward(&activations.hidden, &pack.pairs, plan.temperature, grad, &mut d_hidden);
        stats
    } else {
        for (branch, range) in branches {
            let coefficient = objective.fixed_coefficient(branch.advantage, range.len(), normaliser);
            coefficients[range.clone()].fill(coefficient);
        }
        let grad = |i: usize, _| TokenGrad { logprob: coefficients[i], entropy };
        let stats = head.backward(&activations.hidden, &pack.pairs, plan.temperature, grad, &mut d_hidden);
        finish(&stats, &mut coefficients);
        stats
    };
    decoder.backward(adapter, pack, activations, &d_hidden, grads);

    if !plan.off_policy {
        for (branch, range) in branches {
            let recomputed: Vec<f32> = stats[range.clone()].iter().map(|stats| stats.logprob).collect();
            result.sampling_gap.add_branch(branch.sampled, &recomputed);
        }
    }
    result.totals.merge(&totals);
    result.branches_with_signal += branches.len();
    result.micro_batches += 1;
    result.rows += pack.tokens.len();
}

/// The names of adapter tensors that a gradient of Σ log-probability does not reach, or reaches with a NaN or infinity.
/// Run before the first step: every trap that cuts a gradient silently shows here. B is zero in a new adapter, which
/// keeps every gradient from A, so the check is made on a copy whose B is not.
pub fn unreached_tensors(decoder: &Decoder, adapter: &Adapter, prompt: &[u32], tokens: &[u32]) -> Vec<String> {
    let mut probe = adapter.clone();
    for (name, slot) in &adapter.slots {
        let values = &mut probe.params[slot.range.clone()];
        if name.contains(".lora_B.") && values.iter().all(|value| *value == 0.0) {
            // Any fixed pattern does; alternating signs keep the adapter's part small.
            values.iter_mut().enumerate().for_each(|(i, value)| *value = if i % 2 == 0 { 1e-3 } else { -1e-3 });
        }
    }
    let mut pack = Pack::default();
    pack.push(prompt, &[tokens]);
    let activations = decoder.forward(Some(&probe), &pack, Keep::Everything);
    let mut d_hidden = vec![0.0; activations.hidden.len()];
    let grad = |_, _| TokenGrad { logprob: 1.0, entropy: 0.0 };
    decoder.head().backward(&activations.hidden, &pack.pairs, 1.0, grad, &mut d_hidden);
    let mut grads = vec![0.0; probe.params.len()];
    decoder.backward(&probe, &pack, activations, &d_hidden, &mut grads);
    let unreached = |range: &Range<usize>| {
        let grads = &grads[range.clone()];
        grads.iter().any(|g| !g.is_finite()) || grads.iter().all(|g| *g == 0.0)
    };
    adapter.slots.iter().filter(|(_, slot)| unreached(&slot.range)).map(|(name, _)| name.clone()).collect()
}
