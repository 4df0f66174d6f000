//! Training: the loop, its state and checkpoints, and the evaluation on held-out questions.

mod by_prompt;
pub mod checkpoints;
pub mod contamination;
pub mod difficulty;
pub mod evaluate;
pub mod initial;
pub mod inputs;
pub mod order;
pub mod pass_rates;
pub mod sample;
mod scoring;
mod served;
pub mod setup;
pub mod state;
mod step_log;
pub mod summary;
pub mod teacher;
mod training;
pub mod update;

pub use training::Training;

use crate::config::RunConfig;
use crate::disk::space;
use crate::grpo::advantage::{advantages, is_flat};
use crate::grpo::guard::{Guard, RolloutFacts};
use crate::grpo::learner::Learner;
use crate::grpo::objective::Objective;
use crate::grpo::pass::unreached_tensors;
use crate::model::lora::Adapter;
use crate::model::peft::save_adapter;
use crate::rollout::{Engine, Sampling};
use crate::run::metrics::MetricsRecord;
use crate::run::{GroupRecord, MetricsLog, RunDir, Signal, StepView};
use crate::stats::{mean, sample_std};
use anyhow::{Error, Result, ensure};
use evaluate::{HeldOutEvaluation, evaluate};
use order::Order;
use sample::{DrawCounts, ScoredGroup, TrainQuestion};
use served::ServerCheck;
use state::TrainState;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;
use step_log::{Logs, StepLog};
use training::Watching;
use update::{Updated, update};

/// Bytes.
const GIB: f64 = (1u64 << 30) as f64;

/// The result of a run.
pub struct TrainOutcome {
    /// On the held-out questions, before the first step; absent if evaluation is off.
    pub before: Option<HeldOutEvaluation>,
    /// After the last step; absent if the run was stopped.
    pub after: Option<HeldOutEvaluation>,
    pub stopped: Option<Signal>,
    pub steps: usize,
}

