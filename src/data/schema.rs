//! The columns of a data set that are the question and the answer.

use std::collections::HashSet;
use std::path::Path;

use anyhow::bail;
use serde_json::{Map, Value};

use super::Question;
use super::read::FileRows;

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

/// The questions of a file, and the rows (such as `line 3`) that were ignored because the question or the answer is empty.
///
/// # Errors
/// A missing column, or a value that is neither text nor a number. The message names the file, the row and the value found.
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
                anyhow::anyhow!("`{}` {}: column `{column}`: {problem}", path.display(), rows.place(*number))
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

    // A copy of such a data set under another name is recognized by its answers, which all have the mark.
    let marked = questions.iter().filter(|it| it.gold.contains(HASHES)).count();
    if schema.is_some_and(|it| it.hashes) || (columns.answer.is_none() && marked == questions.len()) {
        for question in &mut questions {
            let Some((_, gold)) = question.gold.rsplit_once(HASHES) else {
                bail!(
                    "`{}`: the answer to question {} has no `{HASHES}` before its result",
                    path.display(),
                    question.id
                );
            };
            question.gold = gold.trim().to_owned();
        }
    }
    Ok((questions, empty))
}

/// The column `name`, or else the first column with one of the `usual` names.
fn column<'a>(path: &Path, row: &'a Map<String, Value>, name: Option<&str>, usual: &[&str]) -> anyhow::Result<&'a str> {
    let found = match name {
        Some(name) => row.keys().find(|key| *key == name),
        None => usual.iter().find_map(|name| row.keys().find(|key| key.eq_ignore_ascii_case(name))),
    };
    match found {
        Some(column) => Ok(column),
        None => bail!(
            "`{}` has no column `{}`; found: {}\nhint: set the columns with --question-column and --answer-column",
            path.display(),
            name.map_or_else(|| usual.join("` or `"), str::to_owned),
            row.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
        ),
    }
}

/// A value as text; `None` if it is empty. The error follows the name of the column.
fn cell(row: &Map<String, Value>, column: &str) -> Result<Option<String>, String> {
    let text = match row.get(column) {
        Some(Value::String(text)) => text.trim().to_owned(),
        Some(Value::Number(number)) => plain_number(number),
        Some(Value::Null) => String::new(),
        Some(Value::Bool(_)) => return Err("expected text or a number, found a boolean".to_owned()),
        Some(Value::Array(_)) => return Err("expected text or a number, found a list".to_owned()),
        Some(Value::Object(_)) => return Err("expected text or a number, found an object".to_owned()),
        None => {
            let found = row.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(format!("missing; the row has {found}"));
        }
    };
    Ok((!text.is_empty()).then_some(text))
}

/// A number in its usual form: some data sets store integer answers as `142.0`.
fn plain_number(number: &serde_json::Number) -> String {
    match number.as_f64() {
        Some(value) if number.is_f64() && value.fract() == 0.0 && value.abs() < 1e15 => format!("{value:.0}"),
        _ => number.to_string(),
    }
}

/// The values of the identity column, if they are all different.
fn identities(rows: &FileRows) -> Option<Vec<String>> {
    let (_, first) = rows.rows.first()?;
    let name = ID_NAMES.iter().find_map(|name| first.keys().find(|key| key.eq_ignore_ascii_case(name)))?;
    let ids = rows.rows.iter().map(|(_, row)| cell(row, name).ok().flatten()).collect::<Option<Vec<_>>>()?;
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
