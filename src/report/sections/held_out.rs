//! The held-out questions of the training data before and after training, as measured by `rft train`.

use serde_json::json;

use super::{ReportPart, SEED, arms};
use crate::report::chart::{Axis, Forest, ForestGroup};
use crate::report::document::{DocumentBlock, Table, TableCell, percent};
use crate::report::load::{HeldOut, Material, ReportedRun, ReportedSample, quoted};
use crate::report::study::{self, Study, StudyArm, StudyBenchmark, StudyCell, StudyOutcome, text::ends};
use crate::run::GroupRecord;
use crate::stats::mean;

/// The name of the questions in a comparison.
const NAME: &str = "held-out questions";

/// An arm, and its runs that were evaluated on held-out questions.
type HeldOutArm<'a> = (String, Vec<(&'a ReportedRun, &'a HeldOut)>);

fn measured(material: &Material) -> Vec<HeldOutArm<'_>> {
    let answered =
        |runs: Vec<_>| runs.into_iter().filter_map(|run: &ReportedRun| Some((run, run.held_out.as_ref()?))).collect();
    let all = arms(material).into_iter().map(|(name, runs)| -> HeldOutArm { (name, answered(runs)) });
    all.filter(|(_, runs)| !runs.is_empty()).collect()
}

/// The name of an arm before training.
pub fn before(arm: &str) -> String {
    format!("{arm}, before training")
}

/// Each arm compared with itself before training. If the runs cannot be combined, the reason is added to `left_out`.
pub fn compare(material: &Material, left_out: &mut Vec<String>) -> Option<StudyOutcome> {
    let arms = measured(material);
    let ids = |held_out: &HeldOut| -> Vec<String> {
        held_out.sampled.after.iter().map(|group| group.question_id.clone()).collect()
    };
    let mut all = arms.iter().flat_map(|(_, runs)| runs).map(|(_, held_out)| ids(held_out));
    let first = all.next()?;
    if all.any(|it| it != first) {
        left_out.push("The runs held out different questions, so these are not compared.".to_owned());
        return None;
    }
    let arm = |name: String, runs: &[(&ReportedRun, &HeldOut)], of: fn(&HeldOut) -> &[GroupRecord]| StudyArm {
        seeds: runs.iter().map(|(run, held_out)| (run.seed, vec![right(of(held_out))])).collect(),
        name,
    };
    let after = arms.iter().map(|(name, runs)| arm(name.clone(), runs, |it| &it.sampled.after));
    let earlier = arms.iter().map(|(name, runs)| arm(before(name), runs, |it| &it.sampled.before));
    let study = Study {
        benchmarks: vec![StudyBenchmark { name: NAME.to_owned(), samples: 1 }],
        arms: after.chain(earlier).collect(),
    };
    let (trained, untrained) = study.arms.split_at(arms.len());
    match study::compare_pairs(&study, &trained.iter().zip(untrained).collect::<Vec<_>>(), SEED) {
        Ok(outcome) => Some(outcome),
        Err(error) => {
            left_out.push(format!("Before and after training are not compared: {}.", quoted(&error.to_string())));
            None
        }
    }
}

/// A sentence for each arm: its accuracy before and after training.
pub fn known(material: &Material, outcome: &StudyOutcome) -> Vec<String> {
    let cell = |name: &str| outcome.cells.iter().find(|(it, _)| it == name).map(|(_, cells)| cells[0]);
    let sentence = |(name, runs): HeldOutArm| {
        let (earlier, later) = (cell(&before(&name))?, cell(&name)?);
        let show = |cell: StudyCell| format!("{} % {}", percent(cell.accuracy), ends(cell.interval));
        let questions = runs.first()?.1.sampled.after.len();
        Some(format!(
            "{}: accuracy on {questions} held-out questions {} before training, {} after ({} seed{}).",
            quoted(&name),
            show(earlier),
            show(later),
            runs.len(),
            if runs.len() == 1 { "" } else { "s" }
        ))
    };
    measured(material).into_iter().filter_map(sentence).collect()
}

/// 1 for each question with a correct completion, else 0.
fn right(groups: &[GroupRecord]) -> Vec<f64> {
    groups.iter().map(|group| f64::from(u8::from(group.is_solved()))).collect()
}

