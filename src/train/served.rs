//! Completions that servers have generated: the check of which adapter they come from, and the correction of the loss.
//!
//! A server that ignores the adapter, or still has an older one, samples from another policy, and nothing in its reply says so.
//! But its log-probabilities do: with s, a and o for the log-probability of a token from the server, from our own model with the
//! adapter and from our own model without it (or with the adapter of the step before), the regression of s - o on a - o
//! through the origin has the slope 1 if the server uses the adapter, and 0 if it uses the other one. Rounding in the server is
//! noise in s, which the standard error of the slope accounts for: a verdict needs three of them.

use super::sample::ScoredGroup;
use super::training::Training;
use crate::config::RolloutSection;
use crate::grpo::importance::Importance;
use crate::grpo::learner::Learner;
use crate::grpo::pass::{TrainCompletion, TrainGroup};
use crate::grpo::recompute::logprobs;
use crate::model::lora::Adapter;
use crate::rollout::Completion;
use crate::stats::mean;
use anyhow::{Result, bail};
use std::collections::BTreeMap;

/// Tokens of a server that are computed with another adapter, for a test.
const PROBED: usize = 512;
/// Standard errors between an estimate and a verdict.
const CERTAIN: f64 = 3.0;

/// The check of a run's servers.
#[derive(Default)]
pub(super) struct ServerCheck {
    /// The adapter before the last update.
    pub previous: Option<Adapter>,
}

/// What the recomputation of a rollout batch found.
pub(super) struct Corrected {
    /// Importance weights of the tokens, by group and completion.
    pub weights: Vec<Vec<Vec<f32>>>,
    pub metrics: BTreeMap<String, f64>,
}

/// The share of the difference between two adapters' log-probabilities that a server shows.
#[derive(Clone, Copy, Debug)]
struct EffectShare {
    slope: f64,
    standard_error: f64,
    /// Mean squared difference between the server and the other adapter.
    distance: f64,
}

impl ServerCheck {
    /// Recomputes the log-probabilities of `groups`, checks the servers against them, and replaces those of the completions, so
    /// that the ratios of later updates are those of the trainer. `None` if a stop was requested.
    ///
    /// # Errors
    /// If a server uses another model or another adapter.
    pub fn correct(
        &self,
        training: &Training,
        learner: &mut dyn Learner,
        adapter: &Adapter,
        groups: &mut [ScoredGroup],
        step: usize,
    ) -> Result<Option<Corrected>> {
        let section = &training.config.rollout;
        let stopped = || training.stop.requested().is_some();
        let rows = training.config.train.max_tokens_per_micro_batch;
        let compute = |learner: &mut dyn Learner, adapter: Option<&Adapter>, parts: &[TrainGroup], temperature: f64| {
            logprobs(learner, adapter, parts, temperature as f32, rows, &stopped)
        };
        let Some(ours) = compute(learner, Some(adapter), &parts(groups, |_| true), section.temperature)? else {
            return Ok(None);
        };
        let mut ours = split(&ours, groups).into_iter();
        let ours: Vec<Vec<Vec<f32>>> =
            groups.iter().map(|group| ours.by_ref().take(group.completions.len()).collect()).collect();

        let mut metrics = BTreeMap::new();
        let mut shares = Vec::new();
        let (mut all_differences, mut largest) = (Vec::new(), 0.0f64);
        for (server, url) in section.endpoints.iter().enumerate() {
            let differences = differences(groups, &ours, server);
            largest = differences.iter().copied().fold(largest, f64::max);
            all_differences.extend_from_slice(&differences);
            let gap = mean(&differences);
            let suspicious = gap > section.max_logprob_difference;
            if differences.is_empty() || !(suspicious || step % section.verify_every == 0 || step == 1) {
                continue;
            }
            let probe = Probe::of(groups, &ours, server);
            let others = [
                (true, None, "the base model, without the adapter"),
                (self.previous.is_some(), self.previous.as_ref(), "the adapter of an earlier step"),
            ];
            let mut used: Option<(EffectShare, &str)> = None;
            for (number, (_, other, name)) in others.into_iter().filter(|(known, ..)| *known).enumerate() {
                let Some(theirs) = compute(learner, other, &probe.parts, section.temperature)? else { return Ok(None) };
                let share = EffectShare::of(&probe.served, &probe.ours, &theirs);
                if number == 0 && share.standard_error.is_finite() {
                    shares.push(share.slope);
                }
                if share.is_other() && used.is_none_or(|(nearest, _)| share.distance < nearest.distance) {
                    used = Some((share, name));
                }
            }
            if let Some((share, name)) = used {
                bail!(
                    "step {step}: {url} answers as {name}: its log-probabilities show {:.0} % of the difference to the adapter of \
                     this step (standard error {:.0} %)\nhint: {}",
                    100.0 * share.slope,
                    100.0 * share.standard_error,
                    remedy(section)
                );
            }
            if suspicious {
                let mut hint = remedy(section).to_owned();
                if section.temperature != 1.0 {
                    let Some(raw) = compute(learner, Some(adapter), &probe.parts, 1.0)? else { return Ok(None) };
                    let raw = probe.served.iter().zip(&raw).map(|(s, a)| (f64::from(*s) - f64::from(*a)).abs());
                    if mean(&raw.filter(|it| !it.is_nan()).collect::<Vec<_>>()) <= section.max_logprob_difference {
                        hint =
                            "its log-probabilities are those before the temperature: start vLLM with --logprobs-mode \
                                processed_logprobs, or set `rollout.temperature` to 1"
                                .to_owned();
                    }
                }
                bail!(
                    "step {step}: the log-probabilities of {url} differ from our own by {gap:.3} nats per token, more than \
                     `rollout.max_logprob_difference` = {} allows: it has another model, another adapter, or a low precision\n\
                     hint: {hint}",
                    section.max_logprob_difference
                );
            }
        }
        metrics.insert("sampling/sampling_logp_difference/mean".to_owned(), mean(&all_differences));
        metrics.insert("sampling/sampling_logp_difference/max".to_owned(), largest);
        if let Some(lowest) = shares.into_iter().reduce(f64::min) {
            metrics.insert("sampling/adapter_effect".to_owned(), lowest);
        }

        let mut importance = Importance::new(section.importance_sampling_mode, section.importance_sampling_cap);
        let mut weights = Vec::with_capacity(groups.len());
        for (group, ours) in groups.iter_mut().zip(ours) {
            let completions = group.completions.iter_mut().zip(ours);
            weights.push(
                completions
                    .map(|(completion, ours)| {
                        let weights = importance.weights(&completion.sampled.logprobs, &ours);
                        completion.sampled.logprobs = ours;
                        weights
                    })
                    .collect(),
            );
        }
        metrics.extend(importance.metrics());
        Ok(Some(Corrected { weights, metrics }))
    }
}

