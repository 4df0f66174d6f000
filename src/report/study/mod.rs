//! Comparisons between the arms of a study: differences in accuracy, and whether they can be explained by chance.
//!
//! The seed of a training run and the choice of questions are both random. A difference gets a verdict only if it is significant
//! over both: over seeds by a moderated t test of the differences at each seed ([`compare_seeds`]), over questions by a sign-flip
//! test of each question's difference ([`sign_flip`]). The larger p-value is used, and Holm's method corrects for all
//! comparisons of the study together, so that a study of arms without differences gives a verdict in at most 5 of 100 cases.
//! The corrected interval is that of the level at which Holm's method tests the comparison.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::stats::{
    Interval, KnownSpread, PairedComparison, RESAMPLES, SeedComparison, accuracy_interval, bootstrap_average,
    compare_paired, compare_seeds, holm, holm_levels, mean, normal_quantile, sample_std, sample_variance, sign_flip,
};

pub mod retained;
pub mod text;

/// The difference that a study should be able to detect: 5 percentage points. The power of comparisons without a verdict is
/// calculated for this value, which was fixed before anything was measured.
pub const WORTH: f64 = 0.05;

/// Below this power, the absence of a verdict says little about the difference.
const ENOUGH_POWER: f64 = 0.5;

/// The probability of one or more false verdicts in a study of arms without differences.
const LEVEL: f64 = 0.05;

/// Up to this number of arms, each is compared with each other.
const ALL_PAIRS: usize = 6;

/// The arms with which the others are compared in larger studies. Among pairs, they come first and so are the references.
const REFERENCES: [&str; 2] = ["none", "reasoning"];

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
    /// Not significant. `power` is the power to detect a difference of [`WORTH`].
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
    /// If the corrected p-value is significant, the interval for both other seeds and other questions, corrected for all
    /// comparisons of the study: from the lower to the upper end of the two intervals.
    pub corrected: Option<Interval>,
    pub verdict: ComparisonVerdict,
    /// For each benchmark of the column, the differences of the questions, as means over seeds.
    #[serde(skip)]
    differences: Vec<Vec<f64>>,
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
    /// What was repeated within an arm: `seeds`, or the `wordings` of a strategy.
    pub replicates: &'static str,
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

/// The pairs of an arm and its reference that a study compares: every arm with each of `baselines`. Without baselines, all pairs
/// of at most [`ALL_PAIRS`] arms; in larger studies every arm with `none` and `reasoning`, or with the first arm if there are
/// neither. Two references are paired once. Names in `baselines` that the study does not have are ignored.
pub fn pairs<'a>(study: &'a Study, baselines: &[String]) -> Vec<(&'a StudyArm, &'a StudyArm)> {
    let of = |name: &str| study.arms.iter().find(|arm| arm.name == name);
    let mut references: Vec<&StudyArm> = baselines.iter().filter_map(|name| of(name)).collect();
    if baselines.is_empty() {
        references = REFERENCES.iter().filter_map(|name| of(name)).collect();
        if study.arms.len() <= ALL_PAIRS {
            let rest = study.arms.iter().filter(|arm| !REFERENCES.contains(&arm.name.as_str()));
            references.extend(rest.collect::<Vec<_>>());
        } else if references.is_empty() {
            references.extend(study.arms.first());
        }
    }
    let mut pairs = Vec::new();
    for (at, reference) in references.iter().enumerate() {
        let earlier = &references[..=at];
        let others = study.arms.iter().filter(|arm| !earlier.iter().any(|it| it.name == arm.name));
        pairs.extend(others.map(|arm| (arm, *reference)));
    }
    pairs
}

/// Compares the first arm of each pair with the second. `seed` is that of the resampling.
///
/// # Errors
/// An evaluation is missing, or arms have different numbers of questions, or share no seed.
pub fn compare_pairs(study: &Study, pairs: &[(&StudyArm, &StudyArm)], seed: u64) -> Result<StudyOutcome, StudyError> {
    Ok(StudyOutcome {
        comparisons: comparisons(study, pairs, RESAMPLES, seed)?,
        cells: study.arms.iter().map(|arm| (arm.name.clone(), cells(arm, &study.benchmarks, seed))).collect(),
        seeds: study.arms.iter().map(|arm| arm.seeds.len()).collect(),
        columns: columns(study),
        replicates: "seeds",
    })
}

/// The comparisons of [`compare_pairs`] alone, with a number of resamples.
///
/// # Errors
/// See [`compare_pairs`].
pub fn comparisons(
    study: &Study,
    pairs: &[(&StudyArm, &StudyArm)],
    resamples: usize,
    seed: u64,
) -> Result<Vec<ArmComparison>, StudyError> {
    check(study)?;
    let paired = pairs.iter().map(|(arm, base)| Paired::new(arm, base, &study.benchmarks));
    let paired: Vec<Paired<'_>> = paired.collect::<Result<_, _>>()?;
    let mut comparisons = against(&paired, &columns(study), resamples, seed);
    correct(&mut comparisons, resamples, seed);
    Ok(comparisons)
}

