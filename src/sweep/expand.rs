//! Expands a sweep file to plain configurations, one per arm and seed, and to the evaluations of all runs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};
use toml::Value;

use super::file::{Listed, SlurmSection, SweepAxis, SweepEvalSection, SweepFile, When, is_plain};
use crate::config::{Entry, MergedConfig, MixEntry, RunConfig, ValueOrigin};
use crate::eval::bench;
use crate::prompt::Mixture;

/// All runs and evaluations of a sweep.
#[derive(Clone, Debug)]
pub struct Sweep {
    pub name: String,
    pub demonstration: bool,
    pub notes: Vec<String>,
    pub seeds: Vec<u64>,
    pub jobs: Option<usize>,
    /// In the order in which they start: all arms with the first seed come first.
    pub runs: Vec<SweepRun>,
    pub evals: Vec<Eval>,
    /// The evaluation settings of all runs.
    pub eval: Option<SweepEvalSection>,
    pub slurm: SlurmSection,
    /// The configuration of each run, without names and folders.
    pub configs: BTreeMap<String, RunConfig>,
}

/// One training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SweepRun {
    pub name: String,
    /// Its arm, which it shares with the runs of other seeds.
    pub arm: String,
    pub seed: u64,
    /// The settings that define the arm: keys and their values.
    pub varies: BTreeMap<String, serde_json::Value>,
}

/// One model under one prompt, on all benchmarks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Eval {
    pub name: String,
    /// The run whose adapter is evaluated; `None` for the untrained model.
    pub run: Option<String>,
    pub arm: Option<String>,
    pub seed: Option<u64>,
    /// The name of the test prompt.
    pub test_prompt: String,
    /// Names of the benchmarks.
    pub benches: Vec<String>,
    /// The value of `rft eval --ppe`; `None` for the training prompt of the run, or a mixture.
    pub ppe: Option<String>,
    /// The value of `prompt.mix` for a mixture that is not the training prompt of the run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mix: Vec<MixEntry>,
    /// The run whose configuration has the model and the settings.
    pub config: String,
}

/// The runs and evaluations of a file.
///
/// # Errors
/// An invalid key or value, with its position; values that cannot be combined; two arms that are the same.
pub fn expand(file: &SweepFile) -> Result<Sweep> {
    let section = &file.sweep;
    let arms = arms(file)?;
    let seeds = seeds(file, &arms);
    let mut runs = Vec::new();
    let mut configs = BTreeMap::new();
    for &seed in &seeds {
        for arm in &arms {
            // Two names are equal only if arm and seed are equal.
            let name = format!("{}-s{seed}", arm.name);
            let mut config = arm.config.clone();
            config.train.seed = seed;
            configs.insert(name.clone(), config);
            runs.push(SweepRun { name, arm: arm.name.clone(), seed, varies: arm.varies.clone() });
        }
    }
    let evals = section.eval.as_ref().map_or_else(|| Ok(Vec::new()), |eval| evals(eval, &runs, &configs))?;
    Ok(Sweep {
        name: section.name.clone(),
        demonstration: section.demonstration,
        notes: section.notes.clone(),
        seeds,
        jobs: section.jobs,
        runs,
        evals,
        eval: section.eval.clone(),
        slurm: file.slurm.clone(),
        configs,
    })
}

/// The seeds of each arm.
pub(super) fn seeds(file: &SweepFile, arms: &[SweepArm]) -> Vec<u64> {
    match file.sweep.seeds.is_empty() {
        true => vec![arms[0].config.train.seed],
        false => file.sweep.seeds.clone(),
    }
}

/// Runs that differ only in their seed.
pub(super) struct SweepArm {
    pub name: String,
    pub varies: BTreeMap<String, serde_json::Value>,
    pub config: RunConfig,
    /// The same configuration, to set more values.
    pub merged: MergedConfig,
    /// Its own candidates of `[sweep.tune]`.
    pub candidates: Option<Vec<Entry>>,
}

