//! Confidence sets of a ratio of two means, such as the share of a gain that remains.
//!
//! A ratio has no useful standard error if its denominator may be zero. Fieller's theorem (Journal of the Royal Statistical
//! Society B 16:175, 1954) avoids it: a ratio r belongs to the set if a t test does not reject that the mean of numerator -
//! r · denominator is zero. If the denominator differs significantly from zero, the set is an interval. Otherwise it is
//! unbounded: everything outside an interval, or every value. No method whose intervals are always bounded has the stated
//! coverage (Gleser and Hwang, Annals of Statistics 15:1351, 1987).

use serde::Serialize;

use super::seeds::PRIOR_SEEDS;
use super::{Interval, mean, student_quantile};

/// The values of a ratio that the data does not exclude.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RatioSet {
    /// An interval; one end can be infinite.
    Within(Interval),
    /// At most the lower or at least the upper end.
    Outside(Interval),
    /// Every value.
    Any,
}

impl RatioSet {
    pub fn contains(&self, ratio: f64) -> bool {
        match *self {
            Self::Within(Interval { low, high }) => low <= ratio && ratio <= high,
            Self::Outside(Interval { low, high }) => ratio <= low || high <= ratio,
            Self::Any => true,
        }
    }

    /// Whether both ends are finite, which means that the denominator differs significantly from zero.
    pub fn is_bounded(&self) -> bool {
        matches!(self, Self::Within(Interval { low, high }) if low.is_finite() && high.is_finite())
    }
}

/// Variances and covariance of pairs of a numerator and a denominator.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PairSpread {
    pub variances: [f64; 2],
    pub covariance: f64,
}

impl PairSpread {
    /// Of a sample (divisor n - 1); NaN for fewer than two pairs.
    pub fn of(pairs: &[[f64; 2]]) -> Self {
        let [first, second] = means(pairs);
        let sum = |product: &dyn Fn(&[f64; 2]) -> f64| pairs.iter().map(product).sum::<f64>();
        let divisor = if pairs.len() > 1 { (pairs.len() - 1) as f64 } else { f64::NAN };
        Self {
            variances: [sum(&|it| (it[0] - first).powi(2)) / divisor, sum(&|it| (it[1] - second).powi(2)) / divisor],
            covariance: sum(&|it| (it[0] - first) * (it[1] - second)) / divisor,
        }
    }

    /// `weight` of this and `other_weight` of the other.
    fn plus(self, weight: f64, other: Self, other_weight: f64) -> Self {
        let add = |a: f64, b: f64| weight * a + other_weight * b;
        Self {
            variances: [0, 1].map(|at| add(self.variances[at], other.variances[at])),
            covariance: add(self.covariance, other.covariance),
        }
    }

    /// The mean of several; `None` without any.
    pub fn mean(spreads: &[Self]) -> Option<Self> {
        let each = 1.0 / spreads.len() as f64;
        (!spreads.is_empty()).then(|| spreads.iter().fold(Self::default(), |sum, spread| sum.plus(1.0, *spread, each)))
    }

    /// With variances of at least these.
    fn raised(self, at_least: [f64; 2]) -> Self {
        Self { variances: [0, 1].map(|at| self.variances[at].max(at_least[at])), ..self }
    }
}

fn means(pairs: &[[f64; 2]]) -> [f64; 2] {
    [0, 1].map(|at| mean(&pairs.iter().map(|pair| pair[at]).collect::<Vec<_>>()))
}

