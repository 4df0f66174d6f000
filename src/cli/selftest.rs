//! `rft selftest`: checks that a GPU computes the same as the CPU, and `rft`'s decoder the same as candle's.

use crate::cli::output;
use crate::device::Device;
use crate::device::candle::{CONTINUATION, Comparison, compare};
use crate::model::source::ModelSource;
use crate::run::trained::Trained;
use anyhow::{Result, bail};
use clap::ValueEnum;
use std::path::PathBuf;
use std::process::ExitCode;

/// Check every GPU operation against the CPU, or a model against candle's decoder
///
/// Runs every operation forward and backward on random inputs, complete decoders, rollouts and some training steps, and
/// prints one line per check: the error (norm of the difference divided by norm of the reference), the bound that it must
/// not exceed, and the verdict. Takes about a minute. The exit code is 1 if a check fails.
///
/// With `--model`, runs the model with `rft`'s decoder and with that of candle-transformers, which loads the weights itself.
/// Prints the largest absolute differences of the logits after a prompt and after each decoded token, and of the
/// log-probabilities of those tokens in a rollout. On the CPU, both compute in f32, and a difference above 1e-3 fails. On a
/// GPU, `rft` computes in bf16 (as does candle in a build with the feature `candle-cuda`), and the differences are only
/// printed.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  rft selftest
  rft selftest --filter lora
  rft selftest --model Qwen/Qwen2.5-0.5B --adapter runs/my-run
  compute-sanitizer --tool memcheck rft selftest --guarded --filter rows
  CUDA_LAUNCH_BLOCKING=1 rft selftest --filter decoder     # an error names the kernel")]
pub struct SelftestArgs {
    /// Compare this model with candle's decoder: `tiny`, a Hub id, a Hugging Face folder or a .gguf file
    #[arg(long, value_name = "MODEL", conflicts_with_all = ["filter", "list", "guarded", "seed"])]
    model: Option<String>,

    /// Run directory or adapter folder, for the model
    #[arg(long, value_name = "RUN|DIR", requires = "model")]
    adapter: Option<PathBuf>,

    /// Device: `cuda`, `cuda:NUMBER` or, only with `--model`, `cpu` [default: cuda; with `--model` cpu]
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,

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
    if let Some(model) = &args.model {
        return against_candle(model, args);
    }
    match Device::choose(args.device.as_deref().unwrap_or("cuda"))? {
        Device::Cpu => bail!(
            "the self-test compares a GPU with the CPU, but the selected device is the CPU\n\
             hint: `cargo test` compares the CPU with results of PyTorch, and `rft selftest --model MODEL` with candle"
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
            SelftestFormat::Json => output::json_line(&json(outcome)),
        }
    })?;
    eprintln!("{checks} checks, {failed} failed");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Bound of a comparison in f32.
const F32_BAR: f32 = 1e-3;

/// The prompt of a comparison.
const PROMPT: &str = "Anna has 12 apples and buys 5 more. How many apples does she have? Let us think step by step.";

fn against_candle(model: &str, args: &SelftestArgs) -> Result<ExitCode> {
    let device = Device::choose(args.device.as_deref().unwrap_or("cpu"))?;
    let adapter = args.adapter.as_deref().map(Trained::find).transpose()?;
    let source = ModelSource::open(model, "main")?;
    let prompt = source.tokenizer()?.encode(PROMPT);
    let adapter = adapter.as_ref().map(|it| it.folder.as_path());
    let Comparison { prefill, decoded, rollout, f32 } = compare(device, &source, &source, adapter, &prompt)?;
    let mut ok = true;
    for (error, what) in [
        (prefill, format!("logits after a prompt of {} tokens", prompt.len())),
        (decoded, format!("logits after each of {} decoded tokens", CONTINUATION - 1)),
        (rollout, format!("log-probabilities of {CONTINUATION} tokens of a rollout")),
    ] {
        let passed = !f32 || error <= F32_BAR;
        ok &= passed;
        let verdict = if passed { "ok" } else { "FAILED" };
        match args.output_format {
            SelftestFormat::Text if f32 => println!("{verdict:<6} {error:>9.2e} <= {F32_BAR:<8.1e} {what}"),
            SelftestFormat::Text => println!("{error:>9.2e} {what}"),
            SelftestFormat::Json => {
                let bar = f32.then_some(F32_BAR);
                output::json_line(&serde_json::json!({"name": what, "error": error, "bar": bar, "ok": passed}));
            }
        }
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
