//! Evaluations aligned for comparison: the same benchmarks, each with the same questions in the same order.

use std::collections::{BTreeMap, BTreeSet};

use super::load::{Material, ReportedBenchmark, ReportedEvaluation, ReportedRun, quoted};
use super::study::{Study, StudyArm, StudyBenchmark};

/// The model that a row of accuracies belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Untrained,
    Trained { arm: String, seed: u64 },
}

/// The accuracies of one evaluation.
#[derive(Clone, Debug)]
pub struct AccuracyRow {
    pub subject: Subject,
    /// The prior prompt placed before the questions.
    pub prompt: String,
    /// Whether it is also the training prompt.
    pub own: bool,
    /// Index of the evaluation in the material.
    pub evaluation: usize,
    /// For each benchmark, the share of correct samples of each question.
    pub right: Vec<Vec<f64>>,
}

/// Evaluations that can be compared.
#[derive(Clone, Debug, Default)]
pub struct Aligned {
    pub benchmarks: Vec<StudyBenchmark>,
    /// For each benchmark, the ids of its questions.
    pub ids: Vec<Vec<String>>,
    pub rows: Vec<AccuracyRow>,
}

/// Aligns the evaluations. Benchmarks that too few evaluations have, and evaluations that lack one, are added to `left_out`.
pub fn align(material: &Material, left_out: &mut Vec<String>) -> Aligned {
    let names = benchmarks(material, left_out);
    let mut rows: Vec<AccuracyRow> = Vec::new();
    for (index, evaluation) in material.evaluations.iter().enumerate() {
        let missing: Vec<String> =
            names.iter().filter(|name| !evaluation.benches.contains_key(*name)).map(|name| quoted(name)).collect();
        let run = evaluation.run.map(|at| &material.runs[at]);
        let row = AccuracyRow {
            subject: subject(run),
            prompt: evaluation.prompt.clone(),
            own: run.is_some_and(|run| run.manifest.prompt.name == evaluation.prompt),
            evaluation: index,
            right: Vec::new(),
        };
        let name = quoted(&evaluation.name);
        if !missing.is_empty() {
            left_out.push(format!(
                "The evaluation {name} is left out of the tables: it does not have {}.",
                missing.join(", ")
            ));
        } else if let Some(first) = rows.iter().find(|it| it.subject == row.subject && it.prompt == row.prompt) {
            let first = quoted(&material.evaluations[first.evaluation].name);
            left_out.push(format!(
                "The evaluation {name} is left out of the tables: {first} has the same model and prompt."
            ));
        } else {
            rows.push(row);
        }
    }
    let mut aligned = Aligned::default();
    for name in names {
        let benches: Vec<&ReportedBenchmark> =
            rows.iter().map(|row| &material.evaluations[row.evaluation].benches[&name]).collect();
        let Some(first) = benches.first() else { continue };
        let shared: BTreeSet<&String> = benches
            .iter()
            .map(|bench| bench.ids.iter().collect::<BTreeSet<_>>())
            .reduce(|a, b| a.intersection(&b).copied().collect())
            .unwrap_or_default();
        let most = benches.iter().map(|bench| bench.ids.len()).max().unwrap_or(0);
        let quoted_name = quoted(&name);
        if shared.is_empty() {
            left_out
                .push(format!("The benchmark {quoted_name} is left out: the evaluations have no question in common."));
            continue;
        }
        if shared.len() < most {
            left_out.push(format!(
                "On the benchmark {quoted_name}, only the {} of {most} questions that all evaluations have are counted.",
                shared.len()
            ));
        }
        let ids: Vec<String> = first.ids.iter().filter(|id| shared.contains(id)).cloned().collect();
        for (row, bench) in rows.iter_mut().zip(&benches) {
            let of: BTreeMap<&String, f64> = bench.ids.iter().zip(bench.right.iter().copied()).collect();
            row.right.push(ids.iter().map(|id| of[id]).collect());
        }
        let samples = benches.iter().map(|bench| bench.scores.samples).max().unwrap_or(1);
        aligned.benchmarks.push(StudyBenchmark { name, samples });
        aligned.ids.push(ids);
    }
    if !aligned.benchmarks.is_empty() {
        aligned.rows = rows;
    }
    aligned
}

