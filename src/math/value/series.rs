//! Expressions with a bound variable: sums and products are evaluated if their bounds are numbers that are close
//! together; otherwise, like integrals and limits, they are equal if they are written alike.

use num_bigint::BigInt;
use num_integer::Integer;
use num_rational::BigRational;
use num_traits::{ToPrimitive, Zero};

use super::sum::Base;
use super::{BOUND, SymbolValues, Value};
use crate::math::function::Function;
use crate::math::limits::{Meter, Reason};
use crate::math::tree::Expr;

/// Maximum number of terms that are evaluated.
const MAX_EVALUATED: i64 = 1_000;
/// The cost of a term besides its arithmetic.
const TERM: u64 = 2_000;

impl Value {
    /// The value of a sum, a product, an integral or a limit; `parts` are the variable, the bounds and the body.
    pub(super) fn series(
        function: Function,
        parts: &[Expr],
        point: SymbolValues,
        meter: &mut Meter,
    ) -> Result<Value, Reason> {
        let [Expr::Symbol(variable), bounds @ .., body] = parts else { return Err("a sum that cannot be read".into()) };
        // The index `i` is not the imaginary unit.
        let name = format!("{BOUND}{}", depth(body));
        let body = &body.renamed(variable, &name);
        let limits = bounds
            .iter()
            .map(|it| if point.is_empty() { Value::of(it, meter) } else { Value::at(it, point, meter) })
            .collect::<Result<Vec<_>, _>>()?;
        let whole =
            |it: &Value| it.as_rational().filter(BigRational::is_integer).and_then(|it| it.to_integer().to_i64());
        if let (Function::Sum | Function::Product, [from, to]) = (function, &limits[..])
            && let (Some(from), Some(to)) = (whole(from), whole(to))
        {
            if to.saturating_sub(from) >= MAX_EVALUATED {
                return Err("a sum of too many terms".into());
            }
            let mut total = Value::integer(i64::from(function == Function::Product));
            for number in from..=to {
                meter.charge(TERM)?;
                let mut values = vec![(name.clone(), BigRational::from_integer(BigInt::from(number)))];
                values.extend(point.iter().cloned());
                let term = Value::at(body, &values, meter)?;
                total =
                    if function == Function::Sum { total.plus(&term, meter)? } else { total.times(&term, meter)? };
            }
            return Ok(total);
        }
        if !point.is_empty() {
            return Err("a sum without numbers as its bounds".into());
        }
        meter.charge(TERM)?;
        let mut arguments = limits;
        arguments.push(Value::of(body, meter)?);
        Ok(Value::base(Base::Call(function, arguments)))
    }

    /// The remainder of a division of whole numbers, which is not negative.
    pub(super) fn remainder(&self, modulus: &Value) -> Result<Value, Reason> {
        let whole = |it: &Value| it.as_rational().filter(BigRational::is_integer).map(|it| it.to_integer());
        match (whole(self), whole(modulus)) {
            (Some(number), Some(modulus)) if modulus > BigInt::zero() => {
                Ok(Value::rational(BigRational::from_integer(number.mod_floor(&modulus))))
            }
            _ => Err("a remainder of something that is not a whole number".into()),
        }
    }
}

/// How many expressions with bound variables are nested in this one.
fn depth(expr: &Expr) -> usize {
    match expr {
        Expr::Negative(inner) | Expr::Percent(inner) | Expr::Degrees(inner) => depth(inner),
        Expr::Binary(_, left, right) => depth(left).max(depth(right)),
        Expr::Call(function, parts) => usize::from(function.binds()) + parts.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
