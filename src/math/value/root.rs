//! Roots: of rationals by their primes, of anything else as separate bases.

use num_integer::Roots;
use num_rational::{BigRational, Ratio};
use num_traits::{One, Signed, ToPrimitive, Zero};

use super::is_constant;
use super::sum::{Base, PowerProduct, Sum};
use crate::math::limits::{Meter, Reason};
use std::collections::BTreeMap;

impl Sum {
    /// The root of a sum whose content is one.
    pub fn root(self, index: i64, meter: &mut Meter) -> Result<Sum, Reason> {
        let (mut outside, mut inside) = (PowerProduct::new(), PowerProduct::new());
        let Some((product, coefficient)) = self.single() else {
            return Ok(Sum(BTreeMap::from([(
                PowerProduct::from([(Base::Radicand(self), Ratio::new(1, index))]),
                BigRational::one(),
            )])));
        };
        let negative = coefficient.is_negative();
        // The root may be computed factor by factor only if the factors are certainly positive.
        for (base, exponent) in product {
            let positive = match base {
                Base::Prime(_) => true,
                Base::Symbol(name) => is_constant(name),
                _ => false,
            };
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
pub fn root_of_positive(value: &BigRational, index: i64, meter: &mut Meter) -> Result<Sum, Reason> {
    let mut product = PowerProduct::new();
    let mut coefficient = BigRational::one();
    for (part, sign) in [(value.numer(), 1), (value.denom(), -1)] {
        meter.charge(part.bits() * part.bits() / 64)?;
        let exact = part.nth_root(index as u32);
        if exact.pow(index as u32) == *part {
            let factor = meter.pow(&BigRational::from_integer(exact), sign)?;
            coefficient = meter.mul(&coefficient, &factor)?;
            continue;
        }
        match part.to_u64().map(|part| factor(part, meter)).transpose()?.flatten() {
            Some(factors) => {
                for (prime, power) in factors {
                    *product.entry(Base::Prime(prime)).or_insert_with(Ratio::zero) += Ratio::new(sign * power, index);
                }
            }
            // Too large to factor: a separate base.
            None => {
                let radicand = Sum::rational(BigRational::from_integer(part.clone()));
                product.insert(Base::Radicand(radicand), Ratio::new(sign, index));
            }
        }
    }
    Sum::term(product, coefficient, meter)
}

/// Primes and their powers, by trial division up to 2^16; `None` if that is not enough.
pub fn factor(mut number: u64, meter: &mut Meter) -> Result<Option<Vec<(u64, i64)>>, Reason> {
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
        // All its primes are above 2^16. The square of one is still easy to detect; anything else is left unchanged.
        let root = number.sqrt();
        if root * root != number || root >= 1 << 32 {
            return Ok(None);
        }
        factors.push((root, 2));
    } else if number > 1 {
        factors.push((number, 1));
    }
    Ok(Some(factors))
}
