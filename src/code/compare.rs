//! Decides whether an output is correct, as evalplus 0.3 does.

use crate::sandbox::PythonValue;

/// Tolerance for expected floats, if the task does not set one.
const FLOAT_TOLERANCE: f64 = 1e-6;
/// The default of NumPy's `assert_allclose`.
const RELATIVE: f64 = 1e-7;

/// The absolute tolerance of each output: the task's, and the tolerance of floats from the first expected float on. (evalplus
/// changes its variable in the loop, so outputs after a float are compared like floats.)
pub(crate) fn tolerances<'a>(task: f64, expected: impl Iterator<Item = &'a PythonValue>) -> Vec<f64> {
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

/// Whether a value is a float, or a sequence of floats only.
fn is_floats(value: &PythonValue) -> bool {
    match value {
        PythonValue::Float(_) => true,
        PythonValue::List(items) | PythonValue::Tuple(items) => {
            !items.is_empty() && items.iter().all(|it| matches!(it, PythonValue::Float(_)))
        }
        _ => false,
    }
}

/// Equal as in Python; with a tolerance, also of the same type and close.
pub(crate) fn is_right(output: &PythonValue, expected: &PythonValue, tolerance: f64) -> bool {
    output == expected
        || tolerance != 0.0
            && std::mem::discriminant(output) == std::mem::discriminant(expected)
            && is_close(output, expected, tolerance)
}

/// `numpy.allclose`, but without broadcasting.
fn is_close(output: &PythonValue, expected: &PythonValue, tolerance: f64) -> bool {
    use PythonValue::{List, Tuple};
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

/// The oracle of the task `find_zero`: a polynomial has several zeros, and each is correct. `xs` are its coefficients.
pub(super) fn is_zero(arguments: &[PythonValue], output: &PythonValue, tolerance: f64) -> bool {
    let ([PythonValue::List(xs)], Some(x)) = (arguments, output.number()) else { return false };
    let terms = xs.iter().enumerate().map(|(power, x_i)| Some(x_i.number()? * x.powf(power as f64)));
    // Infinities and NaN are not within any tolerance.
    terms.sum::<Option<f64>>().is_some_and(|sum| sum.abs() <= tolerance)
}

#[cfg(test)]
mod tests {
    use super::*;
    use PythonValue::{Float, Int, List, Tuple};

    fn ints(values: &[i64]) -> PythonValue {
        List(values.iter().map(|it| PythonValue::int(*it)).collect())
    }

    fn floats(values: &[f64]) -> PythonValue {
        List(values.iter().map(|it| Float(*it)).collect())
    }

    #[test]
    fn tolerance_starts_at_the_first_float() {
        let expected = [PythonValue::int(1), floats(&[]), floats(&[0.5]), PythonValue::int(1)];
        assert_eq!(tolerances(0.0, expected.iter()), [0.0, 0.0, 1e-6, 1e-6]);
        assert_eq!(tolerances(1e-4, expected.iter()), [1e-4; 4]);
    }

    #[test]
    fn floats_are_compared_with_tolerance_and_others_exactly() {
        assert!(is_right(&Float(1.0 + 1e-6), &Float(1.0), 1e-6));
        assert!(!is_right(&Float(1.0 + 2e-6), &Float(1.0), 1e-6));
        assert!(!is_right(&Float(1.0 + 1e-9), &Float(1.0), 0.0));
        assert!(is_right(&Float(1e9 + 50.0), &Float(1e9), 1e-6), "relative");
        assert!(is_right(&floats(&[0.1, 0.2]), &floats(&[0.1, 0.2 + 1e-8]), 1e-6));
        assert!(!is_right(&floats(&[0.1]), &floats(&[0.1, 0.2]), 1e-6));
        assert!(!is_right(&Tuple(vec![Float(0.1)]), &floats(&[0.1 + 1e-8]), 1e-6), "types differ");
        assert!(is_right(&PythonValue::int(3), &Float(3.0), 1e-6), "equal values of different types");
        assert!(!is_right(&PythonValue::int(3), &Float(3.0 + 1e-9), 1e-6), "close values of different types");
        assert!(!is_right(&Float(f64::NAN), &Float(f64::NAN), 1e-6));
        assert!(is_right(&Float(f64::INFINITY), &Float(f64::INFINITY), 1e-6));
        assert!(!is_right(&Float(1.0), &Float(f64::INFINITY), 1e-6));
        assert!(!is_right(&PythonValue::str("a"), &PythonValue::str("b"), 1e-6));
        assert!(!is_right(&PythonValue::Opaque, &PythonValue::Opaque, 1e-6));
        assert!(!is_right(&Int(num_bigint::BigInt::from(10).pow(400)), &PythonValue::int(3), 1e-6));
    }

    #[test]
    fn any_zero_of_the_polynomial_is_correct() {
        // x^2 - 1
        let xs = [ints(&[-1, 0, 1])];
        assert!(is_zero(&xs, &Float(1.0), 1e-4));
        assert!(is_zero(&xs, &Float(-1.00001), 1e-4));
        assert!(is_zero(&xs, &PythonValue::int(1), 1e-4));
        assert!(!is_zero(&xs, &Float(1.1), 1e-4));
        assert!(!is_zero(&xs, &Float(f64::NAN), 1e-4));
        assert!(!is_zero(&xs, &Float(1e200), 1e-4));
        assert!(!is_zero(&xs, &PythonValue::None, 1e-4));
    }
}
