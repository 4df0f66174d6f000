//! Functions of values: exact if the argument is a number for which they are known, else a separate base.
//!
//! Functions are reduced to fewer ones: the tangent to sine and cosine, hyperbolic functions to powers of e, logarithms
//! to the natural ones of primes.

use num_bigint::BigInt;
use num_integer::Integer;
use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive, Zero};

use super::root::factor;
use super::sum::{Base, Sum};
use super::{Value, call_of};
use crate::math::enclose;
use crate::math::function::Function::{self, *};
use crate::math::limits::{MAX_BITS, Meter, Reason};

impl Value {
    pub fn call(function: Function, mut arguments: Vec<Value>, meter: &mut Meter) -> Result<Value, Reason> {
        if function == Binomial {
            return binomial(&arguments[0], &arguments[1], meter);
        }
        if function == Permutations {
            return permutations(&arguments, meter);
        }
        if function == Determinant {
            return determinant(&arguments, meter);
        }
        if function.of_list() {
            return of_list(function, arguments, meter);
        }
        let base = if function == Log && arguments.len() > 1 { arguments.pop() } else { None };
        let x = arguments.pop().ok_or("a function without its argument")?;
        match function {
            Sin => sine(x, meter),
            Cos => cosine_of(x, meter),
            Tan => sine(x.clone(), meter)?.times(&cosine_of(x, meter)?.inverse(meter)?, meter),
            Cot => cosine_of(x.clone(), meter)?.times(&sine(x, meter)?.inverse(meter)?, meter),
            Sec => cosine_of(x, meter)?.inverse(meter),
            Csc => sine(x, meter)?.inverse(meter),
            Arcsin | Arctan if x.is_zero() => Ok(x),
            Arcsin | Arctan => {
                let (negative, x) = without_sign(x);
                let call = call_of(function, x);
                Ok(if negative { call.negative() } else { call })
            }
            Arccos => Ok(call_of(function, x)),
            Arcsec => Value::call(Arccos, vec![x.inverse(meter)?], meter),
            Arccsc => Value::call(Arcsin, vec![x.inverse(meter)?], meter),
            Arccot => half_pi().minus(&Value::call(Arctan, vec![x], meter)?, meter),
            Sinh | Cosh | Tanh | Coth | Sech | Csch => hyperbolic(function, x, meter),
            Arsinh | Arcosh => {
                let one = Value::integer(if function == Arsinh { 1 } else { -1 });
                let root = x.whole_power(2, meter)?.plus(&one, meter)?.root(2, meter)?;
                ln(x.plus(&root, meter)?, meter)
            }
            Artanh => {
                let one = Value::integer(1);
                let quotient = one.plus(&x, meter)?.times(&one.minus(&x, meter)?.inverse(meter)?, meter)?;
                ln(quotient, meter)?.times(&Value::integer(2).inverse(meter)?, meter)
            }
            Exp => Value::symbol("e").power(&x, meter),
            Ln => ln(x, meter),
            Log => {
                let base = base.unwrap_or_else(|| Value::integer(10));
                ln(x, meter)?.times(&ln(base, meter)?.inverse(meter)?, meter)
            }
            Abs => absolute(x, meter),
            Floor | Ceiling => round(function, x, meter),
            Factorial | DoubleFactorial => factorial(function, x, meter),
            Binomial | Permutations | Determinant | Gcd | Lcm | Max | Min => Err("a function without its list".into()),
            Function::Sum | Product | Integral | Limit => Err("a function without its bounds".into()),
        }
    }

    pub fn is_zero(&self) -> bool {
        self.over.0.is_empty()
    }

    /// The number of half turns, if it is a rational multiple of π.
    fn half_turns(&self) -> Option<BigRational> {
        if self.is_zero() {
            return Some(BigRational::zero());
        }
        let (product, coefficient) = self.over.single().filter(|_| self.under.is_one())?;
        let (base, exponent) = product.first_key_value().filter(|_| product.len() == 1)?;
        (*base == Base::Symbol("\\pi".into()) && exponent.is_one()).then(|| coefficient.clone())
    }
}

fn half_pi() -> Value {
    Value::from(Sum([(
        [(Base::Symbol("\\pi".into()), num_rational::Ratio::one())].into(),
        BigRational::new(1.into(), 2.into()),
    )]
    .into()))
}

