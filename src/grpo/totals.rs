//! The totals of an update over its completions, and the names under which they are logged.

use std::collections::BTreeMap;

use crate::ops::distill::DistillStats;

/// Sums over the completions of one update. Each micro-batch may have its own; [`Totals::merge`] adds them in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    /// The loss that the update minimizes: policy term, divergence and entropy bonus, already normalized.
    pub loss: f64,
    /// The loss without the entropy bonus.
    pub policy_loss: f64,
    pub completions: usize,
    pub masked_completions: usize,
    /// Unmasked tokens.
    pub tokens: usize,
    pub kl_sum: f64,
    pub entropy_sum: f64,
    /// Unmasked tokens whose entropy is known.
    pub entropy_tokens: usize,
    pub ratio: Spread,
    pub clip: Clipped,
    /// Log-probabilities that are infinite or NaN.
    pub non_finite_logprobs: usize,
}

/// Minimum, maximum and mean of a quantity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub min: f64,
    pub max: f64,
    pub sum: f64,
    pub count: usize,
}

/// Tokens (for `gspo`: completions) limited by the clip range.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Clipped {
    pub low: usize,
    pub high: usize,
    /// Smallest share of a completion's tokens clipped below; `None` before the first completion.
    pub low_min: Option<f64>,
    /// Largest share of a completion's tokens clipped above.
    pub high_max: Option<f64>,
    /// Completions with at least one token clipped below, and above.
    pub completions_low: usize,
    pub completions_high: usize,
}

impl Totals {
    /// Adds a completion that is distilled over the whole vocabulary, with the derivative of the loss by each divergence.
    pub fn add_distilled(&mut self, stats: &[DistillStats], weights: &[f32]) {
        let sum = |value: fn(&DistillStats) -> f32| stats.iter().map(|stats| f64::from(value(stats))).sum::<f64>();
        let loss: f64 = stats.iter().zip(weights).map(|(it, weight)| f64::from(it.kl) * f64::from(*weight)).sum();
        self.completions += 1;
        self.tokens += stats.len();
        self.kl_sum += sum(|stats| stats.kl);
        self.policy_loss += loss;
        self.loss += loss;
        self.entropy_sum += sum(|stats| stats.token.entropy);
        self.entropy_tokens += stats.len();
    }

    pub fn merge(&mut self, other: &Self) {
        self.loss += other.loss;
        self.policy_loss += other.policy_loss;
        self.completions += other.completions;
        self.masked_completions += other.masked_completions;
        self.tokens += other.tokens;
        self.kl_sum += other.kl_sum;
        self.entropy_sum += other.entropy_sum;
        self.entropy_tokens += other.entropy_tokens;
        self.ratio.merge(&other.ratio);
        self.clip.merge(&other.clip);
        self.non_finite_logprobs += other.non_finite_logprobs;
    }
}

impl Default for Spread {
    fn default() -> Self {
        Self { min: f64::INFINITY, max: f64::NEG_INFINITY, sum: 0.0, count: 0 }
    }
}

impl Spread {
    pub fn add(&mut self, value: f64) {
        self.merge(&Self { min: value, max: value, sum: value, count: 1 });
    }

    pub fn merge(&mut self, other: &Self) {
        // Unlike `f64::min` and `f64::max`, NaN is kept.
        let keep = |a: f64, b: f64, chosen: f64| if a.is_nan() || b.is_nan() { f64::NAN } else { chosen };
        self.min = keep(self.min, other.min, self.min.min(other.min));
        self.max = keep(self.max, other.max, self.max.max(other.max));
        self.sum += other.sum;
        self.count += other.count;
    }
}

impl Clipped {
    /// Counts a completion of `length` tokens of which `low` are clipped below and `high` above.
    pub fn add_completion(&mut self, low: usize, high: usize, length: usize) {
        if length == 0 {
            return;
        }
        self.merge(&Self {
            low,
            high,
            low_min: Some(low as f64 / length as f64),
            high_max: Some(high as f64 / length as f64),
            completions_low: usize::from(low > 0),
            completions_high: usize::from(high > 0),
        });
    }

    fn merge(&mut self, other: &Self) {
        self.low += other.low;
        self.high += other.high;
        self.low_min = self.low_min.into_iter().chain(other.low_min).reduce(f64::min);
        self.high_max = self.high_max.into_iter().chain(other.high_max).reduce(f64::max);
        self.completions_low += other.completions_low;
        self.completions_high += other.completions_high;
    }
}

/// The absolute differences between the log-probabilities recorded while sampling and those that the trainer computes
/// for the same tokens. With one engine for both they are zero; otherwise, sampler and trainer differ.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SamplingGap(pub Spread);

impl SamplingGap {
    /// One completion: both slices have one entry per token.
    pub fn add_completion(&mut self, sampled: &[f32], recomputed: &[f32]) {
        assert_eq!(sampled.len(), recomputed.len(), "one entry per token");
        for (sampled, recomputed) in sampled.iter().zip(recomputed) {
            self.0.add((f64::from(*sampled) - f64::from(*recomputed)).abs());
        }
    }

    /// `sampling/sampling_logp_difference/{mean,max}`, TRL's names; none before the first token.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        if self.0.count == 0 {
            return BTreeMap::new();
        }
        BTreeMap::from([
            ("sampling/sampling_logp_difference/mean".to_owned(), self.0.sum / self.0.count as f64),
            ("sampling/sampling_logp_difference/max".to_owned(), self.0.max),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_is_kept() {
        let mut spread = Spread::default();
        [1.0, f64::NAN, 2.0].into_iter().for_each(|value| spread.add(value));
        assert!(spread.min.is_nan() && spread.max.is_nan() && spread.sum.is_nan() && spread.count == 3);
    }

    #[test]
    fn sampling_gap_is_mean_and_largest_absolute_difference() {
        let mut gap = SamplingGap::default();
        assert!(gap.metrics().is_empty());
        gap.add_completion(&[-1.0, -2.0], &[-1.0, -2.5]);
        gap.add_completion(&[-1.0, -1.0], &[-0.75, -1.0]);
        let metrics = gap.metrics();
        assert_eq!(metrics["sampling/sampling_logp_difference/mean"], 0.1875);
        assert_eq!(metrics["sampling/sampling_logp_difference/max"], 0.5);
    }
}
