//! The columns of a data set that are the question and the answer.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::value::RawValue;

use super::Question;
use super::cell;
use super::row::{FileRows, Row, value};
use crate::config::nearest_name;
use crate::math;

/// The schema of a data set on the Hub.
#[derive(Debug)]
pub struct Schema {
    pub hub_id: &'static str,
    question: &'static str,
    answer: &'static str,
    /// The answer is a worked solution that ends in `#### gold`.
    hashes: bool,
    /// Number of rows of the known splits.
    pub rows: &'static [(&'static str, usize)],
}

const KNOWN: [Schema; 3] = [
    Schema {
        hub_id: "openai/gsm8k",
        question: "question",
        answer: "answer",
        hashes: true,
        rows: &[("train", 7_473), ("test", 1_319)],
    },
    Schema {
        hub_id: "RUC-AIBOX/STILL-3-Preview-RL-Data",
        question: "question",
        answer: "answer",
        hashes: false,
        rows: &[("train", 29_925)],
    },
    Schema {
        hub_id: "agentica-org/DeepScaleR-Preview-Dataset",
        question: "problem",
        answer: "answer",
        hashes: false,
        rows: &[],
    },
];

/// Column names of questions, answers and identities in other data sets, ignoring case. The first one found is used.
const QUESTION_NAMES: [&str; 3] = ["question", "problem", "prompt"];
const ANSWER_NAMES: [&str; 1] = ["answer"];
/// The field with the answer in verl's data sets.
const VERL_ANSWER: &str = "reward_model.ground_truth";
const ID_NAMES: [&str; 5] = ["id", "unique_id", "task_id", "uid", "uuid"];

/// The mark between a worked solution and its result.
const HASHES: &str = "####";

/// The schema of a known Hub data set.
pub fn known(hub_id: &str) -> Option<&'static Schema> {
    KNOWN.iter().find(|schema| schema.hub_id.eq_ignore_ascii_case(hub_id))
}

/// The columns to use. A name set by the user has precedence over the schema.
#[derive(Clone, Copy, Debug, Default)]
pub struct QuestionColumns<'a> {
    pub schema: Option<&'static Schema>,
    pub question: Option<&'a str>,
    pub answer: Option<&'a str>,
}

/// The questions of a file.
#[derive(Debug, Default)]
pub struct FileQuestions {
    pub questions: Vec<Question>,
    /// Notes about the rows for the user, one sentence each.
    pub notes: Vec<String>,
    /// The rows without a question or an answer (such as `lines 3, 5`), which are not among the questions.
    pub empty: Option<String>,
}

/// The questions of a file.
///
/// # Errors
/// A missing column, or a value that is not a question or an answer. The message names the file, the row and the value found.
pub fn questions(path: &Path, file: &FileRows, source: &str, columns: QuestionColumns) -> Result<FileQuestions> {
    let Some((_, first)) = file.rows.first() else { return Ok(FileQuestions::default()) };
    let schema = columns.schema;
    let question = column(path, first, columns.question.or(schema.map(|it| it.question)), &QUESTION_NAMES)?;
    let answer = column(path, first, columns.answer.or(schema.map(|it| it.answer)), &ANSWER_NAMES)?;
    let ids = identities(file);

    let mut questions = Vec::with_capacity(file.rows.len());
    let (mut empty, mut systems, mut rounded) = (Vec::new(), Vec::new(), Vec::new());
    for (i, (number, row)) in file.rows.iter().enumerate() {
        let place = format!("`{}` {}", path.display(), file.place(*number));
        let at = |column: &str| {
            row.get(column)
                .with_context(|| format!("{place}: column `{column}`: missing; the row has {}", row.listed()))
        };
        let of = |column: &str, problem: String| anyhow!("{place}: column `{column}`: {problem}");
        let (text, has_system) = cell::question(at(question)?).map_err(|problem| of(question, problem))?;
        let raw = at(answer)?;
        let gold = cell::answer(raw).map_err(|problem| of(answer, problem))?;
        let (Some(text), Some(gold)) = (text, gold) else {
            empty.push(*number);
            continue;
        };
        if has_system {
            systems.push(*number);
        }
        if raw.get() == gold && cell::is_rounded(&gold) {
            rounded.push((*number, gold.clone()));
        }
        let id = ids.as_ref().map_or_else(|| number.to_string(), |ids| ids[i].clone());
        let others = row.columns().filter(|(name, _)| *name != question && *name != answer);
        let other = |(name, raw): (&str, &RawValue)| {
            let value = value(raw).map_err(|error| of(name, error.to_string()))?;
            Ok((name.to_owned(), value))
        };
        let extra = others.map(other).collect::<Result<_>>()?;
        questions.push((*number, Question { id, text, gold, source: source.to_owned(), extra }));
    }

    reduce_to_results(path, &mut questions, schema.is_some_and(|it| it.hashes))?;
    let (questions, without): (Vec<_>, Vec<_>) = questions.into_iter().partition(|(_, it)| !it.gold.is_empty());
    empty.extend(without.iter().map(|(number, _)| *number));
    empty.sort_unstable();
    let questions = questions.into_iter().map(|(_, question)| question).collect();
    let mut notes = Vec::new();
    if !systems.is_empty() {
        notes.push(format!(
            "ignored the system messages of {} rows; the prior prompt (`--ppe`) takes their place",
            systems.len()
        ));
    }
    if let Some((number, gold)) = rounded.first() {
        notes.push(format!(
            "{} gold answers are numbers with at least 16 digits, as computations with rounding give them; an answer has to agree \
             with all digits. The first: {gold} ({})",
            rounded.len(),
            file.place(*number)
        ));
    }
    let empty = (!empty.is_empty()).then(|| file.places(&empty));
    Ok(FileQuestions { questions, notes, empty })
}

