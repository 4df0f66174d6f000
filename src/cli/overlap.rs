//! `rft overlap DATA`: find benchmark questions that overlap with a data set.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};

use super::output_format::OutputFormat;
use crate::cli::output;
use crate::config::{self, ConfigLayers};
use crate::data::decontaminate::Contamination;
use crate::data::load;
use crate::eval::bench;
use crate::model::hub;

/// Find benchmark questions that overlap with training data
///
/// Compares every question of the data with every question of the benchmarks on this machine; no benchmark is downloaded.
/// A benchmark question overlaps if a single training question contains at least 70 % of its 8-grams of words.
/// `rft train` makes the same comparison for its training questions and writes `contamination.json`; with
/// `--set data.decontaminate=true` it leaves out the overlapping questions.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  rft overlap train.jsonl --data-dir data
  rft overlap openai/gsm8k --bench gsm8k,math500 --output-format json")]
pub struct OverlapArgs {
    /// Questions: a JSONL, JSON, CSV or Parquet file, a Hub data set id, or `arithmetic` (generated)
    data: String,

    /// Comma-separated benchmark names [default: all]; `rft eval list` prints them
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    bench: Vec<String>,

    /// Folder with benchmark files
    #[arg(long, value_name = "DIR", env = "RFT_DATA_DIR")]
    data_dir: Option<PathBuf>,

    /// Split of a Hub data set [default: train]
    #[arg(long, value_name = "NAME")]
    split: Option<String>,

    /// Column with the questions, if it cannot be detected
    #[arg(long, value_name = "COLUMN")]
    question_column: Option<String>,

    /// Column with the gold answers, if it cannot be detected
    #[arg(long, value_name = "COLUMN")]
    answer_column: Option<String>,

    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output_format: OutputFormat,
}

pub fn run(args: &OverlapArgs) -> Result<()> {
    let mut layers = ConfigLayers::default();
    layers.flag("data.path", Some(args.data.clone()), "DATA");
    layers.flag("data.split", args.split.clone(), "--split");
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
        OutputFormat::Json => output::json(&found),
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
