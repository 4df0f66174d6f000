//! Expressions to canonical values: equal expressions become equal values.
//!
//! A value is a quotient of two sums; a sum maps each product of powers of bases to its rational coefficient. Whole powers of
//! primes live in the coefficient and only fractional ones (`2^{1/2}`, `5^{2/3}`) stay in the product. Such products are
//! linearly independent over the rationals (Besicovitch 1940), so two sums of roots of rationals are equal exactly when
//! their maps are: `2\sqrt{3}` and `\sqrt{12}` both read {3^{1/2}: 2}. Symbols commute; a root of a sum is a base of its own.

use std::collections::BTreeMap;

use num_bigint::BigInt;
use num_integer::{Integer, Roots};
use num_rational::{BigRational, Ratio};
use num_traits::{One, Signed, ToPrimitive, Zero};

use super::limits::{MAX_EXPONENT, MAX_TERMS, Meter, Reason};
use super::tree::{Expr, Operator};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Base {
    /// Under a fractional exponent between 0 and 1.
    Prime(u64),
    /// `i`, whose square is -1.
    Imaginary,
    Symbol(String),
    /// A sum, or a product that may be negative, under a root.
    Radicand(Sum),
}

/// Bases to exponents that are not zero.
type Product = BTreeMap<Base, Ratio<i64>>;

/// Products to coefficients that are not zero.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sum(pub BTreeMap<Product, BigRational>);

#[derive(Clone, Debug)]
pub struct Value {
    pub over: Sum,
    /// Never zero; one, if it has a single term.
    pub under: Sum,
}

impl Value {
    pub fn of(expr: &Expr, meter: &mut Meter) -> Result<Value, Reason> {
        let value = match expr {
            Expr::Number(literal) => Value::from(Sum::rational(literal.value(meter)?)),
            Expr::Symbol(name) if name == "i" => Value::from(Sum::base(Base::Imaginary)),
            Expr::Symbol(name) => Value::from(Sum::base(Base::Symbol(name.clone()))),
            Expr::Negative(inner) => Value::of(inner, meter)?.negative(),
            Expr::Percent(inner) => {
                let hundredth = Sum::rational(BigRational::new(1.into(), 100.into()));
                Value::of(inner, meter)?.times(&Value::from(hundredth), meter)?
            }
            Expr::Binary(operator, left, right) => {
                let (left, right) = (Value::of(left, meter)?, Value::of(right, meter)?);
                match operator {
                    Operator::Add => left.plus(&right, meter)?,
                    Operator::Subtract => left.plus(&right.negative(), meter)?,
                    Operator::Multiply => left.times(&right, meter)?,
                    Operator::Divide => left.times(&right.inverse(meter)?, meter)?,
                    Operator::Power => left.power(&right, meter)?,
                    Operator::Root => left.power(&right.inverse(meter)?, meter)?,
                    Operator::PlusMinus => return Err("± inside an expression".into()),
                }
            }
        };
        Ok(value)
    }

    /// The two values are the same by the rules of arithmetic.
    pub fn equals(&self, other: &Value, meter: &mut Meter) -> Result<bool, Reason> {
        if self.under == other.under {
            return Ok(self.over == other.over);
        }
        Ok(self.over.times(&other.under, meter)? == other.over.times(&self.under, meter)?)
    }

    /// A rational number, if it is one.
    pub fn as_rational(&self) -> Option<BigRational> {
        self.under.as_rational().filter(One::is_one).and_then(|_| self.over.as_rational())
    }

    /// Whether every base of it satisfies `test`, the bases inside of roots as well.
    pub fn all_bases(&self, test: &impl Fn(&Base) -> bool) -> bool {
        self.over.all_bases(test) && self.under.all_bases(test)
    }

    pub fn negative(mut self) -> Value {
        self.over = self.over.negative();
        self
    }

