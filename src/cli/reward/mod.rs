//! `rft reward`: test the reward, and check answers.

mod check;
mod test;

use anyhow::Result;
use clap::Subcommand;

/// Test the reward, or check answers with it
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

// No doc comments here: they would override the longer ones on the arguments.
#[derive(Subcommand, Debug)]
enum Command {
    Test(test::Args),
    Check(check::Args),
}

pub fn run(args: Args) -> Result<()> {
    match args.command {
        Command::Test(args) => test::run(args),
        Command::Check(args) => check::run(args),
    }
}