/// The arms of a file, in its order.
pub(super) fn arms(file: &SweepFile) -> Result<Vec<SweepArm>> {
    let sweep = &file.sweep;
    let points = points(&sweep.grid, &sweep.zip).into_iter().map(|entries| (None, None, entries));
    let listed = sweep.list.iter().map(|it| (it.name.clone(), Some(it), it.entries.clone()));
    let mut points: Vec<(Option<String>, Option<&Listed>, Vec<Entry>)> = points.chain(listed).collect();
    if points.is_empty() {
        points.push((Some("all".to_owned()), None, Vec::new()));
    }
    let short = short_keys(&sweep.varied());
    let mut names = Names::default();
    let mut arms: Vec<SweepArm> = Vec::new();
    for (name, listed, entries) in points {
        let mut merged = file.base.clone();
        entries.iter().try_for_each(|entry| merged.lay(entry))?;
        let mut varies: BTreeMap<_, _> = entries.iter().map(|entry| (entry.key(), in_json(&entry.value))).collect();
        for when in &sweep.when {
            for entry in extra(when, &merged, &entries)? {
                merged.lay(entry)?;
                varies.insert(entry.key(), in_json(&entry.value));
            }
        }
        let config = merged.clone().finish()?.config;
        if let Some(same) = arms.iter().find(|arm| arm.config == config) {
            let origin = listed.map(|it| &it.origin).or_else(|| entries.first().map(|it| &it.origin));
            let site = origin.map(ValueOrigin::site);
            let site = site.unwrap_or_else(|| file.path.display().to_string());
            bail!(
                "{site}: this arm is the same as `{}`\nhint: remove one of them; to train with more seeds, set sweep.seeds",
                same.name
            );
        }
        let name = names.give(&name.unwrap_or_else(|| label(&entries, &short)));
        let candidates = listed.and_then(|it| it.candidates.clone());
        arms.push(SweepArm { name, varies, config, merged, candidates });
    }
    Ok(arms)
}

/// Every combination of the values of `grid` with every row of `zip`; the last key of the grid varies fastest, `zip` before it.
fn points(grid: &[SweepAxis], zip: &[SweepAxis]) -> Vec<Vec<Entry>> {
    if grid.is_empty() && zip.is_empty() {
        return Vec::new();
    }
    let rows = zip.first().map_or(1, |axis| axis.values.len());
    let mut points: Vec<Vec<Entry>> =
        (0..rows).map(|row| zip.iter().map(|axis| axis.values[row].clone()).collect()).collect();
    for axis in grid {
        let with = |point: &Vec<Entry>| {
            let values = axis.values.iter();
            values.map(|value| point.iter().chain([value]).cloned().collect()).collect::<Vec<Vec<Entry>>>()
        };
        points = points.iter().flat_map(with).collect();
    }
    points
}

/// The settings of `when` for an arm, or none if a condition does not match.
fn extra<'a>(when: &'a When, merged: &MergedConfig, point: &[Entry]) -> Result<&'a [Entry]> {
    let mut holds = true;
    for any in &when.conditions {
        // Setting the condition on a copy makes a condition that no configuration can fulfill an error.
        any.iter().try_for_each(|entry| merged.clone().lay(entry))?;
        let value = any.first().and_then(|entry| merged.value(&entry.key()));
        holds &= any.iter().any(|entry| value.is_some_and(|value| same(value, &entry.value)));
    }
    if !holds {
        return Ok(&[]);
    }
    if let Some(entry) = when.set.iter().find(|entry| point.iter().any(|it| it.key() == entry.key())) {
        bail!(
            "{}: `{}` is varied, so a condition cannot set it\nhint: write each arm as a [[sweep.list]]",
            entry.origin.site(),
            entry.key()
        );
    }
    Ok(&when.set)
}

fn same(a: &Value, b: &Value) -> bool {
    let number = |value: &Value| value.as_float().or_else(|| value.as_integer().map(|it| it as f64));
    a == b || number(a).is_some() && number(a) == number(b)
}

