//! Logits that are NaN or infinite. A token that was sampled from them means nothing, so they end a rollout.

use crate::model::lora::Adapter;
use crate::model::pack::Pack;
use anyhow::{Error, Result};
use std::fmt;

/// Tokens before the logits that are kept, to compute the logits again without the adapter.
const CONTEXT: usize = 256;

/// The first logits of a rollout that are NaN or infinite.
#[derive(Debug)]
pub struct OddLogits {
    prompt: usize,
    completion: usize,
    token: usize,
    /// The last tokens before them.
    before: Vec<u32>,
    /// Without the adapter they are finite.
    by_adapter: bool,
}

impl OddLogits {
    /// Of token `token` of a completion, with the tokens `before` it.
    pub fn new(prompt: usize, completion: usize, token: usize, before: &[u32]) -> Self {
        let before = before[before.len().saturating_sub(CONTEXT)..].to_vec();
        Self { prompt, completion, token, before, by_adapter: false }
    }
}

impl fmt::Display for OddLogits {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (token, completion, prompt) = (self.token + 1, self.completion + 1, self.prompt + 1);
        if self.by_adapter {
            write!(f, "with the adapter, the model's logits are NaN or infinite, and without it they are finite")?;
        } else {
            write!(f, "the model's logits are NaN or infinite")?;
        }
        write!(f, ": first at token {token} of completion {completion} of prompt {prompt}\nhint: ")?;
        f.write_str(if self.by_adapter {
            "use an earlier checkpoint of the adapter; if it is being trained, lower `train.learning_rate`"
        } else {
            "check the model's files: its weights are damaged, or too large for this format"
        })
    }
}

impl std::error::Error for OddLogits {}

/// The error of a rollout with `adapter`: if it is [`OddLogits`], it names the adapter if that is the cause. `base` returns the
/// logits (rows, vocabulary) of a pack without the adapter.
pub fn blame(error: Error, adapter: Option<&Adapter>, base: impl FnOnce(&Pack) -> Result<Vec<f32>>) -> Error {
    match error.downcast::<OddLogits>() {
        Ok(odd) if adapter.is_some() => {
            let mut pack = Pack::default();
            pack.push(&odd.before, &[]);
            let by_adapter = base(&pack).is_ok_and(|logits| logits.iter().all(|logit| logit.is_finite()));
            OddLogits { by_adapter, ..odd }.into()
        }
        Ok(odd) => odd.into(),
        Err(error) => error,
    }
}
