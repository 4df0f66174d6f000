//! Decides whether two values are equal, and by which rule.
//!
//! Equal canonical forms are equal values. If only roots of rationals, symbols, π and `i` occur, different forms are
//! different values. The remaining cases are constants with nested roots or functions, and expressions in symbols with
//! them:
//!
//! - Constants are enclosed in balls. Disjoint balls prove a difference. If they still overlap at a thousand bits, a
//!   bound on how close to zero a nonzero algebraic number can be may prove equality ([`separation`]). Without such a
//!   bound, as for logarithms, agreement to a thousand bits counts as equality for numbers that are short to write.
//! - Expressions in symbols are evaluated at points chosen by [`crate::rng`], in exact arithmetic and then in balls.
//!   One point at which they differ proves the difference; agreement at all points where both are defined, at least three (to
//!   a few hundred bits), counts as equality. If they agree at positive points and differ at others (`\sqrt{x^2}` and `x`),
//!   it is not known which points are meant, so the verdict is undecided.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Signed};

use super::enclose::{PRECISIONS, enclose};
use super::limits::{Meter, Reason};
use super::tree::Expr;
use super::value::{Base, Sum, Value};
use crate::rng::{Purpose, Stream};

/// The result, and the rule that shows it.
pub type Finding = (bool, &'static str);

/// Maximum bits of all numbers in a difference for which agreement to a thousand bits counts as equality.
const MAX_HEIGHT: u64 = 400;
/// Maximum bits at which an algebraic number is still distinguished from zero.
const MAX_SEPARATION: u64 = 4_000;
/// Minimum number of points at which two expressions must agree.
const MIN_POINTS: usize = 3;
/// Rounds in which all symbols are positive; they come first.
const POSITIVE: u64 = 10;

/// A value, and the expression that it comes from.
#[derive(Clone, Copy)]
pub struct Term<'a> {
    pub value: &'a Value,
    pub expr: Option<&'a Expr>,
}

pub fn equal(one: Term, other: Term, meter: &mut Meter) -> Result<Finding, Reason> {
    let (a, b) = (one.value, other.value);
    let rational = a.as_rational().is_some() && b.as_rational().is_some();
    if a.equals(b, meter)? {
        return Ok((true, if rational { "equal rationals" } else { "the same canonical form" }));
    }
    if rational {
        return Ok((false, "rationals differ"));
    }
    if a.is_canonical() && b.is_canonical() {
        return Ok((false, "canonical forms differ"));
    }
    if a.is_constant() && b.is_constant() {
        return constants(a, b, meter);
    }
    let known = |term: &Term| term.expr.is_some() || term.value.is_constant();
    if known(&one) && known(&other) {
        return probe(one, other, meter);
    }
    Err("different forms that may be equal".into())
}

fn constants(a: &Value, b: &Value, meter: &mut Meter) -> Result<Finding, Reason> {
    // Most numbers that differ do so in their first digits.
    if let (Some(one), Some(other)) = (enclose(a, PRECISIONS[0], meter)?, enclose(b, PRECISIONS[0], meter)?)
        && !one.overlaps(&other)
    {
        return Ok((false, "values differ"));
    }
    let difference =
        Value::from(a.over.times(&b.under, meter)?.plus(&b.over.times(&a.under, meter)?.negative(), meter)?);
    if is_zero(&difference, meter)? {
        let algebraic = difference.all_bases(&|base| is_algebraic(base));
        return Ok((true, if algebraic { "equal algebraic numbers" } else { "equal to a thousand bits" }));
    }
    Ok((false, "values differ"))
}

/// Whether a constant is zero, from balls and the separation bound.
fn is_zero(difference: &Value, meter: &mut Meter) -> Result<bool, Reason> {
    for precision in PRECISIONS {
        let number = enclose(difference, precision, meter)?.ok_or("a value that cannot be enclosed")?;
        if !number.contains_zero() {
            return Ok(false);
        }
    }
    match separation(&difference.over) {
        Some(bits) if bits <= u64::from(PRECISIONS[3]) - 64 => Ok(true),
        Some(bits) if bits <= MAX_SEPARATION - 64 => {
            let number = enclose(difference, bits as u32 + 64, meter)?.ok_or("a value that cannot be enclosed")?;
            Ok(number.contains_zero())
        }
        _ if difference.height() <= MAX_HEIGHT => Ok(true),
        // Written with such large numbers, it may be close to zero without being zero.
        _ if enclose(difference, MAX_SEPARATION as u32, meter)?.is_some_and(|it| !it.contains_zero()) => Ok(false),
        _ => Err("equal to a thousand bits, but not proven to be equal".into()),
    }
}

