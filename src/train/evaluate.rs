//! Evaluation on held-out questions: the same questions and the same random numbers every time.

use super::sample::{Group, Item};
use super::{Training, Watching};
use crate::model::lora::Adapter;
use crate::rollout::{Engine, Sampling};
use crate::run::{EvalView, atomic};
use crate::stats::{Proportion, mean};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::time::Instant;

/// Shares of the held-out questions, one completion each.
#[derive(Clone, Debug)]
pub struct Evaluation {
    pub sampled: Scores,
    /// With the most probable token at every step.
    pub greedy: Option<Scores>,
}

#[derive(Clone, Debug)]
pub struct Scores {
    pub accuracy: Proportion,
    /// Absent where the prior prompt asks for no format.
    pub format: Option<Proportion>,
    pub mean_length: f64,
    pub truncated: f64,
}

/// The step number that evaluations draw with: no training step has it.
const STEP: u64 = u64::MAX;

/// Evaluates `adapter` and writes every completion to the run's `eval/` folder. `None` when there is nothing to evaluate
/// on, or when asked to stop.
pub fn evaluate(
    training: &Training,
    engine: &mut dyn Engine,
    adapter: &Adapter,
    step: usize,
) -> Result<Option<Evaluation>> {
    if training.held_out.is_empty() {
        return Ok(None);
    }
    let plain = Sampling { temperature: 1.0, top_p: 1.0, top_k: 0, min_p: 0.0 };
    let Some(sampled) = scores(training, engine, adapter, step, "sampled", &plain)? else { return Ok(None) };
    let mut evaluation = Evaluation { sampled, greedy: None };
    if training.config.eval.greedy {
        let Some(greedy) = scores(training, engine, adapter, step, "greedy", &Sampling::greedy())? else {
            return Ok(None);
        };
        evaluation.greedy = Some(greedy);
    }
    Ok(Some(evaluation))
}

fn scores(
    training: &Training,
    engine: &mut dyn Engine,
    adapter: &Adapter,
    step: usize,
    kind: &str,
    sampling: &Sampling,
) -> Result<Option<Scores>> {
    let items: Vec<&Item> = training.held_out.iter().collect();
    let mut watch = Watching { training, phase: "evaluation", tokens: 0, shown: Instant::now() };
    let drawn = training.sampler.groups(engine, Some(adapter), &items, 1, sampling, STEP, &mut watch)?;
    let Some(groups) = drawn else { return Ok(None) };
    let mut lines = Vec::new();
    for group in &groups {
        serde_json::to_writer(&mut lines, &training.sampler.record(group, step, &[0.0]))?;
        lines.push(b'\n');
    }
    let folder = training.run.eval();
    std::fs::create_dir_all(&folder).with_context(|| format!("create `{}`", folder.display()))?;
    atomic::write(&folder.join(format!("step-{step:06}-{kind}.jsonl")), &lines)?;
    Ok(Some(Scores::new(training, &groups)))
}

impl Scores {
    fn new(training: &Training, groups: &[Group]) -> Self {
        let branches = || groups.iter().map(|group| &group.branches[0]);
        let names = training.sampler.rewards.names();
        let share = |component: &str| {
            let index = names.iter().position(|name| *name == component)?;
            let successes = branches().filter(|branch| branch.scored.components[index] == 1.0).count();
            Some(Proportion::new(successes, groups.len()))
        };
        Self {
            accuracy: share("accuracy").unwrap_or_else(|| Proportion::new(0, groups.len())),
            format: share("format"),
            mean_length: mean(&branches().map(|b| b.branch.tokens.len() as f64).collect::<Vec<_>>()),
            truncated: branches().filter(|branch| branch.truncated()).count() as f64 / groups.len() as f64,
        }
    }
}

impl Evaluation {
    pub fn view<'a>(&self, label: &'a str) -> EvalView<'a> {
        EvalView {
            label,
            accuracy: self.sampled.accuracy,
            format: self.sampled.format,
            greedy_accuracy: self.greedy.as_ref().map(|greedy| greedy.accuracy),
        }
    }

    /// `eval/...` metrics.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let mut metrics = BTreeMap::new();
        for (kind, scores) in [("sampled", Some(&self.sampled)), ("greedy", self.greedy.as_ref())] {
            let Some(scores) = scores else { continue };
            metrics.insert(format!("eval/{kind}/accuracy"), scores.accuracy.value());
            metrics.insert(format!("eval/{kind}/mean_length"), scores.mean_length);
            metrics.insert(format!("eval/{kind}/clipped_ratio"), scores.truncated);
            if let Some(format) = &scores.format {
                metrics.insert(format!("eval/{kind}/format"), format.value());
            }
        }
        metrics
    }
}
