//! A control: 1 with a fixed probability, whatever the completion contains.

use super::{Reward, RewardInput, Score};
use crate::rng::{Purpose, Stream};

pub struct RandomReward {
    /// Of the value 1, between 0 and 1.
    pub probability: f64,
}

impl Reward for RandomReward {
    fn name(&self) -> &str {
        "random"
    }

    fn score(&self, input: &RewardInput) -> Score {
        let key = input.key;
        let stream = Stream::new(key.seed, Purpose::RandomReward, &[key.step, key.question, key.completion]);
        Score { value: Some(f64::from(u8::from(stream.f64(0) < self.probability))), ..Score::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::CompletionKey;
    use super::super::tests::{input, prompt, question};
    use super::*;
    use crate::stats::mean;

    /// The values of `groups` groups of eight completions that are all the same.
    fn values(probability: f64, groups: u64) -> Vec<Vec<f64>> {
        let (question, prompt) = (question("7"), prompt(Some("think")));
        let rule = RandomReward { probability };
        let value = |group, completion| {
            let key = CompletionKey { seed: 42, step: 1 + group / 64, question: group, completion };
            rule.score(&RewardInput { key, ..input(&question, &prompt, r"\boxed{7}") }).value.unwrap()
        };
        (0..groups).map(|group| (0..8).map(|completion| value(group, completion)).collect()).collect()
    }

    #[test]
    fn the_share_of_ones_is_the_probability() {
        for probability in [0.1, 0.5, 0.9] {
            let values = values(probability, 2000).concat();
            // Four standard errors.
            let error = 4.0 * (probability * (1.0 - probability) / values.len() as f64).sqrt();
            assert!((mean(&values) - probability).abs() < error, "{probability}: {}", mean(&values));
        }
    }
}
