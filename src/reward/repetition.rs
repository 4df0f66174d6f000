//! A penalty for repetition: the share of phrases that repeat an earlier one.
//!
//! With n-grams of words, 1 - distinct / all, times the maximum penalty: arXiv 2502.03373, appendix C.2, as in open-r1
//! (`get_repetition_penalty_reward`). Case is ignored, and a text shorter than one phrase has no penalty.

use std::collections::HashSet;

use super::{Reward, RewardInput, Score};

pub struct RepetitionReward {
    /// Words per phrase, above 0.
    pub ngram_size: usize,
    /// The value of a text that repeats a single phrase; 0 or less.
    pub max_penalty: f64,
}

impl Reward for RepetitionReward {
    fn name(&self) -> &str {
        "repetition"
    }

    fn score(&self, input: &RewardInput) -> Score {
        Score { value: Some(self.value(input.response)), ..Score::default() }
    }
}

impl RepetitionReward {
    fn value(&self, text: &str) -> f64 {
        let text = text.to_lowercase();
        let words: Vec<&str> = text.split_whitespace().collect();
        let phrases = words.windows(self.ngram_size);
        let (all, distinct) = (phrases.len(), phrases.collect::<HashSet<_>>().len());
        // A sum of 0 and a product, because 0 times a penalty would be -0.
        if all == 0 { 0.0 } else { 0.0 + self.max_penalty * ((all - distinct) as f64 / all as f64) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{input, prompt, question};
    use super::*;

    #[test]
    fn the_share_of_repeated_phrases() {
        for (ngram_size, text, expected) in [
            (3, "", 0.0),
            (3, "two words", 0.0),
            (3, "three words only", 0.0),
            // a b c, b c a, c a b, a b c: 3 of 4 are distinct
            (3, "a b c a b c", -0.25),
            // the same with another case and other spaces
            (3, "A b  C\na B c", -0.25),
            // a a a, four times
            (3, "a a a a a a", -0.75),
            (1, "no no no no yes", -0.6),
            (2, "a b. a b", 0.0),
        ] {
            let rule = RepetitionReward { ngram_size, max_penalty: -1.0 };
            assert!((rule.value(text) - expected).abs() < 1e-12, "{text:?}: {}", rule.value(text));
        }
    }

    #[test]
    fn the_penalty_scales_and_never_rewards() {
        let (question, prompt) = (question("7"), prompt(None));
        let rule = RepetitionReward { ngram_size: 3, max_penalty: -0.05 };
        let value = |text| rule.score(&input(&question, &prompt, text)).value.unwrap();
        assert!((value("a a a a a a") + 0.0375).abs() < 1e-12);
        assert!(value("all words differ here").is_sign_positive());
    }
}
