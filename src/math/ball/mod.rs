//! Real numbers with a proof: ball arithmetic, after F. Johansson, *Arb: efficient arbitrary-precision midpoint-radius
//! interval arithmetic* (2017), <https://arxiv.org/abs/1611.02831>.
//!
//! A [`Ball`] is a midpoint and an upper bound of its error. Every operation returns a ball that contains the result for
//! every choice of reals from the balls it was given, so a ball that does not contain zero proves that its number is not
//! zero. Nothing is a float, and a result is the same on every machine.
//!
//! The cost is bounded for every input: the precision is at most [`MAX_PRECISION`], and a result that would need more (the
//! sine of a huge number) is `None`.

mod fixed;
mod functions;

#[cfg(test)]
mod tests;

use std::cmp::Ordering;

use num_bigint::{BigInt, BigUint};
use num_integer::Integer;
use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive, Zero};

/// Least and largest precision, in bits. What is asked for beyond is clamped.
pub(super) const MIN_PRECISION: u32 = 32;
pub(super) const MAX_PRECISION: u32 = 4_096;

/// Bits of a radius: more would say no more about an error.
const RADIUS_BITS: u64 = 32;
/// The radius of a ball that is the whole real line.
const UNBOUNDED: u64 = u64::MAX;
/// Exponents are below this, so that sums of a few cannot overflow.
const MAX_EXPONENT: i64 = 1 << 60;

/// The reals in `(middle ± radius) · 2^exponent`.
#[derive(Clone, Debug)]
pub(super) struct Ball {
    /// At most `precision` bits.
    middle: BigInt,
    /// In units of the middle's last bit; 0 for a number that is known exactly.
    radius: u64,
    exponent: i64,
    precision: u32,
}

impl Ball {
    pub(super) fn from_int(value: impl Into<BigInt>, precision: u32) -> Ball {
        Ball::new(value.into(), BigUint::ZERO, 0, precision.clamp(MIN_PRECISION, MAX_PRECISION))
    }

    pub(super) fn from_ratio(value: &BigRational, precision: u32) -> Ball {
        let precision = precision.clamp(MIN_PRECISION, MAX_PRECISION);
        // Cut first, so that the division costs no more than the precision asks for.
        let [over, under] =
            [value.numer(), value.denom()].map(|it| Ball::new(it.clone(), BigUint::ZERO, 0, precision + 8));
        over.div(&under).expect("a denominator is not zero").at(precision)
    }

    /// Rounds to `precision`.
    fn new(mut middle: BigInt, mut radius: BigUint, mut exponent: i64, precision: u32) -> Ball {
        let shift = middle.bits().saturating_sub(precision.into()).max(radius.bits().saturating_sub(RADIUS_BITS));
        if shift > 0 {
            let cut = middle.trailing_zeros().is_some_and(|zeros| zeros < shift);
            let radius_cut = !radius.is_zero();
            middle >>= shift;
            radius >>= shift;
            radius += u32::from(cut) + u32::from(radius_cut);
            exponent += shift as i64;
        }
        let radius = radius.to_u64().expect("a radius has 32 bits and a carry");
        if middle.is_zero() && radius == 0 {
            return Ball { middle, radius, exponent: 0, precision };
        }
        let top = exponent + middle.bits() as i64;
        if exponent > MAX_EXPONENT || top > MAX_EXPONENT {
            return Ball::unbounded(precision);
        }
        if exponent < -MAX_EXPONENT {
            // All of it lies within one unit of zero once it is moved up to the smallest exponent there is.
            return Ball { middle: BigInt::ZERO, radius: 1, exponent: top.max(-MAX_EXPONENT) + 34, precision };
        }
        Ball { middle, radius, exponent, precision }
    }

    /// All reals.
    fn unbounded(precision: u32) -> Ball {
        Ball { middle: BigInt::ZERO, radius: UNBOUNDED, exponent: 0, precision }
    }

    fn is_bounded(&self) -> bool {
        self.radius != UNBOUNDED
    }

    fn is_exactly_zero(&self) -> bool {
        self.middle.is_zero() && self.radius == 0
    }

    /// The same number at another working precision.
    fn at(&self, precision: u32) -> Ball {
        match self.is_bounded() {
            true => Ball::new(self.middle.clone(), self.radius.into(), self.exponent, precision),
            false => Ball::unbounded(precision),
        }
    }

    /// The number times a power of two.
    fn scaled(mut self, power: i64) -> Ball {
        self.exponent += power;
        self
    }

    /// A power of two, as its exponent, that is above the size of all that the ball contains; `None` for all reals.
    fn top(&self) -> Option<i64> {
        let size = self.middle.magnitude() + self.radius;
        self.is_bounded().then(|| self.exponent + size.bits() as i64)
    }

    pub(super) fn neg(&self) -> Ball {
        Ball { middle: -&self.middle, ..self.clone() }
    }

