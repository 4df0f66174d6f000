//! The loss as a function of the log-probabilities, and its derivative with respect to each of them.
//!
//! For token t of completion i let l, o and f be its log-probability now, under the policy that sampled it, and under
//! the reference, A the completion's advantage, r = exp(l - o). Every objective is a weighted sum over tokens,
//!
//! ```text
//! loss = sum_i sum_t weight_i (policy(r, A, l) + beta kl(f - l)) - entropy_coef mean_t H_t
//! ```
//!
//! and the objectives differ only in `policy` and `weight`. With N completions in the update, of L_i tokens each:
//!
//! | objective | weight                      | policy                          | source                          |
//! |-----------|-----------------------------|---------------------------------|---------------------------------|
//! | `grpo`    | 1 / (N L_i)                 | -min(r A, clip(r) A)            | DeepSeekMath, arXiv 2402.03300  |
//! | `bnpo`    | 1 / tokens of the update    | as grpo                         | arXiv 2506.02864, TRL's reading |
//! | `dapo`    | 1 / tokens of an update     | as grpo                         | arXiv 2503.14476                |
//! | `dr_grpo` | 1 / (N longest completion)  | as grpo                         | arXiv 2503.20783                |
//! | `gspo`    | 1 / (N L_i)                 | as grpo, r of the completion    | arXiv 2507.18071                |
//! | `cispo`   | as dapo                     | -min(r, epsilon_high) A l,      | arXiv 2506.13585, 2510.13786    |
//! |           |                             | the minimum held constant       |                                 |
//!
//! where clip(r) keeps r between 1 - `epsilon` and 1 + `epsilon_high`, and a dual clip (arXiv 1912.09729) replaces
//! the unclipped r by min(r, `delta`). The conventions are TRL's for one whole optimizer update: N includes masked
//! completions, a count of tokens does not; `dapo` and `cispo` divide by the mean tokens of the rollout batch's updates
//! if the batch is split into several ([`Normalizer::over_rollout`]), `bnpo` by this update's own tokens.
//!
//! If a prompt is distilled ([`Objective::distilling`]), the advantage is that of a token instead: f - o, with the log-probability f
//! under the teacher. This is the derivative of the k1 estimator of KL(policy || teacher) by the score function
//! (K. Lu, "On-Policy Distillation", Thinking Machines Lab, 2025). With the divergence over the whole vocabulary there is no
//! policy term: the loss is the sum of the weights times the divergences.
//!
//! The divergence is the plain term of the formula. TRL 1.16 multiplies it by the ratio by default
//! (`use_bias_correction_kl`); the comparison with TRL is made with this option off.
//!
//! Inputs and outputs are f32; computations are f64.

mod metrics;

use anyhow::Result;

use super::totals::Totals;
use crate::config::{DistillKl, GrpoSection, KlEstimator, LossType};
use crate::ops::distill::DistillStats;

/// The loss that an update minimizes. Created once from the configuration.
#[derive(Clone, Debug)]
pub struct Objective {
    pub loss_type: LossType,
    pub beta: f64,
    pub entropy_coef: f64,
    /// The divergence from a teacher, which replaces the rewards.
    pub distill: Option<DistillKl>,
    kl_estimator: KlEstimator,
    epsilon_low: f64,
    epsilon_high: f64,
    /// Infinite if there is no dual clip.
    delta: f64,
    max_completion_length: usize,
}

/// One completion of the update's batch. Slices have one entry per token.
#[derive(Clone, Copy, Debug)]
pub struct CompletionTerms<'a> {
    pub logprobs: &'a [f32],
    /// Under the policy that sampled; `None` if that is the policy itself, so that every ratio is exactly 1.
    pub old: Option<&'a [f32]>,
    /// Under the model without its adapter: needed if [`Objective::needs_reference`]. If a prompt is distilled, it is in the context
    /// of the reference alone.
    pub reference: Option<&'a [f32]>,
    /// Entropy of each token's distribution, in nats. Needed if `entropy_coef` is not zero, logged if given.
    pub entropy: Option<&'a [f32]>,
    /// Importance weight of each token, a factor of its part of the loss; `None`: 1.
    pub weights: Option<&'a [f32]>,
    pub advantage: f32,
    /// Left out of the loss; for example, a truncated completion.
    pub masked: bool,
}

/// The divisors of one optimizer update, computed once from all its completions, so that the loss and the gradient are
/// the same no matter how the update is split into micro-batches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalizer {
    completions: f64,
    tokens: f64,
    tokens_per_update: f64,
}

impl Normalizer {
    /// For one of `updates` updates that together use a rollout batch of `tokens` unmasked tokens.
    /// Changes only `dapo` and `cispo`: every token of the rollout batch then has the same weight, in whichever
    /// update it is.
    pub fn over_rollout(self, tokens: usize, updates: usize) -> Self {
        Self { tokens_per_update: (tokens as f64).max(1.0) / updates.max(1) as f64, ..self }
    }
}

