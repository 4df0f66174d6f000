//! Elementary functions on fixed-point numbers: the integer `x` at `w` bits is the real `x / 2^w`, and an *ulp* is
//! `2^-w`.
//!
//! The caller reduces arguments. The comment of each function gives its maximum error and the reason. Floors only make
//! a positive number smaller, so most errors have the same sign.

use std::sync::OnceLock;

use num_bigint::BigInt;
use num_traits::{One, ToPrimitive, Zero};

/// Bits of the stored constants: the maximum precision, the bits that reduce a large argument, and some extra bits.
const CONSTANT_BITS: u32 = 4_608;

/// Up to this precision a starting value is computed with machine integers.
const NATIVE_BITS: u32 = 54;
/// Extra bits of such a starting value.
const NATIVE_EXTRA: u32 = 8;

/// π at `w` bits, less than 2 ulps too small.
pub(super) fn pi(w: u32) -> BigInt {
    static PI: OnceLock<BigInt> = OnceLock::new();
    // Machin: π = 16 atan 1/5 - 4 atan 1/239.
    constant(&PI, w, |v| (inverse_series(5, true, v) << 4) - (inverse_series(239, true, v) << 2))
}

/// ln 2 at `w` bits, less than 2 ulps too small.
pub(super) fn ln2(w: u32) -> BigInt {
    static LN2: OnceLock<BigInt> = OnceLock::new();
    // 2 = (8/6)² · 18/16, and ln (n+1)/(n-1) = 2 atanh 1/n.
    constant(&LN2, w, |v| (inverse_series(7, false, v) << 2) + (inverse_series(17, false, v) << 1))
}

/// Computed once, at full length. The series have at most 1,000 terms, each less than 1 off and multiplied by at most
/// 16, so 32 extra bits leave less than one ulp of error; the other ulp is from the shift.
fn constant(cell: &OnceLock<BigInt>, w: u32, series: fn(u32) -> BigInt) -> BigInt {
    assert!(w <= CONSTANT_BITS, "a constant was requested with {w} bits");
    let full = cell.get_or_init(|| (series(CONSTANT_BITS + 32) >> 32) - 1);
    full >> (CONSTANT_BITS - w)
}

/// `Σ ±1/((2k+1)·n^(2k+1))`: the arc tangent of `1/n` if signs alternate, else the inverse hyperbolic tangent.
fn inverse_series(n: u32, alternate: bool, w: u32) -> BigInt {
    let mut power = (BigInt::one() << w) / n;
    let mut sum = BigInt::ZERO;
    let mut odd = 1u32;
    while !power.is_zero() {
        let term = &power / odd;
        if alternate && odd % 4 == 3 {
            sum -= term
        } else {
            sum += term
        }
        power /= n * n;
        odd += 2;
    }
    sum
}

/// How many times an argument is halved before its series: as many halvings as they save terms.
fn halvings(w: u32) -> u32 {
    w.isqrt() * 3 / 4 + 2
}

/// The terms `t^k/k!` for 0 ≤ t ≤ 1/2, summed by `k` modulo 4.
///
/// A term is less than 2 too small: one floor after the product, one after the quotient, and the error of the previous
/// term is multiplied by `t/k`. The series ends when a term is 0; the rest of it is below 2. So over `n` terms all
/// four sums together are less than `2n + 2` ulps too small.
fn taylor(t: &BigInt, w: u32) -> [BigInt; 4] {
    let mut sums = [const { BigInt::ZERO }; 4];
    let mut term = BigInt::one() << w;
    let mut k = 0u32;
    while !term.is_zero() {
        sums[k as usize % 4] += &term;
        k += 1;
        term *= t;
        term >>= w;
        term /= k;
    }
    debug_assert!(k < 700, "the bounds in this file hold for fewer terms");
    sums
}

/// `e^t` for 0 ≤ t < 1, less than 2 ulps too small.
///
/// `j` squarings multiply an error by the product of `2·e^(t/2^i)`, below `e·2^j`, and their floors add at most `e·2^j`
/// more. With `2n + 3` ulps from the series and `j + 12` extra bits, this is below 1 ulp.
pub(super) fn exp(t: &BigInt, w: u32) -> BigInt {
    let j = halvings(w);
    let v = w + j + 12;
    // `t / 2^j` at `v` bits.
    let mut y: BigInt = taylor(&(t << 12), v).iter().sum();
    for _ in 0..j {
        y = (&y * &y) >> v;
    }
    y >> (v - w)
}

