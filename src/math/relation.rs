//! Inequalities: as sets of reals if they are about one name, else as differences with a sign.

use num_traits::Signed;

use super::claim::{Claim, ClaimItem, Link, Relations, region};
use super::enclose;
use super::limits::{Meter, Reason};
use super::region::Region;
use super::token::{Joiner, Relation};
use super::tree::{Chain, Side};
use super::value::{Base, PowerProduct, Sum, Value};

/// Reads a side of a chain.
pub type ReadItem = fn(&Side, &mut Meter) -> Result<ClaimItem, Reason>;

/// The claim of a chain with an inequality in it; `item` reads a side that is a set.
pub fn relations(chain: &Chain, item: ReadItem, meter: &mut Meter) -> Result<Claim, Reason> {
    let mut all = Relations { links: Vec::new(), region: Some(Region::all()), variable: None, solved: true };
    let mut constants = true;
    let mut left = &chain.first;
    for (relation, right) in &chain.rest {
        let (one, other) = (value(left, meter)?, set_or_value(right, *relation, item, meter)?);
        left = right;
        let other = match other {
            RelationOperand::Value(value) => value,
            RelationOperand::Region(region) => {
                all.join(Some((one, region)), true, meter)?;
                constants = false;
                continue;
            }
        };
        let link = link(&one, *relation, &other, meter)?;
        if link.difference.is_constant() && !is_infinite(&link.difference) {
            if !holds(&link, meter)? {
                return Ok(Claim::False);
            }
            continue;
        }
        constants = false;
        let ray = ray(&one, *relation, &other, meter)?;
        let solved = ray.as_ref().is_some_and(|(_, _, solved)| *solved);
        all.join(ray.map(|(variable, region, _)| (variable, region)), solved, meter)?;
        all.links.push(link);
    }
    if constants {
        return Err("an inequality of numbers".into());
    }
    Ok(Claim::Relation(all))
}

enum RelationOperand {
    Value(Value),
    Region(Region),
}

fn value(side: &Side, meter: &mut Meter) -> Result<Value, Reason> {
    Value::of(&side.expr, meter)
}

fn set_or_value(side: &Side, relation: Relation, item: ReadItem, meter: &mut Meter) -> Result<RelationOperand, Reason> {
    if !matches!(relation, Relation::In | Relation::NotIn) {
        return Ok(RelationOperand::Value(value(side, meter)?));
    }
    let claim = Claim::Is { target: None, item: item(side, meter)? };
    let found = region(&claim, meter)?.ok_or("a set that is not an interval")?;
    Ok(RelationOperand::Region(if relation == Relation::In { found } else { Region::all().without(&found, meter)? }))
}

impl Relations {
    /// Also includes what `part` allows for its variable.
    fn join(&mut self, part: Option<(Value, Region)>, solved: bool, meter: &mut Meter) -> Result<(), Reason> {
        self.solved &= solved;
        let (Some((variable, region)), Some(so_far)) = (part, &self.region) else {
            self.region = None;
            return Ok(());
        };
        if self.variable.as_ref().is_some_and(|it| *it != variable) {
            self.region = None;
            return Ok(());
        }
        self.variable = Some(variable);
        // The ends cannot be ordered: it remains a list of inequalities.
        self.region = so_far.intersection(&region, meter).ok();
        Ok(())
    }
}

fn is_infinite(value: &Value) -> bool {
    !value.all_bases(&|base| !matches!(base, Base::Symbol(name) if name == "\\infty"))
}

/// The difference of two sides, scaled so that equal inequalities have the same form.
fn link(one: &Value, relation: Relation, other: &Value, meter: &mut Meter) -> Result<Link, Reason> {
    let (difference, relation) = match relation {
        Relation::Less | Relation::AtMost | Relation::NotEqual | Relation::Equal => {
            (one.minus(other, meter)?, relation)
        }
        Relation::Greater => (other.minus(one, meter)?, Relation::Less),
        Relation::AtLeast => (other.minus(one, meter)?, Relation::AtMost),
        _ => return Err("a chain of relations that cannot be checked".into()),
    };
    if difference.is_zero() {
        return Ok(Link { difference, relation });
    }
    let (_, rest) = difference.over.content(meter)?;
    let mut difference = Value { over: rest, under: difference.under };
    // The sides of a difference that is not zero may be swapped.
    if matches!(relation, Relation::NotEqual | Relation::Equal)
        && difference.over.0.values().next().is_some_and(Signed::is_negative)
    {
        difference = difference.negative();
    }
    Ok(Link { difference, relation })
}

fn holds(link: &Link, meter: &mut Meter) -> Result<bool, Reason> {
    let sign = if link.difference.is_zero() {
        std::cmp::Ordering::Equal
    } else {
        enclose::sign(&link.difference, meter)?.ok_or("an inequality of numbers that cannot be checked")?
    };
    Ok(match link.relation {
        Relation::Less => sign.is_lt(),
        Relation::AtMost => sign.is_le(),
        Relation::NotEqual => sign.is_ne(),
        _ => sign.is_eq(),
    })
}

