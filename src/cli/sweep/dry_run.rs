//! `rft sweep --dry-run`: the plan of a sweep and its cost.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use indicatif::HumanBytes;

use super::super::download;
use super::tune;
use crate::config::RunConfig;
use crate::device::memory::plan::MemoryPlan;
use crate::model::config::known_shape;
use crate::plan::measure::measure;
use crate::sweep::cost::{CompletionBound, SweepCost};
use crate::sweep::folder::{SweepFolder, SweepRecord};
use crate::sweep::local::Machine;
use crate::sweep::task::{self, TaskKind};
use crate::sweep::{Sweep, Trials};

pub fn run(
    sweep: &Sweep,
    trials: Option<&Trials>,
    out: &Path,
    machine: &Machine,
    seconds: Option<f64>,
    price: Option<f64>,
) -> Result<()> {
    let (runs, evals) = (sweep.runs.len(), sweep.evals.len());
    let first = trials.map_or_else(String::new, |it| format!("{} trials, ", it.sweep.runs.len()));
    let mut text = format!("{}: {first}{runs} runs, {evals} evaluations, to `{}`\n", sweep.name, out.display());
    text += &format!("this machine: {machine}\n\n");
    if let Some(trials) = trials {
        text += &format!("phase 1 of 2: {}\n", tune::describe(trials));
        text += &commands(&trials.sweep, &SweepFolder::of_trials(out));
        text += &format!("\nphase 2 of 2: the study; its configurations get the chosen {}\n", trials.key);
    }
    text += &commands(sweep, out);
    let cost = SweepCost::of(sweep)?;
    let of_trials = trials.map(|trials| SweepCost::of(&trials.sweep)).transpose()?;
    let first = &sweep.configs[&sweep.runs[0].name];
    let before = of_trials.as_ref().map_or_else(String::new, |cost| bounds("trials", cost, false));
    print!("{text}\n{before}{}{}", bounds("training", &cost, sweep.eval.is_some()), memory(first, machine)?);
    if let Some(seconds) = seconds {
        print!("{}", measured(sweep, &cost, of_trials.as_ref(), first, seconds, price)?);
    }
    Ok(())
}

/// The names and the commands of all tasks.
fn commands(sweep: &Sweep, path: &Path) -> String {
    let folder = SweepFolder { path: path.to_owned() };
    let record = SweepRecord::of(sweep);
    let mut text = String::new();
    for task in task::tasks(&record) {
        let args = match (task.kind, record.eval(&task.name)) {
            (TaskKind::Eval, Some(eval)) => task::evaluate(&folder, &record, eval),
            _ => task::fresh(&folder, &task.name),
        };
        text += &format!("{}\n    rft {}\n", task.name, task::in_shell(&args));
    }
    text
}

fn bounds(what: &str, cost: &SweepCost, has_benchmarks: bool) -> String {
    let mut text = format!("{what:11} {} steps\n", cost.steps);
    let mut bound = |what: &str, CompletionBound { completions, tokens }: CompletionBound| {
        if completions > 0 {
            _ = writeln!(text, "{what:11} {completions} completions, at most {}", shown(tokens as f64));
        }
    };
    bound("", cost.training);
    bound("held-out", cost.held_out);
    if has_benchmarks {
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
fn measured(
    sweep: &Sweep,
    cost: &SweepCost,
    trials: Option<&SweepCost>,
    config: &RunConfig,
    seconds: f64,
    price: Option<f64>,
) -> Result<String> {
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
    // The tokens and hours of completions that are not trained on.
    let of_completions = |completions: u64| {
        let factor = completions as f64 / piece.units as f64;
        (factor * piece.tokens as f64, factor * piece.seconds / 3600.0)
    };
    let mut together = (runs * whole.tokens, runs * whole.hours);
    if let Some(trials) = trials {
        let (training, steps) = (measured.forecast.training, measured.forecast.steps.max(1));
        let factor = trials.steps as f64 / steps as f64;
        let held_out = of_completions(trials.held_out.completions);
        let (tokens, hours) = (factor * training.tokens + held_out.0, factor * training.hours + held_out.1);
        line("trials", tokens, hours);
        together = (together.0 + tokens, together.1 + hours);
    }
    line("runs", runs * whole.tokens, runs * whole.hours);
    if cost.benchmarks.completions > 0 {
        let (tokens, hours) = of_completions(cost.benchmarks.completions);
        line("benchmarks", tokens, hours);
        together = (together.0 + tokens, together.1 + hours);
    }
    if trials.is_some() || cost.benchmarks.completions > 0 {
        line("together", together.0, together.1);
    }
    text += "this includes prompt tokens, and assumes that completions keep their measured length and that one process runs at a time\n";
    Ok(text)
}
