//! Diagnoses when a run learns nothing: what the rewards, the lengths and the gradient of a step show, and what to
//! change.
//!
//! Each finding is a plain function of the facts. [`Guard`] only counts how many times in a row it was found: it
//! reports the first time and every tenth, and ends the run at the third update whose loss or gradient is not finite.

use std::collections::VecDeque;

/// Number of consecutive updates with a loss or gradient that is not finite, after which a run stops.
pub const NON_FINITE_LIMIT: usize = 3;

/// A finding that persists is reported again after this number of steps.
const REPEAT: usize = 10;

/// Share of truncated completions above which the length is reported as the cause. A run in which nearly all
/// completions are truncated learns almost nothing, although the share is below one.
const TRUNCATED_SHARE: f64 = 0.9;

/// A gradient norm of this many times the median of recent ones is a jump.
const JUMP: f64 = 10.0;

/// The number of recent gradient norms, and the smallest number of them that has a median.
const RECENT: usize = 21;
const FEWEST: usize = 5;

/// A change of a weight that is too large for a step of learning: AdamW changes each weight by about the learning rate, and
/// LoRA's weights are themselves of this size or smaller.
const TOO_LARGE: f32 = 0.1;

/// A finding and what to do about it. It prints like every other error: the message, then a line with the hint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}\nhint: {hint}")]
pub struct Advice {
    pub message: String,
    pub hint: String,
}

/// Facts about a rollout batch.
#[derive(Clone, Debug, PartialEq)]
pub struct RolloutFacts {
    pub groups: usize,
    /// Groups whose rewards are all equal.
    pub flat_groups: usize,
    pub completions: usize,
    /// Completions truncated at `max_completion_length`.
    pub truncated: usize,
    pub max_completion_length: usize,
    /// Smallest and largest reward of all completions.
    pub lowest_reward: f64,
    pub highest_reward: f64,
}

/// Facts about one optimizer step.
#[derive(Clone, Debug, PartialEq)]
pub struct UpdateFacts {
    pub learning_rate: f64,
    pub grad_norm: f64,
    /// Completions of the update that should have a gradient: neither masked nor with an advantage of zero.
    pub completions_with_signal: usize,
    /// True if the step changed any element of any B of the adapter.
    pub lora_b_moved: bool,
    /// The largest change of a weight of the adapter.
    pub largest_change: f32,
}

/// What to do with a computed gradient.
#[derive(Clone, Debug, PartialEq)]
pub enum Gradient {
    /// It is finite: apply the step.
    Sound,
    /// Leave the adapter and the optimizer unchanged, save the batch for the user, and continue.
    Skip(Advice),
    /// Like [`Gradient::Skip`], and end the run with this error.
    Stop(Advice),
}

/// How many times in a row each finding occurred.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    truncated: usize,
    flat: usize,
    unmoved: usize,
    non_finite: usize,
    too_large: usize,
    /// Gradient norms of recent updates, without those of batches that have no gradient.
    norms: VecDeque<f64>,
    /// The largest change of a weight so far, if it was too large: this explains what comes after it.
    cause: Option<f32>,
}

impl Guard {
    /// Called once per rollout batch, after its rewards.
    pub fn rollout(&mut self, facts: &RolloutFacts) -> Vec<Advice> {
        let mut found = self.findings(facts);
        if let Some(change) = self.cause {
            found.iter_mut().for_each(|advice| {
                advice.hint = format!(
                    "an earlier update changed a weight of the adapter by {change:.2e}, after which a model is usually \
                     destroyed: lower `train.learning_rate`"
                );
            });
        }
        found
    }

    fn findings(&mut self, facts: &RolloutFacts) -> Vec<Advice> {
        let truncated = speak(&mut self.truncated, too_long(facts));
        // A flat batch of truncated completions has one cause, not two.
        let flat = speak(&mut self.flat, if self.truncated > 0 { None } else { nothing_to_compare(facts) });
        truncated.into_iter().chain(flat).collect()
    }