/// Bits after the point within which a sum of algebraic numbers must differ from zero, if it does.
///
/// A sum times the common denominator of its coefficients is an algebraic integer of some degree d, and none of its
/// conjugates exceeds the sum U of the terms' sizes. Because the product of all conjugates is an integer, it is zero or
/// at least U^(1-d). Twice a cosine of a rational multiple of π is an algebraic integer, and so is a root of a sum with
/// integer coefficients.
fn separation(sum: &Sum) -> Option<u64> {
    let mut bound = DegreeBound::default();
    let size = bound.sum(sum)?;
    Some(bound.denominator + (size + bound.denominator).checked_mul(bound.degree.checked_sub(1)?)?)
}

#[derive(Default)]
struct DegreeBound {
    degree: u64,
    /// Bits of the common denominator.
    denominator: u64,
    seen: Vec<(Base, i64)>,
}

impl DegreeBound {
    /// Bits of the largest conjugate.
    fn sum(&mut self, sum: &Sum) -> Option<u64> {
        self.degree = self.degree.max(1);
        let mut largest = 0;
        let mut denominators = BigInt::one();
        for (product, coefficient) in &sum.0 {
            denominators = num_integer::Integer::lcm(&denominators, coefficient.denom());
            let mut bits = coefficient.numer().bits();
            for (base, exponent) in product {
                bits += self.power(base, exponent)?;
            }
            largest = largest.max(bits);
        }
        self.denominator += denominators.bits();
        Some(largest + u64::from(usize::BITS - sum.0.len().leading_zeros()))
    }

    fn power(&mut self, base: &Base, exponent: &num_rational::Ratio<i64>) -> Option<u64> {
        if exponent.is_negative() {
            return None;
        }
        let index = *exponent.denom();
        let fresh = !self.seen.contains(&(base.clone(), index));
        if fresh {
            self.seen.push((base.clone(), index));
        }
        let size = exponent.ceil().to_integer() as u64;
        let (bits, degree) = match base {
            Base::Prime(prime) => (u64::from(64 - prime.leading_zeros()), 1),
            Base::Imaginary => (0, 2),
            Base::Radicand(inner) => {
                // A radicand has integer coefficients, so it adds nothing to the denominator.
                let denominator = self.denominator;
                let bits = self.sum(inner)?;
                if self.denominator != denominator + 1 {
                    return None;
                }
                self.denominator = denominator;
                (bits, 1)
            }
            Base::Call(super::function::Function::Cos, arguments) => {
                let angle = arguments[0].over.single()?;
                let degree = u64::try_from(angle.1.denom()).ok().filter(|it| *it <= 1_000)?;
                self.denominator += size;
                (0, degree)
            }
            _ => return None,
        };
        if fresh {
            self.degree = self.degree.checked_mul(degree)?.checked_mul(index as u64)?;
        }
        if self.degree > 10_000 { None } else { Some(bits * size) }
    }
}

fn is_algebraic(base: &Base) -> bool {
    match base {
        Base::Prime(_) | Base::Imaginary | Base::Radicand(_) => true,
        Base::Call(super::function::Function::Cos, arguments) => {
            // The remaining cosines have rational multiples of π, or symbols.
            arguments[0]
                .over
                .single()
                .is_some_and(|(product, _)| product.len() == 1 && product.contains_key(&Base::Symbol("\\pi".into())))
        }
        // Inside such a cosine.
        Base::Symbol(name) => name == "\\pi",
        _ => false,
    }
}

impl Value {
    /// Whether forms of this kind are equal only if they are identical.
    pub fn is_canonical(&self) -> bool {
        self.all_bases(&|base| matches!(base, Base::Prime(_) | Base::Imaginary | Base::Symbol(_)))
    }

