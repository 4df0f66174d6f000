//! `rft reward`: put the reward to the test, and check single answers.

mod check;
mod test;

use anyhow::Result;
use clap::Subcommand;

/// Put the reward to the test, or check answers with it
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

// No doc comments here: they would take the place of the longer ones at the arguments.
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