    /// Called once per update, between the gradient and the optimizer's step.
    pub fn gradient(&mut self, loss: f64, grad_norm: f64) -> Gradient {
        let Some(advice) = not_finite(loss, grad_norm) else {
            self.non_finite = 0;
            return Gradient::Sound;
        };
        self.non_finite += 1;
        if self.non_finite < NON_FINITE_LIMIT {
            return Gradient::Skip(advice);
        }
        Gradient::Stop(Advice {
            message: format!("{} updates in a row were not finite; the last: {}", self.non_finite, advice.message),
            hint: advice.hint,
        })
    }

    /// Called once per update, after the optimizer's step.
    pub fn update(&mut self, facts: &UpdateFacts) -> Vec<Advice> {
        let unmoved = speak(&mut self.unmoved, adapter_unmoved(facts));
        let large = too_large(facts);
        if large.is_some() {
            self.cause = Some(facts.largest_change.max(self.cause.unwrap_or(0.0)));
        }
        let large = speak(&mut self.too_large, large);
        let jump = norm_jump(self.norms.make_contiguous(), facts.grad_norm);
        if facts.grad_norm > 0.0 {
            self.norms.push_back(facts.grad_norm);
            self.norms.drain(..self.norms.len().saturating_sub(RECENT));
        }
        unmoved.into_iter().chain(large).chain(jump).collect()
    }
}

/// Counts a finding, and returns it the first time and every tenth time in a row.
fn speak(streak: &mut usize, finding: Option<Advice>) -> Option<Advice> {
    *streak = if finding.is_some() { *streak + 1 } else { 0 };
    finding.filter(|_| *streak == 1 || streak.is_multiple_of(REPEAT))
}

/// Most completions do not reach their answer.
pub fn too_long(facts: &RolloutFacts) -> Option<Advice> {
    let RolloutFacts { completions, truncated, max_completion_length, .. } = facts;
    (*completions > 0 && *truncated as f64 >= TRUNCATED_SHARE * *completions as f64).then(|| Advice {
        message: format!("{truncated} of {completions} completions were truncated at {max_completion_length} tokens"),
        hint: "raise `rollout.max_completion_length`; or, if completions.jsonl shows text after the \
               answer, add the string that ends it to `rollout.stop`"
            .to_owned(),
    })
}

/// In every group all completions have the same reward, so all advantages are zero.
pub fn nothing_to_compare(facts: &RolloutFacts) -> Option<Advice> {
    let RolloutFacts { groups, flat_groups, completions, lowest_reward, highest_reward, .. } = facts;
    if *groups == 0 || flat_groups < groups {
        return None;
    }
    let advice = |message: String, hint: &str| Some(Advice { message, hint: hint.to_owned() });
    if completions <= groups {
        return advice(
            "each group has only one completion, so there is nothing to compare it with".to_owned(),
            "set `rollout.num_generations` to 2 or more",
        );
    }
    if lowest_reward < highest_reward {
        return advice(
            format!("in each of the {groups} groups all rewards are equal, but groups differ"),
            "the completions of a question are too similar: raise `rollout.temperature` or `rollout.num_generations`",
        );
    }
    if *highest_reward <= 0.0 {
        return advice(
            format!("none of {completions} completions earned a reward"),
            "read some in completions.jsonl: is the answer in a \\boxed{}, in the format that the prior prompt asks \
             for? if so, use easier questions or raise `rollout.num_generations`",
        );
    }
    advice(
        format!("all {completions} completions earned the same reward, {highest_reward}"),
        "there is nothing to learn from these questions: use harder ones, or raise `rollout.num_generations`",
    )
}

/// A loss or gradient that would corrupt the adapter permanently.
pub fn not_finite(loss: f64, grad_norm: f64) -> Option<Advice> {
    let (what, value) = match (loss.is_finite(), grad_norm.is_finite()) {
        (true, true) => return None,
        (false, _) => ("loss", loss),
        (true, false) => ("gradient norm", grad_norm),
    };
    Some(Advice {
        message: format!("the {what} is {value}, so the update was skipped"),
        hint: "lower `train.learning_rate` or `train.max_grad_norm`; if this is the first update, the model's \
               files may be damaged or in an unsupported format"
            .to_owned(),
    })
}

