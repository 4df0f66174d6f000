//! Estimates of the time and cost of a whole run, from measured pieces of it.

use crate::config::RunConfig;
use serde::Serialize;

/// A measured piece of a run: a number of steps, or of completions of an evaluation, with their tokens and time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct MeasuredPiece {
    pub units: usize,
    /// Tokens of prompts and completions. A prompt counts once for each of its completions.
    pub tokens: u64,
    pub seconds: f64,
}

/// The time and cost of a part of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct RunCost {
    pub tokens: f64,
    pub hours: f64,
    /// In the currency of the price, if there is one.
    pub money: Option<f64>,
}

/// The estimate of a whole run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Forecast {
    pub steps: usize,
    pub training: RunCost,
    /// Number of completions in all evaluations.
    pub completions: usize,
    pub evaluation: RunCost,
    pub whole: RunCost,
}

impl MeasuredPiece {
    /// The cost of `units` units like those of this piece, at `price` per hour of the machine. A piece without units costs nothing.
    fn scaled(&self, units: usize, price: Option<f64>) -> RunCost {
        let factor = if self.units == 0 { 0.0 } else { units as f64 / self.units as f64 };
        let hours = factor * self.seconds / 3600.0;
        RunCost { tokens: factor * self.tokens as f64, hours, money: price.map(|price| price * hours) }
    }
}

impl RunCost {
    fn with(self, other: RunCost) -> RunCost {
        let money = self.money.zip(other.money).map(|(a, b)| a + b);
        RunCost { tokens: self.tokens + other.tokens, hours: self.hours + other.hours, money }
    }
}

impl Forecast {
    /// Estimates a run of `config` with these numbers of questions, from measured steps and completions of its evaluation. Assumes
    /// that the length of completions does not change.
    pub fn new(
        config: &RunConfig,
        questions: usize,
        held_out: usize,
        step: &MeasuredPiece,
        evaluation: &MeasuredPiece,
        price: Option<f64>,
    ) -> Self {
        let steps = config.total_steps(questions);
        let completions = evaluations(config, steps) * held_out * if config.eval.greedy { 2 } else { 1 };
        let (training, evaluation) = (step.scaled(steps, price), evaluation.scaled(completions, price));
        Self { steps, training, completions, evaluation, whole: training.with(evaluation) }
    }
}

/// Number of evaluations of a run: before it, after it, and in between if the configuration asks for it.
pub fn evaluations(config: &RunConfig, steps: usize) -> usize {
    2 + steps.saturating_sub(1).checked_div(config.eval.every).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigLayers, resolve};

    #[test]
    fn an_estimate_calculated_by_hand() {
        let mut config = resolve(&ConfigLayers::default()).unwrap().config;
        config.train.steps = Some(100);
        config.eval.every = 30;
        config.eval.greedy = true;
        let step = MeasuredPiece { units: 4, tokens: 8_000, seconds: 72.0 };
        let evaluation = MeasuredPiece { units: 50, tokens: 500, seconds: 36.0 };
        let forecast = Forecast::new(&config, 1_000, 200, &step, &evaluation, Some(3.0));
        // 25 times the measured piece: half an hour.
        assert_eq!(forecast.training, RunCost { tokens: 200_000.0, hours: 0.5, money: Some(1.5) });
        // Before and after training, and after steps 30, 60 and 90, each sampled and greedy.
        assert_eq!(forecast.completions, 5 * 200 * 2);
        assert_eq!(forecast.evaluation, RunCost { tokens: 20_000.0, hours: 0.4, money: Some(0.4 * 3.0) });
        assert_eq!(forecast.whole.tokens, 220_000.0);
        assert!((forecast.whole.money.unwrap() - 2.7).abs() < 1e-12);
    }

    #[test]
    fn the_last_step_is_evaluated_once() {
        let mut config = resolve(&ConfigLayers::default()).unwrap().config;
        for (every, steps, expected) in [(0, 100, 2), (10, 100, 11), (10, 101, 12), (10, 9, 2), (10, 0, 2)] {
            config.eval.every = every;
            assert_eq!(evaluations(&config, steps), expected, "every {every} of {steps}");
        }
    }

    #[test]
    fn no_evaluation_costs_nothing() {
        let config = resolve(&ConfigLayers::default()).unwrap().config;
        let step = MeasuredPiece { units: 1, tokens: 10, seconds: 1.0 };
        let forecast = Forecast::new(&config, 1_000, 0, &step, &MeasuredPiece::default(), None);
        assert_eq!(forecast.evaluation, RunCost::default());
        assert_eq!(forecast.whole, forecast.training);
    }
}
