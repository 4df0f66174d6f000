//! Accuracies: the table in the paper's form, comparisons between arms and with the untrained model, and every arm under
//! every prompt.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::json;

use super::{ReportPart, SEED, charts, closed_if_long, columns, held_out, wordings};
use crate::report::aligned::{AccuracyRow, Aligned, Subject};
use crate::report::chart::{Axis, Forest, ForestGroup, HeatMap, Scale};
use crate::report::document::{DocumentBlock, Table, TableCell, percent};
use crate::report::load::{Material, ReportedBenchmark, quoted};
use crate::report::study::{self, Study, StudyArm, StudyBenchmark, StudyOutcome};
use crate::stats::mean;

/// The results of all comparisons.
pub struct Comparisons {
    /// The arms compared with each other.
    pub arms: Option<StudyOutcome>,
    /// The strategies with several wordings compared with each other.
    pub strategies: Option<StudyOutcome>,
    /// Each arm compared with the untrained model under the same prompt.
    pub untrained: Option<StudyOutcome>,
    /// Each arm compared with itself before training, on its held-out questions.
    pub held_out: Option<StudyOutcome>,
    /// The same accuracies on the questions that do not overlap with the training data.
    pub clean: Option<Aligned>,
}

impl Comparisons {
    pub fn outcomes(&self) -> impl Iterator<Item = &StudyOutcome> {
        self.arms.iter().chain(&self.strategies).chain(&self.untrained).chain(&self.held_out)
    }

    pub fn summary(&self) -> Vec<String> {
        let mut said = Vec::new();
        if let Some(arms) = self.arms.as_ref().filter(|arms| !arms.comparisons.is_empty()) {
            said.extend(arms.summary("between arms"));
        }
        if let Some(strategies) = &self.strategies {
            said.extend(strategies.summary("between strategies"));
        }
        if let Some(untrained) = &self.untrained {
            said.extend(untrained.summary("from the untrained model"));
        }
        if let Some(held_out) = &self.held_out {
            said.extend(held_out.summary("from before training"));
        }
        if self.outcomes().flat_map(|outcome| &outcome.comparisons).any(study::ArmComparison::decided) {
            said.push(
                "Brackets contain intervals for other seeds and other questions, corrected for the number of comparisons."
                    .to_owned(),
            );
        }
        said
    }
}

/// Makes all comparisons, those between arms with the given baselines (see [`study::pairs`]). Arms that cannot be compared are added to `left_out`.
pub fn compare(
    material: &Material,
    aligned: &Aligned,
    baselines: &[String],
    left_out: &mut Vec<String>,
) -> Comparisons {
    let study = aligned.study(material);
    let (pairs, apart): (Vec<_>, Vec<_>) =
        study::pairs(&study, baselines).into_iter().partition(|(arm, base)| arm.shares_seed(base));
    for (arm, base) in apart {
        left_out.push(format!(
            "{} is not compared with {}: they share no seed.",
            quoted(&arm.name),
            quoted(&base.name)
        ));
    }
    let mut outcome = |study: &Study, pairs: &[(&StudyArm, &StudyArm)]| match study::compare_pairs(study, pairs, SEED) {
        Ok(outcome) => Some(outcome),
        Err(error) => {
            left_out.push(format!("The arms are not compared: {}.", quoted(&error.to_string())));
            None
        }
    };
    let some = !study.arms.is_empty() && !study.benchmarks.is_empty();
    let arms = if some { outcome(&study, &pairs) } else { None };
    let with_base = against_untrained(material, aligned, &study);
    let pairs: Vec<(&StudyArm, &StudyArm)> =
        with_base.1.iter().map(|&(arm, base)| (&with_base.0.arms[arm], &with_base.0.arms[base])).collect();
    let untrained = if pairs.is_empty() { None } else { outcome(&with_base.0, &pairs) };
    let strategies = wordings::compare(material, aligned, left_out);
    let overlaps = overlaps(material);
    let clean = (!overlaps.values().all(BTreeSet::is_empty)).then(|| aligned.without(&overlaps));
    Comparisons { arms, strategies, untrained, held_out: held_out::compare(material, left_out), clean }
}

/// The arms and the untrained model under the prompt of each, with the pairs to compare. Untrained, it is the same at every seed.
fn against_untrained(material: &Material, aligned: &Aligned, study: &Study) -> (Study, Vec<(usize, usize)>) {
    let (mut arms, mut pairs) = (study.arms.clone(), Vec::new());
    for at in 0..study.arms.len() {
        let prompt =
            material.runs.iter().find(|run| run.arm == study.arms[at].name).map(|run| &run.manifest.prompt.name);
        let Some(row) = aligned.untrained().into_iter().find(|row| Some(&row.prompt) == prompt) else { continue };
        let name = format!("untrained, {}", row.prompt);
        let base = arms.iter().position(|arm| arm.name == name).unwrap_or_else(|| {
            arms.push(StudyArm { name, seeds: BTreeMap::new() });
            arms.len() - 1
        });
        let seeds: Vec<u64> = arms[at].seeds.keys().copied().collect();
        arms[base].seeds.extend(seeds.into_iter().map(|seed| (seed, row.right.clone())));
        pairs.push((at, base));
    }
    (Study { benchmarks: study.benchmarks.clone(), arms }, pairs)
}

