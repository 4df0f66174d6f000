//! Resampling of questions.

use super::{Interval, mean};
use crate::rng::{Purpose, Stream};

/// Percentile bootstrap interval of the mean of `values`, one for each question (with several samples a question, the
/// question's mean; for a paired comparison, its difference). Questions are what is resampled: drawing samples instead would
/// take those of one question for independent and give an interval that is too narrow. 10,000 `resamples` are usual.
///
/// # Panics
/// When there is no value or no resample, or `confidence` is not within (0, 1).
pub fn bootstrap_mean(values: &[f64], resamples: usize, confidence: f64, seed: u64) -> Interval {
    assert!(!values.is_empty() && resamples > 0, "a bootstrap needs values and resamples");
    assert!(confidence > 0.0 && confidence < 1.0, "a confidence of {confidence}");
    let n = values.len() as u64;
    let mut means: Vec<f64> = (0..resamples as u64)
        .map(|replicate| {
            let stream = Stream::new(seed, Purpose::Bootstrap, &[replicate]);
            (0..n).map(|draw| values[stream.below(draw, n) as usize]).sum::<f64>() / n as f64
        })
        .collect();
    means.sort_unstable_by(f64::total_cmp);
    let tail = (1.0 - confidence) / 2.0;
    let estimate = mean(values);
    // So few resamples that all lie on one side must not push the estimate out of its own interval.
    Interval { low: quantile(&means, tail).min(estimate), high: quantile(&means, 1.0 - tail).max(estimate) }
}

/// Quantile of sorted values, linear between neighbours (definition 7 of Hyndman and Fan, 1996).
pub(super) fn quantile(sorted: &[f64], p: f64) -> f64 {
    let position = p * (sorted.len() - 1) as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (position - below as f64) * (sorted[above] - sorted[below])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{normal_quantile, sample_std};

    #[test]
    fn near_the_normal_interval_where_that_holds() {
        let stream = Stream::new(5, Purpose::Test, &[]);
        let values: Vec<f64> = (0..500).map(|i| stream.normal(i)).collect();
        let got = bootstrap_mean(&values, 4_000, 0.95, 1);
        let half = normal_quantile(0.975) * sample_std(&values) / (values.len() as f64).sqrt();
        let centre = mean(&values);
        assert!((got.low - (centre - half)).abs() < 0.06 * half, "{got:?}, {centre} +- {half}");
        assert!((got.high - (centre + half)).abs() < 0.06 * half, "{got:?}, {centre} +- {half}");
    }

    #[test]
    fn a_function_of_its_seed() {
        let values: Vec<f64> = (0..40).map(|i| f64::from(i % 3)).collect();
        let run = |seed| bootstrap_mean(&values, 200, 0.9, seed);
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }

    #[test]
    fn equal_values_have_no_spread() {
        assert_eq!(bootstrap_mean(&[0.5; 10], 100, 0.95, 0), Interval { low: 0.5, high: 0.5 });
    }

    #[test]
    fn quantile_is_linear_between_neighbours() {
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.75), 3.0);
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 1.0), 4.0);
    }
}
