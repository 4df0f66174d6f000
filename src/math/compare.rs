//! Compares two parsed answers: are they the same?
//!
//! `Ok(true)` and `Ok(false)` are proven; `Err` has the reason if neither can be proven.

use super::claim::{AnswerForm, Claim, ClaimItem, Relations, region};
use super::constants;
use super::equal::{Term, equal};
use super::judge::Judge;
use super::limits::{Meter, Reason};
use super::quantity::{self, Quantity};
use super::region::Region;
use super::token::{Bracket, Joiner, NamedSet};
use super::value::{Base, Sum, Value};

pub fn compare(gold: &AnswerForm, answer: &AnswerForm, judge: &mut Judge) -> Result<bool, Reason> {
    let same = compare_content(gold, answer, judge)?;
    // An answer may omit the condition of the gold answer, but not add one.
    if same && answer.condition.is_some() && answer.condition != gold.condition {
        return Err("a condition that may restrict the answer".into());
    }
    Ok(same)
}

fn compare_content(gold: &AnswerForm, answer: &AnswerForm, judge: &mut Judge) -> Result<bool, Reason> {
    if gold.letters.is_some() && gold.letters == answer.letters {
        return Ok(judge.because("the same letters", true));
    }
    match (gold.choice, answer.choice) {
        (Some(one), Some(other)) if one != other => return Ok(judge.because("a different choice", false)),
        (Some(letter), None) if is_letter(answer, letter) => return Ok(judge.because("the same choice", true)),
        (None, Some(letter)) if is_letter(gold, letter) => return Ok(judge.because("the same choice", true)),
        _ => {}
    }
    if let Some(found) = labeled(gold, answer, judge)? {
        return Ok(found);
    }
    // A set that contains a set is not equal to that set.
    let set = |form: &AnswerForm| {
        matches!(&form.items[..], [Claim::Is { item: ClaimItem::Set(_) | ClaimItem::Region(_), .. }])
    };
    if gold.braces != answer.braces && (set(gold) || set(answer)) && (gold.items.len(), answer.items.len()) == (1, 1) {
        let element = if gold.braces { set(gold) } else { set(answer) };
        if element {
            return Ok(judge.because("a set of sets", false));
        }
    }
    if let Some(found) = as_regions(gold, answer, judge)? {
        return Ok(found);
    }
    unordered(&gold.items, &answer.items, judge)
}

fn is_letter(form: &AnswerForm, letter: char) -> bool {
    let [Claim::Is { target: None, item }] = &form.items[..] else { return false };
    let name = match item {
        ClaimItem::Text(text) => text,
        ClaimItem::Quantity(quantity) => match &quantity.symbol {
            Some(name) => name,
            None => return false,
        },
        _ => return false,
    };
    name.len() == 1 && name.eq_ignore_ascii_case(&letter.to_string())
}

/// Several unknowns with their assigned values.
struct Labels<'a> {
    names: Vec<String>,
    claims: Vec<&'a Claim>,
    /// They are in a tuple: `(y, x) = (1, 2)`.
    tuple: bool,
}

fn labels(form: &AnswerForm) -> Option<Labels<'_>> {
    if let [Claim::Is { target: Some(names), item: ClaimItem::Sequence { items, .. } }] = &form.items[..]
        && let Some(inner) = names.strip_prefix('(').and_then(|it| it.strip_suffix(')'))
    {
        let names: Vec<String> = inner.split(", ").map(String::from).collect();
        return (names.len() == items.len()).then(|| Labels { names, claims: items.iter().collect(), tuple: true });
    }
    let mut labels = Labels { names: Vec::new(), claims: Vec::new(), tuple: false };
    for claim in &form.items {
        let Claim::Is { target: Some(name), .. } = claim else { return None };
        let name = name.trim_start_matches('\\').to_string();
        if labels.names.contains(&name) {
            return None;
        }
        labels.names.push(name);
        labels.claims.push(claim);
    }
    (labels.names.len() > 1).then_some(labels)
}

