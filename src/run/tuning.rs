//! `tune.json` of a sweep: the value of a setting that was chosen for each arm, and the trials that it was chosen by.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Number;

use crate::disk::atomic;
use crate::stats::Interval;

/// The name of the file in the folder of a sweep.
pub const FILE: &str = "tune.json";

/// `tune.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TuneRecord {
    pub rft: String,
    /// The setting, such as `train.learning_rate`.
    pub key: String,
    pub arms: Vec<TunedArm>,
}

/// The choice for an arm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TunedArm {
    pub arm: String,
    /// Steps of each trial.
    pub steps: usize,
    /// Held-out questions that each trial was to be evaluated on.
    pub questions: usize,
    /// In the order of the sweep file.
    pub candidates: Vec<TuneCandidate>,
    /// The value that the arm is trained with.
    pub choice: Number,
    pub reason: String,
}

/// A candidate and its trials.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TuneCandidate {
    pub value: Number,
    /// The mean over its trials of the accuracy after training; absent if a trial failed.
    pub accuracy: Option<f64>,
    /// The 95 % interval of the accuracy, over questions.
    pub interval: Option<Interval>,
    pub trials: Vec<TuneTrial>,
}

/// A run of a candidate with one seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TuneTrial {
    pub run: String,
    pub seed: u64,
    #[serde(flatten)]
    pub result: TrialResult,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TrialResult {
    /// The evaluation after training, with one completion per question at temperature 1.
    Done {
        correct: usize,
        questions: usize,
        /// Of the identities and texts of the questions, in order.
        questions_sha256: String,
    },
    /// The error that the trial ended with.
    Failed { error: String },
}

impl TuneRecord {
    /// The record of the sweep in `folder`; `None` if nothing has been chosen.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(FILE);
        if !path.is_file() {
            return Ok(None);
        }
        let text = fs::read(&path).with_context(|| format!("read `{}`", path.display()))?;
        serde_json::from_slice(&text).map(Some).with_context(|| format!("parse `{}`", path.display()))
    }

    pub fn write(&self, folder: &Path) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(self).context("encode the choice of values")?;
        text.push(b'\n');
        atomic::write(&folder.join(FILE), &text)
    }

    pub fn arm(&self, name: &str) -> Option<&TunedArm> {
        self.arms.iter().find(|it| it.arm == name)
    }
}

impl TunedArm {
    /// Whether the choice follows from the trials.
    pub fn is_proven(&self) -> bool {
        best(&self.candidates).is_some_and(|(best, _)| same(&best.value, &self.choice))
    }

    /// The candidate that was chosen.
    pub fn chosen(&self) -> Option<&TuneCandidate> {
        self.candidates.iter().find(|it| same(&it.value, &self.choice))
    }
}

impl TuneCandidate {
    /// The number of questions that its first trial was evaluated on: those whose prompts are not too long.
    pub fn questions(&self) -> Option<usize> {
        self.trials.iter().find_map(|it| match it.result {
            TrialResult::Done { questions, .. } => Some(questions),
            TrialResult::Failed { .. } => None,
        })
    }
}

/// The candidate with the highest accuracy, and the reason for it; of equal ones, the smallest value. Candidates of which a trial
/// failed are left out; `None` if all have failed.
pub fn best(candidates: &[TuneCandidate]) -> Option<(&TuneCandidate, &'static str)> {
    let done: Vec<(&TuneCandidate, f64)> = candidates.iter().filter_map(|it| Some((it, it.accuracy?))).collect();
    let highest = done.iter().map(|(_, accuracy)| *accuracy).fold(f64::NEG_INFINITY, f64::max);
    let equal: Vec<&TuneCandidate> =
        done.iter().filter(|(_, accuracy)| *accuracy == highest).map(|(it, _)| *it).collect();
    let smallest = equal.iter().copied().min_by(|a, b| number(&a.value).total_cmp(&number(&b.value)))?;
    let reason = match (done.len(), equal.len()) {
        (1, _) if candidates.len() > 1 => "the only value of which no trial failed",
        (_, 1) => "the highest held-out accuracy",
        _ => "the smallest of the values with the highest held-out accuracy",
    };
    Some((smallest, reason))
}

/// Whether two values are the same, up to the last digits, which are not exact when JSON is read.
pub fn same(a: &Number, b: &Number) -> bool {
    let (a, b) = (number(a), number(b));
    (a - b).abs() <= 1e-12 * a.abs().max(b.abs())
}

/// The value as a float.
pub fn number(value: &Number) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(value: f64, accuracy: Option<f64>) -> TuneCandidate {
        TuneCandidate { value: Number::from_f64(value).unwrap(), accuracy, interval: None, trials: Vec::new() }
    }

    #[test]
    fn the_highest_accuracy_wins_and_then_the_smallest_value() {
        let chosen = |candidates: &[(f64, Option<f64>)]| {
            let candidates: Vec<TuneCandidate> = candidates.iter().map(|(v, a)| candidate(*v, *a)).collect();
            best(&candidates).map(|(it, reason)| (number(&it.value), reason))
        };
        assert_eq!(chosen(&[(1e-4, Some(0.2)), (1e-3, Some(0.5))]), Some((1e-3, "the highest held-out accuracy")));
        let equal = chosen(&[(1e-3, Some(0.5)), (1e-4, Some(0.5)), (1e-5, Some(0.4))]);
        assert_eq!(equal, Some((1e-4, "the smallest of the values with the highest held-out accuracy")));
        assert_eq!(chosen(&[(1.0, None), (2.0, Some(0.0))]), Some((2.0, "the only value of which no trial failed")));
        assert_eq!(chosen(&[(1.0, None), (2.0, None)]), None);
    }

    #[test]
    fn a_choice_that_does_not_follow_from_the_trials_is_not_proven() {
        let arm = |choice: f64| TunedArm {
            arm: "a".into(),
            steps: 1,
            questions: 32,
            candidates: vec![candidate(1e-4, Some(0.2)), candidate(1e-3, Some(0.5))],
            choice: Number::from_f64(choice).unwrap(),
            reason: String::new(),
        };
        assert!(arm(1e-3).is_proven() && !arm(1e-4).is_proven() && !arm(5.0).is_proven());
    }
}
