//! Answers as exact values: extract, parse, compare.
//!
//! A completion goes through [`extract`] (the last box), [`lex`] and [`parse`] (text to a tree), [`value`] (expressions
//! to a canonical form over exact rationals), [`form`] (what the answer claims, a [`claim`]) and [`compare`]. Different
//! forms that may be equal are compared by certified enclosure and at seeded points ([`equal`]). No part of a model's
//! text is ever executed, and every step is bounded by size, never by a clock ([`limits`]), so a verdict is the same on
//! every machine.

mod ball;
mod claim;
mod clean;
mod compare;
mod constants;
mod enclose;
mod equal;
mod extract;
mod form;
mod function;
mod judge;
mod lex;
mod limits;
mod matrix;
mod parse;
mod quantity;
mod region;
mod relation;
mod show;
mod token;
mod tree;
mod unit;
mod value;
mod vector;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use claim::AnswerForm;
use judge::Judge;
use lex::Grouping;
use limits::{Meter, Reason};

pub use extract::{
    Extracted, ExtractionRule, FoundAnswer, Scope, extract_boxed, extract_lenient, is_hypothetical, last_element,
    solution_answer, withdraws,
};

/// The result of checking an answer against the gold answer. As JSON: `"correct"`, `"wrong"` or `{"undecided":
/// reason}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Correct,
    Wrong,
    /// Neither could be proven; the reason is for the log.
    Undecided(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Verdict::Correct => f.write_str("correct"),
            Verdict::Wrong => f.write_str("wrong"),
            Verdict::Undecided(reason) => write!(f, "undecided ({reason})"),
        }
    }
}

/// The answer found in a completion, and its verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graded {
    /// The content of the last box, trimmed; `None` if there was no box to read, which is [`Verdict::Wrong`].
    pub answer: Option<String>,
    pub verdict: Verdict,
    /// Why there is no answer.
    pub missing: Option<String>,
    /// How [`grade_lenient`] found the answer; [`grade`] has only one rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<ExtractionRule>,
}

/// Checks the last box of `response` (within `scope`) against `gold`.
///
/// Only this box counts: if it contains nonsense, the verdict is undecided, and no earlier number is used instead.
pub fn grade(response: &str, gold: &str, scope: Scope, answer_tag: Option<&str>) -> Graded {
    graded(extract_boxed(response, scope, answer_tag), |answer| check(gold, answer))
}

fn graded(found: Extracted, check: impl FnOnce(&str) -> Verdict) -> Graded {
    match found {
        Extracted::Answer(answer) => {
            Graded { answer: Some(answer.to_string()), verdict: check(answer), missing: None, rule: None }
        }
        Extracted::Missing(why) => {
            Graded { answer: None, verdict: Verdict::Wrong, missing: Some(why.to_string()), rule: None }
        }
    }
}

/// Checks the answer that [`extract_lenient`] finds in `response` against `gold`.
///
/// For evaluations that are compared with others. A model could exploit the rules, so no reward uses them.
pub fn grade_lenient(response: &str, gold: &str) -> Graded {
    grade_lenient_for("", response, gold)
}

/// [`grade_lenient`] for an answer to `question`, see [`prepare_for`].
pub fn grade_lenient_for(question: &str, response: &str, gold: &str) -> Graded {
    match extract_lenient(response) {
        Some(FoundAnswer { answer, rule }) => {
            let verdict = check_for(question, gold, answer);
            Graded { answer: Some(answer.to_string()), verdict, missing: None, rule: Some(rule) }
        }
        None => Graded { answer: None, verdict: Verdict::Wrong, missing: Some("no answer".to_string()), rule: None },
    }
}

/// A parsed gold answer, so that it is parsed only once.
pub struct Gold {
    text: String,
    form: AnswerForm,
    /// If the text contains `1,234`: the form in which that is a list.
    as_list: Option<AnswerForm>,
    /// If letters after its numbers may be units: the form in which they are.
    with_units: Option<AnswerForm>,
    /// The question asks for a percentage, so that a percent sign after the answer adds nothing to a bare number.
    percent: bool,
}

/// Reads a gold answer, LaTeX or plain text.
///
/// # Errors
/// Why it cannot be read. A question whose gold answer cannot be read must not be scored: neither 0 nor 1 would be
/// right.
pub fn prepare(gold: &str) -> Result<Gold, Reason> {
    let gold = bare(gold);
    let gold: &str = &gold;
    let mut meter = Meter::new();
    let form = form::read(gold, Grouping::Commas, &mut meter)?;
    if form.is_false() {
        return Err("a false chain of equations".into());
    }
    let as_list = has_group(gold).then(|| form::read(gold, Grouping::Lists, &mut meter).ok()).flatten();
    let with_units = has_unit_letters(gold).then(|| form::read(gold, Grouping::Units, &mut meter).ok()).flatten();
    Ok(Gold { text: gold.to_string(), form, as_list, with_units, percent: false })
}

