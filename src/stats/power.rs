//! The power of the paired t test.

use statrs::function::gamma::ln_gamma;

use super::{normal_cdf, normal_quantile, student_quantile};

/// Probability that a two-sided paired t test of `n` differences at level `alpha` rejects if the true mean of the differences is
/// `effect` times their standard deviation. Zero with fewer than two differences.
///
/// Use it for a difference that was fixed beforehand. At the observed difference it contains no more information than the p-value
/// (Hoenig and Heisey, The American Statistician 55:19, 2001).
pub fn paired_t_power(effect: f64, n: usize, alpha: f64) -> f64 {
    if n < 2 { 0.0 } else { t_power(effect * (n as f64).sqrt(), (n - 1) as f64, alpha) }
}

/// Probability that a two-sided t test with `df` degrees of freedom rejects at level `alpha` if the true difference is `shift`
/// standard errors.
pub fn t_power(shift: f64, df: f64, alpha: f64) -> f64 {
    if shift.is_infinite() {
        return 1.0;
    }
    two_sided(student_quantile(1.0 - alpha / 2.0, df), df, shift)
}

/// The smallest true difference that `n` paired differences with standard deviation `sd` detect at level `alpha` with
/// probability `power`; `None` with fewer than two differences or without spread.
///
/// For many questions this is (z(1 - alpha/2) + z(power)) sd / √n, equation 9 of Miller, "Adding error bars to evals"
/// (arXiv 2411.00640), solved for the difference. For few, such as seeds, the noncentral t distribution requires a larger one.
pub fn detectable_difference(sd: f64, n: usize, alpha: f64, power: f64) -> Option<f64> {
    if n < 2 || sd.is_nan() || sd <= 0.0 {
        return None;
    }
    Some(detectable_shift((n - 1) as f64, alpha, power) * sd / (n as f64).sqrt())
}

/// The true difference, in standard errors, that a two-sided t test with `df` degrees of freedom detects at level `alpha` with
/// probability `power`.
pub fn detectable_shift(df: f64, alpha: f64, power: f64) -> f64 {
    assert!(alpha > 0.0 && alpha < power && power < 1.0, "level {alpha} and power {power}");
    let critical = student_quantile(1.0 - alpha / 2.0, df);
    // The power, transformed to normal quantiles, is almost linear, so the secant method converges in a few steps.
    let goal = normal_quantile(power);
    let miss = |shift: f64| normal_quantile(two_sided(critical, df, shift)) - goal;
    let (mut low, mut high) = (0.0, critical + goal.max(0.0));
    while miss(high) < 0.0 {
        low = high;
        high *= 1.5;
    }
    let (mut before, mut shift) = ((low, miss(low)), high);
    while high - low > 1e-13 * high {
        let here = miss(shift);
        if here < 0.0 {
            low = shift
        } else {
            high = shift
        }
        let secant = shift - here * (shift - before.0) / (here - before.1);
        before = (shift, here);
        let next = if low < secant && secant < high { secant } else { (low + high) / 2.0 };
        if (next - shift).abs() <= 1e-13 * shift {
            break;
        }
        shift = next;
    }
    shift
}

/// P(|T| > `critical`) for the noncentral t distribution.
fn two_sided(critical: f64, df: f64, shift: f64) -> f64 {
    (noncentral_tail(critical, df, shift) + noncentral_tail(critical, df, -shift)).min(1.0)
}

/// P(T > `t`), T = (Z + `shift`) / S with S^2 a chi-squared variable over its `df` degrees of freedom: the mean over S of
/// P(Z > t S - shift). In u = ln S the integrand is smooth and decays on both sides, so the trapezoidal rule converges
/// faster than any power of its step.
fn noncentral_tail(t: f64, df: f64, shift: f64) -> f64 {
    const STEPS: usize = 1_000;
    // The density of u is below e^-45 of its peak there.
    let (low, high) = (-(45.0 / df).sqrt() - 45.0 / df, (45.0 / df).sqrt());
    let step = (high - low) / STEPS as f64;
    let a = df / 2.0;
    let constant = std::f64::consts::LN_2 + a * a.ln() - a - ln_gamma(a);
    let density = |u: f64| (constant + df * u - a * (2.0 * u).exp_m1()).exp();
    let sum: f64 = (0..=STEPS)
        .map(|i| {
            let u = low + i as f64 * step;
            density(u) * normal_cdf(shift - t * u.exp())
        })
        .sum();
    sum * step
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::student_cdf;

    #[test]
    fn without_an_effect_the_power_is_the_level() {
        for n in [2, 3, 5, 10, 30, 500] {
            for alpha in [0.05, 0.001] {
                assert!((paired_t_power(0.0, n, alpha) - alpha).abs() < 1e-9, "{n} {alpha}");
            }
        }
        assert!((noncentral_tail(1.3, 4.0, 0.0) - (1.0 - student_cdf(1.3, 4.0))).abs() < 1e-10);
    }

    #[test]
    fn power_grows_with_effect_and_number() {
        let power = |effect, n| paired_t_power(effect, n, 0.05);
        assert!(power(0.5, 5) < power(1.0, 5) && power(1.0, 5) < power(1.0, 6));
        assert_eq!(power(-1.0, 5), power(1.0, 5));
        assert_eq!((power(1.0, 1), power(f64::INFINITY, 3)), (0.0, 1.0));
    }

    #[test]
    fn with_many_questions_it_is_millers_formula() {
        let z = normal_quantile(0.975) + normal_quantile(0.8);
        let got = detectable_difference(0.4, 10_000, 0.05, 0.8).unwrap();
        assert!((got / (z * 0.4 / 100.0) - 1.0).abs() < 1e-3, "{got}");
        assert_eq!(detectable_difference(0.0, 10, 0.05, 0.8), None);
        assert_eq!(detectable_difference(1.0, 1, 0.05, 0.8), None);
    }

    #[test]
    fn detectable_differences_have_the_stated_power() {
        for n in [2, 3, 5, 40] {
            for alpha in [0.05, 0.002] {
                let difference = detectable_difference(2.0, n, alpha, 0.8).unwrap();
                assert!((paired_t_power(difference / 2.0, n, alpha) - 0.8).abs() < 1e-9, "{n} {alpha}");
            }
        }
    }
}
