//! Log-probabilities of completions that another program has sampled.

use super::learner::{Keep, Learner};
use super::pass::{TrainGroup, micro_batches};
use crate::model::lora::Adapter;
use anyhow::Result;

/// The log-probability of every token of `groups`, in their order, from forward passes over micro-batches of at most `max_tokens`
/// rows; `None` if canceled between two of them.
pub fn logprobs(
    learner: &mut dyn Learner,
    adapter: Option<&Adapter>,
    groups: &[TrainGroup],
    temperature: f32,
    max_tokens: usize,
    cancelled: &dyn Fn() -> bool,
) -> Result<Option<Vec<f32>>> {
    let mut logprobs = Vec::new();
    for micro in micro_batches(groups, |completion| !completion.tokens.is_empty(), max_tokens) {
        if cancelled() {
            return Ok(None);
        }
        learner.forward(adapter, &micro.pack, Keep::Nothing)?;
        let stats = learner.token_stats(&micro.pack, temperature)?;
        for range in &micro.ranges {
            logprobs.extend(stats[range.clone()].iter().map(|stats| stats.logprob));
        }
    }
    Ok(Some(logprobs))
}
