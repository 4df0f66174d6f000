//! How large a model's work may be.

use crate::config::RunConfig;
use crate::grpo::learner::Keep;

/// How much memory a model is to work in.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Longest prompt and completion together.
    pub positions: usize,
    /// Branches decoded at the same time.
    pub max_rows: usize,
    /// Bytes of a GPU's memory for rollouts and training, beside weights and adapter; `None`: what is free.
    pub working_bytes: Option<u64>,
    /// What passes of training keep; `None` where nothing is trained.
    pub keep: Option<Keep>,
}

impl Extent {
    /// For a run: all of a GPU that is free.
    pub fn of(config: &RunConfig) -> Self {
        let rollout = &config.rollout;
        Self {
            positions: rollout.max_sequence_length(),
            max_rows: rollout.max_rows,
            working_bytes: None,
            keep: Some(if config.train.gradient_checkpointing { Keep::Inputs } else { Keep::Everything }),
        }
    }
}
