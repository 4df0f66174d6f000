//! Interprets an answer and computes its values: from a text to what it claims.

use super::claim::{AnswerForm, Claim, ClaimItem, interval, region};
use super::clean;
use super::compare::same_item;
use super::judge::Judge;
use super::lex::Grouping;
use super::limits::{Meter, Reason};
use super::matrix;
use super::parse::parse;
use super::quantity::{Quantity, rounds_to};
use super::region::Region;
use super::relation::{relations, together};
use super::token::{Bracket, Joiner, NamedSet, Relation};
use super::tree::{Chain, Expr, Operator, ParsedAnswer, Side};
use super::unit::{self, Unit};
use super::value::Value;

pub fn read(text: &str, grouping: Grouping, meter: &mut Meter) -> Result<AnswerForm, Reason> {
    let text = clean::plain(text);
    let text = clean::bare(&text);
    let (choice, text) = match choice(text) {
        Some((letter, rest)) => (Some(letter), rest),
        None => (None, text.trim()),
    };
    // `C)` alone.
    let text = match text.as_bytes() {
        [b'A'..=b'J', b')'] => &text[..1],
        _ => text,
    };
    let ParsedAnswer { items, mut joiner, condition } = parse(text, grouping)?;
    let mut items = claims(&items, meter)?;
    // A set is a list without an order, like a list without brackets.
    let braces = matches!(&items[..], [Claim::Is { item: ClaimItem::Sequence { open: Bracket::Set, .. }, .. }]);
    if braces && let Some(Claim::Is { item: ClaimItem::Sequence { items: inner, .. }, .. }) = items.pop() {
        (items, joiner) = (inner, Some(Joiner::And));
    }
    let items = together(items, joiner, meter)?;
    let text = inside_font(text.trim_matches('$').trim());
    let letters = text.bytes().all(|it| it.is_ascii_alphabetic()).then(|| text.to_lowercase());
    Ok(AnswerForm { items, joiner, letters, choice, braces, condition })
}

/// Commands whose group is text in another font.
const FONTS: [&str; 5] = ["\\text{", "\\textbf{", "\\mathrm{", "\\mathbf{", "\\textrm{"];

/// `VW` of `\text{VW}`.
fn inside_font(text: &str) -> &str {
    let inner = FONTS.iter().find_map(|it| text.strip_prefix(it));
    inner.and_then(|it| it.strip_suffix('}')).unwrap_or(text).trim()
}

/// The letter of a choice with its value, such as `(C) 12`, `\textbf{(C)}\ 12` and `C. 12`.
fn choice(text: &str) -> Option<(char, &str)> {
    let mut rest = text.trim();
    let mut group = false;
    for command in FONTS {
        if let Some(inner) = rest.strip_prefix(command) {
            (rest, group) = (inner.trim_start(), true);
            break;
        }
    }
    let round = rest.starts_with('(');
    let letter = rest.strip_prefix('(').unwrap_or(rest);
    let first = letter.chars().next().filter(|it| ('A'..='J').contains(it))?;
    let mut after = letter[1..].trim_start();
    let closed = after.starts_with(')') || (!round && after.starts_with(['.', ':']));
    if !closed {
        return None;
    }
    after = &after[1..];
    let spaced = after.starts_with([' ', '~']) || after.starts_with("\\ ") || after.starts_with("\\quad");
    if group {
        after = after.trim_start().strip_prefix('}')?;
    }
    let value = after.trim_start_matches([' ', '~']);
    let value = ["\\ ", "\\quad", "\\;", "\\,"].iter().find_map(|it| value.strip_prefix(it)).unwrap_or(value).trim();
    // `(A)+B` is a sum, and `A:B` is a ratio of names.
    let operator = value.starts_with(['+', '*', '/', '^', '_', '=', '<', '>', ',', '(', ')']) || value.is_empty();
    let sign = value.starts_with('-') && !spaced;
    (!operator && !sign && (round || spaced)).then_some((first, value))
}

fn claims(chains: &[Chain], meter: &mut Meter) -> Result<Vec<Claim>, Reason> {
    let mut claims = Vec::new();
    for chain in chains {
        if chain.has_plus_minus() {
            for plus in [true, false] {
                claims.push(claim(&chain.with_sign(plus), meter)?);
            }
        } else {
            claims.push(claim(chain, meter)?);
        }
    }
    Ok(claims)
}

