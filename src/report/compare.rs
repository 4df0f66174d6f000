//! Comparison of two runs: configuration, training, evaluations.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::load::{dotted, ends};
use crate::disk::hash::sha256_file;
use crate::eval::compare::EvalComparison;
use crate::eval::folder::EvalFolder;
use crate::run::metrics::{self, MetricsRecord};
use crate::run::{RunDir, status};

/// The result of the comparison.
#[derive(Serialize)]
pub struct Compared {
    pub first: String,
    pub second: String,
    /// Keys whose values differ.
    pub config: BTreeMap<String, [Option<String>; 2]>,
    /// For each metric and both runs, the means over the first and the last tenth of the steps.
    pub metrics: BTreeMap<String, [Option<(f64, f64)>; 2]>,
    pub evaluations: Vec<PairedEvaluations>,
    /// Evaluations that were left out, and why.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

/// Two evaluations of the same kind.
#[derive(Serialize)]
pub struct PairedEvaluations {
    /// The prior prompts of the two evaluations.
    pub prompts: [String; 2],
    pub benchmarks: Vec<EvalComparison>,
}

/// Compares the runs in the directories `first` and `second`, with their evaluations in the folder `evals`.
///
/// # Errors
/// A directory that is not a run directory, or a file in it that cannot be read.
pub fn compare(first: &Path, second: &Path, evals: &Path) -> Result<Compared> {
    let (a, b) = (open(first)?, open(second)?);
    let mut warnings = Vec::new();
    let (of_a, of_b) = (dotted(&status::read_config(&a)?), dotted(&status::read_config(&b)?));
    let keys: BTreeSet<&String> = of_a.keys().chain(of_b.keys()).collect();
    let config = keys
        .into_iter()
        .filter(|key| of_a.get(*key) != of_b.get(*key))
        .map(|key| (key.clone(), [of_a.get(key).cloned(), of_b.get(key).cloned()]))
        .collect();
    Ok(Compared {
        first: first.display().to_string(),
        second: second.display().to_string(),
        config,
        metrics: side_by_side(&steps(&a)?, &steps(&b)?),
        evaluations: evaluations(&a, &b, evals, &mut warnings)?,
        warnings,
    })
}

fn open(path: &Path) -> Result<RunDir> {
    let run = RunDir::open(path)?;
    if !run.manifest().is_file() {
        bail!("`{}` is not a run directory: it has no manifest.json\nhint: `rft runs` lists runs", path.display());
    }
    Ok(run)
}

/// The metrics of training steps.
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

/// Pairs each evaluation of the first run with the matching one of the second: under the same prompt, or each under its own
/// training prompt.
fn evaluations(a: &RunDir, b: &RunDir, folder: &Path, warnings: &mut Vec<String>) -> Result<Vec<PairedEvaluations>> {
    let (of_a, of_b) = (evaluations_of(a, folder)?, evaluations_of(b, folder)?);
    let mut pairs = Vec::new();
    for (prompt, own, first) in &of_a {
        let alike = |(other, other_own, _): &&(String, bool, EvalFolder)| other == prompt || (*own && *other_own);
        for (other, _, second) in of_b.iter().filter(alike) {
            let complete = |folder: &EvalFolder| -> Result<bool> {
                Ok(folder.benches()?.values().all(|bench| bench.results().is_file()))
            };
            if !complete(first)? || !complete(second)? {
                warnings.push(format!(
                    "the evaluations under `{prompt}` and `{other}` are left out: they are not complete"
                ));
                continue;
            }
            let shared = first.benches()?.into_keys().any(|name| second.bench(&name).results().is_file());
            if shared {
                let benchmarks = crate::eval::compare::compare(first, second)?;
                pairs.push(PairedEvaluations { prompts: [prompt.clone(), other.clone()], benchmarks });
            }
        }
    }
    Ok(pairs)
}

/// Evaluations of a run's adapter: their prior prompt, and whether it is the run's training prompt.
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