pub fn part(material: &Material, outcome: &StudyOutcome) -> ReportPart {
    let arms = measured(material);
    let questions = arms[0].1[0].1.sampled.after.len();
    let caption = format!(
        "{questions} questions that were not used for training. Accuracy in percent at temperature 1, one completion per question, with \
         its 95 % interval over questions; after ±, the standard deviation between training seeds."
    );
    let heads = [
        "arm",
        "seeds",
        "before training",
        "after",
        "greedy, before → after",
        "format, before → after",
        "tokens, before → after",
    ];
    let mut table = Table::new("held_out", &caption, heads);
    let cell = |name: &str| {
        let found = outcome.cells.iter().find(|(it, _)| it == name);
        found.map_or_else(|| "–".into(), |(_, cells)| cells[0].shown())
    };
    for (name, runs) in &arms {
        // Mean over the runs that have the value, before and after training.
        let ends = |of: &dyn Fn(&HeldOut) -> Option<(f64, f64)>, show: fn(f64) -> String| -> TableCell {
            let ends: Vec<(f64, f64)> = runs.iter().filter_map(|(_, held_out)| of(held_out)).collect();
            let over = |end: fn(&(f64, f64)) -> f64| mean(&ends.iter().map(end).collect::<Vec<_>>());
            let after = over(|it| it.1);
            if ends.is_empty() {
                "–".into()
            } else {
                TableCell::number(after, format!("{} → {}", show(over(|it| it.0)), show(after)))
            }
        };
        let greedy = |it: &HeldOut| it.greedy.as_ref().map(|it| (mean(&right(&it.before)), mean(&right(&it.after))));
        let format = |it: &HeldOut| Some((share(&it.sampled.before, "format")?, share(&it.sampled.after, "format")?));
        let tokens = |it: &HeldOut| Some((tokens(&it.sampled.before), tokens(&it.sampled.after)));
        table.rows.push(vec![
            name.as_str().into(),
            TableCell::number(runs.len() as f64, runs.len().to_string()),
            cell(&before(name)),
            cell(name),
            ends(&greedy, percent),
            ends(&format, percent),
            ends(&tokens, |it| format!("{it:.1}")),
        ]);
    }
    let changes = outcome.comparisons("held_out_change", "Change of accuracy, in percentage points.");
    let data = json!({ "questions": questions, "cells": outcome.cells, "comparisons": outcome.comparisons });
    let chart = DocumentBlock::Chart(chart(&arms, outcome).svg());
    let blocks = vec![chart, DocumentBlock::Table(table), DocumentBlock::Table(changes)];
    ReportPart::new("held-out", "Held-out questions", blocks, data)
}

/// A group of two rows for each arm: before and after training.
fn chart(arms: &[HeldOutArm], outcome: &StudyOutcome) -> Forest {
    let row = |name: String, label: &str| {
        let (_, cells) = outcome.cells.iter().find(|(it, _)| *it == name)?;
        Some(cells[0].chart_row(label.to_owned()))
    };
    let group = |(name, _): &HeldOutArm| ForestGroup {
        heading: name.clone(),
        rows: [(before(name), "before"), (name.clone(), "after")].into_iter().filter_map(|(n, l)| row(n, l)).collect(),
    };
    Forest {
        title: "Accuracy on held-out questions before and after training".to_owned(),
        description: "Accuracy in percent with its 95 % interval over questions, by arm.".to_owned(),
        axis: Axis::new("accuracy", "%"),
        zero: false,
        legend: "Line: 95 % interval over questions.".to_owned(),
        groups: arms.iter().map(group).collect(),
    }
}

/// The share of completions with the full value of a reward component; `None` if the runs do not have it.
fn share(groups: &[GroupRecord], reward: &str) -> Option<f64> {
    let completions = groups.iter().flat_map(|group| &group.completions);
    // No value: the prior prompt of the group does not ask for a format.
    let values = completions.filter_map(|completion| completion.rewards.get(reward).copied().flatten());
    let values: Vec<f64> = values.map(|value| f64::from(u8::from(value == 1.0))).collect();
    (!values.is_empty()).then(|| mean(&values))
}

fn tokens(groups: &[GroupRecord]) -> f64 {
    mean(
        &groups
            .iter()
            .flat_map(|group| &group.completions)
            .map(|completion| completion.tokens as f64)
            .collect::<Vec<_>>(),
    )
}

/// The completions of each arm at its lowest seed, before and after training.
pub fn readable(material: &Material) -> Vec<(String, Vec<ReportedSample>)> {
    let of_arm = |(name, runs): HeldOutArm| {
        let (_, held_out) = runs.into_iter().min_by_key(|(run, _)| run.seed)?;
        let HeldOut { sampled, .. } = held_out;
        Some([(before(&name), samples(&sampled.before)), (name, samples(&sampled.after))])
    };
    measured(material).into_iter().filter_map(of_arm).flatten().collect()
}

fn samples(groups: &[GroupRecord]) -> Vec<ReportedSample> {
    let sample = |group: &GroupRecord| {
        let completion = group.completions.first()?;
        Some(ReportedSample {
            id: group.question_id.clone(),
            question: group.question.clone(),
            gold: group.gold.clone(),
            text: completion.text.clone(),
            tokens: completion.tokens,
            finish: completion.finish.clone(),
            answer: completion.answer.clone(),
            verdict: completion.verdict.clone(),
            how: completion.note.clone().unwrap_or_default(),
        })
    };
    groups.iter().filter_map(sample).collect()
}
