//! Two answers, read: are they the same?
//!
//! `Ok(true)` and `Ok(false)` are shown; `Err` tells why neither could be.

use num_rational::{BigRational, Ratio};
use num_traits::Signed;

use super::Verdict;
use super::form::{Claim, Form, Item, Quantity, Rounding};
use super::limits::{Meter, Reason};
use super::numeric::{approximate, indistinguishable, is_constant, resolution};
use super::token::Bracket;
use super::tree::Expr;
use super::unit;
use super::value::{Base, Sum, Value};

/// Least significant digits of a decimal that may stand for a value it only rounds.
const MIN_SIGNIFICANT: usize = 4;

pub fn compare(gold: &Form, answer: &Form) -> Result<bool, Reason> {
    if gold.letters.is_some() && gold.letters == answer.letters {
        return Ok(true);
    }
    unordered(&gold.items, &answer.items, &mut Meter::new())
}

impl From<Result<bool, Reason>> for Verdict {
    fn from(outcome: Result<bool, Reason>) -> Verdict {
        match outcome {
            Ok(true) => Verdict::Correct,
            Ok(false) => Verdict::Wrong,
            Err(reason) => Verdict::Undecided(reason),
        }
    }
}

/// Every item of `gold` has one of `answer`, and none is left.
fn unordered(gold: &[Claim], answer: &[Claim], meter: &mut Meter) -> Result<bool, Reason> {
    if gold.len() != answer.len() {
        return Ok(false);
    }
    let mut left: Vec<&Claim> = answer.iter().collect();
    for claim in gold {
        let mut doubt = None;
        let found = left.iter().position(|it| match same_claim(claim, it, meter) {
            Ok(same) => same,
            Err(reason) => {
                doubt = Some(reason);
                false
            }
        });
        match (found, doubt) {
            (Some(at), _) => drop(left.swap_remove(at)),
            (None, Some(reason)) => return Err(reason),
            (None, None) => return Ok(false),
        }
    }
    Ok(true)
}

fn ordered(gold: &[Claim], answer: &[Claim], meter: &mut Meter) -> Result<bool, Reason> {
    if gold.len() != answer.len() {
        return Ok(false);
    }
    let mut doubt = None;
    for (one, other) in gold.iter().zip(answer) {
        match same_claim(one, other, meter) {
            Ok(true) => {}
            // One difference is enough, whatever the doubt about another place.
            Ok(false) => return Ok(false),
            Err(reason) => doubt = Some(reason),
        }
    }
    doubt.map_or(Ok(true), Err)
}

fn same_claim(gold: &Claim, answer: &Claim, meter: &mut Meter) -> Result<bool, Reason> {
    match (gold, answer) {
        (Claim::Is { target: one, item: gold }, Claim::Is { target: other, item: answer }) => {
            // `y = 5` is not `x = 5`, while a bare 5 is either.
            if one.is_some() && other.is_some() && one != other {
                return Ok(false);
            }
            same_item(gold, answer, meter)
        }
        (Claim::False, _) | (_, Claim::False) => Ok(false),
        _ => match (as_equation(gold, meter)?, as_equation(answer, meter)?) {
            (Some(one), Some(other)) => proportional(&one, &other, meter),
            _ => Ok(false),
        },
    }
}

fn as_equation(claim: &Claim, meter: &mut Meter) -> Result<Option<Value>, Reason> {
    match claim {
        Claim::Equation(difference) => Ok(Some(difference.clone())),
        Claim::Is { target: Some(name), item: Item::Quantity(quantity) } => {
            let symbol = Value::of(&Expr::Symbol(name.clone()), meter)?;
            Ok(Some(symbol.plus(&quantity.value.clone().negative(), meter)?))
        }
        _ => Ok(None),
    }
}

/// Whether two equations say the same because one is a multiple of the other.
fn proportional(one: &Value, other: &Value, meter: &mut Meter) -> Result<bool, Reason> {
    let (one, other) = (one.over.content(meter)?.1, other.over.content(meter)?.1);
    if one == other || one == other.clone().negative() {
        return Ok(true);
    }
    if one.is_polynomial() && other.is_polynomial() { Ok(false) } else { Err("equations of different form".into()) }
}

