//! How the learning rate of each arm was chosen, or another setting: the trials of the sweep and their accuracies.

use std::collections::BTreeSet;

use serde_json::json;

use super::{ReportPart, arms, closed_if_long};
use crate::report::document::{DocumentBlock, Table, TableCell, percent};
use crate::report::load::{Material, quoted};
use crate::report::study::text::ends;
use crate::run::tuning::{TrialResult, TuneCandidate, TuneRecord, TuneTrial, TunedArm, number, same};
use crate::stats::Interval;

/// The section; `None` if nothing was tuned.
pub fn part(material: &Material) -> Option<ReportPart> {
    let record = material.tuning.as_ref()?;
    let title = match record.key.as_str() {
        "train.learning_rate" => "How the learning rates were chosen",
        _ => "How the tuned values were chosen",
    };
    let text = format!(
        "The value of {} was chosen for each arm by trials: training runs with seeds of their own, each evaluated after training on \
         questions that were held out of the training data. No benchmark was used. The value with the highest accuracy is chosen; of \
         equal ones, the smallest.",
        quoted(&record.key)
    );
    let mut blocks = vec![DocumentBlock::Text(text), DocumentBlock::Table(choices(record))];
    let untuned = untuned(material);
    if !untuned.is_empty() {
        let names: Vec<String> = untuned.iter().map(|arm| quoted(arm)).collect();
        blocks.push(DocumentBlock::Text(format!("Not tuned: {}.", names.join(", "))));
    }
    blocks.push(closed_if_long("The accuracy of every candidate", accuracies(record)));
    let data = json!({ "key": record.key, "arms": record.arms, "untuned": untuned });
    Some(ReportPart::new("tuning", title, blocks, data))
}

/// A row per arm: its budget and its choice.
fn choices(record: &TuneRecord) -> Table {
    let caption = "The choice for each arm. Budget: trials × steps of each trial × held-out questions of each trial.";
    let mut table = Table::new("tuning_choices", caption, ["arm", "candidates", "budget", "choice", "reason"]);
    for arm in &record.arms {
        let trials: usize = arm.candidates.iter().map(|it| it.trials.len()).sum();
        table.rows.push(vec![
            arm.arm.as_str().into(),
            candidates(arm).into(),
            format!("{trials} × {} × {}", arm.steps, arm.questions).into(),
            TableCell::number(number(&arm.choice), arm.choice.to_string()),
            arm.reason.as_str().into(),
        ]);
    }
    table
}

fn candidates(arm: &TunedArm) -> String {
    arm.candidates.iter().map(|it| it.value.to_string()).collect::<Vec<_>>().join(", ")
}

/// A row per candidate.
fn accuracies(record: &TuneRecord) -> Table {
    let caption = "Accuracy in percent on the held-out questions, one completion per question and trial, with its 95 % interval over \
                   questions.";
    let heads = ["arm", "value", "trials", "accuracy", "result"];
    let mut table = Table::new("tuning_accuracies", caption, heads);
    for arm in &record.arms {
        for candidate in &arm.candidates {
            let shown = |accuracy: f64| {
                let interval = candidate.interval.map_or_else(String::new, |it| format!(" {}", ends(it)));
                format!("{}{interval}", percent(accuracy))
            };
            let result = match error(candidate) {
                Some(error) => format!("failed: {error}"),
                None if same(&candidate.value, &arm.choice) => "chosen".to_owned(),
                None => String::new(),
            };
            table.rows.push(vec![
                arm.arm.as_str().into(),
                TableCell::number(number(&candidate.value), candidate.value.to_string()),
                candidate.trials.len().to_string().into(),
                TableCell::maybe(candidate.accuracy, shown),
                result.into(),
            ]);
        }
    }
    table
}

/// The error of the first trial that failed.
fn error(candidate: &TuneCandidate) -> Option<&str> {
    candidate.trials.iter().find_map(|it| match &it.result {
        TrialResult::Failed { error } => Some(error.as_str()),
        TrialResult::Done { .. } => None,
    })
}

/// The arms for which no choice is recorded, in the order of the runs.
fn untuned(material: &Material) -> Vec<String> {
    let Some(record) = &material.tuning else { return Vec::new() };
    arms(material).into_iter().map(|(arm, _)| arm).filter(|arm| record.arm(arm).is_none()).collect()
}

