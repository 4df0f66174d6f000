//! Several completions per question: avg@k, pass@k, maj@k.
//!
//! All of them refuse a question with an unexpected number of completions. Dividing by the expected number would count a missing
//! completion as wrong; dividing by the number found would give questions with missing completions another weight.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Interval, bootstrap_mean, mean, wilson};

/// Number of resamples of every reported bootstrap.
pub const RESAMPLES: usize = 10_000;

/// Errors about numbers of completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SampleError {
    #[error("no questions to count")]
    NoQuestions,
    #[error("question {question}: expected {expected} completions, found {got}\nhint: finish the evaluation first")]
    Uneven { question: usize, got: usize, expected: usize },
    #[error("pass@{k} requires at least {k} completions per question, found {n}\nhint: increase the number of samples")]
    TooFew { n: usize, k: usize },
    #[error("found {correct} correct completions of only {n}")]
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

/// avg@k of the completions of each question, correct or wrong.
///
/// # Errors
/// There are no questions, or a question does not have exactly `samples` completions.
pub fn accuracy(correct: &[Vec<bool>], samples: usize, seed: u64) -> Result<Accuracy, SampleError> {
    let means = question_means(correct, samples)?;
    let interval = accuracy_interval(&means, samples, seed);
    Ok(Accuracy { questions: means.len(), samples, value: mean(&means), interval })
}

/// The share of correct completions of each question.
///
/// # Errors
/// There are no questions, or a question does not have exactly `samples` completions.
pub fn question_means(correct: &[Vec<bool>], samples: usize) -> Result<Vec<f64>, SampleError> {
    complete(correct, samples)?;
    Ok(correct.iter().map(|question| right(question) as f64 / samples as f64).collect())
}

/// The 95 % interval of an accuracy from the mean of each question: Wilson's for one completion per question, else a bootstrap
/// over questions. If all completions are wrong, or all are correct, a bootstrap interval would have no width, so Wilson's
/// interval for this number of questions is used.
///
/// # Panics
/// Without questions.
pub fn accuracy_interval(question_means: &[f64], samples: usize, seed: u64) -> Interval {
    let n = question_means.len();
    let solved: f64 = question_means.iter().sum();
    let flat = question_means.iter().all(|&mean| mean == 0.0) || question_means.iter().all(|&mean| mean == 1.0);
    if flat || samples == 1 {
        wilson(solved.round() as usize, n, 0.95)
    } else {
        bootstrap_mean(question_means, RESAMPLES, 0.95, seed)
    }
}

/// Probability that at least one of `k` completions, selected at random from `n` of which c = `correct` are correct, is correct:
/// 1 - C(n-c, k) / C(n, k), the unbiased estimate of Chen and others, "Evaluating large language models trained on code" (arXiv
/// 2107.03374), computed as a product that neither overflows nor loses precision.
///
/// # Errors
/// `n` < `k` or `correct` > `n`.
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
/// There are no questions, a question does not have exactly `samples` completions, or `samples` < `k`.
pub fn question_pass_at_k(correct: &[Vec<bool>], samples: usize, k: usize) -> Result<Vec<f64>, SampleError> {
    complete(correct, samples)?;
    correct.iter().map(|question| pass_at_k(samples, right(question), k)).collect()
}

/// The index of the first completion with the most frequent answer. `answers` has, for
/// each completion, the class of its canonical answer, so that equal answers count as the same vote; a completion without an
/// answer does not vote. `None` if there are no votes: the question counts as wrong.
///
/// In a tie, the answer that occurs first wins. Completions are exchangeable, so this is a fair choice. It
/// does not depend on which answer is correct, and it is the same on every machine.
pub fn majority<T: Ord>(answers: &[Option<T>]) -> Option<usize> {
    let mut votes: BTreeMap<&T, (usize, usize)> = BTreeMap::new();
    for (index, answer) in answers.iter().enumerate() {
        if let Some(answer) = answer {
            votes.entry(answer).or_insert((0, index)).0 += 1;
        }
    }
    votes.into_values().max_by_key(|&(count, first)| (count, std::cmp::Reverse(first))).map(|(_, first)| first)
}

