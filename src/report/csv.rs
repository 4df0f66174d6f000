//! `tables.csv`: one row for each observation, so that other programs can read it without knowing the page.

use anyhow::{Context, Result};

use super::load::{HeldOut, Material, ReportedEvaluation, ReportedRun};
use crate::run::printable::printable;
use crate::stats::Proportion;

/// A value of one model on one set of questions. The arm is `untrained` and the seed empty for the untrained model; metrics without
/// an interval have empty ends.
#[derive(Default)]
pub struct Observation {
    arm: String,
    seed: Option<u64>,
    /// The prior prompt placed before the questions.
    prompt: String,
    benchmark: String,
    metric: String,
    value: f64,
    /// The 95 % interval.
    ends: Option<[f64; 2]>,
    /// Number of questions, or of steps.
    n: usize,
}

/// The observations of all evaluations, then those of all runs and of the trials that chose a setting.
pub fn observations(material: &Material) -> Vec<Observation> {
    let evaluations = material.evaluations.iter().flat_map(|it| of_evaluation(material, it));
    let runs = material.runs.iter().flat_map(|run| of_training(run).into_iter().chain(of_held_out(run)));
    evaluations.chain(runs).chain(of_trials(material)).collect()
}

/// `arm,seed,prompt,benchmark,metric,value,low,high,n`
pub fn render(observations: &[Observation]) -> Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(["arm", "seed", "prompt", "benchmark", "metric", "value", "low", "high", "n"])?;
    for it in observations {
        let [low, high] = it.ends.map_or([String::new(), String::new()], |ends| ends.map(|end| end.to_string()));
        writer.write_record([
            inert(&it.arm),
            it.seed.map_or(String::new(), |seed| seed.to_string()),
            inert(&it.prompt),
            inert(&it.benchmark),
            it.metric.clone(),
            it.value.to_string(),
            low,
            high,
            it.n.to_string(),
        ])?;
    }
    let bytes = writer.into_inner().context("write the tables")?;
    String::from_utf8(bytes).context("write the tables")
}

fn of_evaluation(material: &Material, evaluation: &ReportedEvaluation) -> Vec<Observation> {
    let run = evaluation.run.map(|at| &material.runs[at]);
    let mut rows = Vec::new();
    for (benchmark, bench) in &evaluation.benches {
        let scores = &bench.scores;
        let mut add = |metric: &str, value: f64, ends: Option<[f64; 2]>| {
            rows.push(Observation {
                arm: run.map_or_else(|| "untrained".to_owned(), |run| run.arm.clone()),
                seed: run.map(|run| run.seed),
                prompt: evaluation.prompt.clone(),
                benchmark: benchmark.clone(),
                metric: metric.to_owned(),
                value,
                ends,
                n: scores.questions,
            });
        };
        let accuracy = &scores.accuracy;
        add("accuracy", accuracy.value, Some([accuracy.interval.low, accuracy.interval.high]));
        for (k, value) in scores.pass_at.iter().filter(|_| scores.samples > 1) {
            add(&format!("pass@{k}"), *value, None);
        }
        let others = [("majority", scores.majority), ("truncated", Some(scores.truncated))];
        let more = [
            ("no answer", Some(scores.no_answer)),
            ("undecided", Some(scores.undecided)),
            ("tokens", Some(scores.tokens.mean)),
        ];
        for (metric, value) in others.into_iter().chain(more) {
            if let Some(value) = value {
                add(metric, value, None);
            }
        }
    }
    rows
}

/// The metrics of training, as means over the first and over the last tenth of the steps.
fn of_training(run: &ReportedRun) -> Vec<Observation> {
    let Some(last) = run.steps.last() else { return Vec::new() };
    let of = |name: &String| {
        let (first, last) = run.ends(name)?;
        Some([("first tenth", first), ("last tenth", last)].map(|(when, value)| Observation {
            metric: format!("{name}, {when}"),
            value,
            n: run.steps.len(),
            ..named(run, "training")
        }))
    };
    last.values.keys().filter_map(of).flatten().collect()
}

fn of_held_out(run: &ReportedRun) -> Vec<Observation> {
    let Some(HeldOut { sampled, greedy }) = &run.held_out else { return Vec::new() };
    let kinds = [("accuracy", Some(sampled)), ("greedy accuracy", greedy.as_ref())];
    let mut rows = Vec::new();
    for (metric, kind) in kinds {
        let Some(kind) = kind else { continue };
        for (when, groups) in [("before", &kind.before), ("after", &kind.after)] {
            let share = Proportion::new(groups.iter().filter(|group| group.is_solved()).count(), groups.len());
            rows.push(Observation {
                metric: format!("{metric}, {when}"),
                value: share.value(),
                ends: Some([share.interval.low, share.interval.high]),
                n: groups.len(),
                ..named(run, "held-out")
            });
        }
    }
    rows
}

/// The accuracy of every candidate of every arm.
fn of_trials(material: &Material) -> Vec<Observation> {
    let mut rows = Vec::new();
    let Some(record) = &material.tuning else { return rows };
    for arm in &record.arms {
        let run = material.runs.iter().find(|run| run.arm == arm.arm);
        for candidate in &arm.candidates {
            let Some(value) = candidate.accuracy else { continue };
            rows.push(Observation {
                arm: arm.arm.clone(),
                seed: None,
                prompt: run.map(|run| run.manifest.prompt.name.clone()).unwrap_or_default(),
                benchmark: "tuning".to_owned(),
                metric: format!("accuracy, {} = {}", record.key, candidate.value),
                value,
                ends: candidate.interval.map(|it| [it.low, it.high]),
                n: candidate.questions().unwrap_or(arm.questions),
            });
        }
    }
    rows
}

fn named(run: &ReportedRun, benchmark: &str) -> Observation {
    Observation {
        arm: run.arm.clone(),
        seed: Some(run.seed),
        prompt: run.manifest.prompt.name.clone(),
        benchmark: benchmark.to_owned(),
        ..Observation::default()
    }
}

/// A text that a spreadsheet does not calculate: names come from files, and `=HYPERLINK(...)` would be a formula.
fn inert(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    format!("{}{}", if is_formula { "'" } else { "" }, printable(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_are_texts() {
        for text in ["=1+1", "=HYPERLINK(\"http://x\")", "+cmd|' /C calc'!A0", "-2+A1", "@SUM(A1)", "\t=1+1"] {
            assert!(inert(text).starts_with("'"), "{text}");
        }
        for text in ["a=1", "", "2.0"] {
            assert_eq!(inert(text), text);
        }
        assert_eq!(inert("a\u{202e}b"), "a\\u{202e}b");
    }
}
