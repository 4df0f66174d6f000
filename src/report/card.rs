//! The model card of a run: a folder of files for a model repository on the Hub.
//!
//! Every number comes from a file of the run or of its evaluations.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::chart::{Axis, LineChart, Series};
use super::document::percent;
use super::load::{Material, ReportedEvaluation, ReportedRun};
use crate::disk::{atomic, files};
use crate::eval::bench::{self, QuestionOrigin};
use crate::model::hub::is_hub_id;
use crate::prompt::WeightedPrompt;
use crate::run::GroupRecord;
use crate::stats::Proportion;

/// The curves on the card, in the order of their names: metric, label, unit.
const CURVES: [(&str, &str, &str); 4] = [
    ("reward", "reward", ""),
    ("rewards/accuracy/mean", "accuracy reward", ""),
    ("rewards/format/mean", "format reward", ""),
    ("completions/mean_length", "length", "tokens"),
];

/// What a repository contains besides the card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushedWeights {
    Adapter,
    Merged,
}

/// Writes `README.md`, `curves/*.svg`, `.eval_results/*.yaml` and the run's `config.toml`, `prompt.toml` and `manifest.json` to
/// `folder`, for a repository with the id `id`. `material` has the run that is in the folder `run`, and its evaluations.
pub fn write(material: &Material, run: &Path, id: &str, weights: PushedWeights, folder: &Path) -> Result<()> {
    let [reported] = &material.runs[..] else {
        bail!("`{}` is not a finished run: {}", run.display(), material.left_out.join(" ").trim_end_matches('.'))
    };
    for name in ["config.toml", "prompt.toml", "manifest.json"] {
        let source = run.join(name);
        if source.is_file() {
            let bytes = std::fs::read(&source).with_context(|| format!("read `{}`", source.display()))?;
            atomic::write(&folder.join(name), &bytes)?;
        }
    }
    let curves = curves(reported);
    create(&folder.join("curves"))?;
    for (file, svg) in &curves {
        atomic::write(&folder.join("curves").join(file), svg.as_bytes())?;
    }
    let evaluations: Vec<&ReportedEvaluation> = material.evaluations.iter().filter(|it| it.run == Some(0)).collect();
    for (file, yaml) in eval_results(&evaluations) {
        create(&folder.join(".eval_results"))?;
        atomic::write(&folder.join(".eval_results").join(file), yaml.as_bytes())?;
    }
    atomic::write(&folder.join("README.md"), card(reported, &evaluations, id, weights, &curves).as_bytes())
}

fn create(folder: &Path) -> Result<()> {
    files::create_dir_all(folder).map_err(|error| atomic::write_error(folder, &error))
}

/// File names and pictures of the metrics that the run has logged.
fn curves(run: &ReportedRun) -> Vec<(String, String)> {
    let mut curves = Vec::new();
    for (metric, label, unit) in CURVES {
        let points: Vec<(u64, f64)> = (run.steps.iter())
            .filter_map(|step| Some((step.step as u64, step.values.get(metric).copied().flatten()?)))
            .collect();
        if points.is_empty() {
            continue;
        }
        let chart = LineChart {
            description: format!("{label} over steps"),
            x: Axis::new("step", ""),
            y: Axis::new(label, unit),
            series: vec![Series::over_seeds(&run.name, &[points])],
        };
        curves.push((format!("{}.svg", label.replace(' ', "-")), chart.panel()));
    }
    curves
}

/// A file for each benchmark of the Hub whose questions were all evaluated, in the form that the Hub reads
/// (<https://huggingface.co/docs/hub/eval-results>).
fn eval_results(evaluations: &[&ReportedEvaluation]) -> Vec<(String, String)> {
    let mut results = Vec::new();
    for evaluation in evaluations {
        for (name, bench) in &evaluation.benches {
            let Ok(known) = bench::find(name) else { continue };
            let QuestionOrigin::Hub(set) = known.origin else { continue };
            let scores = &bench.scores;
            if scores.questions < scores.of {
                continue;
            }
            let notes = format!(
                "accuracy in percent, 95 % interval over questions {:.1} to {:.1}, {} questions, {} samples each, prior prompt {}, \
                 temperature {}, graded by rft {}",
                100.0 * scores.accuracy.interval.low,
                100.0 * scores.accuracy.interval.high,
                scores.questions,
                scores.samples,
                evaluation.prompt,
                evaluation.identity.temperature,
                env!("CARGO_PKG_VERSION"),
            );
            // A JSON text is a YAML text.
            let yaml = format!(
                "- dataset:\n    id: {}\n    task_id: {}\n  value: {:.1}\n  notes: {}\n",
                json!(set.id),
                json!(name),
                100.0 * scores.accuracy.value,
                json!(notes)
            );
            results.push((format!("{name}-{}.yaml", file_name(&evaluation.prompt)), yaml));
        }
    }
    results
}

