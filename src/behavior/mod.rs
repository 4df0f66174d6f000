//! What a response does, beside being right or wrong: nine behaviours, found by rules and told as spans.
//!
//! docs/behaviors.md is the codebook and tells how well the rules agree with the labels.

pub mod agreement;
mod classifier;
pub mod judge;
mod passages;
pub mod samples;
pub mod summary;
mod text;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use classifier::{Classifier, RuleAgreement};

/// A kind of behaviour: the four of Gandhi et al. (arXiv 2503.01307), then the five that the shipped prior prompts ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    Verification,
    Backtracking,
    SubgoalSetting,
    BackwardChaining,
    Reasoning,
    Planning,
    Code,
    KnowledgeRecall,
    ExampleUse,
}

impl Class {
    pub const ALL: [Class; 9] = [
        Class::Verification,
        Class::Backtracking,
        Class::SubgoalSetting,
        Class::BackwardChaining,
        Class::Reasoning,
        Class::Planning,
        Class::Code,
        Class::KnowledgeRecall,
        Class::ExampleUse,
    ];

    /// As it stands in files: `subgoal_setting`.
    pub fn name(self) -> &'static str {
        match self {
            Class::Verification => "verification",
            Class::Backtracking => "backtracking",
            Class::SubgoalSetting => "subgoal_setting",
            Class::BackwardChaining => "backward_chaining",
            Class::Reasoning => "reasoning",
            Class::Planning => "planning",
            Class::Code => "code",
            Class::KnowledgeRecall => "knowledge_recall",
            Class::ExampleUse => "example_use",
        }
    }

    /// As it is read: `subgoal setting`, two words at most.
    pub fn title(self) -> &'static str {
        match self {
            Class::SubgoalSetting => "subgoal setting",
            Class::BackwardChaining => "backward chaining",
            Class::KnowledgeRecall => "knowledge recall",
            Class::ExampleUse => "example use",
            other => other.name(),
        }
    }

    /// Whether it is one of the cognitive behaviours, which program text cannot show.
    pub fn is_cognitive(self) -> bool {
        self <= Class::BackwardChaining
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a response shows a behaviour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BehaviorSpan {
    pub class: Class,
    /// Bytes `start..end` of the response, on the borders of characters.
    pub start: usize,
    pub end: usize,
    /// The rule that found it.
    pub rule: String,
}
