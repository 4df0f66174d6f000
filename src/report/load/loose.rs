//! Runs and evaluations that are put together by hand.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::evaluation::Evaluation;
use super::run::{Found, Run};
use super::{Material, quoted, sweep};
use crate::eval::folder::EvalFolder;

/// What a folder holds.
enum Kind {
    Run,
    Evaluation,
}

fn kind(path: &Path) -> Result<Kind> {
    if path.join("manifest.json").is_file() {
        return Ok(Kind::Run);
    }
    if path.join("eval.json").is_file() {
        return Ok(Kind::Evaluation);
    }
    let hint = if path.join(sweep::FILE).is_file() {
        "a sweep is reported by itself: name no other folder beside it"
    } else {
        "give run directories, such as `runs/NAME`, evaluations, or the folder of one sweep"
    };
    bail!("`{}` is neither a run nor an evaluation\nhint: {hint}", path.display())
}

/// An arm is called after its prior prompt. Evaluations are those among `inputs`, and those in the folder `evals` that are of one
/// of the runs, or of the untrained model that they were made from.
pub fn load(inputs: &[PathBuf], evals: &Path) -> Result<Material> {
    let mut material = Material::default();
    let mut named = Vec::new();
    for path in inputs {
        match kind(path)? {
            Kind::Evaluation => named.push(path.clone()),
            Kind::Run => match Run::read(path).with_context(|| format!("read the run `{}`", path.display()))? {
                Found::Run(run) if material.runs.iter().any(|it| it.name == run.name) => material.left_out.push(
                    format!("A second run called {} is left out: names must tell runs apart.", quoted(&run.name)),
                ),
                Found::Run(run) => material.runs.push(*run),
                Found::Unfinished(why) => {
                    let name = crate::run::status::name(path);
                    material.left_out.push(format!("The run {} is left out: {why}.", quoted(&name)));
                }
            },
        }
    }
    for path in &named {
        let mut evaluation = Evaluation::read(path, &mut material.left_out)?;
        let adapter = evaluation.identity.adapter.clone();
        evaluation.run = find(&material.runs, &evaluation);
        match adapter {
            Some(adapter) if evaluation.run.is_none() => material.left_out.push(format!(
                "The evaluation {} is left out: its adapter {} is that of none of the runs.",
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

/// Adds the evaluations in `folder` that fit the runs and were not named.
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
        // What is left out of an evaluation that nobody asked for need not be told.
        let mut told = Vec::new();
        let mut evaluation = Evaluation::read(&path, &mut told)?;
        evaluation.run = find(&material.runs, &evaluation);
        if evaluation.run.is_some() {
            material.left_out.extend(told);
            material.evaluations.push(evaluation);
        }
    }
    let models: Vec<String> = material.evaluations.iter().map(|it| it.identity.model_sha256.clone()).collect();
    for path in untrained {
        if models.contains(&EvalFolder::open(&path)?.identity.model_sha256) {
            material.evaluations.push(Evaluation::read(&path, &mut material.left_out)?);
        }
    }
    Ok(())
}

/// The run whose adapter was asked: the one of this name and these weights; where no weights are known (a server's), of this name.
fn find(runs: &[Run], evaluation: &Evaluation) -> Option<usize> {
    let name = evaluation.identity.adapter.as_ref()?;
    let fits = |run: &Run| match &evaluation.identity.adapter_sha256 {
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
