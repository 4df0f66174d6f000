//! Rollouts: completions of prompts, sampled by group.

pub mod mock;
pub mod odd_logits;
pub mod policy;
pub mod sampler;
pub mod schedule;
pub mod servers;

use crate::model::lora::Adapter;
use anyhow::Result;

pub use sampler::Sampling;

/// A rendered prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    pub ids: Vec<u32>,
    /// Identifies the question, for the random numbers of its completions.
    pub key: u64,
}

/// Why a completion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finish {
    /// This end-of-sequence token was sampled; it is the completion's last token.
    Token(u32),
    /// The text ends with a stop string.
    String,
    /// The completion reached the maximum length.
    Length,
}

/// One completion.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// Including the end-of-sequence token, if there is one.
    pub tokens: Vec<u32>,
    /// Log-probability of each token under softmax(logits / temperature), before top-k, top-p and min-p.
    pub logprobs: Vec<f32>,
    pub finish: Finish,
    /// The number of the server that generated it; `None`: this process.
    pub server: Option<usize>,
}

impl Completion {
    /// Whether it was truncated at the maximum length.
    pub fn truncated(&self) -> bool {
        self.finish == Finish::Length
    }
}

/// The step number for the random numbers of evaluations: no training step has it.
pub const EVALUATION_STEP: u64 = u64::MAX;

/// What to generate. A completion's tokens are a function of (weights, prompt, sampling, seed, step, prompt key, its
/// index).
pub struct RolloutRequest<'a> {
    pub prompts: &'a [Prompt],
    /// Completions per prompt.
    pub num_generations: usize,
    pub sampling: &'a Sampling,
    pub max_completion_length: usize,
    pub seed: u64,
    pub step: u64,
    /// Whether the text of these tokens ends a completion. It is called with all tokens so far.
    pub ends: &'a (dyn Fn(&[u32]) -> bool + Sync),
    pub stop_tokens: &'a [u32],
}

impl RolloutRequest<'_> {
    /// Why a completion with these tokens has ended, if it has. It had not ended before the last token.
    pub fn finish(&self, tokens: &[u32]) -> Option<Finish> {
        let last = *tokens.last()?;
        if self.stop_tokens.contains(&last) {
            Some(Finish::Token(last))
        } else if (self.ends)(tokens) {
            Some(Finish::String)
        } else if tokens.len() >= self.max_completion_length {
            Some(Finish::Length)
        } else {
            None
        }
    }
}

/// Receives events while an engine generates, and may stop it.
pub trait RolloutWatch {
    /// A token was sampled for completion `completion` of prompt `prompt`.
    fn token(&mut self, _prompt: usize, _completion: usize, _token: u32) {}

    /// All completions of prompt `prompt` have ended, while others may still be decoded. These are their tokens, as the
    /// request will return them.
    fn group(&mut self, _prompt: usize, _completions: &[Completion]) {}

    /// Called between decode steps; `true` cancels the request.
    fn cancelled(&mut self) -> bool {
        false
    }
}

/// Ignores all events.
pub struct Unwatched;

impl RolloutWatch for Unwatched {}

/// Completes prompts with a model.
pub trait Engine {
    /// The completions of every prompt, in the order of the prompts, from the model with `adapter`; `None` if
    /// canceled.
    fn generate(
        &mut self,
        adapter: Option<&Adapter>,
        request: &RolloutRequest,
        watch: &mut dyn RolloutWatch,
    ) -> Result<Option<Vec<Vec<Completion>>>>;
}
