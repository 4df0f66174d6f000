//! `rft perf`: how fast a GPU decodes and trains, against what it can do at best.

use crate::device::Device;
use crate::device::cuda::blas::Tuned;
use crate::model::config::{ModelConfig, known_shape};
use crate::model::embedded;
use crate::model::source::Source;
use anyhow::{Result, bail};
use clap::ValueEnum;

/// Measure a GPU: operations, decoding, training, a whole step
///
/// Measures the device's copy bandwidth and a large product first. They give the floor of everything else: the time that
/// its bytes or its operations take at best. Weights are random and made on the device in the true shape, so no checkpoint
/// is needed. LoRA is on all linear layers.
///
/// `tune` measures which of cuBLASLt's algorithms multiplies the matrices of a model fastest and stores the choices in the
/// user's cache folder, by GPU and version of the library. Runs that start later use them, and keep a copy in their own folder
/// for `--resume`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  rft perf decode
  rft perf decode --rows 64 --rows 128 --model-shape qwen2.5-1.5b
  rft perf train --rows 8192                 # rows of a micro-batch
  rft perf step --output-format json
  rft perf tune --model-shape qwen2.5-7b --lora-rank 32")]
pub struct Args {
    #[arg(value_name = "WHAT")]
    what: What,

    /// Device: `cuda` or `cuda:NUMBER`
    #[arg(long, value_name = "DEVICE", default_value = "cuda")]
    device: String,

    /// Shape of the model: qwen2.5-0.5b, -1.5b, -3b, -7b or -14b, or `tiny`, the embedded model's
    #[arg(long, value_name = "NAME", default_value = "qwen2.5-7b")]
    model_shape: String,

    /// Rank of LoRA
    #[arg(long, value_name = "R", default_value_t = 32)]
    lora_rank: usize,

    /// Rows: of a batch (decode, step), of a micro-batch (ops, train), or of both (tune)
    /// [default: 8, 64, 256 | 256 | 16384 | 16384 | all sizes up to 16384]
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
    /// The algorithms of every product, of which the fastest is stored for later runs
    Tune,
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
    let config = match known_shape(&args.model_shape) {
        Some(config) => config,
        None if args.model_shape == embedded::NAME => Source::open_embedded()?.config,
        None => {
            bail!("`{}` is not a known shape\nhint: `tiny`, qwen2.5-0.5b, -1.5b, -3b, -7b or -14b", args.model_shape)
        }
    };
    let what = match args.what {
        What::Ops => perf::What::Ops,
        What::Decode => perf::What::Decode,
        What::Train => perf::What::Train,
        What::Step => perf::What::Step,
        What::Tune => return tune(ordinal, config, args),
    };
    // Each line as it is measured: a run that is cut short has not been for nothing.
    let mut tell = |line: &perf::Line| {
        if matches!(args.output_format, Format::Text) {
            println!("{}", text(line));
        }
    };
    let report = perf::run(ordinal, config, args.lora_rank, what, &args.rows, &mut tell)?;
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

/// Prints a line for each product, as it is measured, and the sum.
fn tune(ordinal: usize, config: ModelConfig, args: &Args) -> Result<()> {
    let (mut products, mut faster, mut first, mut best) = (0, 0, 0.0, 0.0);
    let mut tell = |tuned: &Tuned| {
        let (before, after) = (tuned.milliseconds[0], tuned.milliseconds[tuned.chosen]);
        products += 1;
        faster += usize::from(tuned.chosen > 0);
        first += f64::from(before);
        best += f64::from(after);
        match args.output_format {
            Format::Json => println!(
                "{}",
                serde_json::json!({
                    "product": tuned.shape.to_string(),
                    "milliseconds": tuned.milliseconds,
                    "chosen": tuned.chosen,
                })
            ),
            Format::Text => println!(
                "{:<56} {before:>9.4} ms -> {after:>9.4} ms  suggestion {} of {}",
                tuned.shape.to_string(),
                tuned.chosen + 1,
                tuned.milliseconds.len()
            ),
        }
    };
    let path = crate::device::cuda::perf::tune::run(ordinal, config, args.lora_rank, &args.rows, &mut tell)?;
    eprintln!(
        "{products} products, another algorithm than the first suggestion for {faster}: {first:.2} ms -> {best:.2} ms in all\n\
         stored in {}",
        path.display()
    );
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
