use proptest::prelude::*;

use super::*;

const LONGEST: usize = 10;
const ALL: [LossType; 6] =
    [LossType::Grpo, LossType::Dapo, LossType::DrGrpo, LossType::Bnpo, LossType::Gspo, LossType::Cispo];

fn section(loss_type: LossType) -> GrpoSection {
    GrpoSection {
        loss_type,
        scale_rewards: crate::config::ScaleRewards::Group,
        epsilon: 0.2,
        epsilon_high: Some(if loss_type == LossType::Cispo { 1.5 } else { 0.28 }),
        delta: None,
        beta: 0.0,
        kl_estimator: KlEstimator::K3,
        entropy_coef: 0.0,
        mask_truncated_completions: false,
        truncation_penalty: 0.0,
        num_iterations: 1,
        steps_per_generation: 1,
        max_refills: 0,
    }
}

fn objective(section: &GrpoSection) -> Objective {
    Objective::new(section, LONGEST).unwrap()
}

/// The inputs of an update: one entry per completion.
#[derive(Clone, Debug, Default)]
struct ObjectiveBatch {
    logprobs: Vec<Vec<f32>>,
    old: Option<Vec<Vec<f32>>>,
    reference: Vec<Vec<f32>>,
    entropy: Vec<Vec<f32>>,
    advantages: Vec<f32>,
    masked: Vec<bool>,
}

impl ObjectiveBatch {
    fn normalizer(&self, objective: &Objective) -> Normalizer {
        let lengths: Vec<usize> = self.logprobs.iter().map(Vec::len).collect();
        objective.normalizer(&lengths, &self.masked)
    }

    /// Totals and gradients of the completions in `range`, with the whole update's normalizer.
    fn part(&self, objective: &Objective, range: std::ops::Range<usize>) -> (Totals, Vec<Vec<f32>>) {
        let normalizer = self.normalizer(objective);
        let mut totals = Totals::default();
        let grads = range
            .map(|i| {
                let terms = CompletionTerms {
                    logprobs: &self.logprobs[i],
                    old: self.old.as_ref().map(|old| old[i].as_slice()),
                    reference: self.reference.get(i).map(Vec::as_slice),
                    entropy: self.entropy.get(i).map(Vec::as_slice),
                    weights: None,
                    advantage: self.advantages[i],
                    masked: self.masked[i],
                };
                let mut grad = vec![f32::NAN; self.logprobs[i].len()];
                objective.completion(&terms, &normalizer, &mut grad, &mut totals);
                grad
            })
            .collect();
        (totals, grads)
    }

    fn whole(&self, objective: &Objective) -> (Totals, Vec<Vec<f32>>) {
        self.part(objective, 0..self.logprobs.len())
    }
}

/// Completions of lengths 3, 1, 4 and 2, the last one masked. Ratios below, inside and above every clip range, none
/// closer to one of its ends than 0.02.
fn batch() -> ObjectiveBatch {
    let old = vec![vec![-1.0, -0.5, -2.0], vec![-0.3], vec![-1.5, -0.2, -3.0, -0.9], vec![-1.0, -1.0]];
    let ratios: [&[f32]; 4] = [&[1.05, 0.7, 1.6], &[1.4], &[0.6, 0.95, 1.7, 1.1], &[1.2, 0.5]];
    let logprobs = old.iter().zip(ratios).map(|(o, r)| o.iter().zip(r).map(|(o, r)| o + r.ln()).collect()).collect();
    let reference = vec![vec![-1.2, -0.6, -1.0], vec![-0.1], vec![-2.0, -0.4, -2.9, -0.5], vec![-1.1, -0.8]];
    let entropy = vec![vec![0.5, 1.0, 2.0], vec![0.25], vec![1.5, 0.75, 0.1, 0.4], vec![3.0, 3.0]];
    ObjectiveBatch {
        logprobs,
        old: Some(old),
        reference,
        entropy,
        advantages: vec![1.2, -0.7, -0.4, 0.9],
        masked: vec![false, false, false, true],
    }
}

