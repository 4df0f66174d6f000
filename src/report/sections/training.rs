//! Training metrics: a line for each arm, and the first and last tenth of each metric.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{ReportPart, arms, closed_if_long};
use crate::report::chart::{Axis, LineChart, Series};
use crate::report::document::{DocumentBlock, Table, TableCell};
use crate::report::load::{Material, ReportedRun};
use crate::stats::mean;

/// A metric, its name on the page, its unit, and the factor that converts it to this unit.
struct Measure {
    metric: &'static str,
    label: &'static str,
    unit: &'static str,
    scale: f64,
}

const fn measure(metric: &'static str, label: &'static str, unit: &'static str, scale: f64) -> Measure {
    Measure { metric, label, unit, scale }
}

const MEASURES: [Measure; 12] = [
    measure("reward", "reward", "", 1.0),
    measure("rewards/accuracy/mean", "accuracy reward", "", 1.0),
    measure("rewards/format/mean", "format reward", "", 1.0),
    measure("completions/mean_length", "length", "tokens", 1.0),
    measure("entropy", "entropy", "nats", 1.0),
    measure("kl", "KL to the base model", "nats", 1.0),
    measure("distill/kl", "KL to the teacher", "nats", 1.0),
    measure("frac_reward_zero_std", "groups without variance", "%", 100.0),
    measure("sampling/sampling_logp_difference/mean", "sampler gap", "nats", 1.0),
    measure("learning_rate", "learning rate", "", 1.0),
    measure("grad_norm", "gradient norm", "", 1.0),
    measure("step_time", "step time", "s", 1.0),
];

pub fn part(material: &Material) -> Option<ReportPart> {
    let arms = arms(material);
    let logged = |measure: &&Measure| material.runs.iter().any(|run| run.ends(measure.metric).is_some());
    let measures: Vec<&Measure> = MEASURES.iter().filter(logged).collect();
    if measures.is_empty() {
        return None;
    }
    let (flat, moving): (Vec<&Measure>, Vec<&Measure>) =
        measures.iter().copied().partition(|measure| constant(measure, material).is_some());
    let panels = moving.iter().map(|measure| panel(measure, &arms).panel()).collect();
    let names = arms.iter().map(|(name, _)| name.clone()).collect();
    let mut text =
        "Each line is the mean over an arm's seeds; the band shows the lowest and the highest seed.".to_owned();
    if rewards_differ(&arms) {
        text += " The rewards of the arms have different components, so a higher reward does not mean a better arm.";
    }
    for measure in flat {
        let value = constant(measure, material).unwrap_or_default();
        let unit = if measure.unit.is_empty() { String::new() } else { format!(" {}", measure.unit) };
        text += &format!(" The {} is {}{unit} at every step of every run.", measure.label, short(value));
    }
    let blocks = vec![
        DocumentBlock::Text(text),
        DocumentBlock::Panels { names, panels },
        closed_if_long("The first and the last steps as a table", table(&moving, &arms)),
    ];
    Some(ReportPart::new("training", "Training", blocks, data(&measures, &arms)))
}

/// The value of a measure that is the same at every step of every run; such a measure needs no chart.
fn constant(measure: &Measure, material: &Material) -> Option<f64> {
    let steps = || material.runs.iter().flat_map(|run| &run.steps);
    let mut values = steps().filter_map(|step| step.values.get(measure.metric).copied().flatten());
    let first = values.next()?;
    values.all(|value| value == first).then_some(measure.scale * first)
}

/// Whether the arms' rewards are made of different components.
fn rewards_differ(arms: &[(String, Vec<&ReportedRun>)]) -> bool {
    let components = |run: &ReportedRun| -> BTreeSet<String> {
        let names = run.steps.iter().flat_map(|step| step.values.keys());
        names.filter(|name| name.starts_with("rewards/")).cloned().collect()
    };
    let all: BTreeSet<BTreeSet<String>> = arms.iter().flat_map(|(_, runs)| runs).map(|run| components(run)).collect();
    all.len() > 1
}

fn panel(measure: &Measure, arms: &[(String, Vec<&ReportedRun>)]) -> LineChart {
    let curve = |run: &&ReportedRun| -> Vec<(u64, f64)> {
        let point = |step: &crate::run::metrics::MetricsRecord| {
            Some((step.step as u64, measure.scale * step.values.get(measure.metric).copied().flatten()?))
        };
        run.steps.iter().filter_map(point).collect()
    };
    let series = |(name, runs): &(String, Vec<&ReportedRun>)| {
        Series::over_seeds(name, &runs.iter().map(curve).collect::<Vec<_>>())
    };
    LineChart {
        description: format!("{} over steps, by arm", measure.label),
        x: Axis::new("step", ""),
        y: Axis::new(measure.label, measure.unit),
        series: arms.iter().map(series).collect(),
    }
}

/// Means over the first and last tenth of the steps, then over seeds.
fn ends(measure: &Measure, runs: &[&ReportedRun]) -> Option<(f64, f64)> {
    let of: Vec<(f64, f64)> = runs.iter().filter_map(|run| run.ends(measure.metric)).collect();
    let over = |end: fn(&(f64, f64)) -> f64| measure.scale * mean(&of.iter().map(end).collect::<Vec<_>>());
    (!of.is_empty()).then(|| (over(|it| it.0), over(|it| it.1)))
}

fn table(measures: &[&Measure], arms: &[(String, Vec<&ReportedRun>)]) -> Table {
    let head = |measure: &&Measure| match measure.unit {
        "" => measure.label.to_owned(),
        unit => format!("{} ({unit})", measure.label),
    };
    let heads = ["arm".to_owned(), "seeds".to_owned(), "steps".to_owned()].into_iter().chain(measures.iter().map(head));
    let caption = "Mean over the first tenth of the steps → mean over the last tenth, averaged over seeds.";
    let mut table = Table::new("training", caption, heads);
    for (name, runs) in arms {
        let steps: Vec<String> = {
            let mut steps: Vec<usize> = runs.iter().map(|run| run.steps.len()).collect();
            steps.sort_unstable();
            steps.dedup();
            steps.iter().map(ToString::to_string).collect()
        };
        let mut row: Vec<TableCell> = vec![
            name.as_str().into(),
            TableCell::number(runs.len() as f64, runs.len().to_string()),
            steps.join(", ").into(),
        ];
        row.extend(measures.iter().map(|measure| match ends(measure, runs) {
            Some((first, last)) => TableCell::number(last, format!("{} → {}", short(first), short(last))),
            None => "–".into(),
        }));
        table.rows.push(row);
    }
    table
}

/// About three significant digits.
pub fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        size if size >= 0.001 => format!("{value:.4}"),
        _ => format!("{value:.1e}"),
    }
    .replace('-', "−")
}

fn data(measures: &[&Measure], arms: &[(String, Vec<&ReportedRun>)]) -> Value {
    let of = |(name, runs): &(String, Vec<&ReportedRun>)| {
        let metrics: Map<String, Value> = measures
            .iter()
            .filter_map(|it| {
                Some((it.metric.to_owned(), json!(ends(it, runs).map(|(a, b)| [a / it.scale, b / it.scale])?)))
            })
            .collect();
        let seeds: Vec<u64> = runs.iter().map(|run| run.seed).collect();
        json!({ "arm": name, "seeds": seeds, "first_and_last_tenth": metrics })
    };
    json!(arms.iter().map(of).collect::<Vec<_>>())
}
