//! What completes the questions of an evaluation: a model in this process, or a server.

use anyhow::Result;

use crate::prompt::template::Rendered;
use crate::rollout::Sampling;

/// A question, rendered, and the samples of it that are wanted.
pub struct EvalJob<'a> {
    /// Place in the benchmark.
    pub question: usize,
    pub prompt: &'a Rendered,
    /// Identity of the question, for the random numbers of its samples.
    pub key: u64,
    /// Numbers of the wanted samples, in increasing order.
    pub samples: Vec<usize>,
}

/// How completions are drawn.
#[derive(Clone, Debug)]
pub struct Draw {
    pub sampling: Sampling,
    /// Longest completion.
    pub max_tokens: usize,
    /// Strings that end a completion; the text of a completion is cut before them.
    pub stop: Vec<String>,
    pub seed: u64,
}

/// One completion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalCompletion {
    /// Without end-of-sequence tokens and stop strings.
    pub text: String,
    /// Its length, the end-of-sequence token included.
    pub tokens: usize,
    /// Why it ended: the name of a token, `stop string`, or [`LENGTH`].
    pub finish: String,
}

/// The finish of a completion that was cut off at the longest allowed length.
pub const LENGTH: &str = "length";

/// What happens while questions are completed.
pub trait EvalWatch {
    /// A sample is complete. An error ends the work.
    fn sample(&mut self, question: usize, sample: usize, completion: EvalCompletion) -> Result<()>;

    /// `count` more tokens were drawn.
    fn tokens(&mut self, _count: usize) {}

    /// Asked often; `true` ends the work as soon as possible. Samples that are not complete are lost.
    fn cancelled(&mut self) -> bool {
        false
    }
}

/// Something that completes rendered prompts.
pub trait Completer {
    /// Draws every wanted sample and hands it over as soon as it is complete, in any order.
    ///
    /// # Errors
    /// What failed for good, or what `watch` returned. Samples handed over before stay valid.
    fn complete(&mut self, jobs: &[EvalJob], draw: &Draw, watch: &mut dyn EvalWatch) -> Result<()>;
}
