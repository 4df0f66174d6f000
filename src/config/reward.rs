//! The `[reward]` part of the schema: what a completion is rewarded for. docs/rewards.md says what each component computes.

use serde::{Deserialize, Serialize};

use crate::math::Scope;

/// Names of the components that are built in, in the order in which they are logged.
pub const RULES: [&str; 7] = ["accuracy", "format", "format_strict", "tag_count", "length", "repetition", "code"];

/// Components and their weights; the reward of a completion is the weighted sum. A component of weight 0 is measured and
/// logged all the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardSection {
    /// Whether a right answer counts in any form.
    pub gate: Gate,
    pub accuracy: AccuracySection,
    pub format: FormatSection,
    /// The form of open-r1, line by line.
    pub format_strict: OptionalSection,
    /// A quarter for each tag that stands exactly once.
    pub tag_count: OptionalSection,
    pub length: LengthSection,
    pub repetition: RepetitionSection,
    pub code: CodeSection,
    /// Commands of the user's own.
    pub custom: Vec<CustomSection>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gate {
    /// A right answer counts in any form.
    None,
    /// A right answer counts only where the `format` component is 1.
    Format,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccuracySection {
    /// Unset: 0.5 beside a reward of form, 1 without one.
    #[serde(default, with = "super::optional")]
    pub weight: Option<f64>,
    pub scope: Scope,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FormatSection {
    /// Unset: 0.5 where the prior prompt has a tag, 0 for `none`.
    #[serde(default, with = "super::optional")]
    pub weight: Option<f64>,
}

/// A component that is off unless it has a weight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptionalSection {
    /// Unset: off.
    #[serde(default, with = "super::optional")]
    pub weight: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LengthKind {
    /// Short right answers above long ones, long wrong ones above short ones (arXiv 2502.03373).
    Cosine,
    /// A penalty that grows over the last tokens before the limit (DAPO, arXiv 2503.14476).
    SoftOverlong,
}

/// Lengths are counted in tokens, end-of-sequence token included.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LengthSection {
    /// Unset: off.
    #[serde(default, with = "super::optional")]
    pub weight: Option<f64>,
    pub kind: LengthKind,
    /// The length that is too long; unset: `rollout.max_completion_length`.
    #[serde(default, with = "super::optional")]
    pub max_length: Option<usize>,
    /// `soft-overlong`: over so many tokens before `max_length` the penalty grows from 0 to -1; unset: a fifth of it, as
    /// in DAPO.
    #[serde(default, with = "super::optional")]
    pub soft_punish_cache: Option<usize>,
    /// `cosine`: value of a right answer at `max_length`.
    pub min_value_correct: f64,
    /// `cosine`: value of a right answer of no length.
    pub max_value_correct: f64,
    /// `cosine`: value of a wrong answer of no length.
    pub min_value_wrong: f64,
    /// `cosine`: value of a wrong answer at `max_length`.
    pub max_value_wrong: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepetitionSection {
    /// Unset: off.
    #[serde(default, with = "super::optional")]
    pub weight: Option<f64>,
    /// Words of a phrase that counts as repeated.
    pub ngram_size: usize,
    /// Value of a text that is one phrase over and over; 0 or less.
    pub max_penalty: f64,
}

/// A program is run on the tests of its question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CodeSection {
    /// Unset: off.
    #[serde(default, with = "super::optional")]
    pub weight: Option<f64>,
    /// The column that holds the tests.
    pub column: String,
    /// Most seconds for the tests of a function, or for one run of a script.
    pub timeout: f64,
    /// Run programs even where nothing holds them in.
    pub unsafe_local_exec: bool,
}

/// A command that reads completions as JSON lines and answers with scores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomSection {
    /// The name it is logged under.
    pub name: String,
    /// The program and its arguments; no shell is involved.
    pub command: Vec<String>,
    pub weight: f64,
    /// Most seconds for one batch: the completions that wait when the command is free, at most those of one rollout.
    #[serde(default = "default_timeout")]
    pub timeout: f64,
}

fn default_timeout() -> f64 {
    60.0
}

impl RewardSection {
    /// Weights of (accuracy, format) under a prior prompt that has a tag or has none; without a tag there is no format
    /// to reward.
    pub fn weights(&self, has_tag: bool) -> (f64, f64) {
        let format = if has_tag { self.format.weight.unwrap_or(0.5) } else { 0.0 };
        let form = [Some(format), self.format_strict.weight, self.tag_count.weight];
        let is_rewarded = form.into_iter().flatten().any(|weight| weight > 0.0);
        (self.accuracy.weight.unwrap_or(if is_rewarded { 0.5 } else { 1.0 }), format)
    }

    /// Keys and weights of all that has one, as [`weights`](Self::weights) resolves them.
    pub(super) fn all_weights(&self, has_tag: bool) -> Vec<(&'static str, f64)> {
        let (accuracy, format) = self.weights(has_tag);
        let rules = [
            ("reward.accuracy.weight", Some(accuracy)),
            ("reward.format.weight", Some(format)),
            ("reward.format_strict.weight", self.format_strict.weight),
            ("reward.tag_count.weight", self.tag_count.weight),
            ("reward.length.weight", self.length.weight),
            ("reward.repetition.weight", self.repetition.weight),
            ("reward.code.weight", self.code.weight),
        ];
        let rules = rules.into_iter().filter_map(|(key, weight)| Some((key, weight?)));
        rules.chain(self.custom.iter().map(|custom| ("reward.custom", custom.weight))).collect()
    }
}

impl LengthSection {
    /// The length that is too long, where completions are cut at `max_completion_length`.
    pub fn limit(&self, max_completion_length: usize) -> usize {
        self.max_length.unwrap_or(max_completion_length)
    }

    /// Tokens before `limit` over which the penalty of `soft-overlong` grows.
    pub fn cache(&self, limit: usize) -> usize {
        self.soft_punish_cache.unwrap_or((limit / 5).max(1))
    }
}
