//! The paper's figures next to ours if they can be compared, otherwise the reasons why not; and an analysis of published tables.

use std::collections::BTreeMap;

use serde_json::json;

use super::results::Comparisons;
use super::{ReportPart, SEED};
use crate::report::aligned::Aligned;
use crate::report::document::{DocumentBlock, Table, TableCell};
use crate::report::load::{Material, quoted};
use crate::report::paper::{Noise, PaperTable, Published};
use crate::report::study::{self, StudyArm};

/// The paper's columns and our benchmarks.
const BENCHMARKS: [(&str, &str); 5] =
    [("AIME", "aime2024"), ("AMC", "amc12"), ("GPQA", "gpqa-diamond"), ("MATH", "math500"), ("HE+", "humaneval+")];

/// The paper's names of its prompts, and our arms.
const PROMPTS: [(&str, &str); 5] = [
    ("Think", "reasoning"),
    ("Plan", "planning"),
    ("Code", "code"),
    ("Knowledge", "recall"),
    ("Examples", "null-example"),
];

pub fn parts(
    material: &Material,
    aligned: &Aligned,
    found: &Comparisons,
    published: Option<&Published>,
) -> Vec<ReportPart> {
    let mut parts = Vec::new();
    let paper = Published::of_the_paper();
    if found.arms.is_some() {
        parts.push(match differs(material, aligned, &paper) {
            Ok(table) => beside(material, aligned, &paper, table),
            Err(why) => {
                let text = format!("The paper's figures cannot be compared with these: {why}.");
                ReportPart::new(
                    "paper",
                    "Comparison with the paper",
                    vec![DocumentBlock::Text(text.clone())],
                    json!({ "matches": false, "why": text }),
                )
            }
        });
    }
    parts.extend(published.map(findings));
    parts
}

/// The paper's table for the model, or the ways in which this study differs from the paper.
fn differs<'a>(material: &Material, aligned: &Aligned, paper: &'a Published) -> Result<&'a PaperTable, String> {
    let mut why = Vec::new();
    let models: Vec<&str> =
        aligned.rows.iter().map(|row| material.evaluations[row.evaluation].identity.model.as_str()).collect();
    let last = |model: &str| model.rsplit('/').next().unwrap_or(model).to_lowercase();
    let table = paper.tables.iter().find(|table| models.iter().all(|model| last(model) == table.model.to_lowercase()));
    if table.is_none() {
        let model = models.first().map_or(String::new(), |model| quoted(model));
        why.push(format!(
            "the model is {model}, but the paper's models are {}",
            paper.tables.iter().map(|it| it.model.as_str()).collect::<Vec<_>>().join(", ")
        ));
    }
    let missing: Vec<&str> = BENCHMARKS
        .iter()
        .filter(|(_, name)| !aligned.benchmarks.iter().any(|it| it.name == *name))
        .map(|(column, _)| *column)
        .collect();
    if !missing.is_empty() {
        why.push(format!("the paper's benchmarks {} were not evaluated", missing.join(", ")));
    }
    let short = |at: usize| {
        let printed = BENCHMARKS.iter().position(|(_, name)| aligned.benchmarks[at].name == *name);
        printed.is_some_and(|it| paper.benchmarks[it].questions != aligned.ids[at].len())
    };
    if (0..aligned.benchmarks.len()).any(short) {
        why.push("not all questions of the benchmarks were evaluated".to_owned());
    }
    // A shipped prompt has the same meaning as the paper's, with different wording.
    let own_words = material.runs.iter().all(|run| {
        run.manifest.prompt.name == "none" || run.manifest.prompt.wording.to_lowercase().starts_with("paper")
    });
    if !own_words {
        why.push("the prompts do not have the paper's wording".to_owned());
    }
    match table {
        Some(table) if why.is_empty() => Ok(table),
        _ => Err(why.join("; ")),
    }
}

