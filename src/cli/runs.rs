//! `rft runs`: the runs in a folder and their progress.

use std::path::{Path, PathBuf};

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};

use super::fitted::fitted;
use super::output_format::OutputFormat;
use crate::cli::output;
use crate::run::RunDir;
use crate::run::status::{self, RunStatus};

/// List runs and their progress
///
/// The state of a run is `running` while a process trains it, `done` after its last step and evaluation, and `interrupted` if
/// `rft train --resume` can continue it.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  rft runs
  rft runs runs/tiny-null-example-1
  rft runs sweeps/ppe-study-tiny/runs --output-format json")]
pub struct RunsArgs {
    /// Folders with run directories, or run directories
    #[arg(value_name = "DIR", default_value = "runs")]
    folders: Vec<PathBuf>,

    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output_format: OutputFormat,
}

pub fn run(args: &RunsArgs) -> Result<()> {
    let runs = read(&args.folders)?;
    match args.output_format {
        OutputFormat::Json => output::json(&runs),
        OutputFormat::Text => println!("{}", fitted(table(&runs))),
    }
    if runs.is_empty() {
        eprintln!("no runs yet; `rft train` writes them to `runs`");
    }
    Ok(())
}

/// The runs in `folders`, oldest first.
fn read(folders: &[PathBuf]) -> Result<Vec<RunStatus>> {
    let mut runs = Vec::new();
    for path in folders.iter().map(|folder| run_directories(folder)).collect::<Result<Vec<_>>>()?.concat() {
        match RunDir::open(&path).and_then(|run| RunStatus::read(&run)) {
            Ok(status) => runs.push(status),
            // One damaged run must not hide the others.
            Err(error) => eprintln!("warning: skipping `{}`: {error:#}", path.display()),
        }
    }
    runs.sort_by(|a, b| a.started.cmp(&b.started).then_with(|| a.name.cmp(&b.name)));
    Ok(runs)
}

/// `folder` itself if it is a run, else the runs in it.
fn run_directories(folder: &Path) -> Result<Vec<PathBuf>> {
    if status::is_run(folder) { Ok(vec![folder.to_owned()]) } else { status::runs_in(folder) }
}

fn table(runs: &[RunStatus]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
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
