//! `rft reward`: put the reward to the test, and check single answers.

mod check;
mod test;

use anyhow::Result;
use clap::Subcommand;

/// Put the reward to the test, or check answers with it
#[derive(clap::Args, Debug)]
pub struct RewardArgs {
    #[command(subcommand)]
    command: RewardCommand,
}

// No doc comments here: they would take the place of the longer ones at the arguments.
#[derive(Subcommand, Debug)]
enum RewardCommand {
    Test(test::RewardTestArgs),
    Check(check::RewardCheckArgs),
}

pub fn run(args: RewardArgs) -> Result<()> {
    match args.command {
        RewardCommand::Test(args) => test::run(args),
        RewardCommand::Check(args) => check::run(args),
    }
}