/// The name of the printed row that corresponds to one of ours.
fn printed_row(trained: bool, prompt: &str) -> Option<String> {
    if prompt == "none" {
        return Some(if trained { "No PP" } else { "base" }.to_owned());
    }
    let (name, _) = PROMPTS.iter().find(|(_, ours)| *ours == prompt)?;
    Some(format!("{} {name}", if trained { "pPE" } else { "iPE" }))
}

fn beside(material: &Material, aligned: &Aligned, paper: &Published, printed: &PaperTable) -> ReportPart {
    let untrained = aligned.untrained().into_iter().map(|row| {
        (
            false,
            row.prompt.clone(),
            StudyArm { name: row.prompt.clone(), seeds: BTreeMap::from([(0, row.right.clone())]) },
        )
    });
    let trained = aligned.study(material).arms.into_iter().map(|arm| (true, arm.name.clone(), arm));
    let places: Vec<usize> =
        BENCHMARKS.iter().filter_map(|(_, name)| aligned.benchmarks.iter().position(|it| it.name == *name)).collect();
    let heads = ["paper's row", "benchmark", "here", "paper", "within our interval"];
    let caption = "Accuracy in percent. The paper reports one run with one sample per question.";
    let mut table = Table::new("paper", caption, heads);
    for (trained, prompt, arm) in untrained.chain(trained) {
        let Some(name) = printed_row(trained, &prompt) else { continue };
        let Some(row) = printed.rows.iter().find(|row| row.name == name) else { continue };
        let cells = study::cells(&arm, &aligned.benchmarks, SEED);
        for (column, &place) in places.iter().enumerate() {
            let (cell, score) = (&cells[place], row.scores[column]);
            let within = (100.0 * cell.interval.low..=100.0 * cell.interval.high).contains(&score);
            table.rows.push(vec![
                name.as_str().into(),
                paper.benchmarks[column].name.as_str().into(),
                cell.shown(),
                TableCell::number(score, format!("{score:.2}")),
                if within { "yes" } else { "no" }.into(),
            ]);
        }
    }
    let data = json!({ "matches": true, "model": printed.model });
    ReportPart::new("paper", "Comparison with the paper", vec![DocumentBlock::Table(table)], data)
}

/// An analysis of published figures alone.
fn findings(published: &Published) -> ReportPart {
    let findings = published.findings();
    let heads = [
        "model",
        "row",
        "reference",
        "benchmark",
        "difference",
        "95 % as independent samples",
        "p, corrected",
        "noise",
    ];
    let mut table = Table::new("published", "Differences between published rows, in percentage points.", heads);
    let mut data = Vec::new();
    for printed in &published.tables {
        for (reference, prefix) in
            [("base", "iPE"), ("base", "pPE"), ("base", "No PP"), ("No PP", "pPE"), ("pPE Think", "pPE")]
        {
            for it in published.compare(printed, reference, prefix).unwrap_or_default() {
                let noise = match it.noise {
                    Noise::Beyond => "beyond noise",
                    Noise::Within => "within noise",
                    Noise::Open => "undecided",
                };
                table.rows.push(vec![
                    printed.model.as_str().into(),
                    it.row.as_str().into(),
                    it.reference.as_str().into(),
                    it.column.as_str().into(),
                    TableCell::number(it.points, study::text::points(it.points / 100.0)),
                    format!("[{:.1}, {:.1}]", it.interval.low, it.interval.high).into(),
                    TableCell::number(it.adjusted, format!("{:.3}", it.adjusted)),
                    noise.into(),
                ]);
                data.push(json!({ "model": printed.model, "difference": it }));
            }
        }
    }
    let data = json!({ "source": published.source, "findings": findings, "wrong_averages": published.wrong_averages(), "differences": data });
    let blocks = vec![
        DocumentBlock::Text(format!("Source: {}.", published.source)),
        DocumentBlock::List(findings),
        DocumentBlock::Table(table),
    ];
    ReportPart::new("published", "Analysis of the published figures", blocks, data)
}
