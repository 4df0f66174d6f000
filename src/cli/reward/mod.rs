//! `rft reward`: test the reward, and check answers.

mod check;
mod test;

use anyhow::Result;
use clap::Subcommand;

/// Test the reward, or check answers with it
#[derive(clap::Args, Debug)]
pub struct RewardArgs {
    #[command(subcommand)]
    command: RewardCommand,
}

// No doc comments here: they would override the longer ones on the arguments.
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
