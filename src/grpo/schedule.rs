//! The learning rate of each update.

use std::f64::consts::PI;

use crate::config::{LrScheduler, TrainSection};

/// Learning rate of update `update` (0-based) of `updates`: a linear rise over the warm-up, then the section's curve.
///
/// Equal to transformers' `get_constant_schedule_with_warmup`, `get_linear_schedule_with_warmup` and
/// `get_cosine_with_min_lr_schedule_with_warmup`, read before the optimizer's step as its trainer does. So with a
/// warm-up, the first update has a learning rate of zero, and the last one is one update before the curve's end.
/// `min_lr_rate` raises the end of the linear curve in the same way as that of the cosine.
pub fn learning_rate(section: &TrainSection, update: usize, updates: usize) -> f64 {
    let warmup = warmup_updates(section, updates);
    if update < warmup {
        return section.learning_rate * update as f64 / warmup as f64;
    }
    let progress = ((update - warmup) as f64 / updates.saturating_sub(warmup).max(1) as f64).min(1.0);
    let share = match section.lr_scheduler_type {
        LrScheduler::Constant => return section.learning_rate,
        LrScheduler::Linear => 1.0 - progress,
        LrScheduler::Cosine => 0.5 * (1.0 + (PI * progress).cos()),
    };
    section.learning_rate * (section.min_lr_rate + (1.0 - section.min_lr_rate) * share)
}

/// Updates of the warm-up, rounded up as transformers does.
fn warmup_updates(section: &TrainSection, updates: usize) -> usize {
    (updates as f64 * section.warmup_ratio).ceil() as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Method;

    fn section(lr_scheduler_type: LrScheduler, warmup_ratio: f64, min_lr_rate: f64) -> TrainSection {
        TrainSection {
            method: Method::Grpo,
            steps: None,
            epochs: 1,
            learning_rate: 2.0,
            lr_scheduler_type,
            min_lr_rate,
            warmup_ratio,
            adam_beta1: 0.9,
            adam_beta2: 0.999,
            adam_epsilon: 1e-8,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
            max_tokens_per_micro_batch: 1,
            gradient_checkpointing: false,
            seed: 0,
            save_steps: 0,
            save_total_limit: None,
            threads: None,
        }
    }

    fn assert_curve(section: &TrainSection, updates: usize, expected: &[f64]) {
        for (update, expected) in expected.iter().enumerate() {
            let actual = learning_rate(section, update, updates);
            assert!((actual - expected).abs() < 1e-12, "update {update}: {actual}, expected {expected}");
        }
    }

    #[test]
    fn constant_rises_and_stays_constant() {
        assert_curve(&section(LrScheduler::Constant, 0.0, 0.0), 3, &[2.0, 2.0, 2.0]);
        assert_curve(&section(LrScheduler::Constant, 0.4, 0.0), 5, &[0.0, 1.0, 2.0, 2.0, 2.0]);
    }

    /// Ten updates, two of them warm-up: then 8/8, 7/8 ... 1/8 of the way down.
    #[test]
    fn linear_falls_towards_its_end() {
        let plain = section(LrScheduler::Linear, 0.2, 0.0);
        assert_curve(&plain, 10, &[0.0, 1.0, 2.0, 1.75, 1.5, 1.25, 1.0, 0.75, 0.5, 0.25, 0.0]);
        assert_curve(&section(LrScheduler::Linear, 0.0, 0.5), 2, &[2.0, 1.5, 1.0]);
    }

    /// Cosine at 0, 1/4, 1/2, 3/4 and 1 of the curve: 1, (1 + sqrt(1/2)) / 2, 1/2, (1 - sqrt(1/2)) / 2, 0.
    #[test]
    fn cosine_falls_towards_its_end() {
        let root = 0.5_f64.sqrt();
        assert_curve(&section(LrScheduler::Cosine, 0.0, 0.0), 4, &[2.0, 1.0 + root, 1.0, 1.0 - root, 0.0]);
        let lifted = section(LrScheduler::Cosine, 0.0, 0.1);
        assert_curve(&lifted, 4, &[2.0, 0.2 + 0.9 * (1.0 + root), 1.1, 0.2 + 0.9 * (1.0 - root), 0.2]);
    }

    /// 3 % of 1,248 updates are 37.44, so the warm-up includes the 38th.
    #[test]
    fn warm_up_is_rounded_up() {
        let section = section(LrScheduler::Cosine, 0.03, 0.1);
        assert_eq!(warmup_updates(&section, 1248), 38);
        assert!(learning_rate(&section, 37, 1248) < 2.0);
        assert_eq!(learning_rate(&section, 38, 1248), 2.0);
    }

    #[test]
    fn past_the_end_and_with_only_warm_up_the_rate_stays_in_range() {
        assert_eq!(learning_rate(&section(LrScheduler::Linear, 0.0, 0.0), 9, 4), 0.0);
        assert_eq!(learning_rate(&section(LrScheduler::Cosine, 1.0, 0.0), 1, 2), 1.0);
        assert_eq!(learning_rate(&section(LrScheduler::Constant, 0.0, 0.0), 0, 0), 2.0);
    }
}
