//! Elementary functions of balls: reduce the argument, call [`fixed`], and add up the errors.

use std::cmp::Ordering;

use num_bigint::{BigInt, BigUint};
use num_integer::Integer;
use num_traits::{One, Signed, ToPrimitive, Zero};

use super::{Ball, MAX_PRECISION, MIN_PRECISION, fixed};

/// Extra bits with which a result is computed.
const GUARD: u32 = 20;
/// Exponentials and sines are computed for numbers below this power of two.
const MAX_ARGUMENT: i64 = 40;
/// Roots with these indices are integer roots, which are exact if possible; others use the logarithm.
const INTEGER_ROOTS: [u32; 4] = [2, 3, 5, 7];

impl Ball {
    pub(in crate::math) fn pi(precision: u32) -> Ball {
        Ball::pi_at(precision.clamp(MIN_PRECISION, MAX_PRECISION))
    }

    pub(in crate::math) fn e(precision: u32) -> Ball {
        Ball::from_int(1, precision).exp().expect("1 is not huge")
    }

    fn pi_at(precision: u32) -> Ball {
        let w = precision + GUARD;
        Ball::new(fixed::pi(w), 2u32.into(), -i64::from(w), precision)
    }

    /// The real `n`-th root: for an odd index, that of a negative number is negative. `None` if the sign is not
    /// certain, or negative with an even index, and for `n = 0`.
    pub(in crate::math) fn nth_root(&self, n: u32) -> Option<Ball> {
        match self.sign()? {
            _ if n == 0 => None,
            Ordering::Equal => Some(self.clone()),
            Ordering::Less if n % 2 == 1 => Some(self.neg().nth_root(n)?.neg()),
            Ordering::Less => None,
            Ordering::Greater => {
                let (mut root, mut left) = (self.at(self.precision + GUARD), n);
                for prime in INTEGER_ROOTS {
                    while left % prime == 0 {
                        root = root.integer_root(prime);
                        left /= prime;
                    }
                }
                if left > 1 {
                    root = root.ln()?.div(&Ball::from_int(left, root.precision))?.exp()?;
                }
                Some(root.at(self.precision))
            }
        }
    }

    /// The root of a positive number.
    fn integer_root(&self, n: u32) -> Ball {
        let wanted = u64::from(n) * (u64::from(self.precision) + 2);
        let mut shift = wanted.saturating_sub(self.middle.bits()) as i64;
        shift += (self.exponent - shift).rem_euclid(n.into());
        let power = self.middle.magnitude() << shift;
        let root = power.nth_root(n);
        let mut radius = BigUint::from(u32::from(root.pow(n) != power));
        if self.radius > 0 {
            // The relative error does not increase: 1 - (1-u)^(1/n) ≤ u for 0 ≤ u ≤ 1.
            radius += (&root + 1u32) * self.radius / self.middle.magnitude() + 1u32;
        }
        Ball::new(root.into(), radius, (self.exponent - shift) / i64::from(n), self.precision)
    }

    /// `None` for huge arguments, and if the error is so large that the result would not have a single certain digit.
    pub(in crate::math) fn exp(&self) -> Option<Ball> {
        let top = self.top()?;
        let w = self.precision + GUARD;
        if top > MAX_ARGUMENT || self.radius_at(w).bits() > w.into() {
            return None;
        }
        // x = k·ln 2 + t. Errors of t: the floor of x, 2 ulps for each of the at most 1.5·2^top + 1 logarithms, and the
        // truncation to `w` bits; 3 ulps of `w` in total.
        let v = w + top.max(0) as u32 + 3;
        let (k, t) = self.middle_at(v).div_mod_floor(&fixed::ln2(v));
        let y = fixed::exp(&(t >> (v - w)), w);
        // 3 ulps of t are at most 6 of its exponential, which itself adds 2.
        let mut radius = BigUint::from(9u32);
        if self.radius > 0 {
            // e^d - 1 ≤ 2d for 0 ≤ d ≤ 1.
            radius += (((y.magnitude() + 9u32) * self.radius_at(w)) >> (w - 1)) + 1u32;
        }
        Some(Ball::new(y, radius, k.to_i64()? - i64::from(w), self.precision))
    }

    /// `None` unless the number is certainly positive.
    pub(in crate::math) fn ln(&self) -> Option<Ball> {
        if self.sign()? != Ordering::Greater {
            return None;
        }
        // x = 2^k·y with 1 ≤ y < 2. Above 3/2 it is 2^(k+1) divided by 2/y, so that k = 0 for numbers close to 1.
        let bits = self.middle.bits();
        let one = BigInt::one() << (bits - 1);
        let inverted = bits > 1 && self.middle.bit(bits - 2);
        let k = self.exponent + bits as i64 - 1 + i64::from(inverted);
        if k == 0 && self.middle == one && self.radius == 0 {
            return Some(Ball::from_int(0, self.precision));
        }
        // The logarithm of a number close to 1 starts after as many zeros as its difference from 1.
        let difference = if inverted { (&one << 1u32) - &self.middle } else { &self.middle - &one };
        let lift = if k == 0 { bits - difference.bits() } else { 0 };
        let w = self.precision + GUARD + lift as u32;
        let mut y = &self.middle << (u64::from(w) + 1 - bits);
        if inverted {
            y = (BigInt::one() << (2 * w + 1)) / y;
        }
        let ln = fixed::ln(&y, w);
        let mut sum = if inverted { -ln } else { ln };
        if k != 0 {
            let v = k.unsigned_abs().ilog2() + 1;
            sum += (fixed::ln2(w + v) * k) >> v;
        }
        // 8 ulps of the logarithm, 1 of the inverse, 3 of the multiple of ln 2.
        let mut radius = BigUint::from(12u32);
        if self.radius > 0 {
            // |ln(1 ± u)| ≤ u/(1-u) for the relative error u.
            radius += (BigUint::from(self.radius) << w) / (self.middle.magnitude() - self.radius) + 1u32;
        }
        Some(Ball::new(sum, radius, -i64::from(w), self.precision))
    }

