//! The optimizer updates of a rollout batch.

use super::Training;
use super::sample::ScoredGroup;
use super::state::TrainState;
use crate::disk::atomic;
use crate::grpo::adamw::Hyper;
use crate::grpo::guard::{Gradient, Guard, UpdateFacts};
use crate::grpo::learner::Learner;
use crate::grpo::objective::Objective;
use crate::grpo::pass::{PassPlan, PassResult, TrainCompletion, TrainGroup, gradient_pass_unless};
use crate::grpo::schedule::learning_rate;
use crate::grpo::totals::{SamplingGap, Totals};
use crate::run::RunDir;
use anyhow::{Result, bail, ensure};
use std::collections::BTreeMap;

/// The result of a step's updates.
pub struct Updated {
    pub metrics: BTreeMap<String, f64>,
    /// Notes for the user.
    pub notes: Vec<String>,
}

/// A completion of the batch: (group, completion).
type CompletionIndex = (usize, usize);

/// Makes `num_iterations` passes over the batch in `steps_per_generation` mini-batches. `weights` are importance weights of
/// the tokens, by group and completion. `steps` is the length of the run. If a stop is requested, the result is `None` and the state is that before the first of the updates.
#[allow(clippy::too_many_arguments, reason = "the run, its state, and the batch")]
pub fn update(
    training: &Training,
    learner: &mut dyn Learner,
    state: &mut TrainState,
    objective: &Objective,
    guard: &mut Guard,
    groups: &[ScoredGroup],
    advantages: &[Vec<f32>],
    weights: Option<&[Vec<Vec<f32>>]>,
    steps: usize,
) -> Result<Option<Updated>> {
    let config = training.config;
    let places: Vec<CompletionIndex> =
        groups.iter().enumerate().flat_map(|(g, group)| (0..group.completions.len()).map(move |b| (g, b))).collect();
    let masked = |&(g, b): &CompletionIndex| {
        config.grpo.mask_truncated_completions && groups[g].completions[b].sampled.truncated()
    };
    let length = |&(g, b): &CompletionIndex| groups[g].completions[b].sampled.tokens.len();
    let rollout_tokens: usize = places.iter().filter(|place| !masked(place)).map(length).sum();

    let mini_batch = places.len().div_ceil(config.grpo.steps_per_generation);
    let updates_per_step = config.grpo.updates_per_step();
    let before = match updates_per_step {
        1 => None,
        _ => {
            learner.moments(&mut state.adamw)?;
            Some(state.clone())
        }
    };
    let (mut totals, mut gap) = (Totals::default(), SamplingGap::default());
    let (mut losses, mut norms, mut rate, mut notes) = (0.0, 0.0, 0.0, Vec::new());
    for index in 0..updates_per_step {
        let mini = places.chunks(mini_batch).nth(index % config.grpo.steps_per_generation).unwrap_or_default();
        let lengths: Vec<usize> = mini.iter().map(length).collect();
        let mask: Vec<bool> = mini.iter().map(masked).collect();
        let normalizer =
            objective.normalizer(&lengths, &mask).over_rollout(rollout_tokens, config.grpo.steps_per_generation);
        let plan = PassPlan {
            temperature: config.rollout.temperature as f32,
            max_tokens: config.train.max_tokens_per_micro_batch,
            gradient_checkpointing: config.train.gradient_checkpointing,
            off_policy: index > 0,
        };
        let parts = train_groups(groups, advantages, weights, mini, &mask);
        learner.begin(&state.adapter)?;
        let stopped = || training.stop.requested().is_some();
        let pass = gradient_pass_unless(learner, &state.adapter, &parts, objective, &normalizer, &plan, &stopped)?;
        let Some(pass) = pass else {
            // With one update per step, nothing has changed yet.
            before.into_iter().for_each(|before| *state = before);
            return Ok(None);
        };

        rate = learning_rate(&config.train, state.counters.updates, steps * updates_per_step);
        state.counters.updates += 1;
        let norm = learner.gradient_norm(&state.adapter)?;
        match guard.gradient(pass.totals.loss, norm) {
            Gradient::Sound => notes.extend(step(training, learner, state, guard, norm, rate, &pass)?),
            Gradient::Skip(advice) => {
                let dump = dump(training, state, &parts)?;
                notes.push(format!("{advice}\nthe batch is in `{dump}`"));
            }
            Gradient::Stop(advice) => {
                let dump = dump(training, state, &parts)?;
                bail!("{advice}; the last batch is in `{dump}`");
            }
        }
        if pass.out_of_memory > 0 {
            notes.push(format!(
                "{} micro-batches did not fit in the device's memory and were split in half\n\
                 hint: lower `train.max_tokens_per_micro_batch`, now {}",
                pass.out_of_memory, plan.max_tokens
            ));
        }
        losses += pass.totals.loss;
        norms += norm;
        totals.merge(&pass.totals);
        gap.0.merge(&pass.sampling_gap.0);
    }

    let mut metrics = totals.metrics(objective);
    metrics.extend(gap.metrics());
    metrics.insert("loss".to_owned(), losses / updates_per_step as f64);
    metrics.insert("grad_norm".to_owned(), norms / updates_per_step as f64);
    metrics.insert("learning_rate".to_owned(), rate);
    let sampled = groups.iter().flat_map(|group| &group.completions).flat_map(|it| &it.sampled.logprobs);
    let non_finite = totals.non_finite_logprobs + sampled.filter(|logprob| !logprob.is_finite()).count();
    metrics.insert("non_finite_logprobs".to_owned(), non_finite as f64);
    Ok(Some(Updated { metrics, notes }))
}