/// Several unknowns: `x=1, y=2` is `(1, 2)`, and `1, 2` in that order.
fn labeled(gold: &AnswerForm, answer: &AnswerForm, judge: &mut Judge) -> Result<Option<bool>, Reason> {
    let (labels, bare, gold_first) = match (labels(gold), labels(answer)) {
        (Some(one), Some(other)) => {
            let mut pairs = Vec::new();
            for (name, claim) in one.names.iter().zip(&one.claims) {
                let Some(at) = other.names.iter().position(|it| it == name) else {
                    // Tuples with other names may still be the same point.
                    return Ok(if one.tuple && other.tuple {
                        None
                    } else {
                        Some(judge.because("a different name", false))
                    });
                };
                pairs.push((*claim, other.claims[at]));
            }
            if one.names.len() != other.names.len() {
                return Ok(Some(judge.because("a different number of values", false)));
            }
            return pairwise(pairs.into_iter(), judge).map(Some);
        }
        (Some(labels), None) => (labels, answer, true),
        (None, Some(labels)) => (labels, gold, false),
        _ => return Ok(None),
    };
    let (values, tuple) = match &bare.items[..] {
        [Claim::Is { item: ClaimItem::Sequence { open, items, close }, .. }]
            if is_vector(*open, *close, items.len()) =>
        {
            (items, true)
        }
        // A bare list is in the order of the gold answer's names; a list without names has no order.
        items if gold_first && items.len() > 1 && !labels.tuple => (&bare.items, false),
        _ => return Ok(None),
    };
    let mut claims: Vec<(String, &Claim)> = labels.names.into_iter().zip(labels.claims).collect();
    if tuple && !(labels.tuple && gold_first) {
        claims.sort_by(|one, other| one.0.cmp(&other.0));
    }
    if values.len() != claims.len() {
        return Ok(Some(judge.because("a different number of values", false)));
    }
    pairwise(claims.into_iter().map(|it| it.1).zip(values), judge).map(Some)
}

/// Whether at least one is a set of reals other than a list, and both can be read as sets of reals.
fn as_regions(gold: &AnswerForm, answer: &AnswerForm, judge: &mut Judge) -> Result<Option<bool>, Reason> {
    let broad = |form: &AnswerForm| {
        form.items.iter().any(|it| match it {
            Claim::Relation(relations) => relations.region.is_some() && relations.solved,
            Claim::Is { item: ClaimItem::Region(_) | ClaimItem::Set(NamedSet::Reals | NamedSet::Empty), .. } => true,
            _ => false,
        })
    };
    if !broad(gold) && !broad(answer) {
        return Ok(None);
    }
    let (Some((one, name)), Some((other, other_name))) = (whole(gold, judge)?, whole(answer, judge)?) else {
        return Ok(None);
    };
    if name.is_some() && other_name.is_some() && name != other_name {
        return Ok(Some(judge.because("a different variable", false)));
    }
    let same = one.same(&other, judge.meter)?;
    Ok(Some(judge.because(if same { "the same set of reals" } else { "a different set of reals" }, same)))
}

/// All items of a form as one set of reals, with its name.
fn whole(form: &AnswerForm, judge: &mut Judge) -> Result<Option<(Region, Option<String>)>, Reason> {
    let mut union = Region::default();
    let mut variable = None;
    for claim in &form.items {
        let name = match claim {
            Claim::Relation(relations) if !relations.solved => return Ok(None),
            Claim::Relation(relations) => relations.variable.as_ref().map(|it| it.symbols().join(" ")),
            Claim::Is { target, .. } => target.clone(),
            _ => return Ok(None),
        };
        if name.is_some() && variable.is_some() && name != variable {
            return Ok(None);
        }
        variable = variable.or(name);
        let part = match claim {
            // The elements of a set that is the only item.
            Claim::Is { target: None, item: ClaimItem::Quantity(quantity) } if form.joiner == Some(Joiner::And) => {
                Some(Region::point(quantity.value.clone()))
            }
            _ => region(claim, judge.meter)?,
        };
        let Some(part) = part else { return Ok(None) };
        union = union.union(part, judge.meter)?;
    }
    Ok(Some((union, variable)))
}

/// Every item of `gold` matches one of `answer`, and no other item is left.
fn unordered(gold: &[Claim], answer: &[Claim], judge: &mut Judge) -> Result<bool, Reason> {
    if gold.len() != answer.len() {
        return Ok(judge.because("a different number of items", false));
    }
    matched(gold, answer, |one, other| same_claim(one, other, judge))
}

