//! `rft overlap DATA`: which questions of benchmarks stand in a data set.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};

use super::output_format::OutputFormat;
use crate::config::{self, Layers};
use crate::data::decontaminate::Contamination;
use crate::data::load;
use crate::eval::bench;
use crate::model::hub;

/// Tell which questions of benchmarks stand in training data
///
/// Compares every question of the data with every question of the benchmarks that are on this machine; nothing is downloaded for
/// the comparison. A question of a benchmark overlaps where one training question holds at least 70 % of its 8-grams of words.
/// `rft train` makes the same comparison of what it trains on and writes `contamination.json`; with
/// `--set data.decontaminate=true` it leaves the overlapping questions out.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  rft overlap train.jsonl --data-dir data
  rft overlap openai/gsm8k --bench gsm8k,math500 --output-format json")]
pub struct Args {
    /// Questions: a JSONL, JSON, CSV or Parquet file, a hub data set id, or `arithmetic` (generated)
    data: String,

    /// Benchmarks, separated by commas [default: all]; `rft eval list` shows them
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    bench: Vec<String>,

    /// Folder with the files of benchmarks
    #[arg(long, value_name = "DIR", env = "RFT_DATA_DIR")]
    data_dir: Option<PathBuf>,

    /// Column of the questions, where it cannot be told from the data
    #[arg(long, value_name = "COLUMN")]
    question_column: Option<String>,

    /// Column of the gold answers
    #[arg(long, value_name = "COLUMN")]
    answer_column: Option<String>,

    /// Form of the output
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output_format: OutputFormat,
}

pub fn run(args: &Args) -> Result<()> {
    let mut layers = Layers::default();
    layers.flag("data.path", Some(args.data.clone()), "DATA");
    layers.flag("data.question_column", args.question_column.clone(), "--question-column");
    layers.flag("data.answer_column", args.answer_column.clone(), "--answer-column");
    let config = config::resolve(&layers)?.config;
    let loaded =
        load(&config.data, config.train.seed, 0, &|id, revision, split| hub::dataset_files(id, revision, split))?;

    let named = args.bench.iter().map(|name| bench::find(name)).collect::<Result<Vec<_>>>()?;
    let all = if named.is_empty() { bench::all() } else { named };
    let (wanted, mut not_checked) = bench::comparable(all, &args.data);
    let at_hand = bench::at_hand(&wanted, args.data_dir.as_deref());
    not_checked.extend(at_hand.missing);
    let found = Contamination { not_checked, ..Contamination::of(&loaded.questions, &at_hand.benchmarks, false) };
    for warning in loaded.warnings.iter().chain(&at_hand.warnings) {
        eprintln!("warning: {warning}");
    }
    match args.output_format {
        OutputFormat::Json => println!("{}", serde_json::to_string_pretty(&found)?),
        OutputFormat::Text => {
            println!("{}: {} questions, compared by {}-grams of words", args.data, found.rows, found.n);
            println!("{}", table(&found));
            let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            for (name, reason) in &found.not_checked {
                by_reason.entry(reason).or_default().push(name);
            }
            for (reason, names) in by_reason {
                println!("not checked: {} ({reason})", names.join(", "));
            }
        }
    }
    Ok(())
}

fn table(found: &Contamination) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["benchmark", "questions", "overlapping", "with training questions"]);
    for (name, overlap) in &found.benchmarks {
        let counts = [overlap.questions, overlap.overlapping.len(), overlap.rows.len()];
        table.add_row([vec![name.clone()], counts.map(|n| n.to_string()).to_vec()].concat());
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
