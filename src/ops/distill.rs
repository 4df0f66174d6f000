//! The reverse KL divergence of the head's distributions from a teacher's, over the whole vocabulary, and its gradient.
//!
//! For a row of logits s, the teacher's logits u and the temperature T, with p = softmax(s / T) and q = softmax(u / T):
//!
//! ```text
//! KL(p || q) = sum_j p_j (ln p_j - ln q_j)
//! dKL/ds_j   = p_j (ln p_j - ln q_j - KL) / T
//! ```
//!
//! This is the token's loss of on-policy distillation (GKD, arXiv 2306.13649, with the reverse KL divergence). The gradient is exact;
//! the teacher has none.

use super::head::{CHUNK, Head, Pair, Softmax, TokenStats};
use super::simd::{exp, vectorized};
use rayon::prelude::*;

/// Statistics of a pair's distribution.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DistillStats {
    pub token: TokenStats,
    /// Divergence from the teacher's distribution, in nats.
    pub kl: f32,
}

impl Head<'_> {
    /// Adds the gradient of Σ weight · KL to `d_hidden` (rows, hidden). `teacher` are the teacher's hidden rows, one per pair:
    /// (pairs, hidden). Both logits of at most [`CHUNK`] pairs are in memory at once. FLOPs: 6·pairs·hidden·vocabulary.
    pub fn distill(
        &self,
        hidden: &[f32],
        pairs: &[Pair],
        teacher: &[f32],
        temperature: f32,
        weights: &[f32],
        d_hidden: &mut [f32],
    ) -> Vec<DistillStats> {
        assert_eq!(teacher.len(), pairs.len() * self.hidden, "one of the teacher's rows per pair");
        let mut all = Vec::with_capacity(pairs.len());
        let chunks = pairs.chunks(CHUNK).zip(teacher.chunks(CHUNK * self.hidden)).zip(weights.chunks(CHUNK));
        for ((pairs, teacher), weights) in chunks {
            let (mut logits, targets) = (self.logits(&self.gather(hidden, pairs)), self.logits(teacher));
            let rows = logits.par_chunks_mut(self.vocab).zip(targets.par_chunks(self.vocab)).zip(pairs).zip(weights);
            let stats: Vec<DistillStats> = rows
                .map(|(((row, teacher), pair), weight)| distill_row(row, teacher, pair.target, temperature, *weight))
                .collect();
            self.add_gradient(&logits, pairs, d_hidden);
            all.extend(stats);
        }
        all
    }
}

/// Both distributions of a row.
struct RowPair {
    own: Softmax,
    teacher: Softmax,
    /// ln Σ of both.
    log_sums: [f32; 2],
    scale: f32,
}

impl RowPair {
    /// p and ln p - ln q of a token. A probability of zero has no part in the divergence, whatever the teacher's is.
    #[inline(always)]
    fn term(&self, logit: f32, teacher: f32) -> (f32, f32) {
        let [own_sum, teacher_sum] = self.log_sums;
        let ln_p = (logit - self.own.max) * self.scale - own_sum;
        let ln_q = (teacher - self.teacher.max) * self.scale - teacher_sum;
        let p = exp(ln_p);
        if p == 0.0 { (0.0, 0.0) } else { (p, ln_p - ln_q) }
    }
}

