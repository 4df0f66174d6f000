//! Resampling of questions for ratios of totals, such as spans per token.

use rayon::prelude::*;

use super::Interval;
use super::bootstrap::{quantile, tail};
use crate::rng::{Purpose, Stream};

/// Bootstrap intervals of ratios of sums, with the percentiles of [`bootstrap_mean`](super::bootstrap_mean).
/// A cluster is a question with the totals of its samples; each ratio names
/// the columns of its numerator and its denominator. Clusters are resampled, and all ratios use the same resamples.
///
/// # Panics
/// If there are no clusters or no resamples, if `confidence` is not in (0, 1), or if a denominator is not
/// positive in every cluster.
pub fn bootstrap_ratios<const K: usize>(
    clusters: &[[f64; K]],
    ratios: &[(usize, usize)],
    resamples: usize,
    confidence: f64,
    seed: u64,
) -> Vec<Interval> {
    assert!(!clusters.is_empty() && resamples > 0, "a bootstrap needs values and resamples");
    assert!(confidence > 0.0 && confidence < 1.0, "a confidence of {confidence}");
    assert!(
        ratios.iter().all(|&(_, below)| clusters.iter().all(|cluster| cluster[below] > 0.0)),
        "a ratio needs a positive denominator"
    );
    let n = clusters.len() as u64;
    let of = |sums: &[f64; K]| ratios.iter().map(|&(above, below)| sums[above] / sums[below]).collect::<Vec<f64>>();
    let add = |mut sums: [f64; K], cluster: &[f64; K]| {
        sums.iter_mut().zip(cluster).for_each(|(sum, value)| *sum += value);
        sums
    };
    let replicates: Vec<Vec<f64>> = (0..resamples as u64)
        .into_par_iter()
        .map(|replicate| {
            let stream = Stream::new(seed, Purpose::Bootstrap, &[replicate]);
            of(&(0..n).map(|draw| &clusters[stream.below(draw, n) as usize]).fold([0.0; K], add))
        })
        .collect();
    let estimates = of(&clusters.iter().fold([0.0; K], add));
    let tail = tail(clusters.len(), confidence);
    estimates
        .into_iter()
        .enumerate()
        .map(|(index, estimate)| {
            let mut values: Vec<f64> = replicates.iter().map(|replicate| replicate[index]).collect();
            values.sort_unstable_by(f64::total_cmp);
            // As for a mean, the estimate must be inside its own interval.
            Interval { low: quantile(&values, tail).min(estimate), high: quantile(&values, 1.0 - tail).max(estimate) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::bootstrap_mean;

    #[test]
    fn a_ratio_to_the_count_is_the_mean() {
        let stream = Stream::new(3, Purpose::Test, &[]);
        let values: Vec<f64> = (0..60).map(|i| stream.normal(i)).collect();
        let clusters: Vec<[f64; 2]> = values.iter().map(|&value| [value, 1.0]).collect();
        let got = bootstrap_ratios(&clusters, &[(0, 1)], 500, 0.9, 7)[0];
        let mean = bootstrap_mean(&values, 500, 0.9, 7);
        assert!((got.low - mean.low).abs() < 1e-12 && (got.high - mean.high).abs() < 1e-12, "{got:?}, {mean:?}");
    }

    #[test]
    fn a_constant_ratio_gives_an_interval_without_width() {
        let clusters = [[1.0, 4.0], [2.0, 8.0], [3.0, 12.0]];
        assert_eq!(bootstrap_ratios(&clusters, &[(0, 1)], 50, 0.95, 1), [Interval { low: 0.25, high: 0.25 }]);
    }
}
