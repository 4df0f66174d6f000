//! `rft eval`: evaluate a model on benchmarks, and inspect the results.

pub mod compare;
mod draw;
mod regrade;
mod show;
mod table;

use anyhow::Result;
use clap::Subcommand;
use std::process::ExitCode;

/// Evaluate a model on benchmarks
///
/// Generates samples for every question under the prior prompt (several per question on small benchmarks), grades them, and
/// keeps them all in the folder that is printed at the end. If the evaluation is interrupted, the same command resumes it.
/// If it is complete, the same command prints the scores again.
#[derive(clap::Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  rft eval --bench arithmetic
  rft eval --bench aime2024,math500 --adapter runs/qwen-null-example-1 --data-dir data
  rft eval --bench gsm8k --model Qwen/Qwen2.5-0.5B --ppe reasoning --limit 100 --samples 1 --temperature 0
  rft eval compare evals/A evals/B"
)]
pub struct EvalArgs {
    #[command(subcommand)]
    command: Option<EvalCommand>,

    #[command(flatten)]
    draw: draw::EvalDrawArgs,
}

// No doc comments here: they would override the longer ones on the arguments.
#[derive(Subcommand, Debug)]
enum EvalCommand {
    Compare(compare::EvalCompareArgs),
    Regrade(regrade::RegradeArgs),
    Show(show::EvalShowArgs),
    #[command(about = "List the benchmarks")]
    List,
}

pub fn run(args: EvalArgs) -> Result<ExitCode> {
    match args.command {
        None => draw::run(&args.draw),
        Some(EvalCommand::Compare(args)) => compare::run(&args).map(|()| ExitCode::SUCCESS),
        Some(EvalCommand::Regrade(args)) => regrade::run(&args).map(|()| ExitCode::SUCCESS),
        Some(EvalCommand::Show(args)) => show::run(&args).map(|()| ExitCode::SUCCESS),
        Some(EvalCommand::List) => {
            println!("{}", table::benchmarks());
            Ok(ExitCode::SUCCESS)
        }
    }
}
