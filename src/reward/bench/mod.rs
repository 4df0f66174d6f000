//! The reward bench: does the reward accept every right answer, and only right answers?
//!
//! Every gold answer is rewritten in ways that must pass ([`rewrite`]) and turned into near misses ([`near_miss`]) and
//! attacks ([`attack`]) that must not; [`notation`] has both kinds for notation that graders get wrong. Each is a whole completion, scored by all rules of the reward. Before
//! a run, [`commands`] tests the user's commands on a few cases, and [`programs`] attacks the reward `code`. The expected verdict of a case follows from how it was made: the bench reads numbers by itself
//! ([`gold`]) and never asks the checker what to expect of the checker.

mod attack;
mod case;
mod commands;
pub mod gate;
mod gold;
mod near_miss;
mod notation;
mod programs;
mod report;
mod rewrite;
#[cfg(test)]
mod tests;

use std::time::Instant;

use super::{CompletionKey, RewardInput, RewardSet, Scored};
use crate::data::Question;
use crate::math::{Verdict, gold_flaw};
use crate::rng::{Purpose, Stream};

pub use case::{CaseKind, Frame};
pub use report::{BenchReport, CaseFailure, CaseFault, CaseTally, PassLimits, Unreadable};

use case::{Cases, RewardCase};

/// Number of gold answers of other rows that each gold answer is compared with.
const OTHERS: usize = 4;

/// Tests `rewards` on at most `limit` of `questions`, selected by `seed`. Those whose gold answer cannot be read
/// are reported and count towards the limit.
pub fn run(rewards: &RewardSet, frame: Frame, questions: &[Question], limit: usize, seed: u64) -> BenchReport {
    let drawn = Stream::new(seed, Purpose::RewardBench, &[0]).permutation(questions.len());
    let mut drawn: Vec<usize> = drawn.into_iter().take(limit).collect();
    drawn.sort_unstable();
    let mut report = BenchReport { golds: drawn.len(), ..BenchReport::default() };
    for index in drawn {
        let question = &questions[index];
        if let Some(reason) = gold_flaw(&question.gold) {
            report.unreadable.push(Unreadable::new(question, reason));
            continue;
        }
        for case in cases(frame, question, questions, seed) {
            let sample = input(frame, question, &case);
            let start = Instant::now();
            let scored = rewards.apply_rules(&sample);
            let elapsed = start.elapsed();
            let (kind, right, fault) = (case.kind, case.right, fault(rewards, &case, &scored));
            let failure = fault.map(|(fault, of)| CaseFailure::new(fault, of, case, question, scored.verdict));
            report.count(kind, right, elapsed, failure);
        }
    }
    report
}

/// A case as the rewards see it.
fn input<'a>(frame: Frame<'a>, question: &'a Question, case: &'a RewardCase) -> RewardInput<'a> {
    RewardInput {
        question,
        response: &case.response,
        prompt: frame.prompt,
        prefilled: frame.prefilled,
        tokens: case.response.split_whitespace().count(),
        truncated: false,
        key: CompletionKey::default(),
    }
}

/// Every case of one question, in an order that does not depend on the seed.
fn cases(frame: Frame, question: &Question, questions: &[Question], seed: u64) -> Vec<RewardCase> {
    let mut cases = Cases::new(frame, question, seed);
    let others: Vec<&str> =
        (0..OTHERS).map(|_| questions[cases.draws.below(questions.len() as u64) as usize].gold.as_str()).collect();
    rewrite::add(&mut cases);
    near_miss::add(&mut cases, &others);
    attack::add(&mut cases);
    notation::add(&mut cases);
    cases.list
}

/// The reward's error, if there is one, and the component that made it.
fn fault(rewards: &RewardSet, case: &RewardCase, scored: &Scored) -> Option<(CaseFault, &'static str)> {
    match (&scored.verdict, case.right) {
        (Verdict::Correct, false) => return Some((CaseFault::FalseAccept, "accuracy")),
        (Verdict::Wrong, true) => return Some((CaseFault::FalseReject, "accuracy")),
        (Verdict::Undecided(_), true) => return Some((CaseFault::Undecided, "accuracy")),
        _ => {}
    }
    let value = |name: &str| {
        let place = rewards.names().iter().position(|it| *it == name)?;
        scored.components.get(place).copied().flatten()
    };
    match value("format") {
        Some(value) if value > 0.0 && !case.formed => return Some((CaseFault::FalseAccept, "format")),
        Some(value) if value < 1.0 && case.formed => return Some((CaseFault::FalseReject, "format")),
        _ => {}
    }
    // The value of a broken format is a matter of degree for these two.
    let lenient = ["format_strict", "tag_count"].into_iter();
    let mut rejecting = lenient.filter(|name| case.formed && value(name).is_some_and(|value| value < 1.0));
    rejecting.next().map(|name| (CaseFault::FalseReject, name))
}
