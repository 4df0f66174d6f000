//! Strategies over their wordings: comparisons between strategies, and how much of the variance of accuracy comes from the
//! strategy, its wording, the seed and the questions.

use std::collections::BTreeMap;

use serde_json::{Map, json};

use super::{ReportPart, SEED, closed_if_long};
use crate::config::NO_PROMPT;
use crate::prompt::strategy;
use crate::report::aligned::Aligned;
use crate::report::document::{DocumentBlock, Table, TableCell, percent};
use crate::report::load::{Material, Strategy, quoted, strategies};
use crate::report::study::{Study, StudyArm, StudyOutcome, compare_pairs, pairs, text::ends};
use crate::stats::{Interval, VarianceComponent, VarianceComponents, variance_components};

/// The strategies that have evaluations of several wordings, compared with each other. The wordings are the replicates: each is
/// the mean over its seeds.
pub fn compare(material: &Material, aligned: &Aligned, left_out: &mut Vec<String>) -> Option<StudyOutcome> {
    let study = aligned.study(material);
    let arms: Vec<StudyArm> = worded(material, &study)
        .into_iter()
        .map(|(strategy, arms)| {
            let wordings = (0..).zip(arms.iter().map(|arm| arm.over_seeds())).collect();
            StudyArm { name: strategy.name, seeds: wordings }
        })
        .collect();
    if arms.len() < 2 {
        return None;
    }
    let study = Study { benchmarks: study.benchmarks.clone(), arms };
    match compare_pairs(&study, &pairs(&study, &[]), SEED) {
        Ok(outcome) => Some(StudyOutcome { replicates: "wordings", ..outcome }),
        Err(error) => {
            left_out.push(format!("The strategies are not compared: {}.", quoted(&error.to_string())));
            None
        }
    }
}

/// The strategies with several wordings, and the arms of these.
fn worded<'a>(material: &Material, study: &'a Study) -> Vec<(Strategy, Vec<&'a StudyArm>)> {
    let of = |strategy: Strategy| {
        let arms = strategy.arms.iter().filter_map(|name| study.arms.iter().find(|arm| arm.name == *name));
        let arms: Vec<&StudyArm> = arms.collect();
        (strategy, arms)
    };
    strategies(&material.runs).into_iter().map(of).filter(|(_, arms)| arms.len() > 1).collect()
}

/// A warning if several prior prompts are compared and some of them have one wording only. Arms that differ in something else
/// than their prompt, such as the reward, do not count.
pub fn warning(material: &Material, aligned: &Aligned) -> Option<String> {
    let study = aligned.study(material);
    // By the name of the prior prompt: whether it was trained with several wordings.
    let mut worded: BTreeMap<&str, bool> = BTreeMap::new();
    let mut names: Vec<&str> = Vec::new();
    for found in strategies(&material.runs) {
        let run = material.runs.iter().find(|run| run.arm == found.arms[0]).expect("arms are those of runs");
        let name = strategy(&run.manifest.learned_prompt().name);
        if name == NO_PROMPT || !study.arms.iter().any(|arm| found.arms.contains(&arm.name)) {
            continue;
        }
        if !names.contains(&name) {
            names.push(name);
        }
        *worded.entry(name).or_default() |= found.arms.len() > 1;
    }
    let single: Vec<String> = names.iter().filter(|name| !worded[**name]).map(|name| quoted(name)).collect();
    (names.len() > 1 && !single.is_empty()).then(|| {
        format!(
            "One wording: {} {} trained with one wording only, so a difference between strategies may be a difference between \
             wordings.",
            single.join(", "),
            if single.len() == 1 { "was" } else { "were" }
        )
    })
}