/// The benchmarks, then [`AVERAGE`] if there are several.
fn columns(study: &Study) -> Vec<String> {
    let mut columns: Vec<String> = study.benchmarks.iter().map(|benchmark| benchmark.name.clone()).collect();
    if columns.len() > 1 {
        columns.push(AVERAGE.into());
    }
    columns
}

impl StudyArm {
    /// For each benchmark, the mean of each question over seeds.
    pub fn over_seeds(&self) -> Vec<Vec<f64>> {
        over_seeds(self.seeds.values())
    }

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

/// An arm and its reference, paired by question and seed.
pub struct Paired<'a> {
    arm: &'a str,
    reference: &'a str,
    /// For each shared seed, the difference in each column.
    seeds: Vec<Vec<f64>>,
    /// For each benchmark, the difference of each question, as the mean over seeds.
    questions: Vec<Vec<f64>>,
    /// For each column, the variance between seeds that the noise of the questions alone causes.
    noise: Vec<f64>,
    /// For each benchmark with one seed and one completion per question, the outcomes of both.
    outcomes: Vec<Option<PairedComparison>>,
}

impl<'a> Paired<'a> {
    /// # Errors
    /// The arms share no seed.
    pub fn new(arm: &'a StudyArm, base: &'a StudyArm, benchmarks: &[StudyBenchmark]) -> Result<Self, StudyError> {
        let difference = |(first, second): (&Vec<Vec<f64>>, &Vec<Vec<f64>>)| -> Vec<Vec<f64>> {
            let pairs = first.iter().zip(second);
            pairs
                .map(|(first, second)| first.iter().zip(second).map(|(first, second)| second - first).collect())
                .collect()
        };
        let shared = arm.seeds.iter().filter_map(|(seed, second)| Some((base.seeds.get(seed)?, second)));
        let differences: Vec<Vec<Vec<f64>>> = shared.map(difference).collect();
        if differences.is_empty() {
            return Err(StudyError::NoSharedSeed(arm.name.clone(), base.name.clone()));
        }
        let mut noise: Vec<f64> =
            (0..benchmarks.len()).map(|at| noise(&differences, at, benchmarks[at].samples)).collect();
        if noise.len() > 1 {
            noise.push(noise.iter().sum::<f64>() / (noise.len() * noise.len()) as f64);
        }
        let shared: Vec<u64> = arm.seeds.keys().filter(|seed| base.seeds.contains_key(seed)).copied().collect();
        let single = |at: usize| match shared[..] {
            [seed] => one_completion_each(&base.seeds[&seed][at], &arm.seeds[&seed][at]),
            _ => None,
        };
        Ok(Self {
            arm: &arm.name,
            reference: &base.name,
            outcomes: (0..benchmarks.len()).map(single).collect(),
            seeds: differences.iter().map(|results| means(results)).collect(),
            questions: over_seeds(differences.iter()),
            noise,
        })
    }

    /// The variance between seeds in a column; `None` for a single seed.
    fn variance(&self, column: usize) -> Option<f64> {
        (self.seeds.len() > 1).then(|| sample_variance(&self.column(column)))
    }

    fn column(&self, column: usize) -> Vec<f64> {
        self.seeds.iter().map(|means| means[column]).collect()
    }
}

/// The variance between seeds of the mean difference on a benchmark, if each question changed independently of the others: the
/// sum of the questions' variances, which is precise even if the seeds have the same mean by chance. A training run moves many
/// questions together, so the true variance is not smaller.
///
/// If no question changes, as in arms that solve all of them, this would be zero. The lower bound is the variance of a share in
/// which two more completions are wrong and two more are correct (Agresti and Coull, The American Statistician 52:119, 1998), for
/// both arms.
fn noise(differences: &[Vec<Vec<f64>>], benchmark: usize, samples: usize) -> f64 {
    let (seeds, questions) = (differences.len(), differences[0][benchmark].len());
    let completions = (questions * samples.max(1)) as f64;
    let all = seeds as f64 * completions;
    let share = 2.0 / (all + 4.0);
    let ends = 2.0 * share * (1.0 - share) / completions;
    if seeds < 2 {
        return ends;
    }
    let of_question = |question: usize| {
        sample_variance(&differences.iter().map(|seed| seed[benchmark][question]).collect::<Vec<_>>())
    };
    let sum: f64 = (0..questions).map(of_question).sum();
    (sum / (questions * questions) as f64).max(ends)
}

