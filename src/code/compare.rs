//! Whether an output is right, as evalplus 0.3 decides it.

use crate::sandbox::Value;

/// Of expected floats, where the task names no tolerance.
const FLOAT_TOLERANCE: f64 = 1e-6;
/// NumPy's, of `assert_allclose`.
const RELATIVE: f64 = 1e-7;

/// The absolute tolerance of each output: the task's, and from the first expected float on that of floats. (evalplus
/// changes its variable on the way, so that what follows a float is compared like one.)
pub(crate) fn tolerances<'a>(task: f64, expected: impl Iterator<Item = &'a Value>) -> Vec<f64> {
    let mut tolerance = task;
    expected
        .map(|value| {
            if tolerance == 0.0 && is_floats(value) {
                tolerance = FLOAT_TOLERANCE;
            }
            tolerance
        })
        .collect()
}

/// A float, or a sequence of nothing but floats.
fn is_floats(value: &Value) -> bool {
    match value {
        Value::Float(_) => true,
        Value::List(items) | Value::Tuple(items) => {
            !items.is_empty() && items.iter().all(|it| matches!(it, Value::Float(_)))
        }
        _ => false,
    }
}

/// Equal as Python has it; with a tolerance, also of the same type and close.
pub(crate) fn is_right(output: &Value, expected: &Value, tolerance: f64) -> bool {
    output == expected
        || tolerance != 0.0
            && std::mem::discriminant(output) == std::mem::discriminant(expected)
            && is_close(output, expected, tolerance)
}

/// `numpy.allclose`, but that no shape is stretched to another.
fn is_close(output: &Value, expected: &Value, tolerance: f64) -> bool {
    use Value::{List, Tuple};
    match (output, expected) {
        (List(a) | Tuple(a), List(b) | Tuple(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_close(a, b, tolerance))
        }
        _ => match (output.number(), expected.number()) {
            (Some(a), Some(b)) if b.is_finite() => (a - b).abs() <= tolerance + RELATIVE * b.abs(),
            (Some(a), Some(b)) => a == b,
            _ => false,
        },
    }
}

/// The oracle of the task `find_zero`: a polynomial has many zeros, and any will do. `xs` are its coefficients.
pub(super) fn is_zero(arguments: &[Value], output: &Value, tolerance: f64) -> bool {
    let ([Value::List(xs)], Some(x)) = (arguments, output.number()) else { return false };
    let terms = xs.iter().enumerate().map(|(power, x_i)| Some(x_i.number()? * x.powf(power as f64)));
    // Infinities and NaN are not within any tolerance.
    terms.sum::<Option<f64>>().is_some_and(|sum| sum.abs() <= tolerance)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Value::{Float, Int, List, Tuple};

    fn ints(values: &[i64]) -> Value {
        List(values.iter().map(|it| Value::int(*it)).collect())
    }

    fn floats(values: &[f64]) -> Value {
        List(values.iter().map(|it| Float(*it)).collect())
    }

    #[test]
    fn tolerance_begins_with_the_first_float() {
        let expected = [Value::int(1), floats(&[]), floats(&[0.5]), Value::int(1)];
        assert_eq!(tolerances(0.0, expected.iter()), [0.0, 0.0, 1e-6, 1e-6]);
        assert_eq!(tolerances(1e-4, expected.iter()), [1e-4; 4]);
    }

    #[test]
    fn floats_are_compared_with_tolerance_and_the_rest_exactly() {
        assert!(is_right(&Float(1.0 + 1e-6), &Float(1.0), 1e-6));
        assert!(!is_right(&Float(1.0 + 2e-6), &Float(1.0), 1e-6));
        assert!(!is_right(&Float(1.0 + 1e-9), &Float(1.0), 0.0));
        assert!(is_right(&Float(1e9 + 50.0), &Float(1e9), 1e-6), "relative");
        assert!(is_right(&floats(&[0.1, 0.2]), &floats(&[0.1, 0.2 + 1e-8]), 1e-6));
        assert!(!is_right(&floats(&[0.1]), &floats(&[0.1, 0.2]), 1e-6));
        assert!(!is_right(&Tuple(vec![Float(0.1)]), &floats(&[0.1 + 1e-8]), 1e-6), "types differ");
        assert!(is_right(&Value::int(3), &Float(3.0), 1e-6), "equal is equal");
        assert!(!is_right(&Value::int(3), &Float(3.0 + 1e-9), 1e-6), "close is not, of another type");
        assert!(!is_right(&Float(f64::NAN), &Float(f64::NAN), 1e-6));
        assert!(is_right(&Float(f64::INFINITY), &Float(f64::INFINITY), 1e-6));
        assert!(!is_right(&Float(1.0), &Float(f64::INFINITY), 1e-6));
        assert!(!is_right(&Value::str("a"), &Value::str("b"), 1e-6));
        assert!(!is_right(&Value::Opaque, &Value::Opaque, 1e-6));
        assert!(!is_right(&Int(num_bigint::BigInt::from(10).pow(400)), &Value::int(3), 1e-6));
    }

    #[test]
    fn any_zero_of_the_polynomial_will_do() {
        // x^2 - 1
        let xs = [ints(&[-1, 0, 1])];
        assert!(is_zero(&xs, &Float(1.0), 1e-4));
        assert!(is_zero(&xs, &Float(-1.00001), 1e-4));
        assert!(is_zero(&xs, &Value::int(1), 1e-4));
        assert!(!is_zero(&xs, &Float(1.1), 1e-4));
        assert!(!is_zero(&xs, &Float(f64::NAN), 1e-4));
        assert!(!is_zero(&xs, &Float(1e200), 1e-4));
        assert!(!is_zero(&xs, &Value::None, 1e-4));
    }
}
