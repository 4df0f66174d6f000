//! `rft report`: what a study's numbers allow to say, as a page, Markdown, CSV and JSON.

use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::output_format::OutputFormat;
use crate::report::load::{self, Material};
use crate::report::paper::Published;
use crate::report::sections;

/// Where evaluations are looked for that were not named.
const EVALS: &str = "evals";

/// Tell what runs show, and what they do not
///
/// Writes one page that needs no network (index.html), and the same as report.md, tables.csv and report.json: training curves,
/// accuracies with intervals, the arms against each other and against the untrained model, every training prompt under every
/// test prompt, lengths, behaviours, which questions are solved, completions, and how to repeat it all.
///
/// Runs of the same prior prompt are one arm, and their seeds are what a verdict rests on. Evaluations made by `rft eval
/// --adapter RUN`, and of the untrained model by `rft eval --ppe PROMPT`, are found in `evals`, or can be named. What is not
/// complete is left out, and the report says so.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  rft report runs/tiny-none-1 runs/tiny-reasoning-1 --out report
  rft report sweeps/ppe-study-tiny
  rft report --published paper")]
pub struct Args {
    /// Run directories and evaluations, or the folder of one sweep
    #[arg(required_unless_present = "published", value_name = "RUN|EVALUATION|SWEEP")]
    inputs: Vec<PathBuf>,

    /// Folder to write to [default: `report` in the sweep's folder, else ./report]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Also tell what published figures show by themselves: `paper` for those of the prior-prompt paper, or a TOML file like
    /// src/report/paper.toml; the paper's figures stand beside a study's own wherever model, benchmarks and wording match
    #[arg(long, value_name = "paper|FILE")]
    published: Option<String>,

    /// Form of what is printed: the summary and the warnings
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output_format: OutputFormat,
}

pub fn run(args: &Args) -> Result<()> {
    let published = args.published.as_deref().map(published).transpose()?;
    let material = match args.inputs.as_slice() {
        [] => Material::default(),
        inputs => load::load(inputs, Path::new(EVALS))?,
    };
    let report = sections::report(&material, published.as_ref());
    let out = args.out.clone().unwrap_or_else(|| match args.inputs.as_slice() {
        [sweep] if !material.name.is_empty() => sweep.join("report"),
        _ => PathBuf::from("report"),
    });
    report.write(&out)?;
    let mut stdout = stdout().lock();
    if args.output_format == OutputFormat::Json {
        writeln!(stdout, "{:#}", report.data)?;
    } else {
        for line in &report.summary {
            writeln!(stdout, "{line}")?;
        }
        for line in &report.warnings {
            writeln!(stdout, "warning: {line}")?;
        }
    }
    eprintln!("the page is `{}`", out.join("index.html").display());
    Ok(())
}

fn published(name: &str) -> Result<Published> {
    if name == "paper" {
        return Ok(Published::of_the_paper());
    }
    let text = std::fs::read_to_string(name).with_context(|| {
        format!("read the published figures `{name}`\nhint: `paper`, or a TOML file with benchmarks and tables")
    })?;
    let published: Published = toml::from_str(&text).with_context(|| format!("parse `{name}`"))?;
    let rows = published.tables.iter().flat_map(|table| &table.rows);
    for row in rows {
        let (got, wanted) = (row.scores.len(), published.benchmarks.len());
        ensure!(got == wanted, "`{name}`: the row `{}` has {got} scores, and there are {wanted} benchmarks", row.name);
    }
    Ok(published)
}
