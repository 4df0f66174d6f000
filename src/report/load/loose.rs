//! Runs and evaluations that the user passes one by one, instead of a sweep.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::evaluation::ReportedEvaluation;
use super::run::{LoadedRun, ReportedRun};
use super::{Material, arms, quoted, sweep};
use crate::eval::folder::EvalFolder;

/// The kind of a folder.
enum FolderKind {
    Run,
    Evaluation,
}

fn kind(path: &Path) -> Result<FolderKind> {
    if path.join("manifest.json").is_file() {
        return Ok(FolderKind::Run);
    }
    if path.join("eval.json").is_file() {
        return Ok(FolderKind::Evaluation);
    }
    let hint = if path.join(sweep::FILE).is_file() {
        "pass the folder of a sweep alone, without other folders"
    } else {
        "pass run directories, such as `runs/NAME`, evaluations, or the folder of one sweep"
    };
    bail!("`{}` is neither a run nor an evaluation\nhint: {hint}", path.display())
}

/// An arm is named after its prior prompt, and after the settings in which it differs from other arms with this prompt. Evaluations are those among `inputs`, and those in the folder `evals` that belong to
/// one of the runs or to the untrained model of the runs.
pub fn load(inputs: &[PathBuf], evals: &Path) -> Result<Material> {
    let mut material = Material::default();
    let mut named = Vec::new();
    for path in inputs {
        match kind(path)? {
            FolderKind::Evaluation => named.push(path.clone()),
            FolderKind::Run => match ReportedRun::read(path)
                .with_context(|| format!("read the run `{}`", path.display()))?
            {
                LoadedRun::Run(run) if material.runs.iter().any(|it| it.name == run.name) => material.left_out.push(
                    format!("A second run named {} is left out: names of runs must be unique.", quoted(&run.name)),
                ),
                LoadedRun::Run(run) => material.runs.push(*run),
                LoadedRun::Unfinished(why) => {
                    let name = crate::run::status::name(path);
                    material.left_out.push(format!("The run {} is left out: {why}.", quoted(&name)));
                }
            },
        }
    }
    arms::settle(&mut material);
    for path in &named {
        let mut evaluation = ReportedEvaluation::read(path, &mut material.left_out)?;
        let adapter = evaluation.identity.adapter.clone();
        evaluation.run = find(&material.runs, &evaluation);
        match adapter {
            Some(adapter) if evaluation.run.is_none() => material.left_out.push(format!(
                "The evaluation {} is left out: its adapter {} does not belong to any of the runs.",
                quoted(&evaluation.name),
                quoted(&adapter)
            )),
            _ => material.evaluations.push(evaluation),
        }
    }
    add_found(&mut material, &named, evals)?;
    material.evaluations.retain(|evaluation| !evaluation.benches.is_empty());
    Ok(material)
}

/// Adds the evaluations in `folder` that belong to the runs and were not passed by the user.
fn add_found(material: &mut Material, named: &[PathBuf], folder: &Path) -> Result<()> {
    if material.runs.is_empty() || !folder.is_dir() {
        return Ok(());
    }
    let entries = std::fs::read_dir(folder).with_context(|| format!("read `{}`", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.join("eval.json").is_file() && !named.iter().any(|it| same(it, path)));
    paths.sort();
    let mut untrained = Vec::new();
    for path in paths {
        if EvalFolder::open(&path)?.identity.adapter.is_none() {
            untrained.push(path);
            continue;
        }
        // No warnings about evaluations that the user did not pass.
        let mut told = Vec::new();
        let mut evaluation = ReportedEvaluation::read(&path, &mut told)?;
        evaluation.run = find(&material.runs, &evaluation);
        if evaluation.run.is_some() {
            material.left_out.extend(told);
            material.evaluations.push(evaluation);
        }
    }
    let models: Vec<String> = material.evaluations.iter().map(|it| it.identity.model_sha256.clone()).collect();
    for path in untrained {
        if models.contains(&EvalFolder::open(&path)?.identity.model_sha256) {
            material.evaluations.push(ReportedEvaluation::read(&path, &mut material.left_out)?);
        }
    }
    Ok(())
}

/// The run whose adapter was evaluated, by name and weights. If the weights are unknown (on a server), by name alone.
fn find(runs: &[ReportedRun], evaluation: &ReportedEvaluation) -> Option<usize> {
    let name = evaluation.identity.adapter.as_ref()?;
    let fits = |run: &ReportedRun| match &evaluation.identity.adapter_sha256 {
        Some(sha256) => run.adapter_sha256.as_ref() == Some(sha256),
        None => run.name == *name,
    };
    let fitting: Vec<usize> = (0..runs.len()).filter(|&at| fits(&runs[at])).collect();
    fitting.iter().copied().find(|&at| runs[at].name == *name).or(fitting.first().copied())
}

fn same(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}
