//! Rollouts: completions of prompts, sampled group by group.

pub mod mock;
pub mod policy;
pub mod sampler;
pub mod schedule;

use crate::model::lora::Adapter;
use anyhow::Result;

pub use sampler::Sampling;

/// A rendered prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    pub ids: Vec<u32>,
    /// Identity of the question, for the random numbers of its completions.
    pub key: u64,
}

/// Why a completion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finish {
    /// This end-of-sequence token was drawn; it is the completion's last token.
    Token(u32),
    /// The text ends with a stop string.
    String,
    /// The longest allowed completion.
    Length,
}

/// One completion.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// With the end-of-sequence token, where there is one.
    pub tokens: Vec<u32>,
    /// Log-probability of each token under softmax(logits / temperature), before top-k, top-p and min-p.
    pub logprobs: Vec<f32>,
    pub finish: Finish,
}

impl Completion {
    /// Whether it was cut at the longest length.
    pub fn truncated(&self) -> bool {
        self.finish == Finish::Length
    }
}

/// The step number that evaluations draw with: no training step has it.
pub const EVALUATION_STEP: u64 = u64::MAX;

/// What to generate. A completion's tokens are a function of (weights, prompt, sampling, seed, step, prompt key, completion).
pub struct RolloutRequest<'a> {
    pub prompts: &'a [Prompt],
    /// Completions of each prompt.
    pub num_generations: usize,
    pub sampling: &'a Sampling,
    pub max_completion_length: usize,
    pub seed: u64,
    pub step: u64,
    /// Whether the text of these tokens ends a completion; given all tokens so far.
    pub ends: &'a (dyn Fn(&[u32]) -> bool + Sync),
    pub stop_tokens: &'a [u32],
}

impl RolloutRequest<'_> {
    /// Why a completion of these tokens has ended, if it has; given that it had not before the last of them.
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

/// What happens while an engine generates; it may ask to stop.
pub trait RolloutWatch {
    /// A token was drawn for completion `completion` of prompt `prompt`.
    fn token(&mut self, _prompt: usize, _completion: usize, _token: u32) {}

    /// All completions of prompt `prompt` have ended, while others may still be decoded. These are their tokens as the
    /// request will return them.
    fn group(&mut self, _prompt: usize, _completions: &[Completion]) {}

    /// Asked between decode steps; `true` abandons the request.
    fn cancelled(&mut self) -> bool {
        false
    }
}

/// Watches nothing.
pub struct Unwatched;

impl RolloutWatch for Unwatched {}

/// Something that completes prompts.
pub trait Engine {
    /// The completions of every prompt, in the order of the prompts, under the model with `adapter`; `None` when
    /// cancelled.
    fn generate(
        &mut self,
        adapter: Option<&Adapter>,
        request: &RolloutRequest,
        watch: &mut dyn RolloutWatch,
    ) -> Result<Option<Vec<Vec<Completion>>>>;
}