/// Every item of `gold` matches a separate item of `answer`, and both have the same number of items.
fn matched<T>(gold: &[T], answer: &[T], mut same: impl FnMut(&T, &T) -> Result<bool, Reason>) -> Result<bool, Reason> {
    let mut left: Vec<&T> = answer.iter().collect();
    for one in gold {
        let mut doubt = None;
        let found = left.iter().position(|other| {
            same(one, other).unwrap_or_else(|reason| {
                doubt = Some(reason);
                false
            })
        });
        match (found, doubt) {
            (Some(at), _) => drop(left.swap_remove(at)),
            (None, Some(reason)) => return Err(reason),
            (None, None) => return Ok(false),
        }
    }
    Ok(true)
}

fn ordered(gold: &[Claim], answer: &[Claim], judge: &mut Judge) -> Result<bool, Reason> {
    if gold.len() != answer.len() {
        return Ok(judge.because("a different number of items", false));
    }
    pairwise(gold.iter().zip(answer), judge)
}

fn pairwise<'a>(pairs: impl Iterator<Item = (&'a Claim, &'a Claim)>, judge: &mut Judge) -> Result<bool, Reason> {
    let mut doubt = None;
    for (one, other) in pairs {
        match same_claim(one, other, judge) {
            Ok(true) => {}
            // One difference is enough, even if other places are uncertain.
            Ok(false) => return Ok(false),
            Err(reason) => doubt = Some(reason),
        }
    }
    doubt.map_or(Ok(true), Err)
}

fn same_claim(gold: &Claim, answer: &Claim, judge: &mut Judge) -> Result<bool, Reason> {
    match (gold, answer) {
        (Claim::Is { target: one, item: gold }, Claim::Is { target: other, item: answer }) => {
            // `y = 5` is not `x = 5`, but a bare 5 equals both.
            if let (Some(one), Some(other)) = (one, other)
                && !one.eq_ignore_ascii_case(other)
            {
                return Ok(judge.because("a different name", false));
            }
            same_item(gold, answer, judge)
        }
        (Claim::False, _) | (_, Claim::False) => Ok(judge.because("a false chain of equations", false)),
        (Claim::Relation(one), Claim::Relation(other)) => same_relations(one, other, judge),
        (Claim::Relation(_), _) | (_, Claim::Relation(_)) => {
            Ok(judge.because("an inequality of another expression", false))
        }
        // `x + y = 5` gives the value of `x + y` if the gold answer is a number.
        (Claim::Is { target: None, item: ClaimItem::Quantity(gold) }, Claim::Equation { total: Some(total), .. })
            if gold.value.is_constant() =>
        {
            quantity::same(gold, total, judge)
        }
        _ if is_solved(gold) || is_solved(answer) => Ok(judge.because("an equation that is not solved", false)),
        _ => match (as_equation(gold, judge)?, as_equation(answer, judge)?) {
            (Some(one), Some(other)) => proportional(&one, &other, judge),
            _ => Ok(judge.because("an equation of another expression", false)),
        },
    }
}

/// `x = 5`; then `2x = 10` is a restated question and not an answer.
fn is_solved(claim: &Claim) -> bool {
    matches!(claim, Claim::Is { target: Some(_), item: ClaimItem::Quantity(quantity) } if quantity.value.is_constant())
}

fn same_relations(one: &Relations, other: &Relations, judge: &mut Judge) -> Result<bool, Reason> {
    if one.solved != other.solved && one.region.is_some() && other.region.is_some() {
        return Ok(judge.because("an inequality that is not solved", false));
    }
    if let (Some(a), Some(b)) = (&one.region, &other.region) {
        if one.variable != other.variable {
            return Ok(judge.because("a different variable", false));
        }
        let same = a.same(b, judge.meter)?;
        return Ok(judge.because("inequalities as sets of reals", same));
    }
    let same = one.links.len() == other.links.len() && one.links.iter().all(|it| other.links.contains(it));
    let plain = |it: &Relations| it.links.iter().all(|link| link.difference.is_canonical());
    if same || plain(one) && plain(other) {
        return Ok(judge.because(if same { "the same inequalities" } else { "inequalities differ" }, same));
    }
    Err("inequalities of different form".into())
}

fn as_equation(claim: &Claim, judge: &mut Judge) -> Result<Option<Value>, Reason> {
    match claim {
        Claim::Equation { difference, .. } => Ok(Some(difference.clone())),
        Claim::Is { target: Some(name), item: ClaimItem::Quantity(quantity) } => {
            Ok(Some(Value::symbol(name).minus(&quantity.value, judge.meter)?))
        }
        _ => Ok(None),
    }
}

