//! `summary.json`: the results of a finished run, for programs.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Serialize;

use super::evaluate::{HeldOutEvaluation, HeldOutScores};
use crate::disk::atomic;
use crate::disk::hash::sha256_file;
use crate::eval::score::ShareEstimate;
use crate::run::inputs::ALL;
use crate::run::{Manifest, RunDir, metrics, status};
use crate::stats::{PairedComparison, Proportion};

#[derive(Serialize)]
struct RunSummary {
    name: String,
    rft: &'static str,
    model: String,
    data: String,
    prompt: String,
    seed: u64,
    steps: usize,
    /// Tokens of all prompts and completions, and of the teacher's if a prompt was distilled.
    num_tokens: Option<f64>,
    /// Sum of the steps' times, over all sessions.
    training_seconds: f64,
    /// The metrics of the last step.
    metrics: BTreeMap<String, Option<f64>>,
    held_out: Option<HeldOutSummary>,
    /// Hashes of the inputs and of the adapter.
    sha256: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
struct HeldOutSummary {
    questions: usize,
    /// One completion per question at temperature 1.
    sampled: KindSummary,
    greedy: Option<KindSummary>,
}

#[derive(Serialize)]
struct KindSummary {
    accuracy: ShareSummary,
    format: Option<ShareSummary>,
    /// Before and after training, in tokens.
    mean_length: [Option<f64>; 2],
    /// Share of completions at the maximum length, before and after training.
    truncated: [Option<f64>; 2],
    /// The questions of each prior prompt of a mixture, by its name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    by_prompt: BTreeMap<String, KindSummary>,
}

#[derive(Serialize)]
struct ShareSummary {
    before: Option<ShareEstimate>,
    after: ShareEstimate,
    /// After minus before, paired by question.
    change: Option<PairedComparison>,
}

fn share(it: Proportion) -> ShareEstimate {
    ShareEstimate { value: it.value(), interval: it.interval }
}

/// Writes the summary of a run whose last step is done.
pub fn write(run: &RunDir, before: Option<&HeldOutEvaluation>, after: Option<&HeldOutEvaluation>) -> Result<()> {
    let manifest = Manifest::read(run)?;
    let records = metrics::read(&run.metrics())?;
    let steps: Vec<_> = records.into_iter().filter(|record| record.values.contains_key("reward")).collect();
    let last = steps.last().map(|record| record.values.clone()).unwrap_or_default();
    let weights = run.adapter().join("adapter_model.safetensors");
    let whole = |files: &BTreeMap<String, String>| files.get(ALL).cloned().unwrap_or_default();
    let summary = RunSummary {
        name: status::name(run.path()),
        rft: env!("CARGO_PKG_VERSION"),
        seed: manifest.seed,
        steps: manifest.steps,
        num_tokens: last.get("num_tokens").copied().flatten(),
        training_seconds: steps.iter().filter_map(|step| step.values.get("step_time").copied().flatten()).sum(),
        metrics: last,
        held_out: after.map(|after| HeldOutSummary::new(before, after)),
        sha256: BTreeMap::from([
            ("adapter", sha256_file(&weights).with_context(|| format!("read `{}`", weights.display()))?),
            ("model", whole(&manifest.model.files)),
            ("data", whole(&manifest.data.files)),
            ("prompt", manifest.learned_prompt().sha256.clone()),
        ]),
        prompt: manifest.prompt_label(),
        model: manifest.model.path,
        data: manifest.data.path,
    };
    let mut text = serde_json::to_vec_pretty(&summary).context("encode the summary")?;
    text.push(b'\n');
    atomic::write(&run.summary(), &text)
}

impl HeldOutSummary {
    fn new(before: Option<&HeldOutEvaluation>, after: &HeldOutEvaluation) -> Self {
        Self {
            questions: after.sampled.accuracy.n,
            sampled: KindSummary::new(before.map(|it| &it.sampled), &after.sampled),
            greedy: after
                .greedy
                .as_ref()
                .map(|greedy| KindSummary::new(before.and_then(|it| it.greedy.as_ref()), greedy)),
        }
    }
}

impl KindSummary {
    fn new(before: Option<&HeldOutScores>, after: &HeldOutScores) -> Self {
        let accuracy = ShareSummary {
            before: before.map(|it| share(it.accuracy)),
            after: share(after.accuracy),
            change: before.and_then(|before| after.accuracy_change(before)),
        };
        let format = after.format.map(|format| ShareSummary {
            before: before.and_then(|it| it.format).map(share),
            after: share(format),
            change: before.and_then(|before| after.format_change(before)),
        });
        Self {
            accuracy,
            format,
            mean_length: [before.map(|it| it.mean_length), Some(after.mean_length)],
            truncated: [before.map(|it| it.truncated), Some(after.truncated)],
            by_prompt: after
                .by_prompt
                .iter()
                .map(|(name, after)| (name.clone(), Self::new(before.and_then(|it| it.by_prompt.get(name)), after)))
                .collect(),
        }
    }
}