/// Warnings about arms that were not tuned alike, and about choices that are uncertain.
pub fn warnings(material: &Material) -> Vec<String> {
    let Some(record) = &material.tuning else { return Vec::new() };
    let (mut said, key) = (Vec::new(), quoted(&record.key));
    let untuned: Vec<String> = untuned(material).iter().map(|arm| quoted(arm)).collect();
    if !untuned.is_empty() {
        said.push(format!(
            "Not tuned alike: {key} was chosen by trials for some arms but not for {}, so a difference between them may come from \
             the tuning.",
            untuned.join(", ")
        ));
    }
    said.extend(unlike(record));
    let other: BTreeSet<&str> = material
        .runs
        .iter()
        .filter(|run| run.tuned.is_none() && record.arm(&run.arm).is_some())
        .map(|run| run.arm.as_str())
        .collect();
    if !other.is_empty() {
        let names: Vec<String> = other.into_iter().map(quoted).collect();
        said.push(format!("Not the chosen value: {key} of {} does not follow from its trials.", names.join(", ")));
    }
    let named = |of: &dyn Fn(&TunedArm) -> Option<String>| -> Vec<String> {
        record.arms.iter().filter_map(|arm| Some(format!("{} ({})", quoted(&arm.arm), of(arm)?))).collect()
    };
    let failed = named(&|arm| {
        let failed: Vec<String> =
            arm.candidates.iter().filter(|it| it.accuracy.is_none()).map(|it| it.value.to_string()).collect();
        (!failed.is_empty()).then(|| failed.join(", "))
    });
    if !failed.is_empty() {
        said.push(format!("Failed trials: a trial with {key} ended with an error: {}.", failed.join(", ")));
    }
    let edge = named(&|arm| is_edge(arm).then(|| arm.choice.to_string()));
    if !edge.is_empty() {
        said.push(format!(
            "At the edge: the chosen {key} is the smallest or the largest candidate, so a value outside the candidates may be \
             better: {}.",
            edge.join(", ")
        ));
    }
    let noise = named(&as_good);
    if !noise.is_empty() {
        said.push(format!(
            "Within noise: the interval of other candidates of {key} overlaps with that of the choice, so they may be as good: {}.",
            noise.join(", ")
        ));
    }
    said
}

/// A setting of the trials of an arm.
type Budget = (&'static str, fn(&TunedArm) -> String);

/// A warning for each setting in which the trials of the arms differ.
fn unlike(record: &TuneRecord) -> Vec<String> {
    let of: [Budget; 4] = [
        ("candidates", candidates),
        ("seeds", |arm| seeds(arm).join(", ")),
        ("steps", |arm| arm.steps.to_string()),
        ("held-out questions", |arm| arm.questions.to_string()),
    ];
    let mut said = Vec::new();
    for (what, value) in of {
        let values: Vec<(String, String)> = record.arms.iter().map(|arm| (quoted(&arm.arm), value(arm))).collect();
        if values.iter().any(|(_, value)| *value != values[0].1) {
            let values: Vec<String> = values.into_iter().map(|(arm, value)| format!("{arm} {value}")).collect();
            said.push(format!("Not tuned alike: the trials of the arms have different {what}: {}.", values.join("; ")));
        }
    }
    let asked: BTreeSet<Vec<(u64, &str)>> =
        record.arms.iter().flat_map(|arm| &arm.candidates).filter_map(asked).collect();
    if asked.len() > 1 {
        said.push(
            "Not tuned alike: the trials were evaluated on different held-out questions, because some prompts were too long or the \
             arms have different data."
                .to_owned(),
        );
    }
    said
}

fn seeds(arm: &TunedArm) -> Vec<String> {
    let first = arm.candidates.first();
    first.iter().flat_map(|it| &it.trials).map(|it| it.seed.to_string()).collect()
}

/// The seeds of a candidate's trials, with the hashes of their questions; `None` if one failed.
fn asked(candidate: &TuneCandidate) -> Option<Vec<(u64, &str)>> {
    fn of(trial: &TuneTrial) -> Option<(u64, &str)> {
        match &trial.result {
            TrialResult::Done { questions_sha256, .. } => Some((trial.seed, questions_sha256)),
            TrialResult::Failed { .. } => None,
        }
    }
    candidate.trials.iter().map(of).collect()
}

fn is_edge(arm: &TunedArm) -> bool {
    let values = || arm.candidates.iter().map(|it| number(&it.value));
    let choice = number(&arm.choice);
    values().all(|it| it <= choice) || values().all(|it| it >= choice)
}

/// The other candidates whose intervals overlap with that of the choice.
fn as_good(arm: &TunedArm) -> Option<String> {
    let chosen = arm.chosen()?.interval?;
    let overlaps = |it: Interval| it.low <= chosen.high && chosen.low <= it.high;
    let others: Vec<String> = arm
        .candidates
        .iter()
        .filter(|it| !same(&it.value, &arm.choice) && it.interval.is_some_and(overlaps))
        .map(|it| it.value.to_string())
        .collect();
    (!others.is_empty()).then(|| format!("{} and {}", arm.choice, others.join(", ")))
}