/// Whether two equations are equivalent because one is a multiple of the other.
fn proportional(one: &Value, other: &Value, judge: &mut Judge) -> Result<bool, Reason> {
    if one.is_zero() || other.is_zero() {
        return Ok(judge.because("an equation that is always true", one.is_zero() && other.is_zero()));
    }
    let mut scaled = |value: &Value| -> Result<Sum, Reason> {
        let (_, rest) = value.over.without_quotients(judge.meter)?.content(judge.meter)?;
        Ok(rest)
    };
    let (one, other) = (scaled(one)?, scaled(other)?);
    if one == other || one == other.clone().negative() {
        return Ok(judge.because("equations are proportional", true));
    }
    // By a factor that is not rational.
    if let (Some(first), Some(second)) = (one.0.values().next(), other.0.values().next())
        && one.0.len() == other.0.len()
    {
        let (a, b) = (Value::rational(second.clone()), Value::rational(first.clone()));
        let (one, other) =
            (Value::from(one.clone()).times(&a, judge.meter)?, Value::from(other.clone()).times(&b, judge.meter)?);
        if one == other {
            return Ok(judge.because("equations are proportional", true));
        }
    }
    match one.is_polynomial() && other.is_polynomial() {
        true => Ok(judge.because("equations differ", false)),
        false => Err("equations of different form".into()),
    }
}

