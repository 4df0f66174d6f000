//! `rft compare`: a comparison of two runs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};

use super::eval;
use super::fitted::fitted;
use super::output_format::OutputFormat;
use crate::cli::output;
use crate::report::compare::{PairedEvaluations, compare};

/// Compare two runs: configuration, training, evaluations
///
/// Prints the configuration keys that differ and the mean of each metric over the first and last tenth of the steps. If both
/// runs were evaluated on the same benchmark, under the same prior prompt or each under its own, also prints the difference
/// by question. Evaluations are read from `evals`.
///
/// Two runs cannot show how results vary with the seed: to compare arms with several seeds, use `rft report`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  rft compare runs/tiny-none-1 runs/tiny-reasoning-1
  rft compare runs/a runs/b --evals sweeps/ppe-study-tiny/evals")]
pub struct CompareArgs {
    /// Directory of the first run
    #[arg(value_name = "RUN_A")]
    first: PathBuf,

    /// Directory of the second run
    #[arg(value_name = "RUN_B")]
    second: PathBuf,

    /// Folder with the evaluations of both runs
    #[arg(long, value_name = "DIR", default_value = "evals")]
    evals: PathBuf,

    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output_format: OutputFormat,
}

pub fn run(args: &CompareArgs) -> Result<()> {
    let compared = compare(&args.first, &args.second, &args.evals)?;
    for warning in &compared.warnings {
        eprintln!("warning: {warning}");
    }
    if args.output_format == OutputFormat::Json {
        output::json(&compared);
        return Ok(());
    }
    println!("A  {}\nB  {}", compared.first, compared.second);
    if compared.config.is_empty() {
        println!("\nthe configurations are the same");
    } else {
        println!("\n{}", fitted(config(&compared.config)));
    }
    println!("\n{}", fitted(training(&compared.metrics)));
    for PairedEvaluations { prompts: [a, b], benchmarks } in &compared.evaluations {
        println!("\nA evaluated under `{a}`, B under `{b}`\n{}", fitted(eval::compare::rows(benchmarks)));
        for it in benchmarks {
            for note in &it.notes {
                println!("{}: {note}", it.benchmark);
            }
        }
    }
    if compared.evaluations.is_empty() {
        println!("\n`{}` has no evaluations of both runs; use `rft eval --adapter RUN`", args.evals.display());
    }
    Ok(())
}

fn blank() -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table
}

fn config(differing: &BTreeMap<String, [Option<String>; 2]>) -> Table {
    let mut table = blank();
    table.set_header(["configuration", "A", "B"]);
    let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    for (key, [a, b]) in differing {
        table.add_row([key.clone(), shown(a), shown(b)]);
    }
    table
}

fn training(metrics: &BTreeMap<String, [Option<(f64, f64)>; 2]>) -> Table {
    let mut table = blank();
    table.set_header(["metric, first tenth to last tenth of the steps", "A", "B"]);
    let shown = |ends: &Option<(f64, f64)>| {
        ends.map_or_else(|| "-".to_owned(), |(first, last)| format!("{} → {}", number(first), number(last)))
    };
    for (name, [a, b]) in metrics {
        table.add_row([name.clone(), shown(a), shown(b)]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Formats with four significant digits.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if (1e-3..1e6).contains(&size) => {
            let decimals = (3 - size.log10().floor() as i32).clamp(0, 6) as usize;
            format!("{value:.decimals$}")
        }
        _ => format!("{value:.2e}"),
    }
}
