//! Answers that are close to the gold answer but wrong. Each is shown to differ before it is used.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Signed, Zero};

use super::case::{CaseKind, Cases};
use super::gold::{Affix, GoldForm, GoldList, Number, UNITS, decimal_text, exact, terminating};
use crate::math::asks_for_percentage;

/// `others` are the gold answers of other questions.
pub fn add(cases: &mut Cases, others: &[&str]) {
    match cases.gold.clone() {
        GoldForm::Number(number) => self::number(cases, &number),
        GoldForm::List(list) => self::list(cases, &list),
        GoldForm::Choice(letter) => {
            for other in ('A'..='E').filter(|it| *it != letter) {
                cases.boxed(CaseKind::OtherChoice, format!(r"\text{{({other})}}"));
            }
        }
        GoldForm::Word(word) => {
            let backwards: String = word.chars().rev().collect();
            for other in [format!("not {word}"), format!("{word}{word}"), backwards] {
                if !other.eq_ignore_ascii_case(&word) {
                    cases.boxed(CaseKind::OtherChoice, format!(r"\text{{{other}}}"));
                }
            }
        }
        GoldForm::Expression => {
            let gold = cases.text;
            for spelling in ["({@})+1", "({@})-1", r"({@})+\frac{1}{1000}"] {
                cases.boxed(CaseKind::OffByOne, spelling.replace("{@}", gold));
            }
        }
        GoldForm::Other => {}
    }
    for other in others {
        if surely_differ(&cases.gold, &GoldForm::read(other)) {
            cases.boxed(CaseKind::OtherGold, other);
        }
    }
}

/// Whether two gold answers certainly differ.
fn surely_differ(one: &GoldForm, other: &GoldForm) -> bool {
    match (one, other) {
        (GoldForm::Number(one), GoldForm::Number(other)) => {
            let apart = (&one.value - &other.value).abs();
            let larger = one.value.abs().max(other.value.abs());
            let exact = one.value.is_integer() && other.value.is_integer();
            // A decimal may be a rounded value, and fifty percent is a half.
            let wide = apart * BigInt::from(50) > larger;
            let percent = one.affix == Affix::Percent || other.affix == Affix::Percent;
            !percent && (wide || exact && one.value != other.value)
        }
        (GoldForm::Choice(one), GoldForm::Choice(other)) => one != other,
        (GoldForm::Word(one), GoldForm::Word(other)) => !one.eq_ignore_ascii_case(other),
        (GoldForm::Number(_), GoldForm::List(_) | GoldForm::Word(_))
        | (GoldForm::List(_) | GoldForm::Word(_), GoldForm::Number(_)) => true,
        _ => false,
    }
}

fn number(cases: &mut Cases, number: &Number) {
    let value = &number.value;
    let one = BigRational::one();
    let mut miss = |kind: CaseKind, other: BigRational| {
        if other != *value {
            cases.boxed(kind, number.spell(&other));
        }
    };
    miss(CaseKind::OffByOne, value + &one);
    miss(CaseKind::OffByOne, value - &one);
    if !value.is_integer() {
        // The last digit of a decimal, the numerator of a fraction.
        let unit = match number.places {
            Some(places) => BigRational::new(BigInt::one(), BigInt::from(10).pow(places as u32)),
            None => BigRational::new(BigInt::one(), value.denom().clone()),
        };
        miss(CaseKind::OffByOne, value + &unit);
        miss(CaseKind::OffByOne, value - &unit);
    }
    miss(CaseKind::SignFlipped, -value);
    // Fifty percent is a half: with a percent sign, a factor of a hundred is not a miss.
    if number.affix != Affix::Percent {
        let ten = BigRational::from(BigInt::from(10));
        for factor in [&ten * &ten, ten.clone(), ten.recip(), (&ten * &ten).recip()] {
            miss(CaseKind::Scaled, value * factor);
        }
    }
    if !value.is_zero() {
        miss(CaseKind::Reciprocal, value.recip());
    }
    // A question that asks for a percentage may have its number without the sign.
    if number.is_plain() && !value.is_zero() && !asks_for_percentage(&cases.question.text) {
        cases.boxed(CaseKind::Scaled, format!(r"{}\%", number.spell(value)));
    }
    digits(cases, number);
    cut_short(cases, number);
    other_unit(cases, number);
}