/// [`prepare`] for an answer to `question`. If that asks for a percentage and the gold answer is a bare number, `60\%` is
/// the answer 60: data sets such as GSM8K leave out the sign.
///
/// # Errors
/// Those of [`prepare`].
pub fn prepare_for(question: &str, gold: &str) -> Result<Gold, Reason> {
    let mut gold = prepare(gold)?;
    gold.percent = asks_for_percentage(question) && gold.form.is_bare_number();
    Ok(gold)
}

/// Whether the last sentences of a question ask for a percentage: `what percentage of ...`, `as a percent`.
pub fn asks_for_percentage(question: &str) -> bool {
    if !question.contains("ercent") && !question.contains('%') {
        return false;
    }
    let lower = question.to_lowercase();
    let mut end = lower.trim_end().trim_end_matches(['.', '?', '!']);
    // The last sentence, and the one before it: the last may only be about rounding.
    let mut start = 0;
    for _ in 0..2 {
        start = end.rfind(['.', '?', '!', '\n']).map_or(0, |at| at + 1);
        if lower[start..].contains("percent") || lower[start..].contains("%") {
            break;
        }
        end = &end[..start.saturating_sub(1)];
    }
    let sentence = &lower[start..];
    ["percent", "%"].iter().flat_map(|word| sentence.match_indices(word)).any(|(at, _)| {
        let before = &sentence[sentence.floor_char_boundary(at.saturating_sub(45))..at];
        // `20 percent` is a number that the question gives.
        let given = before.trim_end_matches([' ', '\\']).ends_with(|c: char| c.is_ascii_digit());
        let asked = before.split(|c: char| !c.is_ascii_alphabetic()).rev().take(6);
        !given
            && asked.into_iter().any(|it| {
                matches!(it, "what" | "which" | "how" | "as" | "in" | "find" | "express" | "calculate" | "determine")
            })
    })
}

/// The text without boxes, Markdown, math delimiters and quotes around all of it.
fn bare(text: &str) -> Cow<'_, str> {
    match clean::plain(text) {
        Cow::Borrowed(text) => Cow::Borrowed(stripped(text)),
        Cow::Owned(text) => Cow::Owned(stripped(&text).to_string()),
    }
}

fn stripped(mut text: &str) -> &str {
    loop {
        let length = text.len();
        text = clean::bare(extract::unboxed(text));
        if text.len() == length {
            return text;
        }
    }
}

impl Gold {
    /// Is `answer` the same? It is LaTeX or plain text.
    pub fn check(&self, answer: &str) -> Verdict {
        self.decide(answer).0
    }

    /// [`grade`] with this gold answer.
    pub fn grade(&self, response: &str, scope: Scope, answer_tag: Option<&str>) -> Graded {
        graded(extract_boxed(response, scope, answer_tag), |answer| self.check(answer))
    }

    /// The verdict, and the rule that led to it.
    fn decide(&self, answer: &str) -> (Verdict, &'static str) {
        let answer = bare(answer);
        let answer: &str = &answer;
        if self.text == answer {
            return (Verdict::Correct, "the same text");
        }
        let mut meter = Meter::new();
        let form = match form::read(answer, Grouping::Commas, &mut meter) {
            Ok(form) => form,
            Err(reason) => {
                return self
                    .with_units(answer, &mut meter)
                    .unwrap_or((Verdict::Undecided(reason), "the answer cannot be read"));
            }
        };
        if self.percent && form.is_percentage() {
            return match form.without_percent(&mut meter) {
                Ok(number) => decide(&self.form, &number, &mut meter),
                Err(reason) => (Verdict::Undecided(reason), "the answer cannot be read"),
            };
        }
        let decided = decide(&self.form, &form, &mut meter);
        // `1,234` may be a list if the other answer is one.
        if decided.0 != Verdict::Correct && (self.as_list.is_some() || has_group(answer)) {
            let lists = form::read(answer, Grouping::Lists, &mut meter);
            let gold = self.as_list.as_ref().unwrap_or(&self.form);
            if let Ok(form) = lists
                && (form.items.len() > 1) == (gold.items.len() > 1)
            {
                let as_lists = decide(gold, &form, &mut meter);
                if as_lists.0 == Verdict::Correct {
                    return as_lists;
                }
            }
        }
        if decided.0 != Verdict::Correct {
            return self.with_units(answer, &mut meter).unwrap_or(decided);
        }
        decided
    }

