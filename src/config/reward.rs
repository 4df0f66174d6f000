//! The `[reward]` part of the schema: the components of a completion's reward, which docs/rewards.md defines.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::optional::OrUnset;
use crate::math::Scope;

/// Names of the built-in components, in the order in which they are logged.
pub const RULES: [&str; 10] = [
    "accuracy",
    "format",
    "format_strict",
    "tag_count",
    "length",
    "repetition",
    "code",
    "random",
    "inverted",
    "majority",
];

/// Names of the control rewards: what they reward is not the right answer.
pub const CONTROLS: [&str; 3] = ["random", "inverted", "majority"];

/// Components and their weights. The reward of a completion is the weighted sum. A component of weight 0 is computed and
/// logged, but not rewarded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RewardSection {
    /// Whether a right answer counts in any format.
    pub gate: Gate,
    /// What a failed test of the reward before the first step does: `error` ends the run, `warn` prints a note, `off` skips the test.
    pub bench: BenchMode,
    /// Maximum number of cases of that test that may fail.
    pub max_bench_failures: usize,
    pub accuracy: AccuracySection,
    pub format: FormatSection,
    /// The format reward of open-r1, line by line.
    pub format_strict: OptionalSection,
    /// A quarter for each tag that occurs exactly once.
    pub tag_count: OptionalSection,
    pub length: LengthSection,
    pub repetition: RepetitionSection,
    pub code: CodeSection,
    /// Control: 1 at random, whatever the completion contains.
    pub random: RandomSection,
    /// Control: 1 - `accuracy`.
    pub inverted: OptionalSection,
    /// Control: 1 for the most frequent answer of the group; the gold answer is not used.
    pub majority: OptionalSection,
    /// The user's own commands.
    pub custom: Vec<CustomSection>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Gate {
    /// A right answer counts in any format.
    None,
    /// A right answer counts only if the `format` component is 1.
    Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BenchMode {
    /// The run does not start.
    Error,
    /// The run starts with a note.
    Warn,
    /// The reward is not tested.
    Off,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccuracySection {
    /// Unset: 0.5 with a format reward, else 1.
    #[serde(default, with = "super::optional")]
    #[schemars(with = "OrUnset<f64>")]
    pub weight: Option<f64>,
    /// Where the answer is searched: `response` (the whole completion) or `answer` (its last closed answer element).
    pub scope: Scope,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FormatSection {
    /// Unset: 0.5 if the prior prompt has a tag, 0 for `none`.
    #[serde(default, with = "super::optional")]
    #[schemars(with = "OrUnset<f64>")]
    pub weight: Option<f64>,
}

/// A component that is off unless it has a weight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OptionalSection {
    /// Unset: off.
    #[serde(default, with = "super::optional")]
    #[schemars(with = "OrUnset<f64>")]
    pub weight: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LengthKind {
    /// Short right answers score above long ones, long wrong ones above short ones (arXiv 2502.03373).
    Cosine,
    /// A penalty that grows over the last tokens before the limit (DAPO, arXiv 2503.14476).
    SoftOverlong,
}

/// Lengths are in tokens, including the end-of-sequence token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LengthSection {
    /// Unset: off.
    #[serde(default, with = "super::optional")]
    #[schemars(with = "OrUnset<f64>")]
    pub weight: Option<f64>,
    /// The rule: `cosine` or `soft-overlong`.
    pub kind: LengthKind,
    /// The length that counts as too long; unset: `rollout.max_completion_length`.
    #[serde(default, with = "super::optional")]
    #[schemars(with = "OrUnset<usize>")]
    pub max_length: Option<usize>,
    /// `soft-overlong`: over this number of tokens before `max_length`, the penalty grows from 0 to -1; unset: a fifth of
    /// `max_length`, as in DAPO.
    #[serde(default, with = "super::optional")]
    #[schemars(with = "OrUnset<usize>")]
    pub soft_punish_cache: Option<usize>,
    /// `cosine`: value of a right answer at `max_length`.
    pub min_value_correct: f64,
    /// `cosine`: value of a right answer of length 0.
    pub max_value_correct: f64,
    /// `cosine`: value of a wrong answer of length 0.
    pub min_value_wrong: f64,
    /// `cosine`: value of a wrong answer at `max_length`.
    pub max_value_wrong: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RepetitionSection {
    /// Unset: off.
    #[serde(default, with = "super::optional")]
    #[schemars(with = "OrUnset<f64>")]
    pub weight: Option<f64>,
    /// Number of words of a repeated phrase.
    pub ngram_size: usize,
    /// Value of a text that only repeats one phrase; 0 or less.
    pub max_penalty: f64,
}

/// Runs a program on the tests of its question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CodeSection {
    /// Unset: off.
    #[serde(default, with = "super::optional")]
    #[schemars(with = "OrUnset<f64>")]
    pub weight: Option<f64>,
    /// The data column with the tests.
    pub column: String,
    /// Maximum seconds for the tests of a function, or for one run of a script.
    pub timeout: f64,
    /// Run programs even if the sandbox does not work.
    pub unsafe_local_exec: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RandomSection {
    /// Unset: off.
    #[serde(default, with = "super::optional")]
    #[schemars(with = "OrUnset<f64>")]
    pub weight: Option<f64>,
    /// Probability of the value 1; else 0.
    pub probability: f64,
}

/// A command that reads completions as JSON lines and writes scores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CustomSection {
    /// The name under which it is logged.
    pub name: String,
    /// The program and its arguments; no shell is involved.
    pub command: Vec<String>,
    /// Weight of its score in the reward.
    pub weight: f64,
    /// Maximum seconds for one batch: the completions that are waiting when the command is free, at most those of one rollout.
    #[serde(default = "default_timeout")]
    pub timeout: f64,
    /// Environment variables that the command needs although their names are those of secrets, such as an API key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
}

fn default_timeout() -> f64 {
    60.0
}

impl RewardSection {
    /// Weights of (accuracy, format) under a prior prompt with or without a tag; without a tag there is no format to
    /// reward.
    pub fn weights(&self, has_tag: bool) -> (f64, f64) {
        let format = if has_tag { self.format.weight.unwrap_or(0.5) } else { 0.0 };
        let form = [Some(format), self.format_strict.weight, self.tag_count.weight];
        let is_rewarded = form.into_iter().flatten().any(|weight| weight > 0.0);
        (self.accuracy.weight.unwrap_or(if is_rewarded { 0.5 } else { 1.0 }), format)
    }

    /// Keys and weights of all components with a weight, as [`weights`](Self::weights) resolves them.
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
            ("reward.random.weight", self.random.weight),
            ("reward.inverted.weight", self.inverted.weight),
            ("reward.majority.weight", self.majority.weight),
        ];
        let rules = rules.into_iter().filter_map(|(key, weight)| Some((key, weight?)));
        rules.chain(self.custom.iter().map(|custom| ("reward.custom", custom.weight))).collect()
    }
}

impl LengthSection {
    /// The length that counts as too long, if completions are truncated at `max_completion_length`.
    pub fn limit(&self, max_completion_length: usize) -> usize {
        self.max_length.unwrap_or(max_completion_length)
    }

    /// Number of tokens before `limit` over which the `soft-overlong` penalty grows.
    pub fn cache(&self, limit: usize) -> usize {
        self.soft_punish_cache.unwrap_or((limit / 5).max(1))
    }
}