/// The section; `None` if no strategy has several wordings.
pub fn part(material: &Material, aligned: &Aligned, found: Option<&StudyOutcome>) -> Option<ReportPart> {
    let study = aligned.study(material);
    let worded = worded(material, &study);
    if worded.is_empty() {
        return None;
    }
    let counts: Vec<String> =
        worded.iter().map(|(strategy, arms)| format!("{} ({} wordings)", quoted(&strategy.name), arms.len())).collect();
    let mut text = format!(
        "Strategies with several wordings: {}. The table splits the variance of accuracy between runs and questions. A standard \
         deviation of 3 points between wordings means that another wording of the same strategy typically changes the accuracy by \
         about that much.",
        counts.join(", ")
    );
    text += &worded.iter().map(|(strategy, _)| tuned(material, strategy)).collect::<String>();
    let mut blocks = vec![DocumentBlock::Text(text)];
    let mut data = Map::new();
    let mut columns: Vec<(String, VarianceComponents)> = Vec::new();
    for (at, benchmark) in study.benchmarks.iter().enumerate() {
        let scores: Vec<Vec<Vec<Vec<f64>>>> = worded
            .iter()
            .map(|(_, arms)| arms.iter().map(|arm| arm.seeds.values().map(|it| it[at].clone()).collect()).collect())
            .collect();
        if let Some(components) = variance_components(&scores) {
            data.insert(benchmark.name.clone(), json!(components));
            columns.push((benchmark.name.clone(), components));
        }
    }
    if columns.is_empty() {
        blocks.push(DocumentBlock::Text(
            "The variance is not split: this needs a wording with two or more seeds.".to_owned(),
        ));
    } else {
        blocks.push(DocumentBlock::Table(table(&columns)));
    }
    if let Some(outcome) = found {
        blocks.push(DocumentBlock::Text(
            "Comparisons between strategies treat the wording as random: a verdict holds for other wordings of the same strategies, \
             for other seeds and for other questions."
                .to_owned(),
        ));
        let caption = "Differences of accuracy between strategies, in percentage points.";
        blocks.push(closed_if_long(
            "All differences between strategies, with their p-values",
            outcome.comparisons("strategies", caption),
        ));
    }
    let data = json!({ "variance": data, "comparisons": found.map(|it| &it.comparisons) });
    Some(ReportPart::new("wordings", "Strategy or wording", blocks, data))
}

/// A sentence with the values that trials chose for the wordings of a strategy, if they differ.
fn tuned(material: &Material, strategy: &Strategy) -> String {
    let key = material.tuning.as_ref().map(|it| quoted(&it.key));
    let Some(key) = key.filter(|_| strategy.tuned.iter().any(|value| *value != strategy.tuned[0])) else {
        return String::new();
    };
    let values = strategy.arms.iter().zip(&strategy.tuned).map(|(arm, value)| format!("{} {value}", quoted(arm)));
    let values: Vec<String> = values.collect();
    format!(
        " Trials chose different values of {key} for the wordings of {}: {}.",
        quoted(&strategy.name),
        values.join(", ")
    )
}

/// Standard deviations in percentage points.
fn table(columns: &[(String, VarianceComponents)]) -> Table {
    let heads = std::iter::once("source".to_owned()).chain(columns.iter().map(|(name, _)| name.clone()));
    let caption = "Standard deviation of accuracy from each source, in percentage points, with its 95 % interval: between strategies, \
                   between wordings of a strategy, between seeds of a wording, between questions, and the rest (chance within a \
                   question, and what depends on both the run and the question).";
    let mut table = Table::new("variance", caption, heads);
    type Part = fn(&VarianceComponents) -> Option<VarianceComponent>;
    let parts: [(&str, Part); 5] = [
        ("strategy", |it| it.strategy),
        ("wording", |it| it.wording),
        ("seed", |it| it.seed),
        ("question", |it| Some(it.question)),
        ("rest", |it| Some(it.rest)),
    ];
    for (name, part) in parts {
        let mut row: Vec<TableCell> = vec![name.into()];
        row.extend(columns.iter().map(|(_, components)| match part(components) {
            Some(it) => {
                let Interval { low, high } = it.interval;
                let sd = it.variance.sqrt();
                // An accuracy is at most one, so no standard deviation is above a half.
                let ends = ends(Interval { low: low.sqrt(), high: high.sqrt().min(0.5) });
                TableCell::number(sd, format!("{} {ends}", percent(sd)))
            }
            None => "–".into(),
        }));
        table.rows.push(row);
    }
    table
}
