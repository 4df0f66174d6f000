//! `rft report`: a report of runs, as a page, Markdown, CSV and JSON.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::output_format::OutputFormat;
use crate::cli::output;
use crate::report::load::{self, Material};
use crate::report::paper::Published;
use crate::report::sections;

/// Default folder of evaluations.
const EVALS: &str = "evals";

/// Write a report of runs, with statistics
///
/// Writes a self-contained page (index.html), and its contents as report.md, tables.csv and report.json: training curves,
/// accuracies with intervals, comparisons of the arms with each other and with the untrained model, every training prompt
/// under every test prompt, lengths, behaviors, solved questions, completions, and how to repeat the study.
///
/// Runs that differ only in their seed form an arm, and verdicts are based on the variation between the seeds. Evaluations in
/// `evals` are found automatically: those made with `rft eval --adapter RUN`, and with `rft eval --ppe PROMPT` for the
/// untrained model. You can also pass their folders. Incomplete runs are left out, and the report lists them.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  rft report runs/tiny-none-1 runs/tiny-reasoning-1 --out report
  rft report sweeps/ppe-study-tiny
  rft report --published paper")]
pub struct ReportArgs {
    /// Run directories and evaluations, or the folder of a sweep
    #[arg(required_unless_present = "published", value_name = "RUN|EVALUATION|SWEEP")]
    inputs: Vec<PathBuf>,

    /// Folder to write to [default: `report` in the folder of the run or sweep; ./report for several]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Replace a report of other runs or evaluations
    #[arg(long)]
    force: bool,

    /// Also check published figures by themselves: `paper` for those of the prior prompt paper, or a TOML file like
    /// src/report/paper.toml. The paper's figures appear next to a study's if model, benchmarks and wording match
    #[arg(long, value_name = "paper|FILE")]
    published: Option<String>,

    /// Compare the arms with this one; can be repeated [default: all pairs of up to 6 arms; otherwise `none` and `reasoning`]
    #[arg(long, value_name = "ARM")]
    baseline: Vec<String>,

    /// Output format of the summary and the warnings
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output_format: OutputFormat,
}

pub fn run(args: &ReportArgs) -> Result<()> {
    let published = args.published.as_deref().map(published).transpose()?;
    let material = match args.inputs.as_slice() {
        [] => Material::default(),
        inputs => load::load(inputs, Path::new(EVALS))?,
    };
    check_baselines(&args.baseline, &material)?;
    let report = sections::report(&material, published.as_ref(), &args.baseline);
    let empty = material.runs.is_empty() && material.evaluations.is_empty() && published.is_none();
    ensure!(!empty, "nothing to report: {}", material.left_out.join(" ").trim_end_matches('.'));
    let out = args.out.clone().unwrap_or_else(|| match args.inputs.as_slice() {
        [one] if !one.join("eval.json").is_file() => one.join("report"),
        _ => PathBuf::from("report"),
    });
    ensure!(
        args.force || !report.replaces_another(&out)?,
        "`{}` has a report of other runs or evaluations\nhint: choose another folder with --out, or replace it with --force",
        out.display()
    );
    report.write(&out)?;
    if args.output_format == OutputFormat::Json {
        output::json(&report.data);
    } else {
        for line in &report.summary {
            println!("{line}");
        }
        for line in &report.warnings {
            println!("warning: {line}");
        }
    }
    eprintln!("wrote `{}`", out.join("index.html").display());
    Ok(())
}

fn check_baselines(baselines: &[String], material: &Material) -> Result<()> {
    let arms: BTreeSet<&str> = material.runs.iter().map(|run| run.arm.as_str()).collect();
    for name in baselines {
        let known: Vec<String> = arms.iter().map(|arm| format!("`{arm}`")).collect();
        ensure!(
            arms.contains(name.as_str()),
            "--baseline: unknown arm `{name}`\nhint: use one of {}",
            known.join(", ")
        );
    }
    Ok(())
}

fn published(name: &str) -> Result<Published> {
    if name == "paper" {
        return Ok(Published::of_the_paper());
    }
    let text = std::fs::read_to_string(name).with_context(|| {
        format!("read the published figures `{name}`\nhint: use `paper`, or a TOML file with benchmarks and tables")
    })?;
    let published: Published = toml::from_str(&text).with_context(|| format!("parse `{name}`"))?;
    let rows = published.tables.iter().flat_map(|table| &table.rows);
    for row in rows {
        let (got, wanted) = (row.scores.len(), published.benchmarks.len());
        ensure!(
            got == wanted,
            "`{name}`: row `{}`: expected {wanted} scores, one per benchmark, found {got}",
            row.name
        );
    }
    Ok(published)
}
