//! What the length of a completion is worth, in tokens.

use std::f64::consts::PI;

use super::format::Format;
use super::{Accuracy, Reward, Sample, Score};
use crate::config::LengthSection;

/// Short right answers above long ones, long wrong ones above short ones: who does not know should think longer.
///
/// The value runs along half a cosine from one end of its range to the other as the length goes from 0 to the limit
/// (arXiv 2502.03373; the values of the ends are open-r1's), and stays there beyond it.
pub struct Cosine {
    pub accuracy: Accuracy,
    /// With it, an answer outside of the form counts as wrong.
    pub gate: Option<Format>,
    pub values: LengthSection,
    /// The length that is too long, above 0.
    pub limit: usize,
}

impl Cosine {
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

impl Reward for Cosine {
    fn name(&self) -> &str {
        "length"
    }

    fn max(&self) -> f64 {
        self.values.max_value_correct.max(self.values.max_value_wrong)
    }

    fn score(&self, sample: &Sample) -> Score {
        let Some(accuracy) = self.accuracy.score(sample).value else { return Score::default() };
        let is_right = accuracy == 1.0 && self.gate.as_ref().is_none_or(|form| form.holds(sample));
        Score { value: Some(self.value(is_right, sample.tokens)), ..Score::default() }
    }
}

/// A penalty that grows from 0 to -1 over the last `cache` tokens before the limit: DAPO's soft overlong punishment
/// (arXiv 2503.14476, equation 13), a slope where the cut alone would be a step.
pub struct SoftOverlong {
    /// The length from which on the penalty is -1.
    pub limit: usize,
    /// From 1 to `limit`.
    pub cache: usize,
}

impl SoftOverlong {
    fn value(&self, tokens: usize) -> f64 {
        let over = tokens.saturating_sub(self.limit - self.cache).min(self.cache);
        // Not -over / cache, which would be -0 for what is short enough.
        0.0 - over as f64 / self.cache as f64
    }
}

impl Reward for SoftOverlong {
    fn name(&self) -> &str {
        "length"
    }

    fn max(&self) -> f64 {
        0.0
    }

    fn score(&self, sample: &Sample) -> Score {
        Score { value: Some(self.value(sample.tokens)), ..Score::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tags::Tags;
    use super::super::tests::{prompt, question, sample, values};
    use super::*;
    use crate::math::Scope;

    fn cosine(gate: Option<Format>) -> Cosine {
        Cosine { accuracy: Accuracy { scope: Scope::Response }, gate, values: values(), limit: 300 }
    }

    #[track_caller]
    fn assert_near(value: f64, expected: f64) {
        assert!((value - expected).abs() < 1e-12, "{value}, expected {expected}");
    }

    #[test]
    fn the_cosine_has_its_ends_its_middle_and_its_quarters() {
        let cosine = cosine(None);
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
        assert_eq!(cosine.max(), 1.0);
    }

    #[test]
    fn the_answer_decides_and_with_the_gate_its_form_too() {
        let (question, prompt) = (question("7"), prompt(Some("think")));
        let value = |cosine: &Cosine, response| {
            cosine.score(&Sample { tokens: 150, ..sample(&question, &prompt, response) }).value.unwrap()
        };
        let gated = cosine(Some(Format { tags: Tags::of(&prompt).unwrap().unwrap() }));
        let in_form = r"<think>a</think><answer>\boxed{7}</answer>";
        for (response, free, behind_the_gate) in [
            (in_form, 0.75, 0.75),
            (r"it is \boxed{7}", 0.75, -0.75),
            (r"it is \boxed{8}", -0.75, -0.75),
            ("it is 7", -0.75, -0.75),
        ] {
            assert_near(value(&cosine(None), response), free);
            assert_near(value(&gated, response), behind_the_gate);
        }
    }

    #[test]
    fn a_gold_that_cannot_be_read_has_no_value() {
        let (question, prompt) = (question(r"\oint"), prompt(None));
        assert_eq!(cosine(None).score(&sample(&question, &prompt, r"\boxed{7}")).value, None);
    }

    #[test]
    fn the_penalty_is_the_line_of_dapo() {
        let rule = SoftOverlong { limit: 100, cache: 20 };
        for (tokens, expected) in
            [(0, 0.0), (80, 0.0), (81, -0.05), (85, -0.25), (90, -0.5), (99, -0.95), (100, -1.0), (500, -1.0)]
        {
            assert_near(rule.value(tokens), expected);
        }
        assert!(rule.value(80).is_sign_positive());
        assert_eq!(SoftOverlong { limit: 4, cache: 4 }.value(1), -0.25);
        let (question, prompt) = (question("7"), prompt(None));
        assert_eq!(rule.score(&Sample { tokens: 90, ..sample(&question, &prompt, "") }).value, Some(-0.5));
    }
}
