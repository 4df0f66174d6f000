//! Several completions a question: avg@k, pass@k, maj@k.
//!
//! Each of them refuses a question with fewer or more completions than were asked for. Dividing by the number that was asked
//! for turns a lost completion into a wrong one; dividing by what is there weighs questions by how much of them survived.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Interval, bootstrap_mean, mean, wilson};

/// Questions from which on the bootstrap takes over from Wilson's interval for one completion a question.
const MANY_QUESTIONS: usize = 300;

/// Resamples of every bootstrap that is reported.
pub const RESAMPLES: usize = 10_000;

/// Completions that do not fit what is asked of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SampleError {
    #[error("no questions to count")]
    NoQuestions,
    #[error("question {question} has {got} completions, not {expected}\nhint: finish the evaluation, then count")]
    Uneven { question: usize, got: usize, expected: usize },
    #[error("pass@{k} of {n} completions\nhint: sample at least {k} a question")]
    TooFew { n: usize, k: usize },
    #[error("{correct} correct completions of {n}")]
    TooManyCorrect { correct: usize, n: usize },
}

/// Mean correctness over questions of exactly `samples` completions each, which is avg@k, with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    pub questions: usize,
    pub samples: usize,
    pub value: f64,
    pub interval: Interval,
}

/// avg@k of the completions of each question, right or wrong.
///
/// # Errors
/// When there is no question, or one has not exactly `samples` completions.
pub fn accuracy(correct: &[Vec<bool>], samples: usize, seed: u64) -> Result<Accuracy, SampleError> {
    let means = question_means(correct, samples)?;
    let interval = accuracy_interval(&means, samples, seed);
    Ok(Accuracy { questions: means.len(), samples, value: mean(&means), interval })
}

/// The share of right completions of each question.
///
/// # Errors
/// When there is no question, or one has not exactly `samples` completions.
pub fn question_means(correct: &[Vec<bool>], samples: usize) -> Result<Vec<f64>, SampleError> {
    complete(correct, samples)?;
    Ok(correct.iter().map(|question| right(question) as f64 / samples as f64).collect())
}

/// The 95 % interval of an accuracy from the mean of each question: Wilson's for one completion a question and fewer than 300
/// questions, else a bootstrap over questions. Where no question is solved at all, or all always are, resampling has nothing to
/// vary and would give a width of zero: Wilson's interval of so many trials stands in.
///
/// # Panics
/// Without questions.
pub fn accuracy_interval(question_means: &[f64], samples: usize, seed: u64) -> Interval {
    let n = question_means.len();
    let solved: f64 = question_means.iter().sum();
    let flat = question_means.iter().all(|&mean| mean == 0.0) || question_means.iter().all(|&mean| mean == 1.0);
    if flat || (samples == 1 && n < MANY_QUESTIONS) {
        wilson(solved.round() as usize, n, 0.95)
    } else {
        bootstrap_mean(question_means, RESAMPLES, 0.95, seed)
    }
}

/// Chance that one or more of `k` completions drawn from `n`, of which `correct` are right, is right: 1 - C(n-c, k) / C(n, k),
/// the unbiased estimate of Chen and others, "Evaluating large language models trained on code" (arXiv 2107.03374), as their
/// product, which neither overflows nor cancels.
///
/// # Errors
/// When `n` < `k` or `correct` > `n`.
pub fn pass_at_k(n: usize, correct: usize, k: usize) -> Result<f64, SampleError> {
    if n < k || k == 0 {
        return Err(SampleError::TooFew { n, k });
    }
    if correct > n {
        return Err(SampleError::TooManyCorrect { correct, n });
    }
    if n - correct < k {
        return Ok(1.0);
    }
    let all_wrong: f64 = (n - correct + 1..=n).map(|i| 1.0 - k as f64 / i as f64).product();
    Ok(1.0 - all_wrong)
}

/// pass@k of each question.
///
/// # Errors
/// When there is no question, one has not exactly `samples` completions, or `samples` < `k`.
pub fn question_pass_at_k(correct: &[Vec<bool>], samples: usize, k: usize) -> Result<Vec<f64>, SampleError> {
    complete(correct, samples)?;
    correct.iter().map(|question| pass_at_k(samples, right(question), k)).collect()
}