/// The comparison of `rft train` and `rft eval compare` if every question has one completion, which is right or wrong.
fn one_completion_each(first: &[f64], second: &[f64]) -> Option<PairedComparison> {
    let right = |values: &[f64]| -> Option<Vec<bool>> {
        let outcome = |&value: &f64| (value == 0.0 || value == 1.0).then_some(value == 1.0);
        values.iter().map(outcome).collect()
    };
    Some(compare_paired(&right(first)?, &right(second)?, 0.95))
}

/// Every pair compared in every column. The p-values and intervals are not corrected yet.
fn against(pairs: &[Paired<'_>], columns: &[String], resamples: usize, seed: u64) -> Vec<ArmComparison> {
    // The mean variance of the other pairs in the same column.
    let others = |pair: usize, column: usize| {
        let rest = pairs.iter().enumerate().filter(|(at, _)| *at != pair);
        let variances: Vec<f64> = rest.filter_map(|(_, pair)| pair.variance(column)).collect();
        (!variances.is_empty()).then(|| mean(&variances))
    };
    let one = |pair: usize, column: usize| {
        let paired = &pairs[pair];
        let known = KnownSpread { at_least: paired.noise[column], others: others(pair, column) };
        let seeds = compare_seeds(&paired.column(column), known);
        let differences = paired.questions.get(column).map_or_else(|| paired.questions.clone(), |it| vec![it.clone()]);
        let (questions, question_p_value) = match paired.outcomes.get(column) {
            Some(Some(outcomes)) => (outcomes.interval, outcomes.p_value),
            _ => (
                over_questions(&differences, 0.95, resamples, seed),
                sign_flip(&weighted(&differences), resamples, seed),
            ),
        };
        ArmComparison {
            arm: paired.arm.to_owned(),
            reference: paired.reference.to_owned(),
            column: columns[column].clone(),
            seeds,
            detectable: seeds.detectable(),
            questions,
            question_p_value,
            adjusted: None,
            corrected: None,
            verdict: ComparisonVerdict::None { power: seeds.power(WORTH) },
            differences,
        }
    };
    (0..pairs.len())
        .flat_map(|pair| (0..columns.len()).map(move |column| (pair, column)))
        .map(|(p, c)| one(p, c))
        .collect()
}

/// Interval of the mean difference for other questions, by resampling the questions of each benchmark. It is never narrower than
/// that of two arms that agree on every question: half a question more is counted in each of the four cells of correct and wrong
/// (Agresti and Min, Statistics in Medicine 24:729, 2005).
fn over_questions(differences: &[Vec<f64>], confidence: f64, resamples: usize, seed: u64) -> Interval {
    let resampled = bootstrap_average(differences, resamples, confidence, seed);
    let count = differences.len() as f64;
    let variance: f64 = differences.iter().map(|questions| (questions.len() as f64 + 2.0).powi(-2)).sum();
    let reach = normal_quantile((1.0 + confidence) / 2.0) * variance.sqrt() / count;
    let difference = mean(&differences.iter().map(|questions| mean(questions)).collect::<Vec<_>>());
    resampled.hull(Interval { low: difference - reach, high: difference + reach })
}

/// Each question's contribution to the average over benchmarks.
fn weighted(benchmarks: &[Vec<f64>]) -> Vec<f64> {
    benchmarks.iter().flat_map(|questions| questions.iter().map(|value| value / questions.len() as f64)).collect()
}

/// Corrects the p-values and intervals for the number of comparisons, and sets the verdicts.
fn correct(comparisons: &mut [ArmComparison], resamples: usize, seed: u64) {
    let tested: Vec<usize> = (0..comparisons.len()).filter(|&i| comparisons[i].seeds.p_value.is_some()).collect();
    let larger = |&i: &usize| comparisons[i].question_p_value.max(comparisons[i].seeds.p_value.unwrap_or(1.0));
    let p_values: Vec<f64> = tested.iter().map(larger).collect();
    for ((i, adjusted), level) in tested.into_iter().zip(holm(&p_values)).zip(holm_levels(&p_values, LEVEL)) {
        let it = &mut comparisons[i];
        it.adjusted = Some(adjusted);
        let Some(seeds) = it.seeds.interval_at(1.0 - level).filter(|_| adjusted <= LEVEL) else { continue };
        let corrected = seeds.hull(over_questions(&it.differences, 1.0 - level, resamples, seed));
        it.corrected = Some(corrected);
        if corrected.low > 0.0 || corrected.high < 0.0 {
            it.verdict = if it.seeds.difference > 0.0 { ComparisonVerdict::Higher } else { ComparisonVerdict::Lower };
        }
    }
}

#[cfg(test)]
mod tests;