/// Makes one AdamW step on the adapter, with the gradient clipped by its global norm.
fn step(
    training: &Training,
    learner: &mut dyn Learner,
    state: &mut TrainState,
    guard: &mut Guard,
    norm: f64,
    rate: f64,
    pass: &PassResult,
) -> Result<Vec<String>> {
    let train = &training.config.train;
    let hyper = Hyper {
        lr: rate,
        beta1: train.adam_beta1,
        beta2: train.adam_beta2,
        eps: train.adam_epsilon,
        weight_decay: train.weight_decay,
    };
    let change = learner.step(&mut state.adapter, &mut state.adamw, &hyper, train.max_grad_norm)?;
    state.counters.optimizer_steps = state.adamw.step;
    ensure!(change.is_finite(), not_finite(training.run, state.counters.step + 1, rate, norm)?);
    let facts = UpdateFacts {
        learning_rate: rate,
        grad_norm: norm,
        completions_with_signal: pass.completions_with_signal,
        lora_b_moved: change.watched > 0.0,
        largest_change: change.all,
    };
    Ok(guard.update(&facts).iter().map(ToString::to_string).collect())
}

/// The error of an update after which the adapter is not finite. The adapter is not written anywhere.
fn not_finite(run: &RunDir, step: usize, rate: f64, norm: f64) -> Result<String> {
    let last = match run.newest_checkpoint(|_, _| ())? {
        Some(step) => format!("the last good checkpoint is `{}`", run.checkpoint(step).display()),
        None => "no checkpoint was saved before it".to_owned(),
    };
    Ok(format!(
        "step {step}: weights of the adapter became infinite or NaN in an update with learning rate {rate:e} and a gradient \
         norm of {norm:.2e}; {last}\n\
         hint: start again with a lower `train.learning_rate`"
    ))
}

/// The completions at `places`, by group and with their advantages.
fn train_groups<'a>(
    groups: &'a [ScoredGroup],
    advantages: &[Vec<f32>],
    weights: Option<&'a [Vec<Vec<f32>>]>,
    places: &[CompletionIndex],
    masked: &[bool],
) -> Vec<TrainGroup<'a>> {
    let mut parts: Vec<TrainGroup> = Vec::new();
    let mut current = None;
    for (&(g, b), &masked) in places.iter().zip(masked) {
        if current != Some(g) {
            parts.push(TrainGroup {
                prompt: &groups[g].prompt().ids,
                teacher: groups[g].item.teacher.as_deref(),
                completions: Vec::new(),
            });
            current = Some(g);
        }
        let completion = &groups[g].completions[b].sampled;
        let completion = TrainCompletion {
            tokens: &completion.tokens,
            logprobs: &completion.logprobs,
            weights: weights.map(|weights| &weights[g][b][..]),
            advantage: advantages[g][b],
            masked,
        };
        parts.last_mut().expect("pushed above").completions.push(completion);
    }
    parts
}

/// Writes the batch of an update that was not finite, for a search for the cause. Returns the file's path.
fn dump(training: &Training, state: &TrainState, parts: &[TrainGroup]) -> Result<String> {
    let completion = |completion: &TrainCompletion| {
        serde_json::json!({
            "tokens": completion.tokens,
            "sampled_logprobs": completion.logprobs,
            "advantage": completion.advantage,
            "masked": completion.masked,
        })
    };
    let group = |group: &TrainGroup| {
        serde_json::json!({
            "prompt": group.prompt,
            "completions": group.completions.iter().map(completion).collect::<Vec<_>>(),
        })
    };
    let batch = serde_json::json!({
        "step": state.counters.step + 1,
        "update": state.counters.updates,
        "groups": parts.iter().map(group).collect::<Vec<_>>(),
    });
    let path = training.run.path().join(format!("skipped-update-{:06}.json", state.counters.updates));
    atomic::write(&path, &serde_json::to_vec(&batch)?)?;
    Ok(path.display().to_string())
}