/// The last side of a chain counts, after every side is shown to equal the next; the chain assigns to a name in front.
fn claim(chain: &Chain, meter: &mut Meter) -> Result<Claim, Reason> {
    if chain.rest.is_empty() {
        return Ok(Claim::Is { target: None, item: item(&chain.first, meter)? });
    }
    if let [(Relation::In, set)] = &chain.rest[..] {
        return Ok(Claim::Is { target: target(&chain.first.expr), item: item(set, meter)? });
    }
    if chain.rest.iter().any(|(relation, _)| !matches!(relation, Relation::Equal | Relation::About)) {
        return relations(chain, item, meter);
    }
    let sides: Vec<&Side> = chain.sides().collect();
    let mut names = sides.iter().take_while(|side| is_name(&side.expr)).count().min(sides.len() - 1);
    let sum_of_names = names == 0 && is_combination(&sides[0].expr);
    if sum_of_names && sides.len() > 2 {
        names = 1;
    }
    let name = if names > 0 { target(&sides[0].expr) } else { None };
    let mut last = item(sides[names], meter)?;
    if let ClaimItem::Quantity(quantity) = &mut last {
        quantity.argument = if names > 0 { argument(&sides[0].expr) } else { None };
    }
    for (index, (relation, side)) in chain.rest.iter().enumerate().skip(names) {
        let next = item(side, meter)?;
        if *relation == Relation::About {
            // A correctly rounded decimal may follow, with any number of places; the exact value counts.
            let (ClaimItem::Quantity(exact), ClaimItem::Quantity(decimal)) = (&last, &next) else {
                return Err("an approximation of something that is not a number".into());
            };
            if index + 1 < chain.rest.len() {
                return Err("an approximation in the middle of a chain".into());
            }
            return match rounds_to(decimal, exact, 1, meter)? {
                true => Ok(Claim::Is { target: name, item: last }),
                false => Ok(Claim::False),
            };
        }
        let (ClaimItem::Quantity(one), ClaimItem::Quantity(other)) = (&last, &next) else {
            let mut judge = Judge::with(meter);
            let same = same_item(&last, &next, &mut judge);
            if sides.len() == 2 && is_name(&side.expr) {
                return Ok(Claim::Is { target: target(&side.expr), item: last });
            }
            if same? {
                last = next;
                continue;
            }
            return Err("a chain of equations that cannot be checked".into());
        };
        if sides.len() == 2 && is_name(&side.expr) && one.value.is_constant() {
            return Ok(Claim::Is { target: target(&side.expr), item: last });
        }
        let constant = one.value.is_constant() && other.value.is_constant();
        if let Some(modulus) = other.unit.as_ref().and_then(Unit::modulus) {
            // `10 \equiv 3 \pmod 7`
            let quotient = one.value.minus(&other.value, meter)?.times(&Value::rational(modulus.recip()), meter)?;
            match quotient.as_rational() {
                Some(quotient) if quotient.is_integer() => last = next,
                Some(_) => return Ok(Claim::False),
                None => return Err("a congruence that cannot be checked".into()),
            }
            continue;
        }
        if sides.len() == 2 && !constant {
            let difference = one.value.minus(&other.value, meter)?;
            let total = if sum_of_names && other.value.is_constant() {
                let ClaimItem::Quantity(total) = next else { unreachable!("it was matched above") };
                Some(total)
            } else {
                None
            };
            return Ok(Claim::Equation { difference, total });
        }
        let same = same_sides(one, other, meter);
        match same {
            Ok(true) => last = next,
            Ok(false) if constant => return Ok(Claim::False),
            _ => return Err("a chain of equations that cannot be checked".into()),
        }
    }
    Ok(Claim::Is { target: name, item: last })
}

/// Sides of a chain: equal, or one is the other rounded to at least four significant digits.
fn same_sides(one: &Quantity, other: &Quantity, meter: &mut Meter) -> Result<bool, Reason> {
    super::quantity::same(one, other, &mut Judge::with(meter))
}

/// Only names, added or multiplied: the question part of `x + y = 5`.
fn is_combination(expr: &Expr) -> bool {
    match expr {
        Expr::Symbol(name) => !is_reserved(name),
        Expr::Binary(Operator::Add | Operator::Subtract | Operator::Multiply, left, right) => {
            is_combination(left) && is_combination(right)
        }
        _ => false,
    }
}

