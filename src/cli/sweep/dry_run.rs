//! `rft sweep --dry-run`: what would be done, and what it takes.

use std::path::Path;

use anyhow::Result;
use indicatif::HumanBytes;

use super::super::download;
use super::super::plan::measure::measure;
use crate::config::RunConfig;
use crate::model::config::known_shape;
use crate::plan::Plan;
use crate::sweep::cost::{Bound, Cost};
use crate::sweep::folder::{Folder, Record};
use crate::sweep::local::Machine;
use crate::sweep::task::{self, Kind};
use crate::sweep::{Sweep, file};

pub fn run(sweep: &Sweep, out: &Path, machine: &Machine, seconds: Option<f64>, price: Option<f64>) -> Result<()> {
    let folder = Folder { path: out.to_owned() };
    let record = Record::of(sweep);
    println!("{}: {} runs, {} evaluations, to `{}`", sweep.name, record.runs.len(), record.evals.len(), out.display());
    println!("this machine: {}\n", super::described(machine));
    for task in task::tasks(&record) {
        let args = match (task.kind, record.eval(&task.name)) {
            (Kind::Eval, Some(eval)) => task::evaluate(&folder, &record, eval),
            _ => task::fresh(&folder, &task.name),
        };
        println!("{}\n    rft {}", task.name, task::in_shell(&args));
    }
    println!();
    let cost = Cost::of(sweep)?;
    let first = &sweep.configs[&sweep.runs[0].name];
    print_bounds(&cost, sweep.eval.as_ref());
    print_memory(first, machine)?;
    if let Some(seconds) = seconds {
        print_measured(sweep, &cost, first, seconds, price)?;
    }
    Ok(())
}

fn print_bounds(cost: &Cost, eval: Option<&file::EvalSection>) {
    let bound = |what: &str, Bound { completions, tokens }: Bound| {
        if completions > 0 {
            println!("{what:11} {completions} completions, at most {}", millions(tokens as f64));
        }
    };
    println!("{:11} {} steps", "training", cost.steps);
    bound("", cost.training);
    bound("held-out", cost.held_out);
    if eval.is_some() {
        bound("benchmarks", cost.benchmarks);
    }
    for line in &cost.unknown {
        println!("unknown     {line}");
    }
}

fn millions(tokens: f64) -> String {
    format!("{:.1} M tokens", tokens / 1e6)
}

/// What one run takes of a GPU, where the model's shape is known without a download.
fn print_memory(config: &RunConfig, machine: &Machine) -> Result<()> {
    let Some(shape) = known_shape(&config.model.path) else { return Ok(()) };
    let peak = Plan::of(&shape, config)?.peak();
    println!("memory      {} of a GPU for each run (`rft plan` has the parts)", HumanBytes(peak));
    if machine.gpus.is_empty() && config.run.device == "auto" && config.model.path != "tiny" {
        println!("            no GPU is visible here: these runs would train on the CPU");
    }
    Ok(())
}

/// Hours of all runs and evaluations, from a piece of the first.
fn print_measured(sweep: &Sweep, cost: &Cost, config: &RunConfig, seconds: f64, price: Option<f64>) -> Result<()> {
    download::confirm(config, false)?;
    eprintln!("measuring; two steps are trained at least, however long they take");
    let measured = measure(config, seconds, price)?;
    let runs = sweep.runs.len() as f64;
    let whole = measured.forecast.whole;
    let evaluation = measured.evaluation;
    println!("measured on {}", measured.device);
    let print = |what: &str, tokens: f64, hours: f64| {
        let money = price.map(|price| format!(", costs {:.2}", price * hours)).unwrap_or_default();
        println!("{what:11} {}, {hours:.1} h{money}", millions(tokens));
    };
    print("runs", runs * whole.tokens, runs * whole.hours);
    if evaluation.units > 0 {
        let factor = cost.benchmarks.completions as f64 / evaluation.units as f64;
        let (tokens, hours) = (factor * evaluation.tokens as f64, factor * evaluation.seconds / 3600.0);
        print("benchmarks", tokens, hours);
        print("together", runs * whole.tokens + tokens, runs * whole.hours + hours);
    }
    println!("if completions stay as long as those of the held-out questions are now; one process at a time");
    Ok(())
}
