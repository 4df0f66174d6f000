//! Rewards: named, weighted components of a completion's score.
//!
//! A component returns a value and does not depend on weights; [`RewardSet`] weights and adds them. Most are rules,
//! pure functions of one completion; [`MajorityReward`] compares the completions of a group; a [`CustomReward`] one is the
//! user's command, which scores a batch at a time.

mod accuracy;
pub mod bench;
mod code;
mod custom;
mod format;
mod format_strict;
mod inverted;
mod length;
mod majority;
mod process;
mod random;
mod repetition;
mod set;
mod tag_count;
mod tags;

use serde::Serialize;

use crate::data::Question;
use crate::math::Verdict;
use crate::prompt::PriorPrompt;

pub use accuracy::AccuracyReward;
pub use code::CodeReward;
pub use custom::CustomReward;
pub use format::FormatReward;
pub use format_strict::FormatStrictReward;
pub use inverted::InvertedReward;
pub use length::{CosineReward, SoftOverlongReward};
pub use majority::MajorityReward;
pub use random::RandomReward;
pub use repetition::RepetitionReward;
pub use set::RewardSet;
pub use tag_count::TagCountReward;
pub use tags::Tags;

/// Identifies a completion of a run. The completions of a group differ only in `completion`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompletionKey {
    /// The run's seed.
    pub seed: u64,
    pub step: u64,
    /// A different number for each group of a step.
    pub question: u64,
    /// Index in the group.
    pub completion: u64,
}

impl CompletionKey {
    fn is_same_group(&self, other: &Self) -> bool {
        Self { completion: 0, ..*self } == Self { completion: 0, ..*other }
    }
}

/// One completion, with everything that a reward may use.
#[derive(Clone, Copy, Debug)]
pub struct RewardInput<'a> {
    /// Includes the other columns of its row, such as the tests of a program.
    pub question: &'a Question,
    /// What the model wrote, without the opening tag if that was prefilled.
    pub response: &'a str,
    pub prompt: &'a PriorPrompt,
    /// The completion was started with the opening tag of the prior prompt.
    pub prefilled: bool,
    /// Length of the completion in tokens, including the end-of-sequence token.
    pub tokens: usize,
    /// It was truncated at the maximum length.
    pub truncated: bool,
    pub key: CompletionKey,
}

/// A rule: one component of a score, a pure function of the completion.
pub trait Reward: Send + Sync {
    fn name(&self) -> &str;

    fn score(&self, input: &RewardInput) -> Score;

    /// Ends what a score waits for. The run has been asked to end, and its scores are not used.
    fn stop(&self) {}
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Score {
    /// Finite. `None` if there is no basis for a value (a gold answer that cannot be read), so that any number would be
    /// wrong.
    pub value: Option<f64>,
    /// The model's answer, for a reward that extracts one.
    pub answer: Option<String>,
    pub verdict: Option<Verdict>,
    /// The reason for the value, for the log.
    pub note: Option<String>,
}

/// The score of one completion.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scored {
    /// Without weights and gate, in the order of [`RewardSet::names`].
    pub components: Vec<Option<f64>>,
    /// The weighted sum of the components that have a value.
    pub total: f64,
    /// `false` if a component with a weight could not score the completion: it must not be compared with others.
    pub scorable: bool,
    pub answer: Option<String>,
    pub verdict: Verdict,
    pub note: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        AccuracySection, BenchMode, CodeSection, FormatSection, Gate, LengthKind, LengthSection, OptionalSection,
        RandomSection, RepetitionSection, RewardSection,
    };
    use crate::math::Scope;
    use crate::prompt::Role;

    pub fn prompt(tag: Option<&str>) -> PriorPrompt {
        PriorPrompt {
            name: tag.unwrap_or("none").into(),
            paper_name: String::new(),
            tag: tag.map(String::from),
            answer_tag: tag.map(|_| "answer".into()),
            role: Role::System,
            text: String::new(),
            description: String::new(),
            stems_from: String::new(),
            wording: "rft".into(),
        }
    }

    pub fn question(gold: &str) -> Question {
        Question {
            id: "1".into(),
            text: "?".into(),
            gold: gold.into(),
            source: "test".into(),
            extra: serde_json::Map::new(),
        }
    }

    pub fn input<'a>(question: &'a Question, prompt: &'a PriorPrompt, response: &'a str) -> RewardInput<'a> {
        RewardInput {
            question,
            response,
            prompt,
            prefilled: false,
            tokens: 10,
            truncated: false,
            key: CompletionKey::default(),
        }
    }

    /// open-r1's values for the cosine.
    pub fn values() -> LengthSection {
        LengthSection {
            weight: None,
            kind: LengthKind::Cosine,
            max_length: None,
            soft_punish_cache: None,
            min_value_correct: 0.5,
            max_value_correct: 1.0,
            min_value_wrong: -1.0,
            max_value_wrong: -0.5,
        }
    }

    /// The values of the presets, except for the weights of accuracy and format.
    pub fn section(accuracy: Option<f64>, format: Option<f64>) -> RewardSection {
        RewardSection {
            gate: Gate::None,
            bench: BenchMode::Error,
            max_bench_failures: 0,
            accuracy: AccuracySection { weight: accuracy, scope: Scope::Response },
            format: FormatSection { weight: format },
            format_strict: OptionalSection { weight: None },
            tag_count: OptionalSection { weight: None },
            length: values(),
            repetition: RepetitionSection { weight: None, ngram_size: 3, max_penalty: -1.0 },
            code: CodeSection { weight: None, column: "tests".into(), timeout: 10.0, unsafe_local_exec: false },
            random: RandomSection { weight: None, probability: 0.5 },
            inverted: OptionalSection { weight: None },
            majority: OptionalSection { weight: None },
            custom: Vec::new(),
        }
    }
}
