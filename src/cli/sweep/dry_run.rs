//! `rft sweep --dry-run`: the plan of a sweep and its cost.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use indicatif::HumanBytes;

use super::super::download;
use crate::config::RunConfig;
use crate::device::memory::plan::MemoryPlan;
use crate::model::config::known_shape;
use crate::plan::measure::measure;
use crate::sweep::Sweep;
use crate::sweep::cost::{CompletionBound, SweepCost};
use crate::sweep::folder::{SweepFolder, SweepRecord};
use crate::sweep::local::Machine;
use crate::sweep::task::{self, TaskKind};

pub fn run(sweep: &Sweep, out: &Path, machine: &Machine, seconds: Option<f64>, price: Option<f64>) -> Result<()> {
    let folder = SweepFolder { path: out.to_owned() };
    let record = SweepRecord::of(sweep);
    let (runs, evals) = (record.runs.len(), record.evals.len());
    let mut text = format!("{}: {runs} runs, {evals} evaluations, to `{}`\n", sweep.name, out.display());
    text += &format!("this machine: {machine}\n\n");
    for task in task::tasks(&record) {
        let args = match (task.kind, record.eval(&task.name)) {
            (TaskKind::Eval, Some(eval)) => task::evaluate(&folder, &record, eval),
            _ => task::fresh(&folder, &task.name),
        };
        text += &format!("{}\n    rft {}\n", task.name, task::in_shell(&args));
    }
    let cost = SweepCost::of(sweep)?;
    let first = &sweep.configs[&sweep.runs[0].name];
    print!("{text}\n{}{}", bounds(&cost, sweep), memory(first, machine)?);
    if let Some(seconds) = seconds {
        print!("{}", measured(sweep, &cost, first, seconds, price)?);
    }
    Ok(())
}

fn bounds(cost: &SweepCost, sweep: &Sweep) -> String {
    let mut text = format!("{:11} {} steps\n", "training", cost.steps);
    let mut bound = |what: &str, CompletionBound { completions, tokens }: CompletionBound| {
        if completions > 0 {
            _ = writeln!(text, "{what:11} {completions} completions, at most {}", shown(tokens as f64));
        }
    };
    bound("", cost.training);
    bound("held-out", cost.held_out);
    if sweep.eval.is_some() {
        bound("benchmarks", cost.benchmarks);
    }
    for line in &cost.unknown {
        _ = writeln!(text, "{:11} {line}", "unknown");
    }
    text
}

fn shown(tokens: f64) -> String {
    if tokens < 1e5 { format!("{:.1} k tokens", tokens / 1e3) } else { format!("{:.1} M tokens", tokens / 1e6) }
}

/// The GPU memory of one run, if the model's shape is known without a download.
fn memory(config: &RunConfig, machine: &Machine) -> Result<String> {
    let Some(shape) = known_shape(&config.model.path) else { return Ok(String::new()) };
    let peak = HumanBytes(MemoryPlan::of(&shape, config)?.peak());
    let mut text = format!("{:11} {peak} of GPU memory per run (`rft plan` prints the parts)\n", "memory");
    if machine.gpus.is_empty() && config.run.device == "auto" {
        _ = writeln!(text, "{:11} no GPU was found: these runs would train on the CPU", "");
    }
    Ok(text)
}

/// Estimated hours of all runs and evaluations, from a short measurement of the first run.
fn measured(sweep: &Sweep, cost: &SweepCost, config: &RunConfig, seconds: f64, price: Option<f64>) -> Result<String> {
    download::confirm(config, false)?;
    eprintln!("measuring; this trains at least two steps, even if they take longer than requested");
    let measured = measure(config, seconds, price)?;
    let whole = measured.forecast.whole;
    // Without held-out questions, the rollouts show how fast completions are generated.
    let piece = if measured.evaluation.units > 0 { measured.evaluation } else { measured.rollouts };
    let runs = sweep.runs.len() as f64;
    let mut text = format!("measured on {}\n", measured.device);
    let mut line = |what: &str, tokens: f64, hours: f64| {
        let money = price.map(|price| format!(", cost {:.2}", price * hours)).unwrap_or_default();
        let time = if hours < 0.1 { format!("{:.1} min", 60.0 * hours) } else { format!("{hours:.1} h") };
        _ = writeln!(text, "{what:11} {}, {time}{money}", shown(tokens));
    };
    line("runs", runs * whole.tokens, runs * whole.hours);
    if cost.benchmarks.completions > 0 {
        let factor = cost.benchmarks.completions as f64 / piece.units as f64;
        let (tokens, hours) = (factor * piece.tokens as f64, factor * piece.seconds / 3600.0);
        line("benchmarks", tokens, hours);
        line("together", runs * whole.tokens + tokens, runs * whole.hours + hours);
    }
    text += "this includes prompt tokens, and assumes that completions keep their measured length and that one process runs at a time\n";
    Ok(text)
}
