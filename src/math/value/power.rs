//! Powers: integer and rational exponents exactly, all others by splitting the exponent into its terms, so that
//! `2^{2n+1}` and `2\cdot 4^n` become the same.

use num_bigint::BigInt;
use num_rational::{BigRational, Ratio};
use num_traits::{One, Signed, ToPrimitive};

use super::root::{factor, root_of_positive};
use super::sum::{Base, PowerProduct, Sum};
use super::{Value, call::cosine};
use crate::math::function::Function;
use crate::math::limits::{MAX_EXPONENT, Meter, Reason};

impl Value {
    pub fn power(&self, exponent: &Value, meter: &mut Meter) -> Result<Value, Reason> {
        match exponent.as_rational() {
            Some(exponent) => self.rational_power(&exponent, meter),
            None => self.general_power(exponent, meter),
        }
    }

    fn rational_power(&self, exponent: &BigRational, meter: &mut Meter) -> Result<Value, Reason> {
        let bounded = |part: &BigInt| part.to_i64().filter(|it| it.abs() <= MAX_EXPONENT * 100);
        let (Some(times), Some(index)) = (bounded(exponent.numer()), bounded(exponent.denom())) else {
            return Err("an exponent is too large".into());
        };
        let root = if index == 1 { self.clone() } else { self.root(index, meter)? };
        if times >= 0 { root.whole_power(times, meter) } else { root.inverse(meter)?.whole_power(-times, meter) }
    }

    pub fn whole_power(&self, exponent: i64, meter: &mut Meter) -> Result<Value, Reason> {
        Ok(Value { over: self.over.whole_power(exponent, meter)?, under: self.under.whole_power(exponent, meter)? })
    }

    pub fn root(&self, index: i64, meter: &mut Meter) -> Result<Value, Reason> {
        if index > MAX_EXPONENT {
            return Err("the index of a root is too large".into());
        }
        if self.over.0.is_empty() {
            return Ok(Value::from(Sum::default()));
        }
        let over = root_of_sum(&self.over, index, meter)?;
        if self.under.is_one() {
            return Ok(over);
        }
        over.times(&root_of_sum(&self.under, index, meter)?.inverse(meter)?, meter)
    }

    /// A power whose exponent is not rational, factor by factor and term by term.
    fn general_power(&self, exponent: &Value, meter: &mut Meter) -> Result<Value, Reason> {
        if !exponent.under.is_one() {
            return self.opaque_power(exponent, Ratio::one(), meter);
        }
        let mut result = Value::integer(1);
        for (product, coefficient) in &exponent.over.0 {
            let factor = if product.is_empty() {
                self.rational_power(coefficient, meter)?
            } else {
                let term = Value::from(Sum::term(product.clone(), BigRational::one(), meter)?);
                self.term_power(product, &term, coefficient, meter)?
            };
            result = result.times(&factor, meter)?;
        }
        Ok(result)
    }

    /// `self` to `coefficient · term`.
    fn term_power(
        &self,
        product: &PowerProduct,
        term: &Value,
        coefficient: &BigRational,
        meter: &mut Meter,
    ) -> Result<Value, Reason> {
        let (Some(over), Some(under)) = (coefficient.numer().to_i64(), coefficient.denom().to_i64()) else {
            return Err("an exponent is too large".into());
        };
        let times = Ratio::new(over, under);
        if let (Some((factors, number)), true) = (self.over.single(), self.under.is_one()) {
            let mut result = Value::integer(1);
            for (base, share) in factors {
                let factor = match base {
                    Base::Symbol(name) if name == "e" => exponential(product, term, times * share, meter)?,
                    _ => Value::base(base.clone()).opaque_power(term, times * share, meter)?,
                };
                result = result.times(&factor, meter)?;
            }
            if number.is_negative() {
                result = result.times(&Value::integer(-1).opaque_power(term, times, meter)?, meter)?;
            }
            for (part, sign) in [(number.numer().magnitude(), 1), (number.denom().magnitude(), -1)] {
                let factors = part.to_u64().map(|it| factor(it, meter)).transpose()?.flatten();
                let factors = factors.ok_or("the base of a power is too large to factor")?;
                for (prime, power) in factors {
                    let base = Value::rational(BigRational::from_integer(prime.into()));
                    result = result.times(&base.opaque_power(term, times * sign * power, meter)?, meter)?;
                }
            }
            return Ok(result);
        }
        self.opaque_power(term, times, meter)
    }

    fn opaque_power(&self, exponent: &Value, times: Ratio<i64>, meter: &mut Meter) -> Result<Value, Reason> {
        if self.over.0.is_empty() {
            return Err("a power of zero".into());
        }
        if times.numer().abs() > MAX_EXPONENT || *times.denom() > MAX_EXPONENT {
            return Err("an exponent is too large".into());
        }
        if self.as_rational().is_some_and(|it| it.is_one()) {
            return Ok(self.clone());
        }
        let base = Base::Power(Box::new(self.clone()), Box::new(exponent.clone()));
        Ok(Value::from(Sum::term(PowerProduct::from([(base, times)]), BigRational::one(), meter)?))
    }
}

/// e to `times · term`: a logarithm in the exponent disappears, and half turns are numbers.
fn exponential(product: &PowerProduct, term: &Value, times: Ratio<i64>, meter: &mut Meter) -> Result<Value, Reason> {
    let share = BigRational::new((*times.numer()).into(), (*times.denom()).into());
    let whole = |exponent: &Ratio<i64>| exponent.is_one();
    if let Some((Base::Call(Function::Ln, arguments), power)) = product.first_key_value()
        && product.len() == 1
        && whole(power)
    {
        return arguments[0].rational_power(&share, meter);
    }
    let pi = Base::Symbol("\\pi".into());
    if product.len() == 2 && product.get(&Base::Imaginary).is_some_and(whole) && product.get(&pi).is_some_and(whole) {
        let half = BigRational::new(1.into(), 2.into());
        let sine = cosine(&(half - &share), meter)?.times(&Value::base(Base::Imaginary), meter)?;
        return cosine(&share, meter)?.plus(&sine, meter);
    }
    Value::symbol("e").opaque_power(term, times, meter)
}

fn root_of_sum(sum: &Sum, index: i64, meter: &mut Meter) -> Result<Value, Reason> {
    // Positive factors that are common to all terms are moved out of the root.
    let (content, rest) = sum.content(meter)?;
    let outside = root_of_positive(&content, index, meter)?;
    Ok(Value::from(outside.times(&rest.root(index, meter)?, meter)?))
}
