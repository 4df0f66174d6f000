//! Accuracies: the table in the paper's form, the arms against each other and against the untrained model, and every arm under
//! every prompt.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::json;

use super::{Part, SEED, columns, held_out};
use crate::report::aligned::{Aligned, Row, Subject};
use crate::report::chart::{HeatMap, Scale};
use crate::report::document::{Block, Cell, Table, percent};
use crate::report::load::{Material, quoted};
use crate::report::study::{self, Arm, Outcome, REFERENCES, Study};
use crate::stats::mean;

/// What was compared.
pub struct Found {
    /// The arms against `none` and `reasoning`.
    pub arms: Option<Outcome>,
    /// Each arm against the untrained model under the same prompt.
    pub untrained: Option<Outcome>,
    /// Each arm against itself before training, on the questions that it held out.
    pub held_out: Option<Outcome>,
    /// The same accuracies on the questions that do not overlap with the training data.
    pub clean: Option<Aligned>,
}

impl Found {
    pub fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        self.arms.iter().chain(&self.untrained).chain(&self.held_out)
    }

    pub fn summary(&self) -> Vec<String> {
        let mut said = Vec::new();
        if let Some(arms) = &self.arms {
            said.extend(arms.summary("between arms"));
        }
        if let Some(untrained) = &self.untrained {
            said.extend(untrained.summary("from the untrained model"));
        }
        if let Some(held_out) = &self.held_out {
            said.extend(held_out.summary("from before training"));
        }
        if self.outcomes().flat_map(|outcome| &outcome.comparisons).any(study::Comparison::decided) {
            said.push("In brackets: 95 % intervals that hold both over seeds and over questions.".to_owned());
        }
        said
    }
}

/// Compares what can be compared; `left_out` is told of arms that cannot.
pub fn compare(material: &Material, aligned: &Aligned, left_out: &mut Vec<String>) -> Found {
    let study = aligned.study(material);
    let (pairs, apart): (Vec<_>, Vec<_>) =
        study::pairs(&study, &REFERENCES).into_iter().partition(|(arm, base)| arm.shares_seed(base));
    for (arm, base) in apart {
        left_out.push(format!(
            "{} is not compared with {}: they share no seed.",
            quoted(&arm.name),
            quoted(&base.name)
        ));
    }
    let mut outcome = |study: &Study, pairs: &[(&Arm, &Arm)]| match study::compare_pairs(study, pairs, SEED) {
        Ok(outcome) => Some(outcome),
        Err(error) => {
            left_out.push(format!("The arms are not compared: {}.", quoted(&error.to_string())));
            None
        }
    };
    let some = !study.arms.is_empty() && !study.benchmarks.is_empty();
    let arms = if some { outcome(&study, &pairs) } else { None };
    let with_base = against_untrained(material, aligned, &study);
    let pairs: Vec<(&Arm, &Arm)> =
        with_base.1.iter().map(|&(arm, base)| (&with_base.0.arms[arm], &with_base.0.arms[base])).collect();
    let untrained = if pairs.is_empty() { None } else { outcome(&with_base.0, &pairs) };
    let overlaps = overlaps(material);
    let clean = (!overlaps.values().all(BTreeSet::is_empty)).then(|| aligned.without(&overlaps));
    Found { arms, untrained, held_out: held_out::compare(material, left_out), clean }
}

/// The arms and, for the prompt of each, the untrained model: the same at every seed, for it has none. With the pairs to compare.
fn against_untrained(material: &Material, aligned: &Aligned, study: &Study) -> (Study, Vec<(usize, usize)>) {
    let (mut arms, mut pairs) = (study.arms.clone(), Vec::new());
    for at in 0..study.arms.len() {
        let prompt =
            material.runs.iter().find(|run| run.arm == study.arms[at].name).map(|run| &run.manifest.prompt.name);
        let Some(row) = aligned.untrained().into_iter().find(|row| Some(&row.prompt) == prompt) else { continue };
        let name = format!("untrained, {}", row.prompt);
        let base = arms.iter().position(|arm| arm.name == name).unwrap_or_else(|| {
            arms.push(Arm { name, seeds: BTreeMap::new() });
            arms.len() - 1
        });
        let seeds: Vec<u64> = arms[at].seeds.keys().copied().collect();
        arms[base].seeds.extend(seeds.into_iter().map(|seed| (seed, row.right.clone())));
        pairs.push((at, base));
    }
    (Study { benchmarks: study.benchmarks.clone(), arms }, pairs)
}