impl Objective {
    /// `max_completion_length` is the constant that `dr_grpo` divides by.
    pub fn new(section: &GrpoSection, max_completion_length: usize) -> Result<Self> {
        section.validate_clip()?;
        Ok(Self {
            loss_type: section.loss_type,
            beta: section.beta,
            entropy_coef: section.entropy_coef,
            distill: None,
            kl_estimator: section.kl_estimator,
            epsilon_low: section.epsilon,
            epsilon_high: section.clip_high(),
            delta: section.delta.unwrap_or(f64::INFINITY),
            max_completion_length,
        })
    }

    /// The same weights of tokens and the same clipping, but the divergence from a teacher instead of rewards.
    pub fn distilling(self, distill: Option<DistillKl>) -> Self {
        Self { distill, ..self }
    }

    /// True if [`Objective::completion`] needs log-probabilities under the reference.
    pub fn needs_reference(&self) -> bool {
        self.beta != 0.0 || self.distill == Some(DistillKl::Sampled)
    }

    /// True if a token's coefficient depends on log-probabilities, so that these must be computed before the
    /// backward pass starts. Otherwise the coefficients are [`Objective::fixed_coefficient`].
    pub fn needs_two_passes(&self, has_old: bool) -> bool {
        has_old || self.needs_reference()
    }

    /// True for a completion whose gradient is exactly zero, so that the gradient pass can skip it.
    /// The [`Normalizer`] counts it anyway.
    pub fn skips(&self, advantage: f32, masked: bool) -> bool {
        let unrewarded = advantage == 0.0 && self.distill.is_none();
        masked || (unrewarded && self.beta == 0.0 && self.entropy_coef == 0.0)
    }

    /// Divisors of an update whose completions have these lengths.
    pub fn normalizer(&self, lengths: &[usize], masked: &[bool]) -> Normalizer {
        assert_eq!(lengths.len(), masked.len(), "one mask per completion");
        let tokens: usize = lengths.iter().zip(masked).filter(|(_, masked)| !**masked).map(|(length, _)| length).sum();
        let tokens = tokens.max(1) as f64;
        Normalizer { completions: lengths.len().max(1) as f64, tokens, tokens_per_update: tokens }
    }

    /// Writes dLoss/dlogprob of each token into `grad` and adds the completion to `totals`. The derivative of the
    /// entropy bonus is not in `grad`: see [`Objective::entropy_grad`].
    ///
    /// # Panics
    /// If slices differ in length, or one that the objective needs is `None`.
    pub fn completion(&self, terms: &CompletionTerms, normalizer: &Normalizer, grad: &mut [f32], totals: &mut Totals) {
        let length = terms.logprobs.len();
        assert_eq!(grad.len(), length, "one derivative per token");
        for slice in [terms.old, terms.reference, terms.entropy, terms.weights].into_iter().flatten() {
            assert_eq!(slice.len(), length, "one entry per token");
        }
        totals.completions += 1;
        if terms.masked {
            grad.fill(0.0);
            totals.masked_completions += 1;
            return;
        }
        let reference = self.needs_reference().then(|| terms.reference.expect("a reference is needed"));
        let weight = self.weight(length, normalizer);
        let old = terms.old.unwrap_or(terms.logprobs);
        let completion_ratio = (self.loss_type == LossType::Gspo).then(|| sequence_ratio(terms.logprobs, old));
        let (mut loss, mut low, mut high) = (0.0, 0, 0);
        for (t, grad) in grad.iter_mut().enumerate() {
            let logprob = f64::from(terms.logprobs[t]);
            let ratio = completion_ratio.unwrap_or_else(|| (logprob - f64::from(old[t])).exp());
            let advantage = match reference {
                Some(teacher) if self.distill.is_some() => f64::from(teacher[t]) - f64::from(old[t]),
                _ => f64::from(terms.advantage),
            };
            let (mut value, mut slope) = self.policy(ratio, advantage, logprob);
            let importance = terms.weights.map_or(1.0, |weights| f64::from(weights[t]));
            (value, slope) = (importance * value, importance * slope);
            match reference {
                Some(_) if self.distill.is_some() => totals.kl_sum -= advantage,
                Some(reference) => {
                    let (kl, kl_slope) = self.kl(f64::from(reference[t]) - logprob);
                    value += self.beta * kl;
                    slope += self.beta * kl_slope;
                    totals.kl_sum += kl;
                }
                None => {}
            }
            loss += weight * value;
            *grad = (weight * slope) as f32;
            low += usize::from(self.clips_low(ratio, advantage));
            high += usize::from(self.clips_high(ratio, advantage));
            totals.ratio.add(ratio);
        }
        totals.tokens += length;
        totals.clip.add_completion(low, high, length);
        totals.policy_loss += loss;
        totals.loss += loss;
        if let Some(entropy) = terms.entropy {
            let sum: f64 = entropy.iter().copied().map(f64::from).sum();
            totals.entropy_sum += sum;
            totals.entropy_tokens += length;
            totals.loss -= self.entropy_coef * sum / normalizer.tokens;
        } else {
            assert!(self.entropy_coef == 0.0, "`entropy_coef` needs entropies");
        }
    }