/// Fieller's set for the ratio of `means[0]` to `means[1]`. `spread` is that of the means, with `df` degrees of freedom.
///
/// The ratios r of the set are the solutions of a·r² - 2·b·r + c <= 0, with the quantile t, a = y² - t²·var(y),
/// b = x·y - t²·cov(x, y) and c = x² - t²·var(x).
pub fn fieller(means: [f64; 2], spread: PairSpread, df: f64, confidence: f64) -> RatioSet {
    let [x, y] = means;
    let square = student_quantile((1.0 + confidence) / 2.0, df).powi(2);
    let a = y * y - square * spread.variances[1];
    let b = x * y - square * spread.covariance;
    let c = x * x - square * spread.variances[0];
    let inside = b * b - a * c;
    if a == 0.0 && b != 0.0 {
        let end = c / (2.0 * b);
        let (low, high) = if b > 0.0 { (end, f64::INFINITY) } else { (f64::NEG_INFINITY, end) };
        return RatioSet::Within(Interval { low, high });
    }
    // If a is positive, the estimate is a solution, so there are two roots up to rounding.
    if a > 0.0 {
        let reach = inside.max(0.0).sqrt();
        return RatioSet::Within(Interval { low: (b - reach) / a, high: (b + reach) / a });
    }
    if a < 0.0 && inside > 0.0 {
        let reach = inside.sqrt();
        return RatioSet::Outside(Interval { low: (b + reach) / a, high: (b - reach) / a });
    }
    RatioSet::Any
}

/// The 95 % set over seeds: `pairs` has the numerator and the denominator of each. `None` for fewer than two.
///
/// The spread is estimated as in [`super::compare_seeds`]: `others`, the mean spread of the study's other pairs, counts as much as
/// two more seeds, and a variance is not below `at_least`, that of the noise of the questions.
pub fn ratio_over_seeds(pairs: &[[f64; 2]], others: Option<PairSpread>, at_least: [f64; 2]) -> Option<RatioSet> {
    let n = pairs.len() as f64;
    if pairs.len() < 2 {
        return None;
    }
    let prior = if others.is_some() { PRIOR_SEEDS } else { 0.0 };
    let df = n - 1.0 + prior;
    let others = others.unwrap_or_default().raised(at_least);
    let spread = PairSpread::of(pairs).plus((n - 1.0) / df, others, prior / df).raised(at_least);
    Some(fieller(means(pairs), spread.plus(1.0 / n, PairSpread::default(), 0.0), df, 0.95))
}

