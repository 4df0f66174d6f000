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

/// The form of a merged model.
enum Form {
    Folder(Dtype),
    Gguf(GgufType),
}

pub fn run(args: MergeArgs) -> Result<()> {
    let form = match args.dtype {
        dtype if args.gguf => Form::Gguf(dtype.in_gguf()),
        WeightType::F32 => Form::Folder(Dtype::F32),
        WeightType::Bf16 => Form::Folder(Dtype::BF16),
        WeightType::F16 | WeightType::Q8_0 => {
            bail!("a folder can have the data types f32 and bf16\nhint: add --gguf for a GGUF file")
        }
    };
    let trained = Trained::find(&args.adapter)?;
    write(&trained, args.model.as_deref(), args.revision.as_deref(), &args.out, form, args.yes)?;
    println!("{}", args.out.display());
    Ok(())
}

/// Writes the merged model of a run to the folder `out` in bf16.
pub fn into_folder(trained: &Trained, out: &Path, yes: bool) -> Result<()> {
    write(trained, None, None, out, Form::Folder(Dtype::BF16), yes)
}

fn write(
    trained: &Trained,
    model: Option<&str>,
    revision: Option<&str>,
    out: &Path,
    form: Form,
    yes: bool,
) -> Result<()> {
    let (own_model, own_revision) = trained.base_model()?;
    let model = model.map(str::to_owned).or(own_model);
    let model = model.context("the adapter does not name its model\nhint: pass --model")?;
    let revision = revision.map(str::to_owned).or(own_revision).unwrap_or_else(|| "main".to_owned());

    super::download::confirm_model(&model, &revision, yes)?;
    let source = ModelSource::open(&model, &revision)?;
    if let Some(warning) = trained.base_warning(&source) {
        eprintln!("warning: {warning}");
    }
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template("merging {wide_bar} {pos}/{len} tensors")?);
    let mut progress = |done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    };
    let merged = match form {
        Form::Folder(dtype) => merge(&source, &trained.folder, out, dtype, &mut progress)?,
        Form::Gguf(kind) => {
            let name = format!("{} with {}", source.name.trim_end_matches(".gguf"), trained.name);
            gguf_merge::merge(&source, &trained.folder, out, &name, kind, &mut progress)?
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
