//! Properties of the checker: laws that hold for any text, and limits on time. The table of cases is in
//! tests/it/answers.rs.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

#[test]
fn an_explanation_names_the_rule() {
    for (gold, answer, rule) in [
        ("1/2", "0.5", "equal rationals"),
        ("1/3", "0.3333", "the decimal rounds the exact value"),
        ("x+1", "x+2", "canonical forms differ"),
        (r"5 \text{ cm}", r"5 \text{ s}", "different units"),
        (r"\sqrt{3+2\sqrt{2}}", r"1+\sqrt{2}", "equal algebraic numbers"),
        ("(2, \\infty)", "x>2", "the same set of reals"),
    ] {
        assert_eq!(explain(gold, answer).rule, rule, "{gold} | {answer}");
    }
    let explained = explain(r"\frac{x^2-1}{2}", "@");
    assert_eq!(explained.gold, "(x^2 - 1)/2");
    assert!(explained.answer.starts_with("cannot be read"));
    assert_eq!(gold_flaw("5"), None);
    assert_eq!(gold_flaw("1=2").as_deref(), Some("a false chain of equations"));
}

#[test]
fn a_grade_distinguishes_no_answer_from_a_wrong_one() {
    let graded = |response| grade(response, "7", Scope::Response, Some("answer"));
    assert_eq!(graded(r"so \boxed{ 7 }").answer.as_deref(), Some("7"));
    assert_eq!(graded(r"so \boxed{7}").verdict, Verdict::Correct);
    assert_eq!(graded(r"so \boxed{8}").verdict, Verdict::Wrong);
    assert_eq!(graded(r"\boxed{8}. Hmm, wait: \boxed{7}").verdict, Verdict::Correct);
    let none = graded("final answer: 7");
    assert_eq!((none.answer, none.verdict, none.missing.as_deref()), (None, Verdict::Wrong, Some("no box")));
    // Nonsense in the last box is not replaced by an earlier number.
    assert!(matches!(graded(r"7 \boxed{7} \boxed{@@}").verdict, Verdict::Undecided(_)));
    assert!(matches!(graded(r"\boxed{7} \boxed{}").verdict, Verdict::Undecided(_)));
}

