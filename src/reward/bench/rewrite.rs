//! The gold answer in other spellings, each of which must pass.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Signed, Zero};

use super::case::{CaseKind, Cases};
use super::gold::{Affix, GoldForm, GoldList, Number, decimal_text, fraction_text, terminating};

pub fn add(cases: &mut Cases) {
    let gold = cases.text;
    cases.boxed(CaseKind::AsItStands, &cases.question.gold);
    layout(cases, gold);
    match cases.gold.clone() {
        GoldForm::Number(number) => self::number(cases, &number),
        GoldForm::List(list) => self::list(cases, &list),
        GoldForm::Choice(letter) => {
            for dress in [r"\text{@}", "(@)", r"\text{(@)}", r"\textbf{(@)}", r"\mathrm{@}"] {
                cases.boxed(CaseKind::Text, dress.replace('@', &letter.to_string()));
            }
        }
        GoldForm::Word(word) => {
            for dress in [r"\text{@}", "@", r"\text{ @ }", r"\textbf{@}", r"\mathrm{@}"] {
                cases.boxed(CaseKind::Text, dress.replace('@', &word));
            }
            cases.boxed(CaseKind::Text, format!(r"\text{{{}}}", word.to_lowercase()));
        }
        GoldForm::Expression => {
            for spelling in ["({@})", "({@})+0", "2({@})-({@})", r"\frac{2({@})}{2}", r"1 \cdot ({@})"] {
                cases.boxed(CaseKind::Arithmetic, spelling.replace("{@}", gold));
            }
        }
        GoldForm::Other => {}
    }
}

/// Changes that a reader does not see, or sees as style.
fn layout(cases: &mut Cases, gold: &str) {
    for answer in [
        r"$$\boxed{@}$$",
        r"\[ \boxed{@} \]",
        r"\( \boxed{ @ } \)",
        r"\boxed {@}",
        r"\fbox{@}",
        r"Therefore, $x = \boxed{@}$ is what was asked for.",
        r"\boxed{@.}",
        r"\boxed{\displaystyle @}",
        "\\boxed{\n@\n}",
    ] {
        // Not every gold answer can be followed by a period, and after a bare number it could be a decimal point.
        if !answer.contains("@.") || matches!(cases.gold, GoldForm::Number(_)) {
            cases.answered(CaseKind::Layout, &answer.replace('@', gold));
        }
    }
    // Between dollar signs a word is a product of symbols.
    if !gold.contains('$') && !matches!(cases.gold, GoldForm::Word(_)) {
        cases.boxed(CaseKind::Layout, format!("${gold}$"));
    }
    let mut styled = Vec::new();
    for name in ["frac", "dfrac", "tfrac"] {
        let plain = gold.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac");
        styled.push(plain.replace("\\frac", &format!("\\{name}")));
    }
    let bare = ["(", "[", "\\{"].iter().fold(gold.to_owned(), |text, it| text.replace(&format!("\\left{it}"), it));
    let bare = [")", "]", "\\}"].iter().fold(bare, |text, it| text.replace(&format!("\\right{it}"), it));
    // The index of a root is in square brackets too.
    if !bare.contains("\\left")
        && !bare.contains("\\right")
        && !["\\sqrt[", "\\text", "\\begin"].iter().any(|it| bare.contains(it))
    {
        let sized = ["(", "["].iter().fold(bare.clone(), |text, it| text.replace(it, &format!("\\left{it}")));
        styled.push([")", "]"].iter().fold(sized, |text, it| text.replace(it, &format!("\\right{it}"))));
        styled.push(bare);
    }
    for spelling in styled {
        if spelling != gold && !cases.list.iter().any(|case| case.response.contains(&format!("{{{spelling}}}"))) {
            cases.boxed(CaseKind::Layout, spelling);
        }
    }
}

fn number(cases: &mut Cases, number: &Number) {
    let value = &number.value;
    if value.is_integer() {
        integer(cases, number, &value.to_integer());
    } else {
        fraction(cases, number);
    }
    affix(cases, number);
    if value.is_positive() {
        cases.boxed(CaseKind::Sign, number.dress(&format!("+{}", core(number))));
    }
    if value.is_negative() && number.affix != Affix::Dollars {
        for minus in ["−", "- ", "–"] {
            cases.boxed(CaseKind::Sign, core(number).replace('-', minus));
        }
    }
    if number.is_plain() {
        for spelling in ["{@}+0", "x = {@}", r"\frac{2 \cdot ({@})}{2}", "{@} - 1 + 1"] {
            cases.boxed(CaseKind::Arithmetic, spelling.replace("{@}", &core(number)));
        }
    }
    let off = number.spell(&(value + BigRational::one()));
    let right = number.spell(value);
    cases.answered(CaseKind::Corrected, &format!(r"\boxed{{{off}}}. Hmm, wait, I made a slip: $\boxed{{{right}}}$."));
}

/// The number without its affix.
fn core(number: &Number) -> String {
    Number { affix: Affix::None, ..number.clone() }.spell(&number.value)
}

