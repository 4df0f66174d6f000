//! Sums: polynomials whose variables are symbols, roots, functions and powers.

use std::collections::BTreeMap;

use num_bigint::BigInt;
use num_integer::Integer;
use num_rational::{BigRational, Ratio};
use num_traits::{One, Signed, Zero};

use super::Value;
use crate::math::function::Function;
use crate::math::limits::{MAX_EXPONENT, MAX_TERMS, Meter, Reason};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Base {
    /// Under a fractional exponent between 0 and 1.
    Prime(u64),
    /// `i`, whose square is -1.
    Imaginary,
    Symbol(String),
    /// A sum, or a product that may be negative, under a root.
    Radicand(Sum),
    /// The first to the power of the second, which is not rational: a product of bases, or a quotient.
    Power(Box<Value>, Box<Value>),
    Call(Function, Vec<Value>),
}

/// Bases and their nonzero exponents.
pub type PowerProduct = BTreeMap<Base, Ratio<i64>>;

/// Products and their nonzero coefficients.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sum(pub BTreeMap<PowerProduct, BigRational>);

/// The cost of adding one base to a map of products, in products of words.
const MERGE: u64 = 160;

/// Number of bases in a product, including those inside them, which are compared and copied with it.
fn weight(product: &PowerProduct) -> u64 {
    1 + product.keys().map(of_base).sum::<u64>()
}

fn of_base(base: &Base) -> u64 {
    let of_sum = |sum: &Sum| sum.0.keys().map(|it| 1 + weight(it)).sum::<u64>();
    let of_value = |value: &Value| of_sum(&value.over) + of_sum(&value.under);
    match base {
        Base::Prime(_) | Base::Imaginary | Base::Symbol(_) => 1,
        Base::Radicand(inner) => 1 + of_sum(inner),
        Base::Power(base, exponent) => 1 + of_value(base) + of_value(exponent),
        Base::Call(_, arguments) => 1 + arguments.iter().map(of_value).sum::<u64>(),
    }
}

impl Sum {
    pub fn rational(value: BigRational) -> Sum {
        Sum(if value.is_zero() { BTreeMap::new() } else { BTreeMap::from([(PowerProduct::new(), value)]) })
    }

    pub fn base(base: Base) -> Sum {
        Sum(BTreeMap::from([(PowerProduct::from([(base, Ratio::one())]), BigRational::one())]))
    }

    /// `coefficient · product`, with integer powers of primes and powers of `i` moved into the coefficient, and integer
    /// powers of roots multiplied out.
    pub fn term(product: PowerProduct, mut coefficient: BigRational, meter: &mut Meter) -> Result<Sum, Reason> {
        let mut canonical = PowerProduct::new();
        let mut expanded: Option<Sum> = None;
        for (base, mut exponent) in product {
            match &base {
                Base::Prime(prime) => {
                    let whole = exponent.floor().to_integer();
                    let factor = meter.pow(&BigRational::from_integer((*prime).into()), whole)?;
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
                Base::Radicand(inner)
                    if exponent >= Ratio::one() || (inner.single().is_some() && exponent < Ratio::zero()) =>
                {
                    let whole = exponent.floor().to_integer();
                    let factor = inner.whole_power(whole, meter)?;
                    expanded = Some(match expanded {
                        Some(others) => others.times(&factor, meter)?,
                        None => factor,
                    });
                    exponent -= Ratio::from(whole);
                }
                _ if exponent.numer().abs() > MAX_EXPONENT => return Err("an exponent is too large".into()),
                _ => {}
            }
            // Prevents an overflow of sums of exponents.
            if *exponent.denom() > MAX_EXPONENT {
                return Err("the index of a root is too large".into());
            }
            if !exponent.is_zero() {
                canonical.insert(base, exponent);
            }
        }
        let sum = if coefficient.is_zero() { Sum::default() } else { Sum(BTreeMap::from([(canonical, coefficient)])) };
        match expanded {
            Some(factor) => sum.times(&factor, meter),
            None => Ok(sum),
        }
    }

    pub fn as_rational(&self) -> Option<BigRational> {
        match self.single() {
            None if self.0.is_empty() => Some(BigRational::zero()),
            Some((product, coefficient)) if product.is_empty() => Some(coefficient.clone()),
            _ => None,
        }
    }

    /// Its only term.
    pub fn single(&self) -> Option<(&PowerProduct, &BigRational)> {
        if self.0.len() == 1 { self.0.iter().next() } else { None }
    }

    pub fn all_bases(&self, test: &impl Fn(&Base) -> bool) -> bool {
        self.0.keys().flat_map(BTreeMap::keys).all(|base| {
            test(base)
                && match base {
                    Base::Prime(_) | Base::Imaginary | Base::Symbol(_) => true,
                    Base::Radicand(inner) => inner.all_bases(test),
                    Base::Power(base, exponent) => base.all_bases(test) && exponent.all_bases(test),
                    Base::Call(_, arguments) => arguments.iter().all(|it| it.all_bases(test)),
                }
        })
    }

    pub fn is_one(&self) -> bool {
        self.single().is_some_and(|(product, coefficient)| product.is_empty() && coefficient.is_one())
    }

    pub fn negative(mut self) -> Sum {
        self.0.values_mut().for_each(|it| *it = -&*it);
        self
    }

    pub fn plus(&self, other: &Sum, meter: &mut Meter) -> Result<Sum, Reason> {
        let mut sum = self.clone();
        for (product, coefficient) in &other.0 {
            meter.charge(MERGE * weight(product))?;
            sum.add(product.clone(), coefficient, meter)?;
        }
        Ok(sum)
    }

    fn add(&mut self, product: PowerProduct, coefficient: &BigRational, meter: &mut Meter) -> Result<(), Reason> {
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
        let weights: Vec<u64> = other.0.keys().map(weight).collect();
        for (left, a) in &self.0 {
            let left_weight = weight(left);
            for ((right, b), right_weight) in other.0.iter().zip(&weights) {
                meter.charge(MERGE * (left_weight + right_weight))?;
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

    pub fn whole_power(&self, exponent: i64, meter: &mut Meter) -> Result<Sum, Reason> {
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

    /// Splits off the largest positive rational that divides all coefficients.
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

    /// The terms without `i` and with it, if it does not occur in a root or function.
    pub fn parts(&self) -> (Sum, Sum) {
        let (mut real, mut imaginary) = (Sum::default(), Sum::default());
        for (product, coefficient) in &self.0 {
            let mut product = product.clone();
            let part = if product.remove(&Base::Imaginary).is_some() { &mut imaginary } else { &mut real };
            part.0.insert(product, coefficient.clone());
        }
        (real, imaginary)
    }
}
