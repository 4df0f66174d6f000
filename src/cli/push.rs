//! `rft push`: upload a run's adapter, or the merged model, with a model card to the Hub.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::merge;
use crate::disk::{atomic, files};
use crate::model::hub::{self, HubConfig, UploadFile, is_hub_id};
use crate::report::card::{self, Weights};
use crate::report::load;
use crate::run::trained::Trained;

/// Default folder of evaluations.
const EVALS: &str = "evals";
/// The folder in the run directory with the files of an upload.
const STAGED: &str = "hub";

/// Upload a run with a model card to the Hugging Face Hub
///
/// Uploads the adapter (or, with --merged, the whole model), the run's configuration, prior prompt and manifest, its training
/// curves, and a model card with the results of its evaluations, in one commit. Evaluations of the run in `evals` are found
/// automatically.
///
/// The token is read from HF_TOKEN. Nothing else is uploaded: neither completions nor questions.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  rft push runs/qwen2.5-7b-planning-1 my-org/qwen2.5-7b-planning --private
  rft push runs/tiny-null-example-1 my-org/tiny --dry-run card")]
pub struct PushArgs {
    /// Run directory of a finished run
    #[arg(value_name = "RUN")]
    run: PathBuf,

    /// The repository, which is created if it does not exist
    #[arg(value_name = "ORG/NAME")]
    repository: String,

    /// Create the repository as a private one
    #[arg(long)]
    private: bool,

    /// Upload the merged model in bf16 instead of the adapter
    #[arg(long)]
    merged: bool,

    /// Folder with evaluations of the run
    #[arg(long, value_name = "DIR", default_value = EVALS)]
    evals: PathBuf,

    /// Message of the commit
    #[arg(long, value_name = "TEXT", default_value = "Upload with rft")]
    message: String,

    /// Write the files to this folder, which must not exist yet, and upload nothing
    #[arg(long, value_name = "DIR")]
    dry_run: Option<PathBuf>,

    /// Download the base model without asking, for --merged
    #[arg(short, long)]
    yes: bool,
}

pub fn run(args: &PushArgs) -> Result<()> {
    let id = &args.repository;
    ensure!(is_hub_id(id), "`{id}` is not a hub id\nhint: hub ids have the form org/name");
    let folder = match &args.dry_run {
        Some(folder) => {
            ensure!(!folder.exists(), "`{}` exists already\nhint: choose another folder", folder.display());
            folder.clone()
        }
        None => args.run.join(STAGED),
    };
    // Remains of an upload that failed.
    if folder.exists() {
        files::remove_dir_all(&folder).with_context(|| format!("delete `{}`", folder.display()))?;
    }
    files::create_dir_all(&folder).map_err(|error| atomic::write_error(&folder, &error))?;
    let trained = Trained::find(&args.run)?;
    let weights = if args.merged { Weights::Merged } else { Weights::Adapter };
    let material = load::load(std::slice::from_ref(&args.run), &args.evals)?;
    card::write(&material, &args.run, id, weights, &folder)?;
    match weights {
        Weights::Adapter => copy(&trained.folder, &folder)?,
        Weights::Merged => {
            let merged = folder.join("merged");
            merge::into_folder(&trained, &merged, args.yes)?;
            move_up(&merged, &folder)?;
        }
    }
    if args.dry_run.is_some() {
        println!("{}", folder.display());
        return Ok(());
    }
    let list = list(&folder)?;
    let mut told = |path: &str| eprintln!("uploading {path}");
    let pushed = hub::push(&HubConfig::from_env()?, id, args.private, &list, &args.message, &mut told)?;
    files::remove_dir_all(&folder)?;
    eprintln!("uploaded {} files in commit {}", list.len(), pushed.commit);
    println!("{}", pushed.url);
    Ok(())
}

/// Copies the files of an adapter folder.
fn copy(from: &Path, to: &Path) -> Result<()> {
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        let source = from.join(name);
        let bytes = std::fs::read(&source).with_context(|| format!("read `{}`", source.display()))?;
        atomic::write(&to.join(name), &bytes)?;
    }
    Ok(())
}

/// Moves the files of `from` into `to`, and deletes `from`.
fn move_up(from: &Path, to: &Path) -> Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        files::rename(&entry.path(), &to.join(entry.file_name()))?;
    }
    files::remove_dir_all(from)?;
    Ok(())
}

/// All files of a folder, in the order of their names.
fn list(folder: &Path) -> Result<Vec<UploadFile>> {
    fn walk(folder: &Path, prefix: &str, into: &mut Vec<UploadFile>) -> Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            match entry.file_type()?.is_dir() {
                true => walk(&entry.path(), &format!("{name}/"), into)?,
                false => into.push(UploadFile { path: name, source: entry.path() }),
            }
        }
        Ok(())
    }
    let mut list = Vec::new();
    walk(folder, "", &mut list)?;
    list.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(list)
}
