//! Warnings about the reliability of the results.

use std::collections::{BTreeMap, BTreeSet};

use super::results::{Comparisons, overlaps};
use super::{arms, groups, lengths, tuning, wordings};
use crate::report::aligned::Aligned;
use crate::report::load::{Material, ReportedBenchmark, ReportedEvaluation, quoted};
use crate::report::study::{ArmComparison, ComparisonVerdict, StudyArm, WORTH};
use crate::stats::mean;

/// Above this share of truncated completions, a score also depends on the maximum length.
const TRUNCATED: f64 = 0.05;

/// With at least this share of correct completions, or of wrong ones, a benchmark hardly distinguishes arms.
const CEILING: f64 = 0.99;

/// With at least this share of groups whose rewards are all equal, training has almost no signal.
const SATURATED: f64 = 0.8;

/// All warnings, the most serious first; `left_out` comes last.
pub fn all(material: &Material, aligned: &Aligned, found: &Comparisons, left_out: Vec<String>) -> Vec<String> {
    let mut said = Vec::new();
    said.extend(material.split.iter().cloned());
    said.extend(single_seeds(material, aligned));
    said.extend(wordings::warning(material, aligned));
    said.extend(tuning::warnings(material));
    said.extend(power(found));
    said.extend(contaminated(material, aligned));
    said.extend(settings(material, aligned));
    said.extend(at_the_ends(material, aligned));
    said.extend(truncated(material, aligned));
    said.extend(saturated(material));
    said.extend(not_finite(material));
    said.extend(left_out);
    said
}

fn single_seeds(material: &Material, aligned: &Aligned) -> Option<String> {
    let mut seeds: Vec<(String, usize)> =
        aligned.study(material).arms.into_iter().map(|arm| (arm.name, arm.seeds.len())).collect();
    if seeds.is_empty() {
        // Without evaluations, count the runs.
        seeds = arms(material).into_iter().map(|(name, runs)| (name, runs.len())).collect();
    }
    let single: Vec<String> = seeds.iter().filter(|(_, seeds)| *seeds < 2).map(|(arm, _)| quoted(arm)).collect();
    let one = single.len() == 1;
    (!single.is_empty()).then(|| {
        format!(
            "One training seed: {} {} trained only once, so the effect of the seed is unknown.",
            single.join(", "),
            if one { "was" } else { "were" }
        )
    })
}

fn power(found: &Comparisons) -> Option<String> {
    let comparisons: Vec<_> = found.outcomes().flat_map(|outcome| &outcome.comparisons).collect();
    // Comparisons with one seed have a separate warning.
    let weak = |it: &&&ArmComparison| {
        it.seeds.seeds > 1 && matches!(it.verdict, ComparisonVerdict::None { power } if power < 0.5)
    };
    let count = comparisons.iter().filter(weak).count();
    (count > 0).then(|| {
        format!(
            "Underpowered: {count} of {} comparisons have a power below 50 % to detect a true difference of {:.0} points.",
            comparisons.len(),
            100.0 * WORTH
        )
    })
}

/// Benchmarks that are too easy or too hard to distinguish the arms.
fn at_the_ends(material: &Material, aligned: &Aligned) -> Vec<String> {
    let (study, mut said) = (aligned.study(material), Vec::new());
    let all = study.arms.len();
    for (column, benchmark) in study.benchmarks.iter().enumerate() {
        let score =
            |arm: &StudyArm| mean(&arm.seeds.values().map(|results| mean(&results[column])).collect::<Vec<_>>());
        let scores: Vec<f64> = study.arms.iter().map(score).collect();
        let easy = scores.iter().filter(|score| **score >= CEILING).count();
        let hard = scores.iter().filter(|score| **score <= 1.0 - CEILING).count();
        let share = 100.0 * CEILING;
        for (count, what) in [(easy, "correct"), (hard, "wrong")] {
            if count > 1 {
                said.push(format!(
                    "At the end of the scale: {count} of {all} arms have at least {share:.0} % of {} {what}, so differences \
                     between them cannot be measured on this benchmark.",
                    quoted(&benchmark.name)
                ));
            }
        }
    }
    said
}