    pub(super) fn add(&self, other: &Ball) -> Ball {
        let precision = self.precision.max(other.precision);
        if !self.is_bounded() || !other.is_bounded() {
            return Ball::unbounded(precision);
        }
        if self.is_exactly_zero() || other.is_exactly_zero() {
            return if self.is_exactly_zero() { other.at(precision) } else { self.at(precision) };
        }
        let (high, low) = if self.exponent >= other.exponent { (self, other) } else { (other, self) };
        let apart = (high.exponent - low.exponent) as u64;
        // What lies further below than this only adds to the error.
        let up = apart.min(u64::from(precision) + RADIUS_BITS + 2);
        let down = apart - up;
        let cut = low.middle.trailing_zeros().is_some_and(|zeros| zeros < down);
        let radius_cut = down > 0 && low.radius > 0;
        let radius = (BigUint::from(high.radius) << up)
            + low.radius.checked_shr(down.min(64) as u32).unwrap_or(0)
            + u32::from(cut)
            + u32::from(radius_cut);
        let middle = (&high.middle << up) + (&low.middle >> down);
        Ball::new(middle, radius, high.exponent - up as i64, precision)
    }

    pub(super) fn sub(&self, other: &Ball) -> Ball {
        self.add(&other.neg())
    }

    pub(super) fn mul(&self, other: &Ball) -> Ball {
        let precision = self.precision.max(other.precision);
        if self.is_exactly_zero() || other.is_exactly_zero() {
            return Ball::from_int(0, precision);
        }
        if !self.is_bounded() || !other.is_bounded() {
            return Ball::unbounded(precision);
        }
        let mut radius = BigUint::ZERO;
        if self.radius > 0 {
            radius += other.middle.magnitude() * self.radius;
        }
        if other.radius > 0 {
            radius += (self.middle.magnitude() + self.radius) * other.radius;
        }
        Ball::new(&self.middle * &other.middle, radius, self.exponent + other.exponent, precision)
    }

    /// `None` where it may be a division by zero.
    pub(super) fn recip(&self) -> Option<Ball> {
        Ball::new(BigInt::one(), BigUint::ZERO, 0, self.precision).div(self)
    }

    /// `None` where `other` may be zero.
    pub(super) fn div(&self, other: &Ball) -> Option<Ball> {
        if other.contains_zero() {
            return None;
        }
        let precision = self.precision.max(other.precision);
        if !self.is_bounded() {
            return Some(Ball::unbounded(precision));
        }
        let shift = (u64::from(precision) + 2 + other.middle.bits()).saturating_sub(self.middle.bits());
        let (quotient, rest) = (&self.middle << shift).div_mod_floor(&other.middle);
        // For x = m ± r and y = n ± s, |x/y - m/n| ≤ (r + s·|m/n|) / (|n| - s).
        let mut radius = BigUint::from(u32::from(!rest.is_zero()));
        if self.radius > 0 || other.radius > 0 {
            let error = (BigUint::from(self.radius) << shift) + (quotient.magnitude() + 1u32) * other.radius;
            radius += error / (other.middle.magnitude() - other.radius) + 1u32;
        }
        Some(Ball::new(quotient, radius, self.exponent - other.exponent - shift as i64, precision))
    }

    /// A whole power; 0⁰ is 1. `None` where it may be a division by zero, or where the result is too large.
    pub(super) fn pow_int(&self, power: i64) -> Option<Ball> {
        let size = power.unsigned_abs();
        // An error grows by as much as the power.
        let base = self.at(self.precision + 64 - size.leading_zeros());
        let mut result = Ball::new(BigInt::one(), BigUint::ZERO, 0, base.precision);
        for bit in (0..64 - size.leading_zeros()).rev() {
            result = result.mul(&result);
            if size >> bit & 1 == 1 {
                result = result.mul(&base);
            }
        }
        if power < 0 {
            result = result.recip()?;
        }
        result.is_bounded().then(|| result.at(self.precision))
    }

    /// The sign of the number, where it is certain.
    pub(super) fn sign(&self) -> Option<Ordering> {
        if self.is_exactly_zero() {
            return Some(Ordering::Equal);
        }
        let certain = self.is_bounded() && *self.middle.magnitude() > BigUint::from(self.radius);
        certain.then(|| if self.middle.is_negative() { Ordering::Less } else { Ordering::Greater })
    }

    pub(super) fn contains_zero(&self) -> bool {
        self.sign().is_none_or(|it| it == Ordering::Equal)
    }

    /// Whether the two numbers may be equal: `false` is a proof that they differ.
    pub(super) fn overlaps(&self, other: &Ball) -> bool {
        self.sub(other).contains_zero()
    }

    /// How many leading bits are certain: the error is at most `2^-bits` of the number. The precision, where it is exact.
    #[cfg(test)]
    pub(super) fn accuracy_bits(&self) -> u32 {
        match self.radius {
            0 => self.precision,
            UNBOUNDED => 0,
            // A middle of n bits is at least 2^(n-1), a radius of k bits below 2^k.
            radius => {
                let bits = (self.middle.bits() as u32).saturating_sub(1 + u64::BITS - radius.leading_zeros());
                bits.min(self.precision)
            }
        }
    }
}