    /// The verdict if letters after numbers are units, where that decides: the gold answer has a unit, or is a number
    /// without symbols.
    fn with_units(&self, answer: &str, meter: &mut Meter) -> Option<(Verdict, &'static str)> {
        if !has_unit_letters(answer) && self.with_units.is_none() {
            return None;
        }
        let form = form::read(answer, Grouping::TightUnits, meter).ok()?;
        if !(form.has_only_constants() && form.has_units()) {
            return None;
        }
        // `5 m` may be a product in the gold answer: it is a unit if the answer has one.
        let gold = match &self.with_units {
            Some(gold) if gold.has_only_constants() && gold.has_units() => gold,
            _ if self.form.has_only_constants() => &self.form,
            _ => return None,
        };
        let found = decide(gold, &form, meter);
        let spaced = || {
            form::read(answer, Grouping::Units, &mut Meter::new())
                .is_ok_and(|it| it.has_only_constants() && it.has_units())
        };
        if found.0 == Verdict::Correct && !gold.has_units() && !spaced() {
            return Some((
                Verdict::Undecided("a letter that may be a unit or a symbol".into()),
                "neither could be proven",
            ));
        }
        Some(found)
    }
}

/// Whether a letter that can be a unit comes after a number, a bracket or a command.
fn has_unit_letters(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut quantity = false;
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'0'..=b'9' | b'}' | b')' => quantity = true,
            b'=' | b'<' | b'>' => quantity = false,
            b'a'..=b'z' | b'A'..=b'Z' if quantity => {
                let alone =
                    |at: Option<usize>| at.and_then(|it| bytes.get(it)).is_none_or(|it| !it.is_ascii_alphabetic());
                let letter = unit::is_letter(&text[at..=at]) || unit::is_doubtful_letter(&text[at..=at]);
                if letter && alone(at.checked_sub(1)) && (alone(Some(at + 1)) || text[at..].starts_with("Nm")) {
                    return true;
                }
            }
            _ => {}
        }
    }
    false
}

fn decide(gold: &AnswerForm, answer: &AnswerForm, meter: &mut Meter) -> (Verdict, &'static str) {
    let mut judge = Judge::with(meter);
    match compare::compare(gold, answer, &mut judge) {
        Ok(true) => (Verdict::Correct, judge.rule),
        Ok(false) => (Verdict::Wrong, judge.rule),
        Err(reason) => (Verdict::Undecided(reason), "neither could be proven"),
    }
}

/// Whether a comma between digits may be a group separator or a list separator.
fn has_group(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.windows(3).any(|it| it[0].is_ascii_digit() && it[1] == b',' && it[2].is_ascii_digit())
}

/// Is `answer` the same as `gold`? Both are LaTeX or plain text.
///
/// A gold answer that cannot be read gives [`Verdict::Undecided`] for every answer; see [`gold_flaw`].
pub fn check(gold: &str, answer: &str) -> Verdict {
    check_for("", gold, answer)
}

/// [`check`] for an answer to `question`, see [`prepare_for`].
pub fn check_for(question: &str, gold: &str, answer: &str) -> Verdict {
    match prepare_for(question, gold) {
        Ok(gold) => gold.check(answer),
        Err(reason) => Verdict::Undecided(format!("gold: {reason}")),
    }
}

/// The details of one check, from [`explain`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The parsed gold answer, or why it cannot be read.
    pub gold: String,
    /// The parsed answer, or why it cannot be read.
    pub answer: String,
    /// The rule that decided, such as `equal rationals`.
    pub rule: String,
    pub verdict: Verdict,
}

/// [`check`], with the two trees and the rule that decided.
pub fn explain(gold: &str, answer: &str) -> Explanation {
    let tree = |text: &str| {
        parse::parse(text, Grouping::Commas)
            .map_or_else(|reason| format!("cannot be read: {reason}"), |it| it.to_string())
    };
    let (verdict, rule) = match prepare(gold) {
        Ok(gold) => gold.decide(answer),
        Err(reason) => (Verdict::Undecided(format!("gold: {reason}")), "the gold answer cannot be read"),
    };
    Explanation { gold: tree(gold), answer: tree(answer), rule: rule.to_string(), verdict }
}

/// Why this gold answer cannot be read; `None` if it can.
pub fn gold_flaw(gold: &str) -> Option<String> {
    prepare(gold).err()
}
