//! `rft eval compare A B`

use std::path::PathBuf;

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};

use super::table;
use crate::cli::fitted::fitted;
use crate::cli::output;
use crate::cli::output_format::OutputFormat;
use crate::eval::compare::{EvalComparison, compare};
use crate::eval::folder::EvalFolder;

/// Compare two evaluations, question by question
///
/// Both evaluations must have the same questions. Prints the difference with its 95 % interval, a p-value, and the smallest
/// difference that this number of questions would detect in four of five studies: a smaller difference is inconclusive.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Example:\n  rft eval compare evals/tiny-none-study-1a2b3c4d evals/tiny-null-example-study-5e6f7a8b"
)]
pub struct EvalCompareArgs {
    /// Folder of the first evaluation, A
    first: PathBuf,
    /// Folder of the second evaluation, B
    second: PathBuf,
    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output_format: OutputFormat,
}

pub fn run(args: &EvalCompareArgs) -> Result<()> {
    let (first, second) = (EvalFolder::open(&args.first)?, EvalFolder::open(&args.second)?);
    let comparisons = compare(&first, &second)?;
    if args.output_format == OutputFormat::Json {
        output::json(&comparisons);
        return Ok(());
    }
    println!(
        "A  {}\nB  {}\n{}",
        table::title(&first.identity),
        table::title(&second.identity),
        fitted(rows(&comparisons))
    );
    for it in &comparisons {
        println!("{}: {}", it.benchmark, it.method);
        for note in &it.notes {
            println!("{}: {note}", it.benchmark);
        }
    }
    Ok(())
}

/// One row per benchmark.
pub fn rows(comparisons: &[EvalComparison]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["benchmark", "questions", "A", "B", "B - A, 95 % interval", "p", "detectable"]);
    let points = |share: f64| format!("{:+.1}", 100.0 * share);
    for it in comparisons {
        table.add_row([
            it.benchmark.clone(),
            it.questions.to_string(),
            format!("{:.1} %", 100.0 * it.first),
            format!("{:.1} %", 100.0 * it.second),
            format!("{} [{}, {}]", points(it.difference), points(it.interval.low), points(it.interval.high)),
            if it.p_value < 0.001 { "< 0.001".to_owned() } else { format!("{:.3}", it.p_value) },
            it.detectable.map_or_else(|| "-".to_owned(), |it| format!("{:.1} points", 100.0 * it)),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