/// Questions that overlap with the training data of any run, by benchmark.
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
struct ResultLine {
    model: &'static str,
    name: String,
    seeds: usize,
    cells: Vec<study::StudyCell>,
}

fn lines(material: &Material, aligned: &Aligned) -> Vec<ResultLine> {
    let untrained = aligned.untrained().into_iter().map(|row| {
        let arm = StudyArm { name: row.prompt.clone(), seeds: BTreeMap::from([(0, row.right.clone())]) };
        ("untrained", arm)
    });
    let trained = aligned.study(material).arms.into_iter().map(|arm| ("trained", arm));
    let line = |(model, arm): (&'static str, StudyArm)| ResultLine {
        model,
        cells: study::cells(&arm, &aligned.benchmarks, SEED),
        seeds: if model == "trained" { arm.seeds.len() } else { 0 },
        name: arm.name,
    };
    untrained.chain(trained).map(line).collect()
}

fn table(name: &'static str, caption: &str, aligned: &Aligned, lines: &[ResultLine]) -> Table {
    let heads = ["model", "prompt or arm", "seeds"].map(String::from).into_iter().chain(columns(aligned));
    let mut table = Table::new(name, caption, heads);
    for line in lines {
        let seeds =
            if line.seeds == 0 { "–".into() } else { TableCell::number(line.seeds as f64, line.seeds.to_string()) };
        let mut row = vec![line.model.into(), line.name.as_str().into(), seeds];
        row.extend(line.cells.iter().map(study::StudyCell::shown));
        table.rows.push(row);
    }
    table
}

pub fn parts(material: &Material, aligned: &Aligned, found: &Comparisons) -> Vec<ReportPart> {
    let mut parts = Vec::new();
    let whole = lines(material, aligned);
    if !whole.is_empty() {
        parts.push(results(material, aligned, found, &whole));
    }
    if let Some(outcome) = found.arms.as_ref().filter(|outcome| !outcome.comparisons.is_empty()) {
        parts.push(comparisons(outcome));
    }
    parts.extend(wordings::part(material, aligned, found.strategies.as_ref()));
    if let Some(outcome) = &found.untrained {
        parts.push(before_training(outcome));
    }
    parts.extend(matrix(material, aligned));
    parts
}

fn results(material: &Material, aligned: &Aligned, found: &Comparisons, whole: &[ResultLine]) -> ReportPart {
    let caption = format!(
        "Accuracy in percent with its 95 % interval over questions; after ±, the standard deviation between training seeds. Trained \
         models are evaluated under their training prompt. {}",
        conditions(material, aligned)
    );
    let mut blocks = charts(vec![accuracies(aligned, whole)]);
    blocks.push(closed_if_long("The accuracies as a table", table("results", &caption, aligned, whole)));
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
        let caption = format!(
            "The same accuracies, only on questions that do not overlap with the training data ({}).",
            counts.join(", ")
        );
        blocks.push(DocumentBlock::Table(table("results_without_overlap", &caption, clean, &lines)));
        data["without_overlap"] = json!({ "columns": columns(clean), "rows": lines });
    } else if let Some(checked) = checked {
        blocks.push(DocumentBlock::Text(format!(
            "No question of these benchmarks overlaps with the training data, according to shared {}-grams of words.",
            checked.n
        )));
    }
    ReportPart::new("results", "Results", blocks, data)
}

/// The table of results as a chart: a dot for each model, with its interval.
fn accuracies(aligned: &Aligned, lines: &[ResultLine]) -> Forest {
    let row = |line: &ResultLine, at: usize| {
        let is_base = line.model == "untrained";
        line.cells[at].chart_row(if is_base { format!("untrained, {}", line.name) } else { line.name.clone() })
    };
    let group = |(at, heading): (usize, String)| ForestGroup {
        heading,
        rows: lines.iter().map(|line| row(line, at)).collect(),
    };
    Forest {
        title: "Accuracy of each model".to_owned(),
        description: "Accuracy in percent with its 95 % interval over questions, by benchmark and model.".to_owned(),
        axis: Axis::new("accuracy", "%"),
        zero: false,
        legend: "Line: 95 % interval over questions.".to_owned(),
        groups: columns(aligned).into_iter().enumerate().map(group).collect(),
    }
}

