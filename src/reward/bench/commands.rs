//! Tests a user's command on one case of each kind.
//!
//! A command may be a judge model that takes a second and costs money for each completion, so it gets few cases. Only a
//! command whose scores are all 0 or 1 is taken to check answers; others are not tested.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};

use super::case::{CaseKind, Frame, RewardCase};
use super::{BenchReport, CaseFailure, CaseFault, cases, input};
use crate::data::Question;
use crate::math::{Verdict, gold_flaw};
use crate::reward::{CustomReward, RewardInput};
use crate::rng::{Purpose, Stream};

/// Number of gold answers from which the cases are made. Not every kind of case exists for every gold answer.
const GOLDS: usize = 16;

/// What the test of a command found.
pub enum CommandTest {
    Tested(BenchReport),
    /// Why it is not tested.
    Skipped(String),
}

/// Sends one case of each kind to `command`, at most `batch` at a time.
///
/// # Errors
/// If the command does not follow the protocol.
pub fn test(
    command: &CustomReward,
    frame: Frame,
    questions: &[Question],
    seed: u64,
    batch: usize,
) -> Result<CommandTest> {
    let (golds, chosen) = choose(frame, questions, seed);
    let mut report = BenchReport { golds, ..BenchReport::default() };
    for part in chosen.chunks(batch.max(1)) {
        let inputs: Vec<RewardInput> = part.iter().map(|(question, case)| input(frame, question, case)).collect();
        let scores = command.score(&inputs, &|| false)?.context("the scores are never canceled")?;
        for ((question, case), score) in part.iter().zip(scores) {
            let verdict = match score.value {
                Some(0.0) => Verdict::Wrong,
                Some(1.0) => Verdict::Correct,
                Some(other) => return Ok(CommandTest::Skipped(format!("it gave the score {other}, not 0 or 1"))),
                None => continue,
            };
            let fault = match (&verdict, case.right) {
                (Verdict::Correct, false) => Some(CaseFault::FalseAccept),
                (Verdict::Wrong, true) => Some(CaseFault::FalseReject),
                _ => None,
            };
            let (kind, right) = (case.kind, case.right);
            let failure =
                fault.map(|fault| CaseFailure::new(fault, command.name(), case.clone(), question, verdict.clone()));
            report.count(kind, right, Duration::ZERO, failure);
        }
    }
    Ok(match report.tallies.is_empty() {
        true if chosen.is_empty() => CommandTest::Skipped("no gold answer can be read".to_owned()),
        true => CommandTest::Skipped("it gave no score".to_owned()),
        false => CommandTest::Tested(report),
    })
}

/// The number of gold answers that are used, and one case of each kind with its question. A command
/// does not check the order of tags, so no case has broken tags.
fn choose<'a>(frame: Frame, questions: &'a [Question], seed: u64) -> (usize, Vec<(&'a Question, RewardCase)>) {
    let order = Stream::new(seed, Purpose::RewardBench, &[0]).permutation(questions.len());
    let mut golds = 0;
    let (mut kinds, mut chosen) = (BTreeSet::from([CaseKind::BrokenTags]), Vec::new());
    for question in order.into_iter().map(|at| &questions[at]).filter(|it| gold_flaw(&it.gold).is_none()).take(GOLDS) {
        golds += 1;
        let new = cases(frame, question, questions, seed).into_iter().filter(|case| kinds.insert(case.kind));
        chosen.extend(new.map(|case| (question, case)));
    }
    (golds, chosen)
}
