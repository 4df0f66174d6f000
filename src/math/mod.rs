//! Answers as exact values: extract, parse, compare.
//!
//! A completion goes through [`extract`] (the last box), [`lex`] and [`parse`] (text to a tree), [`value`] (expressions
//! to a canonical form over exact rationals), [`form`] (what the answer claims, a [`claim`]) and [`compare`]. Different
//! forms that may be equal are compared by certified enclosure and at seeded points ([`equal`]). No part of a model's
//! text is ever executed, and every step is bounded by size, never by a clock ([`limits`]), so a verdict is the same on
//! every machine.

mod ball;
mod claim;
mod compare;
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

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};

use claim::AnswerForm;
use judge::Judge;
use lex::Grouping;
use limits::{Meter, Reason};

pub use extract::{
    Extracted, ExtractionRule, FoundAnswer, Scope, extract_boxed, extract_lenient, last_element, solution_answer,
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
    match extract_lenient(response) {
        Some(FoundAnswer { answer, rule }) => {
            Graded { answer: Some(answer.to_string()), verdict: check(gold, answer), missing: None, rule: Some(rule) }
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
}

/// Reads a gold answer, LaTeX or plain text.
///
/// # Errors
/// Why it cannot be read. A question whose gold answer cannot be read must not be scored: neither 0 nor 1 would be
/// right.
pub fn prepare(gold: &str) -> Result<Gold, Reason> {
    let gold = extract::unboxed(gold);
    let mut meter = Meter::new();
    let form = form::read(gold, Grouping::Commas, &mut meter)?;
    if form.is_false() {
        return Err("a false chain of equations".into());
    }
    let as_list = has_group(gold).then(|| form::read(gold, Grouping::Lists, &mut meter).ok()).flatten();
    Ok(Gold { text: gold.to_string(), form, as_list })
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
        let answer = extract::unboxed(answer);
        if self.text == answer {
            return (Verdict::Correct, "the same text");
        }
        let mut meter = Meter::new();
        let form = match form::read(answer, Grouping::Commas, &mut meter) {
            Ok(form) => form,
            Err(reason) => return (Verdict::Undecided(reason), "the answer cannot be read"),
        };
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
        decided
    }
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
    match prepare(gold) {
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