fn remedy(section: &RolloutSection) -> &'static str {
    use crate::config::ServerKind::{Command, Sglang, Vllm};
    match section.server {
        Vllm => {
            "start the server with --enable-lora, --max-lora-rank of at least `lora.r` and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1, \
             and check that it has the model of `model.path`"
        }
        Sglang => "start the server with --enable-lora, and check that it has the model of `model.path`",
        Command => "check that `rollout.reload_command` ends only when the server uses the adapter that it is given",
    }
}

/// The groups in the form of the gradient pass, with the completions that are `wanted`.
fn parts<'a>(groups: &'a [ScoredGroup], wanted: impl Fn(&Completion) -> bool) -> Vec<TrainGroup<'a>> {
    let completions = |group: &'a ScoredGroup| -> Vec<TrainCompletion<'a>> {
        let sampled = group.completions.iter().map(|completion| &completion.sampled);
        sampled.filter(|it| wanted(it)).map(TrainCompletion::unweighted).collect()
    };
    let part = |group: &'a ScoredGroup| TrainGroup {
        prompt: &group.prompt().ids,
        teacher: None,
        completions: completions(group),
    };
    groups.iter().map(part).filter(|part| !part.completions.is_empty()).collect()
}

/// The log-probabilities of all completions of `groups`, one list per completion.
fn split(logprobs: &[f32], groups: &[ScoredGroup]) -> Vec<Vec<f32>> {
    let mut rest = logprobs;
    let completions = groups.iter().flat_map(|group| &group.completions);
    let one = |completion: &super::sample::ScoredCompletion| {
        let (own, later) = rest.split_at(completion.sampled.tokens.len());
        rest = later;
        own.to_vec()
    };
    completions.map(one).collect()
}

