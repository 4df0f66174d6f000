//! Comparisons between the arms of a study: differences in accuracy, and whether they can be explained by chance.
//!
//! The seed of a training run and the choice of questions are both random. A difference gets a verdict only if it is significant
//! over both: over seeds by a paired t test of the differences at each seed ([`compare_seeds`]), over questions by a sign-flip
//! test of each question's difference ([`sign_flip`]). The larger p-value is used, and Holm's method corrects for all
//! comparisons of the study together, so that a study of arms without differences gives a verdict in at most 5 of 100 cases.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::stats::{
    Interval, RESAMPLES, SeedComparison, accuracy_interval, bootstrap_average, compare_seeds, holm, mean, sample_std,
    sign_flip,
};

pub mod text;

/// The difference that a study should be able to detect: 5 percentage points. Power is calculated for this value, which was
/// fixed before anything was measured.
pub const WORTH: f64 = 0.05;

/// Below this power there is no verdict, whatever the p-value, because significant results of such a study are mostly exaggerated.
const ENOUGH_POWER: f64 = 0.5;

/// The arms with which the others are compared, if a study has them.
pub const REFERENCES: [&str; 2] = ["none", "reasoning"];

/// The column that is the unweighted mean of the benchmarks.
pub const AVERAGE: &str = "average";

/// Evaluations of all arms on the same benchmarks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Study {
    pub benchmarks: Vec<StudyBenchmark>,
    pub arms: Vec<StudyArm>,
}

/// A benchmark, and the number of samples per question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudyBenchmark {
    pub name: String,
    pub samples: usize,
}

/// The evaluations of one arm's runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudyArm {
    pub name: String,
    /// For each seed and benchmark, in the study's order, the share of correct completions of each question.
    pub seeds: BTreeMap<u64, Vec<Vec<f64>>>,
}

/// The accuracy of an arm on one benchmark, or on the average.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StudyCell {
    /// Mean over seeds.
    pub accuracy: f64,
    /// 95 % interval over questions, of the mean over seeds.
    pub interval: Interval,
    /// Standard deviation between seeds; `None` for a single seed.
    pub between_seeds: Option<f64>,
}

/// The conclusion of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ComparisonVerdict {
    Higher,
    Lower,
    /// Not significant, or too little power. `power` is the power to detect a difference of [`WORTH`].
    None {
        power: f64,
    },
}

/// The difference of an arm from a reference, on one benchmark or the average.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ArmComparison {
    pub arm: String,
    pub reference: String,
    pub column: String,
    /// Over the seeds that both arms have.
    pub seeds: SeedComparison,
    /// The smallest true difference that these seeds detect in 80 of 100 studies; `None` if it cannot be calculated.
    pub detectable: Option<f64>,
    /// 95 % interval over questions.
    pub questions: Interval,
    pub question_p_value: f64,
    /// The larger of both p-values, corrected for all comparisons of the study; `None` for a single seed.
    pub adjusted: Option<f64>,
    pub verdict: ComparisonVerdict,
}

impl ArmComparison {
    /// A 95 % interval for both other seeds and other questions: from the lower to the upper end of the two intervals. It matches
    /// the larger of the two p-values. The interval over seeds alone has no width if all seeds have the same difference.
    pub fn interval(&self) -> Interval {
        let Interval { low, high } = self.seeds.interval.unwrap_or(self.questions);
        Interval { low: low.min(self.questions.low), high: high.max(self.questions.high) }
    }
}

/// The result of a study's comparisons.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StudyOutcome {
    /// The benchmarks, then [`AVERAGE`] if there are several.
    pub columns: Vec<String>,
    /// Names of the arms, with one cell per column.
    pub cells: Vec<(String, Vec<StudyCell>)>,
    /// Seeds of each arm.
    pub seeds: Vec<usize>,
    pub comparisons: Vec<ArmComparison>,
}