/// A prompt's name as a part of a file name.
fn file_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect()
}

fn card(
    run: &ReportedRun,
    evaluations: &[&ReportedEvaluation],
    id: &str,
    weights: PushedWeights,
    curves: &[(String, String)],
) -> String {
    let base = &run.manifest.model.path;
    let mut out = front_matter(run, weights);
    let kind = match weights {
        PushedWeights::Adapter => "A LoRA adapter for",
        PushedWeights::Merged => "A model with a merged LoRA adapter, based on",
    };
    let (name, prompt) = (id.rsplit('/').next().unwrap_or(id), &run.manifest.learned_prompt().name);
    let how = match run.manifest.distilled {
        Some(_) => "trained by distilling the prior prompt",
        None => "trained with GRPO under the prior prompt",
    };
    _ = write!(
        out,
        "# {}\n\n{kind} {}, {how} `{}` for {} steps with rft {}.\n\n",
        plain(name),
        link(base),
        plain(prompt),
        run.manifest.steps,
        env!("CARGO_PKG_VERSION")
    );
    prior_prompt(&mut out, run);
    results(&mut out, run, evaluations);
    training(&mut out, run, curves);
    versions(&mut out, run);
    out
}

/// The metadata that the Hub reads.
fn front_matter(run: &ReportedRun, weights: PushedWeights) -> String {
    let mut out = "---\n".to_owned();
    let (model, data) = (&run.manifest.model, &run.manifest.data.path);
    if is_hub_id(&model.path) {
        _ = writeln!(out, "base_model: {}", json!(model.path));
    }
    if is_hub_id(data) {
        _ = writeln!(out, "datasets:\n- {}", json!(data));
    }
    let library = if weights == PushedWeights::Adapter { "peft" } else { "transformers" };
    _ = write!(out, "library_name: {library}\npipeline_tag: text-generation\ntags:\n- grpo\n- lora\n- rft\n---\n\n");
    out
}

fn prior_prompt(out: &mut String, run: &ReportedRun) {
    out.push_str("## Prior prompt\n\n");
    let identity = run.manifest.learned_prompt();
    let Some(mixture) = &run.mixture else {
        _ = write!(out, "`{}`, wording `{}`.\n\n", plain(&identity.name), plain(&identity.wording));
        return;
    };
    let placed = match run.manifest.distilled {
        Some(_) => "The base model got it before the questions, as the teacher",
        None => "It was placed before the questions",
    };
    for WeightedPrompt { prompt, weight } in mixture.parts() {
        let weight = if mixture.is_mixed() { format!(", weight {weight}") } else { String::new() };
        // The prompt was read from the run's folder; the manifest knows where it came from.
        let wording =
            identity.mixture.iter().find(|it| it.name == prompt.name).map_or(&identity.wording, |it| &it.wording);
        _ = write!(out, "`{}`, wording `{}`{weight}", plain(&prompt.name), plain(wording));
        match prompt.text.trim() {
            "" => out.push_str(".\n\n"),
            text => _ = write!(out, ". {placed}:\n\n{}\n\n", fenced(text)),
        }
    }
}

/// A block of foreign text that cannot end early.
fn fenced(text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or_default();
    let fence = "`".repeat(3.max(longest + 1));
    format!("{fence}text\n{text}\n{fence}")
}

