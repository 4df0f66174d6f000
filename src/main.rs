//! `rft`: reinforcement fine-tuning with prior prompts.

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = rft::cli::Cli::parse();
    rft::cli::init_logging(cli.verbose);
    match rft::cli::run(cli) {
        Ok(code) => code,
        Err(error) => {
            rft::cli::report(&error);
            ExitCode::FAILURE
        }
    }
}