/// |served - ours| of every token that `server` has generated and whose log-probability it knows.
fn differences(groups: &[ScoredGroup], ours: &[Vec<Vec<f32>>], server: usize) -> Vec<f64> {
    let mut differences = Vec::new();
    for (group, ours) in groups.iter().zip(ours) {
        for (completion, ours) in group.completions.iter().zip(ours) {
            if completion.sampled.server == Some(server) {
                let tokens = completion.sampled.logprobs.iter().zip(ours).filter(|(served, _)| !served.is_nan());
                differences.extend(tokens.map(|(served, ours)| (f64::from(*served) - f64::from(*ours)).abs()));
            }
        }
    }
    differences
}

/// Some completions of one server, with the log-probabilities of its tokens and our own.
struct Probe<'a> {
    parts: Vec<TrainGroup<'a>>,
    served: Vec<f32>,
    ours: Vec<f32>,
}

impl<'a> Probe<'a> {
    /// The first completions of `server`, with at least [`PROBED`] tokens if it has generated that many.
    fn of(groups: &'a [ScoredGroup], ours: &[Vec<Vec<f32>>], server: usize) -> Self {
        let mut probe = Self { parts: Vec::new(), served: Vec::new(), ours: Vec::new() };
        for (group, ours) in groups.iter().zip(ours) {
            let mut part = TrainGroup { prompt: &group.prompt().ids, teacher: None, completions: Vec::new() };
            for (completion, ours) in group.completions.iter().zip(ours) {
                if completion.sampled.server == Some(server) && probe.served.len() < PROBED {
                    part.completions.push(TrainCompletion::unweighted(&completion.sampled));
                    probe.served.extend_from_slice(&completion.sampled.logprobs);
                    probe.ours.extend_from_slice(ours);
                }
            }
            if !part.completions.is_empty() {
                probe.parts.push(part);
            }
        }
        probe
    }
}

impl EffectShare {
    /// From the log-probabilities of a server, of the adapter that it should use, and of the other one.
    fn of(served: &[f32], adapter: &[f32], other: &[f32]) -> Self {
        let points: Vec<(f64, f64)> = (served.iter().zip(adapter).zip(other))
            .map(|((s, a), o)| (f64::from(*a) - f64::from(*o), f64::from(*s) - f64::from(*o)))
            .filter(|(x, y)| x.is_finite() && y.is_finite())
            .collect();
        let xx: f64 = points.iter().map(|(x, _)| x * x).sum();
        let slope = points.iter().map(|(x, y)| x * y).sum::<f64>() / xx;
        let residuals: f64 = points.iter().map(|(x, y)| (y - slope * x).powi(2)).sum();
        let distance = points.iter().map(|(_, y)| y * y).sum::<f64>() / points.len().max(1) as f64;
        let freedom = points.len().saturating_sub(1).max(1) as f64;
        Self { slope, standard_error: (residuals / freedom / xx).sqrt(), distance }
    }

    /// Whether the server surely uses the other adapter: the slope is nearer to 0 than to 1. Without any effect of the adapter,
    /// both numbers are NaN, and nothing is sure.
    fn is_other(self) -> bool {
        self.slope + CERTAIN * self.standard_error < 0.5
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Stream};

    /// Log-probabilities of a server that shows `share` of the adapter's effect, with rounding noise.
    fn share(share: f64, effect: f64, noise: f64, tokens: usize) -> EffectShare {
        let stream = Stream::new(1, Purpose::Test, &[]);
        let centered = |position: usize| stream.f64(position as u64) - 0.5;
        let (mut served, mut adapter, mut other) = (Vec::new(), Vec::new(), Vec::new());
        for token in 0..tokens {
            let (base, moved) = (-1.0 + centered(3 * token), effect * centered(3 * token + 1));
            other.push(base as f32);
            adapter.push((base + moved) as f32);
            served.push((base + share * moved + noise * centered(3 * token + 2)) as f32);
        }
        EffectShare::of(&served, &adapter, &other)
    }

    #[test]
    fn a_server_with_another_adapter_is_found_through_its_rounding() {
        assert!(!share(1.0, 0.05, 0.05, 512).is_other());
        assert!(share(0.0, 0.05, 0.05, 512).is_other());
        assert!((share(1.0, 0.05, 0.05, 512).slope - 1.0).abs() < 0.2);
    }

    #[test]
    fn a_small_effect_is_no_verdict() {
        assert!(!share(0.0, 0.001, 0.1, 64).is_other());
        assert!(!share(0.0, 0.0, 0.0, 64).is_other(), "an adapter without effect");
        assert!(!share(0.0, 0.0, 0.1, 64).is_other());
    }
}