/// Replaces a row of logits by the gradient of `weight` times the divergence.
pub fn distill_row(logits: &mut [f32], teacher: &[f32], target: u32, temperature: f32, weight: f32) -> DistillStats {
    const LANES: usize = 32;
    vectorized(
        #[inline(always)]
        || {
            let (own, other) = (Softmax::new(logits, temperature), Softmax::new(teacher, temperature));
            let token =
                TokenStats { logprob: own.logprob(logits[target as usize], temperature), entropy: own.entropy() };
            let log_sums = [own.sum.ln(), other.sum.ln()];
            let pair = RowPair { own, teacher: other, log_sums, scale: 1.0 / temperature };
            let mut sums = [0.0f32; LANES];
            for (logits, teacher) in logits.chunks(LANES).zip(teacher.chunks(LANES)) {
                for ((sum, &logit), &teacher) in sums.iter_mut().zip(logits).zip(teacher) {
                    let (p, gap) = pair.term(logit, teacher);
                    *sum += p * gap;
                }
            }
            let kl = sums.iter().map(|&sum| f64::from(sum)).sum::<f64>() as f32;
            for (logit, &teacher) in logits.iter_mut().zip(teacher) {
                let (p, gap) = pair.term(*logit, teacher);
                *logit = weight * pair.scale * p * (gap - kl);
            }
            DistillStats { token, kl }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Stream};

    fn normals(seed: u64, len: usize, scale: f64) -> Vec<f32> {
        let stream = Stream::new(seed, Purpose::Test, &[]);
        (0..len as u64).map(|i| (scale * (2.0 * stream.f64(i) - 1.0)) as f32).collect()
    }

    fn divergence(logits: &[f64], teacher: &[f32], temperature: f64) -> f64 {
        let ln = |row: &[f64]| {
            let sum: f64 = row.iter().map(|x| (x / temperature).exp()).sum();
            row.iter().map(|x| x / temperature - sum.ln()).collect::<Vec<f64>>()
        };
        let (p, q) = (ln(logits), ln(&teacher.iter().copied().map(f64::from).collect::<Vec<f64>>()));
        p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum()
    }

    /// Against central differences in f64, for vocabularies that do not fill the lanes.
    #[test]
    fn the_gradient_is_the_slope_of_the_divergence() {
        for (seed, vocab, temperature) in [(1, 7, 1.0f32), (2, 33, 0.7), (3, 100, 1.6)] {
            let (logits, teacher) = (normals(seed, vocab, 4.0), normals(seed + 10, vocab, 4.0));
            let mut row = logits.clone();
            let stats = distill_row(&mut row, &teacher, 3, temperature, 0.5);
            let exact: Vec<f64> = logits.iter().copied().map(f64::from).collect();
            let value = |exact: &[f64]| divergence(exact, &teacher, f64::from(temperature));
            assert!((f64::from(stats.kl) - value(&exact)).abs() < 1e-5 * value(&exact), "{stats:?}");
            for (j, &got) in row.iter().enumerate() {
                let moved = |by: f64| {
                    let mut exact = exact.clone();
                    exact[j] += by;
                    value(&exact)
                };
                let slope = 0.5 * (moved(1e-5) - moved(-1e-5)) / 2e-5;
                assert!((f64::from(got) - slope).abs() < 1e-6, "logit {j}: {got}, expected {slope}");
            }
        }
    }

    #[test]
    fn equal_distributions_have_no_divergence_and_no_gradient() {
        // A constant added to all logits does not change a distribution.
        let teacher = normals(5, 50, 3.0);
        let mut row: Vec<f32> = teacher.iter().map(|logit| logit + 2.0).collect();
        let stats = distill_row(&mut row, &teacher, 0, 0.9, 1.0);
        assert!(stats.kl.abs() < 1e-6 && row.iter().all(|d| d.abs() < 1e-6), "{stats:?}");
    }

    #[test]
    fn impossible_tokens_are_left_out_unless_only_the_teacher_excludes_them() {
        let mut row = vec![1.0, f32::NEG_INFINITY, 0.5];
        let stats = distill_row(&mut row, &[0.0, f32::NEG_INFINITY, 1.0], 0, 1.0, 1.0);
        assert!(stats.kl.is_finite() && row.iter().all(|d| d.is_finite()), "{stats:?} {row:?}");
        assert_eq!(row[1], 0.0);
        let stats = distill_row(&mut [1.0, 1.0], &[0.0, f32::NEG_INFINITY], 0, 1.0, 1.0);
        assert_eq!(stats.kl, f32::INFINITY);
    }
}
