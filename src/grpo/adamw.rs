//! AdamW on flat f32 storage, and the global gradient norm for clipping.
//!
//! Loshchilov and Hutter, "Decoupled weight decay regularization" (arXiv 1711.05101), in the form and with the bias
//! correction of PyTorch. One pass over memory reads parameter, gradient and both moments, and writes all of them
//! except the gradient: 28 bytes per parameter, which limits its speed.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;

/// Elements of one unit of work. Fixed, so that sums do not depend on the number of threads.
const CHUNK: usize = 16 * 1024;

/// Ranges of the named tensors in flat storage; the map's keys are in name order.
pub type ParameterLayout = BTreeMap<String, Range<usize>>;

/// Moments of every parameter and the number of steps taken.
#[derive(Clone, Debug, PartialEq)]
pub struct AdamW {
    /// Running mean of the gradients.
    pub m: Vec<f32>,
    /// Running mean of their squares.
    pub v: Vec<f32>,
    pub step: u64,
}

/// Hyperparameters of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hyper {
    pub lr: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub weight_decay: f64,
}

impl AdamW {
    pub fn new(parameters: usize) -> Self {
        Self { m: vec![0.0; parameters], v: vec![0.0; parameters], step: 0 }
    }

    /// Updates `params` by one step with `grad_scale * grads`.
    ///
    /// # Panics
    /// If the lengths of the slices differ from those of the moments.
    pub fn step(&mut self, params: &mut [f32], grads: &[f32], hyper: &Hyper, grad_scale: f32) {
        self.step_and_measure(params, grads, hyper, grad_scale, &[]);
    }

    /// Like [`AdamW::step`], and returns the size of the step. The `watched` ranges do not overlap and are in ascending order.
    pub fn step_and_measure(
        &mut self,
        params: &mut [f32],
        grads: &[f32],
        hyper: &Hyper,
        grad_scale: f32,
        watched: &[Range<usize>],
    ) -> LargestChange {
        assert_eq!(params.len(), self.m.len(), "one pair of moments per parameter");
        assert_eq!(grads.len(), self.m.len(), "one gradient per parameter");
        self.step += 1;
        let step = UpdateConstants::new(hyper, self.step, grad_scale);
        let moments = self.m.par_chunks_mut(CHUNK).zip(self.v.par_chunks_mut(CHUNK));
        params
            .par_chunks_mut(CHUNK)
            .zip(grads.par_chunks(CHUNK))
            .zip(moments)
            .enumerate()
            .map(|(chunk, ((params, grads), (m, v)))| {
                LargestChange::of_pieces(chunk * CHUNK, params.len(), watched, |piece| {
                    step.apply(&mut params[piece.clone()], &grads[piece.clone()], &mut m[piece.clone()], &mut v[piece])
                })
            })
            .reduce(LargestChange::default, LargestChange::merge)
    }

    /// Moments by tensor: `exp_avg.NAME` and `exp_avg_sq.NAME`, as in PyTorch. [`AdamW::step`] is not included.
    pub fn state(&self, layout: &ParameterLayout) -> BTreeMap<String, Vec<f32>> {
        let moments = [("exp_avg", &self.m), ("exp_avg_sq", &self.v)];
        let pieces = moments.iter().flat_map(|(moment, values)| {
            layout.iter().map(move |(name, range)| (format!("{moment}.{name}"), values[range.clone()].to_vec()))
        });
        pieces.collect()
    }

    /// Restores what [`AdamW::state`] returned. Every tensor of `layout` must exist with its size, and there must be no
    /// other.
    pub fn from_state(state: &BTreeMap<String, Vec<f32>>, layout: &ParameterLayout, step: u64) -> Result<Self> {
        let mut adamw = Self::new(layout.values().map(|range| range.end).max().unwrap_or(0));
        for (moment, values) in [("exp_avg", &mut adamw.m), ("exp_avg_sq", &mut adamw.v)] {
            for (name, range) in layout {
                let name = format!("{moment}.{name}");
                let piece = state.get(&name).with_context(|| format!("optimizer state has no tensor `{name}`"))?;
                ensure!(
                    piece.len() == range.len(),
                    "optimizer state `{name}` has {} values, but the adapter has {}\n\
                     hint: use a checkpoint of the same model and LoRA configuration",
                    piece.len(),
                    range.len(),
                );
                values[range.clone()].copy_from_slice(piece);
            }
        }
        ensure!(
            state.len() == 2 * layout.len(),
            "optimizer state has {} tensors, but the adapter needs {}\n\
             hint: use a checkpoint of the same model and LoRA configuration",
            state.len(),
            2 * layout.len(),
        );
        adamw.step = step;
        Ok(adamw)
    }
}