/// Sine and cosine of 0 ≤ t < 2, each less than 2 ulps off.
///
/// Angles are doubled by squaring `cos + i sin`, a number of size 1, which doubles its error, and two floors add 2. So
/// `j` doublings turn the series' `2n + 2` ulps into at most `2^j·(2n + 5)`; with `j + 13` extra bits this is below 1
/// ulp.
pub(super) fn sin_cos(t: &BigInt, w: u32) -> (BigInt, BigInt) {
    let j = halvings(w);
    let v = w + j + 13;
    let [one, sin, minus_one, minus_sin] = taylor(&(t << 13), v);
    let (mut sin, mut cos) = (sin - minus_sin, one - minus_one);
    for _ in 0..j {
        let doubled = (&sin * &cos) >> (v - 1);
        cos = ((&cos + &sin) * (&cos - &sin)) >> v;
        sin = doubled;
    }
    (sin >> (v - w), cos >> (v - w))
}

/// The precision of the starting value from which one step of third order reaches `w` bits: an error of 9 ulps at that
/// precision is less than a quarter of an ulp at `w` bits.
fn third(w: u32) -> u32 {
    w / 3 + 4
}

/// `ln y` for 1 ≤ y < 2, less than 8 ulps off.
///
/// With `z` close to `ln y`, `ln y = z + 2 atanh u` for `u = (y - e^z)/(y + e^z)`, and all later terms of the series
/// after `2u` are too small to matter. `e^z` adds 2 ulps and the floor of `u` 2 more; `z` is off by 8 of its ulps, and
/// by one more because `y` is truncated for it.
pub(super) fn ln(y: &BigInt, w: u32) -> BigInt {
    if w <= NATIVE_BITS {
        return native_ln(y, w);
    }
    let h = third(w);
    let z = (ln(&(y >> (w - h)), h) << (w - h)).max(BigInt::ZERO);
    let power = exp(&z, w);
    let u = ((y - &power) << w) / (y + power);
    z + (u << 1)
}

/// The arc tangent of 0 ≤ x ≤ 1, less than 8 ulps off.
///
/// With `z` close to `atan x`, `atan x = z + atan u` for `u = (x cos z - sin z)/(cos z + x sin z)`, and all terms of
/// the series after `u` are too small to matter. Sine and cosine add at most 3 ulps, the floors 2.
pub(super) fn atan(x: &BigInt, w: u32) -> BigInt {
    if w <= NATIVE_BITS {
        return native_atan(x, w);
    }
    let h = third(w);
    let z = (atan(&(x >> (w - h)), h) << (w - h)).max(BigInt::ZERO);
    let (sin, cos) = sin_cos(&z, w);
    let (over, under) = (x * &cos - (&sin << w), (cos << w) + x * sin);
    z + (over << w) / under
}

/// `2 atanh t` for `t = (y-1)/(y+1) ≤ 1/3`: at most 20 terms, each less than 3 off.
fn native_ln(y: &BigInt, w: u32) -> BigInt {
    let v = w + NATIVE_EXTRA;
    let (one, y) = (1u128 << v, native(y) << NATIVE_EXTRA);
    let t = ((y - one) << v) / (y + one);
    let square = (t * t) >> v;
    let (mut sum, mut power, mut odd) = (0, t, 1);
    while power > 0 {
        sum += power / odd;
        power = (power * square) >> v;
        odd += 2;
    }
    BigInt::from((2 * sum) >> NATIVE_EXTRA)
}

/// Euler's series `Σ x/(1+x²) · Π 2n/(2n+1) · x²/(1+x²)`: at most 64 terms, because each is less than half of the
/// previous one; each is less than 6 off.
fn native_atan(x: &BigInt, w: u32) -> BigInt {
    let v = w + NATIVE_EXTRA;
    let x = native(x) << NATIVE_EXTRA;
    let square = (x * x) >> v;
    let under = (1u128 << v) + square;
    let ratio = (square << v) / under;
    let (mut sum, mut term, mut n) = (0, (x << v) / under, 0);
    while term > 0 {
        sum += term;
        n += 1;
        term = ((term * ratio) >> v) * (2 * n) / (2 * n + 1);
    }
    BigInt::from(sum >> NATIVE_EXTRA)
}

fn native(x: &BigInt) -> u128 {
    x.to_u128().expect("a reduced argument is short and not negative")
}
