//! Answers as exact values: extract, parse, compare.
//!
//! A response goes through [`extract`] (the last box), [`token`] and [`parse`] (text to an expression tree), [`value`] (the
//! tree to a canonical form over exact rationals), [`form`] (what the answer claims) and [`compare`]. Nothing of a model's text is ever executed, and every step
//! is bounded by size, never by a clock ([`limits`]), so that a verdict is the same on every machine.

#[allow(dead_code)] // its first user, the comparison of constants, is being written
mod ball;
mod compare;
mod extract;
mod form;
mod limits;
mod numeric;
mod parse;
mod token;
mod tree;
mod unit;
mod value;

#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::Scope;

pub use extract::{Extracted, extract_boxed};

/// What a check of an answer against the gold answer found. As JSON: `"correct"`, `"wrong"` or `{"undecided": reason}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Correct,
    Wrong,
    /// Neither could be shown; the reason is for the log.
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

/// The answer found in a response and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graded {
    /// What stood in the last box, trimmed; `None` where there was no box to read, which is [`Verdict::Wrong`].
    pub answer: Option<String>,
    pub verdict: Verdict,
    /// Why there is no answer.
    pub missing: Option<String>,
}

/// Checks the last box of `response` (within `scope`) against `gold`.
///
/// Only that box counts: where it holds nonsense the verdict is undecided, and no earlier number is taken instead.
pub fn grade(response: &str, gold: &str, scope: Scope, answer_tag: Option<&str>) -> Graded {
    match extract_boxed(response, scope, answer_tag) {
        Extracted::Answer(answer) => {
            Graded { answer: Some(answer.to_string()), verdict: check(gold, answer), missing: None }
        }
        Extracted::Missing(why) => Graded { answer: None, verdict: Verdict::Wrong, missing: Some(why.to_string()) },
    }
}

/// Is `answer` the same as `gold`? Both are LaTeX or plain text.
///
/// A gold answer that cannot be read gives [`Verdict::Undecided`] whatever the answer; see [`gold_is_parsable`].
pub fn check(gold: &str, answer: &str) -> Verdict {
    let gold_form = match read_gold(gold) {
        Ok(form) => form,
        Err(reason) => return Verdict::Undecided(format!("gold: {reason}")),
    };
    match form::read(answer) {
        Ok(answer_form) => compare::compare(&gold_form, &answer_form).into(),
        Err(reason) => Verdict::Undecided(reason),
    }
}

/// Whether [`check`] can read this gold answer. A question whose gold it cannot read must not be scored at all: neither 0
/// nor 1 would be true.
pub fn gold_is_parsable(gold: &str) -> bool {
    read_gold(gold).is_ok()
}

fn read_gold(gold: &str) -> Result<form::Form, limits::Reason> {
    let form = form::read(gold)?;
    if form.is_false() { Err("a false chain of equations".into()) } else { Ok(form) }
}
