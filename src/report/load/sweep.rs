//! The folder of a sweep, described by its `sweep.json`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use super::evaluation::ReportedEvaluation;
use super::run::{LoadedRun, ReportedRun};
use super::{Material, arms, quoted};

pub const FILE: &str = "sweep.json";

/// The definition of a sweep, independent of its progress.
#[derive(Deserialize)]
struct ReportedSweep {
    name: String,
    #[serde(default)]
    demonstration: bool,
    #[serde(default)]
    notes: Vec<String>,
    runs: Vec<Member>,
    #[serde(default)]
    evals: Vec<Planned>,
}

#[derive(Deserialize)]
struct Member {
    name: String,
    arm: String,
    seed: u64,
    #[serde(default)]
    varies: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct Planned {
    name: String,
    /// None for the untrained model.
    run: Option<String>,
    test_prompt: String,
    benches: Vec<String>,
}

pub fn load(folder: &Path) -> Result<Material> {
    let path = folder.join(FILE);
    let text = fs::read(&path).with_context(|| format!("read `{}`", path.display()))?;
    let sweep: ReportedSweep = serde_json::from_slice(&text).with_context(|| format!("parse `{}`", path.display()))?;
    let mut material =
        Material { name: sweep.name, demonstration: sweep.demonstration, notes: sweep.notes, ..Material::default() };
    for member in sweep.runs {
        let path = folder.join("runs").join(&member.name);
        let found = match path.join("manifest.json").is_file() {
            true => ReportedRun::read(&path).with_context(|| format!("read the run `{}`", path.display()))?,
            false => LoadedRun::Unfinished("it has not been started".to_owned()),
        };
        match found {
            LoadedRun::Run(run) => {
                let Member { name, arm, seed, varies } = member;
                material.runs.push(ReportedRun { name, arm, seed, varies, ..*run });
            }
            LoadedRun::Unfinished(why) => {
                material.left_out.push(format!("The run {} is left out: {why}.", quoted(&member.name)))
            }
        }
    }
    arms::settle(&mut material);
    for planned in sweep.evals {
        if let Some(evaluation) = evaluation(folder, &planned, &mut material)? {
            material.evaluations.push(evaluation);
        }
    }
    Ok(material)
}

/// A planned evaluation, if its run and at least one of its benchmarks are complete.
fn evaluation(folder: &Path, planned: &Planned, material: &mut Material) -> Result<Option<ReportedEvaluation>> {
    let name = quoted(&planned.name);
    let run = planned.run.as_ref().map(|run| material.runs.iter().position(|it| it.name == *run));
    if run == Some(None) {
        material.left_out.push(format!("The evaluation {name} is left out: its run is left out."));
        return Ok(None);
    }
    let path = folder.join("evals").join(&planned.name);
    if !path.join("eval.json").is_file() {
        material.left_out.push(format!("The evaluation {name} is left out: it has not been run yet."));
        return Ok(None);
    }
    let mut evaluation = ReportedEvaluation::read(&path, &mut material.left_out)?;
    evaluation.name.clone_from(&planned.name);
    evaluation.run = run.flatten();
    evaluation.prompt.clone_from(&planned.test_prompt);
    evaluation.benches.retain(|name, _| planned.benches.contains(name));
    for bench in planned.benches.iter().filter(|bench| !path.join(bench).join("samples.jsonl").is_file()) {
        let bench = quoted(bench);
        material.left_out.push(format!(
            "The benchmark {bench} of the evaluation {name} is left out: it has not been evaluated yet."
        ));
    }
    let trained = evaluation.run.map(|at| &material.runs[at].adapter_sha256);
    let asked = &evaluation.identity.adapter_sha256;
    if let Some(trained) = trained
        && asked.is_some()
        && asked != trained
    {
        material
            .left_out
            .push(format!("The evaluation {name} is left out: the weights of its run have changed since."));
        return Ok(None);
    }
    Ok(Some(evaluation).filter(|it| !it.benches.is_empty()))
}
