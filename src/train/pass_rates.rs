//! The file with the pass rates of training questions, and the questions in a band of it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::data::Question;
use crate::disk::hash::{sha256, sha256_file};
use crate::run::jsonl;

/// A line of the file: the samples of one question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PassRate {
    pub question_id: String,
    /// Of the question's text and its gold answer.
    pub sha256: String,
    pub right: usize,
    /// 0 if the prompt is too long for the model: such a question is in no band.
    pub samples: usize,
}

/// The questions of `questions` whose pass rate in the file `path` is within `band`, and a note with their number.
///
/// # Errors
/// The file does not have a question, or has another question under its id; no question is in the band.
pub fn within(questions: Vec<Question>, path: &Path, band: [f64; 2]) -> Result<(Vec<Question>, String)> {
    let rates = read(path)?;
    let ([low, high], all) = (band, questions.len());
    let mut kept = Vec::new();
    for question in questions {
        let rate = rates.get(&question.id).filter(|rate| rate.sha256 == fingerprint(&question));
        let Some(rate) = rate else {
            bail!(
                "`{}` has no pass rate of the training question `{}`: it was measured on other questions\n\
                 hint: measure these with `rft difficulty` and the same data, seed and `eval.questions`",
                path.display(),
                question.id
            );
        };
        let share = rate.right as f64 / rate.samples as f64;
        if rate.samples > 0 && (low..=high).contains(&share) {
            kept.push(question);
        }
    }
    let note = format!("{} of {all} training questions have a pass rate from {low} to {high}", kept.len());
    ensure!(!kept.is_empty(), "{note}\nhint: use a wider `data.pass_rate`");
    Ok((kept, note))
}

/// The hash of a band: of the file and its limits.
pub fn band_hash(path: &Path, [low, high]: [f64; 2]) -> Result<String> {
    let file = sha256_file(path).with_context(|| format!("read `{}`", path.display()))?;
    Ok(sha256(format!("{file} {low} {high}").as_bytes()))
}

/// The file's lines by question.
pub(super) fn read(path: &Path) -> Result<BTreeMap<String, PassRate>> {
    let rates: Vec<PassRate> = jsonl::read(path)?;
    Ok(rates.into_iter().map(|rate| (rate.question_id.clone(), rate)).collect())
}

/// Identifies a question beyond its id, which another data set may have too.
pub(super) fn fingerprint(question: &Question) -> String {
    sha256(format!("{}\n{}", question.text, question.gold).as_bytes())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::run::jsonl::JsonLines;

    fn question(id: usize) -> Question {
        Question {
            id: id.to_string(),
            text: format!("What is {id} + 1?"),
            gold: (id + 1).to_string(),
            source: "test".to_owned(),
            extra: serde_json::Map::new(),
        }
    }

    /// A file with questions 0 to 8, of whose 8 samples as many are right as their number.
    fn file(folder: &Path) -> PathBuf {
        let path = folder.join("rates.jsonl");
        let mut log = JsonLines::append_to(&path).unwrap();
        for id in 0..=8 {
            let (question_id, sha256) = (id.to_string(), fingerprint(&question(id)));
            log.append(&PassRate { question_id, sha256, right: id, samples: 8 }).unwrap();
        }
        path
    }

    #[test]
    fn the_limits_of_a_band_belong_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path());
        let ids = |band| -> Vec<String> {
            let (kept, _) = within((0..=8).map(question).collect(), &path, band).unwrap();
            kept.into_iter().map(|question| question.id).collect()
        };
        assert_eq!(ids([0.125, 0.25]), ["1", "2"]);
        assert_eq!(ids([0.1, 0.9]), ["1", "2", "3", "4", "5", "6", "7"]);
        assert_eq!(ids([0.0, 1.0]).len(), 9);
        let (_, note) = within((0..=8).map(question).collect(), &path, [0.1, 0.9]).unwrap();
        assert_eq!(note, "7 of 9 training questions have a pass rate from 0.1 to 0.9");
        let empty = within((0..=8).map(question).collect(), &path, [0.3, 0.31]).unwrap_err();
        assert!(empty.to_string().starts_with("0 of 9 training questions"), "{empty}");
    }

    #[test]
    fn other_questions_are_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path());
        for other in [question(9), Question { gold: "7".to_owned(), ..question(1) }] {
            let error = within(vec![question(1), other], &path, [0.0, 1.0]).unwrap_err().to_string();
            assert!(error.contains("it was measured on other questions\nhint: "), "{error}");
        }
    }

    #[test]
    fn the_hash_of_a_band_depends_on_its_limits_and_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path());
        let first = band_hash(&path, [0.1, 0.9]).unwrap();
        assert_eq!(first, band_hash(&path, [0.1, 0.9]).unwrap());
        assert_ne!(first, band_hash(&path, [0.1, 0.8]).unwrap());
        JsonLines::append_to(&path).unwrap().append(&serde_json::json!({})).unwrap();
        assert_ne!(first, band_hash(&path, [0.1, 0.9]).unwrap());
    }
}
