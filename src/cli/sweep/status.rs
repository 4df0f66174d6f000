//! `rft sweep status`

use std::path::PathBuf;

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};
use serde_json::json;

use crate::cli::fitted::fitted;
use crate::cli::output;
use crate::cli::output_format::OutputFormat;
use crate::sweep::folder::{RunView, SweepFolder, SweepRecord, TaskState, tally};

/// Print the progress of every run and evaluation, or of every trial until the values of [sweep.tune] are chosen
#[derive(clap::Args, Debug)]
pub struct SweepStatusArgs {
    /// Folder of the sweep
    sweep: PathBuf,

    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output_format: OutputFormat,
}

pub fn run(args: &SweepStatusArgs) -> Result<()> {
    let (folder, record) = SweepFolder::open_current(&args.sweep)?;
    let is_tuning = folder.path != args.sweep;
    match args.output_format {
        OutputFormat::Text => {
            if is_tuning {
                println!("phase 1 of 2: trials, by which a value is chosen for each arm");
            }
            println!("{}", table(&folder, &record)?);
            let trials = SweepFolder::of_trials(&args.sweep);
            if !is_tuning && trials.is_dir() {
                println!("phase 2 of 2: the study; `rft sweep status {}` prints the trials", trials.display());
            }
        }
        OutputFormat::Json => {
            let mut status = as_json(&folder, &record)?;
            status["phase"] = json!(if is_tuning { "trials" } else { "study" });
            output::json(&status);
        }
    }
    Ok(())
}

/// One line per run, with the states of its evaluations, and a total.
pub fn table(folder: &SweepFolder, record: &SweepRecord) -> Result<String> {
    let views = record.runs.iter().map(|run| folder.run_view(&run.name)).collect::<Result<Vec<_>>>()?;
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["run", "state", "step", "reward", "time left", "evaluations"]);
    for (run, view) in record.runs.iter().zip(&views) {
        let states: Vec<TaskState> = record
            .evals
            .iter()
            .filter(|it| it.run.as_ref() == Some(&run.name))
            .map(|it| folder.eval_state(it))
            .collect();
        table.add_row([
            run.name.clone(),
            view.state.name().to_owned(),
            steps(view),
            view.reward.map_or_else(|| "-".to_owned(), |reward| format!("{reward:.3}")),
            view.seconds_left(&views).map_or_else(|| "-".to_owned(), crate::run::progress::duration),
            tally(&states),
        ]);
    }
    let base: Vec<TaskState> =
        record.evals.iter().filter(|it| it.run.is_none()).map(|it| folder.eval_state(it)).collect();
    if !base.is_empty() {
        table.add_row(["the untrained model", "", "", "", "", &tally(&base)]);
    }
    for column in 2..5 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let done = views.iter().filter(|it| it.state == TaskState::Done).count();
    let open = views.iter().filter(|it| it.state != TaskState::Done);
    let left: Option<f64> = open.map(|view| view.seconds_left(&views)).sum();
    let left = match left {
        Some(left) if left > 0.0 => {
            format!("; {} of training left for a single process", crate::run::progress::duration(left))
        }
        _ => String::new(),
    };
    Ok(format!("{}\n{done} of {} runs done{left}", fitted(table), views.len()))
}

fn steps(view: &RunView) -> String {
    view.steps.map_or_else(|| view.step.to_string(), |steps| format!("{} of {steps}", view.step))
}

fn as_json(folder: &SweepFolder, record: &SweepRecord) -> Result<serde_json::Value> {
    let views = record.runs.iter().map(|run| folder.run_view(&run.name)).collect::<Result<Vec<_>>>()?;
    let runs = record.runs.iter().zip(&views).map(|(run, view)| {
        json!({
            "name": run.name,
            "state": view.state.name(),
            "step": view.step,
            "steps": view.steps,
            "reward": view.reward,
            "seconds_left": view.seconds_left(&views),
        })
    });
    let evals = record.evals.iter().map(|eval| json!({ "name": eval.name, "state": folder.eval_state(eval).name() }));
    Ok(json!({ "name": record.name, "runs": runs.collect::<Vec<_>>(), "evals": evals.collect::<Vec<_>>() }))
}
