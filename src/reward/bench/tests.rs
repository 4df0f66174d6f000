//! The bench finds the errors of a reward, and finds none if there are none.

use std::collections::BTreeSet;

use num_rational::BigRational;
use num_traits::Signed;

use super::gold::{GoldForm, exact};
use super::*;
use crate::config::{BenchMode, OptionalSection, RewardSection};
use crate::math::{Extracted, Scope, extract_boxed};
use crate::prompt::PriorPrompt;
use crate::reward::tests::{prompt, section};
use crate::reward::{Reward, Score};

/// Gold answers of every kind that the bench distinguishes.
const GOLDS: [&str; 18] = [
    "18",
    "0",
    "-7",
    "12,345",
    r"\frac{3}{4}",
    r"-\frac{7}{3}",
    "2.125",
    r"12.5\%",
    r"\$40",
    r"55^\circ",
    r"5\text{ cm}",
    r"\text{(C)}",
    r"\text{Evelyn}",
    r"2\sqrt{3}",
    "(1, -2)",
    "[0, 4)",
    "3, -5",
    r"\{1, 2, 9\}",
];

fn questions(golds: &[&str]) -> Vec<Question> {
    let question = |(i, gold): (usize, &&str)| Question {
        id: i.to_string(),
        text: format!("State the number on card {i} after you draw it."),
        gold: gold.to_string(),
        source: "test".into(),
        extra: serde_json::Map::new(),
    };
    golds.iter().enumerate().map(question).collect()
}

/// A reward that consists only of `check`, which returns whether a completion is right.
struct Mutant(fn(&str, &str) -> bool);

impl Reward for Mutant {
    fn name(&self) -> &str {
        "accuracy"
    }

    fn score(&self, sample: &RewardInput) -> Score {
        let right = self.0(sample.response, &sample.question.gold);
        let verdict = if right { Verdict::Correct } else { Verdict::Wrong };
        Score { value: Some(f64::from(u8::from(right))), verdict: Some(verdict), ..Score::default() }
    }
}

fn boxed(response: &str) -> Option<&str> {
    match extract_boxed(response, Scope::Response, None) {
        Extracted::Answer(answer) => Some(answer),
        Extracted::Missing(_) => None,
    }
}

fn number(text: &str) -> Option<f64> {
    text.replace(',', "").parse().ok()
}

/// The kinds of case that a mutant gets wrong.
fn caught(check: fn(&str, &str) -> bool, golds: &[&str]) -> BTreeSet<CaseKind> {
    let think = prompt(Some("think"));
    let frame = Frame { prompt: &think, prefilled: false, in_answer: false };
    let rewards = RewardSet::of(vec![(Box::new(Mutant(check)), 1.0)]);
    let report = run(&rewards, frame, &questions(golds), 100, 1);
    report.failures.iter().map(|it| it.kind).collect()
}

#[track_caller]
fn assert_caught(check: fn(&str, &str) -> bool, golds: &[&str], by: &[CaseKind]) {
    let caught = caught(check, golds);
    for kind in by {
        assert!(caught.contains(kind), "{kind:?} is missing from {caught:?}");
    }
}

