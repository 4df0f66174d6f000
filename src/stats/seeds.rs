//! Comparison of two arms that were trained with several seeds.

use serde::{Deserialize, Serialize};

use super::{Interval, bootstrap_mean, detectable_difference, mean, paired_t_power, sample_std, student_p_value};
use super::{RESAMPLES, student_quantile};

/// With fewer seeds than this, the interval is a t interval. A percentile bootstrap cannot extend beyond the lowest and the highest
/// seed, and with three seeds the true value is outside of them in one of four studies.
const FEW_SEEDS: usize = 10;

/// Smaller differences are rounding errors: a mean of 10,000 outcomes changes in steps of 1e-4.
const ROUNDING: f64 = 1e-12;

/// The difference of two arms over training seeds, on a fixed set of questions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeedComparison {
    pub seeds: usize,
    /// Mean over seeds of the second arm minus the first.
    pub difference: f64,
    /// Standard deviation of the difference between seeds, including sampling noise; `None` for one seed.
    pub sd: Option<f64>,
    /// 95 % interval; `None` for one seed, because the variation between seeds is unknown.
    pub interval: Option<Interval>,
    /// Two-sided p-value of the paired t test; `None` for one seed.
    pub p_value: Option<f64>,
}

/// Compares two arms by the difference of their accuracies at each shared seed.
///
/// With fewer than 10 seeds the interval is that of the paired t test. From 10 on it is a hierarchical bootstrap: seeds are sampled
/// with replacement and each keeps all its questions, which Davison and Hinkley ("Bootstrap methods and their application",
/// 1997, section 3.8) find more accurate than also resampling questions within seeds. That would count the questions' noise
/// twice, because it is already part of the differences between seeds. Both intervals are for another training run on the same
/// questions. For other questions, see [`super::compare_means`].
///
/// With few questions and few seeds, all seeds often differ from the reference by the same number of questions. The test then has
/// no spread and a p-value near 0, so a verdict also requires [`super::sign_flip`] over the questions.
///
/// # Panics
/// If there are no differences.
pub fn compare_seeds(differences: &[f64], seed: u64) -> SeedComparison {
    assert!(!differences.is_empty(), "a comparison needs seeds");
    let n = differences.len();
    let exact = |value: f64| if value.abs() < ROUNDING { 0.0 } else { value };
    let (difference, sd) = (exact(mean(differences)), exact(sample_std(differences)));
    let (interval, p_value) = if n < 2 {
        (None, None)
    } else {
        let df = (n - 1) as f64;
        let error = sd / (n as f64).sqrt();
        let reach = student_quantile(0.975, df) * error;
        let interval = match n {
            n if n < FEW_SEEDS => Interval { low: difference - reach, high: difference + reach },
            _ => bootstrap_mean(differences, RESAMPLES, 0.95, seed),
        };
        let p_value = if difference == 0.0 { 1.0 } else { student_p_value(difference / error, df) };
        (Some(interval), Some(p_value))
    };
    SeedComparison { seeds: n, difference, sd: (n > 1).then_some(sd), interval, p_value }
}

impl SeedComparison {
    /// Probability that this number of seeds, with this spread, detects a true difference of `worth` at level 5 %.
    pub fn power(&self, worth: f64) -> f64 {
        self.sd.map_or(0.0, |sd| paired_t_power(worth / sd, self.seeds, 0.05))
    }

    /// The true difference that these seeds, with their spread, detect in 80 of 100 studies at level 5 %; `None` if they do
    /// not differ.
    pub fn detectable(&self) -> Option<f64> {
        self.sd.and_then(|sd| detectable_difference(sd, self.seeds, 0.05, 0.8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Differences 1, 2, 3 points: mean 2, standard error 1/√3. With 2 degrees of freedom P(|T| < t) is t / √(2 + t^2).
    #[test]
    fn three_seeds_by_hand() {
        let got = compare_seeds(&[0.01, 0.02, 0.03], 0);
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
        let got = compare_seeds(&[0.1], 0);
        assert_eq!((got.interval, got.p_value, got.detectable()), (None, None, None));
        assert_eq!(got.power(0.05), 0.0);
    }

    #[test]
    fn rounding_is_not_a_difference() {
        let got = compare_seeds(&[0.1 + 0.2 - 0.3, 0.0, 0.0], 0);
        assert_eq!((got.difference, got.sd, got.p_value), (0.0, Some(0.0), Some(1.0)));
        assert_eq!(compare_seeds(&[0.1; 3], 0).p_value, Some(0.0));
    }
}
