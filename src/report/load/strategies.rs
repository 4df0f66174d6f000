//! Strategies: arms that differ in nothing but the wording of their prior prompt, and possibly in a value that trials chose for each
//! wording.

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
    /// The value that was chosen for each arm; empty if no value was.
    pub tuned: Vec<String>,
}

/// What the arms of a strategy have in common.
#[derive(PartialEq)]
struct Common {
    strategy: String,
    settings: BTreeMap<String, String>,
    /// The setting that was chosen by trials for every arm.
    tuned: Option<String>,
}

/// The strategies of the runs, in their order. A mixture of prompts is not a strategy. Without trials that prove that a value was
/// chosen for an arm, a different value is a different arm and not a wording.
pub fn strategies(runs: &[ReportedRun]) -> Vec<Strategy> {
    let mut found: Vec<(Common, Strategy)> = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for run in runs {
        if seen.contains(&run.arm.as_str()) || !run.manifest.prompt.mixture.is_empty() {
            continue;
        }
        seen.push(&run.arm);
        let mut settings = settings(run);
        settings.remove("prompt text");
        let value = run.tuned.as_ref().and_then(|key| settings.remove(key));
        let of = strategy(&run.manifest.learned_prompt().name);
        let is_distilled = run.manifest.distilled.is_some();
        let common = Common { strategy: of.to_owned(), settings, tuned: run.tuned.clone() };
        match found.iter_mut().find(|(known, _)| *known == common) {
            Some((_, strategy)) => {
                strategy.arms.push(run.arm.clone());
                strategy.tuned.extend(value);
            }
            None => {
                let is_taken = found.iter().any(|(_, strategy)| strategy.name == of);
                let name = if is_taken || is_distilled { run.arm.clone() } else { of.to_owned() };
                let tuned = value.into_iter().collect();
                found.push((common, Strategy { name, arms: vec![run.arm.clone()], tuned }));
            }
        }
    }
    found.into_iter().map(|(_, strategy)| strategy).collect()
}