    /// `None` for huge arguments.
    pub(in crate::math) fn sin(&self) -> Option<Ball> {
        Some(self.sin_cos()?.0)
    }

    /// `None` for huge arguments.
    pub(in crate::math) fn cos(&self) -> Option<Ball> {
        Some(self.sin_cos()?.1)
    }

    fn sin_cos(&self) -> Option<(Ball, Ball)> {
        let top = self.top()?;
        if top > MAX_ARGUMENT {
            return None;
        }
        let w = self.precision + GUARD + self.leading_zeros();
        // |x| = q·π/2 + t. Errors of t: the floor of x, 2 ulps for each of the at most 0.7·2^top + 1 quarter turns, and
        // the truncation to `w` bits; 3 ulps of `w` in total. Sine and cosine add 2.
        let v = w + top.max(0) as u32 + 2;
        // π with one bit less is π/2.
        let x = self.middle_at(v).abs();
        let (q, t) = if top > 0 { x.div_mod_floor(&fixed::pi(v - 1)) } else { (BigInt::ZERO, x) };
        let (sin, cos) = fixed::sin_cos(&(t >> (v - w)), w);
        let (sin, cos) = match (q % 4u32).to_u32()? {
            0 => (sin, cos),
            1 => (cos, -sin),
            2 => (-sin, -cos),
            _ => (-cos, sin),
        };
        let sin = if self.middle.is_negative() { -sin } else { sin };
        // The slope of both is at most 1.
        let [sin, cos] = [sin, cos].map(|it| Ball::new(it, self.radius_at(w) + 5u32, -i64::from(w), self.precision));
        Some((if self.is_tiny() { self.nudged() } else { sin }, cos))
    }

    pub(in crate::math) fn atan(&self) -> Ball {
        if self.middle.is_negative() {
            return self.neg().atan().neg();
        }
        let top = self.exponent + self.middle.bits() as i64;
        let is_one = top == 1 && self.middle.trailing_zeros() == Some(self.middle.bits() - 1);
        if top > 0
            && !is_one
            && let Some(inverse) = self.recip()
        {
            return Ball::pi_at(self.precision).scaled(-1).sub(&inverse.atan());
        }
        if self.top().is_none_or(|it| it > 2) {
            // An arc tangent is always between -2 and 2.
            return Ball::new(BigInt::ZERO, 2u32.into(), 0, self.precision);
        }
        if self.is_tiny() {
            return self.nudged();
        }
        let w = self.precision + GUARD + self.leading_zeros();
        let atan = fixed::atan(&self.middle_at(w), w);
        // One ulp for the floor of x, 8 for the arc tangent, whose slope is at most 1.
        Ball::new(atan, self.radius_at(w) + 9u32, -i64::from(w), self.precision)
    }

    /// `None` unless the number is certainly between -1 and 1.
    pub(in crate::math) fn asin(&self) -> Option<Ball> {
        let x = self.at(self.precision + GUARD);
        let one = Ball::new(BigInt::one(), BigUint::ZERO, 0, x.precision);
        // asin x = 2 atan (x / (1 + √(1 - x²))).
        let root = one.sub(&x).mul(&one.add(&x)).nth_root(2)?;
        Some(x.div(&one.add(&root))?.atan().scaled(1).at(self.precision))
    }

    /// `None` unless the number is certainly between -1 and 1.
    pub(in crate::math) fn acos(&self) -> Option<Ball> {
        let x = self.at(self.precision + GUARD);
        let one = Ball::new(BigInt::one(), BigUint::ZERO, 0, x.precision);
        if x.add(&one).is_exactly_zero() {
            return Some(Ball::pi_at(self.precision));
        }
        // acos x = 2 atan √((1 - x)/(1 + x)).
        let root = one.sub(&x).div(&one.add(&x))?.nth_root(2)?;
        Some(root.atan().scaled(1).at(self.precision))
    }

    /// Whether sine and arc tangent differ from their argument by less than its precision.
    fn is_tiny(&self) -> bool {
        self.middle.is_zero() || self.exponent + (self.middle.bits() as i64) < -i64::from(self.precision)
    }

    /// The ball with one more unit of its last bit at full precision, for `f(x)` with `|f(x) - x| ≤ |x|³` and a tiny x.
    fn nudged(&self) -> Ball {
        let shift = u64::from(self.precision).saturating_sub(self.middle.bits());
        let radius = (BigUint::from(self.radius) << shift) + u32::from(!self.middle.is_zero());
        Ball::new(&self.middle << shift, radius, self.exponent - shift as i64, self.precision)
    }

    /// Zeros after the point, up to the number by which raising the precision is worthwhile.
    fn leading_zeros(&self) -> u32 {
        (-(self.exponent + self.middle.bits() as i64)).clamp(0, self.precision.into()) as u32
    }

    /// The middle as a fixed-point number, floored.
    fn middle_at(&self, w: u32) -> BigInt {
        match self.exponent + i64::from(w) {
            up @ 0.. => &self.middle << up,
            down => &self.middle >> -down,
        }
    }

    /// The radius in units of `2^-w`, rounded up.
    fn radius_at(&self, w: u32) -> BigUint {
        match self.exponent + i64::from(w) {
            up @ 0.. => BigUint::from(self.radius) << up,
            down => (BigUint::from(self.radius) >> -down) + u32::from(self.radius > 0),
        }
    }
}