/// The class of each answer, so that equal answers have the same one; `None` without an answer. An answer belongs to the
/// first class whose first member is the `same`.
pub fn vote_classes<T>(answers: &[Option<T>], same: impl Fn(&T, &T) -> bool) -> Vec<Option<usize>> {
    let mut firsts: Vec<&T> = Vec::new();
    let mut class = |answer| {
        firsts.iter().position(|first| same(first, answer)).unwrap_or_else(|| {
            firsts.push(answer);
            firsts.len() - 1
        })
    };
    answers.iter().map(|answer| answer.as_ref().map(&mut class)).collect()
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

    /// Two of four are correct: 1 of 6 pairs has no correct completion.
    #[test]
    fn pass_at_k_by_counting() {
        assert_eq!(pass_at_k(4, 2, 1), Ok(0.5));
        assert!((pass_at_k(4, 2, 2).unwrap() - 5.0 / 6.0).abs() < 1e-15);
        assert_eq!(pass_at_k(4, 2, 3), Ok(1.0));
        assert_eq!(pass_at_k(4, 0, 4), Ok(0.0));
        assert_eq!(pass_at_k(4, 1, 5), Err(SampleError::TooFew { n: 4, k: 5 }));
        assert_eq!(pass_at_k(4, 5, 1), Err(SampleError::TooManyCorrect { correct: 5, n: 4 }));
    }

    /// The formula equals the mean over all choices.
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
    fn missing_completions_are_an_error() {
        let correct = vec![vec![true, false], vec![true]];
        let short = SampleError::Uneven { question: 1, got: 1, expected: 2 };
        assert_eq!(accuracy(&correct, 2, 0), Err(short));
        assert_eq!(question_pass_at_k(&correct, 2, 1), Err(short));
        assert_eq!(accuracy(&correct[..1], 1, 0), Err(SampleError::Uneven { question: 0, got: 2, expected: 1 }));
        assert_eq!(accuracy(&[], 1, 0), Err(SampleError::NoQuestions));
        assert_eq!(accuracy(&correct[..1], 2, 0).unwrap().value, 0.5);
    }

    #[test]
    fn the_interval_depends_on_the_data() {
        let binary = |n: usize| (0..n).map(|i| f64::from(i % 3 == 0)).collect::<Vec<_>>();
        assert_eq!(accuracy_interval(&binary(299), 1, 7), wilson(100, 299, 0.95));
        assert_eq!(accuracy_interval(&binary(900), 1, 7), wilson(300, 900, 0.95));
        assert_eq!(accuracy_interval(&binary(30), 4, 7), bootstrap_mean(&binary(30), RESAMPLES, 0.95, 7));
        // 64 wrong completions of each question leave uncertainty about other questions.
        assert_eq!(accuracy_interval(&[0.0; 30], 64, 7), wilson(0, 30, 0.95));
        assert_eq!(accuracy_interval(&[1.0; 500], 1, 7), wilson(500, 500, 0.95));
    }

    #[test]
    fn the_majority_wins() {
        let vote = |answers: &[i64]| majority(&answers.iter().map(|&a| (a != 0).then_some(a)).collect::<Vec<_>>());
        assert_eq!(vote(&[3, 5, 5, 3, 5]), Some(1));
        // In a tie the first answer wins, not the smallest or the largest; completions without an answer do not vote.
        assert_eq!(vote(&[0, 5, 3, 3, 5, 0, 0]), Some(1));
        assert_eq!(vote(&[0, 3, 5, 5, 3, 0, 0]), Some(1));
        assert_eq!(vote(&[0, 0]), None);
        assert_eq!(vote(&[]), None);
    }
}
