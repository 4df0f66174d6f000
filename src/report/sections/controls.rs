//! Would another reward have done it? The gains of the arms, and those of the arms with a control reward.
//!
//! A gain is the accuracy of the trained model minus that of the untrained model under the same prompt, for each question.

use std::collections::BTreeMap;

use serde_json::json;

use super::{ReportPart, SEED, charts, closed_if_long, columns};
use crate::config::{CONTROLS, RULES};
use crate::report::aligned::Aligned;
use crate::report::chart::{Axis, Forest, ForestGroup};
use crate::report::document::{DocumentBlock, Table, TableCell};
use crate::report::load::{Material, ReportedRun, quoted};
use crate::report::study::text::{points, signed_ends};
use crate::report::study::{self, ArmComparison, Study, StudyArm, StudyOutcome};
use crate::stats::RESAMPLES;

/// The reward of each control arm, by the name of the arm.
type Controls = BTreeMap<String, String>;

/// The section; `None` if no arm has one of the control rewards, or if the gains are not known.
pub fn part(material: &Material, aligned: &Aligned, untrained: Option<&StudyOutcome>) -> Option<ReportPart> {
    let from_untrained = &untrained?.comparisons;
    let controls: Controls =
        material.runs.iter().filter_map(|run| Some((run.arm.clone(), control_reward(run)?))).collect();
    let has_control_reward = |reward: &String| CONTROLS.iter().any(|name| reward.split(" and ").any(|it| it == *name));
    if !controls.values().any(has_control_reward) {
        return None;
    }
    let study = gains(material, aligned);
    let (of_controls, of_arms): (Vec<_>, Vec<_>) =
        study.arms.iter().partition(|arm| controls.contains_key(arm.name.as_str()));
    let pairs: Vec<(&StudyArm, &StudyArm)> = of_arms
        .iter()
        .flat_map(|arm| of_controls.iter().filter(move |it| it.shares_seed(arm)).map(move |it| (*arm, *it)))
        .collect();
    let outcome = StudyOutcome {
        comparisons: study::comparisons(&study, &pairs, RESAMPLES, SEED).ok()?,
        columns: columns(aligned),
        cells: Vec::new(),
        seeds: Vec::new(),
        replicates: "seeds",
    };
    let text = "A gain is the difference from the untrained model under the same prompt. An arm is a control if its reward \
                does not know which answers are right, or rewards wrong ones. If the gain of an arm is not higher than that of \
                a control, the gain is not evidence for the reward of the arm. Gains are paired by question and training \
                seed; Holm's correction covers all comparisons between arms and controls.";
    let caption = "Gains from the untrained model under the same prompt, in percentage points, with 95 % intervals.";
    let mut blocks = vec![DocumentBlock::Text(text.to_owned()), DocumentBlock::List(verdicts(&outcome, &controls))];
    blocks.extend(charts(vec![forest(from_untrained, &outcome.columns, &controls)]));
    blocks.push(closed_if_long("All gains", gain_table(caption, from_untrained, &controls)));
    if !outcome.comparisons.is_empty() {
        let caption = "The gain of each arm minus the gain of each control, in percentage points.";
        let table = outcome.comparisons("controls", caption);
        blocks.push(closed_if_long("All differences from the gains of the controls", table));
    }
    let data = json!({ "controls": controls, "gains": from_untrained, "comparisons": outcome.comparisons });
    Some(ReportPart::new("controls", "Would another reward have done it?", blocks, data))
}

/// The rewarded components of a run, if none of them is higher for right answers.
fn control_reward(run: &ReportedRun) -> Option<String> {
    let text = |key: &str| run.config.get(&format!("reward.{key}")).map(String::as_str);
    let weight = |name: &str| {
        // If `format.weight` is unset, it is 0.5 for a prompt with tags, and the component is logged.
        let unset = match name {
            "accuracy" => 1.0,
            "format" if run.ends("rewards/format/mean").is_some() => 0.5,
            _ => 0.0,
        };
        text(&format!("{name}.weight")).and_then(|value| value.parse().ok()).unwrap_or(unset)
    };
    let checks_length = text("length.kind") == Some("cosine") && weight("length") > 0.0;
    let has_commands = text("custom").is_some_and(|list| list != "[]");
    if weight("accuracy") > 0.0 || weight("code") > 0.0 || checks_length || has_commands {
        return None;
    }
    Some(RULES.into_iter().filter(|name| weight(name) > 0.0).collect::<Vec<_>>().join(" and "))
}