/// Whether the first term is negative, and the value without that sign.
fn without_sign(x: Value) -> (bool, Value) {
    let negative = x.over.0.values().next().is_some_and(Signed::is_negative);
    (negative, if negative { x.negative() } else { x })
}

fn sine(x: Value, meter: &mut Meter) -> Result<Value, Reason> {
    if let Some(turns) = x.half_turns() {
        return cosine(&(BigRational::new(1.into(), 2.into()) - turns), meter);
    }
    let (negative, x) = without_sign(x);
    let call = call_of(Sin, x);
    Ok(if negative { call.negative() } else { call })
}

fn cosine_of(x: Value, meter: &mut Meter) -> Result<Value, Reason> {
    match x.half_turns() {
        Some(turns) => cosine(&turns, meter),
        None => Ok(call_of(Cos, without_sign(x).1)),
    }
}

/// The cosine of this number of half turns.
pub fn cosine(turns: &BigRational, meter: &mut Meter) -> Result<Value, Reason> {
    let ratio = |over: i64, under: i64| BigRational::new(over.into(), under.into());
    let two = ratio(2, 1);
    let mut turns = turns - (turns / &two).floor() * &two;
    if turns > ratio(1, 1) {
        turns = two - turns;
    }
    let negative = turns > ratio(1, 2);
    if negative {
        turns = ratio(1, 1) - turns;
    }
    let root = |radicand: i64, meter: &mut Meter| Value::integer(radicand).root(2, meter);
    let value = match (turns.numer().to_i64(), turns.denom().to_i64()) {
        (Some(0), _) => Value::integer(1),
        (Some(1), Some(2)) => Value::integer(0),
        (Some(1), Some(3)) => Value::rational(ratio(1, 2)),
        (Some(1), Some(4)) => root(2, meter)?.times(&Value::rational(ratio(1, 2)), meter)?,
        (Some(1), Some(6)) => root(3, meter)?.times(&Value::rational(ratio(1, 2)), meter)?,
        (Some(over @ (1 | 5)), Some(12)) => {
            let other = root(2, meter)?.times(&Value::integer(if over == 1 { 1 } else { -1 }), meter)?;
            root(6, meter)?.plus(&other, meter)?.times(&Value::rational(ratio(1, 4)), meter)?
        }
        (Some(over @ (1 | 2)), Some(5)) => {
            let one = Value::integer(if over == 1 { 1 } else { -1 });
            root(5, meter)?.plus(&one, meter)?.times(&Value::rational(ratio(1, 4)), meter)?
        }
        _ => {
            let angle = Value::symbol("\\pi").times(&Value::rational(turns), meter)?;
            call_of(Cos, angle)
        }
    };
    Ok(if negative { value.negative() } else { value })
}

fn hyperbolic(function: Function, x: Value, meter: &mut Meter) -> Result<Value, Reason> {
    let up = Value::symbol("e").power(&x, meter)?;
    let down = Value::symbol("e").power(&x.negative(), meter)?;
    let (sine, cosine) = (up.minus(&down, meter)?, up.plus(&down, meter)?);
    let half = Value::rational(BigRational::new(1.into(), 2.into()));
    match function {
        Sinh => sine.times(&half, meter),
        Cosh => cosine.times(&half, meter),
        Tanh => sine.times(&cosine.inverse(meter)?, meter),
        Coth => cosine.times(&sine.inverse(meter)?, meter),
        Sech => Value::integer(2).times(&cosine.inverse(meter)?, meter),
        _ => Value::integer(2).times(&sine.inverse(meter)?, meter),
    }
}

