//! Wilson's interval of a proportion.

use super::{Interval, normal_quantile};

/// Wilson's score interval of `successes` out of `n`, without continuity correction (Wilson, JASA 22:209, 1927); `confidence`
/// is a share such as 0.95. It is always inside [0, 1] and is accurate for small `n` and near 0 and 1, unlike p +- 2 SE. Without
/// trials it is [0, 1].
///
/// # Panics
/// If there are more successes than trials, or `confidence` is not in (0, 1).
pub fn wilson(successes: usize, n: usize, confidence: f64) -> Interval {
    assert!(successes <= n, "{successes} successes in {n} trials");
    assert!(confidence > 0.0 && confidence < 1.0, "a confidence of {confidence}");
    if n == 0 {
        return Interval { low: 0.0, high: 1.0 };
    }
    let n = n as f64;
    let share = successes as f64 / n;
    let z = normal_quantile(0.5 + confidence / 2.0);
    let center = share + z * z / (2.0 * n);
    let spread = z * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z * z / n;
    // Without successes or without failures, one end is exact. Rounding must not move the proportion out of its interval.
    Interval { low: ((center - spread) / scale).clamp(0.0, share), high: ((center + spread) / scale).clamp(share, 1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Table I of Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17:857 (1998),
    /// method 3.
    #[test]
    fn intervals_of_newcombes_table() {
        for (successes, n, low, high) in
            [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]
        {
            let got = wilson(successes, n, 0.95);
            assert!((got.low - low).abs() < 5e-5 && (got.high - high).abs() < 5e-5, "{successes}/{n}: {got:?}");
        }
    }

    #[test]
    fn contains_the_proportion_and_is_symmetric() {
        for n in 0..60 {
            for successes in 0..=n {
                let here = wilson(successes, n, 0.95);
                let there = wilson(n - successes, n, 0.95);
                assert!(0.0 <= here.low && here.high <= 1.0 && here.low < here.high);
                assert!((here.low + there.high - 1.0).abs() < 1e-12);
                if n > 0 {
                    let share = successes as f64 / n as f64;
                    assert!(here.low <= share && share <= here.high);
                }
            }
        }
    }

    #[test]
    fn wider_with_more_confidence() {
        let (narrow, wide) = (wilson(30, 100, 0.8), wilson(30, 100, 0.99));
        assert!(wide.low < narrow.low && narrow.high < wide.high);
    }
}
