//! The output head, with the values that GRPO needs: log-probability of a target and entropy, in chunks of rows.
//!
//! It works on (hidden row, target) pairs, because the first token of every completion of a group is predicted by the same
//! row, the prompt's last. At most the logits of [`CHUNK`] pairs are in memory at once.

use super::matmul::{Output, View, add_product, product};
use super::simd::{exp, max, vectorized};
use rayon::prelude::*;

/// Pairs whose logits are in memory at once.
pub const CHUNK: usize = 128;

/// A hidden row and the token it should predict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    pub row: usize,
    pub target: u32,
}

/// Statistics of a pair's distribution softmax(logits / temperature).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TokenStats {
    /// Log-probability of the target, in nats.
    pub logprob: f32,
    /// Entropy, in nats.
    pub entropy: f32,
}

/// Derivatives of the loss with respect to a pair's [`TokenStats`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TokenGrad {
    pub logprob: f32,
    pub entropy: f32,
}

/// The head's weight: (hidden, vocabulary).
pub struct Head<'a> {
    pub weight: &'a [f32],
    pub hidden: usize,
    pub vocab: usize,
}

impl Head<'_> {
    /// hidden rows (rows, hidden) -> logits (rows, vocabulary).
    pub fn logits(&self, rows: &[f32]) -> Vec<f32> {
        let weight = View::new(self.weight, self.hidden, self.vocab);
        product(View::new(rows, rows.len() / self.hidden, self.hidden), weight)
    }

    /// Statistics of every pair. FLOPs: 2·pairs·hidden·vocabulary.
    pub fn forward(&self, hidden: &[f32], pairs: &[Pair], temperature: f32) -> Vec<TokenStats> {
        let chunk = |pairs: &[Pair]| {
            let logits = self.logits(&self.gather(hidden, pairs));
            let rows = logits.par_chunks(self.vocab).zip(pairs);
            rows.map(|(logits, pair)| token_stats(logits, pair.target, temperature)).collect::<Vec<_>>()
        };
        pairs.chunks(CHUNK).flat_map(chunk).collect()
    }

    /// Adds the gradient of the hidden rows to `d_hidden` (rows, hidden). The logits are recomputed by chunk.
    /// `grad` returns a pair's derivatives, from its index and its statistics. FLOPs: 4·pairs·hidden·vocabulary.
    pub fn backward(
        &self,
        hidden: &[f32],
        pairs: &[Pair],
        temperature: f32,
        grad: impl Fn(usize, TokenStats) -> TokenGrad + Sync,
        d_hidden: &mut [f32],
    ) -> Vec<TokenStats> {
        let mut all = Vec::with_capacity(pairs.len());
        for (first, pairs) in (0..pairs.len()).step_by(CHUNK).zip(pairs.chunks(CHUNK)) {
            let mut logits = self.logits(&self.gather(hidden, pairs));
            let rows = logits.par_chunks_mut(self.vocab).zip(pairs).enumerate();
            let stats: Vec<TokenStats> = rows
                .map(|(i, (logits, pair))| {
                    let stats = token_stats(logits, pair.target, temperature);
                    logits_gradient(logits, pair.target, temperature, stats, grad(first + i, stats));
                    stats
                })
                .collect();
            self.add_gradient(&logits, pairs, d_hidden);
            all.extend(stats);
        }
        all
    }

    /// The hidden row of each pair: (pairs, hidden).
    pub fn gather(&self, hidden: &[f32], pairs: &[Pair]) -> Vec<f32> {
        let width = self.hidden;
        pairs.iter().flat_map(|pair| &hidden[pair.row * width..(pair.row + 1) * width]).copied().collect()
    }

    /// Adds the gradient of the pairs' hidden rows to `d_hidden`, from that of their logits.
    pub(super) fn add_gradient(&self, d_logits: &[f32], pairs: &[Pair], d_hidden: &mut [f32]) {
        let weight = View::new(self.weight, self.hidden, self.vocab);
        let mut d_rows = vec![0.0; pairs.len() * self.hidden];
        let d_logits = View::new(d_logits, pairs.len(), self.vocab);
        add_product(Output::new(&mut d_rows, self.hidden), 1.0, d_logits, weight.t());
        // Pairs that share a row are added in their own order.
        for (pair, d_row) in pairs.iter().zip(d_rows.chunks_exact(self.hidden)) {
            let to = &mut d_hidden[pair.row * self.hidden..][..self.hidden];
            to.iter_mut().zip(d_row).for_each(|(to, d)| *to += d);
        }
    }
}