/// Replaces worked solutions with their results: the text after the last `####` or in the last box.
fn reduce_to_results(path: &Path, questions: &mut [(usize, Question)], hashes: bool) -> Result<()> {
    // A copy of GSM8K under another name is recognized by its answers, which all have the mark.
    let hashes = hashes || questions.iter().all(|(_, it)| it.gold.contains(HASHES));
    for (_, question) in questions {
        let result = match question.gold.rsplit_once(HASHES) {
            Some((_, result)) if hashes => Some(result.trim().to_owned()),
            None if hashes => bail!(
                "`{}`: the answer to question {} has no `{HASHES}` before its result",
                path.display(),
                question.id
            ),
            _ => math::solution_answer(&question.gold),
        };
        if let Some(result) = result {
            question.gold = result;
        }
    }
    Ok(())
}

/// The column `name`, or else the first column with one of the `usual` names.
fn column<'a>(path: &Path, row: &'a Row, name: Option<&'a str>, usual: &[&str]) -> Result<&'a str> {
    let found = match name {
        Some(name) => row.get(name).map(|_| name),
        None => usual
            .iter()
            .find_map(|name| {
                row.names().find(|key| key == name).or(row.names().find(|key| key.eq_ignore_ascii_case(name)))
            })
            .or_else(|| (usual == ANSWER_NAMES && row.get(VERL_ANSWER).is_some()).then_some(VERL_ANSWER)),
    };
    match found {
        Some(column) => Ok(column),
        None => {
            // Names often differ in case and in spaces.
            let plain = |name: &str| name.to_lowercase().replace([' ', '-'], "_");
            let meant = name.and_then(|name| {
                let same = row.names().find(|key| plain(key) == plain(name));
                same.or_else(|| nearest_name(name, row.names()))
            });
            let hint = match meant {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => "set the columns with --question-column and --answer-column".to_owned(),
            };
            bail!(
                "`{}` has no column `{}`; found: {}\nhint: {hint}",
                path.display(),
                name.map_or_else(|| usual.join("` or `"), str::to_owned),
                row.listed()
            )
        }
    }
}

/// The values of the identity column, if they are all different.
fn identities(file: &FileRows) -> Option<Vec<String>> {
    let (_, first) = file.rows.first()?;
    let name = ID_NAMES.iter().find_map(|name| first.names().find(|key| key.eq_ignore_ascii_case(name)))?;
    let id = |row: &Row| cell::text(row.get(name)?).ok().flatten();
    let ids = file.rows.iter().map(|(_, row)| id(row)).collect::<Option<Vec<_>>>()?;
    let distinct: HashSet<&str> = ids.iter().map(String::as_str).collect();
    (distinct.len() == ids.len()).then_some(ids)
}

/// Whether a question asks for one of several options but lists none, so that it cannot be answered.
pub fn lacks_options(question: &Question) -> bool {
    let text = question.text.to_lowercase();
    let asks =
        ["which of the following", "which one of the following", "which of these", "all of the following except"];
    let compares =
        ["which number is greater", "which number is less", "which number is larger", "which number is smaller"];
    let letter = matches!(question.gold.trim_matches(['(', ')', '$', '.', ' ']), "A" | "B" | "C" | "D" | "E");
    (asks.iter().chain(&compares).any(|words| text.contains(words)) || letter) && !lists_options(&question.text)
}

/// Whether options are listed: after letters or numbers in various forms (`(A) 1`, `B. 2`, `\text{C:}`, `2) 5`, `① 3`), or
/// separated by bullets, wide spaces or line breaks.
fn lists_options(text: &str) -> bool {
    let chars: Vec<char> = text.chars().collect();
    let marked = |mark: char| {
        (0..chars.len()).any(|i| {
            chars[i] == mark
                && chars.get(i + 1).is_some_and(|next| ")].:）．、}$".contains(*next))
                && i.checked_sub(1).is_none_or(|before| !chars[before].is_alphanumeric())
        })
    };
    let lines_after_the_question = text
        .split_once('?')
        .map_or(0, |(_, after)| after.lines().skip(1).filter(|line| !line.trim().is_empty()).count());
    [['A', 'B'], ['a', 'b'], ['1', '2']].iter().any(|pair| pair.iter().all(|&it| marked(it)))
        || text.contains('①')
        || ["\n- ", "\n* ", "\\item", "\\quad", "\\qquad"].iter().any(|mark| text.matches(mark).count() >= 2)
        || lines_after_the_question >= 3
}
