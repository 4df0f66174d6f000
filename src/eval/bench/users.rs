//! A user's own file of questions with gold answers.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use sha2::{Digest, Sha256};

use super::{Benchmark, Kind, Origin, Set};
use crate::data::read;
use crate::data::schema::{self, Columns};

#[derive(Clone, Debug)]
pub struct UsersFile {
    pub path: PathBuf,
    pub question_column: Option<String>,
    pub answer_column: Option<String>,
}

/// Named after the file.
pub fn benchmark(path: &Path) -> Benchmark {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = read::ENDINGS.iter().fold(name.trim_end_matches(".gz"), |name, ending| name.trim_end_matches(ending));
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.+".contains(c) { c } else { '-' };
    let file = UsersFile { path: path.to_owned(), question_column: None, answer_column: None };
    Benchmark {
        name: name.chars().map(plain).collect::<String>().to_lowercase(),
        aliases: &[],
        origin: Origin::File(file),
        kind: Kind::Math,
        samples: 1,
    }
}

impl UsersFile {
    pub(super) fn load(&self) -> Result<Set> {
        let mut hash = Sha256::new();
        let rows = read::read(&self.path, &mut hash)?;
        let columns =
            Columns { schema: None, question: self.question_column.as_deref(), answer: self.answer_column.as_deref() };
        let source = self.path.display().to_string();
        let (questions, empty) = schema::questions(&self.path, &rows, &source, columns)?;
        ensure!(!questions.is_empty(), "`{source}` holds no questions ({} rows)", rows.rows.len());
        let mut notes = Vec::new();
        if let Some(first) = empty.first() {
            notes.push(format!("{} rows without a question or an answer left out, the first: {first}", empty.len()));
        }
        Ok(Set { questions, notes, sha256: hex::encode(hash.finalize()) })
    }
}