fn integer(cases: &mut Cases, number: &Number, value: &BigInt) {
    let digits = value.magnitude().to_string();
    let sign = if value.is_negative() { "-" } else { "" };
    for spelling in ["@.0", "@.00"] {
        cases.boxed(CaseKind::Decimal, number.dress(&spelling.replace('@', &value.to_string())));
    }
    if digits.len() > 3 {
        for separator in [",", "{,}", r",\!", r"\,", ""] {
            cases.boxed(CaseKind::Thousands, number.dress(&format!("{sign}{}", grouped(&digits, separator))));
        }
    }
    if number.is_plain() {
        cases.boxed(CaseKind::Fraction, format!(r"\frac{{{value}}}{{1}}"));
        cases.boxed(CaseKind::Fraction, format!(r"\frac{{{}}}{{3}}", value * 3));
        cases.boxed(CaseKind::Text, format!(r"\text{{{value}}}"));
        if let (first, rest @ [_, ..]) = digits.as_bytes().split_at(1) {
            let (first, rest) = (String::from_utf8_lossy(first), String::from_utf8_lossy(rest));
            cases.boxed(CaseKind::Decimal, format!(r"{sign}{first}.{rest} \times 10^{{{}}}", rest.len()));
        }
    }
}

fn fraction(cases: &mut Cases, number: &Number) {
    let value = &number.value;
    let (over, under) = (value.numer(), value.denom());
    let mut spell = |kind: CaseKind, core: String| cases.boxed(kind, number.dress(&core));
    for command in ["\\frac", "\\dfrac", "\\tfrac"] {
        spell(CaseKind::Fraction, fraction_text(value, command));
    }
    spell(CaseKind::Fraction, format!(r"\frac{{{over}}}{{{under}}}"));
    if number.is_plain() {
        spell(CaseKind::Fraction, format!("{over}/{under}"));
    }
    spell(CaseKind::Fraction, format!(r"\frac{{{}}}{{{}}}", over * 2, under * 2));
    let ten = BigInt::from(10);
    if over.is_positive() && *over < ten && *under < ten {
        spell(CaseKind::Fraction, format!(r"\frac{over}{under}"));
        spell(CaseKind::Fraction, format!(r"\frac {over}{under}"));
    }
    let whole = value.abs().to_integer();
    if !whole.is_zero() {
        let part = fraction_text(&value.abs().fract(), "\\frac");
        let sign = if value.is_negative() { "-" } else { "" };
        spell(CaseKind::Fraction, format!("{sign}{whole}{part}"));
        spell(CaseKind::Fraction, format!(r"{sign}{whole} {part}"));
    }
    match terminating(value) {
        Some(places) => {
            let decimal = decimal_text(value, places);
            spell(CaseKind::Decimal, format!("{decimal}0"));
            if whole.is_zero() {
                spell(CaseKind::Decimal, decimal.replacen("0.", ".", 1));
            }
            spell(CaseKind::Decimal, decimal);
        }
        // Rounded correctly, at a place that leaves enough digits to distinguish it from its neighbors.
        None if number.places.is_none() => spell(CaseKind::Decimal, rounded(value, 6)),
        None => {}
    }
}

/// With this many significant digits, rounded to the nearest.
fn rounded(value: &BigRational, digits: usize) -> String {
    let mut places = digits;
    let mut size = value.abs();
    let ten = BigRational::from(BigInt::from(10));
    while size >= BigRational::one() && places > 0 {
        (size, places) = (size / &ten, places - 1);
    }
    while size < ten.recip() && places < 40 {
        (size, places) = (size * &ten, places + 1);
    }
    let half = BigRational::new(BigInt::one(), BigInt::from(2) * BigInt::from(10).pow(places as u32));
    let sign = if value.is_negative() { "-" } else { "" };
    format!("{sign}{}", decimal_text(&(value.abs() + half), places))
}

/// A unit may be omitted or written differently; if the gold answer has no unit, the answer may have one.
fn affix(cases: &mut Cases, number: &Number) {
    let core = core(number);
    let spellings: &[&str] = match number.affix {
        Affix::None => &[r"@ \text{ units}", r"\$@"],
        Affix::Percent => &[r"@\%", "@%", r"@ \%", r"@\text{ percent}"],
        Affix::Degrees => &["@", r"@^{\circ}", "@°", r"@ \text{ degrees}"],
        Affix::Dollars => &["@", r"\$@", r"@ \text{ dollars}"],
        Affix::Unit(unit) => {
            for spelling in ["@", "@ U", r"@\text{U}", r"@\ \text{U}", r"@~\mathrm{U}", r"@\,\text{U}"] {
                cases.boxed(CaseKind::Unit, spelling.replace('U', unit).replace('@', &core));
            }
            &[]
        }
    };
    for spelling in spellings {
        // A minus sign before a currency sign has its own spelling.
        if !(spelling.starts_with(r"\$") && core.starts_with('-')) {
            cases.boxed(CaseKind::Unit, spelling.replace('@', &core));
        }
    }
}

fn list(cases: &mut Cases, list: &GoldList) {
    let tight = list.items.join(",");
    cases.boxed(CaseKind::Layout, format!("{}{tight}{}", list.open, list.close));
    cases.boxed(CaseKind::Layout, list.with(&list.items));
    cases.boxed(CaseKind::Layout, format!("{} {} {}", list.open, list.items.join(r",\ "), list.close));
    if list.is_unordered() {
        let backwards: Vec<String> = list.items.iter().rev().cloned().collect();
        cases.boxed(CaseKind::Order, list.with(&backwards));
        let mut turned = list.items.clone();
        turned.rotate_left(1);
        cases.boxed(CaseKind::Order, list.with(&turned));
        if list.open.is_empty() && list.items.len() == 2 {
            cases.boxed(CaseKind::Order, list.items.join(r" \text{ and } "));
        }
    }
}

fn grouped(digits: &str, separator: &str) -> String {
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push_str(separator);
        }
        text.push(digit);
    }
    text
}