/// The name in a linear relation, the values that it allows, and whether the name is alone on one side.
fn ray(
    one: &Value,
    relation: Relation,
    other: &Value,
    meter: &mut Meter,
) -> Result<Option<(Value, Region, bool)>, Reason> {
    let infinite = is_infinite(one) || is_infinite(other);
    // `-x > -1` is as good as `x < 1`; `2x > 4` may be the question.
    let alone = |value: &Value| name(value).is_some() || name(&value.clone().negative()).is_some();
    let solved = (alone(one) && (other.is_constant() || is_infinite(other)))
        || (alone(other) && (one.is_constant() || is_infinite(one)));
    if infinite {
        // `x < \infty` allows all values.
        let variable = name(one).or_else(|| name(other));
        return Ok(variable.map(|it| (it, Region::all(), true)));
    }
    let difference = one.minus(other, meter)?;
    if !difference.under.is_one() {
        return Ok(None);
    }
    let (mut variable, mut slope, mut rest) = (None::<PowerProduct>, Sum::default(), Sum::default());
    for (product, coefficient) in &difference.over.0 {
        let is_name = |base: &Base| matches!(base, Base::Symbol(name) if !super::value::is_constant(name));
        let (names, constants): (PowerProduct, PowerProduct) =
            product.iter().map(|(base, exponent)| (base.clone(), *exponent)).partition(|(base, _)| is_name(base));
        if !Value::from(Sum([(constants.clone(), coefficient.clone())].into())).is_constant() {
            return Ok(None);
        }
        if names.is_empty() {
            rest.0.insert(constants, coefficient.clone());
        } else if variable.as_ref().is_none_or(|it| *it == names) {
            variable = Some(names);
            slope.0.insert(constants, coefficient.clone());
        } else {
            return Ok(None);
        }
    }
    let Some(variable) = variable else { return Ok(None) };
    let variable = Value::from(Sum([(variable, num_traits::One::one())].into()));
    if name(&variable).is_none() {
        return Ok(None);
    }
    let slope = Value::from(slope);
    let Some(sign) = enclose::sign(&slope, meter)? else { return Ok(None) };
    let bound = Value::from(rest).negative().times(&slope.inverse(meter)?, meter)?;
    let up = |relation| matches!(relation, Relation::Greater | Relation::AtLeast);
    let region = match relation {
        Relation::Equal => Region::point(bound),
        Relation::NotEqual => Region::all().without(&Region::point(bound), meter)?,
        _ => {
            let closed = matches!(relation, Relation::AtMost | Relation::AtLeast);
            Region::ray(bound, up(relation) == sign.is_gt(), closed)
        }
    };
    Ok(Some((variable, region, solved)))
}

/// A value that is a name: `x`, or `f(x)`, read as a product of two.
fn name(value: &Value) -> Option<Value> {
    let (product, coefficient) = value.over.single().filter(|_| value.under.is_one())?;
    let function = |name: &str| matches!(name, "f" | "g" | "h" | "p" | "P" | "F");
    let plain = product.values().all(num_traits::One::is_one) && num_traits::One::is_one(coefficient);
    let names: Option<Vec<&str>> = product
        .keys()
        .map(|base| match base {
            Base::Symbol(name) if !super::value::is_constant(name) && name != "\\infty" => Some(name.as_str()),
            _ => None,
        })
        .collect();
    let names = names?;
    let one_name = names.len() == 1 || (names.len() == 2 && names.iter().any(|it| function(it)));
    (plain && one_name).then(|| value.clone())
}

/// Several inequalities of one name become one: `x < 1 \text{ or } x > 5`.
pub fn together(mut claims: Vec<Claim>, joiner: Option<Joiner>, meter: &mut Meter) -> Result<Vec<Claim>, Reason> {
    let unequal = |claim: &Claim| matches!(claim, Claim::Relation(it) if it.links.iter().all(|link| link.relation == Relation::NotEqual) && !it.links.is_empty());
    if claims.len() < 2 || !claims.iter().any(|it| matches!(it, Claim::Relation(_))) {
        return Ok(claims);
    }
    let mut variable = None;
    let mut solved = true;
    let mut regions = Vec::new();
    let first_unequal = unequal(&claims[0]);
    for claim in &claims {
        let (name, region) = match claim {
            Claim::Relation(Relations { region: Some(region), variable: Some(name), solved: it, .. }) => {
                solved &= it;
                (Some(name.clone()), region.clone())
            }
            Claim::Is { target: Some(name), .. } => match region(claim, meter)? {
                Some(region) => (Some(Value::symbol(name)), region),
                None => return Ok(claims),
            },
            // `x \neq 1, 2`
            Claim::Is { target: None, item: ClaimItem::Quantity(quantity) }
                if first_unequal && quantity.value.is_constant() =>
            {
                (None, Region::all().without(&Region::point(quantity.value.clone()), meter)?)
            }
            _ => return Ok(claims),
        };
        if name.is_some() && variable.is_some() && name != variable {
            return Ok(claims);
        }
        variable = variable.or(name);
        regions.push(region);
    }
    let mut common = Region::all();
    let mut either = Region::default();
    for region in &regions {
        common = common.intersection(region, meter)?;
        either = either.union(region.clone(), meter)?;
    }
    let all = claims.iter().any(unequal)
        || match joiner {
            Some(Joiner::Or) => false,
            Some(Joiner::And) => true,
            // A comma can mean either, depending on which makes sense.
            _ => !common.is_empty(),
        };
    let links = claims.drain(..).filter_map(|it| if let Claim::Relation(it) = it { Some(it.links) } else { None });
    let links = links.flatten().collect();
    let region = Some(if all { common } else { either });
    Ok(vec![Claim::Relation(Relations { links, region, variable, solved })])
}