/// The reason why a study cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StudyError {
    #[error("the study has no arms, benchmarks or seeds")]
    Empty,
    #[error("two arms have the name `{0}`")]
    Twice(String),
    #[error(
        "seed {seed} of arm `{arm}`: expected {expected} benchmarks, found {got}\nhint: finish its evaluation, or leave it out"
    )]
    Incomplete { arm: String, seed: u64, got: usize, expected: usize },
    #[error("seed {seed} of arm `{arm}`: expected {expected} questions of {benchmark}, found {got}")]
    Questions { arm: String, seed: u64, benchmark: String, got: usize, expected: usize },
    #[error("arms `{0}` and `{1}` share no seed\nhint: give all arms of a sweep the same seeds")]
    NoSharedSeed(String, String),
}

/// Every arm with each of `references` that the study has. Two references are paired once.
pub fn pairs<'a>(study: &'a Study, references: &[&str]) -> Vec<(&'a StudyArm, &'a StudyArm)> {
    let of = |(i, reference): (usize, &&str)| {
        let base = study.arms.iter().find(|arm| arm.name == **reference)?;
        let others = study.arms.iter().filter(|arm| !references[..=i].contains(&arm.name.as_str()));
        Some(others.map(|arm| (arm, base)).collect::<Vec<_>>())
    };
    references.iter().enumerate().filter_map(of).flatten().collect()
}

/// Compares the first arm of each pair with the second.
///
/// # Errors
/// An evaluation is missing, or arms have different numbers of questions, or share no seed.
pub fn compare_pairs(study: &Study, pairs: &[(&StudyArm, &StudyArm)], seed: u64) -> Result<StudyOutcome, StudyError> {
    check(study)?;
    let mut columns: Vec<String> = study.benchmarks.iter().map(|benchmark| benchmark.name.clone()).collect();
    if columns.len() > 1 {
        columns.push(AVERAGE.into());
    }
    let mut comparisons = Vec::new();
    for (arm, base) in pairs {
        comparisons.extend(against(arm, base, &columns, seed)?);
    }
    correct(&mut comparisons);
    Ok(StudyOutcome {
        cells: study.arms.iter().map(|arm| (arm.name.clone(), cells(arm, &study.benchmarks, seed))).collect(),
        seeds: study.arms.iter().map(|arm| arm.seeds.len()).collect(),
        columns,
        comparisons,
    })
}

impl StudyArm {
    /// Whether the two arms have a seed in common.
    pub fn shares_seed(&self, other: &StudyArm) -> bool {
        self.seeds.keys().any(|seed| other.seeds.contains_key(seed))
    }
}

fn check(study: &Study) -> Result<(), StudyError> {
    let first = study.arms.first().and_then(|arm| arm.seeds.values().next()).ok_or(StudyError::Empty)?;
    if study.benchmarks.is_empty() || first.iter().any(Vec::is_empty) {
        return Err(StudyError::Empty);
    }
    let mut names = BTreeSet::new();
    for arm in &study.arms {
        if !names.insert(&arm.name) {
            return Err(StudyError::Twice(arm.name.clone()));
        }
        if arm.seeds.is_empty() {
            return Err(StudyError::Empty);
        }
        for (&seed, results) in &arm.seeds {
            let (arm, got, expected) = (arm.name.clone(), results.len(), study.benchmarks.len());
            if got != expected {
                return Err(StudyError::Incomplete { arm, seed, got, expected });
            }
            let sizes = results.iter().zip(first).zip(&study.benchmarks);
            if let Some(((here, there), benchmark)) =
                sizes.into_iter().find(|((here, there), _)| here.len() != there.len())
            {
                let (benchmark, got, expected) = (benchmark.name.clone(), here.len(), there.len());
                return Err(StudyError::Questions { arm, seed, benchmark, got, expected });
            }
        }
    }
    Ok(())
}

/// For each benchmark, the mean of each question over seeds.
fn over_seeds<'a>(seeds: impl Iterator<Item = &'a Vec<Vec<f64>>> + Clone) -> Vec<Vec<f64>> {
    let count = seeds.clone().count() as f64;
    let mut seeds = seeds.cloned();
    let mut sums = seeds.next().unwrap_or_default();
    for seed in seeds {
        sums.iter_mut().flatten().zip(seed.iter().flatten()).for_each(|(sum, value)| *sum += value);
    }
    sums.iter_mut().flatten().for_each(|sum| *sum /= count);
    sums
}

