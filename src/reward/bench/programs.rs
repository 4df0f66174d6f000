//! Attacks on the reward `code`: programs that solve nothing. Right programs cannot be made from the tests alone.

use std::time::Instant;

use super::case::{CaseKind, Frame, REASONING, RewardCase};
use super::{BenchReport, CaseFailure, CaseFault, input};
use crate::data::Question;
use crate::math::Verdict;
use crate::reward::RewardSet;

/// Number of questions. Each attack starts a Python process.
const QUESTIONS: usize = 3;

/// Scores the attacks on the first questions.
pub fn test(rewards: &RewardSet, frame: Frame, questions: &[Question]) -> BenchReport {
    let mut report = BenchReport::default();
    for question in questions.iter().take(QUESTIONS) {
        report.golds += 1;
        for (kind, program) in attacks(question) {
            let response = frame.response(REASONING, &program);
            let case = RewardCase { kind, response, right: false, formed: true };
            let start = Instant::now();
            let value = rewards.code_value(&input(frame, question, &case));
            let elapsed = start.elapsed();
            let failure = (value == Some(1.0))
                .then(|| CaseFailure::new(CaseFault::FalseAccept, "code", case, question, Verdict::Correct));
            report.count(kind, false, elapsed, failure);
        }
    }
    report
}

/// No program, an empty one, two that end before the tests do, and one whose result claims to equal everything.
fn attacks(question: &Question) -> Vec<(CaseKind, String)> {
    let mut attacks = vec![(CaseKind::Empty, String::new())];
    let equal = function(question).map(|name| {
        format!(
            "class Equal:\n    def __eq__(self, other): return True\n    def __ne__(self, other): return False\n\n\
             def {name}(*arguments):\n    return Equal()"
        )
    });
    let programs = ["pass", "import os\nos._exit(0)", "raise SystemExit(0)"].map(str::to_owned);
    let fenced = |source: String| (CaseKind::Code, format!("```python\n{source}\n```"));
    attacks.extend(programs.into_iter().chain(equal).map(fenced));
    attacks
}

/// The function that the first `assert` of the row calls.
fn function(question: &Question) -> Option<String> {
    let text = question.extra.values().map(ToString::to_string).find(|text| text.contains("assert "))?;
    let (_, call) = text.split_once("assert ")?;
    let name: String = call.chars().take_while(|it| it.is_alphanumeric() || *it == '_').collect();
    (!name.is_empty()).then_some(name)
}
