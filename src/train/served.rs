//! Completions that servers have generated: the check of which adapter they come from, and the correction of the loss.
//!
//! A server that ignores the adapter, or still has an older one, samples from another policy, and its reply does not show it.
//! But its log-probabilities do: with s, a and o for the log-probability of a token from the server, from our own model with the
//! adapter and from our own model without it (or with the adapter of the step before), the regression of s - o on a - o
//! through the origin has the slope 1 if the server uses the adapter, and 0 if it uses the other one. Rounding in the server is
//! noise in s, which the standard error of the slope accounts for: a verdict needs three of them.

use super::sample::{ScoredCompletion, ScoredGroup};
use super::training::Training;
use crate::config::RolloutSection;
use crate::grpo::importance::Importance;
use crate::grpo::learner::Learner;
use crate::grpo::pass::{TrainCompletion, TrainGroup};
use crate::grpo::recompute::logprobs;
use crate::model::lora::Adapter;
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
        let mut trainer = Trainer { training, learner, adapter, step };
        let Some(ours) = trainer.logprobs(Some(adapter), &parts(groups), section.temperature)? else { return Ok(None) };
        let mut ours = split(&ours, groups).into_iter();
        let ours: Vec<Vec<Vec<f32>>> =
            groups.iter().map(|group| ours.by_ref().take(group.completions.len()).collect()).collect();

        let (mut gaps, mut lowest_effect) = (Vec::new(), f64::NAN);
        for (server, url) in section.endpoints.iter().enumerate() {
            let gap = differences(groups, &ours, server);
            let is_due = step == 1 || step.is_multiple_of(section.verify_every);
            if !gap.is_empty() && (is_due || mean(&gap) > section.max_logprob_difference) {
                let probe = Probe::of(groups, &ours, server);
                let effect = trainer.check(url, mean(&gap), &probe, self.previous.as_ref())?;
                let Some(effect) = effect else { return Ok(None) };
                lowest_effect = lowest_effect.min(effect); // NaN if it is unknown
            }
            gaps.extend(gap);
        }

        let mut importance = Importance::new(section.importance_sampling_mode, section.importance_sampling_cap);
        let mut weights = Vec::with_capacity(groups.len());
        for (group, ours) in groups.iter_mut().zip(ours) {
            let of_completion = |(completion, ours): (&mut ScoredCompletion, Vec<f32>)| {
                let weights = importance.weights(&completion.sampled.logprobs, &ours);
                completion.sampled.logprobs = ours;
                weights
            };
            weights.push(group.completions.iter_mut().zip(ours).map(of_completion).collect());
        }
        let mut metrics = importance.metrics();
        metrics.insert("sampling/sampling_logp_difference/mean".to_owned(), mean(&gaps));
        metrics.insert("sampling/sampling_logp_difference/max".to_owned(), gaps.into_iter().fold(0.0, f64::max));
        if lowest_effect.is_finite() {
            metrics.insert("sampling/adapter_effect".to_owned(), lowest_effect);
        }
        Ok(Some(Corrected { weights, metrics }))
    }
}

/// Our own model, which computes the log-probabilities that those of the servers are compared with.
struct Trainer<'a> {
    training: &'a Training<'a>,
    learner: &'a mut dyn Learner,
    adapter: &'a Adapter,
    step: usize,
}

impl Trainer<'_> {
    /// The log-probabilities of all tokens of `parts`; `None` if a stop was requested.
    fn logprobs(
        &mut self,
        adapter: Option<&Adapter>,
        parts: &[TrainGroup],
        temperature: f64,
    ) -> Result<Option<Vec<f32>>> {
        let rows = self.training.config.train.max_tokens_per_micro_batch;
        let stopped = || self.training.stop.requested().is_some();
        logprobs(self.learner, adapter, parts, temperature as f32, rows, &stopped)
    }

    /// Checks which adapter the server at `url` uses, whose log-probabilities differ from our own by `gap` on average. Returns the
    /// share of the adapter's effect that it shows, NaN if the adapter has no effect; `None` if a stop was requested.
    ///
    /// # Errors
    /// If it surely uses another one.
    fn check(&mut self, url: &str, gap: f64, probe: &Probe, previous: Option<&Adapter>) -> Result<Option<f64>> {
        let (step, section) = (self.step, &self.training.config.rollout);
        let base = (None, "the base model, without the adapter");
        let earlier = previous.map(|previous| (Some(previous), "the adapter of an earlier step"));
        let mut shares = Vec::new();
        for (other, name) in std::iter::once(base).chain(earlier) {
            let theirs = self.logprobs(other, &probe.parts, section.temperature)?;
            let Some(theirs) = theirs else { return Ok(None) };
            shares.push((EffectShare::of(&probe.served, &probe.ours, &theirs), name));
        }
        let used = shares.iter().filter(|(share, _)| share.is_other());
        if let Some((share, name)) = used.min_by(|(a, _), (b, _)| a.distance.total_cmp(&b.distance)) {
            bail!(
                "step {step}: {url} answers as {name}: its log-probabilities show {:.0} % of the difference to the adapter of \
                 this step (standard error {:.0} %)\nhint: {}",
                100.0 * share.slope,
                100.0 * share.standard_error,
                remedy(section)
            );
        }
        if gap > section.max_logprob_difference {
            let Some(is_raw) = self.before_temperature(probe)? else { return Ok(None) };
            let hint = if is_raw { RAW } else { remedy(section) };
            bail!(
                "step {step}: the log-probabilities of {url} differ from our own by {gap:.3} nats per token, more than \
                 `rollout.max_logprob_difference` = {} allows: it has another model, another adapter, or a low precision\n\
                 hint: {hint}",
                section.max_logprob_difference
            );
        }
        Ok(Some(shares[0].0.slope))
    }

    /// Whether a server's log-probabilities are those before the division by the temperature; `None` if a stop was requested.
    fn before_temperature(&mut self, probe: &Probe) -> Result<Option<bool>> {
        let section = &self.training.config.rollout;
        if section.temperature == 1.0 {
            return Ok(Some(false));
        }
        let Some(raw) = self.logprobs(Some(self.adapter), &probe.parts, 1.0)? else { return Ok(None) };
        let gap = probe.served.iter().zip(&raw).map(|(served, raw)| (f64::from(*served) - f64::from(*raw)).abs());
        let gap: Vec<f64> = gap.filter(|it| !it.is_nan()).collect();
        Ok(Some(mean(&gap) <= section.max_logprob_difference))
    }
}

/// The remedy if the log-probabilities of a server are those before the temperature.
const RAW: &str = "its log-probabilities are those before the temperature: start vLLM with --logprobs-mode processed_logprobs, or \
                   set `rollout.temperature` to 1";

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

/// The groups in the form of the gradient pass.
fn parts<'a>(groups: &'a [ScoredGroup]) -> Vec<TrainGroup<'a>> {
    let part = |group: &'a ScoredGroup| TrainGroup {
        prompt: &group.prompt().ids,
        teacher: None,
        completions: group.completions.iter().map(|it| TrainCompletion::unweighted(&it.sampled)).collect(),
    };
    groups.iter().map(part).collect()
}

/// The log-probabilities of all completions of `groups`, one list per completion.
fn split(logprobs: &[f32], groups: &[ScoredGroup]) -> Vec<Vec<f32>> {
    let mut rest = logprobs;
    let completions = groups.iter().flat_map(|group| &group.completions);
    let one = |completion: &ScoredCompletion| {
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