#[test]
fn a_reward_that_accepts_too_much_is_detected() {
    let integers = &["18", "250", "1,200", "-7"];
    // Any box at all.
    assert_caught(
        |text, _| boxed(text).is_some(),
        &GOLDS,
        &[CaseKind::OffByOne, CaseKind::Empty, CaseKind::Hedge, CaseKind::Injection],
    );
    // The right text anywhere.
    assert_caught(
        |text, gold| text.contains(gold),
        integers,
        &[CaseKind::NoBox, CaseKind::UnclosedBox, CaseKind::EarlierBox],
    );
    // The right text anywhere in the box.
    let contains = |text: &str, gold: &str| boxed(text).is_some_and(|it| it.contains(gold));
    assert_caught(
        contains,
        integers,
        &[CaseKind::Hedge, CaseKind::EveryOption, CaseKind::FalseChain, CaseKind::Code, CaseKind::Tower],
    );
    // The first box, whatever comes later.
    let first = |text: &str, gold: &str| text.split(r"\boxed{").nth(1).is_some_and(|it| it.starts_with(gold));
    assert_caught(first, integers, &[CaseKind::EarlierBox, CaseKind::Corrected]);
    // The last side of a chain.
    let last =
        |text: &str, gold: &str| boxed(text).and_then(|it| it.rsplit('=').next()).is_some_and(|it| it.trim() == gold);
    assert_caught(last, integers, &[CaseKind::FalseChain]);
    // A relative tolerance, and a percent more or less.
    let near = |text: &str, gold: &str| {
        let (Some(one), Some(other)) = (boxed(text).and_then(number), number(gold)) else { return false };
        [1.0, 100.0, 0.01].iter().any(|factor| (one * factor - other).abs() < 1e-3 * other.abs())
    };
    assert_caught(near, integers, &[CaseKind::Scaled, CaseKind::CutShort]);
    // The sign is ignored.
    let unsigned = |text: &str, gold: &str| {
        boxed(text).is_some_and(|it| it.trim_start_matches('-') == gold.trim_start_matches('-'))
    };
    assert_caught(unsigned, integers, &[CaseKind::SignFlipped]);
    // Brackets are removed, and order is ignored.
    let jumbled = |text: &str, gold: &str| {
        let letters = |text: &str| {
            let mut letters: Vec<char> = text.chars().filter(|it| it.is_ascii_alphanumeric() || *it == '-').collect();
            letters.sort_unstable();
            letters
        };
        boxed(text).is_some_and(|it| letters(it) == letters(gold))
    };
    assert_caught(jumbled, &GOLDS, &[CaseKind::OtherOrder, CaseKind::Openness]);
    // Only the number of a quantity.
    let bare = |text: &str, gold: &str| {
        let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
        boxed(text).is_some_and(|it| digits(it) == digits(gold))
    };
    assert_caught(bare, &GOLDS, &[CaseKind::OtherUnit, CaseKind::OtherChoice]);
}

#[test]
fn a_reward_that_rejects_too_much_is_detected() {
    // Exactly the text of the gold answer.
    let same = |text: &str, gold: &str| boxed(text) == Some(gold);
    assert_caught(
        same,
        &GOLDS,
        &[
            CaseKind::Layout,
            CaseKind::Fraction,
            CaseKind::Decimal,
            CaseKind::Thousands,
            CaseKind::Sign,
            CaseKind::Arithmetic,
            CaseKind::Unit,
            CaseKind::Text,
            CaseKind::Order,
        ],
    );
    assert!(!caught(same, &GOLDS).contains(&CaseKind::AsItStands));
    assert!(caught(same, &GOLDS).iter().all(|kind| kind.is_rewriting()), "no wrong answer is accepted");
}

#[test]
fn every_kind_of_case_is_tried() {
    let think = prompt(Some("think"));
    let frame = Frame { prompt: &think, prefilled: false, in_answer: false };
    let questions = questions(&GOLDS);
    let kinds: BTreeSet<CaseKind> =
        questions.iter().flat_map(|it| cases(frame, it, &questions, 1)).map(|case| case.kind).collect();
    assert_eq!(kinds.len(), CaseKind::BrokenTags as usize + 1, "{kinds:?}");
}

/// The expected verdict does not come from the checker: if a case is a plain number, the bench's own arithmetic must
/// agree.
#[test]
fn numbers_are_right_if_their_value_is() {
    let think = prompt(Some("think"));
    let frame = Frame { prompt: &think, prefilled: false, in_answer: false };
    let golds: Vec<String> = (-40..400)
        .map(|it| match it % 4 {
            0 => format!("{it}"),
            1 => format!("{}.{}", it / 10, (it % 10i32).abs()),
            2 => format!(r"\frac{{{it}}}{{7}}"),
            _ => format!("{}", it * 997),
        })
        .collect();
    let golds: Vec<&str> = golds.iter().map(String::as_str).collect();
    let questions = questions(&golds);
    let mut seen = [0, 0];
    for question in &questions {
        let GoldForm::Number(gold) = GoldForm::read(&question.gold) else { panic!("{}", question.gold) };
        for case in cases(frame, question, &questions, 1) {
            let Some((value, places)) = boxed(&case.response).and_then(exact) else { continue };
            // Rounded decimals also represent the value that was rounded.
            let apart = (&value - &gold.value).abs() * BigRational::from_integer(100_000.into());
            let near = places.is_some() && case.right && apart < gold.value.abs();
            let equal = value == gold.value || near;
            assert_eq!(equal, case.right, "{:?}: {} for {}", case.kind, case.response, question.gold);
            seen[usize::from(case.right)] += 1;
        }
    }
    assert!(seen.iter().all(|it| *it > 2_000), "{seen:?}");
}