/// The natural logarithm; of a positive rational, it is a sum over its primes.
fn ln(x: Value, meter: &mut Meter) -> Result<Value, Reason> {
    if x.is_zero() {
        return Err("the logarithm of zero".into());
    }
    let Some((product, coefficient)) = x.over.single().filter(|_| x.under.is_one()) else {
        return Ok(call_of(Ln, x));
    };
    if coefficient.is_negative() {
        return Ok(call_of(Ln, x));
    }
    let mut sum = Value::integer(0);
    for (part, sign) in [(coefficient.numer(), 1), (coefficient.denom(), -1)] {
        if part.is_one() {
            continue;
        }
        match part.to_u64().map(|it| factor(it, meter)).transpose()?.flatten() {
            Some(factors) => {
                for (prime, power) in factors {
                    let term = call_of(Ln, Value::rational(BigRational::from_integer(prime.into())));
                    sum = sum.plus(&term.times(&Value::integer(sign * power), meter)?, meter)?;
                }
            }
            None => {
                let term = call_of(Ln, Value::rational(BigRational::from_integer(part.clone())));
                sum = sum.plus(&term.times(&Value::integer(sign), meter)?, meter)?;
            }
        }
    }
    let mut rest = super::PowerProduct::new();
    for (base, exponent) in product {
        let share = Value::rational(BigRational::new((*exponent.numer()).into(), (*exponent.denom()).into()));
        let term = match base {
            Base::Prime(prime) => call_of(Ln, Value::rational(BigRational::from_integer((*prime).into()))),
            Base::Symbol(name) if name == "e" => Value::integer(1),
            Base::Power(base, power) if **base == Value::symbol("e") && power.is_real_symbolic() => (**power).clone(),
            _ => {
                rest.insert(base.clone(), *exponent);
                continue;
            }
        };
        sum = sum.plus(&term.times(&share, meter)?, meter)?;
    }
    if !rest.is_empty() {
        let rest = Value::from(Sum::term(rest, BigRational::one(), meter)?);
        sum = sum.plus(&call_of(Ln, rest), meter)?;
    }
    Ok(sum)
}

impl Value {
    /// It does not contain `i`: real wherever it is defined, unless a root or a logarithm leaves the reals.
    pub fn is_real_symbolic(&self) -> bool {
        self.all_bases(&|base| *base != Base::Imaginary)
    }
}

fn absolute(x: Value, meter: &mut Meter) -> Result<Value, Reason> {
    if let Some(number) = x.as_rational() {
        return Ok(Value::rational(number.abs()));
    }
    if !x.is_real_symbolic() && x.is_constant() {
        let square = |sum: &Sum, meter: &mut Meter| -> Result<Value, Reason> {
            let (real, imaginary) = sum.parts();
            let [real, imaginary] = [real, imaginary].map(Value::from);
            real.whole_power(2, meter)?.plus(&imaginary.whole_power(2, meter)?, meter)
        };
        let under = square(&x.under, meter)?;
        return square(&x.over, meter)?.times(&under.inverse(meter)?, meter)?.root(2, meter);
    }
    if x.is_constant()
        && let Some(sign) = enclose::sign(&x, meter)?
    {
        return Ok(if sign.is_lt() { x.negative() } else { x });
    }
    let x = without_sign(x).1;
    let (content, rest) = x.over.content(meter)?;
    let rest = Value { over: rest, under: x.under };
    call_of(Abs, rest).times(&Value::rational(content), meter)
}

fn round(function: Function, x: Value, meter: &mut Meter) -> Result<Value, Reason> {
    meter.charge(1)?;
    let up = function == Ceiling;
    if let Some(number) = x.as_rational() {
        return Ok(Value::rational(if up { number.ceil() } else { number.floor() }));
    }
    if !x.is_constant() {
        return Ok(call_of(function, x));
    }
    let floor = enclose::floor(&x, meter)?.ok_or("a number too close to an integer to be rounded")?;
    // The value is not rational here, so the two differ by one.
    Ok(Value::rational(BigRational::from_integer(if up { floor + 1 } else { floor })))
}

fn factorial(function: Function, x: Value, meter: &mut Meter) -> Result<Value, Reason> {
    let Some(number) = x.as_rational() else { return Ok(call_of(function, x)) };
    let step = if function == Factorial { 1 } else { 2 };
    let number = number.is_integer().then(|| number.to_i64()).flatten().filter(|it| *it >= 0);
    let number = number.ok_or("the factorial of something that is not an integer")?;
    let bits = number as f64 / step as f64 * (number.max(1) as f64).log2();
    if bits > MAX_BITS as f64 {
        return Err("a factorial is too large".into());
    }
    let words = bits as u64 / 64 + 1;
    meter.charge(words * words)?;
    let first = if step == 1 || number % 2 == 1 { 1 } else { 2 };
    Ok(Value::rational(BigRational::from_integer(product(first, number, step))))
}

/// The product of `low`, `low + step` … up to `high`, in halves of similar size.
fn product(low: i64, high: i64, step: i64) -> BigInt {
    if high - low < 16 * step {
        let mut result = BigInt::one();
        let mut factor = low.max(1);
        while factor <= high {
            result *= factor;
            factor += step;
        }
        return result;
    }
    let middle = low + (high - low) / (2 * step) * step;
    product(low, middle, step) * product(middle + step, high, step)
}

