//! `rft rehearse`: go through all phases of a run with the embedded model.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use super::describe::describe;
use super::plan;
use super::run_args::RunArgs;
use crate::config;
use crate::run::Stop;
use crate::verify::reduce::Change;
use crate::verify::rehearse::{PhaseOutcome, PhaseResult, Rehearsal};

/// Go through all phases of a run in about a minute, with a small model
///
/// Takes the configuration that you will train with, and replaces only its model by the embedded one. Loads the real data,
/// reads every gold answer, renders every prompt, runs the rewards, trains one step, saves a checkpoint, kills the process,
/// resumes it, evaluates, and exports the adapter. What would fail after hours, such as a reward command, a data column, a
/// benchmark file or the disk space, fails now. Prints one line per phase, the lengths and numbers that it reduced, the keys
/// that it cannot rehearse, and the memory plan of the real model.
///
/// If the tokenizer of the real model is on this machine or on the Hub, prompts are rendered with it. The weights are never
/// loaded or downloaded. Leaves no files behind.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  rft rehearse --preset qwen2.5-7b
  rft rehearse --config my-run.toml --data train.jsonl --bench math500,gsm8k --data-dir data")]
pub struct RehearseArgs {
    /// Comma-separated benchmark names (`rft eval list` prints them) or data files that you will evaluate on
    #[arg(long, value_name = "NAME|FILE", value_delimiter = ',', default_value = "arithmetic")]
    bench: Vec<String>,

    /// Folder with data files, searched before the Hub
    #[arg(long, value_name = "DIR", env = "RFT_DATA_DIR")]
    data_dir: Option<PathBuf>,

    #[command(flatten)]
    run: RunArgs,
}

pub fn run(args: &RehearseArgs) -> Result<ExitCode> {
    let config = config::resolve(&args.run.layers())?.config;
    let stop = Stop::on_signals(|_| eprintln!("stopping"))?;
    let rehearsal = Rehearsal { config: &config, bench: &args.bench, data_dir: args.data_dir.as_deref(), stop: &stop };
    let summary = rehearsal.run(&mut print)?;

    if !summary.changed.is_empty() {
        println!("\nchanged for the rehearsal");
        for Change { key, given, here } in &summary.changed {
            println!("  {key}: {given} -> {here}");
        }
    }
    println!("\nnot rehearsed");
    for (key, why) in &summary.not_rehearsed {
        println!("  {key}: {why}");
    }
    println!("\nGPU memory of the real run (`rft plan` explains it)");
    match plan::memory(&config) {
        Ok(text) => text.lines().for_each(|line| println!("  {line}")),
        Err(error) => println!("  not estimated: {}", describe(&error).0),
    }
    match summary.failed {
        0 => println!("\nthe rehearsal passed"),
        failed => println!("\nthe rehearsal failed in {failed} of its phases"),
    }
    Ok(if summary.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One line, and the hints and notes below it.
fn print(result: &PhaseResult) {
    let PhaseResult { name, seconds, outcome, notes } = result;
    let (verdict, text, hints) = match outcome {
        PhaseOutcome::Done(summary) => ("ok", summary.clone(), Vec::new()),
        PhaseOutcome::Failed(error) => {
            let (message, hints) = describe(error);
            ("FAILED", message, hints)
        }
        PhaseOutcome::Skipped(why) => ("skipped", why.clone(), Vec::new()),
    };
    println!("{name:<24} {verdict:<8} {seconds:>5.1} s  {text}");
    let hints = hints.iter().map(|hint| format!("hint: {hint}"));
    for line in hints.chain(notes.iter().cloned()) {
        println!("{:43}{line}", "");
    }
}
