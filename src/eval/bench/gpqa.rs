//! GPQA-Diamond (Rein et al., arXiv 2311.12022): 198 questions of graduate level with four options.
//!
//! The data set is gated, and its authors ask not to publish any example, so this repository contains no part of it. It is read
//! from the official CSV file.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{AnswerKind, Benchmark, HubSet, QuestionOrigin};
use crate::data::Question;
use crate::rng::{Purpose, Stream, name_hash};

const SET: HubSet = HubSet {
    id: "Idavidrein/gpqa",
    revision: "main",
    split: "train",
    hub_file: Some("gpqa_diamond.csv"),
    download: None,
    columns: &[],
    by_rules: None,
    files: &["gpqa_diamond.csv", "gpqa-diamond.csv"],
    question: "Question",
    answer: "Correct Answer",
    rows: 198,
    golds_sha256: None,
};

const WRONG: [&str; 3] = ["Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"];

pub fn benchmark() -> Benchmark {
    let aliases = &["gpqa:diamond", "gpqa_diamond", "gpqa"];
    Benchmark {
        name: "gpqa-diamond".into(),
        aliases,
        origin: QuestionOrigin::Hub(&SET),
        kind: AnswerKind::Choice,
        samples: 8,
        level_7b: Some(0.35),
    }
}

/// The options of a question, in the order shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerOptions {
    pub options: Vec<String>,
    /// Index of the right option.
    pub right: usize,
    /// `order[i]` is the option at position i: 0 is the right answer, higher numbers are the wrong ones in the order of the file.
    pub order: Vec<usize>,
}

impl AnswerOptions {
    /// The order depends only on the seed and the question's identity, so a resumed or repeated evaluation has the same order.
    ///
    /// # Errors
    /// A missing column; options that are not distinct.
    pub fn of(question: &Question, seed: u64) -> Result<Self> {
        let mut texts = vec![question.gold.clone()];
        for column in WRONG {
            let option = match question.extra.get(column) {
                Some(Value::String(text)) => text.trim().to_owned(),
                Some(Value::Number(number)) => number.to_string(),
                _ => String::new(),
            };
            ensure!(!option.is_empty(), "question {} has no `{column}`", question.id);
            texts.push(option);
        }
        let order = Stream::new(seed, Purpose::Choices, &[name_hash(&question.id)]).permutation(texts.len());
        let right = order.iter().position(|&it| it == 0).context("a permutation contains every index")?;
        let options = order.iter().map(|&it| texts[it].clone()).collect();
        Ok(Self { options, right, order })
    }

    /// `A` for the first option.
    pub fn letter(place: usize) -> char {
        char::from(b'A' + place as u8)
    }
}
