//! The rules that find behaviours, against what people marked; `--nocapture` prints the figures that docs/behaviors.md holds.

use std::collections::BTreeMap;
use std::fmt::Write;

use proptest::prelude::*;
use rft::behavior::agreement::{Tally, match_spans};
use rft::behavior::{Class, Classifier, Measured, Span};
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
    fn labels(&self) -> Vec<Span> {
        let span = |label: &Label| Span { class: label.class, start: label.start, end: label.end, rule: String::new() };
        self.spans.iter().map(span).collect()
    }

    fn found(&self) -> Vec<Span> {
        let prior = prompt::find(&self.ppe).unwrap();
        Classifier::built_in().classify(&format!("{}\n{}", prior.text, self.question), &self.text)
    }
}

fn labelled() -> Vec<Labelled> {
    LABELS.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The classes of what is found in a response to an empty prompt.
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
fn the_labels_are_sound() {
    let rows = labelled();
    let count = |holds: &dyn Fn(&Labelled) -> bool| rows.iter().filter(|row| holds(row)).count();
    assert!(rows.len() >= 300, "{} responses", rows.len());
    assert!(count(&|row| row.source == "model") >= 200);
    assert!(count(&|row| row.split == Split::Frozen) >= 100);
    for row in &rows {
        // Which responses are frozen was settled by their names, before there were rules.
        let byte = u8::from_str_radix(&sha256(row.id.as_bytes())[..2], 16).unwrap();
        assert_eq!(row.split == Split::Frozen, byte < 0x80, "{}", row.id);
        for label in &row.spans {
            assert!(label.start < label.end && row.text.get(label.start..label.end).is_some(), "{}", row.id);
        }
    }
    for class in Class::ALL {
        let frozen = count(&|row| row.split == Split::Frozen && row.spans.iter().any(|label| label.class == class));
        assert!(frozen >= 5, "{class}: {frozen} frozen responses show it");
    }
}

/// By response: is the class there? And by span: do they meet?
fn tallies(rows: &[Labelled], split: Split) -> BTreeMap<Class, (Tally, Tally)> {
    let mut tallies: BTreeMap<Class, (Tally, Tally)> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.split == split) {
        let (found, labels) = (row.found(), row.labels());
        for class in Class::ALL {
            let has = |spans: &[Span]| spans.iter().any(|span| span.class == class);
            let (presence, spans) = tallies.entry(class).or_default();
            presence.add(has(&found), has(&labels));
            match_spans(spans, class, &found, &labels);
        }
    }
    tallies
}

fn measured(tally: &Tally) -> Measured {
    let round = |value: Option<f64>| (value.unwrap_or(0.0) * 1000.0).round() / 1000.0;
    Measured { precision: round(tally.precision()), recall: round(tally.recall()), f1: round(tally.f1()) }
}

fn macro_f1(tallies: &BTreeMap<Class, (Tally, Tally)>) -> f64 {
    tallies.values().map(|(presence, _)| presence.f1().unwrap_or(0.0)).sum::<f64>() / tallies.len() as f64
}

/// The rows of the table in docs/behaviors.md.
fn table(tallies: &BTreeMap<Class, (Tally, Tally)>) -> String {
    let mut text = String::new();
    for (class, (presence, spans)) in tallies {
        let Tally { true_positives: both, false_positives, false_negatives, .. } = presence;
        let (by_response, by_span) = (measured(presence), measured(spans));
        let kappa = presence.kappa().unwrap_or(f64::NAN);
        writeln!(
            text,
            "| `{class}` | {} | {} | {both} | {:.3} | {:.3} | {:.3} | {kappa:.2} | {} | {:.2} | {:.2} |",
            both + false_negatives,
            both + false_positives,
            by_response.precision,
            by_response.recall,
            by_response.f1,
            spans.true_positives + spans.false_negatives,
            by_span.precision,
            by_span.recall,
        )
        .unwrap();
    }
    text
}

#[test]
fn the_rules_agree_with_people() {
    let rows = labelled();
    let [development, frozen] = [Split::Development, Split::Frozen].map(|split| tallies(&rows, split));
    println!("development\n{}frozen\n{}", table(&development), table(&frozen));
    println!("macro-F1: development {:.3}, frozen {:.3}", macro_f1(&development), macro_f1(&frozen));

    let classifier = Classifier::built_in();
    for (class, (presence, _)) in &frozen {
        assert_eq!(classifier.measured.get(class), Some(&measured(presence)), "[measured] of rules.toml: {class}");
        assert_eq!(classifier.is_doubtful(*class), !measured(presence).is_enough());
    }
    let docs = include_str!("../../docs/behaviors.md");
    for row in table(&development).lines().chain(table(&frozen).lines()) {
        assert!(docs.contains(row), "docs/behaviors.md lacks\n{row}");
    }
    assert!(macro_f1(&frozen) >= 0.75);
    for (class, (presence, _)) in &frozen {
        assert!(presence.precision().unwrap_or(0.0) >= 0.8 || classifier.is_doubtful(*class), "{class}");
    }
}

#[test]
fn what_is_denied_does_not_count() {
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
fn what_was_copied_does_not_count() {
    let classifier = Classifier::built_in();
    let said = "Wait, that is wrong, let me try again with the other number.";
    let found = |prompt: &str| classifier.classify(prompt, said).iter().any(|span| span.class == Class::Backtracking);
    assert!(found("Add 3 and 4."));
    assert!(!found(&format!("The waiter says: {said} What does he mean?")));
}

#[test]
fn program_text_shows_no_cognitive_behaviour() {
    let code =
        "```python\n# Wait, that is wrong, let me try again\n# Let me double-check the result\nprint(3 + 4)\n```";
    assert_eq!(classes(code), [Class::Code]);
    assert!(shows(Class::Backtracking, "Wait, that is wrong, let me try again."));
}

#[test]
fn a_tag_is_no_evidence() {
    for (tag, class) in [("plan", Class::Planning), ("code", Class::Code), ("examples", Class::ExampleUse)] {
        assert!(!shows(class, &format!("<{tag}> The sum is 7. </{tag}> <answer> 7 </answer>")), "{tag}");
    }
    assert_eq!(classes("<think> </think> <answer> \\boxed{7} </answer>"), []);
}

#[test]
fn the_same_response_gives_the_same_spans() {
    for row in labelled().iter().take(50) {
        assert_eq!(row.found(), row.found());
    }
}

#[test]
fn a_long_response_takes_no_longer_than_its_length() {
    // Each was chosen to make a backtracking engine try every split; here they pass in the time of their length.
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

/// Pieces that rules and the cutting of sentences look for, among any characters.
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