/// The short form of each varied key in names: its last parts, or the whole key if another key has the same last parts.
pub(super) fn short_keys(keys: &[String]) -> BTreeMap<String, String> {
    let tail = |key: &str| key.split_once('.').map_or(key, |(_, tail)| tail).to_owned();
    let is_alone = |key: &str| keys.iter().filter(|it| tail(it) == tail(key)).count() == 1;
    keys.iter().map(|key| (key.clone(), if is_alone(key) { tail(key) } else { key.clone() })).collect()
}

/// The name of an arm: the prompt's name, and `key=value` for each other key.
fn label(entries: &[Entry], short: &BTreeMap<String, String>) -> String {
    let part = |entry: &Entry| match (entry.key().as_str(), &entry.value) {
        // For a file, its name.
        ("prompt.ppe", Value::String(name)) => stem(name),
        ("prompt.mix", Value::Array(mix)) => mixed(mix),
        (key, value) => format!("{}={}", short.get(key).map_or(key, String::as_str), written(value)),
    };
    entries.iter().map(part).collect::<Vec<_>>().join("-")
}

/// The name of a prompt; for a file, its name.
fn stem(name: &str) -> String {
    Path::new(name).file_stem().map_or_else(|| name.to_owned(), |stem| stem.to_string_lossy().into_owned())
}

/// The names of the prompts of a mixture, with their weights if these differ: `reasoning+planning-1`, `reasoning=3+none=1`.
fn mixed(mix: &[Value]) -> String {
    let entries: Vec<MixEntry> = mix.iter().filter_map(|entry| entry.clone().try_into().ok()).collect();
    let equal = entries.iter().all(|it| it.weight == entries[0].weight);
    let part = |it: &MixEntry| if equal { stem(&it.ppe) } else { format!("{}={}", stem(&it.ppe), it.weight) };
    entries.iter().map(part).collect::<Vec<_>>().join("+")
}

pub(super) fn written(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(written).collect::<Vec<_>>().join("+"),
        Value::Table(table) => table.iter().map(|(key, value)| format!("{key}={}", written(value))).collect(),
        value => value.to_string(),
    }
}

pub(super) fn in_json(value: &Value) -> serde_json::Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// Unique names that are valid on every file system.
#[derive(Default)]
pub(super) struct Names(BTreeSet<String>);

impl Names {
    const LONGEST: usize = 80;

    /// `wanted`, or the closest free and valid name.
    pub fn give(&mut self, wanted: &str) -> String {
        let plain = |c: char| if is_plain(c) || "=+".contains(c) { c } else { '-' };
        let mut name: String = wanted.chars().map(plain).take(Self::LONGEST).collect();
        // `../..` must not leave the folder, and a leading `-` would be an option.
        name = name.trim_matches(['-', '.', '=', '+']).to_owned();
        if name.is_empty() {
            name.push_str("arm");
        }
        // Some file systems do not distinguish `A` and `a`.
        let numbered = (2..).map(|number| format!("{name}-{number}"));
        let free = std::iter::once(name.clone()).chain(numbered).find(|it| !self.0.contains(&it.to_lowercase()));
        let name = free.expect("there is always a free number");
        self.0.insert(name.to_lowercase());
        name
    }
}

/// A test prompt, or the mixture of an arm.
struct TestPrompt {
    /// As the configuration names it.
    given: Vec<MixEntry>,
    mixture: Mixture,
    /// Its name, made unique if two prompts have the same name.
    name: String,
}

impl TestPrompt {
    /// The values of `--ppe` and of `prompt.mix`.
    fn flags(&self) -> (Option<String>, Vec<MixEntry>) {
        match &self.given[..] {
            [one] => (Some(one.ppe.clone()), Vec::new()),
            several => (None, several.to_vec()),
        }
    }
}

