//! Which columns of a data set are the question and the answer.

use std::collections::HashSet;
use std::path::Path;

use anyhow::bail;
use serde_json::{Map, Value};

use super::Question;
use super::read::FileRows;

/// What is known about a data set on the hub.
#[derive(Debug)]
pub struct Schema {
    pub hub_id: &'static str,
    question: &'static str,
    answer: &'static str,
    /// The answer is a worked solution that ends in `#### gold`.
    hashes: bool,
    /// Rows of the splits that are known.
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

/// Names that a question, an answer and an identity go by in other data sets, in any capitals; the first one found counts.
const QUESTION_NAMES: [&str; 3] = ["question", "problem", "prompt"];
const ANSWER_NAMES: [&str; 1] = ["answer"];
const ID_NAMES: [&str; 4] = ["id", "unique_id", "uid", "uuid"];

/// Mark between a worked solution and its result.
const HASHES: &str = "####";

/// The schema of a hub data set.
pub fn known(hub_id: &str) -> Option<&'static Schema> {
    KNOWN.iter().find(|schema| schema.hub_id.eq_ignore_ascii_case(hub_id))
}

/// The columns to use. A name given by the user comes first, then the schema's.
#[derive(Clone, Copy, Debug, Default)]
pub struct QuestionColumns<'a> {
    pub schema: Option<&'static Schema>,
    pub question: Option<&'a str>,
    pub answer: Option<&'a str>,
}

/// The questions of a file, and the rows (as `line 3`) that were left out because question or answer are empty.
///
/// # Errors
/// A missing column or a value that is neither text nor a number; the message names the file, the row and what was found.
pub fn questions(
    path: &Path,
    rows: &FileRows,
    source: &str,
    columns: QuestionColumns,
) -> anyhow::Result<(Vec<Question>, Vec<String>)> {
    let Some((_, first)) = rows.rows.first() else { return Ok((Vec::new(), Vec::new())) };
    let schema = columns.schema;
    let question = column(path, first, columns.question.or(schema.map(|it| it.question)), &QUESTION_NAMES)?;
    let answer = column(path, first, columns.answer.or(schema.map(|it| it.answer)), &ANSWER_NAMES)?;
    let ids = identities(rows);

    let mut questions = Vec::with_capacity(rows.rows.len());
    let mut empty = Vec::new();
    for (i, (number, row)) in rows.rows.iter().enumerate() {
        let at = |column| {
            cell(row, column).map_err(|problem| {
                anyhow::anyhow!("`{}` {}: column `{column}` {problem}", path.display(), rows.place(*number))
            })
        };
        match (at(question)?, at(answer)?) {
            (Some(text), Some(gold)) => {
                let id = ids.as_ref().map_or_else(|| number.to_string(), |ids| ids[i].clone());
                let others = row.iter().filter(|(name, _)| *name != question && *name != answer);
                let extra = others.map(|(name, value)| (name.clone(), value.clone())).collect();
                questions.push(Question { id, text, gold, source: source.to_owned(), extra });
            }
            _ => empty.push(rows.place(*number)),
        }
    }

    // A copy of such a set under another name is known by its answers: every one of them has the mark.
    let marked = questions.iter().filter(|it| it.gold.contains(HASHES)).count();
    if schema.is_some_and(|it| it.hashes) || (columns.answer.is_none() && marked == questions.len()) {
        for question in &mut questions {
            let Some((_, gold)) = question.gold.rsplit_once(HASHES) else {
                bail!(
                    "`{}`: the answer of question {} has no `{HASHES}` before its result",
                    path.display(),
                    question.id
                );
            };
            question.gold = gold.trim().to_owned();
        }
    }
    Ok((questions, empty))
}

/// The column called `name`, or else the first of `usual` names that is there.
fn column<'a>(path: &Path, row: &'a Map<String, Value>, name: Option<&str>, usual: &[&str]) -> anyhow::Result<&'a str> {
    let found = match name {
        Some(name) => row.keys().find(|key| *key == name),
        None => usual.iter().find_map(|name| row.keys().find(|key| key.eq_ignore_ascii_case(name))),
    };
    match found {
        Some(column) => Ok(column),
        None => bail!(
            "`{}` has no column `{}`; found: {}\nhint: name the columns with --question-column and --answer-column",
            path.display(),
            name.map_or_else(|| usual.join("` or `"), str::to_owned),
            row.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
        ),
    }
}

/// A value as text; `None` where it is empty. The error ends the sentence "column `x` ...".
fn cell(row: &Map<String, Value>, column: &str) -> Result<Option<String>, String> {
    let text = match row.get(column) {
        Some(Value::String(text)) => text.trim().to_owned(),
        Some(Value::Number(number)) => plain_number(number),
        Some(Value::Null) => String::new(),
        Some(Value::Bool(_)) => return Err("holds a truth value, not text or a number".to_owned()),
        Some(Value::Array(_)) => return Err("holds a list, not text or a number".to_owned()),
        Some(Value::Object(_)) => return Err("holds an object, not text or a number".to_owned()),
        None => {
            let found = row.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(format!("is missing; found: {found}"));
        }
    };
    Ok((!text.is_empty()).then_some(text))
}

/// A number as a person writes it: some sets store whole answers as `142.0`.
fn plain_number(number: &serde_json::Number) -> String {
    match number.as_f64() {
        Some(value) if number.is_f64() && value.fract() == 0.0 && value.abs() < 1e15 => format!("{value:.0}"),
        _ => number.to_string(),
    }
}

/// The values of the identity column, if every row has one of its own.
fn identities(rows: &FileRows) -> Option<Vec<String>> {
    let (_, first) = rows.rows.first()?;
    let name = ID_NAMES.iter().find_map(|name| first.keys().find(|key| key.eq_ignore_ascii_case(name)))?;
    let ids = rows.rows.iter().map(|(_, row)| cell(row, name).ok().flatten()).collect::<Option<Vec<_>>>()?;
    let distinct: HashSet<&str> = ids.iter().map(String::as_str).collect();
    (distinct.len() == ids.len()).then_some(ids)
}

/// Whether a question asks for one of several options but lists none: nobody can answer it.
pub fn lacks_options(question: &Question) -> bool {
    let text = question.text.to_lowercase();
    let asks =
        ["which of the following", "which one of the following", "which of these", "all of the following except"];
    let compares =
        ["which number is greater", "which number is less", "which number is larger", "which number is smaller"];
    let letter = matches!(question.gold.trim_matches(['(', ')', '$', '.', ' ']), "A" | "B" | "C" | "D" | "E");
    (asks.iter().chain(&compares).any(|words| text.contains(words)) || letter) && !lists_options(&question.text)
}

/// Whether options are listed: after letters or numbers in any dress (`(A) 1`, `B. 2`, `\text{C:}`, `2) 5`, `① 3`), or
/// set apart by bullets, wide spaces or lines of their own.
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