/// The completion that speaks for the majority, as an index: the first one of the answer given most often. `answers` holds for
/// each completion the class of its canonical answer, so that answers that are equal vote together; a completion without an
/// answer does not vote. None when nobody votes: the question counts as wrong.
///
/// Among answers given equally often the one that appears first wins. Completions are exchangeable, so this is a fair draw, it
/// never looks at what is right, and it is the same on every machine.
pub fn majority<T: Ord>(answers: &[Option<T>]) -> Option<usize> {
    let mut votes: BTreeMap<&T, (usize, usize)> = BTreeMap::new();
    for (index, answer) in answers.iter().enumerate() {
        if let Some(answer) = answer {
            votes.entry(answer).or_insert((0, index)).0 += 1;
        }
    }
    votes.into_values().max_by_key(|&(count, first)| (count, std::cmp::Reverse(first))).map(|(_, first)| first)
}

fn right(question: &[bool]) -> usize {
    question.iter().filter(|&&right| right).count()
}

fn complete(correct: &[Vec<bool>], samples: usize) -> Result<(), SampleError> {
    if correct.is_empty() {
        return Err(SampleError::NoQuestions);
    }
    match correct.iter().position(|question| question.len() != samples || samples == 0) {
        None => Ok(()),
        Some(question) => Err(SampleError::Uneven { question, got: correct[question].len(), expected: samples }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two right of four: pairs without a right one are 1 of 6.
    #[test]
    fn pass_at_k_by_counting() {
        assert_eq!(pass_at_k(4, 2, 1), Ok(0.5));
        assert!((pass_at_k(4, 2, 2).unwrap() - 5.0 / 6.0).abs() < 1e-15);
        assert_eq!(pass_at_k(4, 2, 3), Ok(1.0));
        assert_eq!(pass_at_k(4, 0, 4), Ok(0.0));
        assert_eq!(pass_at_k(4, 1, 5), Err(SampleError::TooFew { n: 4, k: 5 }));
        assert_eq!(pass_at_k(4, 5, 1), Err(SampleError::TooManyCorrect { correct: 5, n: 4 }));
    }

    /// The mean over all ways to choose is what the formula says.
    #[test]
    fn pass_at_k_is_unbiased() {
        let (n, k) = (7u32, 3);
        for correct in 0..=n {
            let subsets = (0u32..1 << n).filter(|set| set.count_ones() == k);
            let (hit, all) =
                subsets.fold((0, 0), |(hit, all), set| (hit + u32::from(set & ((1 << correct) - 1) != 0), all + 1));
            let got = pass_at_k(n as usize, correct as usize, k as usize).unwrap();
            assert!((got - f64::from(hit) / f64::from(all)).abs() < 1e-15, "{correct}");
        }
    }

    #[test]
    fn a_short_count_is_an_error() {
        let correct = vec![vec![true, false], vec![true]];
        let short = SampleError::Uneven { question: 1, got: 1, expected: 2 };
        assert_eq!(accuracy(&correct, 2, 0), Err(short));
        assert_eq!(question_pass_at_k(&correct, 2, 1), Err(short));
        assert_eq!(accuracy(&correct[..1], 1, 0), Err(SampleError::Uneven { question: 0, got: 2, expected: 1 }));
        assert_eq!(accuracy(&[], 1, 0), Err(SampleError::NoQuestions));
        assert_eq!(accuracy(&correct[..1], 2, 0).unwrap().value, 0.5);
    }

    #[test]
    fn the_interval_that_fits() {
        let binary = |n: usize| (0..n).map(|i| f64::from(i % 3 == 0)).collect::<Vec<_>>();
        assert_eq!(accuracy_interval(&binary(299), 1, 7), wilson(100, 299, 0.95));
        assert_eq!(accuracy_interval(&binary(300), 1, 7), bootstrap_mean(&binary(300), RESAMPLES, 0.95, 7));
        assert_eq!(accuracy_interval(&binary(30), 4, 7), bootstrap_mean(&binary(30), RESAMPLES, 0.95, 7));
        // Nothing solved in 64 tries each is not certainty about the next question.
        assert_eq!(accuracy_interval(&[0.0; 30], 64, 7), wilson(0, 30, 0.95));
        assert_eq!(accuracy_interval(&[1.0; 500], 1, 7), wilson(500, 500, 0.95));
    }

    #[test]
    fn the_majority_speaks() {
        let vote = |answers: &[i64]| majority(&answers.iter().map(|&a| (a != 0).then_some(a)).collect::<Vec<_>>());
        assert_eq!(vote(&[3, 5, 5, 3, 5]), Some(1));
        // A tie goes to what appeared first, not to the smallest or the largest; the empty have no vote.
        assert_eq!(vote(&[0, 5, 3, 3, 5, 0, 0]), Some(1));
        assert_eq!(vote(&[0, 3, 5, 5, 3, 0, 0]), Some(1));
        assert_eq!(vote(&[0, 0]), None);
        assert_eq!(vote(&[]), None);
    }
}
