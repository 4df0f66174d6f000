//! An evaluation, reduced to what a report needs: shares of correct samples, lengths, behaviors, and a few samples to read.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;
use regex::Regex;
use serde::Serialize;

use super::quoted::quoted;
use crate::behavior::Classifier;
use crate::behavior::summary::ResponseCounts;
use crate::eval::asked::QuestionRecord;
use crate::eval::folder::{BenchFolder, BenchRecord, EvalFolder, GradeRecord, Identity};
use crate::eval::score::BenchmarkScores;
use crate::math::Verdict;
use crate::run::status;

/// Maximum number of questions per benchmark whose first sample is kept in memory for the report, evenly spaced.
pub const READABLE: usize = 24;

/// Tolerance for the rounding of a mean.
const ROUNDING: f64 = 1e-9;

/// An evaluation on one or more benchmarks, and the model it belongs to.
pub struct ReportedEvaluation {
    pub name: String,
    /// Index in the material of the run whose adapter was evaluated; `None` for the untrained model.
    pub run: Option<usize>,
    /// Name of the prior prompt placed before the questions.
    pub prompt: String,
    pub identity: Identity,
    /// Complete benchmarks, by name.
    pub benches: BTreeMap<String, ReportedBenchmark>,
}

/// A complete benchmark. Lists are in the order of its questions.
pub struct ReportedBenchmark {
    pub record: BenchRecord,
    pub scores: BenchmarkScores,
    pub ids: Vec<String>,
    /// For each question, the share of correct samples.
    pub right: Vec<f64>,
    /// For each question, the mean length of its samples, in tokens.
    pub tokens: Vec<f64>,
    /// The behaviors of each sample.
    pub behaviors: Vec<ResponseCounts>,
    /// The tags of each sample, in the order of `behaviors`: its text without everything else.
    pub tags: Vec<String>,
    pub readable: Vec<ReportedSample>,
}

/// A sample to read.
#[derive(Clone, Debug, Serialize)]
pub struct ReportedSample {
    pub id: String,
    pub question: String,
    pub gold: String,
    pub text: String,
    pub tokens: usize,
    pub finish: String,
    pub answer: Option<String>,
    pub verdict: Verdict,
    /// How the answer was found, or why there is none.
    pub how: String,
}

impl ReportedEvaluation {
    /// Reads an evaluation. Benchmarks that are not complete are added to `left_out`. The caller sets the run.
    pub fn read(path: &Path, left_out: &mut Vec<String>) -> Result<Self> {
        let folder = EvalFolder::open(path)?;
        let name = status::name(path);
        let mut benches = BTreeMap::new();
        for (bench, files) in folder.benches()? {
            // Only the root cause of an error, because it does not contain a folder.
            let read =
                ReportedBenchmark::read(&files).unwrap_or_else(|error| Err(quoted(&error.root_cause().to_string())));
            match read {
                Ok(read) => drop(benches.insert(bench, read)),
                Err(why) => left_out.push(format!(
                    "The benchmark {} of the evaluation {} is left out: {why}.",
                    quoted(&bench),
                    quoted(&name)
                )),
            }
        }
        let identity = folder.identity.clone();
        Ok(Self { name, run: None, prompt: identity.ppe.clone(), identity, benches })
    }
}

