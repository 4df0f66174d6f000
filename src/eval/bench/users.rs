//! A user's own file of questions with gold answers.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use sha2::{Digest, Sha256};

use super::set::Set;
use crate::data::schema::{self, FileQuestions, QuestionColumns};
use crate::data::{ignored_rows, read};

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
        let FileQuestions { questions, mut notes, empty } = schema::questions(&self.path, &rows, &source, columns)?;
        let all = rows.rows.len();
        ensure!(!questions.is_empty(), "`{source}` has no questions ({all} rows)");
        notes.extend(ignored_rows(all - questions.len(), all, empty.as_slice()));
        Ok(Set { questions, notes, sha256: hex::encode(hash.finalize()) })
    }
}
