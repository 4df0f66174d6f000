//! Questions with gold answers: readers, schemas, order, and the arithmetic generator.

pub mod arithmetic;
pub mod cell;
pub mod decontaminate;
pub mod order;
mod question;
pub mod read;
pub mod row;
pub mod schema;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};
use sha2::{Digest, Sha256};

use crate::config::DataSection;
use crate::model::hub::is_hub_id;
use schema::QuestionColumns;

pub use order::HoldOut;
pub use question::Question;

/// A loaded data set.
#[derive(Clone, Debug)]
pub struct LoadedData {
    /// Training questions, in the order of the file.
    pub questions: Vec<Question>,
    /// Evaluation questions. None of them is in `questions`.
    pub held_out: Vec<Question>,
    /// Warnings about the data, one sentence each.
    pub warnings: Vec<String>,
    /// Hash of the files' bytes, in order (lower-case hex); for generated data, of the questions.
    pub sha256: String,
    /// The files that were read.
    pub paths: Vec<PathBuf>,
}

/// Downloads the files of a Hub data set: (id, revision, split) to paths.
pub type Fetch<'a> = &'a dyn Fn(&str, &str, &str) -> anyhow::Result<Vec<PathBuf>>;

/// Removes questions before training and held-out questions are selected.
pub type QuestionFilter<'a> = &'a mut dyn FnMut(Vec<Question>) -> anyhow::Result<Vec<Question>>;

/// Maximum number of questions that the generator makes.
const MOST: usize = 1_000_000;
/// Number of questions that the generator makes if `max_questions` is not set.
pub const GENERATED: usize = 4_096;
/// The seed of generated held-out questions. It is fixed, so that all runs are evaluated on the same questions.
const HELD_OUT_SEED: u64 = 0;

/// Loads the questions of `section`, and holds out `held_out` of them for evaluation.
///
/// # Errors
/// No such file or data set; damaged files; missing columns; values that are neither text nor numbers; no questions, or
/// too few to hold some out. Messages name the file, the row and what was found.
pub fn load(section: &DataSection, seed: u64, held_out: usize, fetch: Fetch) -> anyhow::Result<LoadedData> {
    load_screened(section, seed, HoldOut::Evaluation(held_out), fetch, &mut Ok)
}

/// Like [`load`], for the questions that pass `screen`.
///
/// # Errors
/// Those of [`load`] and of `screen`.
pub fn load_screened(
    section: &DataSection,
    seed: u64,
    held_out: HoldOut,
    fetch: Fetch,
    screen: QuestionFilter,
) -> anyhow::Result<LoadedData> {
    if section.path == arithmetic::NAME {
        return generate(section, seed, held_out, screen);
    }
    let local = Path::new(&section.path);
    let (paths, schema) = if local.exists() {
        (vec![local.to_owned()], None)
    } else if is_hub_id(&section.path) && !means_a_file(&section.path) {
        (fetch(&section.path, &section.revision, &section.split)?, schema::known(&section.path))
    } else {
        bail!(
            "there is no data file `{}`\nhint: pass a file, the id of a data set on the Hub (`openai/gsm8k`) or `arithmetic`",
            section.path
        );
    };

    let columns = QuestionColumns {
        schema,
        question: section.question_column.as_deref(),
        answer: section.answer_column.as_deref(),
    };
    let mut hash = Sha256::new();
    let (mut questions, mut empty, mut notes, mut rows) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for (i, path) in paths.iter().enumerate() {
        let file = read::read(path, &mut hash)?;
        let mut found = schema::questions(path, &file, &section.path, columns)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let of_file = |text: String| if paths.len() > 1 { format!("{name}: {text}") } else { text };
        if paths.len() > 1 {
            // Row numbers, and some identity columns, are only unique within one file.
            found.questions.iter_mut().for_each(|question| question.id = format!("{i}-{}", question.id));
        }
        rows += file.rows.len();
        questions.append(&mut found.questions);
        notes.extend(found.notes.into_iter().map(of_file));
        empty.extend(found.empty.map(of_file));
    }
    ensure!(!questions.is_empty(), "`{}` has no questions ({rows} rows)", section.path);

    let mut warnings = Vec::new();
    let expected = schema.and_then(|it| it.rows.iter().find(|(split, _)| *split == section.split));
    if let Some(&(_, expected)) = expected
        && expected != rows
    {
        warnings.push(format!("`{}`: expected {} rows, found {}", section.path, grouped(expected), grouped(rows)));
    }
    warnings.extend(ignored_rows(rows - questions.len(), rows, &empty));
    warnings.append(&mut notes);
    let questions = without_duplicates(questions, &mut warnings);
    let without_options: Vec<&str> =
        questions.iter().filter(|it| schema::lacks_options(it)).map(|it| it.id.as_str()).collect();
    if !without_options.is_empty() {
        let (some, more) = (&without_options[..without_options.len().min(5)], without_options.len() > 5);
        let ids = some.join(", ") + if more { ", ..." } else { "" };
        warnings.push(format!("{} multiple-choice questions without their options: {ids}", without_options.len()));
    }

    let questions = screen(questions)?;
    let found = questions.len();
    let (questions, held_out_questions) = order::split(questions, section.take, section.max_questions, held_out, seed);
    ensure!(
        !questions.is_empty() && held_out_questions.len() == held_out.count(),
        "`{}` has only {found} questions, and {} are held out\nhint: lower eval.questions",
        section.path,
        held_out.count()
    );
    let sha256 = hex::encode(hash.finalize());
    Ok(LoadedData { questions, held_out: held_out_questions, warnings, sha256, paths })
}