    /// Bits of all its coefficients.
    fn height(&self) -> u64 {
        fn of_sum(sum: &Sum) -> u64 {
            let of_base = |base: &Base| match base {
                Base::Prime(_) | Base::Imaginary | Base::Symbol(_) => 1,
                Base::Radicand(inner) => of_sum(inner),
                Base::Power(base, exponent) => base.height() + exponent.height(),
                Base::Call(_, arguments) => arguments.iter().map(Value::height).sum(),
            };
            sum.0
                .iter()
                .map(|(product, it)| it.numer().bits() + it.denom().bits() + product.keys().map(of_base).sum::<u64>())
                .sum()
        }
        of_sum(&self.over) + of_sum(&self.under)
    }
}

/// The result at a point.
enum PointResult {
    Same,
    Different,
    Undefined,
}

fn probe(one: Term, other: Term, meter: &mut Meter) -> Result<Finding, Reason> {
    let (a, b) = (one.value, other.value);
    let mut symbols = a.symbols();
    symbols.extend(b.symbols());
    symbols.sort();
    symbols.dedup();
    if symbols.iter().any(|name| name == "\\infty" || name == "\\ldots") {
        return Err("different forms that may be equal".into());
    }
    let real = a.is_real_symbolic() && b.is_real_symbolic();
    // Positive fractions, integers, and numbers of either sign.
    let mut same = 0;
    for round in 0..POSITIVE + 4 {
        let stream = Stream::new(0, Purpose::Probe, &[round]);
        let point: Vec<(String, BigRational)> = symbols
            .iter()
            .enumerate()
            .map(|(index, name)| {
                let index = index as u64;
                let number = |low: i64, high: i64| low + stream.below(index, (high - low) as u64) as i64;
                let (over, under) = match round {
                    0 | 1 => (number(1, 40), 41),
                    2 | 3 => (number(11, 80), 7),
                    4 | 5 => (number(100, 900), 11),
                    6..=9 => (2 * number(1, 7) + (round + index) as i64 % 2, 1),
                    _ => (number(-60, 60) * 2 + 1, 13),
                };
                (name.clone(), BigRational::new(over.into(), under.into()))
            })
            .collect();
        let precisions = if same < MIN_POINTS { &PRECISIONS[..3] } else { &PRECISIONS[..1] };
        match at_point(one, other, &point, real, precisions, meter)? {
            PointResult::Undefined => {}
            PointResult::Same => same += 1,
            PointResult::Different if round >= POSITIVE && same >= MIN_POINTS => {
                return Err("equal only if the symbols are positive".into());
            }
            PointResult::Different => return Ok((false, "expressions differ at a point")),
        }
    }
    match same >= MIN_POINTS {
        true => Ok((true, "expressions agree at all points tried")),
        false => Err("expressions that could not be evaluated at enough points".into()),
    }
}

fn at_point(
    one: Term,
    other: Term,
    point: &[(String, BigRational)],
    real: bool,
    precisions: &[u32],
    meter: &mut Meter,
) -> Result<PointResult, Reason> {
    meter.charge(1_000)?;
    let mut at = |term: Term| match term.expr {
        Some(expr) => Value::at(expr, point, meter),
        None => Ok(term.value.clone()),
    };
    let (Ok(a), Ok(b)) = (at(one), at(other)) else {
        meter.refusal()?;
        return Ok(PointResult::Undefined);
    };
    if real && !(a.is_real_symbolic() && b.is_real_symbolic()) {
        return Ok(PointResult::Undefined);
    }
    if a.equals(&b, meter)? {
        return Ok(PointResult::Same);
    }
    if a.is_canonical() && b.is_canonical() {
        return Ok(PointResult::Different);
    }
    for precision in precisions {
        let (Some(one), Some(other)) = (enclose(&a, *precision, meter)?, enclose(&b, *precision, meter)?) else {
            return Ok(PointResult::Undefined);
        };
        if real && (one.im.is_some() || other.im.is_some()) {
            return Ok(PointResult::Undefined);
        }
        if !one.overlaps(&other) {
            return Ok(PointResult::Different);
        }
    }
    Ok(PointResult::Same)
}