fn assert_close(actual: f64, expected: f64, what: &str) {
    assert!((actual - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{what}: {actual}, expected {expected}");
}

/// Central differences of the loss, token by token. Steps are exact in f32, and small enough not to cross a kink.
fn check_gradient(section: &GrpoSection, batch: &ObjectiveBatch) {
    let objective = objective(section);
    let (_, grads) = batch.whole(&objective);
    for (i, grad) in grads.iter().enumerate() {
        for (t, grad) in grad.iter().enumerate() {
            let loss_at = |sign: f32| {
                let mut moved = batch.clone();
                moved.logprobs[i][t] += sign / 512.0;
                let step = f64::from(moved.logprobs[i][t]) - f64::from(batch.logprobs[i][t]);
                (moved.whole(&objective).0.loss, step)
            };
            let ((above, up), (below, down)) = (loss_at(1.0), loss_at(-1.0));
            let expected = (above - below) / (up - down);
            assert!(
                (f64::from(*grad) - expected).abs() < 1e-5,
                "{section:?}, completion {i}, token {t}: {grad}, expected {expected}"
            );
        }
    }
}

#[test]
fn gradients_equal_finite_differences() {
    // The weight of `cispo` has no gradient by definition, so its policy term is checked by hand below instead.
    for loss_type in ALL.into_iter().filter(|&loss_type| loss_type != LossType::Cispo) {
        for delta in [None, Some(1.5)] {
            for (beta, kl_estimator) in [(0.0, KlEstimator::K2), (0.1, KlEstimator::K2), (0.1, KlEstimator::K3)] {
                check_gradient(&GrpoSection { delta, beta, kl_estimator, ..section(loss_type) }, &batch());
            }
        }
    }
    for kl_estimator in [KlEstimator::K2, KlEstimator::K3] {
        let flat = ObjectiveBatch { advantages: vec![0.0; 4], ..batch() };
        check_gradient(&GrpoSection { beta: 0.3, kl_estimator, ..section(LossType::Cispo) }, &flat);
    }
}

/// Two completions of two tokens and one: ratios 1.5 and 0.5 with advantage 1, ratio 0.5 with advantage -2.
fn two_completions(loss_type: LossType) -> (Totals, Vec<Vec<f32>>) {
    let ln = |x: f64| x.ln() as f32;
    let batch = ObjectiveBatch {
        logprobs: vec![vec![ln(0.6), ln(0.1)], vec![ln(0.25)]],
        old: Some(vec![vec![ln(0.4), ln(0.2)], vec![ln(0.5)]]),
        advantages: vec![1.0, -2.0],
        masked: vec![false, false],
        ..ObjectiveBatch::default()
    };
    batch.whole(&objective(&section(loss_type)))
}

/// Token 1 is clipped to 1.28 (flat), token 2 keeps 0.5 (the minimum), token 3 is clipped to 0.8 (flat): the terms are
/// -1.28, -0.5 and 1.6. Only the weights differ.
#[test]
fn clipped_terms_by_hand() {
    for (loss_type, weights) in [
        (LossType::Grpo, [0.25, 0.25, 0.5]),
        (LossType::Bnpo, [1.0 / 3.0; 3]),
        (LossType::Dapo, [1.0 / 3.0; 3]),
        (LossType::DrGrpo, [1.0 / 20.0; 3]),
    ] {
        let (totals, grads) = two_completions(loss_type);
        let expected = -1.28 * weights[0] - 0.5 * weights[1] + 1.6 * weights[2];
        assert_close(totals.loss, expected, "loss");
        assert_eq!((grads[0][0], grads[1][0]), (0.0, 0.0), "{loss_type:?}");
        assert_close(grads[0][1].into(), -0.5 * weights[1], "gradient");
        let metrics = totals.metrics(&objective(&section(loss_type)));
        for (name, value) in [
            ("clip_ratio/low_mean", 1.0 / 3.0),
            ("clip_ratio/low_min", 0.0),
            ("clip_ratio/high_mean", 1.0 / 3.0),
            ("clip_ratio/high_max", 0.5),
            ("clip_ratio/region_mean", 2.0 / 3.0),
            ("ratio/min", 0.5),
            ("ratio/mean", 2.5 / 3.0),
            ("ratio/max", 1.5),
        ] {
            assert_close(metrics[name], value, name);
        }
    }
}

/// The completions' ratios are sqrt(1.5 x 0.5) = 0.866 and 0.5; the first is inside the range, the second clipped to
/// 0.8.
#[test]
fn gspo_by_hand() {
    let (totals, grads) = two_completions(LossType::Gspo);
    let ratio = 0.75_f64.sqrt();
    assert_close(totals.loss, (-ratio + 1.6) / 2.0, "loss");
    assert_close(grads[0][0].into(), -ratio / 4.0, "first token");
    assert_eq!(grads[0][0], grads[0][1]);
    assert_eq!(grads[1][0], 0.0);
    let metrics = totals.metrics(&objective(&section(LossType::Gspo)));
    assert_eq!((metrics["clip_ratio/low_mean"], metrics["clip_ratio/high_mean"]), (0.5, 0.0));
}

/// With 1.5 as the largest weight nothing is clipped here: each token's log-probability is weighted by its ratio.
#[test]
fn cispo_by_hand() {
    let (totals, grads) = two_completions(LossType::Cispo);
    let expected = (-1.5 * 0.6_f64.ln() - 0.5 * 0.1_f64.ln() + 2.0 * 0.5 * 0.25_f64.ln()) / 3.0;
    assert_close(totals.loss, expected, "loss");
    for (grad, expected) in grads.concat().into_iter().zip([-0.5, -0.5 / 3.0, 1.0 / 3.0]) {
        assert_close(grad.into(), expected, "gradient");
    }
    // A ratio of 3 has weight 1.5 and still has a gradient, which is the purpose of this objective.
    let far = ObjectiveBatch {
        logprobs: vec![vec![-0.5]],
        old: Some(vec![vec![-0.5 - 3.0_f32.ln()]]),
        advantages: vec![2.0],
        masked: vec![false],
        ..ObjectiveBatch::default()
    };
    let objective = objective(&section(LossType::Cispo));
    let (totals, grads) = far.whole(&objective);
    assert_close(grads[0][0].into(), -3.0, "gradient");
    assert_eq!(totals.metrics(&objective)["cispo_clip_ratio"], 1.0);
}

/// Only the dual clip bounds a negative advantage with a large ratio: -min(3 x -2, 1.28 x -2) = 6, then 4.
#[test]
fn dual_clip_bounds_a_negative_advantage() {
    let batch = ObjectiveBatch {
        logprobs: vec![vec![-1.0]],
        old: Some(vec![vec![-1.0 - 3.0_f32.ln()]]),
        advantages: vec![-2.0],
        masked: vec![false],
        ..ObjectiveBatch::default()
    };
    let (totals, grads) = batch.whole(&objective(&section(LossType::Grpo)));
    assert_close(totals.loss, 6.0, "loss");
    assert_close(grads[0][0].into(), 6.0, "gradient");
    let (totals, grads) = batch.whole(&objective(&GrpoSection { delta: Some(2.0), ..section(LossType::Grpo) }));
    assert_close(totals.loss, 4.0, "loss");
    assert_eq!(grads[0][0], 0.0);
}

/// At l = f - ln 2 the difference is ln 2: k2 = (ln 2)^2 / 2, k3 = 2 - ln 2 - 1.
#[test]
fn divergence_by_hand() {
    let ln2 = 2.0_f64.ln();
    for (kl_estimator, value, slope) in [(KlEstimator::K2, ln2 * ln2 / 2.0, -ln2), (KlEstimator::K3, 1.0 - ln2, -1.0)] {
        let section = GrpoSection { beta: 0.5, kl_estimator, ..section(LossType::Grpo) };
        let batch = ObjectiveBatch {
            logprobs: vec![vec![-1.0 - ln2 as f32]],
            reference: vec![vec![-1.0]],
            advantages: vec![0.0],
            masked: vec![false],
            ..ObjectiveBatch::default()
        };
        let (totals, grads) = batch.whole(&objective(&section));
        assert_close(totals.metrics(&objective(&section))["kl"], value, "kl");
        assert_close(totals.loss, 0.5 * value, "loss");
        assert_close(grads[0][0].into(), 0.5 * slope, "gradient");
    }
}

/// Without `old` the result is that of `old` equal to the log-probabilities, and the coefficients are known in advance.
#[test]
fn a_ratio_of_one_needs_no_old_logprobs() {
    for loss_type in ALL {
        let objective = objective(&section(loss_type));
        let fresh = ObjectiveBatch { old: None, ..batch() };
        let same = ObjectiveBatch { old: Some(fresh.logprobs.clone()), ..batch() };
        let (totals, grads) = fresh.whole(&objective);
        assert_eq!((&totals, &grads), (&same.whole(&objective).0, &same.whole(&objective).1), "{loss_type:?}");
        assert_eq!((totals.ratio.min, totals.ratio.max), (1.0, 1.0));
        assert!(!objective.needs_two_passes(false) && objective.needs_two_passes(true));
        for (i, grad) in grads.iter().enumerate().filter(|(i, _)| !fresh.masked[*i]) {
            let fixed = objective.fixed_coefficient(fresh.advantages[i], grad.len(), &fresh.normalizer(&objective));
            assert!(grad.iter().all(|&grad| grad == fixed), "{loss_type:?}: {grad:?}, expected {fixed}");
        }
    }
    assert!(objective(&GrpoSection { beta: 0.1, ..section(LossType::Grpo) }).needs_two_passes(false));
}

/// A masked completion of 2 tokens next to 8 others: it counts as a completion, but its tokens do not count.
#[test]
fn masked_completions_have_no_gradient_and_follow_the_normalizer() {
    for (loss_type, divisor) in [
        (LossType::Grpo, 4.0 * 3.0),
        (LossType::Gspo, 4.0 * 3.0),
        (LossType::Bnpo, 8.0),
        (LossType::Dapo, 8.0),
        (LossType::Cispo, 8.0),
        (LossType::DrGrpo, 4.0 * LONGEST as f64),
    ] {
        let objective = objective(&section(loss_type));
        let batch = ObjectiveBatch { old: None, ..batch() };
        let (totals, grads) = batch.whole(&objective);
        assert_eq!(grads[3], [0.0, 0.0]);
        assert!(objective.skips(batch.advantages[3], true));
        assert_close(grads[0][0].into(), f64::from(-1.2_f32) / divisor, "gradient");
        assert_eq!((totals.completions, totals.masked_completions, totals.tokens), (4, 1, 8));
    }
    let everything = ObjectiveBatch { masked: vec![true; 4], ..batch() };
    for loss_type in ALL {
        let (totals, grads) = everything.whole(&objective(&section(loss_type)));
        assert_eq!(totals.loss, 0.0);
        assert!(grads.concat().iter().all(|&grad| grad == 0.0));
    }
}

#[test]
fn zero_advantage_is_skipped_only_if_nothing_else_has_a_gradient() {
    for loss_type in ALL {
        let plain = objective(&section(loss_type));
        assert!(plain.skips(0.0, false) && !plain.skips(0.1, false));
        let flat = ObjectiveBatch { advantages: vec![0.0; 4], ..batch() };
        let (totals, grads) = flat.whole(&plain);
        assert_eq!(totals.loss, 0.0);
        assert!(grads.concat().iter().all(|&grad| grad == 0.0));
        assert!(!objective(&GrpoSection { beta: 0.1, ..section(loss_type) }).skips(0.0, false));
        assert!(!objective(&GrpoSection { entropy_coef: 0.1, ..section(loss_type) }).skips(0.0, false));
    }
}

/// The bonus is the mean over the 8 unmasked tokens, with any objective: they sum to 6.5.
#[test]
fn entropy_bonus_is_a_mean_over_tokens() {
    for loss_type in ALL {
        let with = objective(&GrpoSection { entropy_coef: 0.5, ..section(loss_type) });
        let (bare, _) = batch().whole(&objective(&section(loss_type)));
        let (totals, _) = batch().whole(&with);
        assert_close(totals.loss, bare.loss - 0.5 * 6.5 / 8.0, "loss");
        assert_eq!(totals.policy_loss, bare.loss);
        assert_eq!(with.entropy_grad(&batch().normalizer(&with)), -0.5 / 8.0);
        assert_close(totals.metrics(&with)["entropy"], 6.5 / 8.0, "entropy");
    }
}

/// A rollout batch of 60 tokens used in 3 updates: each divides by 20, regardless of its own tokens.
#[test]
fn rollout_tokens_change_only_dapo_and_cispo() {
    for loss_type in ALL {
        let objective = objective(&section(loss_type));
        let own = batch().normalizer(&objective);
        let rollout = own.over_rollout(60, 3);
        let share = |normalizer| objective.fixed_coefficient(1.0, 4, &normalizer);
        match loss_type {
            LossType::Dapo | LossType::Cispo => assert_eq!(share(rollout), -1.0 / 20.0),
            _ => assert_eq!(share(rollout), share(own)),
        }
    }
}

#[test]
fn values_that_are_not_finite_stay_visible() {
    for loss_type in ALL {
        for delta in [None, Some(2.0)] {
            let objective = objective(&GrpoSection { delta, ..section(loss_type) });
            for old in [batch().old, None] {
                let mut broken = ObjectiveBatch { old, ..batch() };
                broken.logprobs[2][1] = f32::NAN;
                let (totals, grads) = broken.whole(&objective);
                assert!(!totals.loss.is_finite(), "{loss_type:?}");
                assert!(!grads[2][1].is_finite(), "{loss_type:?}");
            }
        }
    }
}

#[test]
fn impossible_sections_are_refused_with_a_hint() {
    let message = |section| Objective::new(&section, LONGEST).unwrap_err().to_string();
    let refused = message(GrpoSection { epsilon_high: None, ..section(LossType::Cispo) });
    assert!(refused.contains("`grpo.epsilon_high`: cispo requires"), "{refused}");
    let refused = message(GrpoSection { delta: Some(1.1), ..section(LossType::Grpo) });
    assert!(refused.contains("`grpo.delta`"), "{refused}");
    for epsilon in [-0.1, 0.0, 1.0] {
        let refused = message(GrpoSection { epsilon, ..section(LossType::Grpo) });
        assert!(refused.contains("`grpo.epsilon`") && refused.contains("hint: "), "{refused}");
    }
}

/// Completions of one to six tokens with everything that an objective may need.
fn batches() -> impl Strategy<Value = ObjectiveBatch> {
    let token = (-4.0..-0.01_f32, -1.0..1.0_f32, -4.0..-0.01_f32, 0.0..3.0_f32);
    let completion = (prop::collection::vec(token, 1..6), -2.0..2.0_f32, prop::bool::weighted(0.2));
    prop::collection::vec(completion, 1..8).prop_map(|completions| {
        let mut batch = ObjectiveBatch { old: Some(Vec::new()), ..ObjectiveBatch::default() };
        for (tokens, advantage, masked) in completions {
            batch.logprobs.push(tokens.iter().map(|token| token.0).collect());
            batch.old.as_mut().unwrap().push(tokens.iter().map(|token| token.0 + token.1).collect());
            batch.reference.push(tokens.iter().map(|token| token.2).collect());
            batch.entropy.push(tokens.iter().map(|token| token.3).collect());
            batch.advantages.push(advantage);
            batch.masked.push(masked);
        }
        batch
    })
}

proptest! {
    /// Split at any point, the parts sum to the whole: bitwise equal gradients, and equal totals except for the order
    /// of sums.
    #[test]
    fn splitting_changes_nothing(batch in batches(), cut in 0..8_usize) {
        let cut = cut.min(batch.logprobs.len());
        for loss_type in ALL {
            let objective = objective(&GrpoSection { beta: 0.1, entropy_coef: 0.01, ..section(loss_type) });
            let (whole, grads) = batch.whole(&objective);
            let (mut sum, mut parts) = batch.part(&objective, 0..cut);
            let (rest, rest_grads) = batch.part(&objective, cut..batch.logprobs.len());
            sum.merge(&rest);
            parts.extend(rest_grads);
            prop_assert_eq!(grads, parts);
            prop_assert!((whole.loss - sum.loss).abs() < 1e-12 * (1.0 + whole.loss.abs()));
            let (whole, sum) = (whole.metrics(&objective), sum.metrics(&objective));
            prop_assert!(whole.keys().eq(sum.keys()));
            for (name, value) in whole {
                prop_assert!((value - sum[&name]).abs() < 1e-9 * (1.0 + value.abs()), "{}", name);
            }
        }
    }

    /// Clipping only removes gradient, and never reverses it.
    #[test]
    fn clipping_bounds_the_gradient(ratio in 0.01..20.0_f64, advantage in -3.0..3.0_f64) {
        for loss_type in ALL {
            let objective = objective(&GrpoSection { delta: Some(2.0), ..section(loss_type) });
            let slope = objective.policy(ratio, advantage, -1.0).1;
            prop_assert!(slope * advantage <= 0.0);
            prop_assert!(slope.abs() <= (2.0 * advantage).abs() + 1e-12);
        }
    }
}
