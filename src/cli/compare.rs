//! `rft compare`: two runs, side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use super::eval::{self, OutputFormat};
use crate::disk::hash::sha256_file;
use crate::eval::compare::Comparison;
use crate::eval::folder::EvalFolder;
use crate::report::load::{dotted, ends};
use crate::run::metrics::{self, MetricsRecord};
use crate::run::{RunDir, status};

/// Compare two runs: configuration, training, evaluations
///
/// Shows the keys in which the configurations differ, the mean of each metric over the first and the last tenth of the steps,
/// and, where both runs were evaluated on the same benchmark under the same prior prompt or each under its own, the difference
/// question by question. The evaluations are looked for in `evals`.
///
/// Two runs are two runs: what another seed would give takes several of each, see `rft report`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  rft compare runs/tiny-none-1 runs/tiny-reasoning-1
  rft compare runs/a runs/b --evals sweeps/ppe-study-tiny/evals")]
pub struct Args {
    /// Directory of the first run
    #[arg(value_name = "RUN_A")]
    first: PathBuf,

    /// Directory of the second run
    #[arg(value_name = "RUN_B")]
    second: PathBuf,

    /// Folder with evaluations of the two
    #[arg(long, value_name = "DIR", default_value = "evals")]
    evals: PathBuf,

    /// Form of the output
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output_format: OutputFormat,
}

/// All that is told of two runs.
#[derive(Serialize)]
struct Compared {
    first: String,
    second: String,
    /// Keys whose values differ.
    config: BTreeMap<String, [Option<String>; 2]>,
    /// Of each metric, the means over the first and last tenth of the steps of both runs.
    metrics: BTreeMap<String, [Option<(f64, f64)>; 2]>,
    evaluations: Vec<Paired>,
}

/// Two evaluations of the same kind.
#[derive(Serialize)]
struct Paired {
    /// The prior prompts that the two were asked under.
    prompts: [String; 2],
    benchmarks: Vec<Comparison>,
}

pub fn run(args: &Args) -> Result<()> {
    let compared = compare(args)?;
    let mut stdout = stdout().lock();
    if args.output_format == OutputFormat::Json {
        writeln!(stdout, "{}", serde_json::to_string_pretty(&compared)?)?;
        return Ok(());
    }
    writeln!(stdout, "A  {}\nB  {}", compared.first, compared.second)?;
    if compared.config.is_empty() {
        writeln!(stdout, "\nthe configurations are the same")?;
    } else {
        writeln!(stdout, "\n{}", config(&compared.config))?;
    }
    writeln!(stdout, "\n{}", training(&compared.metrics))?;
    for Paired { prompts: [a, b], benchmarks } in &compared.evaluations {
        writeln!(stdout, "\nA asked under `{a}`, B under `{b}`\n{}", eval::compare::rows(benchmarks))?;
        for it in benchmarks {
            for note in &it.notes {
                writeln!(stdout, "{}: {note}", it.benchmark)?;
            }
        }
    }
    if compared.evaluations.is_empty() {
        writeln!(stdout, "\nno evaluation of both in `{}`; `rft eval --adapter RUN` makes them", args.evals.display())?;
    }
    Ok(())
}

fn compare(args: &Args) -> Result<Compared> {
    let (a, b) = (open(&args.first)?, open(&args.second)?);
    let (of_a, of_b) = (dotted(&status::read_config(&a)?), dotted(&status::read_config(&b)?));
    let keys: BTreeSet<&String> = of_a.keys().chain(of_b.keys()).collect();
    let config = keys
        .into_iter()
        .filter(|key| of_a.get(*key) != of_b.get(*key))
        .map(|key| (key.clone(), [of_a.get(key).cloned(), of_b.get(key).cloned()]))
        .collect();
    Ok(Compared {
        first: args.first.display().to_string(),
        second: args.second.display().to_string(),
        config,
        metrics: side_by_side(&steps(&a)?, &steps(&b)?),
        evaluations: evaluations(&a, &b, &args.evals)?,
    })
}

fn open(path: &Path) -> Result<RunDir> {
    let run = RunDir::open(path)?;
    if !run.manifest().is_file() {
        bail!("`{}` is no run directory: it has no manifest.json\nhint: `rft runs` lists runs", path.display());
    }
    Ok(run)
}

/// The lines of training steps.
fn steps(run: &RunDir) -> Result<Vec<MetricsRecord>> {
    if !run.metrics().is_file() {
        return Ok(Vec::new());
    }
    Ok(metrics::read(&run.metrics())?.into_iter().filter(|line| line.values.contains_key("reward")).collect())
}

fn side_by_side(a: &[MetricsRecord], b: &[MetricsRecord]) -> BTreeMap<String, [Option<(f64, f64)>; 2]> {
    let names: BTreeSet<&String> = a.iter().chain(b).flat_map(|line| line.values.keys()).collect();
    names.into_iter().map(|name| (name.clone(), [ends(a, name), ends(b, name)])).collect()
}

/// Every evaluation of the first run with that of the second which was asked in the same way: under the same prompt, or each
/// under the prompt of its training.
fn evaluations(a: &RunDir, b: &RunDir, folder: &Path) -> Result<Vec<Paired>> {
    let (of_a, of_b) = (evaluations_of(a, folder)?, evaluations_of(b, folder)?);
    let mut pairs = Vec::new();
    for (prompt, own, first) in &of_a {
        let alike = |(other, other_own, _): &&(String, bool, EvalFolder)| other == prompt || (*own && *other_own);
        for (other, _, second) in of_b.iter().filter(alike) {
            let complete = |folder: &EvalFolder| -> Result<bool> {
                Ok(folder.benches()?.values().all(|bench| bench.results().is_file()))
            };
            if !complete(first)? || !complete(second)? {
                eprintln!("warning: the evaluations under `{prompt}` and `{other}` are not complete, and are left out");
                continue;
            }
            let shared = first.benches()?.into_keys().any(|name| second.bench(&name).results().is_file());
            if shared {
                let benchmarks = crate::eval::compare::compare(first, second)?;
                pairs.push(Paired { prompts: [prompt.clone(), other.clone()], benchmarks });
            }
        }
    }
    Ok(pairs)
}

/// Evaluations of a run's adapter: the prior prompt they were asked under, and whether it is the run's own.
fn evaluations_of(run: &RunDir, folder: &Path) -> Result<Vec<(String, bool, EvalFolder)>> {
    let adapter = run.adapter().join("adapter_model.safetensors");
    if !folder.is_dir() || !adapter.is_file() {
        return Ok(Vec::new());
    }
    let sha256 = sha256_file(&adapter).with_context(|| format!("read `{}`", adapter.display()))?;
    let own = crate::run::Manifest::read(run)?.prompt.name;
    let entries = std::fs::read_dir(folder).with_context(|| format!("read `{}`", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.join("eval.json").is_file());
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        let evaluation = EvalFolder::open(&path)?;
        if evaluation.identity.adapter_sha256.as_ref() == Some(&sha256) {
            let prompt = evaluation.identity.ppe.clone();
            found.push((prompt.clone(), prompt == own, evaluation));
        }
    }
    Ok(found)
}

fn blank() -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
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

/// Four digits that count.
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
