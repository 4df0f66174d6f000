//! Two models on the same questions.

use serde::{Deserialize, Serialize};

use super::{Interval, RESAMPLES, bootstrap_mean, detectable_difference, mean, sample_std, wilson};
use crate::rng::{Purpose, Stream};

/// The difference between two models, with one 0/1 outcome per question.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairedComparison {
    pub questions: usize,
    /// Number of questions that only the first model solves.
    pub only_first: usize,
    /// Number of questions that only the second model solves.
    pub only_second: usize,
    /// Share solved by the second minus share solved by the first.
    pub difference: f64,
    pub interval: Interval,
    /// Two-sided p-value of [`mcnemar_exact`].
    pub p_value: f64,
    /// As in [`MeanComparison`].
    pub detectable: Option<f64>,
}

/// The difference between two models, with several completions per question.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeanComparison {
    pub questions: usize,
    /// Mean of the second minus mean of the first.
    pub difference: f64,
    /// 95 % interval over questions.
    pub interval: Interval,
    /// Two-sided p-value of [`sign_flip`].
    pub p_value: f64,
    /// The smallest true difference that this number of questions, with this spread, detects in 80 of 100 studies at level 5 %;
    /// `None` if there is no spread.
    pub detectable: Option<f64>,
}

/// Compares two outcomes on the same questions, in the same order.
///
/// The interval of the difference is Newcombe's method 10 (Statistics in Medicine 17:2635, 1998): the Wilson intervals of both
/// shares, squared and added, with a correction for their correlation.
///
/// # Panics
/// If the lengths differ or there are no questions.
pub fn compare_paired(first: &[bool], second: &[bool], confidence: f64) -> PairedComparison {
    assert_eq!(first.len(), second.len(), "a paired comparison needs the same questions for both models");
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
        detectable: {
            let differences: Vec<f64> = first.iter().zip(second).map(|(&x, &y)| f64::from(y) - f64::from(x)).collect();
            detectable_difference(sample_std(&differences), differences.len(), 0.05, 0.8)
        },
    }
}

/// Compares the means of each question, in the same order: a bootstrap over the questions' differences for the interval, and
/// [`sign_flip`] for the p-value.
///
/// # Panics
/// If the lengths differ or there are no questions.
pub fn compare_means(first: &[f64], second: &[f64], seed: u64) -> MeanComparison {
    assert_eq!(first.len(), second.len(), "a paired comparison needs the same questions for both models");
    let differences: Vec<f64> = first.iter().zip(second).map(|(first, second)| second - first).collect();
    MeanComparison {
        questions: differences.len(),
        difference: mean(&differences),
        interval: bootstrap_mean(&differences, RESAMPLES, 0.95, seed),
        p_value: sign_flip(&differences, RESAMPLES, seed),
        detectable: detectable_difference(sample_std(&differences), differences.len(), 0.05, 0.8),
    }
}

/// Two-sided p-value of the mean of paired differences: the share of random sign changes that give a sum at least as
/// far from zero. If the models do not differ, each question's difference is as likely to have the other sign, so the test is
/// exact for any number of questions, whereas a p-value from a bootstrap is too small for few questions. The observed signs
/// count as one of the changes, so the test is exact with `resamples` random changes (Phipson and Smyth, Statistical Applications
/// in Genetics and Molecular Biology 9:39, 2010).
///
/// # Panics
/// Without differences.
pub fn sign_flip(differences: &[f64], resamples: usize, seed: u64) -> f64 {
    assert!(!differences.is_empty(), "a comparison needs questions");
    let size: f64 = differences.iter().map(|difference| difference.abs()).sum();
    // Equal sums may differ by rounding.
    let observed = differences.iter().sum::<f64>().abs() - 1e-12 * size;
    let as_far = (0..resamples as u64).filter(|&replicate| {
        let stream = Stream::new(seed, Purpose::Bootstrap, &[replicate, 1]);
        let chunks = differences.chunks(64).enumerate();
        let sum: f64 = chunks
            .map(|(chunk, differences)| {
                let bits = stream.u64(chunk as u64);
                let signed = |(i, d): (usize, &f64)| if bits >> i & 1 == 1 { -d } else { *d };
                differences.iter().enumerate().map(signed).sum::<f64>()
            })
            .sum();
        sum.abs() >= observed
    });
    (as_far.count() + 1) as f64 / (resamples + 1) as f64
}

/// The exact McNemar test: the two-sided probability that `only_first` + `only_second` fair coins fall at least as unevenly.
/// Questions on which both models agree contain no information about the difference.
pub fn mcnemar_exact(only_first: usize, only_second: usize) -> f64 {
    let n = (only_first + only_second) as f64;
    // Uses logarithms, because 2^-n underflows from n = 1,075 on.
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
        // Calculated with exact integer arithmetic, because 2^-n underflows.
        assert!((mcnemar_exact(1_900, 2_100) - 0.001_649_266_375).abs() < 1e-11);
    }

    /// Ten equal differences have a sum as far from zero only if all signs are equal: in 2 of 1,024 cases.
    #[test]
    fn sign_flip_by_counting() {
        let p = sign_flip(&[0.1; 10], 100_000, 3);
        assert!((p - 2.0 / 1024.0).abs() < 5e-4, "{p}");
        assert_eq!(sign_flip(&[0.0; 10], 1_000, 3), 1.0);
        // With 0/1 outcomes it is McNemar's test.
        let mut outcomes = vec![1.0; 9];
        outcomes.extend([-1.0; 3]);
        outcomes.extend([0.0; 100]);
        let p = sign_flip(&outcomes, 100_000, 3);
        assert!((p - mcnemar_exact(3, 9)).abs() < 5e-3, "{p}");
    }

    #[test]
    fn means_of_questions_are_paired() {
        let first: Vec<f64> = (0..60).map(|i| f64::from(i % 5) / 4.0).collect();
        let second: Vec<f64> = first.iter().enumerate().map(|(i, x)| x + 0.01 * (i % 3) as f64).collect();
        let got = compare_means(&first, &second, 1);
        assert!((got.difference - 0.01).abs() < 1e-12 && got.interval.low > 0.0 && got.p_value < 0.001);
        assert!(got.detectable.unwrap() < 0.01);
        let none = compare_means(&first, &first, 1);
        assert_eq!((none.difference, none.p_value, none.detectable), (0.0, 1.0, None));
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
