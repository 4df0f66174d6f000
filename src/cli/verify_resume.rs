//! `rft verify-resume`: show on this machine that a killed run resumes to the same bytes.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, ensure};
use comfy_table::{Table, presets};

use super::run_args::RunArgs;
use crate::config;
use crate::run::Stop;
use crate::verify::child::ScratchFolder;
use crate::verify::compare::ComparedPart;
use crate::verify::resume::verify_resume;

/// Check on this machine that an interrupted run resumes to the same bytes
///
/// Trains 2 x N steps of the configuration without interruption, and once more in a process that is killed after its checkpoint
/// of step N and resumed by another process. Then compares completions, metrics, counters, optimizer moments, adapter and
/// evaluations of the two runs. Prints the hash of each part and `equal`, or the first difference, with exit code 1.
///
/// Run it before a long run on a new machine, GPU or version. Without `--model` and `--config` it takes less than two minutes.
/// With another model, it takes three times as long as 2 x N steps; `--set rollout.prompts_per_step=2` shortens them.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  rft verify-resume
  rft verify-resume --config my-run.toml --data train.jsonl --steps 1")]
pub struct VerifyResumeArgs {
    /// Steps before the kill, and as many after it
    #[arg(long, value_name = "N", default_value_t = 3)]
    steps: usize,

    /// Keep the folder with both runs; it is also kept if they differ
    #[arg(long)]
    keep: bool,

    /// Download the model without asking
    #[arg(long, short)]
    yes: bool,

    #[command(flatten)]
    run: RunArgs,
}

pub fn run(args: &VerifyResumeArgs) -> Result<ExitCode> {
    ensure!(args.steps > 0, "`--steps` must be at least 1");
    let config = config::resolve(&args.run.layers())?.config;
    super::download::confirm(&config, args.yes)?;
    let stop = Stop::on_signals(|_| eprintln!("stopping"))?;
    let mut scratch = ScratchFolder::create(&std::env::temp_dir(), "rft-verify-resume")?;
    let started = Instant::now();
    let mut say = |phase: &str| eprintln!("{:>6.1} s  {phase}", started.elapsed().as_secs_f64());
    let parts = verify_resume(&config, args.steps, scratch.path(), &stop, &mut say)?;
    say("compared");
    table(&parts).lines().for_each(|line| println!("{}", line.trim()));
    let first = parts.iter().find_map(|part| Some((part.name, part.difference.as_ref()?)));
    match first {
        None => println!(
            "equal: {} steps, and {} + {} steps with a kill between them",
            2 * args.steps,
            args.steps,
            args.steps
        ),
        Some((name, difference)) => println!("different: {name}: {difference}"),
    }
    if first.is_some() || args.keep {
        scratch.keep();
        eprintln!("both runs are in `{}`", scratch.path().display());
    }
    Ok(if first.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn table(parts: &[ComparedPart]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for ComparedPart { name, sha256, content, difference } in parts {
        let verdict = if difference.is_some() { "different" } else { "equal" };
        table.add_row([*name, verdict, &sha256[..16], content]);
    }
    table
}