fn results(out: &mut String, run: &ReportedRun, evaluations: &[&ReportedEvaluation]) {
    out.push_str("## Results\n\nAccuracies in percent with 95 % intervals. ");
    out.push_str("The intervals are for other questions; they do not include the variation between training runs.\n\n");
    if let Some(held_out) = &run.held_out {
        out.push_str("| held-out questions | before training | after training |\n|---|---|---|\n");
        let mut row = |label: &str, before: &[GroupRecord], after: &[GroupRecord]| {
            _ = writeln!(out, "| {label} ({}) | {} | {} |", before.len(), share(before), share(after));
        };
        row("sampled", &held_out.sampled.before, &held_out.sampled.after);
        if let Some(greedy) = &held_out.greedy {
            row("greedy", &greedy.before, &greedy.after);
        }
        out.push('\n');
    }
    let rows =
        evaluations.iter().flat_map(|evaluation| evaluation.benches.values().map(move |bench| (evaluation, bench)));
    let mut first = true;
    for (evaluation, bench) in rows {
        if first {
            out.push_str("| benchmark | prior prompt | accuracy | questions | samples | temperature |\n|---|---|---|---|---|---|\n");
            first = false;
        }
        let scores = &bench.scores;
        let of = if scores.questions < scores.of { format!(" of {}", scores.of) } else { String::new() };
        _ = writeln!(
            out,
            "| {} | `{}` | {} [{}, {}] | {}{of} | {} | {} |",
            plain(&scores.benchmark),
            plain(&evaluation.prompt),
            percent(scores.accuracy.value),
            percent(scores.accuracy.interval.low),
            percent(scores.accuracy.interval.high),
            scores.questions,
            scores.samples,
            evaluation.identity.temperature
        );
    }
    if !first {
        out.push('\n');
    }
}

/// The share of right answers, with its interval.
fn share(groups: &[GroupRecord]) -> String {
    let right = groups.iter().filter(|group| group.is_solved()).count();
    let share = Proportion::new(right, groups.len());
    format!("{} [{}, {}]", percent(share.value()), percent(share.interval.low), percent(share.interval.high))
}

fn training(out: &mut String, run: &ReportedRun, curves: &[(String, String)]) {
    let data = &run.manifest.data;
    _ = write!(out, "## Training\n\nThe questions are from {}", link(&data.path));
    if let Some(revision) = &data.revision {
        _ = write!(out, " at `{}`", plain(revision));
    }
    out.push_str(". `config.toml` has all settings; these are the main ones:\n\n| setting | value |\n|---|---|\n");
    for key in [
        "grpo.loss_type",
        "grpo.beta",
        "lora.r",
        "lora.lora_alpha",
        "rollout.prompts_per_step",
        "rollout.num_generations",
        "rollout.max_completion_length",
        "rollout.temperature",
        "train.learning_rate",
        "train.seed",
    ] {
        if let Some(value) = run.config.get(key) {
            _ = writeln!(out, "| `{key}` | {} |", plain(value));
        }
    }
    out.push('\n');
    for (file, _) in curves {
        _ = writeln!(out, "![{}](curves/{file})", file.trim_end_matches(".svg").replace('-', " "));
    }
    out.push('\n');
}

fn versions(out: &mut String, run: &ReportedRun) {
    out.push_str("## Versions and hashes\n\n| what | value |\n|---|---|\n");
    let mut row = |what: &str, value: Option<&str>| {
        if let Some(value) = value {
            _ = writeln!(out, "| {what} | `{}` |", plain(value));
        }
    };
    let manifest = &run.manifest;
    row("base model", manifest.model.files.get("all").map(String::as_str));
    row("revision of the base model", manifest.model.revision.as_deref());
    row("questions", manifest.data.files.get("all").map(String::as_str));
    row("prior prompt", Some(&manifest.learned_prompt().sha256));
    row("adapter weights", run.adapter_sha256.as_deref());
    row("rft", manifest.sessions.last().map(|session| session.rft.as_str()));
    row("device", manifest.sessions.last().map(|session| session.device.as_str()));
    out.push_str("\nHashes are SHA-256.\n");
}

/// A Hub id as a link; other sources as their last part, because a path of another machine is of no use.
fn link(source: &str) -> String {
    match is_hub_id(source) {
        true => format!("[{source}](https://huggingface.co/{source})"),
        false => format!("`{}`", plain(Path::new(source).file_name().and_then(|it| it.to_str()).unwrap_or(source))),
    }
}

/// A foreign text inside Markdown: one line, without characters that end a table cell or a code span.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).filter(|c| !"|`<>[]".contains(*c)).collect()
}
