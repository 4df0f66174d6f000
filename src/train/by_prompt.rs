//! The metrics of each prior prompt of a mixture, beside the means over all groups.

use std::collections::BTreeMap;

use super::sample::{RolloutScorer, ScoredCompletion, ScoredGroup};
use crate::stats::mean;

/// Mean reward, accuracy and format of a step's groups, and their number, for each prompt that was drawn in it. None if the run has
/// only one prompt.
pub(super) fn metrics(scorer: &RolloutScorer, groups: &[ScoredGroup]) -> BTreeMap<String, f64> {
    let mut metrics = BTreeMap::new();
    if !scorer.mixture.is_mixed() {
        return metrics;
    }
    let names = scorer.rewards.names();
    for (prior, prompt) in scorer.mixture.prompts().enumerate() {
        let groups = || groups.iter().filter(|group| group.prior == prior);
        if groups().next().is_none() {
            continue;
        }
        let mut add = |name: &str, value: f64| metrics.insert(format!("prompt/{}/{name}", prompt.name), value);
        let completions: Vec<&ScoredCompletion> = groups().flat_map(|group| &group.completions).collect();
        add("groups", groups().count() as f64);
        add("reward", mean(&completions.iter().map(|it| it.reward).collect::<Vec<_>>()));
        for (at, name) in names.iter().enumerate().filter(|(_, name)| ["accuracy", "format"].contains(*name)) {
            let values: Vec<f64> = completions.iter().filter_map(|it| it.scored.components[at]).collect();
            if !values.is_empty() {
                add(name, mean(&values));
            }
        }
    }
    metrics
}
