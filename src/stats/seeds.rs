//! Comparison of two arms that were trained with several seeds.

use serde::{Deserialize, Serialize};

use super::{Interval, detectable_shift, mean, sample_std, student_p_value, student_quantile, t_power};

/// Smaller differences are rounding errors: a mean of 10,000 outcomes changes in steps of 1e-4.
const ROUNDING: f64 = 1e-12;

/// The variance of other comparisons counts as much as this number of additional seeds. Two is the largest number at which the
/// intervals of studies with 2, 3 and 5 seeds keep their coverage if the arms' true variances differ (`docs/reports.md`).
pub(super) const PRIOR_SEEDS: f64 = 2.0;

/// What is known about the variance of the differences between seeds besides these differences.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct KnownSpread {
    /// A lower bound of the variance, from the noise of the questions.
    pub at_least: f64,
    /// The mean variance of the study's other comparisons on the same questions, if there are any.
    pub others: Option<f64>,
}

/// The difference of two arms over training seeds, on a fixed set of questions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeedComparison {
    pub seeds: usize,
    /// Mean over seeds of the second arm minus the first.
    pub difference: f64,
    /// Standard deviation of the difference between seeds, as observed; `None` for one seed.
    pub sd: Option<f64>,
    /// The standard deviation that the interval and the test use, and its degrees of freedom; `None` for one seed, because the
    /// variation between seeds is unknown.
    pub spread: Option<SeedSpread>,
    /// 95 % interval; `None` for one seed.
    pub interval: Option<Interval>,
    /// Two-sided p-value of the moderated t test; `None` for one seed.
    pub p_value: Option<f64>,
}

/// An estimate of the standard deviation between seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeedSpread {
    pub sd: f64,
    pub df: f64,
}

/// Compares two arms by the difference of their accuracies at each shared seed, with the paired t test and its interval, for
/// another training run on the same questions. For other questions, see [`super::compare_means`].
///
/// Two or three seeds say little about their own variance: by chance they are often almost equal, or have exactly the same
/// accuracy, and the plain t test then takes any difference for certain. So the variance is moderated (Smyth, "Linear models and
/// empirical Bayes methods for assessing differential expression", Statistical Applications in Genetics and Molecular Biology 3,
/// 2004): with n seeds and the mean variance v of the study's other comparisons it is ((n - 1) s^2 + 2 v) / (n + 1), with n + 1
/// degrees of freedom. Smyth estimates the weight of v from thousands of variances; a study has too few for that, so the weight
/// is fixed at two seeds. The variance is never below the noise of the questions, see [`KnownSpread`].
///
/// # Panics
/// If there are no differences.
pub fn compare_seeds(differences: &[f64], known: KnownSpread) -> SeedComparison {
    assert!(!differences.is_empty(), "a comparison needs seeds");
    let n = differences.len();
    let exact = |value: f64| if value.abs() < ROUNDING { 0.0 } else { value };
    let (difference, sd) = (exact(mean(differences)), exact(sample_std(differences)));
    let mut compared =
        SeedComparison { seeds: n, difference, sd: (n > 1).then_some(sd), spread: None, interval: None, p_value: None };
    if n > 1 {
        let (own, prior) = ((n - 1) as f64, if known.others.is_some() { PRIOR_SEEDS } else { 0.0 });
        let others = known.others.unwrap_or(0.0).max(known.at_least);
        let variance = (own * sd * sd + prior * others) / (own + prior);
        let spread = SeedSpread { sd: variance.max(known.at_least).sqrt(), df: own + prior };
        compared.spread = Some(spread);
        compared.interval = compared.interval_at(0.95);
        let t = difference / (spread.sd / (n as f64).sqrt());
        compared.p_value = Some(if difference == 0.0 { 1.0 } else { student_p_value(t, spread.df) });
    }
    compared
}

