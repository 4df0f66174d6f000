//! A user's own file of questions with gold answers.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use sha2::{Digest, Sha256};

use super::set::Set;
use crate::data::read;
use crate::data::schema::{self, QuestionColumns};
use crate::disk::hash::hex;

#[derive(Clone, Debug)]
pub struct UsersFile {
    pub path: PathBuf,
    pub question_column: Option<String>,
    pub answer_column: Option<String>,
}

impl UsersFile {
    pub(super) fn load(&self) -> Result<Set> {
        let mut hash = Sha256::new();
        let rows = read::read(&self.path, &mut hash)?;
        let columns = QuestionColumns {
            schema: None,
            question: self.question_column.as_deref(),
            answer: self.answer_column.as_deref(),
        };
        let source = self.path.display().to_string();
        let (questions, empty) = schema::questions(&self.path, &rows, &source, columns)?;
        ensure!(!questions.is_empty(), "`{source}` has no questions ({} rows)", rows.rows.len());
        let mut notes = Vec::new();
        if let Some(first) = empty.first() {
            notes.push(format!("ignored {} rows without a question or an answer, the first: {first}", empty.len()));
        }
        Ok(Set { questions, notes, sha256: hex(hash.finalize()) })
    }
}
