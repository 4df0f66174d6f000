//! 1 if the last box of the completion contains the gold answer.

use super::{Reward, RewardInput, Score};
use crate::math::{Scope, Verdict, prepare_for};

pub struct AccuracyReward {
    pub scope: Scope,
}

impl Reward for AccuracyReward {
    fn name(&self) -> &str {
        "accuracy"
    }

    fn score(&self, input: &RewardInput) -> Score {
        // Checked first, so that all completions of a question are treated alike, with an answer or without.
        let Ok(gold) = prepare_for(&input.question.text, &input.question.gold) else {
            return Score { note: Some("the gold answer cannot be read".into()), ..Score::default() };
        };
        let graded = gold.grade(input.response, self.scope, input.prompt.answer_tag.as_deref());
        let value = if graded.verdict == Verdict::Correct { 1.0 } else { 0.0 };
        Score { value: Some(value), answer: graded.answer, verdict: Some(graded.verdict), note: graded.missing }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{input, prompt, question};
    use super::*;

    fn score(scope: Scope, gold: &str, response: &str) -> Score {
        let (question, prompt) = (question(gold), prompt(Some("think")));
        AccuracyReward { scope }.score(&input(&question, &prompt, response))
    }

    #[test]
    fn the_scope_decides_which_boxes_count() {
        let outside = r"<think>\boxed{7}</think><answer>7</answer>";
        assert_eq!(score(Scope::Response, "7", outside).value, Some(1.0));
        assert_eq!(score(Scope::Answer, "7", outside).value, Some(0.0));
        assert_eq!(score(Scope::Answer, "7", outside).note.as_deref(), Some("no box"));

        let after = r"<answer>\boxed{7}</answer> or \boxed{8}";
        assert_eq!(score(Scope::Response, "7", after).value, Some(0.0));
        assert_eq!(score(Scope::Answer, "7", after).value, Some(1.0));
    }

    #[test]
    fn nonsense_in_the_last_box_is_undecided_and_scores_zero() {
        let score = score(Scope::Response, "7", r"We have 7 apples, \boxed{7}. \boxed{@@}");
        assert_eq!(score.value, Some(0.0));
        assert!(matches!(score.verdict, Some(Verdict::Undecided(_))), "{score:?}");
    }

    #[test]
    fn no_box_is_wrong_and_noted() {
        let score = score(Scope::Response, "7", "the answer is 7");
        assert_eq!((score.value, score.verdict), (Some(0.0), Some(Verdict::Wrong)));
        assert_eq!((score.answer, score.note.as_deref()), (None, Some("no box")));
    }
}