#[test]
fn a_verdict_is_written_as_json() {
    for verdict in [Verdict::Correct, Verdict::Wrong, Verdict::Undecided("why".into())] {
        let json = serde_json::to_string(&verdict).unwrap();
        assert_eq!(serde_json::from_str::<Verdict>(&json).unwrap(), verdict);
    }
    assert_eq!(serde_json::to_string(&Verdict::Undecided("why".into())).unwrap(), r#"{"undecided":"why"}"#);
}

#[test]
fn nothing_is_slow() {
    let tower = |depth: usize| format!("{}9{}", "9^{".repeat(depth), "}".repeat(depth));
    let nested = |open: &str, close: &str, depth: usize| format!("{}1{}", open.repeat(depth), close.repeat(depth));
    let mut attacks = vec![
        tower(2),
        tower(60),
        nested("{", "}", 10_000),
        nested("(", ")", 10_000),
        nested("(", ")", 200),
        nested("{", "}", 250),
        nested(r"\sqrt{", "}", 63),
        nested(r"2\frac{", "}{3}", 50),
        nested(r"\{", r"\}", 60),
        "-".repeat(500) + "1",
        "(".repeat(512),
        "{".repeat(512),
        "9".repeat(512),
        format!("1e{}", "9".repeat(100)),
        "2^{99999}".into(),
        "2^{99999}+1/3^{60000}".into(),
        "3^{60000}/2^{99000}-5^{40000}/7^{30000}".into(),
        format!("{}1", "2^{99999}*".repeat(50)),
        "(x+1)^{1000}".into(),
        "(a+b+c+d+e+f+g)^{30}".into(),
        format!("{}1", "(x+y+z+1)".repeat(50)),
        format!("{}1", "(x+1/(y+1/(z+1".to_string() + ")))*"),
        format!("{}1", (2..60).map(|it| format!(r"\sqrt[{it}]{{{it}}}+")).collect::<String>()),
        format!("{}1", (2..60).map(|it| format!(r"{it}^{{1/{}}}*", it + 7_919)).collect::<String>()),
        format!("{}1", (2..60).map(|it| format!("1/{it}^{{999}}+")).collect::<String>()),
        format!(r"\sqrt{{{}}}", "7".repeat(500)),
        r"\sqrt{18446744073709551557}".into(),
        r"\sqrt{2^{99999}}".into(),
        r"\sqrt[9999]{2^{9999}+1}".into(),
        format!("{}0", "1,".repeat(255)),
        format!("{}0", "1=".repeat(255)),
        format!("{}x", "x,".repeat(255)),
        "1+".repeat(255) + "1",
        "±1".repeat(100),
    ];
    attacks
        .extend(["\\", "^", "_", "\\frac", "\\text{", "$", "\\sqrt[", "1 ", "é"].map(|it| it.repeat(512 / it.len())));
    for attack in &attacks {
        let start = Instant::now();
        // Also as a gold answer of another form, so that the comparison is tested too.
        for verdict in [check(attack, attack), check(r"\sqrt{2}+\sqrt{3+\sqrt{x}}", attack), check(attack, "1.4142")] {
            if attack.len() > 512 {
                assert!(matches!(verdict, Verdict::Undecided(_)), "{verdict}");
            }
        }
        // Budgets count work and not time, so this is a wide margin: a slow build on a busy machine stays within it.
        assert!(start.elapsed() < Duration::from_secs(2), "{:?} for {attack}", start.elapsed());
    }
}

/// Pieces of texts, most of them meaningful.
fn piece() -> impl Strategy<Value = String> {
    const PIECES: &[&str] = &[
        "1",
        "23",
        "0.5",
        "3.14159",
        "x",
        "i",
        r"\pi",
        "+",
        "-",
        "*",
        "/",
        "^",
        "_",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        r"\{",
        r"\}",
        r"\frac",
        r"\sqrt",
        r"\sqrt[3]",
        r"\text{cm}",
        "%",
        r"\%",
        "=",
        ",",
        " ",
        r"\pm",
        r"\$",
        "$",
        "and",
        "e5",
        r"^\circ",
        "é",
        r"\left(",
        r"\right)",
        "Evelyn",
        ",\\!",
        "\\",
        r"\boxed{",
    ];
    prop_oneof![8 => prop::sample::select(PIECES).prop_map(String::from), 1 => any::<char>().prop_map(String::from)]
}

/// A number in one of its spellings, with its numerator and denominator.
fn number() -> impl Strategy<Value = (String, i64, i64)> {
    (-2_000i64..2_000, 1i64..60, 0..6).prop_map(|(over, under, spelling)| match spelling {
        0 => (format!("{over}"), over, 1),
        1 => (format!("{over}/{under}"), over, under),
        2 => (format!(r"\frac{{{over}}}{{{under}}}"), over, under),
        3 => (format!(r"{over}\%"), over, 100),
        4 => (format!("{}.{:02}", over.abs() / 100, over.abs() % 100), over.abs(), 100),
        _ => (format!(r"{over} \times 10^{{-3}}"), over, 1_000),
    })
}

proptest! {
    #[test]
    fn no_text_panics(pieces in prop::collection::vec(piece(), 0..40), other in prop::collection::vec(piece(), 0..12)) {
        let (text, other) = (pieces.concat(), other.concat());
        check(&other, &text);
        if gold_flaw(&text).is_none() {
            prop_assert_eq!(check(&text, &text), Verdict::Correct);
        }
        grade(&text, &other, Scope::Answer, Some("x"));
        grade(&format!(r"\boxed{{{text}}}"), &other, Scope::Response, None);
    }

    #[test]
    fn no_characters_panic(text in any::<String>()) {
        check(&text, &text);
        grade(&text, "1", Scope::Response, None);
    }

    #[test]
    fn numbers_are_equal_when_their_fractions_are((one, a, b) in number(), (other, c, d) in number()) {
        // A decimal with two places has too few digits to be a rounded value.
        let rounded = |text: &str| text.contains('.') && text.len() > 4;
        prop_assume!(!rounded(&one) && !rounded(&other));
        let expected = if a * d == c * b { Verdict::Correct } else { Verdict::Wrong };
        prop_assert_eq!(check(&one, &other), expected.clone());
        prop_assert_eq!(check(&other, &one), expected);
    }

    #[test]
    fn decimals_of_a_fraction_are_right_when_rounded_right(over in 1i64..5_000, under in 2i64..5_000, places in 1usize..12, slip in -2i64..3) {
        prop_assume!(over % under != 0);
        let unit = 10i64.pow(places as u32);
        let nearest = (2 * over * unit + under) / (2 * under);
        let digits = nearest + slip;
        prop_assume!(digits >= 0);
        let decimal = format!("{}.{:0places$}", digits / unit, digits % unit);
        let exact = digits * under == over * unit;
        let tie = 2 * (digits * under - over * unit).abs() == under;
        let right = exact || (digits >= 1_000 && (slip == 0 || tie));
        let expected = if right { Verdict::Correct } else { Verdict::Wrong };
        prop_assert_eq!(check(&format!(r"\frac{{{over}}}{{{under}}}"), &decimal), expected, "{}", decimal);
    }

    #[test]
    fn a_square_comes_out_of_a_root(a in 1i64..500, b in 1i64..500) {
        prop_assert_eq!(check(&format!(r"{a}\sqrt{{{b}}}"), &format!(r"\sqrt{{{}}}", a * a * b)), Verdict::Correct);
        prop_assert_eq!(check(&format!(r"{a}\sqrt{{{b}}}"), &format!(r"\sqrt{{{}}}", a * a * b + 1)), Verdict::Wrong);
    }
}