/// The mean of each benchmark, then the mean of these means if there are several.
fn means(results: &[Vec<f64>]) -> Vec<f64> {
    let mut means: Vec<f64> = results.iter().map(|benchmark| mean(benchmark)).collect();
    if means.len() > 1 {
        means.push(mean(&means));
    }
    means
}

/// An arm's accuracy on each benchmark, then on their average if there are several.
pub fn cells(arm: &StudyArm, benchmarks: &[StudyBenchmark], seed: u64) -> Vec<StudyCell> {
    let each: Vec<Vec<f64>> = arm.seeds.values().map(|results| means(results)).collect();
    let questions = over_seeds(arm.seeds.values());
    let cell = |(column, accuracy): (usize, f64)| {
        let seeds: Vec<f64> = each.iter().map(|means| means[column]).collect();
        let interval = match questions.get(column) {
            Some(questions) => accuracy_interval(questions, benchmarks[column].samples * each.len(), seed),
            None => bootstrap_average(&questions, RESAMPLES, 0.95, seed),
        };
        StudyCell { accuracy, interval, between_seeds: (seeds.len() > 1).then(|| sample_std(&seeds)) }
    };
    means(&questions).into_iter().enumerate().map(cell).collect()
}

/// One arm compared with one reference, once per column. The p-values are not corrected yet.
fn against(arm: &StudyArm, base: &StudyArm, columns: &[String], seed: u64) -> Result<Vec<ArmComparison>, StudyError> {
    let difference = |(first, second): (&Vec<Vec<f64>>, &Vec<Vec<f64>>)| -> Vec<Vec<f64>> {
        let pairs = first.iter().zip(second);
        pairs.map(|(first, second)| first.iter().zip(second).map(|(first, second)| second - first).collect()).collect()
    };
    let shared = arm.seeds.iter().filter_map(|(seed, second)| Some((base.seeds.get(seed)?, second)));
    let differences: Vec<Vec<Vec<f64>>> = shared.map(difference).collect();
    if differences.is_empty() {
        return Err(StudyError::NoSharedSeed(arm.name.clone(), base.name.clone()));
    }
    let each: Vec<Vec<f64>> = differences.iter().map(|results| means(results)).collect();
    let questions = over_seeds(differences.iter());
    let one = |(column, name): (usize, &String)| {
        let seeds = compare_seeds(&each.iter().map(|means| means[column]).collect::<Vec<_>>(), seed);
        let chosen = questions.get(column).map_or(questions.as_slice(), std::slice::from_ref);
        ArmComparison {
            arm: arm.name.clone(),
            reference: base.name.clone(),
            column: name.clone(),
            seeds,
            detectable: seeds.detectable(),
            questions: bootstrap_average(chosen, RESAMPLES, 0.95, seed),
            question_p_value: sign_flip(&weighted(chosen), RESAMPLES, seed),
            adjusted: None,
            verdict: ComparisonVerdict::None { power: seeds.power(WORTH) },
        }
    };
    Ok(columns.iter().enumerate().map(one).collect())
}

/// Each question's contribution to the average over benchmarks.
fn weighted(benchmarks: &[Vec<f64>]) -> Vec<f64> {
    benchmarks.iter().flat_map(|questions| questions.iter().map(|value| value / questions.len() as f64)).collect()
}

/// Corrects the p-values for the number of comparisons, and sets the verdicts.
fn correct(comparisons: &mut [ArmComparison]) {
    let tested: Vec<usize> = (0..comparisons.len()).filter(|&i| comparisons[i].seeds.p_value.is_some()).collect();
    let larger = |&i: &usize| comparisons[i].question_p_value.max(comparisons[i].seeds.p_value.unwrap_or(1.0));
    let adjusted = holm(&tested.iter().map(larger).collect::<Vec<_>>());
    for (i, adjusted) in tested.into_iter().zip(adjusted) {
        let comparison = &mut comparisons[i];
        comparison.adjusted = Some(adjusted);
        let enough = comparison.seeds.power(WORTH) >= ENOUGH_POWER;
        if adjusted <= 0.05 && enough {
            comparison.verdict =
                if comparison.seeds.difference > 0.0 { ComparisonVerdict::Higher } else { ComparisonVerdict::Lower };
        }
    }
}

#[cfg(test)]
mod tests;