/// For each benchmark, how many of its questions were evaluated, and how they were sampled.
fn conditions(material: &Material, aligned: &Aligned) -> String {
    let of = |(benchmark, ids): (&StudyBenchmark, &Vec<String>)| {
        let benches: Vec<&ReportedBenchmark> =
            aligned.rows.iter().map(|row| &material.evaluations[row.evaluation].benches[&benchmark.name]).collect();
        let values = |value: &dyn Fn(&ReportedBenchmark) -> String| -> String {
            let values: BTreeSet<String> = benches.iter().map(|it| value(it)).collect();
            values.into_iter().collect::<Vec<_>>().join(" or ")
        };
        let samples = values(&|it| it.scores.samples.to_string());
        format!(
            "{} of {} questions, {samples} sample{} each, temperature {}, top-p {}, at most {} tokens.",
            ids.len(),
            values(&|it| it.scores.of.to_string()),
            if samples == "1" { "" } else { "s" },
            values(&|it| it.record.style.temperature.to_string()),
            values(&|it| it.record.style.top_p.to_string()),
            values(&|it| it.record.style.max_tokens.to_string())
        )
    };
    // Benchmarks with the same conditions share a sentence.
    let mut said: Vec<(Vec<&str>, String)> = Vec::new();
    for (benchmark, ids) in aligned.benchmarks.iter().zip(&aligned.ids) {
        let conditions = of((benchmark, ids));
        match said.iter_mut().find(|(_, it)| *it == conditions) {
            Some((names, _)) => names.push(&benchmark.name),
            None => said.push((vec![&benchmark.name], conditions)),
        }
    }
    said.into_iter().map(|(names, it)| format!("{}: {it}", names.join(", "))).collect::<Vec<_>>().join(" ")
}

fn comparisons(outcome: &StudyOutcome) -> ReportPart {
    let references: BTreeSet<&str> = outcome.comparisons.iter().map(|it| it.reference.as_str()).collect();
    let mut blocks = vec![DocumentBlock::Text(
        "Differences are paired by question and training seed. A verdict requires a difference that is significant over seeds and over \
         questions, after Holm's correction for all comparisons in this table. Without a verdict, the power is the probability that these \
         seeds would detect a true difference of 5 points. \"Detectable\" is the smallest true difference, in points, that this \
         number of seeds detects in 80 of 100 studies."
            .to_owned(),
    )];
    let forest = |reference| outcome.forest(&format!("Each arm compared with {reference}"), Some(reference));
    blocks.extend(charts(references.into_iter().map(forest).collect()));
    let table = outcome.comparisons("comparisons", "Differences of accuracy between arms, in percentage points.");
    blocks.push(closed_if_long("All differences between arms, with their p-values", table));
    ReportPart::new("comparisons", "Comparison of arms", blocks, json!(outcome.comparisons))
}

fn before_training(outcome: &StudyOutcome) -> ReportPart {
    let text = "The model trained with a prompt (pPE), compared with the untrained model under the same prompt (iPE). The untrained \
                model has no training seeds, so only the trained model varies between seeds. Holm's correction covers the \
                comparisons of this table.";
    let table = outcome.comparisons(
        "untrained",
        "Differences of accuracy from the untrained model under the same prompt, in percentage points.",
    );
    let mut blocks = vec![DocumentBlock::Text(text.to_owned())];
    blocks.extend(charts(vec![outcome.forest("Each arm compared with the untrained model", None)]));
    blocks.push(closed_if_long("All differences from the untrained model, with their p-values", table));
    ReportPart::new("untrained", "Training with a prompt versus prompting only", blocks, json!(outcome.comparisons))
}

/// Mean accuracy of every arm under every test prompt; `None` if each arm was only evaluated under its training prompt.
fn matrix(material: &Material, aligned: &Aligned) -> Option<ReportPart> {
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
    let of = |rows: Vec<&AccuracyRow>| -> Vec<Option<(f64, usize)>> {
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
        let is = |row: &&AccuracyRow| matches!(&row.subject, Subject::Trained { arm: name, .. } if *name == arm);
        rows.push((arm.clone(), of(aligned.rows.iter().filter(is).collect())));
    }
    let over = if aligned.benchmarks.len() > 1 { "mean over the benchmarks" } else { "accuracy" };
    let chart = HeatMap {
        title: "Accuracy by training prompt and test prompt".to_owned(),
        description: "Rows: the training prompt. Columns: the test prompt. Values: accuracy in percent.".to_owned(),
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
        let mut row = vec![TableCell::from(name.as_str())];
        row.extend(cells.iter().map(|cell| TableCell::maybe(cell.map(|(value, _)| value), percent)));
        table.rows.push(row);
    }
    let text =
        "This section shows how much of an arm's gain remains without its training prompt, or with another prompt.";
    let data = json!({
        "tested_with": prompts,
        "rows": rows.iter().map(|(name, cells)| json!({ "trained_with": name, "accuracy": cells.iter().map(|cell| cell.map(|it| it.0)).collect::<Vec<_>>() })).collect::<Vec<_>>(),
    });
    let table = closed_if_long("The same as a table", table);
    let blocks = vec![DocumentBlock::Text(text.to_owned()), DocumentBlock::Chart(chart.svg()), table];
    Some(ReportPart::new("matrix", "Training prompt by test prompt", blocks, data))
}
