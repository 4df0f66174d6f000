//! Sets of real numbers as ordered intervals, a common form of inequalities, intervals, unions and finite sets.

use std::cmp::Ordering;

use super::enclose;
use super::equal::{Term, equal};
use super::limits::{Meter, Reason};
use super::value::Value;

/// Disjoint intervals that do not touch, from left to right.
#[derive(Clone, Debug, Default)]
pub struct Region(Vec<ValueInterval>);

#[derive(Clone, Debug)]
pub struct ValueInterval {
    pub low: IntervalEnd,
    pub high: IntervalEnd,
}

#[derive(Clone, Debug)]
pub struct IntervalEnd {
    pub at: IntervalBound,
    /// Whether the end itself is included.
    pub closed: bool,
}

#[derive(Clone, Debug)]
pub enum IntervalBound {
    Below,
    At(Value),
    Above,
}

impl IntervalBound {
    /// The bound that a value represents.
    pub fn of(value: Value) -> IntervalBound {
        let infinity = Value::symbol("\\infty");
        if value == infinity {
            IntervalBound::Above
        } else if value == infinity.negative() {
            IntervalBound::Below
        } else {
            IntervalBound::At(value)
        }
    }

    fn order(&self, other: &IntervalBound, meter: &mut Meter) -> Result<Ordering, Reason> {
        let rank = |bound: &IntervalBound| match bound {
            IntervalBound::Below => 0,
            IntervalBound::At(_) => 1,
            IntervalBound::Above => 2,
        };
        let (IntervalBound::At(one), IntervalBound::At(other)) = (self, other) else {
            return Ok(rank(self).cmp(&rank(other)));
        };
        if one == other {
            return Ok(Ordering::Equal);
        }
        if let (Some(one), Some(other)) = (one.as_rational(), other.as_rational()) {
            return Ok(one.cmp(&other));
        }
        if !one.is_constant() || !other.is_constant() {
            return Err("ends of intervals that are not numbers".into());
        }
        if equal(Term { value: one, expr: None }, Term { value: other, expr: None }, meter)?.0 {
            return Ok(Ordering::Equal);
        }
        enclose::sign(&one.minus(other, meter)?, meter)?
            .ok_or_else(|| "ends of intervals that cannot be ordered".into())
    }
}

impl Region {
    pub fn all() -> Region {
        let end = |at| IntervalEnd { at, closed: false };
        Region(vec![ValueInterval { low: end(IntervalBound::Below), high: end(IntervalBound::Above) }])
    }

    pub fn point(value: Value) -> Region {
        let end = IntervalEnd { at: IntervalBound::At(value), closed: true };
        Region(vec![ValueInterval { low: end.clone(), high: end }])
    }

    /// All numbers below a bound, or all above it.
    pub fn ray(bound: Value, up: bool, closed: bool) -> Region {
        let end = IntervalEnd { at: IntervalBound::of(bound), closed };
        let open = |at| IntervalEnd { at, closed: false };
        Region(vec![match up {
            true => ValueInterval { low: end, high: open(IntervalBound::Above) },
            false => ValueInterval { low: open(IntervalBound::Below), high: end },
        }])
    }

    /// One interval; empty if its ends are in the wrong order.
    pub fn interval(mut interval: ValueInterval, meter: &mut Meter) -> Result<Region, Reason> {
        for end in [&mut interval.low, &mut interval.high] {
            end.closed &= matches!(end.at, IntervalBound::At(_));
        }
        // Ends that contain symbols are accepted in the written order.
        let order = interval.low.at.order(&interval.high.at, meter).unwrap_or(Ordering::Less);
        let empty = match order {
            Ordering::Less => false,
            Ordering::Equal => !(interval.low.closed && interval.high.closed),
            Ordering::Greater => true,
        };
        Ok(Region(if empty { Vec::new() } else { vec![interval] }))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn union(mut self, other: Region, meter: &mut Meter) -> Result<Region, Reason> {
        self.0.extend(other.0);
        let mut parts: Vec<ValueInterval> = Vec::new();
        // There are few intervals: they are sorted by insertion, because a comparison may fail.
        for part in self.0 {
            let mut at = parts.len();
            while at > 0 && starts_before(&part, &parts[at - 1], meter)? {
                at -= 1;
            }
            parts.insert(at, part);
        }
        let mut merged: Vec<ValueInterval> = Vec::new();
        for part in parts {
            let Some(last) = merged.last_mut() else {
                merged.push(part);
                continue;
            };
            let gap = match part.low.at.order(&last.high.at, meter)? {
                Ordering::Less => false,
                Ordering::Equal => !part.low.closed && !last.high.closed,
                Ordering::Greater => true,
            };
            if gap {
                merged.push(part);
                continue;
            }
            match part.high.at.order(&last.high.at, meter)? {
                Ordering::Greater => last.high = part.high,
                Ordering::Equal => last.high.closed |= part.high.closed,
                Ordering::Less => {}
            }
        }
        Ok(Region(merged))
    }

    pub fn intersection(&self, other: &Region, meter: &mut Meter) -> Result<Region, Reason> {
        let mut common = Region::default();
        for one in &self.0 {
            for other in &other.0 {
                let low = match one.low.at.order(&other.low.at, meter)? {
                    Ordering::Less => other.low.clone(),
                    Ordering::Greater => one.low.clone(),
                    Ordering::Equal => IntervalEnd { closed: one.low.closed && other.low.closed, ..one.low.clone() },
                };
                let high = match one.high.at.order(&other.high.at, meter)? {
                    Ordering::Less => one.high.clone(),
                    Ordering::Greater => other.high.clone(),
                    Ordering::Equal => IntervalEnd { closed: one.high.closed && other.high.closed, ..one.high.clone() },
                };
                common.0.extend(Region::interval(ValueInterval { low, high }, meter)?.0);
            }
        }
        Ok(common)
    }

    pub fn without(&self, other: &Region, meter: &mut Meter) -> Result<Region, Reason> {
        let mut outside = Region::default();
        let mut low = IntervalEnd { at: IntervalBound::Below, closed: false };
        for part in &other.0 {
            let high = IntervalEnd { at: part.low.at.clone(), closed: !part.low.closed };
            outside.0.extend(Region::interval(ValueInterval { low, high }, meter)?.0);
            low = IntervalEnd { at: part.high.at.clone(), closed: !part.high.closed };
        }
        let high = IntervalEnd { at: IntervalBound::Above, closed: false };
        outside.0.extend(Region::interval(ValueInterval { low, high }, meter)?.0);
        self.intersection(&outside, meter)
    }

    pub fn same(&self, other: &Region, meter: &mut Meter) -> Result<bool, Reason> {
        if self.0.len() != other.0.len() {
            return Ok(false);
        }
        for (one, other) in self.0.iter().zip(&other.0) {
            for (one, other) in [(&one.low, &other.low), (&one.high, &other.high)] {
                if one.closed != other.closed {
                    return Ok(false);
                }
                let same = match (&one.at, &other.at) {
                    (IntervalBound::At(one), IntervalBound::At(other)) => {
                        equal(Term { value: one, expr: None }, Term { value: other, expr: None }, meter)?.0
                    }
                    (one, other) => one.order(other, meter)? == Ordering::Equal,
                };
                if !same {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

fn starts_before(one: &ValueInterval, other: &ValueInterval, meter: &mut Meter) -> Result<bool, Reason> {
    Ok(match one.low.at.order(&other.low.at, meter)? {
        Ordering::Less => true,
        Ordering::Equal => one.low.closed && !other.low.closed,
        Ordering::Greater => false,
    })
}