/// Maximum and sum of exponentials of logits / temperature, and the same sum weighted by the shifted logit.
#[derive(Clone, Copy, Debug)]
pub struct Softmax {
    /// Largest logit, before the temperature.
    pub max: f32,
    /// Σ exp((logit - max) / temperature)
    pub sum: f32,
    weighted: f32,
}

impl Softmax {
    #[inline(always)]
    pub fn new(logits: &[f32], temperature: f32) -> Self {
        const LANES: usize = 32;
        let greatest = max(logits);
        let scale = 1.0 / temperature;
        let (mut sums, mut weighted) = ([0.0f32; LANES], [0.0f32; LANES]);
        let (blocks, rest) = logits.as_chunks::<LANES>();
        let mut padded = [f32::NEG_INFINITY; LANES];
        padded[..rest.len()].copy_from_slice(rest);
        for block in blocks.iter().chain(std::iter::once(&padded)) {
            for i in 0..LANES {
                let z = (block[i] - greatest) * scale;
                let w = exp(z);
                sums[i] += w;
                // A weight of zero can also come from a logit of -∞, and their product would be NaN.
                weighted[i] += if w == 0.0 { 0.0 } else { w * z };
            }
        }
        let fold = |lanes: [f32; LANES]| lanes.iter().map(|&x| f64::from(x)).sum::<f64>() as f32;
        Self { max: greatest, sum: fold(sums), weighted: fold(weighted) }
    }

    #[inline(always)]
    pub fn logprob(&self, logit: f32, temperature: f32) -> f32 {
        (logit - self.max) * (1.0 / temperature) - self.sum.ln()
    }

    /// ln Σe^z - Σ z·e^z / Σe^z
    #[inline(always)]
    pub fn entropy(&self) -> f32 {
        self.sum.ln() - self.weighted / self.sum
    }
}

/// Statistics of one row of logits.
pub fn token_stats(logits: &[f32], target: u32, temperature: f32) -> TokenStats {
    vectorized(
        #[inline(always)]
        || {
            let softmax = Softmax::new(logits, temperature);
            TokenStats { logprob: softmax.logprob(logits[target as usize], temperature), entropy: softmax.entropy() }
        },
    )
}

/// Replaces logits by the gradient of the loss: with p the softmax and H its entropy,
/// dlogprob/dlogitⱼ = (1[j = target] - pⱼ) / T and dH/dlogitⱼ = -pⱼ·(ln pⱼ + H) / T.
fn logits_gradient(logits: &mut [f32], target: u32, temperature: f32, stats: TokenStats, grad: TokenGrad) {
    let scale = 1.0 / temperature;
    // Every other ln p follows from ln p of the target and the difference of the logits.
    let anchor = logits[target as usize] * scale - stats.logprob;
    vectorized(
        #[inline(always)]
        || {
            for logit in logits.iter_mut() {
                let ln_p = logit.mul_add(scale, -anchor);
                let p = exp(ln_p);
                let entropy = if p == 0.0 { 0.0 } else { p * (ln_p + stats.entropy) };
                *logit = -scale * (grad.logprob * p + grad.entropy * entropy);
            }
        },
    );
    logits[target as usize] += scale * grad.logprob;
}
