//! `rft merge`: merge an adapter into its model.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use crate::model::merge::merge;
use crate::model::safetensors::Dtype;
use crate::model::source::ModelSource;
use crate::run::trained::Trained;

/// Merge an adapter into its model
///
/// Writes a Hugging Face folder (weights, configuration, tokenizer) that any program can load without the adapter.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  rft merge runs/tiny-null-example-1 --out merged
  rft merge my-adapter --model Qwen/Qwen2.5-0.5B --out merged --dtype bf16")]
pub struct MergeArgs {
    /// Run directory or adapter folder
    #[arg(value_name = "RUN|DIR")]
    adapter: PathBuf,

    /// Folder to write, which must not exist yet
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Data type of the written weights; bf16 halves the size, with rounding
    #[arg(long, value_enum, default_value_t = WeightType::F32)]
    dtype: WeightType,

    /// Model that the adapter was trained on [default: the run's, else the one named in the adapter's configuration]
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,

    /// Branch, tag or commit of a Hub model [default: the run's, else main]
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,

    /// Download the model without asking
    #[arg(short, long)]
    yes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum WeightType {
    F32,
    Bf16,
}

pub fn run(args: MergeArgs) -> Result<()> {
    let trained = Trained::find(&args.adapter)?;
    let (model, revision) = (args.model.as_deref(), args.revision.as_deref());
    write(&trained, model, revision, &args.out, args.dtype, args.yes)?;
    println!("{}", args.out.display());
    Ok(())
}

/// Writes the merged model of a run to `out` in bf16.
pub fn into_folder(trained: &Trained, out: &Path, yes: bool) -> Result<()> {
    write(trained, None, None, out, WeightType::Bf16, yes)
}

fn write(
    trained: &Trained,
    model: Option<&str>,
    revision: Option<&str>,
    out: &Path,
    dtype: WeightType,
    yes: bool,
) -> Result<()> {
    let (own_model, own_revision) = trained.base_model()?;
    let model = model.map(str::to_owned).or(own_model);
    let model = model.context("the adapter does not name its model\nhint: pass --model")?;
    let revision = revision.map(str::to_owned).or(own_revision).unwrap_or_else(|| "main".to_owned());
    let dtype = match dtype {
        WeightType::F32 => Dtype::F32,
        WeightType::Bf16 => Dtype::BF16,
    };

    super::download::confirm_model(&model, &revision, yes)?;
    let source = ModelSource::open(&model, &revision)?;
    if let Some(warning) = trained.base_warning(&source) {
        eprintln!("warning: {warning}");
    }
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template("merging {wide_bar} {pos}/{len} tensors")?);
    let merged = merge(&source, &trained.folder, out, dtype, &mut |done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    eprintln!(
        "merged {} adapted tensors into `{}`: {} tensors, {}",
        merged.adapted,
        source.name,
        merged.tensors,
        HumanBytes(merged.bytes)
    );
    Ok(())
}