fn evals(section: &SweepEvalSection, runs: &[SweepRun], configs: &BTreeMap<String, RunConfig>) -> Result<Vec<Eval>> {
    let benches = section.benchmarks.iter().map(|name| Ok(bench::find(name)?.name)).collect::<Result<Vec<_>>>()?;
    let repeated = (1..benches.len()).find(|&at| benches[..at].contains(&benches[at]));
    ensure!(repeated.is_none(), "sweep.eval.benchmarks: `{}` occurs twice", benches[repeated.unwrap_or(0)]);

    let mut prompts: Vec<TestPrompt> = Vec::new();
    let mut learn = |given: Vec<MixEntry>| -> Result<usize> {
        let mixture = Mixture::of_entries(&given)?;
        if let Some(at) = prompts.iter().position(|it| it.mixture == mixture) {
            return Ok(at);
        }
        let name = mixture.name();
        let numbered = (2..).map(|number| format!("{name}-{number}"));
        let free =
            std::iter::once(name.clone()).chain(numbered).find(|it| prompts.iter().all(|known| known.name != *it));
        prompts.push(TestPrompt { given, mixture, name: free.unwrap_or(name) });
        Ok(prompts.len() - 1)
    };
    let own: Vec<usize> = runs.iter().map(|run| learn(configs[&run.name].training_prompts())).collect::<Result<_>>()?;
    // A distilled prompt too, so that the untrained model is evaluated under it.
    runs.iter().try_for_each(|run| learn(configs[&run.name].prompt.entries()).map(drop))?;
    let named = section.test_prompts.iter().filter(|it| !["own", "all"].contains(&it.as_str()));
    let named: Vec<usize> =
        named.map(|name| learn(vec![MixEntry { ppe: name.clone(), weight: 1.0 }])).collect::<Result<_>>()?;
    let all: Vec<usize> = (0..prompts.len()).collect();
    let has = |word: &str| section.test_prompts.iter().any(|it| it == word);

    let mut names = Names::default();
    let mut evals = Vec::new();
    if section.base {
        for (base, config) in bases(runs, configs) {
            for prompt in &prompts {
                let name = names.give(&format!("{base}-under-{}", prompt.name));
                let (test_prompt, (ppe, mix)) = (prompt.name.clone(), prompt.flags());
                let benches = benches.clone();
                evals.push(Eval {
                    name,
                    run: None,
                    arm: None,
                    seed: None,
                    test_prompt,
                    benches,
                    ppe,
                    mix,
                    config: config.clone(),
                });
            }
        }
    }
    for (run, own) in runs.iter().zip(own) {
        let mut under = Vec::new();
        for at in has("own")
            .then_some(own)
            .into_iter()
            .chain(named.iter().copied())
            .chain(all.iter().copied().filter(|_| has("all")))
        {
            if under.contains(&at) {
                continue;
            }
            under.push(at);
            let prompt = &prompts[at];
            let (ppe, mix) = if at == own { (None, Vec::new()) } else { prompt.flags() };
            evals.push(Eval {
                name: names.give(&format!("{}-under-{}", run.name, prompt.name)),
                run: Some(run.name.clone()),
                arm: Some(run.arm.clone()),
                seed: Some(run.seed),
                test_prompt: prompt.name.clone(),
                benches: benches.clone(),
                ppe,
                mix,
                config: run.name.clone(),
            });
        }
    }
    Ok(evals)
}

/// The untrained models of a sweep: a name for each, and a run that has its configuration. Two models are different only if they
/// differ in a setting that affects the rendering of prompts or the sampling.
fn bases(runs: &[SweepRun], configs: &BTreeMap<String, RunConfig>) -> Vec<(String, String)> {
    let asked = |run: &SweepRun| {
        let config = &configs[&run.name];
        let (prompt, rollout) = (&config.prompt, &config.rollout);
        (
            config.model.clone(),
            (prompt.template.clone(), prompt.prefill),
            (rollout.top_k, rollout.min_p.to_bits(), rollout.stop.clone()),
        )
    };
    let mut found: Vec<(_, &SweepRun)> = Vec::new();
    for run in runs {
        let what = asked(run);
        if !found.iter().any(|(it, _)| *it == what) {
            found.push((what, run));
        }
    }
    let one = found.len() == 1;
    let name = |at: usize| if one { "base".to_owned() } else { format!("base{}", at + 1) };
    found.iter().enumerate().map(|(at, (_, run))| (name(at), run.name.clone())).collect()
}
