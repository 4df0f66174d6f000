//! A control: 1 - `accuracy`, which rewards wrong answers.

use super::{AccuracyReward, Reward, RewardInput, Score};

pub struct InvertedReward {
    pub accuracy: AccuracyReward,
}

impl Reward for InvertedReward {
    fn name(&self) -> &str {
        "inverted"
    }

    fn score(&self, input: &RewardInput) -> Score {
        // Answer and verdict are those of `accuracy`, which is always logged.
        Score { value: self.accuracy.score(input).value.map(|value| 1.0 - value), ..Score::default() }
    }
}
