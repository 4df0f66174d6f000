//! Comparison of two proportions, such as those in published tables, when the outcomes of single trials are unknown.

use serde::{Deserialize, Serialize};

use super::{Interval, mcnemar_exact, normal_cdf, wilson};

/// The second proportion compared with the first.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnpairedComparison {
    /// Second minus first.
    pub difference: f64,
    pub interval: Interval,
    /// Two-sided, of the z test with the pooled proportion.
    pub p_value: f64,
}

/// Compares `second` with `first`, each (successes, trials), as independent samples. The interval is Newcombe's method 10
/// (Statistics in Medicine 17:873, 1998): the two Wilson intervals, squared and added.
///
/// # Panics
/// If a sample has no trials or more successes than trials.
pub fn compare_unpaired(first: (usize, usize), second: (usize, usize), confidence: f64) -> UnpairedComparison {
    assert!(first.1 > 0 && second.1 > 0, "a comparison needs trials");
    let share = |(successes, n): (usize, usize)| successes as f64 / n as f64;
    let (p1, p2) = (share(first), share(second));
    let (w1, w2) = (wilson(first.0, first.1, confidence), wilson(second.0, second.1, confidence));
    let difference = p2 - p1;
    let interval = Interval {
        low: difference - (p2 - w2.low).hypot(w1.high - p1),
        high: difference + (w2.high - p2).hypot(p1 - w1.low),
    };

    let (n1, n2) = (first.1 as f64, second.1 as f64);
    let pooled = share((first.0 + second.0, first.1 + second.1));
    let error = (pooled * (1.0 - pooled) * (1.0 / n1 + 1.0 / n2)).sqrt();
    let p_value = if difference == 0.0 { 1.0 } else { 2.0 * normal_cdf(-(difference / error).abs()) };
    UnpairedComparison { difference, interval, p_value }
}

/// The smallest and the largest p-value that the exact McNemar test can have if `first` and `second` of the same `n` questions
/// are solved, but it is unknown which ones. It is smallest if one model solves all questions that the other solves, and largest
/// if the solved questions overlap as little as possible.
///
/// # Panics
/// If more than `n` are solved.
pub fn mcnemar_bounds(first: usize, second: usize, n: usize) -> (f64, f64) {
    assert!(first <= n && second <= n, "{first} and {second} solved of {n}");
    let p_value = |both: usize| mcnemar_exact(first - both, second - both);
    (p_value(first.min(second)), p_value((first + second).saturating_sub(n)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Table II of Newcombe's paper, method 10, the first three contrasts.
    #[test]
    fn intervals_as_published() {
        for (first, second, low, high) in
            [((56, 70), (48, 80), 0.0524, 0.3339), ((9, 10), (3, 10), 0.1705, 0.8090), ((6, 7), (2, 7), 0.0582, 0.8062)]
        {
            let got = compare_unpaired(second, first, 0.95).interval;
            assert!((got.low - low).abs() < 5e-5 && (got.high - high).abs() < 5e-5, "{first:?} {second:?}: {got:?}");
        }
    }

    #[test]
    fn equal_proportions_do_not_differ() {
        for (successes, n) in [(0, 30), (30, 30), (7, 30)] {
            let got = compare_unpaired((successes, n), (successes, n), 0.95);
            assert_eq!((got.difference, got.p_value), (0.0, 1.0));
        }
    }

    /// For every possible number of questions solved by both models, the p-value is between the bounds.
    #[test]
    fn bounds_hold_for_every_pairing() {
        let n = 25;
        for (first, second) in [(5, 14), (20, 14), (25, 3), (0, 0), (12, 13)] {
            let (low, high) = mcnemar_bounds(first, second, n);
            for both in (first + second).saturating_sub(n)..=first.min(second) {
                let p = mcnemar_exact(first - both, second - both);
                assert!(low <= p + 1e-12 && p <= high + 1e-12, "{first} {second} {both}: {low} {p} {high}");
            }
        }
    }
}
