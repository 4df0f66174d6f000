//! Arithmetic with infinity: only what is infinite in every reading has a value.
//!
//! Indeterminate forms such as `\\infty - \\infty` have none, and neither has a finite result such as `1/\\infty`, which
//! is a limit and not a number.

use std::cmp::Ordering;

use super::Value;
use crate::math::enclose;
use crate::math::function::Function;
use crate::math::limits::{Meter, Reason};
use crate::math::tree::{Expr, Operator};

const NAME: &str = "\\infty";

/// A real number, or one of the two ends of the line.
enum Extended {
    Finite(Value),
    Infinite { negative: bool },
}

/// Whether infinity occurs in the arithmetic of an expression; bounds of sums are separate expressions.
fn occurs(expr: &Expr) -> bool {
    match expr {
        Expr::Symbol(name) => name == NAME,
        Expr::Negative(inner) | Expr::Percent(inner) | Expr::Degrees(inner) => occurs(inner),
        Expr::Binary(_, left, right) => occurs(left) || occurs(right),
        Expr::Call(function, parts) => !function.binds() && parts.iter().any(occurs),
        _ => false,
    }
}

impl Value {
    /// The value of an expression in which infinity occurs, else none.
    pub(super) fn infinite(expr: &Expr, meter: &mut Meter) -> Option<Result<Value, Reason>> {
        occurs(expr).then(|| value(expr, meter))
    }
}

/// Infinity or minus infinity; everything else is an error.
fn value(expr: &Expr, meter: &mut Meter) -> Result<Value, Reason> {
    match extended(expr, meter)? {
        Extended::Finite(_) => Err("a number computed with infinity".into()),
        Extended::Infinite { negative } => {
            let value = Value::symbol(NAME);
            Ok(if negative { value.negative() } else { value })
        }
    }
}

fn indeterminate() -> Reason {
    "an indeterminate form with infinity".into()
}

/// The sign of a real number, which is certain.
fn sign(value: &Value, meter: &mut Meter) -> Result<Ordering, Reason> {
    if value.is_zero() {
        return Ok(Ordering::Equal);
    }
    if !value.is_constant() {
        return Err("infinity in an expression with symbols".into());
    }
    enclose::sign(value, meter)?.ok_or_else(indeterminate)
}

fn extended(expr: &Expr, meter: &mut Meter) -> Result<Extended, Reason> {
    use Extended::{Finite, Infinite};
    if !occurs(expr) {
        return Value::of(expr, meter).map(Finite);
    }
    Ok(match expr {
        Expr::Symbol(_) => Infinite { negative: false },
        Expr::Percent(inner) => extended(inner, meter)?,
        Expr::Negative(inner) => negative(extended(inner, meter)?),
        Expr::Binary(operator, left, right) => {
            let (left, right) = (extended(left, meter)?, extended(right, meter)?);
            match operator {
                Operator::Add => sum(left, right, meter)?,
                Operator::Subtract => sum(left, negative(right), meter)?,
                Operator::Multiply | Operator::Apply => product(left, right, meter)?,
                Operator::Divide => match right {
                    Finite(value) => product(left, Finite(value.inverse(meter)?), meter)?,
                    Infinite { .. } => return Err(indeterminate()),
                },
                Operator::Power => power(left, right, meter)?,
                Operator::Root => match (left, right) {
                    (Infinite { negative: false }, Finite(index)) if sign(&index, meter)?.is_gt() => {
                        Infinite { negative: false }
                    }
                    _ => return Err(indeterminate()),
                },
                _ => return Err(indeterminate()),
            }
        }
        Expr::Call(function, parts) => match (function, &parts[..]) {
            (Function::Ln | Function::Exp | Function::Factorial, [inner]) | (Function::Log, [inner, ..]) => {
                match extended(inner, meter)? {
                    Infinite { negative: false } if parts[1..].iter().all(|it| !occurs(it)) => {
                        Infinite { negative: false }
                    }
                    _ => return Err(indeterminate()),
                }
            }
            (Function::Abs, [_]) => Infinite { negative: false },
            _ => return Err(indeterminate()),
        },
        _ => return Err(indeterminate()),
    })
}

fn negative(value: Extended) -> Extended {
    match value {
        Extended::Finite(value) => Extended::Finite(value.negative()),
        Extended::Infinite { negative } => Extended::Infinite { negative: !negative },
    }
}

fn sum(left: Extended, right: Extended, meter: &mut Meter) -> Result<Extended, Reason> {
    use Extended::{Finite, Infinite};
    match (left, right) {
        (Finite(a), Finite(b)) => Ok(Finite(a.plus(&b, meter)?)),
        (Infinite { negative: a }, Infinite { negative: b }) if a == b => Ok(Infinite { negative: a }),
        (Infinite { .. }, Infinite { .. }) => Err(indeterminate()),
        (Infinite { negative }, Finite(value)) | (Finite(value), Infinite { negative }) => {
            sign(&value, meter)?;
            Ok(Infinite { negative })
        }
    }
}

fn product(left: Extended, right: Extended, meter: &mut Meter) -> Result<Extended, Reason> {
    use Extended::{Finite, Infinite};
    match (left, right) {
        (Finite(a), Finite(b)) => Ok(Finite(a.times(&b, meter)?)),
        (Infinite { negative: a }, Infinite { negative: b }) => Ok(Infinite { negative: a != b }),
        (Infinite { negative }, Finite(value)) | (Finite(value), Infinite { negative }) => match sign(&value, meter)? {
            Ordering::Equal => Err(indeterminate()),
            Ordering::Greater => Ok(Infinite { negative }),
            Ordering::Less => Ok(Infinite { negative: !negative }),
        },
    }
}

fn power(base: Extended, exponent: Extended, meter: &mut Meter) -> Result<Extended, Reason> {
    use Extended::{Finite, Infinite};
    match (base, exponent) {
        (Finite(a), Finite(b)) => Ok(Finite(a.power(&b, meter)?)),
        (Infinite { negative: false }, Finite(power)) if sign(&power, meter)?.is_gt() => {
            Ok(Infinite { negative: false })
        }
        (Infinite { negative: false }, Infinite { negative: false }) => Ok(Infinite { negative: false }),
        // A number above one.
        (Finite(base), Infinite { negative: false })
            if sign(&base.minus(&Value::integer(1), meter)?, meter)?.is_gt() =>
        {
            Ok(Infinite { negative: false })
        }
        (Infinite { negative: true }, Finite(power)) => {
            let whole = power.as_rational().filter(|it| it.is_integer() && num_traits::Signed::is_positive(it));
            let odd = whole.map(|it| num_integer::Integer::is_odd(it.numer()));
            odd.map(|negative| Infinite { negative }).ok_or_else(indeterminate)
        }
        _ => Err(indeterminate()),
    }
}
