//! Notation that graders get wrong: units and signs in letters and words, numbers of combinations, sums, remainders,
//! vectors, functions with a quantifier; and what looks like it but has another value or none.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Signed, Zero};

use super::case::{CaseKind, Cases};
use super::gold::{Affix, GoldForm, GoldList, Number};
use crate::math::asks_for_percentage;

pub fn add(cases: &mut Cases) {
    match cases.gold.clone() {
        GoldForm::Number(number) => {
            let core = Number { affix: Affix::None, ..number.clone() }.spell(&number.value);
            if number.affix == Affix::Percent {
                all(
                    cases,
                    CaseKind::PercentWords,
                    &core,
                    &["@ percent", r"@\text{ per cent}", "@ pct", r"@\text{ percentage}"],
                );
            }
            if number.is_plain() {
                rewritten(cases, &number.value, &core);
                missed(cases, &number.value, &core);
            }
        }
        GoldForm::List(list) => self::list(cases, &list),
        GoldForm::Expression => {
            let gold = cases.text;
            if !gold.contains(['f', 'C']) {
                all(cases, CaseKind::Quantifier, gold, &[r"f(x) = @ \text{ for all } x", "f(x) := @"]);
                all(cases, CaseKind::Added, gold, &["(@) + C", "(@) + c_1", r"@ \text{ for } x > 0"]);
            }
            all(cases, CaseKind::Infinity, gold, &[r"(@) + \infty - \infty", r"(@) \cdot \infty^0"]);
        }
        GoldForm::Choice(_) | GoldForm::Word(_) | GoldForm::Other => {}
    }
}

/// Each spelling with the gold answer in the place of `@`.
fn all(cases: &mut Cases, kind: CaseKind, gold: &str, spellings: &[&str]) {
    for spelling in spellings {
        cases.boxed(kind, spelling.replace('@', gold));
    }
}

fn rewritten(cases: &mut Cases, value: &BigRational, core: &str) {
    all(cases, CaseKind::PlainUnit, core, &["@ m/s", r"@\ \mathrm{m\,s^{-1}}", "@ km/h", "@ N", r"@ \frac{m}{s}"]);
    all(cases, CaseKind::Dashes, core, &["\u{200b}@", "@\u{feff}", "\u{2060}@"]);
    if value.is_negative() {
        for dash in "‐‑‒—⁻﹣－".chars() {
            cases.boxed(CaseKind::Dashes, core.replacen('-', &dash.to_string(), 1));
        }
        all(cases, CaseKind::Dashes, core.trim_start_matches('-'), &[r"\text{negative } @"]);
    }
    all(
        cases,
        CaseKind::Markup,
        core,
        &["**@**", "`@`", "$@.$", r"@\ ", r"\text{The answer is } @", r"\text{So the answer is: } @"],
    );
    if value.is_positive() && !core.contains('\\') {
        all(cases, CaseKind::Currency, core, &[r"US\$@", "Rs. @", "@元", "@ USD"]);
    }
    all(cases, CaseKind::Series, core, &[r"\sum_{k=1}^{2} \frac{@}{2}", r"\prod_{k=1}^{1} (@)"]);
    all(
        cases,
        CaseKind::Quantifier,
        core,
        &[r"f(x) = @ \text{ for all } x", "f(x) := @", r"f(x) \equiv @, x \in \mathbb{R}"],
    );
    if let Some(number) = natural(value) {
        let (before, next): (BigInt, BigInt) = (&number - 1, &number + 1);
        // Two letters with small numbers are more often powers of a constant.
        if number > BigInt::from(2) {
            all(cases, CaseKind::Counting, &number.to_string(), &["C(@, 1)", "{}^{@}C_{1}", "C_{@}^{1}", "P(@, 1)"]);
        }
        if number.is_positive() {
            all(cases, CaseKind::Repeating, &before.to_string(), &[r"@.\overline{9}", r"@.\dot{9}"]);
        }
        cases.boxed(CaseKind::Remainder, format!(r"{} \bmod {next}", &number + &next));
    }
}

