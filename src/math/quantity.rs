//! Quantities: a value, its unit, and whether it may have lost digits.

use std::cmp::Ordering;

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::One;

use super::enclose;
use super::equal::{Term, equal};
use super::judge::Judge;
use super::limits::{Meter, Reason};
use super::tree::{Expr, Operator};
use super::unit::Unit;
use super::value::Value;

/// Minimum significant digits of a decimal that may be a rounded value.
const MIN_SIGNIFICANT: usize = 4;

pub struct Quantity {
    pub value: Value,
    /// The expression that the value was computed from, if there is one.
    pub expr: Option<Expr>,
    pub unit: Option<Unit>,
    /// It is followed by a percent sign.
    pub percent: bool,
    /// The name, if it consists of a single symbol.
    pub symbol: Option<String>,
    pub rounding: DecimalPrecision,
    /// The x of `f(x) = x + c`, if it defines a function.
    pub argument: Option<String>,
}

/// Whether a number may have been rounded.
pub enum DecimalPrecision {
    /// No decimal occurs in it.
    Exact,
    /// It is one decimal, with half a unit of its last place.
    Decimal { half: BigRational, significant: usize },
    /// An expression that contains a decimal, which is taken as exact.
    Mixed,
}

impl DecimalPrecision {
    /// That of the number times a factor.
    pub fn scale(&mut self, factor: u32) {
        if let DecimalPrecision::Decimal { half, .. } = self {
            *half *= BigInt::from(factor);
        }
    }
}

impl Quantity {
    pub fn of(expr: &Expr, meter: &mut Meter) -> Result<Quantity, Reason> {
        let value = Value::of(expr, meter)?;
        let simple = value.as_rational().is_some();
        Ok(Quantity {
            expr: (!simple).then(|| expr.clone()),
            value,
            unit: None,
            percent: is_percent(expr),
            symbol: if let Expr::Symbol(name) = expr { Some(name.clone()) } else { None },
            rounding: rounding(expr),
            argument: None,
        })
    }

    pub fn exact(value: Value) -> Quantity {
        Quantity {
            value,
            expr: None,
            unit: None,
            percent: false,
            symbol: None,
            rounding: DecimalPrecision::Exact,
            argument: None,
        }
    }

    /// The quantity with other names for symbols of its expression.
    pub fn renamed(&self, names: &[(&str, &str)], meter: &mut Meter) -> Result<Option<Quantity>, Reason> {
        let Some(mut expr) = self.expr.clone() else { return Ok(None) };
        for (from, to) in names {
            expr = expr.renamed(from, to);
        }
        Ok(Some(Quantity { unit: self.unit.clone(), argument: self.argument.clone(), ..Quantity::of(&expr, meter)? }))
    }

    fn term(&self) -> Term<'_> {
        Term { value: &self.value, expr: self.expr.as_ref() }
    }
}

pub fn same(gold: &Quantity, answer: &Quantity, judge: &mut Judge) -> Result<bool, Reason> {
    // One of them writes unit vectors as plain letters.
    let axes = [gold.has_axes(), answer.has_axes()];
    if axes[0] != axes[1] {
        let (one, other) = if axes[0] { (gold, answer) } else { (answer, gold) };
        if let Some(plain) = one.renamed(&Quantity::AXES, judge.meter)? {
            return same_written(&plain, other, axes[1], judge);
        }
    }
    same_written(gold, answer, false, judge)
}

/// `swapped` if the first is the answer.
fn same_written(gold: &Quantity, answer: &Quantity, swapped: bool, judge: &mut Judge) -> Result<bool, Reason> {
    let (gold, answer) = if swapped { (answer, gold) } else { (gold, answer) };
    if let (Some(one), Some(other)) = (&gold.symbol, &answer.symbol) {
        return Ok(judge.because("names", one.eq_ignore_ascii_case(other)));
    }
    let (Some(one), Some(other)) = (&gold.unit, &answer.unit) else {
        // A unit may be omitted, but a percent sign in its place shows that there is none.
        let unit = gold.unit.as_ref().or(answer.unit.as_ref()).filter(|_| gold.percent != answer.percent);
        return match unit {
            Some(unit) if unit.is_known() => Ok(judge.because("a unit and a percent sign", false)),
            Some(_) if same_value(gold, answer, judge)? => Err("words that may be a unit, and a percent sign".into()),
            Some(_) => Ok(false),
            None => match (&gold.unit, &answer.unit) {
                // Words of an answer, and few of a gold answer, may change the number that they follow.
                (None, Some(unit)) if unit.doubtful && same_value(gold, answer, judge)? => {
                    Err("words that may change the number".into())
                }
                (Some(unit), None) if unit.changes_number() && same_value(gold, answer, judge)? => {
                    Err("words that may change the number of the gold answer".into())
                }
                _ => same_value(gold, answer, judge),
            },
        };
    };
    if one == other {
        return same_value(gold, answer, judge);
    }
    if !one.is_known() || !other.is_known() {
        if !same_value(gold, answer, judge)? {
            return Ok(false);
        }
        if one.unknown.starts_with("mod") || other.unknown.starts_with("mod") {
            return Ok(judge.because("a different modulus", false));
        }
        return Err("units that are not known to be equal".into());
    }
    let angle =
        one.is_angle("degree") && other.is_angle("radian") || one.is_angle("radian") && other.is_angle("degree");
    if !angle && !one.is_like(other) {
        return Ok(judge.because("different units", false));
    }
    let converted = |quantity: &Quantity, unit: &Unit, judge: &mut Judge| -> Result<Value, Reason> {
        let value = quantity.value.times(&Value::rational(unit.factor.clone()), judge.meter)?;
        if !angle || unit.is_angle("degree") {
            return Ok(value);
        }
        let half_turn = Value::symbol("\\pi").inverse(judge.meter)?;
        value.times(&half_turn, judge.meter)?.times(&Value::integer(180), judge.meter)
    };
    let (one, other) = (converted(gold, one, judge)?, converted(answer, other, judge)?);
    let found = equal(Term { value: &one, expr: None }, Term { value: &other, expr: None }, judge.meter)?;
    Ok(judge.because(if found.0 { "equal after converting units" } else { "differs after converting units" }, found.0))
}