    pub fn plus(&self, other: &Value, meter: &mut Meter) -> Result<Value, Reason> {
        if self.under == other.under {
            return Value::quotient(self.over.plus(&other.over, meter)?, self.under.clone(), meter);
        }
        let left = self.over.times(&other.under, meter)?;
        let right = other.over.times(&self.under, meter)?;
        Value::quotient(left.plus(&right, meter)?, self.under.times(&other.under, meter)?, meter)
    }

    fn times(&self, other: &Value, meter: &mut Meter) -> Result<Value, Reason> {
        Value::quotient(self.over.times(&other.over, meter)?, self.under.times(&other.under, meter)?, meter)
    }

    fn inverse(self, meter: &mut Meter) -> Result<Value, Reason> {
        Value::quotient(self.under, self.over, meter)
    }

    fn quotient(over: Sum, under: Sum, meter: &mut Meter) -> Result<Value, Reason> {
        if under.0.is_empty() {
            return Err("division by zero".into());
        }
        let Some((product, coefficient)) = under.single() else { return Ok(Value { over, under }) };
        let flipped = product.iter().map(|(base, exponent)| (base.clone(), -exponent)).collect();
        let inverse = Sum::term(flipped, meter.pow(coefficient, -1)?, meter)?;
        Ok(Value::from(over.times(&inverse, meter)?))
    }

    fn power(&self, exponent: &Value, meter: &mut Meter) -> Result<Value, Reason> {
        let exponent = exponent.as_rational().ok_or("an exponent that is not a rational number")?;
        let bounded = |part: &BigInt| part.to_i64().filter(|it| it.abs() <= MAX_EXPONENT * 100);
        let (Some(times), Some(index)) = (bounded(exponent.numer()), bounded(exponent.denom())) else {
            return Err("an exponent is too large".into());
        };
        let root = if index == 1 { self.clone() } else { self.root(index, meter)? };
        if times >= 0 { root.whole_power(times, meter) } else { root.inverse(meter)?.whole_power(-times, meter) }
    }

    fn whole_power(&self, exponent: i64, meter: &mut Meter) -> Result<Value, Reason> {
        Ok(Value { over: self.over.whole_power(exponent, meter)?, under: self.under.whole_power(exponent, meter)? })
    }

    fn root(&self, index: i64, meter: &mut Meter) -> Result<Value, Reason> {
        if index > MAX_EXPONENT {
            return Err("the index of a root is too large".into());
        }
        if self.over.0.is_empty() {
            return Ok(Value::from(Sum::default()));
        }
        if !self.under.as_rational().is_some_and(|it| it.is_one()) {
            return Err("a root of a quotient of sums".into());
        }
        // What is positive and common to all terms comes out of the root.
        let (content, rest) = self.over.content(meter)?;
        let outside = Value::from(root_of_positive(&content, index, meter)?);
        Ok(Value::from(outside.over.times(&rest.root(index, meter)?, meter)?))
    }
}

impl From<Sum> for Value {
    fn from(over: Sum) -> Value {
        Value { over, under: Sum::rational(BigRational::one()) }
    }
}

impl Sum {
    pub fn rational(value: BigRational) -> Sum {
        Sum(if value.is_zero() { BTreeMap::new() } else { BTreeMap::from([(Product::new(), value)]) })
    }

    fn base(base: Base) -> Sum {
        Sum(BTreeMap::from([(Product::from([(base, Ratio::one())]), BigRational::one())]))
    }

    /// `coefficient · product`, with whole powers of primes and powers of `i` moved into the coefficient.
    fn term(product: Product, mut coefficient: BigRational, meter: &mut Meter) -> Result<Sum, Reason> {
        let mut canonical = Product::new();
        for (base, mut exponent) in product {
            match base {
                Base::Prime(prime) => {
                    let whole = exponent.floor().to_integer();
                    let factor = meter.pow(&BigRational::from_integer(prime.into()), whole)?;
                    coefficient = meter.mul(&coefficient, &factor)?;
                    exponent -= Ratio::from(whole);
                }
                Base::Imaginary if exponent.is_integer() => {
                    let quarter_turns = exponent.to_integer().mod_floor(&4);
                    if quarter_turns >= 2 {
                        coefficient = -coefficient;
                    }
                    exponent = Ratio::from(quarter_turns % 2);
                }
                _ if exponent.numer().abs() > MAX_EXPONENT => return Err("an exponent is too large".into()),
                _ => {}
            }
            // Keeps sums of exponents far from overflow.
            if *exponent.denom() > MAX_EXPONENT {
                return Err("the index of a root is too large".into());
            }
            if !exponent.is_zero() {
                canonical.insert(base, exponent);
            }
        }
        Ok(if coefficient.is_zero() { Sum::default() } else { Sum(BTreeMap::from([(canonical, coefficient)])) })
    }