/// Questions that any run's training data overlaps with, by benchmark.
pub fn overlaps(material: &Material) -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for found in material.runs.iter().filter_map(|run| run.contamination.as_ref()) {
        for (name, overlap) in &found.benchmarks {
            all.entry(name.clone()).or_default().extend(overlap.overlapping.iter().cloned());
        }
    }
    all
}

/// A row of the table of results.
#[derive(Serialize)]
struct Line {
    model: &'static str,
    name: String,
    seeds: usize,
    cells: Vec<study::Cell>,
}

fn lines(material: &Material, aligned: &Aligned) -> Vec<Line> {
    let untrained = aligned.untrained().into_iter().map(|row| {
        let arm = Arm { name: row.prompt.clone(), seeds: BTreeMap::from([(0, row.right.clone())]) };
        ("untrained", arm)
    });
    let trained = aligned.study(material).arms.into_iter().map(|arm| ("trained", arm));
    let line = |(model, arm): (&'static str, Arm)| Line {
        model,
        cells: study::cells(&arm, &aligned.benchmarks, SEED),
        seeds: if model == "trained" { arm.seeds.len() } else { 0 },
        name: arm.name,
    };
    untrained.chain(trained).map(line).collect()
}

fn table(name: &'static str, caption: &str, aligned: &Aligned, lines: &[Line]) -> Table {
    let heads = ["model", "prompt or arm", "seeds"].map(String::from).into_iter().chain(columns(aligned));
    let mut table = Table::new(name, caption, heads);
    for line in lines {
        let seeds =
            if line.seeds == 0 { "–".into() } else { Cell::number(line.seeds as f64, line.seeds.to_string()) };
        let mut row = vec![line.model.into(), line.name.as_str().into(), seeds];
        row.extend(line.cells.iter().map(study::Cell::shown));
        table.rows.push(row);
    }
    table
}

pub fn parts(material: &Material, aligned: &Aligned, found: &Found) -> Vec<Part> {
    let mut parts = Vec::new();
    let whole = lines(material, aligned);
    if !whole.is_empty() {
        parts.push(results(material, aligned, found, &whole));
    }
    if let Some(outcome) = found.arms.as_ref().filter(|outcome| !outcome.comparisons.is_empty()) {
        parts.push(comparisons(outcome));
    }
    if let Some(outcome) = &found.untrained {
        parts.push(before_training(outcome));
    }
    parts.extend(matrix(material, aligned));
    parts
}

fn results(material: &Material, aligned: &Aligned, found: &Found, whole: &[Line]) -> Part {
    let caption = "Accuracy in percent with its 95 % interval over questions; after ±, the standard deviation between training \
                   seeds. A trained model is asked under the prior prompt it was trained with.";
    let mut blocks = vec![Block::Table(table("results", caption, aligned, whole))];
    let mut data = json!({ "columns": columns(aligned), "rows": whole });
    let checked = material.runs.iter().find_map(|run| run.contamination.as_ref());
    if let Some(clean) = &found.clean {
        let lines = lines(material, clean);
        let counts: Vec<String> = aligned
            .benchmarks
            .iter()
            .zip(&aligned.ids)
            .map(|(benchmark, ids)| {
                let left = clean
                    .benchmarks
                    .iter()
                    .position(|it| it.name == benchmark.name)
                    .map_or(0, |at| clean.ids[at].len());
                format!("{}: {left} of {}", benchmark.name, ids.len())
            })
            .collect();
        let caption =
            format!("The same on the questions that do not overlap with the training data ({}).", counts.join(", "));
        blocks.push(Block::Table(table("results_without_overlap", &caption, clean, &lines)));
        data["without_overlap"] = json!({ "columns": columns(clean), "rows": lines });
    } else if let Some(checked) = checked {
        blocks.push(Block::Text(format!(
            "No question of these benchmarks overlaps with the training data, by common {}-grams of words.",
            checked.n
        )));
    }
    Part::new("results", "Results", blocks, data)
}

