//! One benchmark, from its questions to its scores.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use rayon::prelude::*;

use super::asked::{EvalQuestion, QuestionRecord};
use super::bench::Benchmark;
use super::engine::{Completer, Draw, EvalCompletion, EvalJob, EvalWatch};
use super::folder::{BenchFolder, BenchRecord, EvalFolder, GradeRecord, SampleRecord};
use super::grade::{Grade, Grader};
use super::profile::Style;
use super::score::BenchmarkScores;
use crate::math::Verdict;
use crate::run::jsonl::JsonLines;

/// What is to be evaluated.
pub struct BenchmarkRun<'a> {
    pub folder: &'a EvalFolder,
    pub benchmark: &'a Benchmark,
    pub style: &'a Style,
    /// Every question of the benchmark.
    pub asked: &'a [EvalQuestion],
    /// Only the first so many count.
    pub limit: usize,
    pub data_sha256: &'a str,
    pub notes: &'a [String],
    pub grader: &'a Grader,
}

/// How far an evaluation came.
pub enum EvalOutcome {
    Complete(Box<BenchmarkScores>),
    /// It was asked to stop. No score can be told from a part of the samples: those that end first are the short ones.
    Partial {
        samples: usize,
        wanted: usize,
    },
}

/// What a display is told.
#[derive(Clone, Copy, Debug, Default)]
pub struct EvalProgress {
    pub samples: usize,
    pub wanted: usize,
    /// Tokens drawn by this process.
    pub tokens: usize,
    /// Right answers so far, where that is known without running programs, and of how many.
    pub correct: Option<(usize, usize)>,
}

/// Shows progress, and tells whether to go on.
pub trait Show {
    fn progress(&mut self, progress: &EvalProgress);
    fn cancelled(&mut self) -> bool;
}

/// Draws the samples that are missing, grades all of them and writes the scores.
///
/// # Errors
/// Whatever the completer, the disk or the grader reports; samples of another set-up in the folder. What was drawn until then
/// is kept, and the next call goes on from there.
pub fn evaluate(
    evaluation: &BenchmarkRun,
    completer: &mut dyn Completer,
    draw: &Draw,
    show: &mut dyn Show,
) -> Result<EvalOutcome> {
    let BenchmarkRun { folder, benchmark, style, asked, limit, grader, .. } = evaluation;
    let files = folder.bench(&benchmark.name);
    let questions: Vec<QuestionRecord> = asked.iter().map(EvalQuestion::record).collect();
    let record = BenchRecord {
        benchmark: benchmark.name.clone(),
        data_sha256: evaluation.data_sha256.to_owned(),
        style: (*style).clone(),
        notes: evaluation.notes.to_vec(),
    };
    files.prepare(&record, &questions)?;

    let identity = folder.identity.short_hash()?;
    let mut samples = Samples::read(&files, &identity, style, &questions)?;
    let wanted = limit * style.samples;
    let jobs: Vec<EvalJob> = (0..*limit).filter_map(|at| samples.missing(at, &asked[at], style.samples)).collect();
    if !jobs.is_empty() {
        let progress =
            EvalProgress { samples: samples.count(*limit, style.samples), wanted, ..EvalProgress::default() };
        let log = files.log()?;
        let mut recorder =
            Recorder { samples: &mut samples, questions: &questions, grader, style, log, progress, show };
        recorder.count_correct(*limit);
        recorder.show.progress(&recorder.progress);
        completer.complete(&jobs, draw, &mut recorder)?;
        recorder.log.sync()?;
    }
    let have = samples.count(*limit, style.samples);
    if have < wanted {
        return Ok(EvalOutcome::Partial { samples: have, wanted });
    }
    let samples = samples.in_order();
    files.settle(&samples)?;
    let counted = CompleteSamples { files: &files, record: &record, questions: &questions, samples, limit: *limit };
    score(&counted, grader).map(|scores| EvalOutcome::Complete(Box::new(scores)))
}

/// Grades an evaluation again, without drawing anything; its number of questions and samples stays.
///
/// # Errors
/// Samples are missing.
pub fn regrade(files: &BenchFolder, grader: &Grader) -> Result<(BenchmarkScores, Changed)> {
    let record = files.record()?;
    let before: BTreeMap<(String, usize), Verdict> =
        files.grades()?.into_iter().map(|it| ((it.question_id, it.sample), it.grade.verdict)).collect();
    let questions = files.questions()?;
    let limit = before.len() / record.style.samples;
    if before.is_empty() || before.len() != limit * record.style.samples {
        bail!("`{}` is not complete\nhint: run the evaluation again, it goes on where it was", files.path().display());
    }
    let counted = CompleteSamples { files, record: &record, questions: &questions, samples: files.samples()?, limit };
    let scores = score(&counted, grader)?;
    let differs = |it: &&GradeRecord| before.get(&(it.question_id.clone(), it.sample)) != Some(&it.grade.verdict);
    let changed = files.grades()?.iter().filter(differs).count();
    Ok((scores, Changed { samples: before.len(), changed }))
}

/// How many verdicts [`regrade`] changed.
pub struct Changed {
    pub samples: usize,
    pub changed: usize,
}

