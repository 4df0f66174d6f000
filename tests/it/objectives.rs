//! The six objectives equal TRL's, token by token, on fixed log-probabilities.
//! `tests/oracle/objectives.py` writes the fixture.

use std::collections::BTreeMap;

use rft::config::{GrpoSection, KlEstimator, LossType, ScaleRewards};
use rft::grpo::objective::{CompletionTerms, Objective};
use rft::grpo::totals::Totals;
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    batch: Batch,
    cases: Vec<Case>,
}

/// Slices have one row per completion, with one entry per token.
#[derive(Deserialize)]
struct Batch {
    longest: usize,
    advantages: Vec<f32>,
    logprobs: Vec<Vec<f32>>,
    old: Vec<Vec<f32>>,
    reference: Vec<Vec<f32>>,
    entropy: Vec<Vec<f32>>,
}

#[derive(Deserialize)]
struct Case {
    loss_type: LossType,
    epsilon: f64,
    epsilon_high: f64,
    delta: Option<f64>,
    beta: f64,
    entropy_coef: f64,
    updates: usize,
    old: bool,
    masked: Vec<bool>,
    rollout_tokens: Option<usize>,
    loss: f64,
    grad: Vec<Vec<f32>>,
    entropy_grad: Vec<Vec<f32>>,
    metrics: BTreeMap<String, f64>,
}

/// TRL computes in f32, and its divergence loses digits near zero.
fn close(actual: f64, expected: f64) -> bool {
    (actual - expected).abs() <= 1e-5 * expected.abs() + 1e-7
}

fn check(case: &Case, batch: &Batch) {
    let section = GrpoSection {
        loss_type: case.loss_type,
        scale_rewards: ScaleRewards::Group,
        epsilon: case.epsilon,
        epsilon_high: Some(case.epsilon_high),
        delta: case.delta,
        beta: case.beta,
        kl_estimator: KlEstimator::K3,
        entropy_coef: case.entropy_coef,
        mask_truncated_completions: case.masked.contains(&true),
        truncation_penalty: 0.0,
        num_iterations: 1,
        steps_per_generation: case.updates,
        max_refills: 0,
    };
    let what = format!("{section:?}");
    let objective = Objective::new(&section, batch.longest).unwrap();
    let lengths: Vec<usize> = batch.logprobs.iter().map(Vec::len).collect();
    let mut normalizer = objective.normalizer(&lengths, &case.masked);
    if let Some(tokens) = case.rollout_tokens {
        normalizer = normalizer.over_rollout(tokens, case.updates);
    }

    let mut totals = Totals::default();
    for (i, &length) in lengths.iter().enumerate() {
        let terms = CompletionTerms {
            logprobs: &batch.logprobs[i],
            old: case.old.then_some(batch.old[i].as_slice()),
            reference: (case.beta != 0.0).then_some(batch.reference[i].as_slice()),
            entropy: Some(&batch.entropy[i]),
            weights: None,
            advantage: batch.advantages[i],
            masked: case.masked[i],
        };
        let mut grad = vec![f32::NAN; length];
        objective.completion(&terms, &normalizer, &mut grad, &mut totals);
        let entropy_grad = if case.masked[i] { 0.0 } else { objective.entropy_grad(&normalizer) };
        assert_eq!((case.grad[i].len(), case.entropy_grad[i].len()), (length, length));
        for (t, (actual, expected)) in grad.iter().zip(&case.grad[i]).enumerate() {
            assert!(close((*actual).into(), (*expected).into()), "{what}: completion {i}, token {t}");
        }
        assert!(case.entropy_grad[i].iter().all(|&expected| close(entropy_grad.into(), expected.into())), "{what}");
    }
    assert!(close(totals.loss, case.loss), "{what}: loss {}, expected {}", totals.loss, case.loss);
    let metrics = totals.metrics(&objective);
    for (name, &expected) in &case.metrics {
        let actual = metrics.get(name).unwrap_or_else(|| panic!("{what}: no {name}"));
        assert!(close(*actual, expected), "{what}: {name} {actual}, expected {expected}");
    }
}

#[test]
fn objectives_equal_those_of_trl() {
    let fixture: Fixture = serde_json::from_str(include_str!("../fixtures/objectives.json")).unwrap();
    assert_eq!(fixture.cases.len(), 42);
    for case in &fixture.cases {
        check(case, &fixture.batch);
    }
}
