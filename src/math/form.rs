//! An answer with its values worked out: what it claims, ready to be compared.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::One;

use super::compare::same_item;
use super::limits::{Meter, Reason};
use super::numeric::is_constant;
use super::parse::parse;
use super::token::Bracket;
use super::tree::{Chain, Expr, Operator, Sequence, Side};
use super::unit;
use super::value::{Base, Value};

/// An answer whose values are worked out.
pub struct Form {
    /// Without an order: a set, or what commas or `and` separate. Most answers have one item.
    pub items: Vec<Claim>,
    /// The text in lower case, where it is nothing but letters: `No` is `no`, whatever the letters would mean as symbols.
    pub letters: Option<String>,
}

/// What one item of an answer says.
pub enum Claim {
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

pub enum Item {
    Text(String),
    Quantity(Box<Quantity>),
    Sequence { open: Bracket, items: Vec<Claim>, close: Bracket },
}

pub struct Quantity {
    pub value: Value,
    /// In canonical form; empty for none.
    pub unit: String,
    /// The name, if it is nothing but a symbol.
    pub symbol: Option<String>,
    pub rounding: Rounding,
}

/// Whether a number can have lost digits.
pub enum Rounding {
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