#[test]
fn the_rules_pass_under_every_prompt_and_scope() {
    let golds = ["18", "0", "-7.", "1,200", r"\frac{3}{4}", "0.25", r"\$40", "(1, 2)"];
    let answer_only = PriorPrompt { tag: None, ..prompt(Some("plan")) };
    for prompt in [prompt(Some("plan")), prompt(None), answer_only] {
        for (prefilled, scope) in
            [(false, Scope::Response), (true, Scope::Response), (false, Scope::Answer), (true, Scope::Answer)]
        {
            let (tag, prefilled) = (&prompt.tag, prefilled && prompt.tag.is_some());
            let part = || OptionalSection { weight: prompt.answer_tag.as_ref().map(|_| 0.5) };
            let mut section = RewardSection { format_strict: part(), tag_count: part(), ..section(None, None) };
            section.accuracy.scope = scope;
            let rewards = RewardSet::from_config(&section, &prompt, 100).unwrap();
            let frame = Frame { prompt: &prompt, prefilled, in_answer: scope == Scope::Answer };
            let report = run(&rewards, frame, &questions(&golds), 100, 1);
            assert!(report.failures.is_empty(), "{tag:?} {prefilled} {scope:?}: {:#?}", report.failures);
            assert_eq!(report.tallies.contains_key(&CaseKind::BrokenTags), tag.is_some());
        }
    }
}

#[test]
fn the_seed_selects_the_cases() {
    let think = prompt(Some("think"));
    let frame = Frame { prompt: &think, prefilled: false, in_answer: false };
    let golds: Vec<String> = (1_000..1_100).map(|it| it.to_string()).collect();
    let questions = questions(&golds.iter().map(String::as_str).collect::<Vec<_>>());
    let tried = |seed| cases(frame, &questions[7], &questions, seed);
    assert_eq!(tried(1), tried(1));
    assert_ne!(tried(1), tried(2));

    // Which gold answers are selected is visible in those that a mutant fails on.
    let rewards = RewardSet::of(vec![(Box::new(Mutant(|_, _| false)), 1.0)]);
    let drawn = |seed, limit| {
        let report = run(&rewards, frame, &questions, limit, seed);
        assert_eq!(report.golds, limit);
        report.failures.iter().map(|it| it.id.clone()).collect::<BTreeSet<_>>()
    };
    assert_eq!(drawn(1, 10), drawn(1, 10));
    assert_ne!(drawn(1, 10), drawn(2, 10));
    assert_eq!(drawn(1, 10).len(), 10);
}

#[test]
fn limits_are_distinguished() {
    let think = prompt(Some("think"));
    let frame = Frame { prompt: &think, prefilled: false, in_answer: false };
    let report = |check: fn(&str, &str) -> bool, golds: &[&str]| {
        run(&RewardSet::of(vec![(Box::new(Mutant(check)), 1.0)]), frame, &questions(golds), 100, 1)
    };
    let strict = PassLimits::default();
    let kind = report(|_, _| true, &["18"]);
    assert!(kind.breach(&strict).unwrap().ends_with("false accepts (100.00 %), more than 0 %"));
    assert_eq!(kind.breach(&PassLimits { false_accept: 1.0, ..strict }), None);
    let harsh = report(|_, _| false, &["18"]);
    assert!(harsh.breach(&strict).unwrap().ends_with("%), more than 0.5 %"), "{:?}", harsh.breach(&strict));
    assert!(harsh.total().false_rejects > 10 && harsh.total().false_accepts == 0);
    let unread = report(|_, _| true, &[r"\frac{1}{", "18"]);
    assert_eq!(unread.breach(&strict).unwrap(), "1 gold answers that cannot be read (50.00 %), more than 5 %");
    let none = report(|_, _| true, &[r"\frac{1}{"]);
    assert_eq!(none.breach(&PassLimits { unreadable: 1.0, ..strict }).unwrap(), "no gold answer can be read");
}

