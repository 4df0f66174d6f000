//! A training run, reduced to what a report needs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::data::decontaminate::Contamination;
use crate::disk::hash::sha256_file;
use crate::prompt::{self, Mixture};
use crate::run::manifest::Manifest;
use crate::run::metrics::{self, MetricsRecord};
use crate::run::status::{self, RunState, RunStatus};
use crate::run::{GroupRecord, RunDir, completions, dir};

/// A training run that completed all its steps.
pub struct ReportedRun {
    pub name: String,
    /// The run's arm: the runs of an arm differ only in their seeds.
    pub arm: String,
    pub seed: u64,
    /// The settings in which its arm differs from others, by dotted key.
    pub varies: BTreeMap<String, Value>,
    /// The setting that was chosen for its arm, if its value is the one that the trials of the sweep prove.
    pub tuned: Option<String>,
    pub manifest: Manifest,
    /// The prior prompts; `None` if their file is missing and it is not a single shipped one.
    pub mixture: Option<Mixture>,
    /// The resolved configuration, by dotted key.
    pub config: BTreeMap<String, String>,
    /// The metrics of training steps, without those of evaluations during training.
    pub steps: Vec<MetricsRecord>,
    /// The evaluation on held-out questions; `None` if no questions were held out.
    pub held_out: Option<HeldOut>,
    /// Hash of the adapter's weights.
    pub adapter_sha256: Option<String>,
    /// The benchmark questions that overlap with its training data; `None` if this was not checked.
    pub contamination: Option<Contamination>,
}

/// The held-out questions of a run, one completion each.
pub struct HeldOut {
    /// At temperature 1.
    pub sampled: BeforeAfter,
    /// With greedy decoding, if it was requested.
    pub greedy: Option<BeforeAfter>,
}

/// The same questions before and after training.
pub struct BeforeAfter {
    pub before: Vec<GroupRecord>,
    pub after: Vec<GroupRecord>,
}

/// A run, or the reason why it cannot be reported.
pub enum LoadedRun {
    Run(Box<ReportedRun>),
    Unfinished(String),
}

impl ReportedRun {
    /// Reads a run. Its arm is named after its prior prompt.
    pub fn read(path: &Path) -> Result<LoadedRun> {
        let run = RunDir::open(path)?;
        let status = RunStatus::read(&run)?;
        if status.state != RunState::Done {
            let (state, step) = (status.state.name(), status.step);
            return Ok(LoadedRun::Unfinished(format!("it is {state} after step {step} of {}", status.steps)));
        }
        let manifest = Manifest::read(&run)?;
        let steps = metrics::read(&run.metrics())?;
        Ok(LoadedRun::Run(Box::new(Self {
            name: status.name,
            arm: manifest.prompt_label(),
            seed: manifest.seed,
            varies: BTreeMap::new(),
            tuned: None,
            config: dotted(&status::read_config(&run)?),
            steps: steps.into_iter().filter(|record| record.values.contains_key("reward")).collect(),
            held_out: held_out(&run, manifest.steps)?,
            adapter_sha256: adapter_hash(&run)?,
            contamination: contamination(&run)?,
            mixture: mixture(&run, &manifest.learned_prompt().name),
            manifest,
        })))
    }

    /// Mean of a metric over the first and over the last tenth of the steps (at least one step each); `None` if it was not logged.
    pub fn ends(&self, metric: &str) -> Option<(f64, f64)> {
        ends(&self.steps, metric)
    }
}

/// See [`ReportedRun::ends`].
pub fn ends(steps: &[MetricsRecord], metric: &str) -> Option<(f64, f64)> {
    let values: Vec<f64> = steps.iter().filter_map(|step| step.values.get(metric).copied().flatten()).collect();
    let tenth = values.len().div_ceil(10);
    let mean = |part: &[f64]| (!part.is_empty()).then(|| crate::stats::mean(part));
    mean(&values[..tenth]).zip(mean(&values[values.len() - tenth..]))
}

/// A configuration as `section.key` and its value in TOML.
pub fn dotted(config: &toml::Table) -> BTreeMap<String, String> {
    fn walk(prefix: &str, table: &toml::Table, into: &mut BTreeMap<String, String>) {
        for (key, value) in table {
            let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            match value {
                toml::Value::Table(inner) => walk(&name, inner, into),
                toml::Value::String(text) => drop(into.insert(name, text.clone())),
                value => drop(into.insert(name, value.to_string())),
            }
        }
    }
    let mut into = BTreeMap::new();
    walk("", config, &mut into);
    into
}

fn held_out(run: &RunDir, steps: usize) -> Result<Option<HeldOut>> {
    let ends = |kind: &str| -> Result<Option<BeforeAfter>> {
        let [before, after] = [0, steps].map(|step| run.evaluation(step, kind));
        if !before.is_file() || !after.is_file() {
            return Ok(None);
        }
        let (before, after) = (completions::read(&before)?, completions::read(&after)?);
        let ids = |groups: &[GroupRecord]| -> Vec<String> { groups.iter().map(|it| it.question_id.clone()).collect() };
        Ok((!after.is_empty() && ids(&before) == ids(&after)).then_some(BeforeAfter { before, after }))
    };
    let Some(sampled) = ends(dir::SAMPLED)? else { return Ok(None) };
    Ok(Some(HeldOut { sampled, greedy: ends(dir::GREEDY)? }))
}

fn adapter_hash(run: &dir::RunDir) -> Result<Option<String>> {
    let path = run.adapter().join("adapter_model.safetensors");
    if !path.is_file() {
        return Ok(None);
    }
    sha256_file(&path).map(Some).with_context(|| format!("read `{}`", path.display()))
}

fn mixture(run: &RunDir, name: &str) -> Option<Mixture> {
    Mixture::read(&run.prompt()).ok().or_else(|| Some(prompt::find_shipped(name)?.clone().into()))
}

fn contamination(run: &RunDir) -> Result<Option<Contamination>> {
    let path = run.contamination();
    if !path.is_file() {
        return Ok(None);
    }
    let text = fs::read(&path).with_context(|| format!("read `{}`", path.display()))?;
    serde_json::from_slice(&text).map(Some).with_context(|| format!("parse `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_dotted_and_ends_are_tenths() {
        let table = toml::from_str("a = 1\n[b]\nc = \"x\"\n[b.d]\ne = [1, 2]\n").unwrap();
        let pairs: Vec<(String, String)> = dotted(&table).into_iter().collect();
        let expected = [("a", "1"), ("b.c", "x"), ("b.d.e", "[1, 2]")];
        assert_eq!(pairs, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));

        let step = |step: usize| MetricsRecord {
            step,
            values: BTreeMap::from([("reward".into(), (step != 1).then_some(step as f64))]),
            non_finite: vec![],
        };
        let steps: Vec<MetricsRecord> = (0..=20).map(step).collect();
        // 20 finite values: the first two are 0 and 2, the last two 19 and 20.
        assert_eq!(ends(&steps, "reward"), Some((1.0, 19.5)));
        assert_eq!(ends(&steps[1..2], "reward"), None);
        assert_eq!(ends(&steps, "kl"), None);
    }
}