fn binomial(upper: &Value, lower: &Value, meter: &mut Meter) -> Result<Value, Reason> {
    let whole = |value: &Value| value.as_rational().filter(BigRational::is_integer).and_then(|it| it.to_i64());
    let (Some(n), Some(k)) = (whole(upper), whole(lower)) else {
        if let Some(k) = whole(lower).filter(|k| (0..=6).contains(k)) {
            // A polynomial in the upper number.
            let mut result = Value::integer(1);
            for i in 0..k {
                let factor = upper.plus(&Value::integer(-i), meter)?;
                let share = Value::rational(BigRational::new(1.into(), (i + 1).into()));
                result = result.times(&factor, meter)?.times(&share, meter)?;
            }
            return Ok(result);
        }
        return Ok(Value::base(Base::Call(Binomial, vec![upper.clone(), lower.clone()])));
    };
    if n < 0 {
        return Err("a binomial coefficient of a negative number".into());
    }
    if k < 0 || k > n {
        return Ok(Value::integer(0));
    }
    let k = k.min(n - k);
    let bits = k as f64 * (n.max(2) as f64).log2();
    if bits > MAX_BITS as f64 / 2.0 {
        return Err("a binomial coefficient is too large".into());
    }
    let words = bits as u64 / 64 + 1;
    meter.charge(2 * words * words)?;
    let value = product(n - k + 1, n, 1) / product(1, k, 1);
    Ok(Value::rational(BigRational::from_integer(value)))
}

/// `n! / (n - k)!`: as many factors as are selected.
fn permutations(arguments: &[Value], meter: &mut Meter) -> Result<Value, Reason> {
    let [upper, lower] = arguments else { return Err("permutations without their two numbers".into()) };
    let selected = lower.as_rational().filter(BigRational::is_integer).and_then(|it| it.to_integer().to_i64());
    match selected {
        Some(selected) if (0..=20).contains(&selected) => {
            let mut result = Value::integer(1);
            for i in 0..selected {
                result = result.times(&upper.plus(&Value::integer(-i), meter)?, meter)?;
            }
            Ok(result)
        }
        _ => binomial(upper, lower, meter)?.times(&factorial(Factorial, lower.clone(), meter)?, meter),
    }
}

/// By its first row; the entries are in row order.
fn determinant(entries: &[Value], meter: &mut Meter) -> Result<Value, Reason> {
    let size = entries.len().isqrt();
    let (first, rest) = entries.split_at(size);
    if size == 1 {
        return Ok(first[0].clone());
    }
    let mut sum = Value::integer(0);
    for (column, entry) in first.iter().enumerate() {
        let minor: Vec<Value> =
            rest.iter().enumerate().filter(|(index, _)| index % size != column).map(|(_, it)| it.clone()).collect();
        let term = entry.times(&determinant(&minor, meter)?, meter)?;
        sum = if column % 2 == 0 { sum.plus(&term, meter)? } else { sum.minus(&term, meter)? };
    }
    Ok(sum)
}

fn of_list(function: Function, mut arguments: Vec<Value>, meter: &mut Meter) -> Result<Value, Reason> {
    if arguments.is_empty() {
        return Err("a function without its list".into());
    }
    if let Some(numbers) = arguments.iter().map(Value::as_rational).collect::<Option<Vec<_>>>() {
        let mut numbers = numbers.into_iter();
        let mut best = numbers.next().expect("there is an argument");
        for number in numbers {
            best = match function {
                Max => best.max(number),
                Min => best.min(number),
                _ if !best.is_integer() || !number.is_integer() => return Err("a common divisor of fractions".into()),
                _ => {
                    let divisor: BigInt = meter.gcd(best.numer().magnitude(), number.numer().magnitude())?.into();
                    let value = if function == Gcd { divisor } else { best.numer().lcm(number.numer()) };
                    BigRational::from_integer(value)
                }
            };
        }
        return Ok(Value::rational(best));
    }
    if matches!(function, Max | Min) && arguments.iter().all(Value::is_constant) {
        let mut best = arguments.pop().expect("there is an argument");
        for other in arguments {
            let difference = other.minus(&best, meter)?;
            if difference.is_zero() {
                continue;
            }
            let sign = enclose::sign(&difference, meter)?.ok_or("numbers too close to be ordered")?;
            if sign.is_gt() == (function == Max) {
                best = other;
            }
        }
        return Ok(best);
    }
    arguments.sort();
    Ok(Value::base(Base::Call(function, arguments)))
}
