//! Statistics of results: intervals of proportions and means, paired comparisons, bootstrap.
//!
//! Figures are reported with an interval and the number of questions. Which function to use:
//!
//! | data | function |
//! |---|---|
//! | the completions of each question, correct or wrong | [`accuracy`], [`question_pass_at_k`], [`majority`] |
//! | a mean for each question | [`accuracy_interval`]; of several benchmarks [`bootstrap_average`] |
//! | two models on the same questions, one completion each | [`compare_paired`] |
//! | the same, several completions each | [`compare_means`] |
//! | two arms, several training seeds each | [`compare_seeds`] over seeds, [`compare_means`] over questions |
//! | accuracies by strategy, wording and seed | [`variance_components`] |
//! | a ratio of two means that may be near zero, such as a share of a gain | [`ratio_over_seeds`], [`ratio_over_questions`] |
//! | two published percentages | [`compare_unpaired`], [`mcnemar_bounds`] |
//! | several comparisons | [`holm`] |
//! | a ratio of counts, such as behaviors per completion | [`bootstrap_ratios`] |
//! | the power of a comparison | [`detectable_difference`], [`paired_t_power`] |

mod bootstrap;
mod components;
mod fieller;
mod multiple;
mod normal;
mod paired;
mod power;
mod ratio;
mod samples;
mod seeds;
mod student;
mod unpaired;
mod wilson;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use bootstrap::{bootstrap_average, bootstrap_mean, quantile};
pub use components::{VarianceComponent, VarianceComponents, variance_components};
pub use fieller::{PairSpread, RatioSet, fieller, ratio_over_questions, ratio_over_seeds};
pub use multiple::{holm, holm_levels};
pub use normal::{normal_cdf, normal_quantile};
pub use paired::{MeanComparison, PairedComparison, compare_means, compare_paired, mcnemar_exact, sign_flip};
pub use power::{detectable_difference, detectable_shift, paired_t_power, t_power};
pub use ratio::bootstrap_ratios;
pub use samples::{
    Accuracy, RESAMPLES, SampleError, accuracy, accuracy_interval, majority, pass_at_k, question_means,
    question_pass_at_k, vote_classes,
};
pub use seeds::{KnownSpread, SeedComparison, SeedSpread, compare_seeds};
pub use student::{student_cdf, student_p_value, student_quantile};
pub use unpaired::{UnpairedComparison, compare_unpaired, mcnemar_bounds};
pub use wilson::wilson;

/// A confidence interval, ends included.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
}

impl Interval {
    /// The smallest interval that contains both.
    pub fn hull(&self, other: Self) -> Self {
        Self { low: self.low.min(other.low), high: self.high.max(other.high) }
    }
}

/// A share of `n` trials with its 95 % interval. Displayed as `35.2 % [31.1, 39.4]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proportion {
    pub successes: usize,
    pub n: usize,
    pub interval: Interval,
}

impl Proportion {
    /// With Wilson's interval, see [`wilson`].
    pub fn new(successes: usize, n: usize) -> Self {
        Self { successes, n, interval: wilson(successes, n, 0.95) }
    }

    /// The share; NaN without trials.
    pub fn value(&self) -> f64 {
        self.successes as f64 / self.n as f64
    }
}

impl fmt::Display for Proportion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Interval { low, high } = self.interval;
        write!(f, "{:.1} % [{:.1}, {:.1}]", 100.0 * self.value(), 100.0 * low, 100.0 * high)
    }
}

/// Arithmetic mean; NaN without values.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Standard deviation of a sample, see [`sample_variance`].
pub fn sample_std(values: &[f64]) -> f64 {
    sample_variance(values).sqrt()
}

/// Variance of a sample (divisor n - 1); NaN for fewer than two values.
pub fn sample_variance(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return f64::NAN;
    }
    let mean = mean(values);
    values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (values.len() - 1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean and deviation of the first Michelson run of Stigler's "Do robust estimators work with real data?" (1977):
    /// R's `morley` data, experiment 1, mean 909 and standard deviation 104.9260.
    #[test]
    fn moments_of_michelsons_first_run() {
        let speeds =
            [850, 740, 900, 1070, 930, 850, 950, 980, 980, 880, 1000, 980, 930, 650, 760, 810, 1000, 1000, 960, 960];
        let speeds = speeds.map(f64::from);
        assert_eq!(mean(&speeds), 909.0);
        assert!((sample_std(&speeds) - 104.926_04).abs() < 1e-4);
        assert!(sample_std(&[1.0]).is_nan() && mean(&[]).is_nan());
    }

    #[test]
    fn a_proportion_is_shown_with_its_interval() {
        assert_eq!(Proportion::new(81, 263).to_string(), "30.8 % [25.5, 36.6]");
    }
}