/// The largest absolute change of a parameter in a step. Infinite or NaN if a parameter is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LargestChange {
    pub all: f32,
    /// In the ranges that the caller watches.
    pub watched: f32,
}

impl LargestChange {
    /// Compares the parameters before and after a step.
    pub fn between(before: &[f32], after: &[f32], watched: &[Range<usize>]) -> Self {
        assert_eq!(before.len(), after.len(), "the same parameters");
        let chunks = before.par_chunks(CHUNK).zip(after.par_chunks(CHUNK)).enumerate();
        chunks
            .map(|(chunk, (before, after))| {
                Self::of_pieces(chunk * CHUNK, before.len(), watched, |piece| {
                    let pairs = before[piece.clone()].iter().zip(&after[piece]);
                    f32::from_bits(pairs.map(|(before, after)| magnitude(after - before)).max().unwrap_or(0))
                })
            })
            .reduce(Self::default, Self::merge)
    }

    /// Whether every parameter is finite after the step.
    pub fn is_finite(self) -> bool {
        self.all.is_finite()
    }

    /// Splits a chunk that begins at `start` where a watched range begins or ends. `largest` returns the largest change of a
    /// piece.
    fn of_pieces(
        start: usize,
        len: usize,
        watched: &[Range<usize>],
        mut largest: impl FnMut(Range<usize>) -> f32,
    ) -> Self {
        let mut change = Self::default();
        let mut at = 0;
        let first = watched.partition_point(|range| range.end <= start);
        let inside = |position: usize| position.saturating_sub(start).min(len);
        for range in watched[first..].iter().take_while(|range| range.start < start + len) {
            let (from, to) = (inside(range.start), inside(range.end));
            let (between, watched) = (largest(at..from), largest(from..to));
            change = change.merge(Self { all: between, watched: 0.0 }).merge(Self { all: watched, watched });
            at = to;
        }
        change.merge(Self { all: largest(at..len), watched: 0.0 })
    }

    fn merge(self, other: Self) -> Self {
        let largest = |a: f32, b: f32| f32::from_bits(magnitude(a).max(magnitude(b)));
        Self { all: largest(self.all, other.all), watched: largest(self.watched, other.watched) }
    }
}

/// The bits of an absolute value: they have the order of the values, with infinity and NaN above all others.
fn magnitude(value: f32) -> u32 {
    value.abs().to_bits()
}

/// The constants of one step, rounded to f32 once.
struct UpdateConstants {
    grad_scale: f32,
    beta1: f32,
    one_less_beta1: f32,
    beta2: f32,
    one_less_beta2: f32,
    keep: f32,
    rate: f32,
    /// 1 / sqrt of the second moment's bias correction.
    root_correction: f32,
    eps: f32,
}

impl UpdateConstants {
    fn new(hyper: &Hyper, step: u64, grad_scale: f32) -> Self {
        let correction = |beta: f64| 1.0 - beta.powf(step as f64);
        Self {
            grad_scale,
            beta1: hyper.beta1 as f32,
            one_less_beta1: (1.0 - hyper.beta1) as f32,
            beta2: hyper.beta2 as f32,
            one_less_beta2: (1.0 - hyper.beta2) as f32,
            keep: (1.0 - hyper.lr * hyper.weight_decay) as f32,
            rate: (hyper.lr / correction(hyper.beta1)) as f32,
            root_correction: correction(hyper.beta2).sqrt().recip() as f32,
            eps: hyper.eps as f32,
        }
    }

    /// Returns the largest change of a parameter.
    fn apply(&self, params: &mut [f32], grads: &[f32], m: &mut [f32], v: &mut [f32]) -> f32 {
        let mut largest = 0;
        for (((param, grad), m), v) in params.iter_mut().zip(grads).zip(m).zip(v) {
            let grad = grad * self.grad_scale;
            *m = self.beta1 * *m + self.one_less_beta1 * grad;
            *v = self.beta2 * *v + self.one_less_beta2 * grad * grad;
            let denominator = v.sqrt() * self.root_correction + self.eps;
            let before = *param;
            *param = before * self.keep - self.rate * (*m / denominator);
            largest = magnitude(*param - before).max(largest);
        }
        f32::from_bits(largest)
    }
}

