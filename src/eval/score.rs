//! The scores of a benchmark.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::engine::{DOES_NOT_FIT, LENGTH};
use super::folder::{BenchRecord, SampleRecord};
use super::grade::{Grade, Grader, same_answer};
use super::profile::Extraction;
use super::sensitivity;
use crate::math::Verdict;
use crate::sandbox::SandboxLayers;
use crate::stats::{self, Interval, mean, quantile};

/// The scores of a benchmark. All scores are over the same questions; shares are of all samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BenchmarkScores {
    pub benchmark: String,
    pub profile: String,
    /// Number of evaluated questions, which are the first ones of the benchmark.
    pub questions: usize,
    pub of: usize,
    /// Samples per question.
    pub samples: usize,
    /// Maximum length of a sample, in tokens; 0 in results of older versions.
    #[serde(default)]
    pub max_tokens: usize,
    /// avg@k: the mean over questions of the share of correct samples.
    pub accuracy: ShareEstimate,
    /// Of the questions of each prior prompt of a mixture, by its name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub by_prompt: BTreeMap<String, PromptAccuracy>,
    /// By k: the probability that at least one of k samples is correct.
    pub pass_at: BTreeMap<usize, f64>,
    /// Share of questions whose most frequent answer is right; absent for programs and for one sample.
    pub majority: Option<f64>,
    /// For programs: share that passes the base tests; `accuracy` counts the tests of the benchmark.
    pub base_accuracy: Option<ShareEstimate>,
    /// For options: share with the right letter itself.
    pub letter_accuracy: Option<ShareEstimate>,
    /// Share truncated at the maximum length.
    pub truncated: f64,
    pub no_answer: f64,
    pub undecided: f64,
    /// For programs: share without the requested function. It is a part of `no_answer`.
    pub unparsable: Option<f64>,
    pub tokens: SampleLengths,
    pub grader: String,
    /// For programs: the isolation during the tests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxLayers>,
    pub notes: Vec<String>,
    /// The questions that count as wrong because their prompts leave too little of the model's context.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub does_not_fit: Vec<String>,
    /// Reasons why the score shows little.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A share with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShareEstimate {
    pub value: f64,
    #[serde(flatten)]
    pub interval: Interval,
}

/// The accuracy on the questions that drew a prior prompt.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PromptAccuracy {
    pub questions: usize,
    #[serde(flatten)]
    pub accuracy: ShareEstimate,
}

/// Lengths of the samples, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleLengths {
    pub mean: f64,
    pub p10: f64,
    pub median: f64,
    pub p90: f64,
    pub max: usize,
}

/// The seed of every bootstrap of scores. It is fixed, so that the same samples give the same interval.
const SEED: u64 = 0;

impl BenchmarkScores {
    /// Computes the scores of `grades`, one per sample in `samples`, of the first `questions` of `of` questions.
    ///
    /// # Errors
    /// A question does not have the style's number of samples.
    pub fn new(
        record: &BenchRecord,
        of: usize,
        questions: usize,
        samples: &[&SampleRecord],
        grades: &[Grade],
        grader: &Grader,
    ) -> Result<Self> {
        let (style, k) = (&record.style, record.style.samples);
        let by_question = by_question(samples, grades);
        let context = || format!("score `{}`", record.benchmark);
        let share_of = |right: &[Vec<bool>]| -> Result<ShareEstimate> {
            let accuracy = stats::accuracy(right, k, SEED).with_context(context)?;
            Ok(ShareEstimate { value: accuracy.value, interval: accuracy.interval })
        };
        let estimate = |right: &dyn Fn(&Grade) -> bool| -> Result<ShareEstimate> {
            let right: Vec<Vec<bool>> =
                by_question.iter().map(|grades| grades.iter().map(|grade| right(grade)).collect()).collect();
            share_of(&right)
        };
        let right: Vec<Vec<bool>> =
            by_question.iter().map(|grades| grades.iter().map(|grade| grade.is_right()).collect()).collect();
        let mut of_prompts: BTreeMap<String, Vec<Vec<bool>>> = BTreeMap::new();
        for (sample, right) in samples.chunk_by(|a, b| a.question_id == b.question_id).zip(&right) {
            if let Some(ppe) = &sample[0].ppe {
                of_prompts.entry(ppe.clone()).or_default().push(right.clone());
            }
        }
        let by_prompt = of_prompts
            .into_iter()
            .map(|(ppe, right)| Ok((ppe, PromptAccuracy { questions: right.len(), accuracy: share_of(&right)? })));
        let pass_at = ks(k)
            .map(|at| Ok((at, mean(&stats::question_pass_at_k(&right, k, at).with_context(context)?))))
            .collect::<Result<_>>()?;
        let accuracy = estimate(&Grade::is_right)?;
        let program = style.extraction.is_program();
        let option = matches!(style.extraction, Extraction::Option | Extraction::AnswerLine);
        let (generated, outside): (Vec<&SampleRecord>, Vec<&SampleRecord>) =
            samples.iter().copied().partition(|sample| sample.finish != DOES_NOT_FIT);
        let mut does_not_fit: Vec<String> = outside.iter().map(|sample| sample.question_id.clone()).collect();
        does_not_fit.dedup();
        let share = |count: usize| count as f64 / samples.len() as f64;
        let graded = |is: fn(&Grade) -> bool| share(grades.iter().filter(|grade| is(grade)).count());
        Ok(Self {
            benchmark: record.benchmark.clone(),
            profile: style.profile.name().to_owned(),
            questions,
            of,
            samples: k,
            max_tokens: style.max_tokens,
            by_prompt: by_prompt.collect::<Result<_>>()?,
            pass_at,
            majority: (k > 1 && !program).then(|| share_of_majorities(style.extraction, &by_question)),
            base_accuracy: program.then(|| estimate(&|grade| grade.base == Some(true))).transpose()?,
            letter_accuracy: option.then(|| estimate(&|grade| grade.letter == Some(true))).transpose()?,
            truncated: share(samples.iter().filter(|sample| sample.finish == LENGTH).count()),
            no_answer: graded(|grade| grade.answer.is_none()),
            undecided: graded(|grade| matches!(grade.verdict, Verdict::Undecided(_))),
            unparsable: program.then(|| graded(|grade| grade.unparsable)),
            tokens: SampleLengths::new(generated.iter().map(|sample| sample.tokens).collect()),
            grader: grader.version(),
            sandbox: grader.layers().cloned(),
            notes: record.notes.clone(),
            does_not_fit,
            warnings: sensitivity::warning(accuracy.value, questions).into_iter().collect(),
            accuracy,
        })
    }
}

