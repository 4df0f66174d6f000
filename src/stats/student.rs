//! Student's t distribution.

use super::gamma::half_step;

/// P(T <= `t`) with `df` > 0 degrees of freedom.
pub fn student_cdf(t: f64, df: f64) -> f64 {
    if t > 0.0 { 1.0 - student_tail(t, df) } else { student_tail(-t, df) }
}

/// Two-sided p-value: P(|T| >= |`t`|).
pub fn student_p_value(t: f64, df: f64) -> f64 {
    2.0 * student_tail(t.abs(), df)
}

/// The `t` with P(T <= t) = `p`. Infinite at 0 and 1, NaN outside.
pub fn student_quantile(p: f64, df: f64) -> f64 {
    match p {
        0.0 => f64::NEG_INFINITY,
        0.5 => 0.0,
        1.0 => f64::INFINITY,
        p if p > 0.0 && p < 0.5 => -upper_quantile(p, df),
        p if p > 0.5 && p < 1.0 => upper_quantile(1.0 - p, df),
        _ => f64::NAN,
    }
}

/// The `t` > 0 with P(T > t) = `tail`: Newton's method on the logarithm of the tail, limited to a bracket.
fn upper_quantile(tail: f64, df: f64) -> f64 {
    let mut high = 1.0;
    while student_tail(high, df) > tail {
        high *= 2.0;
    }
    let mut low = if high > 1.0 { high / 2.0 } else { 0.0 };
    let mut t = (low + high) / 2.0;
    for _ in 0..200 {
        let here = student_tail(t, df);
        if here > tail {
            low = t
        } else {
            high = t
        }
        let step = t + (here / tail).ln() * here / density(t, df);
        let next = if low < step && step < high { step } else { (low + high) / 2.0 };
        if (next - t).abs() <= 2.0 * f64::EPSILON * t {
            return next;
        }
        t = next;
    }
    t
}

fn density(t: f64, df: f64) -> f64 {
    let constant = half_step(df / 2.0) / (df * std::f64::consts::PI).sqrt();
    constant * (-(df + 1.0) / 2.0 * (t * t / df).ln_1p()).exp()
}

/// P(T > `t`) for `t` >= 0: half the incomplete beta function I_x(df/2, 1/2) at x = df / (df + t^2) (Abramowitz and Stegun
/// 26.7.1), by the continued fraction of x or of 1 - x, whichever converges faster.
fn student_tail(t: f64, df: f64) -> f64 {
    let a = df / 2.0;
    let square = t * t;
    let front =
        (-a * (square / df).ln_1p()).exp() * (t / (df + square).sqrt()) * half_step(a) / std::f64::consts::PI.sqrt();
    if front == 0.0 || !front.is_finite() {
        return if t == 0.0 { 0.5 } else { 0.0 };
    }
    let x = df / (df + square);
    if x < (a + 1.0) / (a + 2.5) {
        0.5 * front * beta_fraction(a, 0.5, x) / a
    } else {
        0.5 - front * beta_fraction(0.5, a, square / (df + square))
    }
}

/// The continued fraction of the incomplete beta function (DLMF 8.17.22), by Lentz's method as Thompson and Barnett modified
/// it: I_x(a, b) = x^a (1 - x)^b / (a B(a, b)) times this.
fn beta_fraction(a: f64, b: f64, x: f64) -> f64 {
    let away = |value: f64| if value.abs() < 1e-300 { 1e-300 } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / away(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    for m in 1..20_000 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut change = 1.0;
        for term in [even, odd] {
            d = 1.0 / away(1.0 + term * d);
            c = away(1.0 + term / c);
            change *= c * d;
        }
        fraction *= change;
        if (change - 1.0).abs() <= f64::EPSILON {
            break;
        }
    }
    fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One and two degrees of freedom have closed forms.
    #[test]
    fn closed_forms() {
        for t in [1e-8, 0.1, 0.7, 1.0, 3.0, 40.0, 1e6] {
            let cauchy = 0.5 - f64::atan(t) / std::f64::consts::PI;
            assert!((student_tail(t, 1.0) - cauchy).abs() < 1e-15, "{t}");
            let two = 0.5 - t / (2.0 * (2.0 + t * t).sqrt());
            assert!((student_tail(t, 2.0) - two).abs() < 1e-15, "{t}");
        }
        assert!((student_tail(1e9, 1.0) * 1e9 * std::f64::consts::PI - 1.0).abs() < 1e-14);
    }

    #[test]
    fn the_quantile_is_the_inverse_of_the_distribution() {
        for df in [1.0, 2.0, 2.5, 4.0, 9.0, 29.0, 499.0, 1e5] {
            for p in [1e-9, 1e-3, 0.025, 0.2, 0.49, 0.6, 0.975, 0.9995] {
                let back = student_cdf(student_quantile(p, df), df);
                assert!((back / p - 1.0).abs() < 1e-12, "df {df}, p {p}: {back}");
            }
            assert_eq!(student_quantile(0.5, df), 0.0);
            assert_eq!(student_quantile(1.0, df), f64::INFINITY);
        }
        assert!(student_quantile(1.5, 3.0).is_nan() && student_quantile(f64::NAN, 3.0).is_nan());
        assert_eq!(student_cdf(f64::INFINITY, 3.0), 1.0);
    }
}
