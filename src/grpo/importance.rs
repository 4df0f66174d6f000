//! Importance weights of completions that another program has sampled, with another precision than the trainer's.
//!
//! The policy that sampled is then not exactly the policy that is trained. The loss of a token, or of all tokens of a
//! completion, is multiplied by the ratio of the trainer's probability to the sampler's. A large ratio has a large variance, so
//! it is truncated at a cap, or its tokens are left out (F. Yao et al., "Your efficient RL framework secretly brings you
//! off-policy RL training", 2025; the options are those of TRL).

use super::totals::Spread;
use crate::config::ImportanceSampling;
use std::collections::BTreeMap;

/// Computes importance weights, and keeps their minimum, mean and maximum.
pub struct Importance {
    mode: ImportanceSampling,
    cap: f64,
    ratios: Spread,
}

impl Importance {
    pub fn new(mode: ImportanceSampling, cap: f64) -> Self {
        Self { mode, cap, ratios: Spread::default() }
    }

    /// The weight of each token of a completion, from its log-probabilities in the sampler and in the trainer. A token whose
    /// log-probability in the sampler is unknown (NaN) counts as one with the trainer's.
    pub fn weights(&mut self, sampled: &[f32], recomputed: &[f32]) -> Vec<f32> {
        use ImportanceSampling::{None, SequenceMask, SequenceTruncate, TokenMask, TokenTruncate};
        assert_eq!(sampled.len(), recomputed.len(), "one entry per token");
        let difference = |(sampled, recomputed): (&f32, &f32)| match sampled.is_nan() {
            true => 0.0,
            false => f64::from(*recomputed) - f64::from(*sampled),
        };
        let differences = sampled.iter().zip(recomputed).map(difference);
        let limited = |ratio: f64| match self.mode {
            None => 1.0,
            TokenTruncate | SequenceTruncate => ratio.min(self.cap),
            TokenMask | SequenceMask if ratio > self.cap => 0.0,
            TokenMask | SequenceMask => ratio,
        };
        let weights: Vec<f64> = match self.mode {
            None => return vec![1.0; sampled.len()],
            TokenTruncate | TokenMask => differences.map(|difference| limited(difference.exp())).collect(),
            SequenceTruncate | SequenceMask => vec![limited(differences.sum::<f64>().exp()); sampled.len()],
        };
        let of_sequence = matches!(self.mode, SequenceTruncate | SequenceMask);
        let counted = if of_sequence { weights.len().min(1) } else { weights.len() };
        weights[..counted].iter().for_each(|&weight| self.ratios.add(weight));
        weights.into_iter().map(|weight| weight as f32).collect()
    }

    /// `sampling/importance_sampling_ratio/{min,mean,max}`, TRL's names; none without a correction.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let Spread { min, max, sum, count } = self.ratios;
        if count == 0 {
            return BTreeMap::new();
        }
        let named = [("min", min), ("mean", sum / count as f64), ("max", max)];
        named.map(|(name, value)| (format!("sampling/importance_sampling_ratio/{name}"), value)).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ImportanceSampling::{None, SequenceMask, SequenceTruncate, TokenMask, TokenTruncate};

    fn weights(mode: ImportanceSampling, sampled: &[f32], recomputed: &[f32]) -> Vec<f32> {
        Importance::new(mode, 2.0).weights(sampled, recomputed)
    }

    #[test]
    fn weights_are_ratios_up_to_the_cap() {
        let (sampled, recomputed) = ([-1.0, -2.0, -3.0], [-1.0 - f32::ln(2.0), -2.0, -3.0 + f32::ln(4.0)]);
        let near = |found: Vec<f32>, expected: [f32; 3]| {
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?} {expected:?}");
        };
        near(weights(TokenTruncate, &sampled, &recomputed), [0.5, 1.0, 2.0]);
        near(weights(TokenMask, &sampled, &recomputed), [0.5, 1.0, 0.0]);
        near(weights(SequenceTruncate, &sampled, &recomputed), [2.0; 3]);
        near(weights(SequenceMask, &sampled, &[-1.0, -2.0, -3.0 + f32::ln(4.0)]), [0.0; 3]);
        near(weights(SequenceMask, &sampled, &[-1.0, -2.0, -3.0 - f32::ln(4.0)]), [0.25; 3]);
        near(weights(None, &sampled, &recomputed), [1.0; 3]);
    }

    #[test]
    fn an_unknown_log_probability_changes_nothing() {
        assert_eq!(weights(SequenceMask, &[-1.0, f32::NAN], &[-1.0, -5.0]), [1.0, 1.0]);
    }

    #[test]
    fn metrics_count_tokens_or_completions() {
        let mut of_tokens = Importance::new(TokenTruncate, 2.0);
        of_tokens.weights(&[0.0, 0.0], &[0.0, f32::ln(0.5)]);
        assert!((of_tokens.metrics()["sampling/importance_sampling_ratio/mean"] - 0.75).abs() < 1e-6);
        let mut of_sequences = Importance::new(SequenceTruncate, 2.0);
        of_sequences.weights(&[0.0, 0.0], &[0.0, f32::ln(0.5)]);
        of_sequences.weights(&[0.0], &[0.0]);
        assert!((of_sequences.metrics()["sampling/importance_sampling_ratio/mean"] - 0.75).abs() < 1e-6);
        assert!(Importance::new(None, 2.0).metrics().is_empty());
    }
}
