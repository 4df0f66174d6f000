//! The folder of a sweep, described by its `sweep.json`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Number, Value};

use super::evaluation::ReportedEvaluation;
use super::run::{LoadedRun, ReportedRun};
use super::{Material, arms, quoted};
use crate::run::tuning::{TuneRecord, same};

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
    material.tuning = TuneRecord::read(folder)?;
    let mut left_out = LeftOut::default();
    for member in sweep.runs {
        let path = folder.join("runs").join(&member.name);
        let found = match path.join("manifest.json").is_file() {
            true => ReportedRun::read(&path).with_context(|| format!("read the run `{}`", path.display()))?,
            false => LoadedRun::Unfinished("it has not been started".to_owned()),
        };
        match found {
            LoadedRun::Run(run) => {
                let Member { name, arm, seed, varies } = member;
                let tuned = material.tuning.as_ref().and_then(|it| tuned(it, &arm, &run.config));
                material.runs.push(ReportedRun { name, arm, seed, varies, tuned, ..*run });
            }
            LoadedRun::Unfinished(why) => left_out.add("run", &member.name, &why),
        }
    }
    arms::settle(&mut material);
    for planned in sweep.evals {
        if let Some(evaluation) = evaluation(folder, &planned, &mut material, &mut left_out)? {
            material.evaluations.push(evaluation);
        }
    }
    material.left_out.extend(left_out.sentences());
    Ok(material)
}

/// The tuned key, if the run's value is the choice for its arm and follows from the trials.
fn tuned(record: &TuneRecord, arm: &str, config: &BTreeMap<String, String>) -> Option<String> {
    let choice = record.arm(arm).filter(|it| it.is_proven())?;
    let value = Number::from_f64(config.get(&record.key)?.parse().ok()?)?;
    same(&value, &choice.choice).then(|| record.key.clone())
}

/// Number of names in a sentence about what is left out.
const NAMED: usize = 8;

/// The names of members that are left out, by kind and reason. An unfinished sweep leaves out many for the same reason.
#[derive(Default)]
struct LeftOut(Vec<(&'static str, String, Vec<String>)>);

impl LeftOut {
    fn add(&mut self, kind: &'static str, name: &str, why: &str) {
        match self.0.iter_mut().find(|it| it.0 == kind && it.1 == why) {
            Some((.., names)) => names.push(quoted(name)),
            None => self.0.push((kind, why.to_owned(), vec![quoted(name)])),
        }
    }

    /// A sentence for each reason.
    fn sentences(self) -> impl Iterator<Item = String> {
        self.0.into_iter().map(|(kind, why, names)| match names.as_slice() {
            [name] => format!("The {kind} {name} is left out: {why}."),
            _ => {
                let (first, rest) = names.split_at(names.len().min(NAMED));
                let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
                format!("{} {kind}s are left out, each because {why}: {}{more}.", names.len(), first.join(", "))
            }
        })
    }
}

/// A planned evaluation, if its run and at least one of its benchmarks are complete.
fn evaluation(
    folder: &Path,
    planned: &Planned,
    material: &mut Material,
    left_out: &mut LeftOut,
) -> Result<Option<ReportedEvaluation>> {
    let mut without = |why: &str| {
        left_out.add("evaluation", &planned.name, why);
        Ok(None)
    };
    let name = quoted(&planned.name);
    let run = planned.run.as_ref().map(|run| material.runs.iter().position(|it| it.name == *run));
    if run == Some(None) {
        return without("its run is left out");
    }
    let path = folder.join("evals").join(&planned.name);
    if !path.join("eval.json").is_file() {
        return without("it has not been run yet");
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
        return without("the weights of its run have changed since");
    }
    Ok(Some(evaluation).filter(|it| !it.benches.is_empty()))
}
