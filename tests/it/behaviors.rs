//! Tests the rules that find behaviors against labels; `--nocapture` prints the figures of docs/behaviors.md.

use std::collections::BTreeMap;
use std::fmt::Write;

use proptest::prelude::*;
use rft::behavior::agreement::ConfusionCounts;
use rft::behavior::{BehaviorSpan, Class, Classifier, RuleAgreement};
use rft::disk::hash::sha256;
use rft::prompt;
use serde::Deserialize;

const LABELS: &str = include_str!("../fixtures/behaviors.jsonl");

#[derive(Deserialize)]
struct Labelled {
    id: String,
    /// `model` or `written`.
    source: String,
    split: Split,
    /// The prior prompt.
    ppe: String,
    question: String,
    text: String,
    spans: Vec<Label>,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Split {
    Development,
    Frozen,
}

#[derive(Deserialize)]
struct Label {
    class: Class,
    start: usize,
    end: usize,
}

impl Labelled {
    fn labels(&self) -> Vec<BehaviorSpan> {
        let span = |label: &Label| BehaviorSpan {
            class: label.class,
            start: label.start,
            end: label.end,
            rule: String::new(),
        };
        self.spans.iter().map(span).collect()
    }

    fn found(&self) -> Vec<BehaviorSpan> {
        let prior = prompt::find(&self.ppe).unwrap();
        Classifier::built_in().classify(&format!("{}\n{}", prior.text, self.question), &self.text)
    }
}

fn labelled() -> Vec<Labelled> {
    LABELS.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The classes found in a completion of an empty prompt.
fn classes(response: &str) -> Vec<Class> {
    let mut classes: Vec<Class> =
        Classifier::built_in().classify("", response).into_iter().map(|span| span.class).collect();
    classes.dedup();
    classes
}

fn shows(class: Class, response: &str) -> bool {
    classes(response).contains(&class)
}

#[test]
fn the_labels_are_valid() {
    let rows = labelled();
    let count = |holds: &dyn Fn(&Labelled) -> bool| rows.iter().filter(|row| holds(row)).count();
    assert!(rows.len() >= 300, "{} completions", rows.len());
    assert!(count(&|row| row.source == "model") >= 200);
    assert!(count(&|row| row.split == Split::Frozen) >= 100);
    for row in &rows {
        // The frozen completions were selected by their names, before the rules were written.
        let byte = u8::from_str_radix(&sha256(row.id.as_bytes())[..2], 16).unwrap();
        assert_eq!(row.split == Split::Frozen, byte < 0x80, "{}", row.id);
        for label in &row.spans {
            assert!(label.start < label.end && row.text.get(label.start..label.end).is_some(), "{}", row.id);
        }
    }
    for class in Class::ALL {
        let frozen = count(&|row| row.split == Split::Frozen && row.spans.iter().any(|label| label.class == class));
        assert!(frozen >= 5, "{class}: {frozen} frozen completions show it");
    }
}

/// The share of found spans that are present; `None` if nothing was found.
fn precision(counts: &ConfusionCounts) -> Option<f64> {
    ratio(counts.true_positives, counts.true_positives + counts.false_positives)
}

/// The share of present spans that were found; `None` if nothing is present.
fn recall(counts: &ConfusionCounts) -> Option<f64> {
    ratio(counts.true_positives, counts.true_positives + counts.false_negatives)
}

/// The harmonic mean of precision and recall.
fn f1(counts: &ConfusionCounts) -> Option<f64> {
    ratio(2 * counts.true_positives, 2 * counts.true_positives + counts.false_positives + counts.false_negatives)
}

fn ratio(above: usize, below: usize) -> Option<f64> {
    (below > 0).then(|| above as f64 / below as f64)
}

/// Adds one completion: whether the spans of `class` in `found` and in `there` overlap. Each span is matched with at most one
/// span of the other list. True negatives are not defined, because text without spans cannot be counted.
fn match_spans(counts: &mut ConfusionCounts, class: Class, found: &[BehaviorSpan], there: &[BehaviorSpan]) {
    let of = |spans: &[BehaviorSpan]| {
        let mut ranges: Vec<(usize, usize)> =
            spans.iter().filter(|span| span.class == class).map(|span| (span.start, span.end)).collect();
        ranges.sort_unstable();
        ranges
    };
    let (found, there) = (of(found), of(there));
    let mut taken = vec![false; there.len()];
    let mut met = 0;
    for (start, end) in &found {
        let meets = |&(from, to): &(usize, usize)| from < *end && *start < to;
        if let Some(index) = (0..there.len()).find(|&index| !taken[index] && meets(&there[index])) {
            taken[index] = true;
            met += 1;
        }
    }
    counts.true_positives += met;
    counts.false_positives += found.len() - met;
    counts.false_negatives += there.len() - met;
}

#[test]
fn a_span_is_matched_once() {
    let span = |start, end| BehaviorSpan { class: Class::Code, start, end, rule: String::new() };
    let mut counts = ConfusionCounts::default();
    match_spans(&mut counts, Class::Code, &[span(0, 4), span(2, 9), span(20, 22)], &[span(1, 8), span(30, 31)]);
    assert_eq!((counts.true_positives, counts.false_positives, counts.false_negatives), (1, 2, 1));
}

/// By completion: whether the class is present. By span: whether spans overlap.
fn tallies<'a>(rows: impl Iterator<Item = &'a Labelled>) -> BTreeMap<Class, (ConfusionCounts, ConfusionCounts)> {
    let mut tallies: BTreeMap<Class, (ConfusionCounts, ConfusionCounts)> = BTreeMap::new();
    for row in rows {
        let (found, labels) = (row.found(), row.labels());
        for class in Class::ALL {
            let has = |spans: &[BehaviorSpan]| spans.iter().any(|span| span.class == class);
            let (presence, spans) = tallies.entry(class).or_default();
            presence.add(has(&found), has(&labels));
            match_spans(spans, class, &found, &labels);
        }
    }
    tallies
}

fn measured(tally: &ConfusionCounts) -> RuleAgreement {
    let round = |value: Option<f64>| (value.unwrap_or(0.0) * 1000.0).round() / 1000.0;
    RuleAgreement { precision: round(precision(tally)), recall: round(recall(tally)), f1: round(f1(tally)) }
}

/// Mean over the classes that are present or were found.
fn macro_f1(tallies: &BTreeMap<Class, (ConfusionCounts, ConfusionCounts)>) -> f64 {
    let f1: Vec<f64> = tallies.values().filter_map(|(presence, _)| f1(presence)).collect();
    f1.iter().sum::<f64>() / f1.len() as f64
}

/// The rows of the table in docs/behaviors.md.
fn table(tallies: &BTreeMap<Class, (ConfusionCounts, ConfusionCounts)>) -> String {
    let mut text = String::new();
    for (class, (presence, spans)) in tallies {
        let ConfusionCounts { true_positives: both, false_positives, false_negatives, .. } = presence;
        let figure = |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |it| format!("{it:.digits$}"));
        writeln!(
            text,
            "| `{class}` | {} | {} | {both} | {} | {} | {} | {} | {} | {} | {} |",
            both + false_negatives,
            both + false_positives,
            figure(precision(presence), 3),
            figure(recall(presence), 3),
            figure(f1(presence), 3),
            figure(presence.kappa(), 2),
            spans.true_positives + spans.false_negatives,
            figure(precision(spans), 2),
            figure(recall(spans), 2),
        )
        .unwrap();
    }
    text
}