fn comparisons(outcome: &Outcome) -> Part {
    let references: BTreeSet<&str> = outcome.comparisons.iter().map(|it| it.reference.as_str()).collect();
    let mut blocks = vec![Block::Text(
        "Paired on questions and training seeds. A verdict needs a difference that holds over seeds and over questions after Holm's \
         correction for all comparisons here, and a power of 50 % or more to show a true difference of 5 points. Detectable is the \
         smallest true difference, in points, that so many seeds would show in 80 of 100 studies."
            .to_owned(),
    )];
    blocks.extend(references.into_iter().map(|reference| Block::Chart(outcome.forest(reference).svg())));
    blocks.push(Block::Table(outcome.comparisons("comparisons", "Differences of accuracy between arms, in points.")));
    Part::new("comparisons", "The arms against each other", blocks, json!(outcome.comparisons))
}

fn before_training(outcome: &Outcome) -> Part {
    let text = "The same prompt after training (pPE) and before it (iPE: the untrained model is only given the prompt). The untrained \
                model has no training seeds, so what varies over seeds is the trained side alone; Holm's correction is over the \
                comparisons of this table.";
    let table = outcome
        .comparisons("untrained", "Differences of accuracy from the untrained model under the same prompt, in points.");
    let blocks = vec![Block::Text(text.to_owned()), Block::Table(table)];
    Part::new("untrained", "Trained with a prompt against only prompted", blocks, json!(outcome.comparisons))
}

/// Mean accuracy of every training under every test prompt, where there is more than one of these.
fn matrix(material: &Material, aligned: &Aligned) -> Option<Part> {
    let mut prompts: Vec<String> = Vec::new();
    for row in aligned.untrained().into_iter().chain(&aligned.rows) {
        if !prompts.contains(&row.prompt) {
            prompts.push(row.prompt.clone());
        }
    }
    let crossed = aligned.rows.iter().any(|row| !row.own && row.subject != Subject::Untrained);
    if !crossed {
        return None;
    }
    let of = |rows: Vec<&Row>| -> Vec<Option<(f64, usize)>> {
        let cell = |prompt: &String| {
            let scores: Vec<f64> = rows
                .iter()
                .filter(|row| row.prompt == *prompt)
                .map(|row| mean(&row.right.iter().map(|benchmark| mean(benchmark)).collect::<Vec<_>>()))
                .collect();
            (!scores.is_empty()).then(|| (mean(&scores), scores.len()))
        };
        prompts.iter().map(cell).collect()
    };
    let mut rows = Vec::new();
    if !aligned.untrained().is_empty() {
        rows.push(("untrained".to_owned(), of(aligned.untrained())));
    }
    for arm in aligned.arms(material) {
        let is = |row: &&Row| matches!(&row.subject, Subject::Trained { arm: name, .. } if *name == arm);
        rows.push((arm.clone(), of(aligned.rows.iter().filter(is).collect())));
    }
    let over = if aligned.benchmarks.len() > 1 { "mean over the benchmarks" } else { "accuracy" };
    let chart = HeatMap {
        title: "Trained with a prompt, tested with another".to_owned(),
        description: "Rows: the prompt of the training. Columns: the prompt of the test. Values: accuracy in percent."
            .to_owned(),
        legend: format!("accuracy in percent, {over} and seeds; row: trained with, column: tested with"),
        rows: rows.iter().map(|(name, _)| name.clone()).collect(),
        columns: prompts.clone(),
        values: rows
            .iter()
            .map(|(_, cells)| cells.iter().map(|cell| cell.map(|(value, _)| 100.0 * value)).collect())
            .collect(),
        decimals: 1,
        scale: Scale::Sequential,
    };
    let heads =
        ["trained with".to_owned()].into_iter().chain(prompts.iter().map(|prompt| format!("tested with {prompt}")));
    let mut table = Table::new("matrix", &format!("Accuracy in percent, {over} and seeds."), heads);
    for (name, cells) in &rows {
        let mut row = vec![Cell::from(name.as_str())];
        row.extend(cells.iter().map(|cell| Cell::maybe(cell.map(|(value, _)| value), percent)));
        table.rows.push(row);
    }
    let text = "What is left of an arm's gain when its prompt is taken away, or another is put in its place.";
    let data = json!({
        "tested_with": prompts,
        "rows": rows.iter().map(|(name, cells)| json!({ "trained_with": name, "accuracy": cells.iter().map(|cell| cell.map(|it| it.0)).collect::<Vec<_>>() })).collect::<Vec<_>>(),
    });
    let blocks = vec![Block::Text(text.to_owned()), Block::Chart(chart.svg()), Block::Table(table)];
    Some(Part::new("matrix", "Train prompt by test prompt", blocks, data))
}