/// The arms that were evaluated under a prompt under which the untrained model was too, with the gain of each question in
/// place of its accuracy.
fn gains(material: &Material, aligned: &Aligned) -> Study {
    let Study { benchmarks, arms } = aligned.study(material);
    let untrained = aligned.untrained();
    let gain = |arm: StudyArm| {
        let prompt = &material.runs.iter().find(|run| run.arm == arm.name)?.manifest.prompt.name;
        let base = &untrained.iter().find(|row| row.prompt == *prompt)?.right;
        let minus = |mut after: Vec<Vec<f64>>| {
            after.iter_mut().flatten().zip(base.iter().flatten()).for_each(|(after, before)| *after -= before);
            after
        };
        let seeds = arm.seeds.into_iter().map(|(seed, results)| (seed, minus(results))).collect();
        Some(StudyArm { name: arm.name, seeds })
    };
    Study { benchmarks, arms: arms.into_iter().filter_map(gain).collect() }
}

/// A sentence for each pair of an arm and a control: on the average, or on the only benchmark.
fn verdicts(outcome: &StudyOutcome, controls: &Controls) -> Vec<String> {
    let sentence = |it: &ArmComparison| {
        let by = match it.corrected.filter(|_| it.decided()) {
            Some(interval) => format!(" by {} points {}", points(it.seeds.difference), signed_ends(interval)),
            None => String::new(),
        };
        format!(
            "The gain of {}, compared with that of the control {} (reward {}): {}{by}.",
            quoted(&it.arm),
            quoted(&it.reference),
            controls[&it.reference],
            it.told("seed")
        )
    };
    let all = outcome.comparisons.iter().filter(|it| Some(&it.column) == outcome.columns.last());
    all.map(sentence).collect()
}

/// The arms first, then the controls.
fn sorted<'a>(gains: &'a [ArmComparison], controls: &Controls) -> Vec<&'a ArmComparison> {
    let mut sorted: Vec<&ArmComparison> = gains.iter().collect();
    sorted.sort_by_key(|it| controls.contains_key(&it.arm));
    sorted
}

fn forest(gains: &[ArmComparison], columns: &[String], controls: &Controls) -> Forest {
    let label = |arm: &str| if controls.contains_key(arm) { format!("{arm} (control)") } else { arm.to_owned() };
    let sorted = sorted(gains, controls);
    let group = |column: &String| ForestGroup {
        heading: column.clone(),
        rows: sorted.iter().filter(|it| it.column == *column).map(|it| it.chart_row(label(&it.arm), "seed")).collect(),
    };
    let legend = "Thick bar: 95 % interval over training seeds. Thin line: over questions.";
    Forest {
        title: "Gains of arms and controls".to_owned(),
        description: format!("Difference of accuracy from the untrained model, by benchmark. {legend}"),
        axis: Axis::new("gain of accuracy", "points"),
        zero: true,
        legend: legend.to_owned(),
        groups: columns.iter().map(group).filter(|group| !group.rows.is_empty()).collect(),
    }
}

fn gain_table(caption: &str, gains: &[ArmComparison], controls: &Controls) -> Table {
    let heads = ["arm", "control reward", "benchmark", "gain", "over seeds, 95\u{a0}%", "over questions, 95\u{a0}%"];
    let mut table = Table::new("gains", caption, heads);
    table.rows.extend(sorted(gains, controls).into_iter().map(|it| {
        vec![
            it.arm.as_str().into(),
            controls.get(&it.arm).map_or("–", String::as_str).into(),
            it.column.as_str().into(),
            TableCell::number(it.seeds.difference, points(it.seeds.difference)),
            it.seeds.interval.map_or("one seed".into(), signed_ends).into(),
            signed_ends(it.questions).into(),
        ]
    }));
    table
}
