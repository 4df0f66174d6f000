//! Sampling a token: temperature, top-k, top-p, min-p, and counter-based Gumbel noise.

use crate::ops::head::{Softmax, token_stats};
use crate::ops::simd::{exp, ln, vectorized};
use crate::rng::Stream;

/// How tokens are sampled.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 selects the most probable token.
    pub temperature: f32,
    /// Keep the smallest set of most probable tokens that has this share of the probability; 1: off.
    pub top_p: f32,
    /// Keep this many of the most probable tokens; 0: off.
    pub top_k: usize,
    /// Remove tokens whose probability is below this share of the largest; 0: off.
    pub min_p: f32,
}

impl Sampling {
    /// Samples from all tokens.
    pub const fn plain(temperature: f32) -> Self {
        Self { temperature, top_p: 1.0, top_k: 0, min_p: 0.0 }
    }

    pub const fn greedy() -> Self {
        Self::plain(0.0)
    }

    /// The temperature of the recorded log-probabilities: 1 if sampling is greedy.
    pub fn policy_temperature(&self) -> f32 {
        if self.temperature == 0.0 { 1.0 } else { self.temperature }
    }

    fn truncates(&self) -> bool {
        self.top_k > 0 || self.top_p < 1.0 || self.min_p > 0.0
    }
}

/// Samples the token at `position` of the completion that `stream` belongs to. Returns it with its log-probability
/// under the untruncated softmax(logits / temperature).
///
/// The Gumbel-max trick in its exponential form: with Eᵢ exponential, the argmax of exp(zᵢ) / Eᵢ is distributed as
/// softmax(z). All 2³² values of the generator are used, and Eᵢ keeps its relative precision down to 2⁻³³, so the tail
/// of a large vocabulary is sampled as often as it should be.
pub fn sample(logits: &[f32], sampling: &Sampling, stream: &Stream, position: u64) -> (u32, f32) {
    let temperature = sampling.policy_temperature();
    if sampling.temperature == 0.0 {
        let token = argmax(logits);
        return (token, token_stats(logits, token, temperature).logprob);
    }
    let cutoff = if sampling.truncates() { cutoff(logits, sampling) } else { f32::NEG_INFINITY };
    vectorized(
        #[inline(always)]
        || {
            let softmax = Softmax::new(logits, temperature);
            let scale = 1.0 / temperature;
            let (mut best, mut token) = (-1.0f32, 0);
            for (index, block) in logits.chunks(64).enumerate() {
                let words = stream.blocks16(position, 16 * index as u64);
                let mut scores = [-1.0f32; 64];
                for (words, (scores, logits)) in words.iter().zip(scores.chunks_mut(16).zip(block.chunks(16))) {
                    let mut z = [f32::NEG_INFINITY; 16];
                    z[..logits.len()].copy_from_slice(logits);
                    for l in 0..16 {
                        let weight = exp((z[l] - softmax.max) * scale);
                        scores[l] = if z[l] >= cutoff { weight / exponential(words[l]) } else { -1.0 };
                    }
                }
                for (i, &score) in scores[..block.len()].iter().enumerate() {
                    if score > best {
                        (best, token) = (score, 64 * index + i);
                    }
                }
            }
            (token as u32, softmax.logprob(logits[token], temperature))
        },
    )
}

/// A standard exponential from 32 random bits: -ln(1 - u) for u = (bits + ½) / 2³².
#[inline(always)]
fn exponential(bits: u32) -> f32 {
    // The upper bound keeps 1 - u positive after rounding.
    let u = ((bits as f32 + 0.5) * (1.0 / 4_294_967_296.0)).min(1.0 - f32::EPSILON / 2.0);
    let y = 1.0 - u;
    // y is 1 - u rounded. To first order the rounding error is added back; otherwise small values would be lost.
    let lost = (1.0 - y) - u;
    -(ln(y) + lost / y)
}

/// The first of the largest logits.
fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (i, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = i;
        }
    }
    best as u32
}