/// Trains from `state` to the last step of the configuration, or until a stop is requested. Writes checkpoints, logs and
/// the adapter to the run directory.
///
/// A step is one rollout batch and its optimizer updates.
pub fn train(
    training: &Training,
    engine: &mut dyn Engine,
    learner: &mut dyn Learner,
    state: &mut TrainState,
) -> Result<TrainOutcome> {
    let Training { config, run, progress, stop, .. } = training;
    let objective = Objective::new(&config.grpo, config.rollout.max_completion_length)?.distilling(config.distilled());
    let order = Order::new(config.train.seed, config.data.shuffle, training.questions.len());
    let (steps, sampling) = (config.total_steps(training.questions.len()), sampling(config));
    let resumed = state.counters.step;
    let mut logs = Logs::resume(run, resumed)?;
    let mut guard = Guard::default();
    let mut served = (!config.rollout.endpoints.is_empty()).then(ServerCheck::default);
    check_gradients(training, learner, &state.adapter)?;

    let before = match resumed {
        0 => evaluate_and_log(training, engine, state, &mut logs.metrics, "before training")?,
        _ => evaluate::read(run, 0, config.eval.greedy)?,
    };
    if let Some(before) = before.as_ref().filter(|_| resumed > 0) {
        progress.eval(&before.view("before training"));
    }
    let due = |every: usize, step: usize| every > 0 && step > 0 && step < steps && step.is_multiple_of(every);
    // The run may have been stopped during an evaluation.
    if due(config.eval.every, resumed) && !is_evaluated(run, resumed)? {
        evaluate_and_log(training, engine, state, &mut logs.metrics, &after_step(resumed))?;
    }
    while state.counters.step < steps && stop.requested().is_none() {
        let started = Instant::now();
        let step = state.counters.step + 1;

        // Rollout: one group per question, with its rewards.
        let Some((mut groups, taken)) = rollout(training, engine, state, &order, &sampling)? else { break };
        let rewards: Vec<Vec<f64>> = groups.iter().map(|g| g.completions.iter().map(|b| b.reward).collect()).collect();
        let advantages = advantages(&rewards, config.grpo.scale_rewards);
        for advice in guard.rollout(&rollout_facts(config, &groups, advantages.flat_groups)) {
            progress.note(&advice.to_string());
        }
        let rolled_out = started.elapsed().as_secs_f64();
        let corrected = match &served {
            Some(check) => match check.correct(training, learner, &state.adapter, &mut groups, step)? {
                Some(corrected) => Some(corrected),
                None => break,
            },
            None => None,
        };
        if let Some(check) = &mut served {
            check.previous = Some(state.adapter.clone());
        }

        // Updates: the batch is split into mini-batches, with `num_iterations` passes over them.
        let (values, weights) = (&advantages.values, corrected.as_ref().map(|it| &it.weights[..]));
        let updated = update(training, learner, state, &objective, &mut guard, &groups, values, weights, steps)?;
        let Some(Updated { mut metrics, notes }) = updated else { break };
        for note in notes {
            progress.note(&note);
        }

        // The step is done: update the counters and write the logs.
        let completion_tokens: usize = groups.iter().flat_map(|g| &g.completions).map(|b| b.sampled.tokens.len()).sum();
        let prompt_tokens: usize = groups.iter().map(|g| g.prompt().ids.len() * g.completions.len()).sum();
        let teacher_tokens: usize = groups.iter().map(teacher_tokens).sum();
        state.counters.step = step;
        state.counters.questions += taken;
        state.counters.num_tokens += (prompt_tokens + completion_tokens + teacher_tokens) as u64;
        metrics.extend(corrected.map(|it| it.metrics).unwrap_or_default());
        metrics.extend(advantages.metrics());
        metrics.extend(completion_metrics(training, &groups));
        metrics.extend(by_prompt::metrics(&training.scorer, &groups));
        let seconds = started.elapsed().as_secs_f64();
        metrics.extend([
            ("num_tokens".to_owned(), state.counters.num_tokens as f64),
            ("epoch".to_owned(), state.counters.questions as f64 / training.questions.len() as f64),
            ("step_time".to_owned(), seconds),
            ("rollout_time".to_owned(), rolled_out),
            ("tokens_per_second".to_owned(), completion_tokens as f64 / seconds),
        ]);
        metrics.extend(learner.peak_memory().map(|bytes| ("peak_memory_gib".to_owned(), bytes as f64 / GIB)));
        let record = |(group, advantages): (_, &Vec<f32>)| training.scorer.record(group, step, advantages);
        let log = StepLog {
            groups: groups.iter().zip(&advantages.values).map(record).collect(),
            metrics: MetricsRecord::new(step, &metrics),
        };
        run.check_presence()?;
        if let Err(error) = logs.append(&log) {
            return Err(rescue(training, learner, state, &log, error));
        }
        show_completions(training, &log.groups);
        progress.step(&StepView {
            step,
            reward: metrics["reward"],
            accuracy: metrics.get("rewards/accuracy/mean").copied(),
            format: metrics.get("rewards/format/mean").copied(),
            components: other_components(training, &metrics),
            mean_length: metrics["completions/mean_length"],
            tokens: completion_tokens,
            seconds,
        });

        // Evaluation and checkpoint, if they are due.
        if due(config.eval.every, step) {
            evaluate_and_log(training, engine, state, &mut logs.metrics, &after_step(step))?;
        }
        if due(config.train.save_steps, step) {
            logs.sync()?;
            save(training, learner, state)?;
        }
    }

    logs.sync()?;
    if state.counters.step > resumed {
        save(training, learner, state)?;
    }
    run.check_presence()?;
    save_adapter(&state.adapter, &run.adapter(), training.base)?;
    let finished = state.counters.step >= steps;
    let after = match finished {
        true => evaluate_and_log(training, engine, state, &mut logs.metrics, "after training")?,
        false => None,
    };
    if after.is_some() {
        logs.sync()?;
        checkpoints::prune(run, config.train.save_total_limit)?;
    }
    progress.finish();
    let complete = finished && (after.is_some() || training.held_out.is_empty());
    Ok(TrainOutcome { before, after, stopped: stop.requested().filter(|_| !complete), steps: state.counters.step })
}

/// Prints the first completions of a step, of as many questions as possible.
fn show_completions(training: &Training, groups: &[GroupRecord]) {
    let each = groups.iter().map(|group| group.completions.iter().map(move |completion| (group, completion)));
    let mut each: Vec<_> = each.collect();
    let by_turns = (0..).map_while(|_: usize| {
        let turn: Vec<_> = each.iter_mut().filter_map(Iterator::next).collect();
        (!turn.is_empty()).then_some(turn)
    });
    for (group, completion) in by_turns.flatten().take(training.show_completions) {
        training.progress.note(&format!(
            "\n{}\nreward {:.3}, {}, gold answer {}\n{}",
            group.question, completion.reward, completion.verdict, group.gold, completion.text
        ));
    }
}