impl ReportedBenchmark {
    /// The benchmark, or why it cannot be used.
    fn read(files: &BenchFolder) -> Result<Result<Self, String>> {
        if !files.results().is_file() {
            return Ok(Err("samples are missing, and a score needs all of them".to_owned()));
        }
        let path = files.results();
        let scores: BenchmarkScores =
            serde_json::from_slice(&fs::read(&path)?).with_context(|| format!("parse `{}`", path.display()))?;
        let grades = files.grades()?;
        // Grades are in the order of the questions, then of the samples of each question.
        let of_questions: Vec<&[GradeRecord]> = grades.chunk_by(|a, b| a.question_id == b.question_id).collect();
        let right: Vec<f64> = of_questions
            .iter()
            .map(|grades| grades.iter().filter(|it| it.grade.is_right()).count() as f64 / grades.len() as f64)
            .collect();
        let fits = right.len() == scores.questions
            && of_questions.iter().all(|grades| grades.len() == scores.samples)
            && (crate::stats::mean(&right) - scores.accuracy.value).abs() < ROUNDING;
        if !fits {
            return Ok(Err("its results do not match its grades; `rft eval regrade` recomputes them".to_owned()));
        }
        let ids: Vec<String> = of_questions.iter().map(|grades| grades[0].question_id.clone()).collect();
        let mut bench = Self {
            record: files.record()?,
            tokens: vec![0.0; ids.len()],
            behaviors: Vec::new(),
            tags: Vec::new(),
            readable: Vec::new(),
            scores,
            right,
            ids,
        };
        bench.read_samples(files, &grades)?;
        Ok(Ok(bench))
    }

    fn read_samples(&mut self, files: &BenchFolder, grades: &[GradeRecord]) -> Result<()> {
        let questions: BTreeMap<String, QuestionRecord> =
            files.questions()?.into_iter().map(|question| (question.id.clone(), question)).collect();
        let places: BTreeMap<String, usize> = self.ids.iter().cloned().zip(0..).collect();
        let grades: BTreeMap<(usize, usize), &GradeRecord> =
            grades.iter().map(|it| ((places[&it.question_id], it.sample), it)).collect();
        let readable: Vec<usize> = spread(self.ids.len(), READABLE).collect();
        let mut graded = Vec::new();
        for sample in files.samples()? {
            let place = places.get(&sample.question_id);
            let Some(grade) = place.and_then(|&place| grades.get(&(place, sample.sample))) else { continue };
            let question = questions
                .get(&sample.question_id)
                .with_context(|| format!("unknown question `{}`", sample.question_id))?;
            graded.push((sample, question, &grade.grade));
        }
        ensure!(
            graded.len() == grades.len(),
            "{} of {} graded samples are missing",
            grades.len() - graded.len(),
            grades.len()
        );
        // The rules read every word of every sample, which is most of a report's work.
        let benchmark = &self.scores.benchmark;
        self.behaviors = graded
            .par_iter()
            .map(|(sample, question, _)| {
                let spans = Classifier::built_in().classify(&question.prompt_text, &sample.text);
                ResponseCounts::new(&format!("{benchmark}/{}", question.id), Some(sample.tokens), &spans)
            })
            .collect();
        self.tags = graded.iter().map(|(sample, _, _)| tags(&sample.text)).collect();
        for (sample, question, grade) in graded {
            let place = places[&question.id];
            self.tokens[place] += sample.tokens as f64 / self.scores.samples as f64;
            if sample.sample == 0 && readable.binary_search(&place).is_ok() {
                self.readable.push(ReportedSample {
                    id: question.id.clone(),
                    question: shown(question),
                    gold: question.gold.clone(),
                    text: sample.text,
                    tokens: sample.tokens,
                    finish: sample.finish,
                    answer: grade.answer.clone(),
                    verdict: grade.verdict.clone(),
                    how: grade.how.clone(),
                });
            }
        }
        self.readable.sort_by_key(|sample| places[&sample.id]);
        Ok(())
    }
}

/// The opening and closing tags in a text that a prior prompt can ask for.
fn tags(text: &str) -> String {
    static TAG: LazyLock<Regex> =
        LazyLock::new(|| Regex::new("</?[A-Za-z0-9_-]+>").expect("the regular expression is valid"));
    TAG.find_iter(text).map(|tag| tag.as_str()).collect()
}

/// The question with its options.
fn shown(question: &QuestionRecord) -> String {
    let options = question.options.iter().zip('A'..).map(|(option, letter)| format!("\n{letter}) {option}"));
    question.question.clone() + &options.collect::<String>()
}

/// At most `most` of `0..n`, evenly spaced, in ascending order.
pub fn spread(n: usize, most: usize) -> impl Iterator<Item = usize> {
    let count = n.min(most);
    (0..count).map(move |i| i * n / count)
}