fn contaminated(material: &Material, aligned: &Aligned) -> Vec<String> {
    let (overlaps, mut said) = (overlaps(material), Vec::new());
    for (benchmark, ids) in aligned.benchmarks.iter().zip(&aligned.ids) {
        let count = overlaps.get(&benchmark.name).map_or(0, |out| ids.iter().filter(|id| out.contains(*id)).count());
        if count > 0 {
            let (name, total) = (quoted(&benchmark.name), ids.len());
            said.push(format!(
                "Contaminated: {count} of {total} questions of {name} overlap with the training data; the results are also given \
                 without them."
            ));
        }
    }
    let reasons: BTreeSet<(&String, &String)> = material
        .runs
        .iter()
        .flat_map(|run| run.contamination.iter().flat_map(|found| &found.not_checked))
        .filter(|(name, _)| aligned.benchmarks.iter().any(|it| it.name == **name))
        .collect();
    for (name, why) in reasons {
        said.push(format!("The training data was not checked for questions of {}: {}.", quoted(name), quoted(why)));
    }
    let unchecked = material.runs.iter().filter(|run| run.contamination.is_none()).count();
    if unchecked > 0 && unchecked < material.runs.len() {
        said.push(format!("The training data of {unchecked} runs was not compared with the benchmarks."));
    }
    said
}

/// The name of a setting, and its value.
type Setting<T> = (&'static str, fn(&T) -> String);

/// Settings in which evaluations of one table differ.
fn settings(material: &Material, aligned: &Aligned) -> Vec<String> {
    let rows: Vec<&ReportedEvaluation> = aligned.rows.iter().map(|row| &material.evaluations[row.evaluation]).collect();
    let mut said = Vec::new();
    let of: [Setting<ReportedEvaluation>; 6] = [
        ("the model", |it| it.identity.model_sha256.clone()),
        ("the device", |it| it.identity.engine.clone()),
        ("the profile", |it| it.identity.profile.clone()),
        ("the chat template", |it| it.identity.template_sha256.clone()),
        ("the tokenizer", |it| it.identity.tokenizer_sha256.clone()),
        ("the sampling seed", |it| it.identity.seed.to_string()),
    ];
    for (what, value) in of {
        if rows.iter().map(|it| value(it)).collect::<BTreeSet<_>>().len() > 1 {
            said.push(format!(
                "The evaluations differ in {what}, so a difference in accuracy may have causes other than training."
            ));
        }
    }
    const LENGTH: &str = "the maximum completion length";
    let of: [Setting<ReportedBenchmark>; 4] = [
        ("the file of questions", |it| it.record.data_sha256.clone()),
        ("temperature or top-p", |it| format!("{} {}", it.record.style.temperature, it.record.style.top_p)),
        (LENGTH, |it| it.record.style.max_tokens.to_string()),
        ("the number of samples", |it| it.scores.samples.to_string()),
    ];
    for benchmark in &aligned.benchmarks {
        let benches: Vec<&ReportedBenchmark> = rows.iter().map(|it| &it.benches[&benchmark.name]).collect();
        // A length that no completion reached makes no difference.
        let is_reached = benches.iter().any(|it| it.scores.truncated > 0.0);
        for (what, value) in of.into_iter().filter(|(what, _)| *what != LENGTH || is_reached) {
            if benches.iter().map(|it| value(it)).collect::<BTreeSet<_>>().len() > 1 {
                said.push(format!("The evaluations on {} differ in {what}.", quoted(&benchmark.name)));
            }
        }
    }
    said
}

fn truncated(material: &Material, aligned: &Aligned) -> Option<String> {
    let share = |group: &_| lengths::share(material, group, aligned, |scores| scores.truncated);
    let cut: Vec<String> = groups(material, aligned)
        .iter()
        .map(|group| (&group.label, share(group)))
        .filter(|(_, share)| *share > TRUNCATED)
        .map(|(label, share)| format!("{} {:.0} %", quoted(label), 100.0 * share))
        .collect();
    (!cut.is_empty()).then(|| {
        format!(
            "Truncated: completions reached the maximum length, and those without an answer count as wrong: {}.",
            cut.join(", ")
        )
    })
}

fn saturated(material: &Material) -> Option<String> {
    let mut runs: BTreeMap<&str, usize> = BTreeMap::new();
    // A distilled prompt is not learned from rewards.
    for run in material.runs.iter().filter(|run| run.manifest.distilled.is_none()) {
        if run.ends("frac_reward_zero_std").is_some_and(|(_, last)| last >= SATURATED) {
            *runs.entry(&run.arm).or_default() += 1;
        }
    }
    let named: Vec<String> = runs.iter().map(|(arm, count)| format!("{} ({count})", quoted(arm))).collect();
    (!named.is_empty()).then(|| {
        format!(
            "Reward saturated: at the end of training, all rewards were equal in at least {:.0} % of the groups, so there was almost no \
             training signal. Number of such runs by arm: {}.",
            100.0 * SATURATED,
            named.join(", ")
        )
    })
}

fn not_finite(material: &Material) -> Option<String> {
    let broken = material.runs.iter().filter(|run| run.steps.iter().any(|step| !step.non_finite.is_empty()));
    let names: Vec<String> = broken.map(|run| quoted(&run.name)).collect();
    (!names.is_empty()).then(|| format!("Metrics that are not finite were logged by {}.", names.join(", ")))
}