    pub fn as_rational(&self) -> Option<BigRational> {
        match self.single() {
            None if self.0.is_empty() => Some(BigRational::zero()),
            Some((product, coefficient)) if product.is_empty() => Some(coefficient.clone()),
            _ => None,
        }
    }

    /// Its only term.
    fn single(&self) -> Option<(&Product, &BigRational)> {
        if self.0.len() == 1 { self.0.iter().next() } else { None }
    }

    fn all_bases(&self, test: &impl Fn(&Base) -> bool) -> bool {
        self.0
            .keys()
            .flat_map(BTreeMap::keys)
            .all(|base| test(base) && if let Base::Radicand(inner) = base { inner.all_bases(test) } else { true })
    }

    pub fn negative(mut self) -> Sum {
        self.0.values_mut().for_each(|it| *it = -&*it);
        self
    }

    pub fn plus(&self, other: &Sum, meter: &mut Meter) -> Result<Sum, Reason> {
        let mut sum = self.clone();
        for (product, coefficient) in &other.0 {
            sum.add(product.clone(), coefficient, meter)?;
        }
        Ok(sum)
    }

    fn add(&mut self, product: Product, coefficient: &BigRational, meter: &mut Meter) -> Result<(), Reason> {
        let total = match self.0.get(&product) {
            Some(present) => meter.add(present, coefficient)?,
            None => coefficient.clone(),
        };
        if total.is_zero() {
            self.0.remove(&product);
        } else {
            self.0.insert(product, total);
        }
        if self.0.len() > MAX_TERMS { Err("too many terms".into()) } else { Ok(()) }
    }

    pub fn times(&self, other: &Sum, meter: &mut Meter) -> Result<Sum, Reason> {
        let mut result = Sum::default();
        for (left, a) in &self.0 {
            for (right, b) in &other.0 {
                // To merge two maps costs as much as products of some hundred words.
                meter.charge(200 * (1 + left.len() + right.len()) as u64)?;
                let mut product = left.clone();
                for (base, exponent) in right {
                    *product.entry(base.clone()).or_insert_with(Ratio::zero) += exponent;
                }
                let coefficient = meter.mul(a, b)?;
                for (product, coefficient) in Sum::term(product, coefficient, meter)?.0 {
                    result.add(product, &coefficient, meter)?;
                }
            }
        }
        Ok(result)
    }

    fn whole_power(&self, exponent: i64, meter: &mut Meter) -> Result<Sum, Reason> {
        if let Some((product, coefficient)) = self.single() {
            let raised = product.iter().map(|(base, each)| (base.clone(), each * Ratio::from(exponent)));
            return Sum::term(raised.collect(), meter.pow(coefficient, exponent)?, meter);
        }
        if self.0.is_empty() && exponent == 0 {
            return Err("zero to the power of zero".into());
        }
        let (mut result, mut square, mut left) = (Sum::rational(BigRational::one()), self.clone(), exponent);
        while left > 0 {
            if left % 2 == 1 {
                result = result.times(&square, meter)?;
            }
            left /= 2;
            if left > 0 {
                square = square.times(&square, meter)?;
            }
        }
        Ok(result)
    }

