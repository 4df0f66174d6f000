//! `rft merge`: merge an adapter into its model.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use crate::model::gguf_merge;
use crate::model::gguf_writer::GgufType;
use crate::model::merge::merge;
use crate::model::safetensors::Dtype;
use crate::model::source::ModelSource;
use crate::run::trained::Trained;

/// Merge an adapter into its model
///
/// Writes a Hugging Face folder (weights, configuration, tokenizer) that any program can load without the adapter, or with
/// `--gguf` one file for llama.cpp. A GGUF file of a GGUF model keeps the model's metadata.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  rft merge runs/tiny-null-example-1 --out merged
  rft merge my-adapter --model Qwen/Qwen2.5-0.5B --out merged --dtype bf16
  rft merge runs/tiny-null-example-1 --gguf --out merged.gguf --dtype q8_0")]
pub struct MergeArgs {
    /// Run directory or adapter folder
    #[arg(value_name = "RUN|DIR")]
    adapter: PathBuf,

    /// Folder to write, or file with `--gguf`; it must not exist yet
    #[arg(long, value_name = "DIR|FILE")]
    out: PathBuf,

    /// Write a GGUF file for llama.cpp
    #[arg(long)]
    gguf: bool,

    /// Data type of the written weights; bf16 halves the size, with rounding; f16 and q8_0 only with `--gguf`
    #[arg(long, visible_alias = "type", value_enum, default_value_t = WeightType::F32)]
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
    F16,
    #[value(name = "q8_0")]
    Q8_0,
}

impl WeightType {
    fn in_gguf(self) -> GgufType {
        match self {
            Self::F32 => GgufType::F32,
            Self::Bf16 => GgufType::BF16,
            Self::F16 => GgufType::F16,
            Self::Q8_0 => GgufType::Q8_0,
        }
    }
}

pub fn run(args: MergeArgs) -> Result<()> {
    write(&Trained::find(&args.adapter)?, &args)?;
    println!("{}", args.out.display());
    Ok(())
}

/// Writes the merged model of a run to the folder `out` in bf16.
pub fn into_folder(trained: &Trained, out: &Path, yes: bool) -> Result<()> {
    let args = MergeArgs {
        adapter: trained.folder.clone(),
        out: out.to_owned(),
        gguf: false,
        dtype: WeightType::Bf16,
        model: None,
        revision: None,
        yes,
    };
    write(trained, &args)
}

fn write(trained: &Trained, args: &MergeArgs) -> Result<()> {
    let (own_model, own_revision) = trained.base_model()?;
    let model = args.model.clone().or(own_model).context("the adapter does not name its model\nhint: pass --model")?;
    let revision = args.revision.clone().or(own_revision).unwrap_or_else(|| "main".to_owned());
    let folder_type = match args.dtype {
        _ if args.gguf => None,
        WeightType::F32 => Some(Dtype::F32),
        WeightType::Bf16 => Some(Dtype::BF16),
        WeightType::F16 | WeightType::Q8_0 => {
            bail!("a folder can have the data types f32 and bf16\nhint: add --gguf for a GGUF file")
        }
    };

    super::download::confirm_model(&model, &revision, args.yes)?;
    let source = ModelSource::open(&model, &revision)?;
    if let Some(warning) = trained.base_warning(&source) {
        eprintln!("warning: {warning}");
    }
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template("merging {wide_bar} {pos}/{len} tensors")?);
    let mut progress = |done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    };
    let merged = match folder_type {
        Some(dtype) => merge(&source, &trained.folder, &args.out, dtype, &mut progress)?,
        None => {
            let name = format!("{} with {}", source.name.trim_end_matches(".gguf"), trained.name);
            gguf_merge::merge(&source, &trained.folder, &args.out, &name, args.dtype.in_gguf(), &mut progress)?
        }
    };
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
