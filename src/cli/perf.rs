//! `rft perf`: how fast a GPU decodes and trains, against what it can do at best.

use crate::device::Device;
use anyhow::{Result, bail};
use clap::ValueEnum;

/// Measure a GPU: operations, decoding, training, a whole step
///
/// Measures the device's copy bandwidth and a large product first. They give the floor of everything else: the time that
/// its bytes or its operations take at best. Weights are random and made on the device in the true shape, so no checkpoint
/// is needed. LoRA has rank 32 on all linear layers.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  rft perf decode
  rft perf decode --rows 64 --rows 128 --model-shape qwen2.5-1.5b
  rft perf train --rows 8192                 # rows of a micro-batch
  rft perf step --output-format json")]
pub struct Args {
    #[arg(value_name = "WHAT")]
    what: What,

    /// Device: `cuda` or `cuda:NUMBER`
    #[arg(long, value_name = "DEVICE", default_value = "cuda")]
    device: String,

    /// Shape of the model: qwen2.5-0.5b, -1.5b, -3b, -7b or -14b
    #[arg(long, value_name = "NAME", default_value = "qwen2.5-7b")]
    model_shape: String,

    /// Rows: of a batch (decode, step), or of a micro-batch (ops, train)
    /// [default: 8, 64, 256 | 256 | 16384 | 16384]
    #[arg(long, value_name = "N", verbatim_doc_comment)]
    rows: Vec<usize>,

    /// Form of the output
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output_format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// Every operation by itself
    Ops,
    /// Decoding at a context of 1,024
    Decode,
    /// Forward and backward at lengths of 1,024 and 4,096
    Train,
    /// A step of GRPO: 320 rollouts of forced lengths, and the update
    Step,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Json,
}

pub fn run(args: &Args) -> Result<()> {
    if args.rows.contains(&0) {
        bail!("`--rows` is 0\nhint: it is at least 1");
    }
    match Device::choose(&args.device)? {
        Device::Cpu => bail!("the floors are those of a GPU\nhint: `cargo bench` measures the CPU"),
        Device::Cuda(ordinal) => on_gpu(ordinal, args),
    }
}

fn on_gpu(ordinal: usize, args: &Args) -> Result<()> {
    use crate::device::cuda::perf;
    let Some(config) = crate::model::config::known_shape(&args.model_shape) else {
        bail!("`{}` is no shape that is known\nhint: qwen2.5-0.5b, -1.5b, -3b, -7b or -14b", args.model_shape);
    };
    let what = match args.what {
        What::Ops => perf::What::Ops,
        What::Decode => perf::What::Decode,
        What::Train => perf::What::Train,
        What::Step => perf::What::Step,
    };
    // Each line as it is measured: a run that is cut short has not been for nothing.
    let mut tell = |line: &perf::Line| {
        if matches!(args.output_format, Format::Text) {
            println!("{}", text(line));
        }
    };
    let report = perf::run(ordinal, config, what, &args.rows, &mut tell)?;
    match args.output_format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&report)?),
        Format::Text => println!(
            "{}, {}: copy {:.2} TB/s, bf16 product {:.0} TFLOP/s; weights {:.1} GB, working memory at most {:.1} GB{}",
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

fn text(line: &crate::device::cuda::perf::Line) -> String {
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
