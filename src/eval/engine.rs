//! The interface of sources of completions: a model in this process, or a server.

use anyhow::Result;

use crate::prompt::template::Rendered;
use crate::rollout::Sampling;

/// A rendered question, and the samples of it to generate.
pub struct EvalJob<'a> {
    /// Index in the benchmark.
    pub question: usize,
    pub prompt: &'a Rendered,
    /// Identity of the question, the key of the random numbers of its samples.
    pub key: u64,
    /// Numbers of the samples to generate, in increasing order.
    pub samples: Vec<usize>,
}

/// The sampling settings.
#[derive(Clone, Debug)]
pub struct Draw {
    pub sampling: Sampling,
    /// Maximum completion length.
    pub max_tokens: usize,
    /// Strings that end a completion. They are removed from its text.
    pub stop: Vec<String>,
    pub seed: u64,
}

/// One completion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalCompletion {
    /// Without end-of-sequence tokens and stop strings.
    pub text: String,
    /// Its length, including the end-of-sequence token.
    pub tokens: usize,
    /// The finish reason: the name of a token, `stop string`, or [`LENGTH`].
    pub finish: String,
}

/// The finish reason of a completion that was truncated at the maximum length.
pub const LENGTH: &str = "length";

/// The finish reason of the empty samples of a question whose prompt does not fit.
pub const DOES_NOT_FIT: &str = "the prompt does not fit";

/// Callbacks while samples are generated.
pub trait EvalWatch {
    /// Called when a sample is complete. An error stops the generation.
    fn sample(&mut self, question: usize, sample: usize, completion: EvalCompletion) -> Result<()>;

    /// Called when `count` more tokens have been generated.
    fn tokens(&mut self, _count: usize) {}

    /// Called often. `true` stops the generation as soon as possible; incomplete samples are lost.
    fn cancelled(&mut self) -> bool {
        false
    }
}

/// A source of completions of rendered prompts.
pub trait Completer {
    /// Generates all samples and passes each to `watch` when it is complete, in any order.
    ///
    /// # Errors
    /// A permanent failure, or an error of `watch`. Samples passed before remain valid.
    fn complete(&mut self, jobs: &[EvalJob], draw: &Draw, watch: &mut dyn EvalWatch) -> Result<()>;
}
