//! Two answers, read: are they the same?
//!
//! `Ok(true)` and `Ok(false)` are shown; `Err` tells why neither could be.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Signed};

use super::Verdict;
use super::limits::{Meter, Reason};
use super::numeric::{approximate, indistinguishable, is_constant, resolution};
use super::parse::{Chain, Expr, Operator, Sequence, Side, parse};
use super::token::Bracket;
use super::unit;
use super::value::{Base, Sum, Value};

/// Least significant digits of a decimal that may stand for a value it only rounds.
const MIN_SIGNIFICANT: usize = 4;

/// An answer whose values are worked out.
pub struct Form {
    /// Without an order: a set, or what commas or `and` separate. Most answers have one item.
    items: Vec<Claim>,
    /// The text in lower case, where it is nothing but letters: `No` is `no`, whatever the letters would mean as symbols.
    letters: Option<String>,
}

/// What one item of an answer says.
enum Claim {
    Is {
        /// `x` in `x = 3`.
        target: Option<String>,
        item: Item,
    },
    /// The difference of the two sides.
    Equation(Value),
    /// A chain such as `1 = 2 = 3` in which a side differs from the next.
    False,
}

enum Item {
    Text(String),
    Quantity(Box<Quantity>),
    Sequence { open: Bracket, items: Vec<Claim>, close: Bracket },
}

struct Quantity {
    value: Value,
    /// In canonical form; empty for none.
    unit: String,
    /// The name, if it is nothing but a symbol.
    symbol: Option<String>,
    rounding: Rounding,
}

/// Whether a number can have lost digits.
enum Rounding {
    /// No decimal occurs in it.
    Exact,
    /// It is one decimal, with half a unit of its last place.
    Decimal { half: BigRational, significant: usize },
    /// An expression with a decimal in it, which is taken at its word.
    Mixed,
}

pub fn read(text: &str) -> Result<Form, Reason> {
    let meter = &mut Meter::new();
    let mut items = claims(&parse(text)?, meter)?;
    // A set is a list without an order, like the one that has no brackets.
    if matches!(&items[..], [Claim::Is { target: None, item: Item::Sequence { open: Bracket::Set, .. } }])
        && let Some(Claim::Is { item: Item::Sequence { items: inner, .. }, .. }) = items.pop()
    {
        items = inner;
    }
    let text = text.trim();
    let letters = text.bytes().all(|it| it.is_ascii_alphabetic()).then(|| text.to_lowercase());
    Ok(Form { items, letters })
}

impl Form {
    /// What is false says nothing that an answer could agree with.
    pub fn is_false(&self) -> bool {
        self.items.iter().any(|it| matches!(it, Claim::False))
    }
}

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

