//! The command line: one file for each subcommand. Data goes to stdout, everything else to stderr.

/// `std::eprintln` for the whole command line, see [`output::message`].
macro_rules! eprintln {
    ($($arg:tt)*) => {
        $crate::cli::output::message(&(format!($($arg)*) + "\n"))
    };
}

/// `std::eprint`, see [`output::message`].
macro_rules! eprint {
    ($($arg:tt)*) => {
        $crate::cli::output::message(&format!($($arg)*))
    };
}

/// `std::println`, see [`output::text`].
macro_rules! println {
    ($($arg:tt)*) => {
        $crate::cli::output::text(&(format!($($arg)*) + "\n"))
    };
}

/// `std::print`, see [`output::text`].
macro_rules! print {
    ($($arg:tt)*) => {
        $crate::cli::output::text(&format!($($arg)*))
    };
}

pub mod arguments;
pub mod classify;
pub mod compare;
pub mod completions;
pub mod config;
pub mod config_args;
pub mod describe;
pub mod difficulty;
pub mod doctor;
pub mod download;
pub mod eval;
pub mod export;
mod fitted;
pub mod generate;
mod held_out;
pub mod merge;
pub mod output;
pub mod output_format;
pub mod overlap;
pub mod perf;
pub mod plan;
pub mod prompts;
pub mod push;
pub mod rehearse;
pub mod report;
pub mod reward;
pub mod run_args;
pub mod runs;
pub mod selftest;
pub mod sweep;
pub mod train;
pub mod verify_resume;
pub mod watch;

use crate::data::read::parquet;
use crate::prompt::renderer;
use crate::run::printable::shortened;
use anyhow::{Error, Result};
use clap::{ArgAction, CommandFactory, Parser, Subcommand};
use std::io::{IsTerminal, stderr};
use std::process::ExitCode;

/// Fine-tune language models with GRPO and measure what prior prompts change
///
/// Trains LoRA adapters with a prior prompt placed before every question, evaluates them, and reports the differences with
/// confidence intervals. To try it, run `rft train --ppe null-example`: it trains a small embedded model on a CPU in about
/// two minutes.
#[derive(Parser, Debug)]
#[command(name = "rft", version, max_term_width = 100, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Print more; repeat for debug output (RUST_LOG overrides this)
    #[arg(short, long, action = ArgAction::Count, global = true, display_order = 900)]
    pub verbose: u8,
}

// No doc comments here: they would override the longer ones on the arguments.
#[derive(Subcommand, Debug)]
enum Command {
    Train(Box<train::TrainArgs>),
    Eval(Box<eval::EvalArgs>),
    Sweep(Box<sweep::SweepArgs>),
    Generate(Box<generate::GenerateArgs>),
    Report(report::ReportArgs),
    Compare(compare::CompareArgs),
    Runs(runs::RunsArgs),
    Watch(watch::WatchArgs),
    Classify(classify::ClassifyArgs),
    Merge(merge::MergeArgs),
    Export(export::ExportArgs),
    Push(push::PushArgs),
    Plan(plan::PlanArgs),
    Rehearse(Box<rehearse::RehearseArgs>),
    VerifyResume(Box<verify_resume::VerifyResumeArgs>),
    Selftest(selftest::SelftestArgs),
    Perf(perf::PerfArgs),
    Config(config::ConfigCommandArgs),
    Prompts(prompts::PromptsArgs),
    Reward(reward::RewardArgs),
    Overlap(overlap::OverlapArgs),
    Difficulty(Box<difficulty::DifficultyArgs>),
    Doctor(doctor::DoctorArgs),
    Completions(completions::CompletionsArgs),
    #[command(name = renderer::SUBCOMMAND, hide = true)]
    RenderTemplates,
    #[command(name = parquet::SUBCOMMAND, hide = true)]
    ReadParquet,
}

/// Runs the command. The exit code is 0 on success, and 130 or 143 if a signal ended the command early.
///
/// # Errors
/// Those of the command, and of standard output.
pub fn run(cli: Cli) -> Result<ExitCode> {
    let code = dispatch(cli.command)?;
    output::finish()?;
    Ok(code)
}

fn dispatch(command: Command) -> Result<ExitCode> {
    match command {
        Command::Train(args) => train::run(*args),
        Command::Eval(args) => eval::run(*args),
        Command::Sweep(args) => sweep::run(*args),
        Command::Generate(args) => generate::run(*args).map(|()| ExitCode::SUCCESS),
        Command::Report(args) => report::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Compare(args) => compare::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Runs(args) => runs::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Watch(args) => watch::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Classify(args) => classify::run(args).map(|()| ExitCode::SUCCESS),
        Command::Merge(args) => merge::run(args).map(|()| ExitCode::SUCCESS),
        Command::Export(args) => export::run(args).map(|()| ExitCode::SUCCESS),
        Command::Push(args) => push::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Plan(args) => plan::run(args).map(|()| ExitCode::SUCCESS),
        Command::Rehearse(args) => rehearse::run(&args),
        Command::VerifyResume(args) => verify_resume::run(&args),
        Command::Selftest(args) => selftest::run(&args),
        Command::Perf(args) => perf::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Config(args) => config::run(args).map(|()| ExitCode::SUCCESS),
        Command::Prompts(args) => prompts::run(args).map(|()| ExitCode::SUCCESS),
        Command::Reward(args) => reward::run(args).map(|()| ExitCode::SUCCESS),
        Command::Difficulty(args) => difficulty::run(&args),
        Command::Overlap(args) => overlap::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Doctor(args) => doctor::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Completions(args) => completions::run(&args, Cli::command()).map(|()| ExitCode::SUCCESS),
        Command::RenderTemplates => renderer::serve().map(|()| ExitCode::SUCCESS),
        Command::ReadParquet => parquet::serve().map(|()| ExitCode::SUCCESS),
    }
}

/// Logs go to stderr: warnings, or more with `-v`. They are colored only on a terminal, and not if `NO_COLOR` is set.
pub fn init_logging(verbose: u8) {
    let level = ["warn", "info", "debug"][usize::from(verbose.min(2))];
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(format!("{level},rft={level}")));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()))
        .without_time()
        // A log line that cannot be written is lost.
        .log_internal_errors(false)
        .with_target(false)
        .init();
}

/// Prints an error as one line, from the outermost context to the cause, and its hints below.
pub fn report(error: &Error) {
    let (message, hints) = describe::describe(error);
    eprintln!("error: {message}");
    for hint in hints {
        eprintln!("hint: {}", shortened(&hint));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_definition_is_valid() {
        Cli::command().debug_assert();
    }
}