pub fn same_item(gold: &ClaimItem, answer: &ClaimItem, judge: &mut Judge) -> Result<bool, Reason> {
    match (gold, answer) {
        (ClaimItem::Text(one), ClaimItem::Text(other)) => Ok(judge.because("texts", same_text(one, other))),
        (ClaimItem::Text(text), ClaimItem::Quantity(quantity))
        | (ClaimItem::Quantity(quantity), ClaimItem::Text(text)) => {
            if text.contains(|c: char| c.is_ascii_digit()) {
                return Err("a text that contains a number".into());
            }
            let same = quantity.symbol.as_ref().is_some_and(|name| name.eq_ignore_ascii_case(text));
            Ok(judge.because("a text and a value", same))
        }
        // `f(t) = 2x` is not the function `f(x) = 2x`.
        (ClaimItem::Quantity(one), ClaimItem::Quantity(other))
            if constants::differ_in_argument(one, other) && !one.value.is_constant() =>
        {
            let same = constants::same_up_to_names(one, other, judge)?;
            Ok(judge.because("a function with another name for its argument", same))
        }
        (ClaimItem::Quantity(one), ClaimItem::Quantity(other)) => match quantity::same(one, other, judge) {
            Ok(true) => Ok(true),
            found => match constants::same_up_to_names(one, other, judge)? {
                true => Ok(judge.because("equal with other names for arbitrary constants", true)),
                false => found,
            },
        },
        (ClaimItem::Quantity(sum), ClaimItem::Matrix(rows)) | (ClaimItem::Matrix(rows), ClaimItem::Quantity(sum)) => {
            let Some(components) = sum.components(judge.meter)? else {
                return Ok(judge.because("answers of different kinds", false));
            };
            if rows.len() != 1 && rows[0].len() != 1 {
                return Ok(judge.because("a vector and a matrix", false));
            }
            same_components(components, rows.iter().flatten(), judge)
        }
        (ClaimItem::Quantity(sum), ClaimItem::Sequence { open, items, close })
        | (ClaimItem::Sequence { open, items, close }, ClaimItem::Quantity(sum))
            if is_vector(*open, *close, items.len()) =>
        {
            let Some(components) = sum.components(judge.meter)? else {
                return Ok(judge.because("answers of different kinds", false));
            };
            let cells: Option<Vec<&ClaimItem>> = items
                .iter()
                .map(|it| if let Claim::Is { target: None, item } = it { Some(item) } else { None })
                .collect();
            match cells {
                Some(cells) => same_components(components, cells.into_iter(), judge),
                None => Ok(judge.because("answers of different kinds", false)),
            }
        }
        (ClaimItem::Numeral { digits, base }, ClaimItem::Numeral { digits: other, base: other_base }) => {
            Ok(judge.because("digits and base", digits == other && base == other_base))
        }
        (ClaimItem::Numeral { digits, base: 10 }, ClaimItem::Quantity(quantity))
        | (ClaimItem::Quantity(quantity), ClaimItem::Numeral { digits, base: 10 }) => {
            let same = quantity.value.as_rational().is_some_and(|it| it.to_string() == *digits);
            Ok(judge.because("digits in base ten", same))
        }
        (ClaimItem::Ratio { parts, late }, ClaimItem::Ratio { parts: others, late: other }) => {
            same_ratio((parts, *late), (others, *other), judge)
        }
        (ClaimItem::Ratio { parts, late: None }, ClaimItem::Quantity(quantity))
        | (ClaimItem::Quantity(quantity), ClaimItem::Ratio { parts, late: None })
            if parts.len() == 2 && !parts[1].is_zero() =>
        {
            let quotient = parts[0].times(&parts[1].clone().inverse(judge.meter)?, judge.meter)?;
            same_number(&quotient, &quantity.value, judge)
        }
        (
            ClaimItem::Sequence { open, items, close },
            ClaimItem::Sequence { open: other_open, items: other_items, close: other_close },
        ) => {
            let vectors =
                is_vector(*open, *close, items.len()) && is_vector(*other_open, *other_close, other_items.len());
            if !vectors && (open, close) != (other_open, other_close) {
                return Ok(judge.because("different brackets", false));
            }
            let same = if *open == Bracket::Set { unordered } else { ordered };
            same(items, other_items, judge)
        }
        (ClaimItem::Matrix(one), ClaimItem::Matrix(other)) => same_matrix(one, other, judge),
        (ClaimItem::Matrix(rows), ClaimItem::Sequence { open, items, close })
        | (ClaimItem::Sequence { open, items, close }, ClaimItem::Matrix(rows))
            if is_vector(*open, *close, items.len()) && (rows.len() == 1 || rows[0].len() == 1) =>
        {
            let cells: Vec<&ClaimItem> = rows.iter().flatten().collect();
            if cells.len() != items.len() {
                return Ok(judge.because("a different number of items", false));
            }
            for (cell, claim) in cells.into_iter().zip(items) {
                let Claim::Is { target: None, item } = claim else { return Ok(false) };
                if !same_item(cell, item, judge)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        (ClaimItem::Set(one), ClaimItem::Set(other)) => Ok(judge.because("named sets", one == other)),
        (ClaimItem::Region(one), ClaimItem::Region(other)) => {
            let same = one.same(other, judge.meter)?;
            Ok(judge.because("sets of reals", same))
        }
        (ClaimItem::Cases(one), ClaimItem::Cases(other)) => same_cases(one, other, judge),
        // `\emptyset` and its names in words.
        (ClaimItem::Set(NamedSet::Empty), ClaimItem::Text(text))
        | (ClaimItem::Text(text), ClaimItem::Set(NamedSet::Empty)) => {
            Ok(judge.because("no solution", matches!(text.as_str(), "none" | "no values" | "impossible")))
        }
        _ => Ok(judge.because("answers of different kinds", false)),
    }
}

/// Whether the components of a vector are these two or three entries.
fn same_components<'a>(
    components: [Value; 3],
    cells: impl Iterator<Item = &'a ClaimItem>,
    judge: &mut Judge,
) -> Result<bool, Reason> {
    let cells: Vec<&ClaimItem> = cells.collect();
    let flat = components[2].is_zero();
    if !(cells.len() == 3 || cells.len() == 2 && flat) {
        return Ok(judge.because("a vector of another dimension", false));
    }
    for (component, cell) in components.into_iter().zip(cells) {
        if !same_item(&ClaimItem::Quantity(Box::new(Quantity::exact(component))), cell, judge)? {
            return Ok(judge.because("components differ", false));
        }
    }
    Ok(judge.because("the same components", true))
}

/// Words that are equal or synonyms.
fn same_text(one: &str, other: &str) -> bool {
    const SAME: [&[&str]; 3] = [
        &["does not exist", "dne", "undefined"],
        &["no solution", "none"],
        &["infinitely many", "infinite", "infinitely many solutions"],
    ];
    one == other || SAME.iter().any(|words| words.contains(&one) && words.contains(&other))
}

fn same_number(one: &Value, other: &Value, judge: &mut Judge) -> Result<bool, Reason> {
    let (same, rule) = equal(Term { value: one, expr: None }, Term { value: other, expr: None }, judge.meter)?;
    Ok(judge.because(rule, same))
}

/// Round brackets, angle brackets, and square brackets around more than two items, which cannot be an interval.
fn is_vector(open: Bracket, close: Bracket, length: usize) -> bool {
    match (open, close) {
        (Bracket::Round, Bracket::Round) | (Bracket::Angle, Bracket::Angle) => true,
        (Bracket::Square, Bracket::Square) => length > 2,
        _ => false,
    }
}

fn same_matrix(one: &[Vec<ClaimItem>], other: &[Vec<ClaimItem>], judge: &mut Judge) -> Result<bool, Reason> {
    if one.len() != other.len() || one[0].len() != other[0].len() {
        return Ok(judge.because("a matrix of a different shape", false));
    }
    let mut doubt = None;
    for (one, other) in one.iter().flatten().zip(other.iter().flatten()) {
        match same_item(one, other, judge) {
            Ok(true) => {}
            Ok(false) => return Ok(judge.because("entries of the matrix differ", false)),
            Err(reason) => doubt = Some(reason),
        }
    }
    doubt.map_or(Ok(true), Err)
}

fn same_cases(one: &[(Claim, Claim)], other: &[(Claim, Claim)], judge: &mut Judge) -> Result<bool, Reason> {
    if one.len() != other.len() {
        return Ok(judge.because("a different number of cases", false));
    }
    let same = matched(one, other, |(value, condition), (other, under)| {
        Ok(same_claim(value, other, judge)? && same_claim(condition, under, judge)?)
    })?;
    Ok(if same { true } else { judge.because("a case differs", false) })
}

/// Ratios are equal if proportional, times if they are the same; an hour after noon may be written in both ways.
fn same_ratio(
    one: (&[Value], Option<bool>),
    other: (&[Value], Option<bool>),
    judge: &mut Judge,
) -> Result<bool, Reason> {
    let ((a, late), (b, other_late)) = (one, other);
    if late.is_some() || other_late.is_some() {
        if late.is_some() && other_late.is_some() && late != other_late {
            return Ok(judge.because("before and after noon", false));
        }
        let zero = Value::integer(0);
        let part = |parts: &[Value], index: usize| parts.get(index).unwrap_or(&zero).clone();
        for index in 1..a.len().max(b.len()) {
            if !same_number(&part(a, index), &part(b, index), judge)? {
                return Ok(false);
            }
        }
        if same_number(&a[0], &b[0], judge)? {
            return Ok(judge.because("the same time", true));
        }
        // A twenty-four-hour clock on the side without a.m. or p.m.
        let (named, plain) = if late.is_some() { (a, b) } else { (b, a) };
        if late.is_some() == other_late.is_some() || late.or(other_late) != Some(true) {
            return Ok(judge.because("a different time", false));
        }
        let afternoon = named[0].plus(&Value::integer(12), judge.meter)?;
        let same = same_number(&afternoon, &plain[0], judge)?;
        return Ok(judge.because("times of the day", same));
    }
    if a.len() != b.len() {
        return Ok(judge.because("a different number of parts", false));
    }
    let mut same = true;
    for (one, other) in a.iter().zip(b) {
        same &= same_number(one, other, judge)?;
    }
    if same || a.iter().chain(b).any(Value::is_zero) {
        return Ok(judge.because("the same parts", same));
    }
    for (one, other) in a.iter().zip(b).skip(1) {
        let (left, right) = (a[0].times(other, judge.meter)?, b[0].times(one, judge.meter)?);
        if !same_number(&left, &right, judge)? {
            return Ok(judge.because("ratios differ", false));
        }
    }
    Ok(judge.because("ratios are proportional", true))
}

impl Sum {
    /// Multiplied by the factor that makes all exponents of symbols non-negative.
    fn without_quotients(&self, meter: &mut Meter) -> Result<Sum, Reason> {
        let mut factor = super::value::PowerProduct::new();
        for product in self.0.keys() {
            for (base, exponent) in product {
                let negative = *exponent < num_traits::Zero::zero();
                if negative && matches!(base, Base::Symbol(_)) {
                    let entry = factor.entry(base.clone()).or_insert_with(num_traits::Zero::zero);
                    *entry = (*entry).max(-exponent);
                }
            }
        }
        if factor.is_empty() {
            return Ok(self.clone());
        }
        self.times(&Sum::term(factor, num_traits::One::one(), meter)?, meter)
    }

    /// No symbol is in a denominator, a root or a function.
    fn is_polynomial(&self) -> bool {
        self.0.keys().flatten().all(|(base, exponent)| match base {
            Base::Prime(_) | Base::Imaginary => true,
            Base::Symbol(_) => exponent.is_integer() && *exponent > num_traits::Zero::zero(),
            _ => false,
        })
    }
}