/// A step that is too large to be one of learning.
pub fn too_large(facts: &UpdateFacts) -> Option<Advice> {
    (facts.largest_change > TOO_LARGE).then(|| Advice {
        message: format!(
            "the update changed a weight of the adapter by {:.2e}, with learning rate {:e} and a gradient norm of {:.2e}",
            facts.largest_change, facts.learning_rate, facts.grad_norm
        ),
        hint: "lower `train.learning_rate`; for LoRA 1e-6 to 1e-3 is usual".to_owned(),
    })
}

/// A gradient norm far above those of recent updates.
pub fn norm_jump(recent: &[f64], norm: f64) -> Option<Advice> {
    let mut sorted = recent.to_vec();
    sorted.sort_by(f64::total_cmp);
    let median = *sorted.get(sorted.len() / 2).filter(|_| sorted.len() >= FEWEST)?;
    (norm > JUMP * median).then(|| Advice {
        message: format!(
            "the gradient norm jumped to {norm:.2e}, {:.0} times the median of the last {} updates",
            norm / median,
            sorted.len()
        ),
        hint:
            "if the reward falls from here on, resume from an earlier checkpoint with a lower `train.learning_rate` or \
               `train.max_grad_norm`"
                .to_owned(),
    })
}

/// A step that should have changed the adapter but did not.
pub fn adapter_unmoved(facts: &UpdateFacts) -> Option<Advice> {
    // The warm-up starts at learning rate zero, and a batch without signal has its own message.
    if facts.lora_b_moved || facts.learning_rate == 0.0 || facts.completions_with_signal == 0 {
        return None;
    }
    let message = |cause: &str| {
        format!("{} completions have an advantage, but LoRA B did not change: {cause}", facts.completions_with_signal)
    };
    Some(if facts.grad_norm == 0.0 {
        Advice {
            message: message("the gradient is exactly zero"),
            hint: "if `clip_ratio/region_mean` is near 1, every token is clipped: lower `grpo.num_iterations`, \
                   `grpo.steps_per_generation` or `train.learning_rate`, or widen `grpo.epsilon`"
                .to_owned(),
        }
    } else {
        Advice {
            message: message(&format!("a step with learning rate {:e} is lost in rounding", facts.learning_rate)),
            hint: "raise `train.learning_rate`; LoRA needs about ten times the rate of full fine-tuning".to_owned(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rollout() -> RolloutFacts {
        RolloutFacts {
            groups: 4,
            flat_groups: 1,
            completions: 32,
            truncated: 3,
            max_completion_length: 96,
            lowest_reward: 0.0,
            highest_reward: 1.0,
        }
    }

    fn update() -> UpdateFacts {
        UpdateFacts {
            learning_rate: 1e-3,
            grad_norm: 0.5,
            completions_with_signal: 24,
            lora_b_moved: true,
            largest_change: 1e-3,
        }
    }

    #[track_caller]
    fn assert_says(advice: Option<Advice>, message: &str, hint: &str) {
        let advice = advice.expect("a finding");
        assert!(advice.message.contains(message), "{advice}");
        assert!(advice.hint.contains(hint), "{advice}");
    }

    #[test]
    fn a_normal_step_has_no_findings() {
        let mut guard = Guard::default();
        assert_eq!(guard.rollout(&rollout()), []);
        assert_eq!(guard.gradient(0.0, 0.5), Gradient::Sound);
        assert_eq!(guard.update(&update()), []);
        let empty = RolloutFacts { groups: 0, flat_groups: 0, completions: 0, truncated: 0, ..rollout() };
        assert_eq!(guard.rollout(&empty), []);
    }

    #[test]
    fn flat_groups_are_distinguished_by_cause() {
        let flat = RolloutFacts { flat_groups: 4, ..rollout() };
        assert_says(nothing_to_compare(&flat), "but groups differ", "rollout.temperature");
        let wrong = RolloutFacts { highest_reward: 0.0, ..flat.clone() };
        assert_says(nothing_to_compare(&wrong), "none of 32 completions", "\\boxed{}");
        let right = RolloutFacts { lowest_reward: 1.0, ..flat.clone() };
        assert_says(nothing_to_compare(&right), "the same reward, 1", "harder");
        let alone = RolloutFacts { completions: 4, ..flat };
        assert_says(nothing_to_compare(&alone), "only one completion", "rollout.num_generations");
    }

    #[test]
    fn truncation_is_reported_instead_of_flatness() {
        let cut = RolloutFacts { truncated: 29, flat_groups: 4, highest_reward: 0.0, ..rollout() };
        let found = Guard::default().rollout(&cut);
        assert_eq!(found.len(), 1);
        assert_says(
            found.into_iter().next(),
            "29 of 32 completions were truncated at 96",
            "rollout.max_completion_length",
        );
        assert_eq!(too_long(&RolloutFacts { truncated: 28, ..cut }), None);
    }

    #[test]
    fn an_unchanged_adapter_is_distinguished_by_cause() {
        let stuck = UpdateFacts { lora_b_moved: false, ..update() };
        assert_says(adapter_unmoved(&stuck), "24 completions have an advantage", "train.learning_rate");
        let zero = UpdateFacts { grad_norm: 0.0, ..stuck.clone() };
        assert_says(adapter_unmoved(&zero), "exactly zero", "clip_ratio/region_mean");
        assert_eq!(adapter_unmoved(&UpdateFacts { learning_rate: 0.0, ..stuck.clone() }), None);
        assert_eq!(adapter_unmoved(&UpdateFacts { completions_with_signal: 0, ..stuck }), None);
    }

    #[test]
    fn the_third_update_in_a_row_that_is_not_finite_stops() {
        let mut guard = Guard::default();
        for (loss, norm) in [(f64::NAN, 1.0), (0.0, f64::INFINITY)] {
            assert!(matches!(guard.gradient(loss, norm), Gradient::Skip(_)));
        }
        assert_eq!(guard.gradient(0.0, 1.0), Gradient::Sound);
        assert!(matches!(guard.gradient(0.0, f64::NAN), Gradient::Skip(_)));
        assert!(matches!(guard.gradient(0.0, f64::NAN), Gradient::Skip(_)));
        let Gradient::Stop(advice) = guard.gradient(f64::INFINITY, f64::NAN) else { panic!("three in a row") };
        assert_eq!(
            advice.message,
            "3 updates in a row were not finite; the last: the loss is inf, so the update was skipped"
        );
        assert!(advice.to_string().contains("\nhint: lower `train.learning_rate`"));
    }

    #[test]
    fn jumps_of_the_norm_and_large_updates_are_named() {
        let mut guard = Guard::default();
        let with = |grad_norm| UpdateFacts { grad_norm, ..update() };
        let found: Vec<usize> = [50.0, 0.5, 0.0, 0.4, 0.6, 0.5, 0.5, 4.0, 0.5, 0.5, 6.0, 0.5]
            .iter()
            .enumerate()
            .filter(|&(_, &norm)| !guard.update(&with(norm)).is_empty())
            .map(|(i, _)| i)
            .collect();
        assert_eq!(found, [10], "the first updates have nothing to be compared with");
        assert_says(norm_jump(&[0.5; 5], 6.0), "jumped to 6.00e0, 12 times", "train.max_grad_norm");

        let large = UpdateFacts { largest_change: 1000.0, learning_rate: 1000.0, ..update() };
        assert_says(
            guard.update(&large).into_iter().next(),
            "by 1.00e3, with learning rate 1e3",
            "train.learning_rate",
        );
        assert_eq!(guard.update(&update()), []);
        let flat = RolloutFacts { flat_groups: 4, highest_reward: 0.0, ..rollout() };
        let found = guard.rollout(&flat);
        assert_says(
            found.into_iter().next(),
            "none of 32",
            "an earlier update changed a weight of the adapter by 1.00e3",
        );
    }

    #[test]
    fn a_persistent_finding_is_not_repeated_at_every_step() {
        let mut guard = Guard::default();
        let stuck = UpdateFacts { lora_b_moved: false, ..update() };
        let spoken =
            |guard: &mut Guard| -> Vec<usize> { (1..=20).filter(|_| !guard.update(&stuck).is_empty()).collect() };
        assert_eq!(spoken(&mut guard), [1, 10, 20]);
        assert_eq!(guard.update(&update()), []);
        assert_eq!(spoken(&mut guard), [1, 10, 20]);
    }
}
