//! `rft selftest`: checks that a GPU computes what the CPU computes.

use crate::device::Device;
use anyhow::{Result, bail};
use clap::ValueEnum;
use std::process::ExitCode;

/// Check every GPU operation against the CPU
///
/// Runs every operation forward and backward on random inputs, complete decoders, rollouts and some training steps, and
/// prints one line per check: the error (norm of the difference divided by norm of the reference), the bound that it must
/// not exceed, and the verdict. Takes about a minute. The exit code is 1 if a check fails.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  rft selftest
  rft selftest --filter lora
  compute-sanitizer --tool memcheck rft selftest --guarded --filter rows
  CUDA_LAUNCH_BLOCKING=1 rft selftest --filter decoder     # an error names the kernel")]
pub struct SelftestArgs {
    /// Device: `cuda` or `cuda:NUMBER`
    #[arg(long, value_name = "DEVICE", default_value = "cuda")]
    device: String,

    /// Run only these groups of checks: comma-separated names or parts of names
    #[arg(long, value_name = "NAMES", default_value = "")]
    filter: String,

    /// Print the names of the groups and exit
    #[arg(long)]
    list: bool,

    /// Give every buffer its own allocation, so that `compute-sanitizer` detects reads and writes past its end
    #[arg(long)]
    guarded: bool,

    /// Seed of the random inputs
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output_format: SelftestFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SelftestFormat {
    Text,
    /// One JSON object per line
    Json,
}

pub fn run(args: &SelftestArgs) -> Result<ExitCode> {
    if args.list {
        crate::device::cuda::selftest::groups().for_each(|name| println!("{name}"));
        return Ok(ExitCode::SUCCESS);
    }
    match Device::choose(&args.device)? {
        Device::Cpu => bail!(
            "the self-test compares a GPU with the CPU, but the selected device is the CPU\n\
             hint: `cargo test` compares the CPU with results of PyTorch"
        ),
        Device::Cuda(ordinal) => on_gpu(ordinal, args),
    }
}

fn on_gpu(ordinal: usize, args: &SelftestArgs) -> Result<ExitCode> {
    use crate::device::cuda::selftest;
    if selftest::chosen(&args.filter).next().is_none() {
        bail!("no group of checks matches `{}`\nhint: `rft selftest --list` prints the groups", args.filter);
    }
    let (mut checks, mut failed) = (0, 0);
    let options = selftest::SelftestOptions { filter: &args.filter, seed: args.seed, guarded: args.guarded };
    selftest::run(ordinal, &options, &mut |outcome| {
        checks += 1;
        failed += usize::from(!outcome.ok());
        match args.output_format {
            SelftestFormat::Text => println!("{}", line(outcome)),
            SelftestFormat::Json => println!("{}", json(outcome)),
        }
    })?;
    eprintln!("{checks} checks, {failed} failed");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn line(outcome: &crate::device::cuda::selftest::CheckOutcome) -> String {
    let verdict = if outcome.ok() { "ok" } else { "FAILED" };
    match &outcome.failure {
        Some(why) => format!("{verdict:<6}                     {}: {why}", outcome.name),
        None => format!("{verdict:<6} {:>9.2e} <= {:<8.1e} {}", outcome.error, outcome.bar, outcome.name),
    }
}

fn json(outcome: &crate::device::cuda::selftest::CheckOutcome) -> serde_json::Value {
    // JSON has no NaN: values that are not finite become null.
    serde_json::json!({
        "name": outcome.name,
        "error": outcome.error,
        "bar": outcome.bar,
        "ok": outcome.ok(),
        "failure": outcome.failure,
    })
}
