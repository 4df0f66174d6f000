//! What an answer claims, with its values worked out, ready to be compared.

use super::limits::{Meter, Reason};
use super::quantity::Quantity;
use super::region::{Bound, End, Interval, Region};
use super::token::{Bracket, Joiner, NamedSet, Relation};
use super::value::Value;

/// An answer whose values are worked out.
pub struct Form {
    /// Without an order: a set, or what commas or `and` separate. Most answers have one item.
    pub items: Vec<Claim>,
    pub joiner: Option<Joiner>,
    /// The text in lower case, where it is nothing but letters: `No` is `no`, whatever the letters would mean as symbols.
    pub letters: Option<String>,
    /// The letter before a value, as in `(C) 12`.
    pub choice: Option<char>,
    /// Set braces stood around the items.
    pub braces: bool,
}

/// What one item of an answer says.
pub enum Claim {
    Is {
        /// `x` in `x = 3`.
        target: Option<String>,
        item: Item,
    },
    Equation {
        /// Of the two sides.
        difference: Value,
        /// What names are said to make together: 17 in `a + b = 17`.
        total: Option<Box<Quantity>>,
    },
    Relation(Relations),
    /// A chain such as `1 = 2 = 3` in which a side differs from the next.
    False,
}

pub enum Item {
    Text(String),
    Quantity(Box<Quantity>),
    /// Digits in a base; the base belongs to the answer.
    Numeral {
        digits: String,
        base: u32,
    },
    /// `3:4`, or a time of the day.
    Ratio {
        parts: Vec<Value>,
        late: Option<bool>,
    },
    Sequence {
        open: Bracket,
        items: Vec<Claim>,
        close: Bracket,
    },
    Matrix(Vec<Vec<Item>>),
    /// A union, or what a set builder describes.
    Region(Region),
    Set(NamedSet),
    Cases(Vec<(Claim, Claim)>),
}

/// Inequalities, all of which hold.
pub struct Relations {
    pub links: Vec<Link>,
    /// The reals that it allows, if it speaks of one name alone.
    pub region: Option<Region>,
    /// That name.
    pub variable: Option<Value>,
    /// The name stands alone on one side: `x > 2`, and not `2x > 4`.
    pub solved: bool,
}

/// A difference that is not zero, below zero, or not above zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub difference: Value,
    pub relation: Relation,
}

impl Form {
    /// What is false says nothing that an answer could agree with.
    pub fn is_false(&self) -> bool {
        self.items.iter().any(|it| matches!(it, Claim::False))
    }
}

/// The real numbers that a claim allows, if it speaks of some.
pub fn region(claim: &Claim, meter: &mut Meter) -> Result<Option<Region>, Reason> {
    let item = match claim {
        Claim::Relation(relations) => return Ok(relations.region.clone()),
        Claim::Is { target: Some(_), item: Item::Quantity(quantity) } if quantity.unit.is_none() => {
            return Ok(Some(Region::point(quantity.value.clone())));
        }
        Claim::Is { item, .. } => item,
        _ => return Ok(None),
    };
    Ok(match item {
        Item::Region(region) => Some(region.clone()),
        Item::Set(NamedSet::Reals) => Some(Region::all()),
        Item::Set(NamedSet::Empty) => Some(Region::default()),
        Item::Sequence { open: Bracket::Set, items, .. } => {
            let mut union = Region::default();
            for item in items {
                let Claim::Is { item: Item::Quantity(quantity), .. } = item else { return Ok(None) };
                union = union.union(Region::point(quantity.value.clone()), meter)?;
            }
            Some(union)
        }
        // `(0, 0)` is a point in the plane.
        Item::Sequence { .. } => interval(item, meter)?.filter(|it| !it.is_empty()),
        _ => None,
    })
}

/// The numbers between the two of a pair, of which there may be none.
pub fn interval(item: &Item, meter: &mut Meter) -> Result<Option<Region>, Reason> {
    let Item::Sequence { open: open @ (Bracket::Round | Bracket::Square), items, close } = item else {
        return Ok(None);
    };
    let [Claim::Is { target: None, item: Item::Quantity(low) }, Claim::Is { target: None, item: Item::Quantity(high) }] =
        &items[..]
    else {
        return Ok(None);
    };
    let low = End { at: Bound::of(low.value.clone()), closed: *open == Bracket::Square };
    let high = End { at: Bound::of(high.value.clone()), closed: *close == Bracket::Square };
    Region::interval(Interval { low, high }, meter).map(Some)
}