/// Two digits swapped, one omitted, one doubled.
fn digits(cases: &mut Cases, number: &Number) {
    let plain = Number { affix: Affix::None, ..number.clone() };
    let text = plain.spell(&number.value);
    let places: Vec<usize> =
        text.bytes().enumerate().filter(|(_, it)| it.is_ascii_digit()).map(|(place, _)| place).collect();
    let (place, next) = (*cases.draws.choose(&places), *cases.draws.choose(&places));
    let mut swapped = text.clone().into_bytes();
    swapped.swap(place, next);
    let mut dropped = text.clone();
    dropped.remove(place);
    let mut doubled = text.clone();
    doubled.insert(place, char::from(text.as_bytes()[place]));
    for other in [String::from_utf8(swapped).unwrap_or_default(), dropped, doubled] {
        if exact(&other).is_some_and(|(value, _)| value != number.value) {
            cases.boxed(CaseKind::Digits, number.dress(&other));
        }
    }
}

/// Decimals with one place too few, or truncated when they should be rounded up.
fn cut_short(cases: &mut Cases, number: &Number) {
    let value = &number.value;
    if value.is_integer() {
        // Close is not equal, however close.
        for slip in ["0.01", "0.00001"] {
            let (slip, _) = exact(slip).expect("a number");
            for near in [value + &slip, value - &slip] {
                let places = terminating(&near).unwrap_or(5);
                cases.boxed(CaseKind::CutShort, number.dress(&decimal_text(&near, places)));
            }
        }
        return;
    }
    let mut lengths: Vec<usize> = Vec::new();
    match number.places.or(terminating(value)) {
        Some(places) => lengths.extend(places.checked_sub(1)),
        None => lengths.extend([1, 2, 6, 7, 8]),
    }
    for places in lengths {
        let unit = BigRational::new(BigInt::one(), BigInt::from(10).pow(places as u32));
        let text = decimal_text(value, places);
        let (cut, _) = exact(&text).expect("a decimal");
        let significant = text.trim_start_matches(['-', '0', '.']).bytes().filter(u8::is_ascii_digit).count();
        let lost = (value - &cut).abs();
        // A decimal with fewer than four digits means exactly its value; with more, it may be a rounded value.
        let rounds_up = &lost * BigInt::from(2) > unit;
        if !lost.is_zero() && (significant < 4 || rounds_up) {
            cases.boxed(CaseKind::CutShort, number.dress(&text));
        }
    }
}

fn other_unit(cases: &mut Cases, number: &Number) {
    let other = match number.affix {
        Affix::Unit(unit) => UNITS.iter().find(|(name, _)| *name == unit).map(|(_, other)| *other),
        Affix::Dollars => Some("cents"),
        Affix::Degrees => Some("meters"),
        Affix::None | Affix::Percent => None,
    };
    if let Some(other) = other.filter(|_| !number.value.is_zero()) {
        let core = Number { affix: Affix::None, ..number.clone() }.spell(&number.value);
        cases.boxed(CaseKind::OtherUnit, format!(r"{core} \text{{ {other}}}"));
    }
}

fn list(cases: &mut Cases, list: &GoldList) {
    if list.is_half_open() && list.items[0] != list.items[1] {
        let (open, close) = if list.open == "[" { ("(", "]") } else { ("[", ")") };
        cases.boxed(CaseKind::Openness, GoldList { open, close, ..list.clone() }.with(&list.items));
    }
    let Some(values) = &list.values else { return };
    let place = cases.draws.below(values.len() as u64) as usize;
    let next = &values[place] + BigRational::one();
    let mut changed = list.items.clone();
    changed[place] = super::gold::fraction_text(&next, "\\frac");
    // In a set, the changed element might equal another one.
    if !(list.is_unordered() && values.contains(&next)) {
        cases.boxed(CaseKind::OtherPart, list.with(&changed));
    }
    let twice = values.iter().enumerate().any(|(i, value)| values[..i].contains(value));
    if list.is_unordered() {
        if twice {
            return;
        }
        let largest = values.iter().max().expect("a list has items");
        let more = super::gold::fraction_text(&(largest + BigRational::one()), "\\frac");
        cases.boxed(CaseKind::OtherPart, list.with(&[&list.items[..], &[more]].concat()));
        cases.boxed(CaseKind::OtherPart, list.with(&list.items[1..]));
    } else if values[0] != values[values.len() - 1] {
        let mut swapped = list.items.clone();
        let last = swapped.len() - 1;
        swapped.swap(0, last);
        cases.boxed(CaseKind::OtherOrder, list.with(&swapped));
    }
}