/// Expressions that can be assigned to: `x`, `f(x)`, `AB`, `\text{Area}`, `(x, y)`, `dy/dx`, `\tan\theta`.
fn is_name(expr: &Expr) -> bool {
    match expr {
        Expr::Text(_) | Expr::Binary(Operator::Apply, ..) => true,
        Expr::Symbol(name) => !is_reserved(name),
        Expr::Binary(Operator::Multiply, ..) => only_capitals(expr),
        Expr::Call(function, arguments) if function.of_angle() => {
            !arguments[0].any(&|it| matches!(it, Expr::Number(_)))
        }
        Expr::Binary(Operator::Divide, over, under) => {
            // A derivative.
            let starts_with_d = |expr: &Expr| match expr {
                Expr::Symbol(name) => name == "d",
                Expr::Binary(Operator::Multiply, left, _) => **left == Expr::Symbol("d".into()),
                _ => false,
            };
            starts_with_d(over) && starts_with_d(under)
        }
        Expr::List { open: Bracket::Round, items, close: Bracket::Round } => {
            items.iter().all(|it| it.rest.is_empty() && matches!(it.first.expr, Expr::Symbol(_)))
        }
        Expr::Call(super::function::Function::Abs, inner) => only_capitals(&inner[0]),
        _ => false,
    }
}

/// The x of `f(x)`.
fn argument(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Binary(Operator::Apply, _, argument) => match &**argument {
            Expr::Symbol(name) if !is_reserved(name) => Some(name.clone()),
            _ => None,
        },
        _ => None,
    }
}

/// Names that have a fixed value.
fn is_reserved(name: &str) -> bool {
    matches!(name, "\\pi" | "e" | "i" | "\\infty" | "\\ldots")
}

/// `ABC`, the name of points.
fn only_capitals(expr: &Expr) -> bool {
    match expr {
        Expr::Symbol(name) => name.len() == 1 && name.bytes().all(|it| it.is_ascii_uppercase()),
        Expr::Binary(Operator::Multiply, left, right) => only_capitals(left) && only_capitals(right),
        _ => false,
    }
}

/// The name that is assigned to, if it can be distinguished from others; `f(x)` may be called `y`.
fn target(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Symbol(name) | Expr::Text(name) => Some(name.clone()),
        Expr::List { .. } => Some(expr.to_string()),
        _ if only_capitals(expr) => Some(expr.to_string()),
        _ => None,
    }
}

fn item(side: &Side, meter: &mut Meter) -> Result<ClaimItem, Reason> {
    let expr = &side.expr;
    Ok(match expr {
        Expr::Text(text) => ClaimItem::Text(plain_words(text)),
        Expr::List { open: Bracket::Set, items, .. } if items.is_empty() => ClaimItem::Set(NamedSet::Empty),
        Expr::List { open: Bracket::Square, items, .. } if let Some(rows) = rows(items, meter)? => {
            ClaimItem::Matrix(rows)
        }
        Expr::List { open, items, close } => {
            ClaimItem::Sequence { open: *open, items: claims(items, meter)?, close: *close }
        }
        Expr::Matrix(rows) => {
            let cell = |expr: &Expr, meter: &mut Meter| {
                Quantity::new(expr, "", meter).map(|it| ClaimItem::Quantity(Box::new(it)))
            };
            let mut matrix = Vec::new();
            for row in rows {
                matrix.push(row.iter().map(|it| cell(it, meter)).collect::<Result<Vec<_>, _>>()?);
            }
            ClaimItem::Matrix(matrix)
        }
        Expr::Cases(cases) => {
            let mut read = Vec::new();
            for (value, condition) in cases {
                read.push((claim(value, meter)?, claim(condition, meter)?));
            }
            ClaimItem::Cases(read)
        }
        Expr::Set(set) => ClaimItem::Set(*set),
        Expr::Where(conditions) => {
            let conditions = claims(conditions, meter)?;
            let mut whole = Region::all();
            for condition in conditions {
                let region = region(&condition, meter)?.ok_or("a set whose condition is not an interval")?;
                whole = whole.intersection(&region, meter)?;
            }
            ClaimItem::Region(whole)
        }
        Expr::Numeral { digits, base } => ClaimItem::Numeral { digits: without_zeros(digits), base: *base },
        Expr::Negative(inner) if matches!(**inner, Expr::Numeral { .. }) => {
            let Expr::Numeral { digits, base } = &**inner else { unreachable!("it was matched above") };
            ClaimItem::Numeral { digits: format!("-{}", without_zeros(digits)), base: *base }
        }
        Expr::Ratio(parts) => {
            let parts = parts.iter().map(|it| Value::of(it, meter)).collect::<Result<Vec<_>, _>>()?;
            ClaimItem::Ratio { parts, late: late(&side.unit) }
        }
        _ if late(&side.unit).is_some() => {
            ClaimItem::Ratio { parts: vec![Value::of(expr, meter)?], late: late(&side.unit) }
        }
        _ if is_set(expr) => ClaimItem::Region(set_region(expr, meter)?),
        _ if expr.any(&|it| matches!(it, Expr::Matrix(_) | Expr::List { .. })) => matrix::item(expr, meter)?,
        _ => ClaimItem::Quantity(Box::new(Quantity::new(expr, &side.unit, meter)?)),
    })
}

