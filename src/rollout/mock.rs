//! An engine without a model, so that the training loop can be tested in milliseconds.

use super::{Completion, Engine, Finish, RolloutRequest, RolloutWatch};
use crate::model::lora::Adapter;
use anyhow::Result;

/// Completes every prompt with the tokens that `respond` returns for (prompt, completion, step).
pub struct MockEngine<F: FnMut(&super::Prompt, usize, u64) -> Vec<u32>> {
    pub respond: F,
}

impl<F: FnMut(&super::Prompt, usize, u64) -> Vec<u32>> Engine for MockEngine<F> {
    fn generate(
        &mut self,
        _adapter: Option<&Adapter>,
        request: &RolloutRequest,
        watch: &mut dyn RolloutWatch,
    ) -> Result<Option<Vec<Vec<Completion>>>> {
        let mut groups: Vec<Vec<Completion>> = Vec::with_capacity(request.prompts.len());
        for (index, prompt) in request.prompts.iter().enumerate() {
            if watch.cancelled() {
                return Ok(None);
            }
            let completion = |completion| {
                let mut tokens = (self.respond)(prompt, completion, request.step);
                tokens.truncate(request.max_completion_length);
                let finish = request.finish(&tokens).unwrap_or(Finish::Length);
                let logprobs = vec![-1.0; tokens.len()];
                Completion { tokens, logprobs, finish, server: None }
            };
            groups.push((0..request.num_generations).map(completion).collect());
            watch.group(index, &groups[index]);
        }
        Ok(Some(groups))
    }
}