/// Euclidean norm of the gradients in `ranges`, which the caller passes in name order. Squares are summed in f64 in
/// fixed chunks, then in order, so the result does not depend on the number of threads. Not finite if a gradient is
/// not.
pub fn global_norm(grads: &[f32], ranges: &[Range<usize>]) -> f64 {
    let chunks: Vec<&[f32]> = ranges.iter().flat_map(|range| grads[range.clone()].chunks(CHUNK)).collect();
    let squares: Vec<f64> = chunks.par_iter().map(|chunk| sum_of_squares(chunk)).collect();
    squares.iter().sum::<f64>().sqrt()
}

/// The factor that reduces gradients of norm `norm` to at most `max_norm`, as in PyTorch's `clip_grad_norm_`.
/// A `max_norm` of 0 disables clipping.
pub fn clip_scale(norm: f64, max_norm: f64) -> f32 {
    if max_norm == 0.0 { 1.0 } else { (max_norm / (norm + 1e-6)).min(1.0) as f32 }
}

/// Eight independent sums, so that an addition does not wait for the previous one.
fn sum_of_squares(values: &[f32]) -> f64 {
    let mut sums = [0.0_f64; 8];
    let (blocks, rest) = values.as_chunks::<8>();
    for block in blocks {
        for (sum, value) in sums.iter_mut().zip(block) {
            *sum += f64::from(*value) * f64::from(*value);
        }
    }
    for (sum, value) in sums.iter_mut().zip(rest) {
        *sum += f64::from(*value) * f64::from(*value);
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;
    use crate::rng::{Purpose, Stream};

    const HYPER: Hyper = Hyper { lr: 0.01, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };

    fn assert_close(actual: &[f32], expected: &[f32]) {
        for (a, e) in actual.iter().zip(expected) {
            assert!((a - e).abs() <= 1e-6 * e.abs().max(1e-3), "{actual:?} expected {expected:?}");
        }
    }

    fn values(count: usize, tag: u64) -> Vec<f32> {
        let stream = Stream::new(1, Purpose::Test, &[tag]);
        (0..count as u64).map(|i| stream.normal(i) as f32).collect()
    }

    /// Values from torch 2.15's `AdamW` (neither foreach nor fused) with [`HYPER`].
    #[test]
    fn equals_torch() {
        let mut params = [0.5, -1.25, 0.0, 3.0, -0.001];
        let mut adamw = AdamW::new(params.len());
        for (grads, expected) in [
            ([0.1, -0.2, 0.0, 1e-6, 5.0], [0.489_500_02, -1.238_75, 0.0, 2.987_099, -0.010_999]),
            ([0.3, 0.2, 0.0, -1e-6, -4.0], [0.479_923_6, -1.238_037_6, 0.0, 2.984_633, -0.011_570_862]),
            ([-0.5, 0.1, 0.25, 1e-3, 0.5], [0.481_025_76, -1.239_335_4, -0.006_232_23, 2.975_417, -0.012_519_584]),
        ] {
            adamw.step(&mut params, &grads, &HYPER, 1.0);
            assert_close(&params, &expected);
        }
        assert_close(&adamw.m, &[-0.0149, 0.0118, 0.025, 9.999_1e-5, 0.095]);
        assert_close(&adamw.v, &[0.017_226_25, 0.004_205, 0.003_125, 5.000_01e-8, 1.900_625]);
    }

    #[test]
    fn grad_scale_scales_the_gradient() {
        let (grads, halves) = (values(100, 0), values(100, 0).iter().map(|grad| 0.5 * grad).collect::<Vec<_>>());
        let (mut a, mut b) = (values(100, 1), values(100, 1));
        let (mut scaled, mut plain) = (AdamW::new(100), AdamW::new(100));
        scaled.step(&mut a, &grads, &HYPER, 0.5);
        plain.step(&mut b, &halves, &HYPER, 1.0);
        assert_eq!((a, scaled), (b, plain));
    }

    /// 0.6 and 0.8 minus a millionth part: torch's `clip_grad_norm_` of (3, 4) to 1; a norm of 0.5 is unchanged.
    #[test]
    fn clipping_equals_torch() {
        let norm = global_norm(&[3.0, 4.0], &[0..1, 1..2]);
        assert_eq!(norm, 5.0);
        let scale = clip_scale(norm, 1.0);
        assert_close(&[3.0 * scale, 4.0 * scale], &[0.599_999_9, 0.799_999_83]);
        assert!(3.0 * scale < 0.6);
        assert_eq!(clip_scale(0.5, 1.0), 1.0);
        assert_eq!(clip_scale(5.0, 0.0), 1.0);
    }

    #[test]
    fn norm_covers_only_the_ranges_and_shows_values_that_are_not_finite() {
        let mut grads = vec![1.0_f32; 3 * CHUNK];
        let (all, half) = (0..3 * CHUNK, 0..CHUNK / 2);
        assert_eq!(global_norm(&grads, &[half, CHUNK..2 * CHUNK]), (1.5 * CHUNK as f64).sqrt());
        assert_eq!(global_norm(&grads, &[]), 0.0);
        grads[CHUNK] = f32::NAN;
        assert!(global_norm(&grads, from_ref(&all)).is_nan());
        grads[CHUNK] = 1e30; // its square exceeds f32
        assert!((global_norm(&grads, from_ref(&all)) / 1e30 - 1.0).abs() < 1e-6);
    }

    #[test]
    fn the_largest_change_is_measured_in_all_and_in_watched_parameters() {
        let count = 2 * CHUNK + 100;
        let watched = [5..10, CHUNK - 3..CHUNK + 4, 2 * CHUNK + 50..count];
        let before = values(count, 6);
        let changed = |changes: &[(usize, f32)]| {
            let mut after = before.clone();
            changes.iter().for_each(|&(at, value)| after[at] = value);
            LargestChange::between(&before, &after, &watched)
        };
        assert_eq!(changed(&[]), LargestChange { all: 0.0, watched: 0.0 });
        for (at, is_watched) in [(4, false), (5, true), (9, true), (10, false), (CHUNK - 4, false), (CHUNK + 3, true)] {
            let change = changed(&[(at, before[at] + 2.0), (count / 2 + 7, before[count / 2 + 7] - 1.0)]);
            assert!((change.all - 2.0).abs() < 1e-5, "{at}");
            assert!((change.watched - if is_watched { 2.0 } else { 0.0 }).abs() < 1e-5, "{at}");
            assert!(change.is_finite());
        }
        assert!(!changed(&[(20, f32::NAN)]).is_finite() && changed(&[(20, f32::NAN)]).watched == 0.0);
        assert!(changed(&[(count - 1, f32::NEG_INFINITY)]).watched.is_infinite());

        // The step measures what a comparison afterwards shows, and its result does not depend on what is watched.
        let (mut a, mut b) = (before.clone(), before.clone());
        let (mut measured, mut plain) = (AdamW::new(count), AdamW::new(count));
        let change = measured.step_and_measure(&mut a, &values(count, 7), &HYPER, 0.5, &watched);
        plain.step(&mut b, &values(count, 7), &HYPER, 0.5);
        assert_eq!(change, LargestChange::between(&before, &a, &watched));
        assert_eq!((a, measured), (b, plain));
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        let count = 5 * CHUNK + 77;
        let run = |threads| {
            rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
                let (mut params, mut adamw) = (values(count, 2), AdamW::new(count));
                let norm = global_norm(&values(count, 3), &[0..CHUNK + 3, CHUNK + 3..count]);
                adamw.step(&mut params, &values(count, 3), &HYPER, clip_scale(norm, 1.0));
                (norm.to_bits(), params, adamw)
            })
        };
        assert_eq!(run(1), run(4));
    }

    #[test]
    fn state_is_restored_by_name() {
        let layout = ParameterLayout::from([("b".to_owned(), 0..3), ("a".to_owned(), 3..5)]);
        let (mut adamw, mut params) = (AdamW::new(5), values(5, 4));
        adamw.step(&mut params, &values(5, 5), &HYPER, 1.0);
        let state = adamw.state(&layout);
        assert_eq!(state.keys().collect::<Vec<_>>(), ["exp_avg.a", "exp_avg.b", "exp_avg_sq.a", "exp_avg_sq.b"]);
        assert_eq!(state["exp_avg.a"], adamw.m[3..5]);
        assert_eq!(AdamW::from_state(&state, &layout, 1).unwrap(), adamw);

        let message = |state, layout| AdamW::from_state(state, layout, 1).unwrap_err().to_string();
        let smaller = ParameterLayout::from([("a".to_owned(), 3..5)]);
        assert!(message(&state, &smaller).contains("has 4 tensors, but the adapter needs 2"));
        let wider = ParameterLayout::from([("b".to_owned(), 0..3), ("a".to_owned(), 3..6)]);
        assert!(message(&state, &wider).contains("`exp_avg.a` has 2 values, but the adapter has 3"));
        let other = ParameterLayout::from([("c".to_owned(), 0..5)]);
        assert!(message(&state, &other).contains("no tensor `exp_avg.c`"));
    }
}
