//! Questions with gold answers: readers, schemas, order, and the arithmetic generator.

pub mod arithmetic;
pub mod decontaminate;
pub mod order;
pub mod read;
pub mod schema;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::config::DataSection;
use schema::Columns;

/// One question of a data set, with the answer that counts as right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Stable within the data set; part of the key of every random draw made for the question.
    pub id: String,
    pub text: String,
    pub gold: String,
    /// The data set it came from.
    pub source: String,
    /// The other columns of its row, for rewards that need more than the gold answer: a rubric, the tests of a program.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub extra: Map<String, Value>,
}

/// A data set, ready to be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// For training, in the order of the file.
    pub questions: Vec<Question>,
    /// For evaluation; none of them is among `questions`.
    pub held_out: Vec<Question>,
    /// What a user should know about the data, a sentence each.
    pub warnings: Vec<String>,
    /// Of the bytes of the files, in their order (lower-case hex); of the questions for generated ones.
    pub sha256: String,
}

/// Brings the files of a hub data set to this machine: (id, revision, split) to paths.
pub type Fetch<'a> = &'a dyn Fn(&str, &str, &str) -> anyhow::Result<Vec<PathBuf>>;

/// Leaves questions out before any are taken or held out.
pub type Screen<'a> = &'a mut dyn FnMut(Vec<Question>) -> anyhow::Result<Vec<Question>>;

/// Questions that the generator makes where `max_questions` is unset.
pub const GENERATED: usize = 4_096;
/// The seed of generated questions that are held out, so that runs with other seeds are measured on the same ones.
const HELD_OUT_SEED: u64 = 0;

/// Loads the questions of `section`, of which `held_out` more than are taken for training are kept for evaluation.
///
/// # Errors
/// No such file or data set; damaged files; missing columns; values that are neither text nor numbers; no questions, or
/// too few to hold some out. Messages name the file, the row and what was found.
pub fn load(section: &DataSection, seed: u64, held_out: usize, fetch: Fetch) -> anyhow::Result<Loaded> {
    load_screened(section, seed, held_out, fetch, &mut Ok)
}

/// As [`load`], of the questions that pass `screen`.
///
/// # Errors
/// Those of [`load`] and of `screen`.
pub fn load_screened(
    section: &DataSection,
    seed: u64,
    held_out: usize,
    fetch: Fetch,
    screen: Screen,
) -> anyhow::Result<Loaded> {
    if section.path == arithmetic::NAME {
        return generate(section, seed, held_out, screen);
    }
    let local = Path::new(&section.path);
    let (paths, schema) = if local.exists() {
        (vec![local.to_owned()], None)
    } else if is_hub_id(&section.path) {
        (fetch(&section.path, &section.revision, &section.split)?, schema::known(&section.path))
    } else {
        bail!(
            "there is no data file `{}`\nhint: give a file, the id of a hub data set (`openai/gsm8k`) or `arithmetic`",
            section.path
        );
    };

    let columns =
        Columns { schema, question: section.question_column.as_deref(), answer: section.answer_column.as_deref() };
    let mut hash = Sha256::new();
    let (mut questions, mut empty, mut rows) = (Vec::new(), Vec::new(), 0);
    for (i, path) in paths.iter().enumerate() {
        let file = read::read(path, &mut hash)?;
        let (mut some, left_out) = schema::questions(path, &file, &section.path, columns)?;
        if paths.len() > 1 {
            // Row numbers, and some identity columns, are unique in one file only.
            some.iter_mut().for_each(|question| question.id = format!("{i}-{}", question.id));
        }
        rows += file.rows.len();
        questions.append(&mut some);
        empty.extend(left_out.into_iter().map(|place| format!("{} {place}", path.display())));
    }
    ensure!(!questions.is_empty(), "`{}` holds no questions ({rows} rows)", section.path);

    let mut warnings = Vec::new();
    let expected = schema.and_then(|it| it.rows.iter().find(|(split, _)| *split == section.split));
    if let Some(&(_, expected)) = expected
        && expected != rows
    {
        warnings.push(format!("{} rows in `{}`, {} expected", grouped(rows), section.path, grouped(expected)));
    }
    if let Some(first) = empty.first() {
        warnings.push(format!("{} rows without a question or an answer left out, the first: {first}", empty.len()));
    }
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
        !questions.is_empty() && held_out_questions.len() == held_out,
        "`{}` has {found} questions: too few to hold {held_out} of them out\nhint: lower eval.questions",
        section.path
    );
    let sha256 = hex::encode(hash.finalize());
    Ok(Loaded { questions, held_out: held_out_questions, warnings, sha256 })
}

fn generate(section: &DataSection, seed: u64, held_out: usize, screen: Screen) -> anyhow::Result<Loaded> {
    use arithmetic::Split;
    let n = section.max_questions.unwrap_or(GENERATED);
    let questions = match section.split.as_str() {
        "train" => arithmetic::questions(Split::Train, seed, &section.levels, n),
        "held-out" | "test" => arithmetic::questions(Split::HeldOut, HELD_OUT_SEED, &section.levels, n),
        other => bail!("`arithmetic` has no split `{other}`\nhint: data.split is `train` or `held-out`"),
    };
    let questions = screen(questions)?;
    let held_out = arithmetic::questions(Split::HeldOut, HELD_OUT_SEED, &section.levels, held_out);
    let mut hash = Sha256::new();
    for question in questions.iter().chain(&held_out) {
        hash.update(serde_json::to_vec(question)?);
    }
    Ok(Loaded { questions, held_out, warnings: Vec::new(), sha256: hex::encode(hash.finalize()) })
}

/// Keeps the first question of every text.
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
        warnings.push(format!("{n} of the duplicates had another answer than the question kept, the first: {first}"));
    }
    kept
}

/// Whether a path has the form of a hub id, `owner/name`.
fn is_hub_id(path: &str) -> bool {
    let plain = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    path.split_once('/').is_some_and(|(owner, name)| plain(owner) && plain(name) && !Path::new(owner).is_dir())
        && !read::is_readable(path)
}

/// A count with a comma before every third digit.
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
