//! `rft perf`: the speed of a GPU, compared with its limits.

use super::output_format::OutputFormat;
use crate::cli::output;
use crate::device::Device;
use crate::device::cuda::blas::Tuned;
use crate::model::config::{ModelConfig, known_shape};
use crate::model::embedded;
use crate::model::source::ModelSource;
use anyhow::{Result, bail};
use clap::ValueEnum;

/// Measure a GPU: operations, decoding, training, a full step
///
/// First measures the device's copy bandwidth and a large matrix product. They give the floor of every other figure: the
/// least time that its bytes or its operations need. Weights are random and generated on the device in the real shape, so
/// no checkpoint is needed. LoRA is on all linear layers.
///
/// `tune` measures which cuBLASLt algorithm is fastest for each matrix product of a model and stores the choices in the
/// user's cache folder, by GPU and version of the library. Runs that start later use them, and keep a copy in their own folder
/// for `--resume`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  rft perf decode
  rft perf decode --rows 64 --rows 128 --model-shape qwen2.5-1.5b
  rft perf train --rows 8192                 # rows of a micro-batch
  rft perf step --output-format json
  rft perf tune --model-shape qwen2.5-7b --lora-rank 32")]
pub struct PerfArgs {
    #[arg(value_name = "WHAT")]
    what: PerfCommand,

    /// Device: `cuda` or `cuda:NUMBER`
    #[arg(long, value_name = "DEVICE", default_value = "cuda")]
    device: String,

    /// Shape of the model: qwen2.5-0.5b, -1.5b, -3b, -7b or -14b, or `tiny` for the embedded model
    #[arg(long, value_name = "NAME", default_value = "qwen2.5-7b")]
    model_shape: String,

    /// LoRA rank
    #[arg(long, value_name = "R", default_value_t = 32)]
    lora_rank: usize,

    /// Number of rows: of a batch (decode, step), of a micro-batch (ops, train), or of both (tune)
    /// [default: 8, 64, 256 | 256 | 16384 | 16384 | all sizes up to 16384]
    #[arg(long, value_name = "N", verbatim_doc_comment)]
    rows: Vec<usize>,

    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output_format: OutputFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PerfCommand {
    /// Measure each operation separately
    Ops,
    /// Measure decoding at a context length of 1,024
    Decode,
    /// Measure forward and backward passes at lengths of 1,024 and 4,096
    Train,
    /// Measure a GRPO step: 320 rollouts of forced lengths, and the update
    Step,
    /// Measure all algorithms of every matrix product, and store the fastest for later runs
    Tune,
}

pub fn run(args: &PerfArgs) -> Result<()> {
    if args.rows.contains(&0) {
        bail!("--rows: expected 1 or more, found 0");
    }
    match Device::choose(&args.device)? {
        Device::Cpu => bail!("`rft perf` measures GPUs only\nhint: `cargo bench` measures the CPU"),
        Device::Cuda(ordinal) => on_gpu(ordinal, args),
    }
}

fn on_gpu(ordinal: usize, args: &PerfArgs) -> Result<()> {
    use crate::device::cuda::perf;
    let config = match known_shape(&args.model_shape) {
        Some(config) => config,
        None if args.model_shape == embedded::NAME => ModelSource::open_embedded()?.config,
        None => {
            bail!("unknown model shape `{}`\nhint: use `tiny`, qwen2.5-0.5b, -1.5b, -3b, -7b or -14b", args.model_shape)
        }
    };
    let what = match args.what {
        PerfCommand::Ops => perf::Workload::Ops,
        PerfCommand::Decode => perf::Workload::Decode,
        PerfCommand::Train => perf::Workload::Train,
        PerfCommand::Step => perf::Workload::Step,
        PerfCommand::Tune => return tune(ordinal, config, args),
    };
    // Each line is printed as soon as it is measured, so that an interrupted command still shows its results so far.
    let mut tell = |line: &perf::PerfLine| {
        if matches!(args.output_format, OutputFormat::Text) {
            println!("{}", text(line));
        }
    };
    let report = perf::run(ordinal, config, args.lora_rank, what, &args.rows, &mut tell)?;
    match args.output_format {
        OutputFormat::Json => output::json(&report),
        OutputFormat::Text => println!(
            "{}, {}: copy {:.2} TB/s, bf16 matrix product {:.0} TFLOP/s; weights {:.1} GB, working memory at most {:.1} GB{}",
            report.device,
            args.model_shape,
            report.floors.bytes_per_second / 1e12,
            report.floors.flops_per_second / 1e12,
            report.weights as f64 / 1e9,
            report.peak as f64 / 1e9,
            report.planned.map(|bytes| format!(", planned {:.1} GB", bytes as f64 / 1e9)).unwrap_or_default(),
        ),
    }
    Ok(())
}

/// Prints one line per matrix product as it is measured, and the total.
fn tune(ordinal: usize, config: ModelConfig, args: &PerfArgs) -> Result<()> {
    let (mut products, mut faster, mut first, mut best) = (0, 0, 0.0, 0.0);
    let mut tell = |tuned: &Tuned| {
        let (before, after) = (tuned.milliseconds[0], tuned.milliseconds[tuned.chosen]);
        products += 1;
        faster += usize::from(tuned.chosen > 0);
        first += f64::from(before);
        best += f64::from(after);
        match args.output_format {
            OutputFormat::Json => output::json_line(&serde_json::json!({
                "product": tuned.shape.to_string(),
                "milliseconds": tuned.milliseconds,
                "chosen": tuned.chosen,
            })),
            OutputFormat::Text => println!(
                "{:<56} {before:>9.4} ms -> {after:>9.4} ms  suggestion {} of {}",
                tuned.shape.to_string(),
                tuned.chosen + 1,
                tuned.milliseconds.len()
            ),
        }
    };
    let path = crate::device::cuda::perf::tune::run(ordinal, config, args.lora_rank, &args.rows, &mut tell)?;
    eprintln!(
        "{products} products, a faster algorithm than the first suggestion for {faster}: {first:.2} ms -> {best:.2} ms in total\n\
         stored in {}",
        path.display()
    );
    Ok(())
}

fn text(line: &crate::device::cuda::perf::PerfLine) -> String {
    let mut text = format!("{:<34} {:>10.3} ms", line.name, line.milliseconds);
    if line.floor > 0.0 {
        text += &format!("  floor {:>9.3} ms {:>4.0} %", line.floor, 100.0 * line.share_of_floor);
        text += &format!(
            "  {:>6.2} TB/s {:>6.1} TFLOP/s",
            line.bytes / line.milliseconds / 1e9,
            line.flops / line.milliseconds / 1e9
        );
    }
    if let Some(tokens) = line.tokens_per_second {
        text += &format!("  {tokens:>8.0} tokens/s");
    }
    if let Some(gap) = line.host_gap {
        text += &format!("  host gap {gap:.3} ms");
    }
    if !line.note.is_empty() {
        text += &format!("  ({})", line.note);
    }
    text
}