fn missed(cases: &mut Cases, value: &BigRational, core: &str) {
    all(
        cases,
        CaseKind::Infinity,
        core,
        &[
            r"@ + \infty - \infty",
            r"@ + 0 \cdot \infty",
            r"@ \cdot \infty^0",
            r"@ \cdot \frac{\infty}{\infty}",
            r"\infty",
        ],
    );
    all(cases, CaseKind::Added, core, &["@ + C", "@ + c_1", r"@ \text{ for } x > 0"]);
    all(
        cases,
        CaseKind::Excepted,
        core,
        &[r"\text{all real numbers except } @", r"\mathbb{R} \setminus \{@\}", r"x \neq @"],
    );
    if value.is_zero() || value.abs().is_one() {
        // Half of zero is zero, and one squared is one.
        return;
    }
    all(
        cases,
        CaseKind::TrailingWords,
        core,
        &[
            r"@ \text{ is wrong}",
            r"@ \text{ halves}",
            r"@ \text{ squared}",
            r"@ \text{ at least}",
            r"@ \text{ base 6}",
            r"@\text{M}",
            r"@ \text{ pairs}",
            r"@\text{ point five}",
            r"@ \text{ less than the answer}",
            r"\text{The answer is not } @",
        ],
    );
    all(cases, CaseKind::Scaled, core, &["@万", r"@ \text{ dozen}"]);
    let percent = if asks_for_percentage(&cases.question.text) { CaseKind::PercentWords } else { CaseKind::Scaled };
    all(cases, percent, core, &[r"@\%", r"@\text{ percent}", "@ per cent", "@ pct"]);
    all(
        cases,
        CaseKind::OtherNotation,
        core,
        &[r"@ \mathbf{i}", r"\sum_{k=1}^{3} \frac{@}{2}", r"\prod_{k=1}^{2} (@)"],
    );
    if let Some(number) = natural(value).filter(|it| *it > BigInt::from(3)) {
        all(
            cases,
            CaseKind::OtherNotation,
            &number.to_string(),
            &["C(@, 2)", "P(@, 2)", "{}^{@}C_{2}", r"@.\overline{1}"],
        );
        cases.boxed(CaseKind::OtherNotation, format!(r"{} \bmod {}", &number * 2 + 1, &number + 2));
    }
}

fn natural(value: &BigRational) -> Option<BigInt> {
    (value.is_integer() && !value.is_negative()).then(|| value.to_integer())
}

fn list(cases: &mut Cases, list: &GoldList) {
    let Some(values) = &list.values else { return };
    let items = &list.items;
    let vector = (2..=3).contains(&items.len()) && values.iter().any(|it| !it.is_zero());
    if (list.open, list.close) == ("(", ")") && vector {
        let sum = |items: &[String], fonts: [&str; 3]| {
            let terms: Vec<String> = items.iter().zip(fonts).map(|(item, axis)| format!("({item}){axis}")).collect();
            terms.join(" + ")
        };
        let (bold, hats) =
            ([r"\mathbf{i}", r"\mathbf{j}", r"\mathbf{k}"], [r"\hat{\imath}", r"\hat{\jmath}", r"\hat{k}"]);
        cases.boxed(CaseKind::Vectors, sum(items, bold));
        cases.boxed(CaseKind::Vectors, sum(items, hats));
        cases.boxed(CaseKind::Vectors, format!(r"\begin{{pmatrix}}{}\end{{pmatrix}}^T", items.join(" & ")));
        if values[0] != values[1] {
            let mut swapped = items.clone();
            swapped.swap(0, 1);
            cases.boxed(CaseKind::OtherOrder, sum(&swapped, bold));
        }
    }
    if list.is_half_open() && values[0] < values[1] {
        let (low, high) = (&items[0], &items[1]);
        let (first, second) = if list.open == "[" { ("<", r"\le") } else { (r"\le", "<") };
        cases.boxed(CaseKind::Flipped, format!("-({high}) {first} -x {second} -({low})"));
        cases.boxed(CaseKind::Openness, format!("-({high}) {second} -x {first} -({low})"));
    }
}