fn same_value(one: &Quantity, other: &Quantity, judge: &mut Judge) -> Result<bool, Reason> {
    let rounded = match (&one.rounding, &other.rounding) {
        (DecimalPrecision::Decimal { .. }, DecimalPrecision::Exact) => Some((one, other)),
        (DecimalPrecision::Exact, DecimalPrecision::Decimal { .. }) => Some((other, one)),
        _ => None,
    };
    if let Some((decimal, exact)) = rounded {
        let same = match (decimal.value.as_rational(), exact.value.as_rational()) {
            (Some(one), Some(other)) => one == other,
            _ => false,
        };
        if same {
            return Ok(judge.because("equal rationals", true));
        }
        return rounds_to(decimal, exact, MIN_SIGNIFICANT, judge.meter).map(|right| {
            judge.because(
                if right { "the decimal rounds the exact value" } else { "the decimal is not the exact value rounded" },
                right,
            )
        });
    }
    let (same, rule) = equal(one.term(), other.term(), judge.meter)?;
    Ok(judge.because(rule, same))
}

/// Whether `exact`, rounded to the places of `decimal`, is `decimal`.
///
/// Half of the last place counts in both directions. An integer is never a rounded value: all of its digits are
/// written.
pub fn rounds_to(decimal: &Quantity, exact: &Quantity, digits: usize, meter: &mut Meter) -> Result<bool, Reason> {
    let DecimalPrecision::Decimal { half, significant } = &decimal.rounding else { return Ok(false) };
    let Some(number) = decimal.value.as_rational() else { return Ok(false) };
    let value = exact.value.as_rational();
    if value.as_ref() == Some(&number) {
        return Ok(true);
    }
    if value.as_ref().is_some_and(BigRational::is_integer)
        || *significant < digits
        || !(exact.value.is_constant() && exact.value.is_real_symbolic())
    {
        return Ok(false);
    }
    if let Some(value) = value {
        return Ok(num_traits::Signed::abs(&(number - value)) <= *half);
    }
    // No irrational number is exactly on the border.
    for border in [&number - half, &number + half] {
        let above = border > number;
        let difference = exact.value.minus(&Value::rational(border), meter)?;
        let sign = match difference.as_rational() {
            Some(_) => None,
            None => enclose::sign(&difference, meter)?,
        };
        match sign {
            None => return Err("a value that cannot be compared with a decimal".into()),
            Some(Ordering::Greater) if above => return Ok(false),
            Some(Ordering::Less) if !above => return Ok(false),
            _ => {}
        }
    }
    Ok(true)
}

fn is_percent(expr: &Expr) -> bool {
    match expr {
        Expr::Percent(_) => true,
        Expr::Negative(inner) => is_percent(inner),
        _ => false,
    }
}

fn rounding(expr: &Expr) -> DecimalPrecision {
    match (lone_decimal(expr), expr.any(&|it| matches!(it, Expr::Number(literal) if literal.decimal))) {
        (Some((half, significant)), _) => DecimalPrecision::Decimal { half, significant },
        (None, true) => DecimalPrecision::Mixed,
        (None, false) => DecimalPrecision::Exact,
    }
}

/// Half a unit in the last place, and the significant digits, of a number like `-0.25`, `12.5\%` or `6.02 \times
/// 10^{23}`.
fn lone_decimal(expr: &Expr) -> Option<(BigRational, usize)> {
    match expr {
        Expr::Number(literal) if literal.decimal => {
            Some((power_of_ten(literal.last_place)? / BigInt::from(2), literal.significant()))
        }
        Expr::Negative(inner) => lone_decimal(inner),
        Expr::Percent(inner) => lone_decimal(inner).map(|(half, significant)| (half / BigInt::from(100), significant)),
        Expr::Binary(Operator::Multiply, left, right) => {
            let (half, significant) = lone_decimal(left)?;
            let Expr::Binary(Operator::Power, base, exponent) = &**right else { return None };
            let exponent = match &**exponent {
                Expr::Negative(size) => -small_integer(size)?,
                size => small_integer(size)?,
            };
            (small_integer(base)? == 10).then_some((half * power_of_ten(exponent)?, significant))
        }
        _ => None,
    }
}

fn small_integer(expr: &Expr) -> Option<i32> {
    match expr {
        Expr::Number(literal) if literal.is_integer() => i32::try_from(&literal.digits).ok(),
        _ => None,
    }
}

fn power_of_ten(exponent: i32) -> Option<BigRational> {
    let size = BigInt::from(10).pow(exponent.unsigned_abs().min(1_000));
    match exponent {
        -1_000..0 => Some(BigRational::new_raw(BigInt::one(), size)),
        0..=1_000 => Some(BigRational::from_integer(size)),
        _ => None,
    }
}