    /// Splits off the greatest positive rational that divides all coefficients.
    pub fn content(&self, meter: &mut Meter) -> Result<(BigRational, Sum), Reason> {
        let (mut over, mut under) = (BigInt::zero(), BigInt::one());
        for coefficient in self.0.values() {
            over = meter.gcd(over.magnitude(), coefficient.numer().magnitude())?.into();
            let shared: BigInt = meter.gcd(under.magnitude(), coefficient.denom().magnitude())?.into();
            under = under / shared * coefficient.denom();
        }
        let content = meter.ratio(over, under)?;
        let inverse = meter.pow(&content, -1)?;
        let mut rest = Sum::default();
        for (product, coefficient) in &self.0 {
            rest.0.insert(product.clone(), meter.mul(coefficient, &inverse)?);
        }
        Ok((content, rest))
    }

    /// The root of a sum whose content is one.
    fn root(self, index: i64, meter: &mut Meter) -> Result<Sum, Reason> {
        let (mut outside, mut inside) = (Product::new(), Product::new());
        let Some((product, coefficient)) = self.single() else {
            return Ok(Sum(BTreeMap::from([(
                Product::from([(Base::Radicand(self), Ratio::new(1, index))]),
                BigRational::one(),
            )])));
        };
        let negative = coefficient.is_negative();
        // Only of what is positive for certain may the root be taken factor by factor.
        for (base, exponent) in product {
            let positive = matches!(base, Base::Prime(_)) || *base == Base::Symbol("\\pi".into());
            if positive {
                outside.insert(base.clone(), exponent / index)
            } else {
                inside.insert(base.clone(), *exponent)
            };
        }
        let mut sign = BigRational::one();
        match (negative, index) {
            (false, _) if inside.is_empty() => {}
            (true, 2) if inside.is_empty() => drop(outside.insert(Base::Imaginary, Ratio::one())),
            (true, _) if inside.is_empty() && index % 2 == 1 => sign = -sign,
            (true, _) if inside.is_empty() => return Err("an even root of a negative number".into()),
            _ => {
                let coefficient = if negative { -BigRational::one() } else { BigRational::one() };
                let radicand = Sum(BTreeMap::from([(inside, coefficient)]));
                outside.insert(Base::Radicand(radicand), Ratio::new(1, index));
            }
        }
        Sum::term(outside, sign, meter)
    }
}

/// The root of a positive rational, with every prime at an exponent between 0 and 1.
fn root_of_positive(value: &BigRational, index: i64, meter: &mut Meter) -> Result<Sum, Reason> {
    let mut product = Product::new();
    let mut coefficient = BigRational::one();
    for (part, sign) in [(value.numer(), 1), (value.denom(), -1)] {
        meter.charge(part.bits() * part.bits() / 64)?;
        let exact = part.nth_root(index as u32);
        if exact.pow(index as u32) == *part {
            let factor = meter.pow(&BigRational::from_integer(exact), sign)?;
            coefficient = meter.mul(&coefficient, &factor)?;
            continue;
        }
        let part = part.to_u64().ok_or("a radicand is too large to factor")?;
        for (prime, power) in factor(part, meter)? {
            *product.entry(Base::Prime(prime)).or_insert_with(Ratio::zero) += Ratio::new(sign * power, index);
        }
    }
    Sum::term(product, coefficient, meter)
}

/// Primes and their powers, by trial division up to 2^16.
fn factor(mut number: u64, meter: &mut Meter) -> Result<Vec<(u64, i64)>, Reason> {
    let mut factors = Vec::new();
    let mut divide = |prime: u64, number: &mut u64| {
        let mut power = 0;
        while number.is_multiple_of(prime) {
            *number /= prime;
            power += 1;
        }
        if power > 0 {
            factors.push((prime, power));
        }
    };
    divide(2, &mut number);
    let mut prime = 3;
    while prime < 1 << 16 && prime * prime <= number {
        divide(prime, &mut number);
        prime += 2;
    }
    meter.charge(prime)?;
    if prime * prime <= number {
        // All its primes are beyond 2^16. The square of one is still easy to see; anything else is left alone.
        let root = number.sqrt();
        if root * root != number || root >= 1 << 32 {
            return Err("a radicand is too large to factor".into());
        }
        factors.push((root, 2));
    } else if number > 1 {
        factors.push((number, 1));
    }
    Ok(factors)
}
