//! `rft runs`: the runs in a folder and their progress.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::output_format::OutputFormat;
use crate::cli::output;
use crate::run::RunDir;
use crate::run::status::RunStatus;

/// List runs and their progress
///
/// The state of a run is `running` while a process trains it, `done` after its last step, `interrupted` if `rft train
/// --resume` can continue it from a checkpoint, and `failed` if it stopped before its first checkpoint.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  rft runs
  rft runs sweeps/ppe-study-tiny/runs --output-format json")]
pub struct RunsArgs {
    /// Folder with run directories
    #[arg(value_name = "DIR", default_value = "runs")]
    folder: PathBuf,

    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output_format: OutputFormat,
}

pub fn run(args: &RunsArgs) -> Result<()> {
    let runs = read(&args.folder)?;
    match args.output_format {
        OutputFormat::Json => output::json(&runs),
        OutputFormat::Text => println!("{}", table(&runs)),
    }
    Ok(())
}

/// The runs in `folder`, oldest first.
fn read(folder: &Path) -> Result<Vec<RunStatus>> {
    let hint = "`rft train` writes its runs to `runs`; to list another folder, pass it as an argument";
    let entries =
        fs::read_dir(folder).with_context(|| format!("read the runs in `{}`\nhint: {hint}", folder.display()))?;
    let mut runs = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("read the runs in `{}`", folder.display()))?.path();
        if !path.join("manifest.json").is_file() {
            continue;
        }
        match RunDir::open(&path).and_then(|run| RunStatus::read(&run)) {
            Ok(status) => runs.push(status),
            // One damaged run must not hide the others.
            Err(error) => eprintln!("warning: skipping `{}`: {error:#}", path.display()),
        }
    }
    if runs.is_empty() {
        bail!("no runs in `{}`\nhint: {hint}", folder.display());
    }
    runs.sort_by(|a, b| a.started.cmp(&b.started).then_with(|| a.name.cmp(&b.name)));
    Ok(runs)
}

fn table(runs: &[RunStatus]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["run", "state", "steps", "reward", "prior prompt", "model", "seed", "started (UTC)"]);
    for run in runs {
        let started = run.started.as_deref().unwrap_or("-");
        table.add_row([
            run.name.clone(),
            run.state.name().to_owned(),
            format!("{} of {}", run.step, run.steps),
            run.reward.map_or_else(|| "-".to_owned(), |reward| format!("{reward:.3}")),
            run.prompt.clone(),
            run.model.clone(),
            run.seed.to_string(),
            started.trim_end_matches('Z').replace('T', " "),
        ]);
    }
    for column in [2, 3, 6] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