impl SampleLengths {
    fn new(mut tokens: Vec<usize>) -> Self {
        if tokens.is_empty() {
            return Self { mean: 0.0, p10: 0.0, median: 0.0, p90: 0.0, max: 0 };
        }
        tokens.sort_unstable();
        let sorted: Vec<f64> = tokens.iter().map(|&it| it as f64).collect();
        let at = |p| quantile(&sorted, p);
        Self {
            mean: mean(&sorted),
            p10: at(0.1),
            median: at(0.5),
            p90: at(0.9),
            max: tokens.last().copied().unwrap_or(0),
        }
    }
}

/// The grades of each question, in the order of the samples.
fn by_question<'a>(samples: &[&SampleRecord], grades: &'a [Grade]) -> Vec<Vec<&'a Grade>> {
    let mut questions: Vec<Vec<&Grade>> = Vec::new();
    let mut last = None;
    for (sample, grade) in samples.iter().zip(grades) {
        if last != Some(&sample.question_id) {
            questions.push(Vec::new());
            last = Some(&sample.question_id);
        }
        questions.last_mut().expect("pushed above").push(grade);
    }
    questions
}

/// 1, 2, 4 ... and `samples` itself.
fn ks(samples: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(1), |k| Some(2 * k)).take_while(move |k| *k < samples).chain([samples])
}

/// Share of questions whose most frequent answer is right. Equal answers count as the same vote, however they are written.
fn share_of_majorities(extraction: Extraction, questions: &[Vec<&Grade>]) -> f64 {
    let right = |grades: &&Vec<&Grade>| {
        let answers: Vec<Option<&str>> = grades.iter().map(|grade| grade.answer.as_deref()).collect();
        let votes = stats::vote_classes(&answers, |one, other| same_answer(extraction, one, other));
        stats::majority(&votes).is_some_and(|first| grades[first].is_right())
    };
    questions.iter().filter(right).count() as f64 / questions.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grade(answer: &str, right: bool) -> Grade {
        let verdict = if right { Verdict::Correct } else { Verdict::Wrong };
        Grade { answer: (!answer.is_empty()).then(|| answer.to_owned()), ..Grade::new(verdict, "") }
    }

    #[test]
    fn equal_answers_count_as_the_same_vote() {
        let (half, point_five, third, none) =
            (grade("1/2", true), grade("0.5", true), grade("3", false), grade("", false));
        let share = |grades: Vec<&Grade>| share_of_majorities(Extraction::Math, &[grades]);
        assert_eq!(share(vec![&third, &half, &point_five]), 1.0);
        assert_eq!(share(vec![&third, &half]), 0.0, "the first of a tie");
        assert_eq!(share(vec![&none, &none, &half]), 1.0, "a sample without an answer does not vote");
        assert_eq!(share(vec![&none, &none]), 0.0);
    }

    #[test]
    fn ks_double_up_to_the_number_of_samples() {
        assert_eq!(ks(1).collect::<Vec<_>>(), [1]);
        assert_eq!(ks(4).collect::<Vec<_>>(), [1, 2, 4]);
        assert_eq!(ks(6).collect::<Vec<_>>(), [1, 2, 4, 6]);
    }
}