#[test]
fn the_rules_agree_with_the_labels() {
    let rows = labelled();
    let of = |split: Split| rows.iter().filter(move |row| row.split == split);
    let [development, frozen] = [Split::Development, Split::Frozen].map(|split| tallies(of(split)));
    let of_models = tallies(of(Split::Frozen).filter(|row| row.source == "model"));
    let all = [("frozen", &frozen), ("frozen, models only", &of_models), ("development", &development)];
    for (name, tallies) in all {
        println!("{name}\n{}macro-F1 {:.3}\n", table(tallies), macro_f1(tallies));
    }
    let docs = include_str!("../../docs/behaviors.md");
    for (name, tallies) in all {
        for row in table(tallies).lines() {
            assert!(docs.contains(row), "docs/behaviors.md does not contain\n{row}");
        }
        assert!(docs.contains(&format!("macro-F1 {:.3}", macro_f1(tallies))), "macro-F1 of {name}");
    }
    let classifier = Classifier::built_in();
    for (class, (presence, _)) in &frozen {
        assert_eq!(classifier.measured.get(class), Some(&measured(presence)), "[measured] of rules.toml: {class}");
        assert_eq!(classifier.is_doubtful(*class), !measured(presence).is_enough());
    }
    assert!(macro_f1(&frozen) >= 0.75);
    for (class, (presence, _)) in &frozen {
        assert!(precision(presence).unwrap_or(0.0) >= 0.8 || classifier.is_doubtful(*class), "{class}");
    }
}

