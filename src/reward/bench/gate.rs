//! The checks of a run's questions and reward before the first step.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};

use super::commands::{self, CommandTest};
use super::{BenchReport, CaseFailure, CaseFault, CaseKind, Frame, PassLimits, Unreadable, programs, run};
use crate::config::{BenchMode, RewardSection};
use crate::data::Question;
use crate::math::gold_flaw;
use crate::reward::RewardSet;

/// Gold answers of the quick bench: enough to include every form that is not rare, in a fraction of a second.
const QUICK: usize = 200;
/// Number of rows or cases that a message lists.
const LISTED: usize = 5;
/// Maximum length of a gold answer or completion that is shown, in characters.
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
    format!("question {}: `{}`: {}", it.id, shortened(&it.gold), it.reason)
}

/// The end of a completion, where its answer is, on one line.
fn ending(response: &str) -> String {
    let all = response.chars().count();
    let end: String = response.chars().skip(all.saturating_sub(SHOWN)).collect();
    let start = if all > SHOWN { "..." } else { "" };
    format!("{start}{}", end.replace('\n', " "))
}

fn shortened(text: &str) -> String {
    let start: String = text.chars().take(SHOWN).collect();
    let end = if start.len() < text.len() { "..." } else { "" };
    format!("{start}{end}")
}

/// Tests every rewarded component that claims to know right answers, on a few gold answers: the rules, `code`, and the
/// user's commands, which get at most `batch` completions at a time. Returns notes: what was not tested, and, if
/// `section` asks for warnings only, what failed.
///
/// # Errors
/// If more cases fail than `section` allows; the error lists the first. If a command does not follow the protocol.
pub fn test(
    rewards: &RewardSet,
    section: &RewardSection,
    frame: Frame,
    questions: &[Question],
    seed: u64,
    batch: usize,
) -> Result<Vec<String>> {
    if section.bench == BenchMode::Off || questions.is_empty() {
        return Ok(Vec::new());
    }
    let (mut reports, mut notes) = (Vec::new(), Vec::new());
    if rewards.checks_answers() {
        reports.push(run(rewards, frame, questions, QUICK, seed));
    }
    if rewards.runs_programs() {
        reports.push(programs::test(rewards, frame, questions));
    }
    for command in rewards.rewarded_commands() {
        match commands::test(command, frame, questions, seed, batch)? {
            CommandTest::Tested(report) => reports.push(report),
            CommandTest::Skipped(why) => notes.push(format!("custom reward `{}` is not tested: {why}", command.name())),
        }
    }
    let controls = rewards.rewarded_controls();
    if !controls.is_empty() {
        notes.push(format!("control rewards are not tested: {}", controls.join(", ")));
    } else if reports.is_empty() && notes.is_empty() {
        notes.push("the reward is not tested: no component with a weight checks answers".to_owned());
    }
    for what in reports.iter().filter_map(|report| refusal(report, section.max_bench_failures)) {
        match section.bench {
            BenchMode::Error => bail!(
                "{what}\nhint: correct the reward; to train anyway, set reward.bench = \"warn\" or raise \
                 reward.max_bench_failures"
            ),
            _ => notes.push(what),
        }
    }
    Ok(notes)
}

/// What is wrong with a reward of which more than `allowed` cases failed; `None` if nothing is. Of the right answers, a
/// small share may fail in any case.
fn refusal(report: &BenchReport, allowed: usize) -> Option<String> {
    let (all, limits) = (report.total(), PassLimits::default());
    let of_right = |share: f64| allowed.max((share * all.right as f64) as usize);
    let fails = all.false_accepts > allowed
        || all.false_rejects > of_right(limits.false_reject)
        || all.undecided > of_right(limits.undecided);
    let case = |it: &CaseFailure| {
        let (gold, response) = (shortened(&it.gold), ending(&it.response));
        format!("{} of {} ({}), gold `{gold}`: `{response}`", it.fault, it.component, it.kind.name())
    };
    fails.then(|| {
        format!(
            "the reward failed its test on {} questions: {} of {} wrong answers accepted, {} of {} right answers rejected, {} \
             undecided: {}{}",
            report.golds,
            all.false_accepts,
            all.cases - all.right,
            all.false_rejects,
            all.right,
            all.undecided,
            listed(report).into_iter().map(case).collect::<Vec<_>>().join("; "),
            if report.failures.len() > LISTED { "; ..." } else { "" }
        )
    })
}

/// The failures that a message shows: accepted wrong answers first, and one of each kind before a second one.
fn listed(report: &BenchReport) -> Vec<&CaseFailure> {
    let mut seen: BTreeMap<(bool, CaseKind), usize> = BTreeMap::new();
    let mut ranked: Vec<((usize, bool), &CaseFailure)> = Vec::new();
    for it in &report.failures {
        let rejected = it.fault != CaseFault::FalseAccept;
        let earlier = seen.entry((rejected, it.kind)).or_default();
        ranked.push(((*earlier, rejected), it));
        *earlier += 1;
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, it)| it).take(LISTED).collect()
}
