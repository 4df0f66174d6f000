//! The trials of a sweep with `[sweep.tune]`, as a sweep of their own, and the study's runs with the chosen values.
//!
//! Both are plain functions: [`trials`] from a file, [`with_choices`] from its runs and `tune.json`.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Number;

use super::expand::{Names, Sweep, SweepArm, SweepRun, arms, in_json, seeds, short_keys, written};
use super::file::SweepFile;
use super::tune_section::{self, TuneSection};
use crate::config::{Entry, RunConfig, TUNING};
use crate::run::tuning::{TuneRecord, same};

/// The trials of all arms.
#[derive(Clone, Debug)]
pub struct Trials {
    /// The setting that is chosen.
    pub key: String,
    /// Steps of each trial, if they differ from those of the study.
    pub steps: Option<usize>,
    /// Held-out questions of each trial.
    pub questions: usize,
    /// In the order of the arms. Arms that set the key themselves are left out.
    pub arms: Vec<ArmTrials>,
    /// The arms that set the key themselves.
    pub untuned: Vec<String>,
    /// The trials: runs without evaluations.
    pub sweep: Sweep,
}

/// The trials of an arm.
#[derive(Clone, Debug)]
pub struct ArmTrials {
    pub arm: String,
    pub candidates: Vec<Candidate>,
}

/// A value, and the trials with it.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub value: Number,
    /// The seed and the name of each trial.
    pub runs: Vec<(u64, String)>,
    /// The configuration of the arm with this value.
    config: RunConfig,
}

/// The trials of a file; `None` if it has no `[sweep.tune]`.
///
/// # Errors
/// A value that is not valid for an arm, with its position; no arm that could be tuned; a seed that trials and study share.
pub fn trials(file: &SweepFile) -> Result<Option<Trials>> {
    let Some(tune) = &file.sweep.tune else { return Ok(None) };
    let all = arms(file)?;
    let (own, tuned): (Vec<SweepArm>, Vec<SweepArm>) =
        all.into_iter().partition(|arm| arm.varies.contains_key(&tune.key));
    ensure!(
        !tuned.is_empty(),
        "{}: `sweep.tune`: every arm sets `{}` itself, so there is nothing to tune\nhint: remove [sweep.tune], or the key in the arms",
        tune.origin.site(),
        tune.key
    );
    let seeds = tune_section::seeds(tune, &seeds(file, &tuned))?;
    let short = short_keys(std::slice::from_ref(&tune.key));
    let mut names = Names::default();
    let (mut runs, mut configs, mut arms) = (Vec::new(), BTreeMap::new(), Vec::new());
    for arm in &tuned {
        let mut candidates = Vec::new();
        for entry in arm.candidates.as_ref().unwrap_or(&tune.values) {
            let mut merged = arm.merged.clone();
            merged.lay(entry)?;
            let config = merged.finish()?.config;
            let of_value = names.give(&format!("{}-{}={}", arm.name, short[&tune.key], written(&entry.value)));
            let mut varies = arm.varies.clone();
            varies.insert(tune.key.clone(), in_json(&entry.value));
            let mut of_candidate = Vec::new();
            for &seed in &seeds {
                let name = format!("{of_value}-s{seed}");
                configs.insert(name.clone(), trial(&config, tune, seed));
                runs.push(SweepRun { name: name.clone(), arm: of_value.clone(), seed, varies: varies.clone() });
                of_candidate.push((seed, name));
            }
            candidates.push(Candidate { value: as_number(entry)?, runs: of_candidate, config });
        }
        arms.push(ArmTrials { arm: arm.name.clone(), candidates });
    }
    let section = &file.sweep;
    let sweep = Sweep {
        name: format!("{}-trials", section.name),
        demonstration: section.demonstration,
        notes: Vec::new(),
        seeds,
        jobs: section.jobs,
        runs,
        evals: Vec::new(),
        eval: None,
        slurm: file.slurm.clone(),
        configs,
    };
    let untuned = own.into_iter().map(|arm| arm.name).collect();
    let (key, steps, questions) = (tune.key.clone(), tune.steps, tune.questions);
    Ok(Some(Trials { key, steps, questions, arms, untuned, sweep }))
}

/// The configuration of a trial: the arm's, with the budget of the trial and its own held-out questions.
fn trial(arm: &RunConfig, tune: &TuneSection, seed: u64) -> RunConfig {
    let mut config = arm.clone();
    config.train.seed = seed;
    config.train.steps = tune.steps.or(config.train.steps);
    config.eval.path = TUNING.to_owned();
    config.eval.questions = tune.questions;
    config.eval.every = 0;
    config.eval.greedy = false;
    // Nothing but the last evaluation is needed, so one checkpoint is enough to resume from.
    config.train.save_total_limit = Some(1);
    config
}

fn as_number(entry: &Entry) -> Result<Number> {
    let value = &entry.value;
    let float = || value.as_float().and_then(Number::from_f64);
    value.as_integer().map(Number::from).or_else(float).with_context(|| format!("`{value}` is not a number"))
}

/// The study's runs, each with the value that was chosen for its arm.
///
/// # Errors
/// The record has no choice for an arm, or chose a value that is not one of its candidates.
pub fn with_choices(mut sweep: Sweep, trials: &Trials, record: &TuneRecord) -> Result<Sweep> {
    for run in &sweep.runs {
        let Some(arm) = trials.arms.iter().find(|it| it.arm == run.arm) else { continue };
        let choice = record.arm(&arm.arm).with_context(|| format!("no value was chosen for arm `{}`", arm.arm))?;
        let is_chosen = |it: &&Candidate| same(&it.value, &choice.choice);
        let chosen = arm.candidates.iter().find(is_chosen).with_context(|| {
            format!("`{}` was chosen for arm `{}`, but is not one of its candidates", choice.choice, arm.arm)
        })?;
        let mut config = chosen.config.clone();
        config.train.seed = run.seed;
        sweep.configs.insert(run.name.clone(), config);
    }
    Ok(sweep)
}
