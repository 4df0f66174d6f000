//! The choice of a value for each arm, from its finished trials.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Number;

use super::folder::SweepFolder;
use super::local::{TaskEnd, TaskFailure};
use super::task::SweepTask;
use super::tune::{ArmTrials, CandidateTrials, Trials};
use crate::disk::hash::sha256;
use crate::run::dir::SAMPLED;
use crate::run::tuning::{FILE, TrialResult, TuneCandidate, TuneRecord, TuneTrial, TunedArm, best, same};
use crate::run::{GroupRecord, Manifest, RunDir, completions};
use crate::stats::{Interval, Proportion, accuracy_interval};

/// The seed of the bootstrap, as in reports.
const SEED: u64 = 0;

/// The choices that were made earlier in the sweep at `path`, if there are any.
///
/// # Errors
/// They were made with other settings than those of `trials`, or the sweep was started without trials.
pub fn earlier(path: &Path, trials: Option<&Trials>) -> Result<Option<TuneRecord>> {
    let changed = |what: String| {
        anyhow::anyhow!(
            "`{}` contains a different version of this sweep: {what}\n\
             hint: choose another folder with --out, or remove this one to start again",
            path.display()
        )
    };
    let record = TuneRecord::read(path)?;
    let Some(trials) = trials else {
        if record.is_some() || SweepFolder::of_trials(path).join("sweep.json").is_file() {
            return Err(changed("it has trials, and [sweep.tune] is missing now".to_owned()));
        }
        return Ok(None);
    };
    let Some(record) = record else {
        if path.join("sweep.json").is_file() {
            return Err(changed(format!("its runs were started without [sweep.tune], or its {FILE} is missing")));
        }
        return Ok(None);
    };
    if record.key != trials.key {
        return Err(changed(format!("sweep.tune.key was `{}`, now `{}`", record.key, trials.key)));
    }
    for before in &record.arms {
        let arm = &before.arm;
        let Some(now) = trials.arms.iter().find(|it| it.arm == *arm) else {
            return Err(changed(format!("it has trials of arm `{arm}`")));
        };
        let (was, is): (Vec<&Number>, Vec<&Number>) = (
            before.candidates.iter().map(|it| &it.value).collect(),
            now.candidates.iter().map(|it| &it.value).collect(),
        );
        let equal = was.len() == is.len() && was.iter().zip(&is).all(|(was, is)| same(was, is));
        ensure!(
            equal,
            changed(format!("the candidates of arm `{arm}` were [{}], now [{}]", listed(&was), listed(&is)))
        );
        let was: Vec<u64> = before.candidates.iter().take(1).flat_map(|it| &it.trials).map(|it| it.seed).collect();
        let is: Vec<u64> = now.candidates.iter().take(1).flat_map(|it| &it.runs).map(|it| it.0).collect();
        ensure!(was == is, changed(format!("sweep.tune.seeds was [{}], now [{}]", listed(&was), listed(&is))));
        let simple = [
            ("steps", before.steps, trials.steps.unwrap_or(before.steps)),
            ("questions", before.questions, trials.questions),
        ];
        for (key, was, is) in simple {
            ensure!(was == is, changed(format!("sweep.tune.{key} was {was}, now {is}")));
        }
    }
    Ok(Some(record))
}