fn generate(section: &DataSection, seed: u64, held_out: HoldOut, screen: QuestionFilter) -> anyhow::Result<LoadedData> {
    use arithmetic::Split;
    let n = section.max_questions.unwrap_or(GENERATED);
    for (key, n) in [("data.max_questions", n), ("eval.questions", held_out.count())] {
        ensure!(
            n <= MOST,
            "`{key}`: {n} questions are too many for `arithmetic`, expected at most {MOST}\nhint: lower it"
        );
    }
    // The questions of benchmarks are from the split `HeldOut`, so the choice of a setting needs a split of its own.
    let (train, other) = match held_out {
        HoldOut::Evaluation(_) => (Split::Train, Split::HeldOut),
        HoldOut::Tuning(_) => (Split::TrainWithoutTuning, Split::Tuning),
    };
    let questions = match section.split.as_str() {
        "train" => arithmetic::questions(train, seed, &section.levels, n)?,
        "held-out" | "test" => arithmetic::questions(Split::HeldOut, HELD_OUT_SEED, &section.levels, n)?,
        other => bail!("`arithmetic` has no split `{other}`\nhint: data.split is `train` or `held-out`"),
    };
    let questions = screen(questions)?;
    let held_out = arithmetic::questions(other, HELD_OUT_SEED, &section.levels, held_out.count())?;
    let mut hash = Sha256::new();
    for question in questions.iter().chain(&held_out) {
        hash.update(serde_json::to_vec(question)?);
    }
    let sha256 = hex::encode(hash.finalize());
    Ok(LoadedData { questions, held_out, warnings: Vec::new(), sha256, paths: Vec::new() })
}

/// A note about the rows without a question or an answer, if there are any; `places` has those of each file.
pub fn ignored_rows(ignored: usize, rows: usize, places: &[String]) -> Option<String> {
    (ignored > 0)
        .then(|| format!("ignored {ignored} of {rows} rows without a question or an answer: {}", places.join("; ")))
}

/// Removes questions whose text occurs earlier.
fn without_duplicates(questions: Vec<Question>, warnings: &mut Vec<String>) -> Vec<Question> {
    let before = questions.len();
    let mut golds: HashMap<String, String> = HashMap::with_capacity(before);
    let mut contradicted = Vec::new();
    let mut kept = Vec::with_capacity(before);
    for question in questions {
        let words = question.text.split_whitespace().collect::<Vec<_>>().join(" ");
        match golds.get(&words) {
            None => {
                golds.insert(words, question.gold.clone());
                kept.push(question);
            }
            Some(gold) if *gold != question.gold => contradicted.push(question.id),
            Some(_) => {}
        }
    }
    if kept.len() < before {
        warnings.push(format!("{} duplicates removed", before - kept.len()));
    }
    if let Some(first) = contradicted.first() {
        let n = contradicted.len();
        warnings
            .push(format!("{n} of the duplicates had a different answer from the question kept, the first: {first}"));
    }
    kept
}

/// Whether a path that does not exist is meant as a file and not as a Hub id, by its extension or because its folder exists.
fn means_a_file(path: &str) -> bool {
    read::is_readable(path) || path.split_once('/').is_some_and(|(folder, _)| Path::new(folder).is_dir())
}

/// A count with separated thousands: `12,500`.
fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