/// The means of the reward's components besides accuracy and format.
fn other_components(training: &Training, metrics: &BTreeMap<String, f64>) -> Vec<(String, f64)> {
    let names = training.scorer.rewards.names().into_iter().filter(|name| *name != "accuracy" && *name != "format");
    names.filter_map(|name| Some((name.to_owned(), *metrics.get(&format!("rewards/{name}/mean"))?))).collect()
}

/// Writes a checkpoint of the current step, and deletes those that are not kept.
fn save(training: &Training, learner: &mut dyn Learner, state: &mut TrainState) -> Result<()> {
    let Training { run, config, base, .. } = training;
    let folder = prepare_save(training, learner, state)?;
    state.save(&folder, base)?;
    checkpoints::prune(run, config.train.save_total_limit)
}

/// Checks that the checkpoint of the current step can be written, and returns its folder.
fn prepare_save(training: &Training, learner: &mut dyn Learner, state: &mut TrainState) -> Result<PathBuf> {
    learner.moments(&mut state.adamw)?;
    training.run.check_presence()?;
    let folder = training.run.checkpoint(state.counters.step);
    let remedy = "free some space, then resume the run; earlier checkpoints are intact";
    space::require(&folder, checkpoints::bytes(&state.adapter), "a checkpoint", remedy)?;
    Ok(folder)
}

/// Tries to save a step whose log could not be written, with its log. Returns the error with what came of it.
fn rescue(
    training: &Training,
    learner: &mut dyn Learner,
    state: &mut TrainState,
    log: &StepLog,
    error: Error,
) -> Error {
    let folder = prepare_save(training, learner, state);
    let saved = folder.and_then(|folder| {
        state.save_with(&folder, training.base, |folder| log.write(folder))?;
        Ok(folder)
    });
    let step = state.counters.step;
    error.context(match saved {
        Ok(folder) => format!("log step {step}, which is saved in `{}`", folder.display()),
        Err(cause) => format!("log step {step}, and no checkpoint could be saved either: {cause:#}"),
    })
}

/// Evaluates the adapter on the held-out questions and logs the metrics as a separate line. Returns `None` if there are no
/// held-out questions or if a stop was requested.
fn evaluate_and_log(
    training: &Training,
    engine: &mut dyn Engine,
    state: &TrainState,
    log: &mut MetricsLog,
    label: &str,
) -> Result<Option<HeldOutEvaluation>> {
    let step = state.counters.step;
    let evaluation = evaluate(training, engine, &state.adapter, step)?;
    if let Some(evaluation) = &evaluation {
        if !is_evaluated(training.run, step)? {
            log.append(step, &evaluation.metrics())?;
        }
        training.progress.eval(&evaluation.view(label));
    }
    Ok(evaluation)
}

fn after_step(step: usize) -> String {
    format!("after step {step}")
}

/// Whether the run's metrics contain an evaluation after `step`.
fn is_evaluated(run: &RunDir, step: usize) -> Result<bool> {
    let lines = crate::run::metrics::read(&run.metrics())?;
    Ok(lines.iter().any(|line| line.step == step && line.values.keys().any(|name| name.starts_with("eval/"))))
}

/// The rollout batch of a step and the number of questions it used; `None` if a stop was requested.
///
/// With dynamic sampling (DAPO, arXiv 2503.14476), groups whose rewards are all equal are replaced by new questions, in
/// at most `max_refills` rounds.
fn rollout<'a>(
    training: &'a Training,
    engine: &mut dyn Engine,
    state: &TrainState,
    order: &Order,
    sampling: &Sampling,
) -> Result<Option<(Vec<ScoredGroup<'a>>, u64)>> {
    let config = training.config;
    let (mut groups, mut taken, mut draws): (Vec<ScoredGroup>, u64, DrawCounts) = Default::default();
    for round in 0..=config.grpo.max_refills {
        let missing = config.rollout.prompts_per_step - groups.len();
        let first = state.counters.questions + taken;
        let items: Vec<&TrainQuestion> =
            (first..first + missing as u64).map(|i| &training.questions[order.at(i)]).collect();
        taken += missing as u64;
        let mut watch = Watching { training, phase: "rollout", tokens: 0, shown: Instant::now() };
        let step = state.counters.step as u64 + 1;
        let g = config.rollout.num_generations;
        let (scorer, adapter) = (&training.scorer, Some(&state.adapter));
        let new = scorer.groups(engine, adapter, &items, g, sampling, step, &mut draws, &mut watch)?;
        let Some(new) = new else { return Ok(None) };
        groups.extend(new);
        if round < config.grpo.max_refills {
            let before = groups.len();
            let flat = |group: &ScoredGroup| is_flat(&group.completions.iter().map(|b| b.reward).collect::<Vec<_>>());
            groups.retain(|group| !flat(group));
            if groups.len() == before {
                break;
            }
        }
    }
    Ok(Some((groups, taken)))
}