fn same_item(gold: &Item, answer: &Item, meter: &mut Meter) -> Result<bool, Reason> {
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

fn claims(chains: &[Chain], meter: &mut Meter) -> Result<Vec<Claim>, Reason> {
    let mut claims = Vec::new();
    for chain in chains {
        if chain.iter().any(Side::has_plus_minus) {
            for sign in [Operator::Add, Operator::Subtract] {
                let signed: Chain = chain.iter().map(|side| side.with_sign(sign)).collect();
                claims.push(claim(&signed, meter)?);
            }
        } else {
            claims.push(claim(chain, meter)?);
        }
    }
    Ok(claims)
}

/// The last side of a chain counts, once every side before it is shown to equal the next; a leading name is assigned to.
fn claim(chain: &Chain, meter: &mut Meter) -> Result<Claim, Reason> {
    let mut items = chain.iter().map(|side| item(side, meter)).collect::<Result<Vec<_>, _>>()?;
    let assigned = items.len() > 1 && is_name(&chain[0]);
    for pair in items[usize::from(assigned)..].windows(2) {
        if same_item(&pair[0], &pair[1], meter)? {
            continue;
        }
        return match pair {
            [Item::Quantity(one), Item::Quantity(other)] if one.is_constant() && other.is_constant() => {
                Ok(Claim::False)
            }
            [Item::Quantity(one), Item::Quantity(other)] if items.len() == 2 => {
                Ok(Claim::Equation(one.value.plus(&other.value.clone().negative(), meter)?))
            }
            _ => Err("a chain of equations that cannot be checked".into()),
        };
    }
    let target = match &items[0] {
        Item::Quantity(quantity) if assigned => quantity.symbol.clone(),
        _ => None,
    };
    Ok(Claim::Is { target, item: items.pop().expect("a chain has a side") })
}

/// What can be assigned to: `x`, `f(x)`, `\text{Area}`.
fn is_name(side: &Side) -> bool {
    match side {
        Side::Text(_) => true,
        Side::Quantity { expr: Expr::Symbol(_), .. } => true,
        Side::Quantity { expr: Expr::Binary(Operator::Multiply, left, right), .. } => {
            matches!((&**left, &**right), (Expr::Symbol(_), Expr::Symbol(_)))
        }
        _ => false,
    }
}

fn item(side: &Side, meter: &mut Meter) -> Result<Item, Reason> {
    Ok(match side {
        Side::Text(text) => Item::Text(text.clone()),
        Side::Sequence(Sequence { open, items, close }) => {
            Item::Sequence { open: *open, items: claims(items, meter)?, close: *close }
        }
        Side::Quantity { expr, unit } => Item::Quantity(Box::new(Quantity {
            value: Value::of(expr, meter)?,
            unit: unit::canonical(unit),
            symbol: if let Expr::Symbol(name) = expr { Some(name.clone()) } else { None },
            rounding: rounding(expr),
        })),
    })
}

impl Quantity {
    fn is_constant(&self) -> bool {
        self.value.all_bases(&|base| is_constant(base) || *base == Base::Imaginary)
    }
}

fn rounding(expr: &Expr) -> Rounding {
    match (lone_decimal(expr), has_decimal(expr)) {
        (Some((half, significant)), _) => Rounding::Decimal { half, significant },
        (None, true) => Rounding::Mixed,
        (None, false) => Rounding::Exact,
    }
}

/// Half a unit in the last place, and the significant digits, of a number like `-0.25`, `12.5\%` or `6.02 \times 10^{23}`.
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

fn has_decimal(expr: &Expr) -> bool {
    match expr {
        Expr::Number(literal) => literal.decimal,
        Expr::Symbol(_) => false,
        Expr::Negative(inner) | Expr::Percent(inner) => has_decimal(inner),
        Expr::Binary(_, left, right) => has_decimal(left) || has_decimal(right),
    }
}

impl Side {
    fn has_plus_minus(&self) -> bool {
        matches!(self, Side::Quantity { expr, .. } if expr.has_plus_minus())
    }

    fn with_sign(&self, sign: Operator) -> Side {
        match self {
            Side::Quantity { expr, unit } => Side::Quantity { expr: expr.with_sign(sign), unit: unit.clone() },
            _ => self.clone(),
        }
    }
}

impl Expr {
    fn has_plus_minus(&self) -> bool {
        match self {
            Expr::Number(_) | Expr::Symbol(_) => false,
            Expr::Negative(inner) | Expr::Percent(inner) => inner.has_plus_minus(),
            Expr::Binary(operator, left, right) => {
                *operator == Operator::PlusMinus || left.has_plus_minus() || right.has_plus_minus()
            }
        }
    }

    /// The expression with `sign` for every ±.
    fn with_sign(&self, sign: Operator) -> Expr {
        let boxed = |inner: &Expr| Box::new(inner.with_sign(sign));
        match self {
            Expr::Number(_) | Expr::Symbol(_) => self.clone(),
            Expr::Negative(inner) => Expr::Negative(boxed(inner)),
            Expr::Percent(inner) => Expr::Percent(boxed(inner)),
            Expr::Binary(operator, left, right) => {
                let operator = if *operator == Operator::PlusMinus { sign } else { *operator };
                Expr::Binary(operator, boxed(left), boxed(right))
            }
        }
    }
}

impl Sum {
    /// No symbol under a fraction bar or a root.
    fn is_polynomial(&self) -> bool {
        let whole = |base: &Base, exponent: &num_rational::Ratio<i64>| match base {
            Base::Prime(_) | Base::Imaginary => true,
            Base::Symbol(_) => exponent.is_integer() && !exponent.is_negative(),
            Base::Radicand(_) => false,
        };
        self.0.keys().flatten().all(|(base, exponent)| whole(base, exponent))
    }
}
