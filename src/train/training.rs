//! What a run is made of, and who watches its rollouts.

use super::sample::{Item, Sampler};
use crate::config::RunConfig;
use crate::rollout::Watch;
use crate::run::{Progress, RunDir, Stop};
use std::time::Instant;

/// What a run is made of.
pub struct Training<'a> {
    pub config: &'a RunConfig,
    /// Draws and scores completions.
    pub sampler: Sampler<'a>,
    /// The model's name, for the adapter's files.
    pub base: &'a str,
    pub questions: &'a [Item],
    pub held_out: &'a [Item],
    pub run: &'a RunDir,
    pub progress: &'a Progress,
    pub stop: &'a Stop,
}

/// Shows how far a rollout is, and carries the wish to stop into it.
pub(super) struct Watching<'a> {
    pub training: &'a Training<'a>,
    pub phase: &'a str,
    pub tokens: usize,
    pub shown: Instant,
}

impl Watch for Watching<'_> {
    fn token(&mut self, _prompt: usize, _branch: usize, _token: u32) {
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
