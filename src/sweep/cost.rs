//! The cost of a sweep before it starts: counts and bounds from its configurations, and time from a measured piece.

use anyhow::Result;

use super::expand::Sweep;
use crate::config::RunConfig;
use crate::data::arithmetic;
use crate::eval::bench;
use crate::eval::profile::{Profile, Style};
use crate::plan::forecast::evaluations;

/// A number of completions, and the maximum number of their tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompletionBound {
    pub completions: u64,
    pub tokens: u64,
}

impl CompletionBound {
    fn of(completions: usize, max_tokens: usize) -> Self {
        Self { completions: completions as u64, tokens: (completions * max_tokens) as u64 }
    }

    fn add(&mut self, other: Self) {
        self.completions += other.completions;
        self.tokens += other.tokens;
    }
}

/// The totals of all runs and evaluations of a sweep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SweepCost {
    /// Steps of all runs.
    pub steps: u64,
    pub training: CompletionBound,
    /// Held-out evaluations during the runs.
    pub held_out: CompletionBound,
    /// Evaluations of `[sweep.eval]`.
    pub benchmarks: CompletionBound,
    /// Quantities that could not be counted, one sentence each.
    pub unknown: Vec<String>,
}

impl SweepCost {
    /// Does not load any data. A number that depends on the data is unknown.
    pub fn of(sweep: &Sweep) -> Result<Self> {
        let mut cost = Self::default();
        for config in sweep.configs.values() {
            let Some(steps) = steps(config) else {
                let path = &config.data.path;
                let line = format!("steps: train.steps is unset, and `{path}` is not read for this estimate");
                if !cost.unknown.contains(&line) {
                    cost.unknown.push(line);
                }
                continue;
            };
            let longest = config.rollout.max_completion_length;
            let kinds = if config.eval.greedy { 2 } else { 1 };
            cost.steps += steps as u64;
            cost.training.add(CompletionBound::of(steps * config.rollout.completions_per_step(), longest));
            cost.held_out.add(CompletionBound::of(evaluations(config, steps) * config.eval.questions * kinds, longest));
        }
        let Some(eval) = &sweep.eval else { return Ok(cost) };
        for name in &eval.benchmarks {
            let benchmark = bench::find(name)?;
            let style = Style::new(Profile::Study, &benchmark)?;
            let Some(questions) = benchmark.questions() else {
                cost.unknown.push(format!("completions of `{name}`: the file is not read for this estimate"));
                continue;
            };
            let asked = eval.limit.unwrap_or(questions).min(questions) * eval.samples.unwrap_or(style.samples);
            let longest = eval.max_tokens.unwrap_or(style.max_tokens);
            cost.benchmarks.add(CompletionBound::of(asked * sweep.evals.len(), longest));
        }
        Ok(cost)
    }
}

fn steps(config: &RunConfig) -> Option<usize> {
    let generated = (config.data.path == arithmetic::NAME).then_some(crate::data::GENERATED);
    match config.train.steps {
        Some(steps) => Some(steps),
        None => config.data.max_questions.or(generated).map(|questions| config.total_steps(questions)),
    }
}
