//! `rft sweep --dry-run`: what would be done, and what it takes.

use std::fmt::Write as _;
use std::io::{Write, stdout};
use std::path::Path;

use anyhow::Result;
use indicatif::HumanBytes;

use super::super::download;
use crate::config::RunConfig;
use crate::device::memory::plan::Plan;
use crate::model::config::known_shape;
use crate::plan::measure::measure;
use crate::sweep::Sweep;
use crate::sweep::cost::{Bound, Cost};
use crate::sweep::folder::{Folder, Record};
use crate::sweep::local::Machine;
use crate::sweep::task::{self, Kind};

pub fn run(sweep: &Sweep, out: &Path, machine: &Machine, seconds: Option<f64>, price: Option<f64>) -> Result<()> {
    let folder = Folder { path: out.to_owned() };
    let record = Record::of(sweep);
    let (runs, evals) = (record.runs.len(), record.evals.len());
    let mut text = format!("{}: {runs} runs, {evals} evaluations, to `{}`\n", sweep.name, out.display());
    text += &format!("this machine: {machine}\n\n");
    for task in task::tasks(&record) {
        let args = match (task.kind, record.eval(&task.name)) {
            (Kind::Eval, Some(eval)) => task::evaluate(&folder, &record, eval),
            _ => task::fresh(&folder, &task.name),
        };
        text += &format!("{}\n    rft {}\n", task.name, task::in_shell(&args));
    }
    let cost = Cost::of(sweep)?;
    let first = &sweep.configs[&sweep.runs[0].name];
    write!(stdout(), "{text}\n{}{}", bounds(&cost, sweep), memory(first, machine)?)?;
    if let Some(seconds) = seconds {
        write!(stdout(), "{}", measured(sweep, &cost, first, seconds, price)?)?;
    }
    Ok(())
}

fn bounds(cost: &Cost, sweep: &Sweep) -> String {
    let mut text = format!("{:11} {} steps\n", "training", cost.steps);
    let mut bound = |what: &str, Bound { completions, tokens }: Bound| {
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

/// What one run takes of a GPU, where the model's shape is known without a download.
fn memory(config: &RunConfig, machine: &Machine) -> Result<String> {
    let Some(shape) = known_shape(&config.model.path) else { return Ok(String::new()) };
    let peak = HumanBytes(Plan::of(&shape, config)?.peak());
    let mut text = format!("{:11} {peak} of a GPU for each run (`rft plan` has the parts)\n", "memory");
    if machine.gpus.is_empty() && config.run.device == "auto" {
        _ = writeln!(text, "{:11} no GPU is visible here: these runs would train on the CPU", "");
    }
    Ok(text)
}

/// Hours of all runs and evaluations, from a piece of the first.
fn measured(sweep: &Sweep, cost: &Cost, config: &RunConfig, seconds: f64, price: Option<f64>) -> Result<String> {
    download::confirm(config, false)?;
    eprintln!("measuring; two steps are trained at least, however long they take");
    let measured = measure(config, seconds, price)?;
    let whole = measured.forecast.whole;
    // Without questions that are held out, the rollouts say how fast completions are made.
    let piece = if measured.evaluation.units > 0 { measured.evaluation } else { measured.rollouts };
    let runs = sweep.runs.len() as f64;
    let mut text = format!("measured on {}\n", measured.device);
    let mut line = |what: &str, tokens: f64, hours: f64| {
        let money = price.map(|price| format!(", costs {:.2}", price * hours)).unwrap_or_default();
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
    text +=
        "tokens of prompts counted; if completions stay as long as they were in this piece; one process at a time\n";
    Ok(text)
}
