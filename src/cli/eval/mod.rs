//! `rft eval`: measure a model on benchmarks, and read what was measured.

pub mod compare;
mod draw;
mod regrade;
mod show;
mod table;

use anyhow::Result;
use clap::Subcommand;
use std::process::ExitCode;

/// Measure a model on benchmarks
///
/// Every question is asked under the prior prompt, several times where the benchmark is small, and every answer is kept: the
/// folder is printed at the end. The same command goes on where it was interrupted, and prints the scores again once all
/// samples are there.
#[derive(clap::Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  rft eval --bench arithmetic
  rft eval --bench aime2024,math500 --adapter runs/qwen-null-example-1 --data-dir data
  rft eval --bench gsm8k --model Qwen/Qwen2.5-0.5B --ppe reasoning --limit 100 --samples 1 --temperature 0
  rft eval compare evals/A evals/B"
)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    draw: draw::Args,
}

// No doc comments here: they would take the place of the longer ones at the arguments.
#[derive(Subcommand, Debug)]
enum Command {
    Compare(compare::Args),
    Regrade(regrade::Args),
    Show(show::Args),
    #[command(about = "List the benchmarks")]
    List,
}

pub fn run(args: Args) -> Result<ExitCode> {
    match args.command {
        None => draw::run(&args.draw),
        Some(Command::Compare(args)) => compare::run(&args).map(|()| ExitCode::SUCCESS),
        Some(Command::Regrade(args)) => regrade::run(&args).map(|()| ExitCode::SUCCESS),
        Some(Command::Show(args)) => show::run(&args).map(|()| ExitCode::SUCCESS),
        Some(Command::List) => {
            println!("{}", table::benchmarks());
            Ok(ExitCode::SUCCESS)
        }
    }
}