/// The 95 % set over questions, for the unweighted mean of `benchmarks`, each with the numerator and the denominator of its
/// questions. The degrees of freedom are those of the smallest benchmark. As for differences, a variance is at least that
/// of two models that agree on every question (Agresti and Min, Statistics in Medicine 24:729, 2005).
pub fn ratio_over_questions(benchmarks: &[Vec<[f64; 2]>]) -> RatioSet {
    let fewest = benchmarks.iter().map(Vec::len).min().unwrap_or(0);
    if fewest < 2 {
        return RatioSet::Any;
    }
    let count = benchmarks.len() as f64;
    let (mut spread, mut at_least) = (PairSpread::default(), 0.0);
    for pairs in benchmarks {
        let n = pairs.len() as f64;
        spread = spread.plus(1.0, PairSpread::of(pairs), 1.0 / (n * count * count));
        at_least += ((n + 2.0) * count).powi(-2);
    }
    let of_benchmarks: Vec<[f64; 2]> = benchmarks.iter().map(|pairs| means(pairs)).collect();
    fieller(means(&of_benchmarks), spread.raised([at_least; 2]), (fewest - 1) as f64, 0.95)
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::*;
    use crate::rng::{Purpose, Stream};

    fn near(got: RatioSet, expected: RatioSet) {
        let (a, b) = match (got, expected) {
            (RatioSet::Within(a), RatioSet::Within(b)) | (RatioSet::Outside(a), RatioSet::Outside(b)) => (a, b),
            _ => return assert_eq!(got, expected),
        };
        // Ends can be infinite, and their difference is not a number then.
        let is_near = |a: f64, b: f64| a == b || (a - b).abs() < 1e-9;
        assert!(is_near(a.low, b.low) && is_near(a.high, b.high), "{got:?}, {expected:?}");
    }

    /// With two degrees of freedom and confidence 0.95, t² = 2·0.95² / (1 - 0.95²) = 1.805 / 0.0975.
    const SQUARE: f64 = 1.805 / 0.0975;

    #[test]
    fn the_three_kinds_of_sets_by_hand() {
        let set = |x: f64, y: f64, variances: [f64; 2], covariance: f64| {
            let spread = PairSpread { variances: variances.map(|it| it / SQUARE), covariance: covariance / SQUARE };
            fieller([x, y], spread, 2.0, 0.95)
        };
        // a = 4 - 1 = 3, b = 2, c = 1 - 1 = 0: 3r² - 4r <= 0.
        near(set(1.0, 2.0, [1.0, 1.0], 0.0), RatioSet::Within(Interval { low: 0.0, high: 4.0 / 3.0 }));
        // a = 1 - 2 = -1, b = 2, c = 4 - 1 = 3: r² + 4r - 3 >= 0, with the roots -2 ± √7.
        let root = 7f64.sqrt();
        let outside = Interval { low: -2.0 - root, high: -2.0 + root };
        near(set(2.0, 1.0, [1.0, 2.0], 0.0), RatioSet::Outside(outside));
        // a = -1, b = 0, c = -1: -r² - 1 <= 0 for all r.
        near(set(0.0, 0.0, [1.0, 1.0], 0.0), RatioSet::Any);
        // a = 4 - 1 = 3, b = 2 - 0.5 = 1.5, c = 0: 3r² - 3r <= 0.
        near(set(1.0, 2.0, [1.0, 1.0], 0.5), RatioSet::Within(Interval { low: 0.0, high: 1.0 }));
        // Without any spread, the ratio is exact; a numerator over a denominator of exactly zero is not.
        near(set(1.0, 2.0, [0.0, 0.0], 0.0), RatioSet::Within(Interval { low: 0.5, high: 0.5 }));
        near(set(1.0, 0.0, [0.0, 0.0], 0.0), RatioSet::Any);
    }

    #[test]
    fn an_end_is_infinite_if_the_denominator_is_on_the_limit() {
        // No data has a covariance without variances, but it makes a exactly zero.
        let set = |covariance: f64| {
            let spread = PairSpread { variances: [0.0; 2], covariance };
            fieller([1.0, 0.0], spread, 2.0, 0.95)
        };
        // a = 0, b = -t²·cov, c = 1.
        let end = 1.0 / (2.0 * SQUARE);
        near(set(-1.0), RatioSet::Within(Interval { low: end, high: f64::INFINITY }));
        near(set(1.0), RatioSet::Within(Interval { low: f64::NEG_INFINITY, high: -end }));
        assert!(!set(1.0).is_bounded() && set(-1.0).contains(1e9) && !set(-1.0).contains(0.0));
    }

    #[test]
    fn three_seeds_by_hand() {
        // Numerators 1, 2, 3 and denominators 5, 4, 6: means 2 and 5, variances 1 and 1, covariance 0.5.
        let pairs = [[1.0, 5.0], [2.0, 4.0], [3.0, 6.0]];
        assert_eq!(PairSpread::of(&pairs), PairSpread { variances: [1.0, 1.0], covariance: 0.5 });
        let t = SQUARE / 3.0;
        let (a, b, c) = (25.0 - t, 10.0 - t / 2.0, 4.0 - t);
        let reach = (b * b - a * c).sqrt();
        let expected = RatioSet::Within(Interval { low: (b - reach) / a, high: (b + reach) / a });
        near(ratio_over_seeds(&pairs, None, [0.0; 2]).unwrap(), expected);
        // Variances of at least 1 change nothing; larger ones make the set wider.
        near(ratio_over_seeds(&pairs, None, [1.0; 2]).unwrap(), expected);
        assert!(!ratio_over_seeds(&pairs, None, [1.0, 9.0]).unwrap().is_bounded());
        // Others with the same spread leave it as it is, with four degrees of freedom instead of two.
        let with_others = ratio_over_seeds(&pairs, Some(PairSpread::of(&pairs)), [0.0; 2]).unwrap();
        let means = PairSpread { variances: [1.0 / 3.0; 2], covariance: 0.5 / 3.0 };
        near(with_others, fieller([2.0, 5.0], means, 4.0, 0.95));
        assert_eq!(ratio_over_seeds(&pairs[..1], None, [0.0; 2]), None);
    }

    #[test]
    fn questions_of_two_benchmarks_by_hand() {
        let pairs = vec![[1.0, 5.0], [2.0, 4.0], [3.0, 6.0]];
        // The same benchmark twice: half the variance of its mean.
        let spread = PairSpread { variances: [1.0 / 6.0; 2], covariance: 0.5 / 6.0 };
        let got = ratio_over_questions(&[pairs.clone(), pairs.clone()]);
        near(got, fieller([2.0, 5.0], spread, 2.0, 0.95));
        assert_eq!(ratio_over_questions(&[pairs, vec![[1.0, 1.0]]]), RatioSet::Any);
        // Equal values on all questions still leave a width.
        let RatioSet::Within(interval) = ratio_over_questions(&[vec![[0.5, 1.0]; 50]]) else { panic!("an interval") };
        assert!(interval.low < 0.48 && interval.high > 0.52, "{interval:?}");
    }

    /// The share of simulated studies whose set over seeds contains the true ratio. The denominator's mean is
    /// `denominator` standard deviations between seeds, and numerator and denominator are correlated. With `others`, two more
    /// arms of other spread are in the study.
    fn covered(seeds: usize, denominator: f64, ratio: f64, others: bool, studies: u64) -> usize {
        let truth = [ratio * denominator, denominator];
        let one = |draw: u64| {
            let arm = |arm: u64, scale: f64| -> Vec<[f64; 2]> {
                let stream = Stream::new(7, Purpose::Test, &[draw, arm]);
                (0..seeds as u64)
                    .map(|seed| {
                        let [own, shared, other] = [0, 1, 2].map(|at| scale * stream.normal(3 * seed + at));
                        [truth[0] + 0.6 * shared + 0.8 * own, truth[1] + 0.6 * shared + 0.8 * other]
                    })
                    .collect()
            };
            let spreads = [PairSpread::of(&arm(1, 0.7)), PairSpread::of(&arm(2, 1.3))];
            let others = if others { PairSpread::mean(&spreads) } else { None };
            usize::from(ratio_over_seeds(&arm(0, 1.0), others, [0.0; 2]).unwrap().contains(ratio))
        };
        (0..studies).into_par_iter().map(one).sum()
    }

    /// At least 93 %, also with a denominator of almost zero.
    #[test]
    fn sets_over_seeds_cover_the_true_ratio() {
        for seeds in [2, 3, 5] {
            for denominator in [0.001, 0.3, 1.0, 5.0] {
                for ratio in [0.0, 0.7, 1.5] {
                    for others in [false, true] {
                        let count = covered(seeds, denominator, ratio, others, 2_000);
                        let setting =
                            format!("{seeds} seeds, denominator {denominator}, ratio {ratio}, others {others}");
                        println!("{setting}: {:.1} %", count as f64 / 20.0);
                        assert!(count >= 1_860, "{setting}: {count} of 2000");
                    }
                }
            }
        }
    }

    /// Two models with and without a prompt on the same questions, one completion each.
    #[test]
    fn sets_over_questions_cover_the_true_ratio() {
        for (questions, gains) in [(40, [0.3, 0.4]), (40, [0.02, 0.001]), (200, [0.1, 0.12]), (200, [0.0, 0.01])] {
            let [without, with] = gains;
            let one = |draw: u64| {
                let stream = Stream::new(11, Purpose::Test, &[draw, questions]);
                let pair = |question: u64| -> [f64; 2] {
                    let ease = 0.2 + 0.3 * stream.f64(8 * question);
                    let right = |at: u64, chance: f64| f64::from(u8::from(stream.f64(8 * question + at) < chance));
                    let base = [right(1, ease), right(2, ease)];
                    [right(3, ease + without) - base[0], right(4, ease + with) - base[1]]
                };
                let set = ratio_over_questions(&[(0..questions).map(pair).collect()]);
                usize::from(set.contains(without / with))
            };
            let count: usize = (0..2_000u64).into_par_iter().map(one).sum();
            println!("{questions} questions, gains {gains:?}: {:.1} %", count as f64 / 20.0);
            assert!(count >= 1_860, "{questions} questions, gains {gains:?}: {count} of 2000");
        }
    }
}