pub fn same_item(gold: &Item, answer: &Item, meter: &mut Meter) -> Result<bool, Reason> {
    match (gold, answer) {
        (Item::Text(one), Item::Text(other)) => Ok(one == other),
        (Item::Text(text), Item::Quantity(quantity)) | (Item::Quantity(quantity), Item::Text(text)) => {
            Ok(quantity.symbol.as_ref().is_some_and(|name| name.eq_ignore_ascii_case(text)))
        }
        (Item::Quantity(one), Item::Quantity(other)) => same_quantity(one, other, meter),
        (
            Item::Sequence { open, items, close },
            Item::Sequence { open: other_open, items: other_items, close: other_close },
        ) => {
            if (open, close) != (other_open, other_close) {
                return Ok(false);
            }
            let same = if *open == Bracket::Set { unordered } else { ordered };
            same(items, other_items, meter)
        }
        _ => Ok(false),
    }
}

fn same_quantity(gold: &Quantity, answer: &Quantity, meter: &mut Meter) -> Result<bool, Reason> {
    if let (Some(one), Some(other)) = (&gold.symbol, &answer.symbol) {
        return Ok(one.eq_ignore_ascii_case(other));
    }
    if !same_value(gold, answer, meter)? {
        return Ok(false);
    }
    // A unit may be left out, but not contradicted.
    if gold.unit.is_empty() || answer.unit.is_empty() || gold.unit == answer.unit {
        return Ok(true);
    }
    if unit::contradict(&gold.unit, &answer.unit) {
        return Ok(false);
    }
    Err(format!("the unit `{}` is not known to be `{}`", answer.unit, gold.unit))
}

fn same_value(one: &Quantity, other: &Quantity, meter: &mut Meter) -> Result<bool, Reason> {
    if one.value.equals(&other.value, meter)? {
        return Ok(true);
    }
    match (&one.rounding, &other.rounding) {
        (Rounding::Decimal { half, significant }, Rounding::Exact) => {
            rounds_to(&one.value, half, *significant, &other.value, meter)
        }
        (Rounding::Exact, Rounding::Decimal { half, significant }) => {
            rounds_to(&other.value, half, *significant, &one.value, meter)
        }
        _ if [one, other].iter().all(|it| it.value.all_bases(&|base| !matches!(base, Base::Radicand(_)))) => Ok(false),
        // Roots of sums have no canonical form here (`\sqrt{3+2\sqrt{2}}` is `1+\sqrt{2}`), but most differ in value.
        _ => match indistinguishable(&approximate(&one.value, meter)?, &approximate(&other.value, meter)?) {
            true => Err("equal in value, but not shown to be equal".into()),
            false => Ok(false),
        },
    }
}

/// Whether `exact`, rounded to the places of `decimal`, is `decimal`.
///
/// Half of the last place counts in both directions. An integer has no more digits than it shows, and is never rounded.
fn rounds_to(
    decimal: &Value,
    half: &BigRational,
    significant: usize,
    exact: &Value,
    meter: &mut Meter,
) -> Result<bool, Reason> {
    let integer = exact.as_rational().is_some_and(|it| it.is_integer());
    if integer || significant < MIN_SIGNIFICANT || !exact.all_bases(&is_constant) {
        return Ok(false);
    }
    let (decimal, exact) = (approximate(decimal, meter)?, approximate(exact, meter)?);
    if *half < exact.abs() * resolution() {
        return Err("more digits than are compared".into());
    }
    Ok((decimal - exact).abs() <= *half)
}

impl Sum {
    /// No symbol under a fraction bar or a root.
    fn is_polynomial(&self) -> bool {
        let whole = |base: &Base, exponent: &Ratio<i64>| match base {
            Base::Prime(_) | Base::Imaginary => true,
            Base::Symbol(_) => exponent.is_integer() && !exponent.is_negative(),
            Base::Radicand(_) => false,
        };
        self.0.keys().flatten().all(|(base, exponent)| whole(base, exponent))
    }
}