/// How tokens are sampled in training.
fn sampling(config: &RunConfig) -> Sampling {
    let rollout = &config.rollout;
    Sampling {
        temperature: rollout.temperature as f32,
        top_p: rollout.top_p as f32,
        top_k: rollout.top_k,
        min_p: rollout.min_p as f32,
    }
}

/// Fails with the names of adapter tensors that no gradient reaches.
fn check_gradients(training: &Training, learner: &mut dyn Learner, adapter: &Adapter) -> Result<()> {
    ensure!(
        !training.questions.is_empty(),
        "no training questions are left\nhint: raise `rollout.max_prompt_length`, or check `data.path`"
    );
    let item = &training.questions[0];
    let completion = training.scorer.policy.tokenizer.encode(&format!("The answer is {}.", item.question.gold));
    let unreached = unreached_tensors(learner, adapter, &item.prompts[0].ids, &completion)?;
    ensure!(
        unreached.is_empty(),
        "no finite gradient reaches {} of {} adapter tensors, the first of them `{}`\n\
         hint: check the model's files: its weights contain zeros, NaN or infinities there",
        unreached.len(),
        adapter.slots.len(),
        unreached[0]
    );
    Ok(())
}

/// The tokens of the teacher's pass over a group, if a prompt is distilled.
fn teacher_tokens(group: &ScoredGroup) -> usize {
    let Some(prompt) = &group.item.teacher else { return 0 };
    group.completions.iter().map(|completion| prompt.len() + completion.sampled.tokens.len()).sum()
}

fn rollout_facts(config: &RunConfig, groups: &[ScoredGroup], flat_groups: usize) -> RolloutFacts {
    let completions = || groups.iter().flat_map(|group| &group.completions);
    RolloutFacts {
        groups: groups.len(),
        // Without rewards, a flat group is as useful as another.
        flat_groups: if config.distilled().is_some() { 0 } else { flat_groups },
        completions: completions().count(),
        truncated: completions().filter(|completion| completion.sampled.truncated()).count(),
        max_completion_length: config.rollout.max_completion_length,
        lowest_reward: completions().map(|completion| completion.reward).fold(f64::INFINITY, f64::min),
        highest_reward: completions().map(|completion| completion.reward).fold(f64::NEG_INFINITY, f64::max),
    }
}

/// Rewards by component, lengths and finish reasons of a batch's completions, under TRL's names.
fn completion_metrics(training: &Training, groups: &[ScoredGroup]) -> BTreeMap<String, f64> {
    let completions: Vec<_> = groups.iter().flat_map(|group| &group.completions).collect();
    let mut metrics = BTreeMap::new();
    for (i, name) in training.scorer.rewards.names().into_iter().enumerate() {
        // As in TRL, a completion that a component could not score is not part of its mean.
        let values: Vec<f64> = completions.iter().filter_map(|completion| completion.scored.components[i]).collect();
        if !values.is_empty() {
            metrics.insert(format!("rewards/{name}/mean"), mean(&values));
            metrics.insert(format!("rewards/{name}/std"), sample_std(&values));
        }
    }
    let mut lengths = |name: &str, lengths: Vec<f64>| {
        if !lengths.is_empty() {
            metrics.insert(format!("completions/mean_{name}"), mean(&lengths));
            metrics.insert(format!("completions/min_{name}"), lengths.iter().copied().fold(f64::INFINITY, f64::min));
            metrics.insert(format!("completions/max_{name}"), lengths.iter().copied().fold(0.0, f64::max));
        }
    };
    let length = |completion: &&sample::ScoredCompletion| completion.sampled.tokens.len() as f64;
    lengths("length", completions.iter().map(length).collect());
    lengths("terminated_length", completions.iter().filter(|b| !b.sampled.truncated()).map(length).collect());
    let share = |count: usize| count as f64 / completions.len() as f64;
    let truncated = completions.iter().filter(|completion| completion.sampled.truncated()).count();
    metrics.insert("completions/clipped_ratio".to_owned(), share(truncated));
    let mut finishes: BTreeMap<String, usize> = BTreeMap::new();
    for completion in &completions {
        *finishes.entry(training.scorer.policy.finish_name(completion.sampled.finish)).or_default() += 1;
    }
    metrics.extend(finishes.into_iter().map(|(name, count)| (format!("completions/finish/{name}"), share(count))));
    metrics
}
