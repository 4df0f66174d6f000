//! Encloses constants in balls: proves that two forms differ, orders numbers, and compares decimals with exact values.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use num_bigint::BigInt;
use num_rational::Ratio;
use num_traits::One;

use super::ball::Ball;
use super::function::Function::*;
use super::limits::{Meter, Reason};
use super::value::{Base, Sum, Value};

/// Precisions that are tried in turn, in bits.
pub const PRECISIONS: [u32; 4] = [96, 192, 384, 1_024];

/// A complex number; one without an imaginary part is certainly real.
#[derive(Clone, Debug)]
pub struct Complex {
    pub re: Ball,
    pub im: Option<Ball>,
}

/// The sign of a real constant, if a thousand bits show it.
pub fn sign(value: &Value, meter: &mut Meter) -> Result<Option<Ordering>, Reason> {
    for precision in PRECISIONS {
        let Some(number) = enclose(value, precision, meter)?.filter(|it| it.im.is_none()) else { return Ok(None) };
        if let Some(sign) = number.re.sign() {
            return Ok(Some(sign));
        }
    }
    Ok(None)
}

/// The largest integer below a real constant that is not an integer, if a thousand bits show it.
pub fn floor(value: &Value, meter: &mut Meter) -> Result<Option<BigInt>, Reason> {
    for precision in PRECISIONS {
        let Some(number) = enclose(value, precision, meter)?.filter(|it| it.im.is_none()) else { return Ok(None) };
        let found = floor_of(&number.re, precision);
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn floor_of(number: &Ball, precision: u32) -> Option<BigInt> {
    let above = |whole: &BigInt| number.sub(&Ball::from_int(whole.clone(), precision)).sign();
    // A power of two above it, then bisection.
    let mut low = BigInt::from(-1);
    while above(&low)? != Ordering::Greater {
        low *= 2;
        if low.bits() > 256 {
            return None;
        }
    }
    let mut high = BigInt::one();
    while above(&high)? != Ordering::Less {
        high *= 2;
        if high.bits() > 256 {
            return None;
        }
    }
    while &high - &low > BigInt::one() {
        let middle: BigInt = (&low + &high) >> 1;
        match above(&middle)? {
            Ordering::Less => high = middle,
            _ => low = middle,
        }
    }
    Some(low)
}

/// The value, whose only symbols may be π and e; `None` if this cannot be computed.
pub fn enclose(value: &Value, precision: u32, meter: &mut Meter) -> Result<Option<Complex>, Reason> {
    let found = Enclosure { precision, meter, known: BTreeMap::new() }.of(value);
    if found.is_none() {
        meter.refusal()?;
    }
    Ok(found)
}

/// Intermediate results for one value: the same logarithm may occur in a thousand terms.
struct Enclosure<'a, 'm> {
    precision: u32,
    meter: &'m mut Meter,
    known: BTreeMap<(&'a Base, Ratio<i64>), Complex>,
}

impl<'a> Enclosure<'a, '_> {
    fn of(&mut self, value: &'a Value) -> Option<Complex> {
        let over = self.of_sum(&value.over)?;
        if value.under.is_one() {
            return Some(over);
        }
        Some(over.times(&self.of_sum(&value.under)?.inverse()?))
    }

    fn of_sum(&mut self, sum: &'a Sum) -> Option<Complex> {
        let mut total = Complex::from(Ball::from_int(0, self.precision));
        for (product, coefficient) in &sum.0 {
            self.charge_products(1)?;
            let mut term = Complex::from(Ball::from_ratio(coefficient, self.precision));
            for (base, exponent) in product {
                self.charge_products(1)?;
                let key = (base, *exponent);
                let factor = match self.known.get(&key) {
                    Some(known) => known,
                    None => {
                        let factor = self.of_power(base, exponent)?;
                        self.known.entry(key).or_insert(factor)
                    }
                };
                term = term.times(factor);
            }
            total = total.plus(&term);
        }
        Some(total)
    }

    fn of_power(&mut self, base: &'a Base, exponent: &Ratio<i64>) -> Option<Complex> {
        let whole = (base, Ratio::one());
        let number = match self.known.get(&whole) {
            Some(known) => known.clone(),
            None => {
                let number = self.of_base(base)?;
                self.known.insert(whole, number.clone());
                number
            }
        };
        let index = u32::try_from(*exponent.denom()).ok()?;
        if index > 1 {
            self.charge_function()?;
        }
        let power = *exponent.numer();
        self.charge_products(2 * u64::from(power.unsigned_abs().max(1).ilog2()))?;
        number.root(index)?.whole_power(power)
    }

    fn of_base(&mut self, base: &'a Base) -> Option<Complex> {
        let precision = self.precision;
        Some(match base {
            Base::Prime(prime) => Complex::from(Ball::from_int(*prime, precision)),
            Base::Imaginary => Complex { re: Ball::from_int(0, precision), im: Some(Ball::from_int(1, precision)) },
            Base::Symbol(name) if name == "\\pi" => Complex::from(Ball::pi(precision)),
            Base::Symbol(name) if name == "e" => {
                self.charge_function()?;
                Complex::from(Ball::e(precision))
            }
            Base::Symbol(_) => return None,
            Base::Radicand(inner) => self.of_sum(inner)?,
            Base::Power(base, power) => {
                let exponent = self.of(power)?;
                self.charge_function()?;
                if **base == Value::symbol("e") {
                    exponent.exp()?
                } else {
                    let base = self.of(base)?;
                    self.charge_function()?;
                    exponent.times(&base.ln(precision)?).exp()?
                }
            }
            Base::Call(function, arguments) => {
                let [argument] = &arguments[..] else { return None };
                let x = self.of(argument)?;
                self.charge_function()?;
                match function {
                    Ln => x.ln(precision)?,
                    Abs => match x.real()?.sign()? {
                        Ordering::Less => Complex::from(x.re.neg()),
                        _ => x,
                    },
                    Sin => Complex::from(x.real()?.sin()?),
                    Cos => Complex::from(x.real()?.cos()?),
                    Arcsin => Complex::from(x.real()?.asin()?),
                    Arccos => Complex::from(x.real()?.acos()?),
                    Arctan => Complex::from(x.real()?.atan()),
                    _ => return None,
                }
            }
        })
    }

    fn charge_function(&mut self) -> Option<()> {
        self.meter.charge_function(self.precision).ok()
    }

    /// Products and sums of balls. Cost: the products of about a hundred words for the rounding, plus their own.
    fn charge_products(&mut self, count: u64) -> Option<()> {
        let words = u64::from(self.precision / 64);
        self.meter.charge(count * (400 + words * words)).ok()
    }
}

impl From<Ball> for Complex {
    fn from(re: Ball) -> Complex {
        Complex { re, im: None }
    }
}

impl Complex {
    /// The ball of a number that is certainly real.
    pub fn real(&self) -> Option<&Ball> {
        self.im.is_none().then_some(&self.re)
    }

    /// Whether it may be zero.
    pub fn contains_zero(&self) -> bool {
        self.re.contains_zero() && self.im.as_ref().is_none_or(Ball::contains_zero)
    }

    fn plus(&self, other: &Complex) -> Complex {
        let im = match (&self.im, &other.im) {
            (Some(one), Some(other)) => Some(one.add(other)),
            (one, other) => one.clone().or_else(|| other.clone()),
        };
        Complex { re: self.re.add(&other.re), im }
    }

    /// Whether the two may be equal.
    pub fn overlaps(&self, other: &Complex) -> bool {
        let imaginary = match (&self.im, &other.im) {
            (Some(one), Some(other)) => one.overlaps(other),
            (one, other) => one.as_ref().or(other.as_ref()).is_none_or(Ball::contains_zero),
        };
        imaginary && self.re.overlaps(&other.re)
    }

    fn times(&self, other: &Complex) -> Complex {
        match (&self.im, &other.im) {
            (None, None) => self.re.mul(&other.re).into(),
            (Some(im), None) => Complex { re: self.re.mul(&other.re), im: Some(im.mul(&other.re)) },
            (None, Some(im)) => Complex { re: self.re.mul(&other.re), im: Some(self.re.mul(im)) },
            (Some(a), Some(b)) => {
                Complex { re: self.re.mul(&other.re).sub(&a.mul(b)), im: Some(self.re.mul(b).add(&a.mul(&other.re))) }
            }
        }
    }

    fn inverse(&self) -> Option<Complex> {
        let Some(im) = &self.im else { return Some(self.re.recip()?.into()) };
        let size = self.re.mul(&self.re).add(&im.mul(im));
        Some(Complex { re: self.re.div(&size)?, im: Some(im.neg().div(&size)?) })
    }

    fn whole_power(&self, exponent: i64) -> Option<Complex> {
        if self.im.is_none() {
            return Some(self.re.pow_int(exponent)?.into());
        }
        let mut result: Option<Complex> = None;
        let (mut square, mut left) = (self.clone(), exponent.unsigned_abs());
        while left > 0 {
            if left % 2 == 1 {
                result = Some(match result {
                    Some(result) => result.times(&square),
                    None => square.clone(),
                });
            }
            left /= 2;
            if left > 0 {
                square = square.times(&square);
            }
        }
        if exponent < 0 { result?.inverse() } else { result }
    }

    /// The real root if there is one, else the principal square root.
    fn root(&self, index: u32) -> Option<Complex> {
        if index == 1 {
            return Some(self.clone());
        }
        let Some(im) = &self.im else {
            return match self.re.sign() {
                Some(Ordering::Less) if index % 2 == 1 => Some(self.re.neg().nth_root(index)?.neg().into()),
                Some(Ordering::Less) if index == 2 => {
                    let im = self.re.neg().nth_root(2)?;
                    Some(Complex { re: im.sub(&im), im: Some(im) })
                }
                Some(Ordering::Less) => None,
                _ => Some(self.re.nth_root(index)?.into()),
            };
        };
        if index != 2 {
            return None;
        }
        let size = self.re.mul(&self.re).add(&im.mul(im)).nth_root(2)?;
        let two = size.div(&size)?.add(&size.div(&size)?);
        let re = size.add(&self.re).div(&two)?.nth_root(2)?;
        let down = size.sub(&self.re).div(&two)?.nth_root(2)?;
        Some(Complex { re, im: Some(if im.sign()? == Ordering::Less { down.neg() } else { down }) })
    }

    fn exp(&self) -> Option<Complex> {
        let size = self.re.exp()?;
        let Some(im) = &self.im else { return Some(size.into()) };
        Some(Complex { re: size.mul(&im.cos()?), im: Some(size.mul(&im.sin()?)) })
    }

    /// The principal logarithm of a real number.
    fn ln(&self, precision: u32) -> Option<Complex> {
        let number = self.real()?;
        match number.sign()? {
            Ordering::Less => Some(Complex { re: number.neg().ln()?, im: Some(Ball::pi(precision)) }),
            _ => Some(number.ln()?.into()),
        }
    }
}
