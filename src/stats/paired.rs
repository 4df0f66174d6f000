//! Two models on the same questions, one 0/1 outcome each.

use serde::{Deserialize, Serialize};

use super::{Interval, wilson};

/// What the second model does differently from the first.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairedComparison {
    pub questions: usize,
    /// Questions that the first alone solves.
    pub only_first: usize,
    /// Questions that the second alone solves.
    pub only_second: usize,
    /// Share solved by the second less share solved by the first.
    pub difference: f64,
    pub interval: Interval,
    /// Two-sided p-value of [`mcnemar_exact`].
    pub p_value: f64,
}

/// Compares two outcomes on the same questions, in the same order.
///
/// The interval of the difference is Newcombe's method 10 (Statistics in Medicine 17:2635, 1998): the Wilson intervals of both
/// shares, squared and added, with a correction for their correlation.
///
/// # Panics
/// When the lengths differ or there is no question.
pub fn compare_paired(first: &[bool], second: &[bool], confidence: f64) -> PairedComparison {
    assert_eq!(first.len(), second.len(), "a paired comparison needs the same questions on both sides");
    assert!(!first.is_empty(), "a comparison needs questions");
    let count = |a: bool, b: bool| first.iter().zip(second).filter(|&(&x, &y)| (x, y) == (a, b)).count();
    let (both, only_first, only_second, neither) =
        (count(true, true), count(true, false), count(false, true), count(false, false));
    let difference = (only_second as f64 - only_first as f64) / first.len() as f64;
    PairedComparison {
        questions: first.len(),
        only_first,
        only_second,
        difference,
        interval: difference_interval([both, only_second, only_first, neither], confidence),
        p_value: mcnemar_exact(only_first, only_second),
    }
}

/// The exact McNemar test: the two-sided probability that `only_first` + `only_second` fair coins fall at least as unevenly.
/// Questions on which both agree say nothing about the difference.
pub fn mcnemar_exact(only_first: usize, only_second: usize) -> f64 {
    let n = (only_first + only_second) as f64;
    // In logarithms: 2^-n is below the smallest f64 from n = 1,075 on.
    let mut log_term = -n * std::f64::consts::LN_2;
    let mut tail = log_term.exp();
    for i in 1..=only_first.min(only_second) {
        log_term += ((n - i as f64 + 1.0) / i as f64).ln();
        tail += log_term.exp();
    }
    (2.0 * tail).min(1.0)
}

/// Interval of p1 - p2 for the table [both, only 1, only 2, neither].
fn difference_interval([a, b, c, d]: [usize; 4], confidence: f64) -> Interval {
    let n = a + b + c + d;
    let share = |successes: usize| successes as f64 / n as f64;
    let (p1, p2) = (share(a + b), share(a + c));
    let (w1, w2) = (wilson(a + b, n, confidence), wilson(a + c, n, confidence));

    let [a, b, c, d] = [a, b, c, d].map(|cell| cell as f64);
    let product = (a + b) * (c + d) * (a + c) * (b + d);
    let covariance = a * d - b * c;
    let corrected = if covariance > 0.0 { (covariance - n as f64 / 2.0).max(0.0) } else { covariance };
    let phi = if product > 0.0 { corrected / product.sqrt() } else { 0.0 };

    let reach = |x: f64, y: f64| (x * x - 2.0 * phi * x * y + y * y).max(0.0).sqrt();
    let difference = p1 - p2;
    Interval { low: difference - reach(p1 - w1.low, w2.high - p2), high: difference + reach(w1.high - p1, p2 - w2.low) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (table, difference, low, high): Newcombe's own first example; the worked example of Altman and others, "Statistics with
    /// Confidence" (2000), table 6.2; airway hyper-responsiveness (Bentur 2009) in Fagerland and others, "Recommended tests and
    /// confidence intervals for paired binomial proportions", Statistics in Medicine 33:2850 (2014).
    #[test]
    fn intervals_as_published() {
        for (table, difference, low, high) in [
            ([36, 12, 2, 0], 0.2, 0.0569, 0.3404),
            ([14, 5, 0, 22], 0.122, 0.011, 0.226),
            ([1, 1, 7, 12], -0.286, -0.507, -0.026),
        ] {
            let [a, b, c, d] = table;
            let pair = |x, y, times| std::iter::repeat_n((x, y), times);
            let outcomes = pair(true, true, a)
                .chain(pair(false, true, b))
                .chain(pair(true, false, c))
                .chain(pair(false, false, d));
            let (first, second): (Vec<bool>, Vec<bool>) = outcomes.unzip();
            let got = compare_paired(&first, &second, 0.95);
            assert_eq!((got.only_second, got.only_first), (b, c));
            let near = |x: f64, y: f64| (x - y).abs() < 6e-4;
            assert!(
                near(got.difference, difference) && near(got.interval.low, low) && near(got.interval.high, high),
                "{table:?}: {got:?}"
            );
        }
    }

    /// Fagerland and others, "The McNemar test for binary matched-pairs data", BMC Medical Research Methodology 13:91 (2013),
    /// on the same airway data: exact conditional p = 0.070 (2 * 9 / 256).
    #[test]
    fn p_value_as_published() {
        assert!((mcnemar_exact(1, 7) - 2.0 * 9.0 / 256.0).abs() < 1e-12);
        assert_eq!(mcnemar_exact(1, 7), mcnemar_exact(7, 1));
    }

    #[test]
    fn p_value_at_the_limits() {
        assert_eq!(mcnemar_exact(0, 0), 1.0);
        assert_eq!(mcnemar_exact(40, 40), 1.0);
        // 13 net wins are significant at 5 % among 37 discordant questions, no more among 39.
        assert!(mcnemar_exact(12, 25) < 0.05 && mcnemar_exact(13, 26) > 0.05);
        // By exact integer arithmetic, where 2^-n is no f64 any more.
        assert!((mcnemar_exact(1_900, 2_100) - 0.001_649_266_375).abs() < 1e-11);
    }

    #[test]
    fn swapping_the_sides_mirrors_the_interval() {
        let first = [true, true, false, false, true, false, false, true];
        let second = [true, false, true, true, true, true, false, true];
        let (there, back) = (compare_paired(&first, &second, 0.9), compare_paired(&second, &first, 0.9));
        assert!((there.interval.low + back.interval.high).abs() < 1e-12);
        assert_eq!(there.difference, -back.difference);
    }
}