#[test]
fn negated_text_does_not_count() {
    for checked in ["Let me double-check: 3 + 4 = 7.", "Let's verify this: 2 * 5 = 10, as it should be."] {
        assert!(shows(Class::Verification, checked), "{checked}");
    }
    for denied in [
        "There is no need to verify this.",
        "I will not double-check it: 3 + 4 = 7.",
        "We can skip verifying the answer.",
    ] {
        assert!(!shows(Class::Verification, denied), "{denied}");
    }
}

#[test]
fn copied_text_does_not_count() {
    let classifier = Classifier::built_in();
    let said = "Wait, that is wrong, let me try again with the other number.";
    let found = |prompt: &str| classifier.classify(prompt, said).iter().any(|span| span.class == Class::Backtracking);
    assert!(found("Add 3 and 4."));
    assert!(!found(&format!("The waiter says: {said} What does he mean?")));
}

#[test]
fn program_text_is_not_a_behavior() {
    let code =
        "```python\n# Wait, that is wrong, let me try again\n# Let me double-check the result\nprint(3 + 4)\n```";
    assert_eq!(classes(code), [Class::Code]);
    assert!(shows(Class::Backtracking, "Wait, that is wrong, let me try again."));
}

#[test]
fn a_tag_alone_is_not_a_behavior() {
    let found = |response: &str| Classifier::built_in().classify("What is 3 + 4?", response);
    for (tag, class) in [("plan", Class::Planning), ("code", Class::Code), ("examples", Class::ExampleUse)] {
        let spans = found(&format!("<{tag}> The sum is 7. </{tag}> <answer> 7 </answer>"));
        assert!(spans.iter().all(|span| span.class != class), "{tag}: {spans:?}");
    }
    assert_eq!(found("<think> </think> <answer> \\boxed{7} </answer>"), []);
    let instance = found("<examples> 2 + 5 = 7 </examples> <answer> 7 </answer>");
    assert!(instance.iter().any(|span| span.class == Class::ExampleUse), "{instance:?}");
}

#[test]
fn the_same_completion_gives_the_same_spans() {
    for row in labelled().iter().take(50) {
        assert_eq!(row.found(), row.found());
    }
}

#[test]
fn long_repetitive_responses_are_classified() {
    // A backtracking regex engine would try every split of these texts; here the time is proportional to their length.
    let classifier = Classifier::built_in();
    for piece in ["let ", "To find a, we need ", "= ", "1. ", "Wait", "```\n", "<a", "first then ", "x = 1\n"] {
        let response = piece.repeat(200_000 / piece.len());
        let spans = classifier.classify(&response[..1000], &response);
        assert!(spans.iter().all(|span| response.get(span.start..span.end).is_some()));
    }
}

proptest! {
    #[test]
    fn any_text_is_classified(prompt in ".{0,60}", pieces in prop::collection::vec(piece(), 0..40)) {
        let response = pieces.concat();
        let spans = Classifier::built_in().classify(&prompt, &response);
        for span in &spans {
            prop_assert!(span.start < span.end && response.get(span.start..span.end).is_some(), "{:?}", span);
        }
        prop_assert!(spans.is_sorted_by_key(|span| (span.class, span.start, span.end)));
    }
}

/// Pieces that the rules and the splitting of sentences look for, mixed with random characters.
fn piece() -> impl Strategy<Value = String> {
    let known = [
        "Wait, ",
        "Let me check: ",
        "\n",
        "\r\n",
        "```",
        "```python\n",
        "<plan>",
        "</",
        ">",
        "1. ",
        "Step 2: ",
        "- ",
        "**",
        "# ",
        "def f(x):\n",
        "x = 3",
        " = ",
        "To find the area, we need ",
        "For example, ",
        "theorem ",
        ". ",
        "e.g. ",
        "é",
        "\u{a0}",
        "𝒙",
        "So ",
        "First, ",
        "then ",
        "\u{2028}",
        "\0",
    ];
    prop_oneof![prop::sample::select(known.to_vec()).prop_map(str::to_owned), ".{0,8}"]
}
