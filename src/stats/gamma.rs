//! The error of Stirling's formula, and ratios of gamma functions computed from it without cancellation.

/// ln Γ(`a`) minus Stirling's (a - 1/2) ln a - a + ln(2π)/2, for `a` > 0: the asymptotic series (DLMF 5.11.1) from 16 on, where
/// its last term is below 1e-17, and for smaller `a` the recurrence from Γ(a + 1) = a Γ(a).
pub fn stirling_error(a: f64) -> f64 {
    let (mut a, mut shift) = (a, 0.0);
    while a < 16.0 {
        shift += (a + 0.5) * (1.0 / a).ln_1p() - 1.0;
        a += 1.0;
    }
    let inverse = 1.0 / (a * a);
    let series = SERIES.iter().rev().fold(0.0, |sum, &coefficient| sum * inverse + coefficient) / a;
    shift + series
}

/// B(2k) / (2k (2k - 1)) with Bernoulli's numbers B, k = 1, 2, ...
const SERIES: [f64; 7] =
    [1.0 / 12.0, -1.0 / 360.0, 1.0 / 1260.0, -1.0 / 1680.0, 1.0 / 1188.0, -691.0 / 360_360.0, 1.0 / 156.0];

/// Γ(`a` + 1/2) / Γ(`a`) for `a` > 0.
pub fn half_step(a: f64) -> f64 {
    let log = a * (0.5 / a).ln_1p() - 0.5 + stirling_error(a + 0.5) - stirling_error(a);
    a.sqrt() * log.exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::PI;

    #[test]
    fn factorials() {
        let mut factorial = 1.0f64;
        for n in 1..20 {
            factorial *= f64::from(n);
            let a = f64::from(n) + 1.0;
            let stirling = (a - 0.5) * a.ln() - a + 0.5 * (2.0 * PI).ln();
            assert!((stirling + stirling_error(a) - factorial.ln()).abs() < 1e-13 * factorial.ln().max(1.0), "{n}");
        }
    }

    #[test]
    fn half_steps() {
        // Γ(1/2) = √π, Γ(1) = 1, Γ(3/2) = √π / 2.
        assert!((half_step(0.5) - 1.0 / PI.sqrt()).abs() < 1e-15);
        assert!((half_step(1.0) - PI.sqrt() / 2.0).abs() < 1e-15);
        // Two half steps equal one whole step.
        for a in [0.5, 1.0, 3.5, 20.0, 500.0, 1e6] {
            assert!((half_step(a) * half_step(a + 0.5) / a - 1.0).abs() < 1e-14, "{a}");
        }
    }
}
