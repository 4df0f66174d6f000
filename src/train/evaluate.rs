//! Evaluation on held-out questions, with the same questions and random numbers every time.

use super::sample::{DrawCounts, TrainQuestion};
use super::{Training, Watching};
use crate::disk::{atomic, files};
use crate::model::lora::Adapter;
use crate::rollout::{EVALUATION_STEP, Engine, Sampling};
use crate::run::dir::{GREEDY, SAMPLED};
use crate::run::{EvalView, GroupRecord, RunDir, completions};
use crate::stats::{PairedComparison, Proportion, compare_paired, mean};
use anyhow::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Shares of the held-out questions, with one completion each.
#[derive(Clone, Debug)]
pub struct HeldOutEvaluation {
    pub sampled: HeldOutScores,
    /// With greedy decoding.
    pub greedy: Option<HeldOutScores>,
}

#[derive(Clone, Debug)]
pub struct HeldOutScores {
    pub accuracy: Proportion,
    /// Absent if the prior prompt does not ask for a format.
    pub format: Option<Proportion>,
    pub mean_length: f64,
    pub truncated: f64,
    /// For each question, whether its completion is right.
    right: Vec<bool>,
    /// For each question whose prior prompt asks for a format, whether its completion has it.
    formatted: Option<Vec<bool>>,
    /// The scores of the questions of each prior prompt of a mixture, by its name.
    pub by_prompt: BTreeMap<String, HeldOutScores>,
}

/// Evaluates `adapter` as of `step` and writes every completion to the run's `eval/` folder. An existing result is read
/// instead, because the run was interrupted after it. `None` if there are no questions, or if a stop was requested.
pub fn evaluate(
    training: &Training,
    engine: &mut dyn Engine,
    adapter: &Adapter,
    step: usize,
) -> Result<Option<HeldOutEvaluation>> {
    let Training { config, run, held_out, .. } = training;
    if held_out.is_empty() {
        return Ok(None);
    }
    for (kind, sampling) in kinds(config.eval.greedy) {
        let path = run.evaluation(step, kind);
        if !path.exists() {
            let Some(lines) = draw(training, engine, adapter, step, &sampling)? else { return Ok(None) };
            run.check_presence()?;
            files::create_dir_all(&run.eval()).map_err(|error| atomic::write_error(&run.eval(), &error))?;
            atomic::write(&path, &lines)?;
        }
    }
    read(run, step, config.eval.greedy)
}

/// The evaluation after `step` from the run's `eval/` folder.
pub fn read(run: &RunDir, step: usize, greedy: bool) -> Result<Option<HeldOutEvaluation>> {
    let scores = |kind| -> Result<Option<HeldOutScores>> {
        let path = run.evaluation(step, kind);
        path.exists().then(|| Ok(HeldOutScores::by_prompt(&completions::read(&path)?))).transpose()
    };
    let Some(sampled) = scores(SAMPLED)? else { return Ok(None) };
    let greedy_scores = if greedy { scores(GREEDY)? } else { None };
    Ok((greedy_scores.is_some() == greedy).then_some(HeldOutEvaluation { sampled, greedy: greedy_scores }))
}

fn kinds(greedy: bool) -> impl Iterator<Item = (&'static str, Sampling)> {
    let sampled = Sampling::plain(1.0);
    std::iter::once((SAMPLED, sampled)).chain(greedy.then(|| (GREEDY, Sampling::greedy())))
}

/// One completion per held-out question, as lines of the log.
fn draw(
    training: &Training,
    engine: &mut dyn Engine,
    adapter: &Adapter,
    step: usize,
    sampling: &Sampling,
) -> Result<Option<Vec<u8>>> {
    let items: Vec<&TrainQuestion> = training.held_out.iter().collect();
    let mut watch = Watching { training, phase: "evaluation", tokens: 0, shown: Instant::now() };
    let mut draws = DrawCounts::default();
    let groups =
        training.scorer.groups(engine, Some(adapter), &items, 1, sampling, EVALUATION_STEP, &mut draws, &mut watch)?;
    let Some(groups) = groups else { return Ok(None) };
    let mut lines = Vec::new();
    for group in &groups {
        serde_json::to_writer(&mut lines, &training.scorer.record(group, step, &[0.0]))?;
        lines.push(b'\n');
    }
    Ok(Some(lines))
}

impl HeldOutScores {
    /// The scores of all groups, and of those of each prompt of a mixture.
    fn by_prompt(groups: &[GroupRecord]) -> Self {
        let names: BTreeSet<&String> = groups.iter().filter_map(|group| group.ppe.as_ref()).collect();
        let of = |name: &String| {
            let groups: Vec<&GroupRecord> = groups.iter().filter(|group| group.ppe.as_ref() == Some(name)).collect();
            (name.clone(), Self::new(&groups))
        };
        let by_prompt = names.into_iter().map(of).collect();
        Self { by_prompt, ..Self::new(&groups.iter().collect::<Vec<_>>()) }
    }

    fn new(groups: &[&GroupRecord]) -> Self {
        let completions = || groups.iter().flat_map(|group| &group.completions);
        let n = completions().count();
        let full = |component: &str| -> Option<Vec<bool>> {
            completions().next()?.rewards.get(component)?;
            Some(completions().map(|completion| completion.rewards[component] == Some(1.0)).collect())
        };
        let share = |of: &[bool]| Proportion::new(of.iter().filter(|it| **it).count(), of.len());
        let right = full("accuracy").unwrap_or_else(|| vec![false; n]);
        // No value: the prior prompt does not ask for a format.
        let formatted = completions().filter_map(|completion| completion.rewards.get("format").copied().flatten());
        let formatted = Some(formatted.map(|it| it == 1.0).collect::<Vec<_>>()).filter(|it| !it.is_empty());
        Self {
            accuracy: share(&right),
            format: formatted.as_deref().map(share),
            right,
            formatted,
            by_prompt: BTreeMap::new(),
            mean_length: mean(&completions().map(|completion| completion.tokens as f64).collect::<Vec<_>>()),
            truncated: completions().filter(|completion| completion.finish == "length").count() as f64 / n as f64,
        }
    }
}

impl HeldOutScores {
    /// The change of the accuracy since `before`, paired by question. `None` if the questions are not the same.
    pub fn accuracy_change(&self, before: &Self) -> Option<PairedComparison> {
        change(&before.right, &self.right)
    }

    /// The same for the format.
    pub fn format_change(&self, before: &Self) -> Option<PairedComparison> {
        change(before.formatted.as_ref()?, self.formatted.as_ref()?)
    }
}

fn change(before: &[bool], after: &[bool]) -> Option<PairedComparison> {
    (before.len() == after.len() && !after.is_empty()).then(|| compare_paired(before, after, 0.95))
}

impl HeldOutEvaluation {
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
            for (name, scores) in &scores.by_prompt {
                metrics.insert(format!("eval/{kind}/prompt/{name}/accuracy"), scores.accuracy.value());
                if let Some(format) = &scores.format {
                    metrics.insert(format!("eval/{kind}/prompt/{name}/format"), format.value());
                }
            }
        }
        metrics
    }
}
