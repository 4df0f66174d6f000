//! `rft export`: write an adapter in the format of another program.

use std::path::PathBuf;

use anyhow::{Context, Result};
use indicatif::HumanBytes;

use crate::model::gguf_adapter::export;
use crate::model::gguf_writer::GgufType;
use crate::model::source::ModelSource;
use crate::run::trained::Trained;

/// Write an adapter for llama.cpp
///
/// Writes the adapter as a GGUF file, which llama.cpp and programs that are based on it apply to a GGUF file of the same model
/// (`llama-server -m model.gguf --lora adapter.gguf`). Of the model, only the configuration and the tokenizer are read.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  rft export runs/tiny-null-example-1 --gguf
  rft export my-adapter --gguf --model Qwen/Qwen2.5-0.5B --out my-adapter.gguf --dtype f16")]
pub struct ExportArgs {
    /// Run directory or adapter folder
    #[arg(value_name = "RUN|DIR")]
    adapter: PathBuf,

    /// Write a GGUF file, the only format that there is
    #[arg(long, required = true)]
    gguf: bool,

    /// File to write, which must not exist yet [default: adapter.gguf in the run directory or the folder]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Data type of the written values; f16 and bf16 halve the size, with rounding
    #[arg(long, visible_alias = "type", value_enum, default_value_t = AdapterType::F32)]
    dtype: AdapterType,

    /// Model that the adapter was trained on [default: the run's, else the one named in the adapter's configuration]
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,

    /// Branch, tag or commit of a Hub model [default: the run's, else main]
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum AdapterType {
    F32,
    F16,
    Bf16,
}

pub fn run(args: ExportArgs) -> Result<()> {
    let trained = Trained::find(&args.adapter)?;
    let (model, revision) = trained.base_model()?;
    let model = args.model.or(model).context("the adapter does not name its model\nhint: pass --model")?;
    let revision = args.revision.or(revision).unwrap_or_else(|| "main".to_owned());
    let kind = match args.dtype {
        AdapterType::F32 => GgufType::F32,
        AdapterType::F16 => GgufType::F16,
        AdapterType::Bf16 => GgufType::BF16,
    };
    let source = ModelSource::open_texts(&model, &revision)?;
    let out = args.out.unwrap_or_else(|| args.adapter.join("adapter.gguf"));
    let exported = export(&source, &trained.folder, &out, &trained.name, kind)?;
    eprintln!("exported the adapter of {} tensors: {}", exported.adapted, HumanBytes(exported.bytes));
    println!("{}", out.display());
    Ok(())
}
