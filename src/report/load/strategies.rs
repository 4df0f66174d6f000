//! Strategies: arms that differ in nothing but the wording of their prior prompt, and possibly in a learning rate that was tuned
//! for each wording.

use std::collections::BTreeMap;

use super::arms::settings;
use super::run::ReportedRun;
use crate::prompt::strategy;

/// The arms of one strategy.
#[derive(Clone, Debug, PartialEq)]
pub struct Strategy {
    pub name: String,
    /// One for each wording, in the order of the runs.
    pub arms: Vec<String>,
    /// Whether the arms have different learning rates.
    pub tuned: bool,
}

/// The keys that may differ between the wordings of a strategy.
const OF_WORDING: [&str; 2] = ["prompt text", "train.learning_rate"];

/// The strategies of the runs, in their order.
pub fn strategies(runs: &[ReportedRun]) -> Vec<Strategy> {
    let mut found: Vec<(BTreeMap<String, String>, Strategy, String)> = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for run in runs {
        if seen.contains(&run.arm.as_str()) {
            continue;
        }
        seen.push(&run.arm);
        let mut settings = settings(run);
        let rate = settings.get("train.learning_rate").cloned().unwrap_or_default();
        settings.retain(|key, _| !OF_WORDING.contains(&key.as_str()));
        let of = strategy(&run.manifest.learned_prompt().name);
        let is_distilled = run.manifest.distilled.is_some();
        settings.insert("strategy".to_owned(), of.to_owned());
        match found.iter_mut().find(|(known, _, _)| *known == settings) {
            Some((_, strategy, first)) => {
                strategy.arms.push(run.arm.clone());
                strategy.tuned |= rate != *first;
            }
            None => {
                let is_taken = found.iter().any(|(_, strategy, _)| strategy.name == of);
                let name = if is_taken || is_distilled { run.arm.clone() } else { of.to_owned() };
                found.push((settings, Strategy { name, arms: vec![run.arm.clone()], tuned: false }, rate));
            }
        }
    }
    found.into_iter().map(|(_, strategy, _)| strategy).collect()
}
