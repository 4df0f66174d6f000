//! Arms trained with several prior prompts: the prompts with their weights, and the accuracy of the questions that drew each.

use serde_json::{Value, json};

use super::{ReportPart, arms, closed_if_long};
use crate::report::aligned::{AccuracyRow, Aligned, Subject};
use crate::report::document::{DocumentBlock, Table, TableCell, percent};
use crate::report::load::Material;
use crate::run::manifest::MixedPrompt;
use crate::stats::mean;

/// The section; `None` if every arm has a single prompt.
pub fn part(material: &Material, aligned: &Aligned) -> Option<ReportPart> {
    let mixed: Vec<(String, &[MixedPrompt])> = arms(material)
        .into_iter()
        .map(|(arm, runs)| (arm, &runs[0].manifest.prompt.mixture[..]))
        .filter(|(_, mixture)| !mixture.is_empty())
        .collect();
    if mixed.is_empty() {
        return None;
    }
    let text = "These arms were trained with several prior prompts: every group of completions drew one, with a probability \
                proportional to its weight. When such an arm is evaluated with its own prompts, every question draws one in the same \
                way, so the accuracies below are of different questions.";
    let heads = ["arm", "prompt", "weight", "benchmark", "questions", "untrained", "trained"];
    let caption =
        "Accuracy on the questions that drew each prompt, in percent, over all seeds. Every seed draws the same.";
    let mut table = Table::new("mixtures", caption, heads);
    let mut data: Vec<Value> = Vec::new();
    for (arm, mixture) in mixed {
        let own: Vec<&AccuracyRow> = aligned.rows.iter().filter(|row| row.own && is_of(row, &arm)).collect();
        let name = own.first().map(|row| row.prompt.as_str());
        let untrained: Vec<&AccuracyRow> =
            aligned.untrained().into_iter().filter(|row| Some(row.prompt.as_str()) == name).collect();
        let total: f64 = mixture.iter().map(|it| it.weight).sum();
        for prompt in mixture {
            let weight = || TableCell::number(prompt.weight, format!("{} of {total}", prompt.weight));
            let start = || vec![arm.as_str().into(), prompt.name.as_str().into(), weight()];
            let mut accuracies = Vec::new();
            for benchmark in &aligned.benchmarks {
                let of = |rows: &[&AccuracyRow]| accuracy(material, rows, &benchmark.name, &prompt.name);
                let Some((questions, trained)) = of(&own) else { continue };
                let before = of(&untrained).map(|(_, accuracy)| accuracy);
                let mut row = start();
                row.extend([
                    benchmark.name.as_str().into(),
                    TableCell::number(questions as f64, questions.to_string()),
                    TableCell::maybe(before, percent),
                    TableCell::number(trained, percent(trained)),
                ]);
                table.rows.push(row);
                accuracies.push(json!({
                    "benchmark": benchmark.name, "questions": questions, "untrained": before, "trained": trained
                }));
            }
            if accuracies.is_empty() {
                let mut row = start();
                row.extend(["–"; 4].map(TableCell::from));
                table.rows.push(row);
            }
            data.push(json!({
                "arm": arm, "prompt": prompt.name, "weight": prompt.weight, "accuracies": accuracies
            }));
        }
    }
    let blocks = vec![DocumentBlock::Text(text.to_owned()), closed_if_long("The prompts and their accuracies", table)];
    Some(ReportPart::new("mixtures", "Several prompts in one run", blocks, json!(data)))
}

fn is_of(row: &AccuracyRow, arm: &str) -> bool {
    matches!(&row.subject, Subject::Trained { arm: name, .. } if name == arm)
}

/// The number of questions of a benchmark that drew a prompt, and their accuracy, as a mean over evaluations.
fn accuracy(material: &Material, rows: &[&AccuracyRow], benchmark: &str, prompt: &str) -> Option<(usize, f64)> {
    let of = |row: &&AccuracyRow| {
        let bench = material.evaluations[row.evaluation].benches.get(benchmark)?;
        bench.scores.by_prompt.get(prompt).copied()
    };
    let found: Vec<_> = rows.iter().filter_map(of).collect();
    let values: Vec<f64> = found.iter().map(|it| it.accuracy.value).collect();
    found.first().map(|it| (it.questions, mean(&values)))
}