/// Samples that are complete, and what they answer.
struct CompleteSamples<'a> {
    files: &'a BenchFolder,
    record: &'a BenchRecord,
    questions: &'a [QuestionRecord],
    samples: Vec<SampleRecord>,
    limit: usize,
}

fn score(counted: &CompleteSamples, grader: &Grader) -> Result<BenchmarkScores> {
    let CompleteSamples { files, record, questions, samples, limit } = counted;
    let style = &record.style;
    let place: BTreeMap<&str, usize> = questions.iter().enumerate().map(|(at, it)| (it.id.as_str(), at)).collect();
    let counts = |it: &&SampleRecord| it.sample < style.samples && place.get(it.question_id.as_str()) < Some(limit);
    let samples: Vec<&SampleRecord> = samples.iter().filter(counts).collect();
    let grades: Vec<Grade> = samples
        .par_iter()
        .map(|it| grader.grade(style.extraction, &questions[place[it.question_id.as_str()]], &it.text))
        .collect::<Result<_>>()?;
    let record_of = |(sample, grade): (&&SampleRecord, &Grade)| GradeRecord {
        question_id: sample.question_id.clone(),
        sample: sample.sample,
        grade: grade.clone(),
    };
    files.write_grades(&samples.iter().zip(&grades).map(record_of).collect::<Vec<_>>())?;
    let scores = BenchmarkScores::new(record, questions.len(), *limit, &samples, &grades, grader)?;
    files.write_results(&scores)?;
    Ok(scores)
}

/// The samples of a benchmark, by question and number.
struct Samples {
    keys: Vec<String>,
    by_place: BTreeMap<(usize, usize), SampleRecord>,
}

impl Samples {
    fn read(files: &BenchFolder, identity: &str, style: &Style, questions: &[QuestionRecord]) -> Result<Self> {
        let keys: Vec<String> =
            questions.iter().map(|it| BenchFolder::key(identity, style, it)).collect::<Result<_>>()?;
        let place: BTreeMap<&str, usize> = questions.iter().enumerate().map(|(at, it)| (it.id.as_str(), at)).collect();
        let mut by_place = BTreeMap::new();
        for sample in files.samples()? {
            let at = place.get(sample.question_id.as_str()).copied();
            let at = at.filter(|&at| keys[at] == sample.key).with_context(|| {
                format!(
                    "`{}` has a sample of question {} that was asked otherwise\n\
                     hint: questions, prompt, lengths or stop strings have changed; give another folder with --out",
                    files.path().display(),
                    sample.question_id
                )
            })?;
            by_place.entry((at, sample.sample)).or_insert(sample);
        }
        Ok(Self { keys, by_place })
    }

    fn missing<'a>(&self, at: usize, asked: &'a EvalQuestion, samples: usize) -> Option<EvalJob<'a>> {
        let missing: Vec<usize> = (0..samples).filter(|&it| !self.by_place.contains_key(&(at, it))).collect();
        (!missing.is_empty()).then_some(EvalJob {
            question: at,
            prompt: &asked.prompt,
            key: asked.key,
            samples: missing,
        })
    }

    fn count(&self, limit: usize, samples: usize) -> usize {
        self.by_place.keys().filter(|(at, sample)| *at < limit && *sample < samples).count()
    }

    fn in_order(self) -> Vec<SampleRecord> {
        self.by_place.into_values().collect()
    }
}

/// Writes each sample down as soon as it is there.
struct Recorder<'a> {
    samples: &'a mut Samples,
    questions: &'a [QuestionRecord],
    grader: &'a Grader,
    style: &'a Style,
    log: JsonLines,
    progress: EvalProgress,
    show: &'a mut dyn Show,
}

impl Recorder<'_> {
    /// The samples of an earlier process count in the display too.
    fn count_correct(&mut self, limit: usize) {
        if self.style.extraction.is_program() {
            return;
        }
        let counted =
            self.samples.by_place.iter().filter(|((at, sample), _)| *at < limit && *sample < self.style.samples);
        let right = |((at, _), sample): &(&(usize, usize), &SampleRecord)| self.is_right(*at, &sample.text);
        self.progress.correct = Some((counted.filter(right).count(), self.progress.samples));
    }

    fn is_right(&self, question: usize, text: &str) -> bool {
        let grade = self.grader.grade(self.style.extraction, &self.questions[question], text);
        grade.is_ok_and(|grade| grade.verdict == Verdict::Correct)
    }
}

impl EvalWatch for Recorder<'_> {
    fn sample(&mut self, question: usize, sample: usize, completion: EvalCompletion) -> Result<()> {
        let EvalCompletion { text, tokens, finish } = completion;
        let key = self.samples.keys[question].clone();
        let record =
            SampleRecord { question_id: self.questions[question].id.clone(), sample, key, text, tokens, finish };
        self.log.append(&record)?;
        self.progress.samples += 1;
        if let Some((right, all)) = self.progress.correct {
            let is_right = self.is_right(question, &record.text);
            self.progress.correct = Some((right + usize::from(is_right), all + 1));
        }
        self.samples.by_place.insert((question, sample), record);
        self.show.progress(&self.progress);
        Ok(())
    }

    fn tokens(&mut self, count: usize) {
        self.progress.tokens += count;
        self.show.progress(&self.progress);
    }

    fn cancelled(&mut self) -> bool {
        self.show.cancelled()
    }
}