#[test]
fn too_many_unreadable_gold_answers_are_refused_with_their_reasons() {
    let golds = ["1", "2", "3", r"\frac{1}{", "5", "6", "7", "8", "9", "10"];
    let (kept, note) = gate::readable(questions(&golds), "training", 0.1).unwrap();
    assert_eq!(kept.len(), 9);
    let note = note.unwrap();
    assert!(
        note.starts_with(
            r"1 of 10 training questions left out: gold answer unreadable (first: question 3: `\frac{1}{`: "
        ),
        "{note}"
    );
    let error = gate::readable(questions(&golds), "training", 0.05).unwrap_err().to_string();
    assert!(
        error.starts_with(
            "the gold answers of 1 of 10 training questions cannot be read (10.0 %, more than 5 %): question 3"
        ),
        "{error}"
    );
    assert!(error.contains("\nhint: ") && error.contains("data.max_unreadable"), "{error}");
    assert_eq!(gate::readable(questions(&["1"]), "training", 0.0).unwrap().1, None);
}

#[test]
fn a_reward_that_fails_the_quick_test_is_refused() {
    let think = prompt(Some("think"));
    let frame = Frame { prompt: &think, prefilled: false, in_answer: false };
    let strict = section(None, None);
    let rules = RewardSet::from_config(&strict, &think, 100).unwrap();
    let golds = questions(&["18", "7"]);
    let none = Vec::<String>::new();
    assert_eq!(gate::test(&rules, &strict, frame, &golds, 1, 8).unwrap(), none);
    assert_eq!(gate::test(&rules, &strict, frame, &[], 1, 8).unwrap(), none);

    let mutant = RewardSet::of(vec![(Box::new(Mutant(|_, _| true)), 1.0)]);
    let error = gate::test(&mutant, &strict, frame, &golds, 1, 8).unwrap_err().to_string();
    let start = "the reward failed its test on 2 questions: ";
    assert!(
        error.starts_with(start) && error.contains("\nhint: ") && error.contains("(off by one), gold `18`"),
        "{error}"
    );
    let section = RewardSection { bench: BenchMode::Warn, ..strict.clone() };
    let notes = gate::test(&mutant, &section, frame, &golds, 1, 8).unwrap();
    assert!(notes[0].starts_with(start), "{notes:?}");
    let section = RewardSection { max_bench_failures: 10_000, ..strict.clone() };
    assert_eq!(gate::test(&mutant, &section, frame, &golds, 1, 8).unwrap(), none);

    let harsh = RewardSet::of(vec![(Box::new(Mutant(|_, _| false)), 1.0)]);
    let error = gate::test(&harsh, &strict, frame, &golds, 1, 8).unwrap_err().to_string();
    assert!(error.contains(" 0 of ") && error.contains("false reject of accuracy ("), "{error}");
}

/// The tests of a row may be so weak that a program that solves nothing passes them.
#[test]
fn a_code_reward_with_weak_tests_is_refused() {
    let think = prompt(Some("think"));
    let frame = Frame { prompt: &think, prefilled: false, in_answer: false };
    let mut section = section(Some(0.0), Some(0.0));
    section.code.weight = Some(1.0);
    let Ok(rewards) = RewardSet::from_config(&section, &think, 100) else { return };
    let row = |tests: &str| {
        let mut question = questions(&[""]).remove(0);
        question.extra.insert("tests".into(), serde_json::from_str(tests).unwrap());
        vec![question]
    };
    let sound = row(r#"["assert add([1, 2]) == 3"]"#);
    assert_eq!(gate::test(&rewards, &section, frame, &sound, 1, 8).unwrap(), Vec::<String>::new());
    let weak = row(r#"[{"stdin": "1", "stdout": ""}]"#);
    let error = gate::test(&rewards, &section, frame, &weak, 1, 8).unwrap_err().to_string();
    assert!(error.contains("false accept of code ("), "{error}");
}