/// The smallest logit that remains after top-k, then top-p of the rest, then min-p. Equal logits are kept together.
fn cutoff(logits: &[f32], sampling: &Sampling) -> f32 {
    let mut sorted = logits.to_vec();
    sorted.sort_unstable_by(|a, b| b.total_cmp(a));
    let mut keep = if sampling.top_k == 0 { sorted.len() } else { sampling.top_k.min(sorted.len()) };
    let weight = |logit: f32| f64::from((logit - sorted[0]) / sampling.temperature).exp();
    if sampling.top_p < 1.0 {
        let total: f64 = sorted[..keep].iter().map(|&logit| weight(logit)).sum();
        let mut held = 0.0;
        let enough = |&logit: &f32| {
            held += weight(logit);
            held >= f64::from(sampling.top_p) * total
        };
        keep = sorted[..keep].iter().position(enough).map_or(keep, |last| last + 1);
    }
    if sampling.min_p > 0.0 {
        keep = sorted[..keep].iter().take_while(|&&logit| weight(logit) >= f64::from(sampling.min_p)).count();
    }
    sorted[keep.max(1) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;

    fn counts(logits: &[f32], sampling: &Sampling, draws: u64) -> Vec<u64> {
        let stream = Stream::new(1, Purpose::Test, &[9]);
        let mut counts = vec![0; logits.len()];
        (0..draws).for_each(|i| counts[sample(logits, sampling, &stream, i).0 as usize] += 1);
        counts
    }

    /// Half of the mass is on one token, the other half is spread over 100,000 tokens whose probabilities follow a
    /// power law. With truncated noise, the first token would be sampled far too often.
    #[test]
    fn a_heavy_tail_is_sampled_as_often_as_it_should_be() {
        let tail: f64 = (1..=100_000).map(|rank| 1.0 / f64::from(rank)).sum();
        let mut p = vec![0.5];
        p.extend((1..=100_000).map(|rank| 0.5 / f64::from(rank) / tail));
        let logits: Vec<f32> = p.iter().map(|p| p.ln() as f32).collect();
        let draws = 20_000;
        let counts = counts(&logits, &Sampling::plain(1.0), draws);
        // Bins of roughly equal probability: the first token, then tail ranks by powers of two.
        let mut edges = vec![0, 1];
        edges.extend((1..17).map(|power| 1usize << power));
        edges.push(p.len());
        let mut chi_square = 0.0;
        for edge in edges.windows(2) {
            let expected = p[edge[0]..edge[1]].iter().sum::<f64>() * draws as f64;
            let seen = counts[edge[0]..edge[1]].iter().sum::<u64>() as f64;
            chi_square += (seen - expected).powi(2) / expected;
        }
        // 17 degrees of freedom: 40.8 is exceeded by chance for one seed in a thousand.
        assert!(chi_square < 40.8, "chi-square {chi_square} over {} bins", edges.len() - 1);
    }

    #[test]
    fn every_token_of_a_small_vocabulary_is_sampled_at_its_probability() {
        let logits = [1.0f32, 0.0, -1.0, 2.0, f32::NEG_INFINITY];
        let temperature = 0.7;
        let total: f64 = logits.iter().map(|&x| f64::from(x / temperature).exp()).sum();
        let draws = 40_000;
        let counts = counts(&logits, &Sampling::plain(temperature), draws);
        let chi_square: f64 = (0..4)
            .map(|i| {
                let expected = f64::from(logits[i] / temperature).exp() / total * draws as f64;
                (counts[i] as f64 - expected).powi(2) / expected
            })
            .sum();
        assert!(chi_square < 16.3, "chi-square {chi_square} with 3 degrees of freedom");
        assert_eq!(counts[4], 0);
    }

    #[test]
    fn filters_keep_the_right_tokens() {
        let logits: Vec<f32> = [0.5f64, 0.25, 0.125, 0.0625, 0.0625].iter().map(|p| p.ln() as f32).collect();
        let kept = |sampling: Sampling| counts(&logits, &sampling, 2000).iter().filter(|&&count| count > 0).count();
        assert_eq!(kept(Sampling::plain(1.0)), 5);
        assert_eq!(kept(Sampling { top_k: 2, ..Sampling::plain(1.0) }), 2);
        assert_eq!(kept(Sampling { top_p: 0.6, ..Sampling::plain(1.0) }), 2);
        assert_eq!(kept(Sampling { min_p: 0.2, ..Sampling::plain(1.0) }), 3);
        assert_eq!(kept(Sampling { top_p: 1e-6, ..Sampling::plain(1.0) }), 1);
        let (token, logprob) = sample(&logits, &Sampling::greedy(), &Stream::new(0, Purpose::Test, &[]), 0);
        assert_eq!(token, 0);
        assert!((logprob - 0.5f32.ln()).abs() < 1e-6);
    }

    #[test]
    fn the_log_probability_is_of_the_untruncated_policy() {
        let logits = [0.3f32, 1.2, -0.4];
        let stream = Stream::new(4, Purpose::Test, &[]);
        for position in 0..50 {
            let sampling = Sampling { top_k: 2, ..Sampling::plain(0.5) };
            let (token, logprob) = sample(&logits, &sampling, &stream, position);
            assert_eq!(logprob, token_stats(&logits, token, 0.5).logprob);
        }
    }

    #[test]
    fn exponentials_keep_their_precision_near_zero() {
        for bits in [0u32, 1, 5, 1000, 1 << 20, 1 << 31, u32::MAX] {
            let exact = -(-(f64::from(bits) + 0.5) / 4_294_967_296.0).ln_1p();
            let got = f64::from(exponential(bits));
            assert!(((got - exact) / exact).abs() < if bits == u32::MAX { 0.3 } else { 1e-5 }, "{bits}: {got} {exact}");
        }
    }
}
