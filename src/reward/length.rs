//! Rewards for the length of a completion, in tokens.

use std::f64::consts::PI;

use super::format::FormatReward;
use super::{AccuracyReward, Reward, RewardInput, Score};
use crate::config::LengthSection;

/// Prefers short right answers to long ones, and long wrong ones to short ones, to encourage thinking about hard
/// questions.
///
/// The value follows half a cosine from one end of its range to the other as the length goes from 0 to the limit
/// (arXiv 2502.03373; the end values are open-r1's), and stays constant beyond it.
pub struct CosineReward {
    pub accuracy: AccuracyReward,
    /// Whether an answer without the format of its prior prompt counts as wrong.
    pub gate: bool,
    pub values: LengthSection,
    /// The length at which the cosine ends, above 0.
    pub limit: usize,
}

impl CosineReward {
    fn value(&self, is_right: bool, tokens: usize) -> f64 {
        let values = &self.values;
        let (at_once, at_limit) = match is_right {
            true => (values.max_value_correct, values.min_value_correct),
            false => (values.min_value_wrong, values.max_value_wrong),
        };
        let progress = tokens.min(self.limit) as f64 / self.limit as f64;
        at_limit + 0.5 * (at_once - at_limit) * (1.0 + (PI * progress).cos())
    }
}

impl Reward for CosineReward {
    fn name(&self) -> &str {
        "length"
    }

    fn score(&self, input: &RewardInput) -> Score {
        let Some(accuracy) = self.accuracy.score(input).value else { return Score::default() };
        let is_right = accuracy == 1.0 && (!self.gate || FormatReward::gate(input));
        Score { value: Some(self.value(is_right, input.tokens)), ..Score::default() }
    }
}

/// A penalty that goes from 0 to -1 over the last `cache` tokens before the limit: DAPO's soft overlong punishment
/// (arXiv 2503.14476, equation 13), a slope instead of a sudden drop at the limit.
pub struct SoftOverlongReward {
    /// The length from which the penalty is -1.
    pub limit: usize,
    /// From 1 to `limit`.
    pub cache: usize,
}

impl SoftOverlongReward {
    fn value(&self, tokens: usize) -> f64 {
        let over = tokens.saturating_sub(self.limit - self.cache).min(self.cache);
        // Not -over / cache, which would be -0 for completions that are short enough.
        0.0 - over as f64 / self.cache as f64
    }
}

impl Reward for SoftOverlongReward {
    fn name(&self) -> &str {
        "length"
    }

    fn score(&self, input: &RewardInput) -> Score {
        Score { value: Some(self.value(input.tokens)), ..Score::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{input, prompt, question, values};
    use super::*;
    use crate::math::Scope;

    fn cosine(gate: bool) -> CosineReward {
        CosineReward { accuracy: AccuracyReward { scope: Scope::Response }, gate, values: values(), limit: 300 }
    }

    #[track_caller]
    fn assert_near(value: f64, expected: f64) {
        assert!((value - expected).abs() < 1e-12, "{value}, expected {expected}");
    }

    #[test]
    fn the_cosine_has_the_right_ends_middle_and_quarters() {
        let cosine = cosine(false);
        // cos 0 = 1, cos(pi/3) = 1/2, cos(pi/2) = 0, cos(2 pi/3) = -1/2, cos pi = -1
        for (tokens, right, wrong) in [
            (0, 1.0, -1.0),
            (100, 0.875, -0.875),
            (150, 0.75, -0.75),
            (200, 0.625, -0.625),
            (300, 0.5, -0.5),
            (900, 0.5, -0.5),
        ] {
            assert_near(cosine.value(true, tokens), right);
            assert_near(cosine.value(false, tokens), wrong);
        }
    }

    #[test]
    fn the_answer_decides_and_with_the_gate_its_format_too() {
        let (question, prompt) = (question("7"), prompt(Some("think")));
        let value = |cosine: &CosineReward, response| {
            cosine.score(&RewardInput { tokens: 150, ..input(&question, &prompt, response) }).value.unwrap()
        };
        let gated = cosine(true);
        let in_form = r"<think>a</think><answer>\boxed{7}</answer>";
        for (response, free, behind_the_gate) in [
            (in_form, 0.75, 0.75),
            (r"it is \boxed{7}", 0.75, -0.75),
            (r"it is \boxed{8}", -0.75, -0.75),
            ("it is 7", -0.75, -0.75),
        ] {
            assert_near(value(&cosine(false), response), free);
            assert_near(value(&gated, response), behind_the_gate);
        }
    }

    #[test]
    fn a_gold_that_cannot_be_read_has_no_value() {
        let (question, prompt) = (question(r"\oint"), prompt(None));
        assert_eq!(cosine(false).score(&input(&question, &prompt, r"\boxed{7}")).value, None);
    }

    #[test]
    fn the_penalty_is_the_line_of_dapo() {
        let rule = SoftOverlongReward { limit: 100, cache: 20 };
        for (tokens, expected) in
            [(0, 0.0), (80, 0.0), (81, -0.05), (85, -0.25), (90, -0.5), (99, -0.95), (100, -1.0), (500, -1.0)]
        {
            assert_near(rule.value(tokens), expected);
        }
        assert!(rule.value(80).is_sign_positive());
        assert_eq!(SoftOverlongReward { limit: 4, cache: 4 }.value(1), -0.25);
        let (question, prompt) = (question("7"), prompt(None));
        assert_eq!(rule.score(&RewardInput { tokens: 90, ..input(&question, &prompt, "") }).value, Some(-0.5));
    }
}
