//! What an answer claims, with computed values, ready to be compared.

use super::limits::{Meter, Reason};
use super::quantity::Quantity;
use super::region::{IntervalBound, IntervalEnd, Region, ValueInterval};
use super::token::{Bracket, Joiner, NamedSet, Relation};
use super::value::Value;

/// An answer with computed values.
pub struct AnswerForm {
    /// Without an order: a set, or items separated by commas or `and`. Most answers have one item.
    pub items: Vec<Claim>,
    pub joiner: Option<Joiner>,
    /// The text in lower case, if it consists only of letters: `No` is `no`, whatever the letters mean as symbols.
    pub letters: Option<String>,
    /// The letter before a value, as in `(C) 12`.
    pub choice: Option<char>,
    /// There were set braces around the items.
    pub braces: bool,
    /// Where the answer holds, if this may restrict it.
    pub condition: Option<String>,
}

/// The claim of one item of an answer.
pub enum Claim {
    Is {
        /// `x` in `x = 3`.
        target: Option<String>,
        item: ClaimItem,
    },
    Equation {
        /// One per side.
        difference: Value,
        /// A value claimed for several names together: 17 in `a + b = 17`.
        total: Option<Box<Quantity>>,
    },
    Relation(Relations),
    /// A chain such as `1 = 2 = 3` in which two neighboring sides differ.
    False,
}

pub enum ClaimItem {
    Text(String),
    Quantity(Box<Quantity>),
    /// Digits in a base; the base is part of the answer.
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
    Matrix(Vec<Vec<ClaimItem>>),
    /// A union, or the set that a set builder describes.
    Region(Region),
    Set(NamedSet),
    Cases(Vec<(Claim, Claim)>),
}

/// Inequalities, all of which hold.
pub struct Relations {
    pub links: Vec<Link>,
    /// The reals that it allows, if it is about a single name.
    pub region: Option<Region>,
    /// That name.
    pub variable: Option<Value>,
    /// The name is alone on one side: `x > 2`, and not `2x > 4`.
    pub solved: bool,
}

/// A difference that is nonzero, negative, or not positive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub difference: Value,
    pub relation: Relation,
}

impl AnswerForm {
    /// One number without a unit, a percent sign or a symbol.
    pub fn is_bare_number(&self) -> bool {
        let [Claim::Is { item: ClaimItem::Quantity(quantity), .. }] = &self.items[..] else { return false };
        quantity.unit.is_none() && !quantity.percent && quantity.value.as_rational().is_some() && self.choice.is_none()
    }

    /// One number with a percent sign.
    pub fn is_percentage(&self) -> bool {
        matches!(&self.items[..], [Claim::Is { item: ClaimItem::Quantity(quantity), .. }] if quantity.percent && quantity.value.as_rational().is_some())
    }

    /// The number before the percent sign.
    pub fn without_percent(mut self, meter: &mut Meter) -> Result<AnswerForm, Reason> {
        for claim in &mut self.items {
            if let Claim::Is { item: ClaimItem::Quantity(quantity), .. } = claim {
                quantity.value = quantity.value.times(&Value::integer(100), meter)?;
                quantity.percent = false;
                quantity.rounding.scale(100);
            }
        }
        Ok(self)
    }

    /// Whether all items are quantities without symbols.
    pub fn has_only_constants(&self) -> bool {
        self.every_quantity(&|it| it.value.is_constant())
    }

    /// Whether some item has a unit.
    pub fn has_units(&self) -> bool {
        !self.every_quantity(&|it| it.unit.is_none())
    }

    fn every_quantity(&self, test: &impl Fn(&Quantity) -> bool) -> bool {
        self.items
            .iter()
            .all(|claim| matches!(claim, Claim::Is { item: ClaimItem::Quantity(quantity), .. } if test(quantity)))
    }

    /// A false claim has no content that an answer could agree with.
    pub fn is_false(&self) -> bool {
        self.items.iter().any(|it| matches!(it, Claim::False))
    }
}

/// The real numbers that a claim allows, if it is about real numbers.
pub fn region(claim: &Claim, meter: &mut Meter) -> Result<Option<Region>, Reason> {
    let item = match claim {
        Claim::Relation(relations) => return Ok(relations.region.clone()),
        Claim::Is { target: Some(_), item: ClaimItem::Quantity(quantity) } if quantity.unit.is_none() => {
            return Ok(Some(Region::point(quantity.value.clone())));
        }
        Claim::Is { item, .. } => item,
        _ => return Ok(None),
    };
    Ok(match item {
        ClaimItem::Region(region) => Some(region.clone()),
        ClaimItem::Set(NamedSet::Reals) => Some(Region::all()),
        ClaimItem::Set(NamedSet::Empty) => Some(Region::default()),
        ClaimItem::Sequence { open: Bracket::Set, items, .. } => {
            let mut union = Region::default();
            for item in items {
                let Claim::Is { item: ClaimItem::Quantity(quantity), .. } = item else { return Ok(None) };
                union = union.union(Region::point(quantity.value.clone()), meter)?;
            }
            Some(union)
        }
        // `(0, 0)` is a point in the plane.
        ClaimItem::Sequence { .. } => interval(item, meter)?.filter(|it| !it.is_empty()),
        _ => None,
    })
}

/// The numbers between the two numbers of a pair; there may be none.
pub fn interval(item: &ClaimItem, meter: &mut Meter) -> Result<Option<Region>, Reason> {
    let ClaimItem::Sequence { open: open @ (Bracket::Round | Bracket::Square), items, close } = item else {
        return Ok(None);
    };
    let [
        Claim::Is { target: None, item: ClaimItem::Quantity(low) },
        Claim::Is { target: None, item: ClaimItem::Quantity(high) },
    ] = &items[..]
    else {
        return Ok(None);
    };
    let low = IntervalEnd { at: IntervalBound::of(low.value.clone()), closed: *open == Bracket::Square };
    let high = IntervalEnd { at: IntervalBound::of(high.value.clone()), closed: *close == Bracket::Square };
    Region::interval(ValueInterval { low, high }, meter).map(Some)
}