    /// dLoss/dlogprob of every token of a completion when [`Objective::needs_two_passes`] is false.
    pub fn fixed_coefficient(&self, advantage: f32, length: usize, normalizer: &Normalizer) -> f32 {
        (self.weight(length, normalizer) * self.policy(1.0, f64::from(advantage), 0.0).1) as f32
    }

    /// dLoss/dKL of every token of a completion, with the divergence over the whole vocabulary.
    pub fn distill_weight(&self, length: usize, normalizer: &Normalizer) -> f32 {
        self.weight(length, normalizer) as f32
    }

    /// Adds a completion to `totals`, with the divergence over the whole vocabulary.
    pub fn distilled(&self, stats: &[DistillStats], normalizer: &Normalizer, totals: &mut Totals) {
        let sum = |value: fn(&DistillStats) -> f32| stats.iter().map(|stats| f64::from(value(stats))).sum::<f64>();
        let kl = sum(|stats| stats.kl);
        totals.completions += 1;
        totals.tokens += stats.len();
        totals.kl_sum += kl;
        totals.policy_loss += self.weight(stats.len(), normalizer) * kl;
        totals.loss += self.weight(stats.len(), normalizer) * kl;
        totals.entropy_sum += sum(|stats| stats.token.entropy);
        totals.entropy_tokens += stats.len();
    }

    /// dLoss/dentropy of every unmasked token: the bonus is the mean entropy of the update's tokens, with any
    /// objective.
    pub fn entropy_grad(&self, normalizer: &Normalizer) -> f32 {
        (-self.entropy_coef / normalizer.tokens) as f32
    }

    /// Weight of one token of a completion of `length` tokens in the update's loss.
    fn weight(&self, length: usize, normalizer: &Normalizer) -> f64 {
        match self.loss_type {
            LossType::Grpo | LossType::Gspo => 1.0 / (normalizer.completions * length.max(1) as f64),
            LossType::Bnpo => 1.0 / normalizer.tokens,
            LossType::Dapo | LossType::Cispo => 1.0 / normalizer.tokens_per_update,
            LossType::DrGrpo => 1.0 / (normalizer.completions * self.max_completion_length as f64),
        }
    }

    /// The policy term and its derivative with respect to the log-probability.
    ///
    /// The ratio of `gspo` spreads its derivative over the completion: exp(mean_t (l_t - o_t)) has r / L_i for each
    /// token, and the sum of the L_i equal terms is r again, so one formula covers both kinds of ratio.
    fn policy(&self, ratio: f64, advantage: f64, logprob: f64) -> (f64, f64) {
        if ratio.is_nan() {
            return (f64::NAN, f64::NAN); // a minimum would hide the NaN
        }
        if advantage == 0.0 {
            return (0.0, 0.0); // also if the ratio has overflowed
        }
        if self.loss_type == LossType::Cispo {
            let slope = -ratio.min(self.epsilon_high) * advantage;
            return (slope * logprob, slope);
        }
        let bounded = ratio.min(self.delta) * advantage;
        let clipped = ratio.clamp(1.0 - self.epsilon_low, 1.0 + self.epsilon_high) * advantage;
        // Inside the range both are the same. Outside it the clipped one is flat, and so is the bounded one beyond
        // delta.
        let moves = bounded <= clipped && ratio <= self.delta;
        (-bounded.min(clipped), if moves { -ratio * advantage } else { 0.0 })
    }

    /// Estimate of the divergence from the reference, and its derivative with respect to the log-probability.
    /// `difference` is reference minus policy (Schulman, "Approximating KL divergence", 2020). `k1` is not offered: the
    /// derivative of `-difference` is 1 for any reference, so as a loss it does not pull towards the reference.
    fn kl(&self, difference: f64) -> (f64, f64) {
        match self.kl_estimator {
            KlEstimator::K2 => (0.5 * difference * difference, -difference),
            KlEstimator::K3 => (difference.exp_m1() - difference, -difference.exp_m1()),
        }
    }

    fn clips_low(&self, ratio: f64, advantage: f64) -> bool {
        self.loss_type != LossType::Cispo && advantage < 0.0 && ratio < 1.0 - self.epsilon_low
    }

    fn clips_high(&self, ratio: f64, advantage: f64) -> bool {
        let bound = if self.loss_type == LossType::Cispo { self.epsilon_high } else { 1.0 + self.epsilon_high };
        advantage > 0.0 && ratio > bound
    }
}

/// exp of the mean log-ratio of a completion (GSPO's eq. 7).
fn sequence_ratio(logprobs: &[f32], old: &[f32]) -> f64 {
    let sum: f64 = logprobs.iter().zip(old).map(|(now, old)| f64::from(*now) - f64::from(*old)).sum();
    (sum / logprobs.len().max(1) as f64).exp()
}

#[cfg(test)]
mod tests;
