//! Values to some fifty decimal digits, for what exact arithmetic does not decide: whether a decimal is rounded correctly,
//! and whether two forms under nested roots differ.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Pow, Signed, Zero};

use super::limits::{Meter, Reason};
use super::value::{Base, Sum, Value};

/// Bits after the point of an approximated root.
const PRECISION: u32 = 192;
/// Differences below this share of a value, as a power of two, are not trusted.
const TRUSTED: u32 = 128;
/// Roots of higher index are not approximated.
const MAX_INDEX: i64 = 64;

const PI: &str = "314159265358979323846264338327950288419716939937510582097494459";
const E: &str = "271828182845904523536028747135266249775724709369995957496696763";

/// Whether a base has one real value, so that decimals can be held against it.
pub fn is_constant(base: &Base) -> bool {
    match base {
        Base::Prime(_) | Base::Radicand(_) => true,
        Base::Symbol(name) => name == "\\pi" || name == "e",
        Base::Imaginary => false,
    }
}

/// The value, with an arbitrary but fixed number for each symbol that is no constant.
pub fn approximate(value: &Value, meter: &mut Meter) -> Result<BigRational, Reason> {
    let under = approximate_sum(&value.under, meter)?;
    if under.is_zero() {
        return Err("division by something close to zero".into());
    }
    let inverse = meter.pow(&under, -1)?;
    let over = approximate_sum(&value.over, meter)?;
    meter.mul(&over, &inverse)
}

/// Whether `a` and `b` cannot be told apart at the precision of [`approximate`].
pub fn indistinguishable(a: &BigRational, b: &BigRational) -> bool {
    (a - b).abs() <= a.abs().max(b.abs()) * resolution()
}

/// The smallest relative difference that an approximation shows.
pub fn resolution() -> BigRational {
    BigRational::new(1.into(), BigInt::one() << TRUSTED)
}

fn approximate_sum(sum: &Sum, meter: &mut Meter) -> Result<BigRational, Reason> {
    let mut total = BigRational::zero();
    for (product, coefficient) in &sum.0 {
        let mut term = coefficient.clone();
        for (base, exponent) in product {
            let value = match base {
                Base::Prime(prime) => BigRational::from_integer((*prime).into()),
                Base::Symbol(name) => symbol(name),
                Base::Radicand(inner) => approximate_sum(inner, meter)?,
                Base::Imaginary => return Err("a complex number".into()),
            };
            let raised = meter.pow(&value, *exponent.numer())?;
            let factor = root(&raised, *exponent.denom(), meter)?;
            term = meter.mul(&term, &factor)?;
        }
        total = meter.add(&total, &term)?;
    }
    Ok(total)
}

fn root(value: &BigRational, index: i64, meter: &mut Meter) -> Result<BigRational, Reason> {
    if index == 1 {
        return Ok(value.clone());
    }
    if index > MAX_INDEX || value.is_negative() {
        return Err("a root that is not approximated".into());
    }
    let scaled = (value.numer() << (PRECISION * index as u32)) / value.denom();
    meter.charge(scaled.bits() * scaled.bits() / 512)?;
    meter.ratio(scaled.nth_root(index as u32), BigInt::one() << PRECISION)
}

fn symbol(name: &str) -> BigRational {
    let digits = match name {
        "\\pi" => PI,
        "e" => E,
        // Any number will do that is no root of a small polynomial: a hash of the name (FNV-1a), between 1 and 2.
        _ => {
            let hash = name
                .bytes()
                .fold(0xcbf29ce484222325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100000001b3));
            return BigRational::new(BigInt::from(hash) + u64::MAX, u64::MAX.into());
        }
    };
    let places = u32::try_from(digits.len() - 1).expect("a short constant");
    BigRational::new(digits.parse().expect("digits"), Pow::pow(BigInt::from(10), places))
}
