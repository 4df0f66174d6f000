//! The arms of a report: runs form one arm only if they differ in nothing but the seed.

use std::collections::{BTreeMap, BTreeSet};

use super::run::ReportedRun;
use super::{Material, quoted};
use crate::run::inputs::{ALL, short};

/// Keys that do not change what a run learns, and the keys of sources, which are compared by their contents.
const ELSEWHERE: [&str; 17] = [
    "run.name",
    "run.dir",
    "train.seed",
    "train.threads",
    "train.save_steps",
    "train.save_total_limit",
    "eval.every",
    "eval.greedy",
    "eval.path",
    "model.path",
    "data.path",
    "prompt.ppe",
    "prompt.wording",
    "prompt.mix",
    "prompt.template",
    "lora.init_adapter",
    "data.difficulty",
];

/// The number of keys in the name of an arm.
const NAMED: usize = 3;

/// Makes every arm consist of runs that differ in the seed alone.
pub fn settle(material: &mut Material) {
    material.split = split(&mut material.runs);
    material.left_out.extend(remove_repeated(&mut material.runs));
}

/// Splits arms whose runs differ in more than the seed, and names the new arms after what differs. Returns a sentence for each
/// arm that was split.
fn split(runs: &mut [ReportedRun]) -> Vec<String> {
    let mut said = Vec::new();
    let names: BTreeSet<String> = runs.iter().map(|run| run.arm.clone()).collect();
    for name in names {
        let mut of: Vec<&mut ReportedRun> = runs.iter_mut().filter(|run| run.arm == name).collect();
        let settings: Vec<BTreeMap<String, String>> = of.iter().map(|run| settings(run)).collect();
        let differing = differing(&settings);
        if differing.is_empty() {
            continue;
        }
        let mut arms: Vec<(Vec<Option<&String>>, String)> = Vec::new();
        for (run, settings) in of.iter_mut().zip(&settings) {
            let values: Vec<Option<&String>> = differing.iter().map(|key| settings.get(key)).collect();
            run.arm = match arms.iter().find(|(known, _)| *known == values) {
                Some((_, arm)) => arm.clone(),
                None => {
                    let arm = named(&name, &differing, &values, arms.iter().map(|(_, arm)| arm.as_str()));
                    arms.push((values, arm.clone()));
                    arm
                }
            };
            run.varies = differing.iter().map(|key| (key.clone(), settings.get(key).cloned().into())).collect();
        }
        let keys: Vec<String> = differing.iter().map(|key| quoted(key)).collect();
        said.push(format!(
            "The runs of {} form {} arms, because they differ in more than the seed: in {}.",
            quoted(&name),
            arms.len(),
            keys.join(", ")
        ));
    }
    said
}

/// Removes runs that repeat another run of their arm, with the same seed. Returns a sentence for each.
fn remove_repeated(runs: &mut Vec<ReportedRun>) -> Vec<String> {
    let (mut said, mut kept) = (Vec::new(), BTreeMap::new());
    runs.retain(|run| match kept.insert((run.arm.clone(), run.seed), run.name.clone()) {
        None => true,
        Some(first) => {
            let sentence = format!(
                "The run {} is left out: {} has the same configuration and the same seed.",
                quoted(&run.name),
                quoted(&first)
            );
            said.push(sentence);
            kept.insert((run.arm.clone(), run.seed), first);
            false
        }
    });
    said
}

/// Everything that can change what a run learns, except its seed.
pub(super) fn settings(run: &ReportedRun) -> BTreeMap<String, String> {
    let manifest = &run.manifest;
    // Sources of a single file have no hash of all files.
    let whole = |files: &BTreeMap<String, String>| match files.get(ALL) {
        Some(all) => short(all).to_owned(),
        None => files.values().map(|hash| short(hash)).collect::<Vec<_>>().join(" "),
    };
    let mut settings: BTreeMap<String, String> = run
        .config
        .iter()
        .filter(|(key, _)| !ELSEWHERE.contains(&key.as_str()))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    settings.insert("model".into(), whole(&manifest.model.files));
    let rates = manifest.difficulty.iter().flat_map(|it| it.files.values());
    settings.extend(rates.map(|hash| ("pass rates".to_owned(), short(hash).to_owned())));
    // The questions of the generator depend on the seed; only files are the same for all seeds.
    let files = manifest.data.files.iter().filter(|(name, _)| *name != ALL);
    settings.insert("data".into(), files.map(|(_, hash)| short(hash)).collect::<Vec<_>>().join(" "));
    settings.insert("prompt text".into(), short(&manifest.learned_prompt().sha256).to_owned());
    settings.insert("steps".into(), manifest.steps.to_string());
    let sources = [
        ("chat template", &manifest.template),
        ("initial adapter", &manifest.init_adapter),
        ("held-out questions", &manifest.held_out),
    ];
    for (what, source) in sources {
        settings.extend(source.as_ref().map(|source| (what.to_owned(), whole(&source.files))));
    }
    settings
}

/// The keys that do not have the same value in all settings.
fn differing(settings: &[BTreeMap<String, String>]) -> Vec<String> {
    let keys: BTreeSet<&String> = settings.iter().flat_map(BTreeMap::keys).collect();
    let mut differing: Vec<String> = keys
        .into_iter()
        .filter(|key| settings.iter().any(|it| it.get(*key) != settings[0].get(*key)))
        .cloned()
        .collect();
    // A number of steps that follows from `train.steps` is the same difference.
    if differing.iter().any(|key| key == "train.steps") {
        differing.retain(|key| key != "steps");
    }
    differing
}

fn named<'a>(name: &str, keys: &[String], values: &[Option<&String>], taken: impl Iterator<Item = &'a str>) -> String {
    let pair = |(key, value): (&String, &Option<&String>)| {
        let key = key.rsplit('.').next().unwrap_or(key);
        format!("{key} {}", value.map_or("unset", String::as_str))
    };
    let pairs: Vec<String> = keys.iter().zip(values).take(NAMED).map(pair).collect();
    let arm = format!("{name} ({})", pairs.join(", "));
    // Arms that differ only in keys that are not in the name get a number.
    match taken.filter(|it| it.starts_with(&arm)).count() {
        0 => arm,
        same => format!("{arm} #{}", same + 1),
    }
}
