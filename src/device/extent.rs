//! The maximum size of a model's work.

use crate::config::{DistillKl, RunConfig};
use crate::grpo::learner::Keep;

/// The memory limits of a model.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Maximum length of prompt and completion together.
    pub positions: usize,
    /// Completions decoded at the same time.
    pub max_rows: usize,
    /// Bytes of GPU memory for rollouts and training, in addition to weights and adapter; `None`: all free memory.
    pub working_bytes: Option<u64>,
    /// What training passes keep; `None` if nothing is trained.
    pub keep: Option<Keep>,
    /// A prompt is distilled over the whole vocabulary.
    pub taught: bool,
}

impl Extent {
    /// For a run: all free memory of a GPU.
    pub fn of(config: &RunConfig) -> Self {
        let rollout = &config.rollout;
        Self {
            positions: rollout.max_sequence_length(),
            max_rows: rollout.local_rows(),
            working_bytes: None,
            keep: Some(if config.train.gradient_checkpointing { Keep::Inputs } else { Keep::Everything }),
            taught: config.distilled() == Some(DistillKl::Full),
        }
    }
}