/// `[[1, 2], [3, 4]]` is a matrix.
fn rows(items: &[Chain], meter: &mut Meter) -> Result<Option<Vec<Vec<ClaimItem>>>, Reason> {
    let mut rows: Vec<Vec<ClaimItem>> = Vec::new();
    for chain in items {
        let Expr::List { open: Bracket::Square, items: cells, close: Bracket::Square } = &chain.first.expr else {
            return Ok(None);
        };
        if !chain.rest.is_empty() || cells.iter().any(|it| !it.rest.is_empty()) {
            return Ok(None);
        }
        rows.push(cells.iter().map(|it| item(&it.first, meter)).collect::<Result<_, _>>()?);
    }
    let width = rows.first().map_or(0, Vec::len);
    Ok((width > 0 && rows.iter().all(|it| it.len() == width)).then_some(rows))
}

/// Whether a time is after noon, if this is written.
fn late(unit: &str) -> Option<bool> {
    match unit.trim().to_lowercase().replace(['.', ' '], "").as_str() {
        "am" => Some(false),
        "pm" => Some(true),
        _ => None,
    }
}

/// Words without articles and similar words.
fn plain_words(text: &str) -> String {
    let text = text.replace(['-', '\''], " ");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let rest = ["the ", "a ", "an ", "option ", "choice ", "answer "].iter().find_map(|it| text.strip_prefix(it));
    let text = rest.unwrap_or(&text);
    text.strip_prefix('(').and_then(|it| it.strip_suffix(')')).unwrap_or(text).trim_end_matches(['.', '!']).to_string()
}

fn without_zeros(digits: &str) -> String {
    let digits = digits.trim_start_matches('0').to_uppercase();
    if digits.is_empty() || digits.starts_with('.') { format!("0{digits}") } else { digits }
}

fn is_set(expr: &Expr) -> bool {
    match expr {
        Expr::Binary(Operator::Union | Operator::Intersection | Operator::Without, ..) => true,
        Expr::Binary(Operator::Subtract, left, right) => {
            let set = |it: &Expr| matches!(it, Expr::Set(_) | Expr::List { open: Bracket::Set, .. }) || is_set(it);
            set(left) || matches!(&**right, Expr::List { open: Bracket::Set, .. })
        }
        _ => false,
    }
}

fn set_region(expr: &Expr, meter: &mut Meter) -> Result<Region, Reason> {
    if let Expr::Binary(operator, left, right) = expr
        && is_set(expr)
    {
        let (left, right) = (set_region(left, meter)?, set_region(right, meter)?);
        return match operator {
            Operator::Union => left.union(right, meter),
            Operator::Intersection => left.intersection(&right, meter),
            _ => left.without(&right, meter),
        };
    }
    let item = item(&Side::from(expr.clone()), meter)?;
    if let Some(interval) = interval(&item, meter)? {
        return Ok(interval);
    }
    region(&Claim::Is { target: None, item }, meter)?.ok_or_else(|| "a set that is not an interval".into())
}

impl Quantity {
    fn new(expr: &Expr, unit: &str, meter: &mut Meter) -> Result<Quantity, Reason> {
        let (scale, unit) = unit::read(unit);
        let mut quantity = Quantity::of(expr, meter)?;
        if scale > 1 {
            quantity.value = quantity.value.times(&Value::integer(scale as i64), meter)?;
            quantity.expr = None;
        }
        quantity.unit = unit;
        Ok(quantity)
    }
}
