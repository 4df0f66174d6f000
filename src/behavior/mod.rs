//! Behaviors of completions, independent of correctness: nine classes, found by rules and returned as spans.
//!
//! docs/behaviors.md is the codebook. It also reports the agreement of the rules with the labels.

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

/// A class of behavior: the four of Gandhi et al. (arXiv 2503.01307), then the five that the shipped prior prompts ask for.
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

    /// The name in files: `subgoal_setting`.
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

    /// The displayed name, at most two words: `subgoal setting`.
    pub fn title(self) -> &'static str {
        match self {
            Class::SubgoalSetting => "subgoal setting",
            Class::BackwardChaining => "backward chaining",
            Class::KnowledgeRecall => "knowledge recall",
            Class::ExampleUse => "example use",
            other => other.name(),
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The position of a behavior in a completion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BehaviorSpan {
    pub class: Class,
    /// Bytes `start..end` of the completion, at character boundaries.
    pub start: usize,
    pub end: usize,
    /// The rule that found it.
    pub rule: String,
}