fn listed<T: Display>(values: &[T]) -> String {
    values.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

/// Whether the record has a choice for every arm that is tuned.
pub fn is_complete(record: &TuneRecord, trials: &Trials) -> bool {
    trials.arms.iter().all(|arm| record.arm(&arm.arm).is_some())
}

/// The errors of trials that failed, by name.
///
/// # Errors
/// A trial was killed or is missing for another reason than its own error, so nothing can be chosen yet.
pub fn failures(ends: &[(SweepTask, TaskEnd)]) -> Result<BTreeMap<String, String>> {
    let mut errors = BTreeMap::new();
    for (task, end) in ends {
        match end {
            TaskEnd::Done => {}
            TaskEnd::Failed(failure) => {
                let error = error(failure).with_context(|| {
                    format!(
                        "the trial `{}` has no result and no error: {}\n\
                         hint: run the same command again to resume it",
                        task.name, failure.status
                    )
                })?;
                errors.insert(task.name.clone(), error);
            }
            TaskEnd::Skipped | TaskEnd::Stopped => bail!("the trial `{}` is not done", task.name),
        }
    }
    Ok(errors)
}

/// The error that a process printed last. A process that was killed has none.
fn error(failure: &TaskFailure) -> Option<String> {
    let last = failure.lines.iter().rev().find_map(|line| line.strip_prefix("error: "))?;
    (!failure.status.starts_with("killed")).then(|| last.to_owned())
}

/// Chooses a value for every arm that has no choice in `earlier`.
///
/// # Errors
/// A file of a trial cannot be read; every candidate of an arm failed.
pub fn choose(
    trials: &Trials,
    folder: &SweepFolder,
    failed: &BTreeMap<String, String>,
    earlier: Option<TuneRecord>,
) -> Result<TuneRecord> {
    let fresh = || TuneRecord { rft: env!("CARGO_PKG_VERSION").to_owned(), key: trials.key.clone(), arms: Vec::new() };
    let mut record = earlier.unwrap_or_else(fresh);
    for arm in &trials.arms {
        if record.arm(&arm.arm).is_none() {
            record.arms.push(choose_for(arm, trials, folder, failed)?);
        }
    }
    Ok(record)
}

fn choose_for(
    arm: &ArmTrials,
    trials: &Trials,
    folder: &SweepFolder,
    failed: &BTreeMap<String, String>,
) -> Result<TunedArm> {
    let (mut candidates, mut steps) = (Vec::new(), trials.steps);
    for candidate in &arm.candidates {
        let (candidate, trained) = measured(candidate, folder, failed)?;
        candidates.push(candidate);
        steps = steps.or(trained);
    }
    let Some((chosen, reason)) = best(&candidates) else {
        let mut errors = arm.candidates.iter().flat_map(|it| &it.runs).filter_map(|(_, run)| failed.get(run));
        bail!(
            "every candidate of arm `{}` failed, so no value of `{}` can be chosen: {}\n\
             hint: correct the cause or the candidates; the logs are in `{}`",
            arm.arm,
            trials.key,
            errors.next_back().map_or("", String::as_str),
            folder.path.join("logs").display()
        );
    };
    Ok(TunedArm {
        arm: arm.arm.clone(),
        steps: steps.context("the number of steps of the trials is unknown")?,
        questions: trials.questions,
        choice: chosen.value.clone(),
        reason: reason.to_owned(),
        candidates,
    })
}

/// The results of a candidate's trials, and their number of steps.
fn measured(
    candidate: &CandidateTrials,
    folder: &SweepFolder,
    failed: &BTreeMap<String, String>,
) -> Result<(TuneCandidate, Option<usize>)> {
    let (mut trials, mut scores, mut steps): (Vec<TuneTrial>, Vec<Vec<bool>>, _) = (Vec::new(), Vec::new(), None);
    for (seed, run) in &candidate.runs {
        let result = match failed.get(run) {
            Some(error) => TrialResult::Failed { error: error.clone() },
            None => {
                let path = folder.run_path(run);
                let (groups, trained) = evaluation(&path).with_context(|| format!("read the trial `{run}`"))?;
                steps = Some(trained);
                let right: Vec<bool> = groups.iter().map(GroupRecord::is_solved).collect();
                let correct = right.iter().filter(|it| **it).count();
                scores.push(right);
                TrialResult::Done { correct, questions: groups.len(), questions_sha256: hash(&groups) }
            }
        };
        trials.push(TuneTrial { run: run.clone(), seed: *seed, result });
    }
    let is_done = scores.len() == trials.len();
    let correct = scores.iter().flatten().filter(|it| **it).count();
    let asked: usize = scores.iter().map(Vec::len).sum();
    let candidate = TuneCandidate {
        value: candidate.value.clone(),
        accuracy: is_done.then(|| correct as f64 / asked as f64),
        interval: is_done.then(|| interval(&scores, &trials)),
        trials,
    };
    Ok((candidate, steps))
}

/// The completions after the last step, and the number of steps.
fn evaluation(path: &Path) -> Result<(Vec<GroupRecord>, usize)> {
    let run = RunDir::open(path)?;
    let steps = Manifest::read(&run)?.steps;
    let groups = completions::read(&run.evaluation(steps, SAMPLED))?;
    ensure!(!groups.is_empty(), "it was not evaluated on any question");
    Ok((groups, steps))
}

/// The 95 % interval over questions. Trials that were asked the same questions are samples of these.
fn interval(scores: &[Vec<bool>], trials: &[TuneTrial]) -> Interval {
    let hashes = trials.iter().map(|it| match &it.result {
        TrialResult::Done { questions_sha256, .. } => questions_sha256.as_str(),
        TrialResult::Failed { .. } => "",
    });
    let hashes: Vec<&str> = hashes.collect();
    if hashes.iter().any(|it| it != &hashes[0]) {
        let all: Vec<bool> = scores.iter().flatten().copied().collect();
        return Proportion::new(all.iter().filter(|it| **it).count(), all.len()).interval;
    }
    let share = |at: usize| scores.iter().filter(|it| it[at]).count() as f64 / scores.len() as f64;
    let means: Vec<f64> = (0..scores[0].len()).map(share).collect();
    accuracy_interval(&means, scores.len(), SEED)
}

/// A hash of the identities and texts of the questions.
fn hash(groups: &[GroupRecord]) -> String {
    let texts: Vec<String> = groups.iter().map(|it| format!("{}\n{}\n", it.question_id, it.question)).collect();
    sha256(texts.concat().as_bytes())
}

/// A line for the user: the choice for an arm and its accuracy.
pub fn line(arm: &TunedArm, key: &str) -> String {
    let accuracy = arm.chosen().and_then(|it| {
        let Interval { low, high } = it.interval?;
        Some(format!(
            "; accuracy {:.1} % [{:.1}, {:.1}] on {} held-out questions",
            100.0 * it.accuracy?,
            100.0 * low,
            100.0 * high,
            it.questions()?
        ))
    });
    let failed: Vec<&Number> = arm.candidates.iter().filter(|it| it.accuracy.is_none()).map(|it| &it.value).collect();
    let failed = if failed.is_empty() { String::new() } else { format!("; failed: {}", listed(&failed)) };
    format!("{}: {key} = {}, {}{}{failed}", arm.arm, arm.choice, arm.reason, accuracy.unwrap_or_default())
}
