//! `rft eval regrade EVALUATION`

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::table;
use crate::cli::output;
use crate::cli::output_format::OutputFormat;
use crate::eval::folder::EvalFolder;
use crate::eval::grade::Grader;
use crate::eval::run::regrade;

/// Grade an evaluation again, without the model
///
/// Use this after an update of the grader. Samples are unchanged; verdicts and scores are rewritten.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  rft eval regrade evals/tiny-none-study-1a2b3c4d")]
pub struct RegradeArgs {
    /// Folder of the evaluation
    evaluation: PathBuf,

    /// Folder with data files, for the tests of programs
    #[arg(long, value_name = "DIR", env = "RFT_DATA_DIR")]
    data_dir: Option<PathBuf>,

    /// Run programs even if the sandbox does not work (see `rft doctor`)
    #[arg(long)]
    unsafe_local_exec: bool,

    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output_format: OutputFormat,
}

pub fn run(args: &RegradeArgs) -> Result<()> {
    let folder = EvalFolder::open(&args.evaluation)?;
    let mut all = Vec::new();
    for (name, bench) in folder.benches()? {
        let again = || format!("grade `{name}` again");
        let extraction = bench.record()?.style.extraction;
        let grader =
            Grader::new(&name, extraction, args.data_dir.as_deref(), args.unsafe_local_exec).with_context(again)?;
        let (scores, changed) = regrade(&bench, &grader).with_context(again)?;
        eprintln!("{name}: {} of {} verdicts changed", changed.changed, changed.samples);
        all.push((scores, None));
    }
    match args.output_format {
        OutputFormat::Json => {
            let scores: Vec<_> = all.iter().map(|(scores, _)| scores).collect();
            output::json(&scores);
        }
        OutputFormat::Text => println!("{}", table::report(&folder.identity, &all)),
    }
    Ok(())
}