fn subject(run: Option<&ReportedRun>) -> Subject {
    run.map_or(Subject::Untrained, |run| Subject::Trained { arm: run.arm.clone(), seed: run.seed })
}

/// Names of the benchmarks that more than half of the evaluations have, in order.
fn benchmarks(material: &Material, left_out: &mut Vec<String>) -> Vec<String> {
    let all: BTreeSet<&String> = material.evaluations.iter().flat_map(|it| it.benches.keys()).collect();
    let (mut kept, total) = (Vec::new(), material.evaluations.len());
    for name in all {
        let have = |it: &&ReportedEvaluation| it.benches.contains_key(name);
        let count = material.evaluations.iter().filter(have).count();
        if 2 * count > total {
            kept.push(name.clone());
        } else {
            let name = quoted(name);
            left_out.push(format!("The benchmark {name} is left out: {count} of {total} evaluations have it."));
        }
    }
    kept
}

impl Aligned {
    /// The arms in the order of the runs.
    pub fn arms(&self, material: &Material) -> Vec<String> {
        let mut arms: Vec<String> = Vec::new();
        for run in &material.runs {
            let has = |row: &AccuracyRow| matches!(&row.subject, Subject::Trained { arm, .. } if *arm == run.arm);
            if !arms.contains(&run.arm) && self.rows.iter().any(has) {
                arms.push(run.arm.clone());
            }
        }
        arms
    }

    /// An arm's accuracies by seed, for the rows that `wanted` selects.
    pub fn seeds(&self, arm: &str, wanted: impl Fn(&AccuracyRow) -> bool) -> BTreeMap<u64, Vec<Vec<f64>>> {
        let of = |row: &AccuracyRow| match &row.subject {
            Subject::Trained { arm: name, seed } if name == arm && wanted(row) => Some((*seed, row.right.clone())),
            _ => None,
        };
        self.rows.iter().filter_map(of).collect()
    }

    /// The rows of the untrained model, one per prior prompt, `none` first.
    pub fn untrained(&self) -> Vec<&AccuracyRow> {
        let mut rows: Vec<&AccuracyRow> = self.rows.iter().filter(|row| row.subject == Subject::Untrained).collect();
        rows.sort_by_key(|row| row.prompt != "none");
        rows
    }

    /// The arms, each evaluated under its training prompt.
    pub fn study(&self, material: &Material) -> Study {
        let arm = |name: String| StudyArm { seeds: self.seeds(&name, |row| row.own), name };
        let arms = self.arms(material).into_iter().map(arm).filter(|arm| !arm.seeds.is_empty()).collect();
        Study { benchmarks: self.benchmarks.clone(), arms }
    }

    /// The same evaluations without the given questions of each benchmark. A benchmark that loses all its questions is dropped.
    pub fn without(&self, questions: &BTreeMap<String, BTreeSet<String>>) -> Self {
        let mut kept = Self { rows: self.rows.clone(), ..Self::default() };
        kept.rows.iter_mut().for_each(|row| row.right.clear());
        for (at, benchmark) in self.benchmarks.iter().enumerate() {
            let out = questions.get(&benchmark.name);
            let stays: Vec<usize> =
                (0..self.ids[at].len()).filter(|&q| out.is_none_or(|out| !out.contains(&self.ids[at][q]))).collect();
            if stays.is_empty() {
                continue;
            }
            kept.benchmarks.push(benchmark.clone());
            kept.ids.push(stays.iter().map(|&q| self.ids[at][q].clone()).collect());
            for (row, whole) in kept.rows.iter_mut().zip(&self.rows) {
                row.right.push(stays.iter().map(|&q| whole.right[at][q]).collect());
            }
        }
        kept
    }
}
