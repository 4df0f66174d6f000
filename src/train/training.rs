//! The parts of a run, and the observer of its rollouts.

use super::sample::{RolloutScorer, TrainQuestion};
use crate::config::RunConfig;
use crate::rollout::RolloutWatch;
use crate::run::{Progress, RunDir, Stop};
use std::time::Instant;

/// The parts of a run.
pub struct Training<'a> {
    pub config: &'a RunConfig,
    /// Generates and scores completions.
    pub scorer: RolloutScorer<'a>,
    /// The model's name, for the adapter's files.
    pub base: &'a str,
    pub questions: &'a [TrainQuestion],
    pub held_out: &'a [TrainQuestion],
    pub run: &'a RunDir,
    pub progress: &'a Progress,
    /// Number of completions of each step to print.
    pub show_completions: usize,
    pub stop: &'a Stop,
}

/// Shows the progress of a rollout, and stops it if requested.
pub(super) struct Watching<'a> {
    pub training: &'a Training<'a>,
    pub phase: &'a str,
    pub tokens: usize,
    pub shown: Instant,
}

impl RolloutWatch for Watching<'_> {
    fn token(&mut self, _prompt: usize, _completion: usize, _token: u32) {
        self.tokens += 1;
    }

    fn cancelled(&mut self) -> bool {
        if self.shown.elapsed().as_millis() > 200 {
            self.shown = Instant::now();
            self.training.progress.phase(&format!("{}: {} tokens", self.phase, self.tokens));
        }
        self.training.stop.requested().is_some()
    }
}