impl SeedComparison {
    /// The interval with this confidence; `None` for one seed.
    pub fn interval_at(&self, confidence: f64) -> Option<Interval> {
        let SeedSpread { sd, df } = self.spread?;
        let reach = student_quantile((1.0 + confidence) / 2.0, df) * sd / (self.seeds as f64).sqrt();
        Some(Interval { low: self.difference - reach, high: self.difference + reach })
    }

    /// Probability that this number of seeds, with this spread, detects a true difference of `worth` at level 5 %.
    pub fn power(&self, worth: f64) -> f64 {
        self.spread.map_or(0.0, |it| t_power(worth / it.sd * (self.seeds as f64).sqrt(), it.df, 0.05))
    }

    /// The true difference that these seeds, with their spread, detect in 80 of 100 studies at level 5 %; `None` without spread.
    pub fn detectable(&self) -> Option<f64> {
        let SeedSpread { sd, df } = self.spread.filter(|it| it.sd > 0.0)?;
        Some(detectable_shift(df, 0.05, 0.8) * sd / (self.seeds as f64).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Differences 1, 2, 3 points: mean 2, standard error 1/√3. With 2 degrees of freedom P(|T| < t) is t / √(2 + t^2).
    #[test]
    fn three_seeds_by_hand() {
        let got = compare_seeds(&[0.01, 0.02, 0.03], KnownSpread::default());
        let interval = got.interval.unwrap();
        let reach = 0.95 * (2.0 / (1.0 - 0.95 * 0.95f64)).sqrt() * 0.01 / 3f64.sqrt();
        assert!((got.difference - 0.02).abs() < 1e-15 && (got.sd.unwrap() - 0.01).abs() < 1e-15);
        assert!((interval.low - (0.02 - reach)).abs() < 1e-15 && (interval.high - (0.02 + reach)).abs() < 1e-15);
        let t = 2.0 * 3f64.sqrt();
        assert!((got.p_value.unwrap() - (1.0 - t / (2.0 + t * t).sqrt())).abs() < 1e-13);
        assert!(got.power(0.02) > 0.05 && got.power(0.02) < got.power(0.05));
    }

    #[test]
    fn one_seed_gives_no_interval() {
        let got = compare_seeds(&[0.1], KnownSpread::default());
        assert_eq!((got.interval, got.p_value, got.detectable()), (None, None, None));
        assert_eq!(got.power(0.05), 0.0);
    }

    #[test]
    fn rounding_is_not_a_difference() {
        let got = compare_seeds(&[0.1 + 0.2 - 0.3, 0.0, 0.0], KnownSpread::default());
        assert_eq!((got.difference, got.sd, got.p_value), (0.0, Some(0.0), Some(1.0)));
    }

    /// Variance 0.01 with 2 degrees of freedom and 0.04 with 2 more: 0.025 with 4.
    #[test]
    fn the_variance_is_moved_towards_that_of_others() {
        let differences = [0.2, 0.3, 0.4];
        let alone = compare_seeds(&differences, KnownSpread { at_least: 0.0, others: None });
        let moved = compare_seeds(&differences, KnownSpread { at_least: 0.0, others: Some(0.04) });
        assert!((alone.spread.unwrap().sd - 0.1).abs() < 1e-12 && alone.spread.unwrap().df == 2.0);
        assert!((moved.spread.unwrap().sd - 0.025f64.sqrt()).abs() < 1e-12 && moved.spread.unwrap().df == 4.0);
        let bounded = compare_seeds(&differences, KnownSpread { at_least: 0.09, others: Some(0.04) });
        assert!((bounded.spread.unwrap().sd - 0.3).abs() < 1e-12, "{bounded:?}");
    }

    /// Without a lower bound the test would take 24 points at both seeds for certain.
    #[test]
    fn equal_differences_are_not_certain() {
        let equal = |at_least| compare_seeds(&[0.24; 2], KnownSpread { at_least, others: None });
        assert_eq!(equal(0.0).p_value, Some(0.0));
        let got = equal(1e-4);
        assert!(got.p_value.unwrap() > 0.01 && got.interval.unwrap().high > 0.3, "{got:?}");
    }
}
