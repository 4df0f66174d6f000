//! The checks of a run's questions and reward before the first step.

use anyhow::{Result, ensure};

use super::{Frame, PassLimits, Unreadable, run};
use crate::data::Question;
use crate::math::gold_flaw;
use crate::reward::RewardSet;

/// Gold answers of the quick bench: enough to include every form that is not rare, in a fraction of a second.
const QUICK: usize = 200;
/// Number of rows that an error lists.
const LISTED: usize = 5;
/// Maximum length of a gold answer that is shown, in characters.
const SHOWN: usize = 60;

/// Keeps the questions whose gold answer can be read, and reports the number of the others in one line.
///
/// # Errors
/// If the share of the others is above `limit`. The error lists the first of them with the reasons.
pub fn readable(questions: Vec<Question>, what: &str, limit: f64) -> Result<(Vec<Question>, Option<String>)> {
    let total = questions.len();
    let mut kept = Vec::with_capacity(total);
    let mut unreadable = Vec::new();
    for question in questions {
        match gold_flaw(&question.gold) {
            None => kept.push(question),
            Some(reason) => unreadable.push(Unreadable::new(&question, reason)),
        }
    }
    let Some(first) = unreadable.first() else { return Ok((kept, None)) };
    let count = unreadable.len();
    let share = count as f64 / total as f64;
    ensure!(
        share <= limit,
        "the gold answers of {count} of {total} {what} questions cannot be read ({:.1} %, more than {} %): {}{}\n\
         hint: check `data.answer_column`, or raise `data.max_unreadable`, the maximum share of such questions",
        100.0 * share,
        100.0 * limit,
        unreadable.iter().take(LISTED).map(line).collect::<Vec<_>>().join("; "),
        if count > LISTED { "; ..." } else { "" }
    );
    let left_out =
        format!("{count} of {total} {what} questions left out: gold answer unreadable (first: {})", line(first));
    Ok((kept, Some(left_out)))
}

fn line(it: &Unreadable) -> String {
    let start: String = it.gold.chars().take(SHOWN).collect();
    let end = if start.len() < it.gold.len() { "..." } else { "" };
    format!("question {}: `{start}{end}`: {}", it.id, it.reason)
}

/// Runs the bench on a few gold answers. Describes in one line what is wrong with the reward, if anything is.
pub fn quick(rewards: &RewardSet, frame: Frame, questions: &[Question], seed: u64) -> Option<String> {
    if questions.is_empty() {
        return None;
    }
    let report = run(rewards, frame, questions, QUICK, seed);
    let breach = report.breach(&PassLimits::default())?;
    let first = report.failures.first().map(|it| format!("; first: {}, gold `{}`", it.kind.name(), it.gold));
    Some(format!(
        "reward tested on {} gold answers: {breach}{}; run `rft reward test` for details",
        report.golds,
        first.unwrap_or_default()
    ))
}
