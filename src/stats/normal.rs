//! The standard normal distribution, by the crate `statrs`.

use statrs::distribution::{ContinuousCDF, Normal};

/// P(Z <= `z`), to a relative error of about 1e-10.
pub fn normal_cdf(z: f64) -> f64 {
    Normal::standard().cdf(z)
}

/// The `z` with P(Z <= z) = `p`. Infinite at 0 and 1, NaN outside.
pub fn normal_quantile(p: f64) -> f64 {
    if (0.0..=1.0).contains(&p) { Normal::standard().inverse_cdf(p) } else { f64::NAN }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The three test values of Wichura's paper, and two well-known ones.
    #[test]
    fn quantiles_as_published() {
        for (p, z) in [
            (0.25, -0.674_489_750_196_081_7),
            (1e-3, -3.090_232_306_167_814),
            (1e-20, -9.262_340_089_798_408),
            (0.975, 1.959_963_984_540_054),
            (0.995, 2.575_829_303_548_901),
            (0.5, 0.0),
        ] {
            let got = normal_quantile(p);
            assert!((got - z).abs() <= 1e-15 * z.abs().max(1.0), "p {p}: expected {z}, found {got}");
        }
    }

    #[test]
    fn the_distribution_is_the_inverse_of_the_quantile() {
        for p in [1e-300, 1e-12, 1e-4, 0.001_349, 0.001_350, 0.02, 0.3, 0.5, 0.9, 0.999] {
            let got = normal_cdf(normal_quantile(p));
            // A relative error e of z changes the tail probability by the factor z^2 e.
            assert!((got / p - 1.0).abs() < 1e-9, "{p}: {got}");
        }
        assert_eq!((normal_cdf(f64::NEG_INFINITY), normal_cdf(f64::INFINITY)), (0.0, 1.0));
    }

    #[test]
    fn symmetric_and_defined_at_the_ends() {
        for p in [0.01, 0.074, 0.075, 0.2, 0.4] {
            assert!((normal_quantile(p) + normal_quantile(1.0 - p)).abs() < 1e-13);
        }
        assert_eq!(normal_quantile(0.0), f64::NEG_INFINITY);
        assert_eq!(normal_quantile(1.0), f64::INFINITY);
        assert!(normal_quantile(-0.1).is_nan() && normal_quantile(f64::NAN).is_nan());
    }
}
