//! The definition of a benchmark, and the sources of its questions.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use super::judged::needs_judge;
use super::set::Set;
use super::users::UsersFile;
use crate::data::Question;
use crate::data::arithmetic::Split;
use crate::data::read;
use crate::data::row::FileRows;
use crate::data::schema::{self, FileQuestions, QuestionColumns};
use crate::disk::hash::sha256;
use crate::model::hub;

/// A set of questions for evaluation.
#[derive(Clone, Debug)]
pub struct Benchmark {
    /// The name in folders, tables and on the command line.
    pub name: String,
    /// Names in other harnesses.
    pub aliases: &'static [&'static str],
    pub origin: QuestionOrigin,
    pub kind: AnswerKind,
    /// Number of samples per question in the profile `study`.
    pub samples: usize,
    /// The accuracy that a model with 7 billion parameters is assumed to have; `None` if none is assumed.
    pub level_7b: Option<f64>,
}

/// The source of the questions.
#[derive(Clone, Debug)]
pub enum QuestionOrigin {
    Hub(&'static HubSet),
    /// Generated: a number of held-out questions of these levels.
    Arithmetic {
        levels: Vec<u8>,
        questions: usize,
    },
    File(UsersFile),
}

/// A data set on the Hub, and its known properties.
#[derive(Debug)]
pub struct HubSet {
    pub id: &'static str,
    pub revision: &'static str,
    pub split: &'static str,
    /// The file, if the split does not determine it.
    pub hub_file: Option<&'static str>,
    /// The download address, for a question set that the Hub does not have in the supported form.
    pub download: Option<&'static str>,
    /// All columns of the published file; a file with others, or without some of them, is an error. Empty: only the question
    /// and the answer are needed.
    pub columns: &'static [&'static str],
    /// For a benchmark without the questions that [`needs_judge`]: how many remain.
    pub by_rules: Option<usize>,
    /// Possible file names in a data folder.
    pub files: &'static [&'static str],
    pub question: &'static str,
    pub answer: &'static str,
    /// Number of rows of the file.
    pub rows: usize,
    /// The known [`golds_sha256`] of the question set, if any.
    pub golds_sha256: Option<&'static str>,
}

/// The kind of answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerKind {
    /// A value: a number, an expression, a set.
    Math,
    /// One of several options.
    Choice,
    /// A Python function that passes tests.
    Code {
        /// Whether the extra tests of HumanEval+ count.
        plus: bool,
    },
}

impl Benchmark {
    /// A benchmark of a data set on the Hub whose answers are values.
    pub(super) fn of_values(
        name: &str,
        aliases: &'static [&'static str],
        set: &'static HubSet,
        samples: usize,
        level_7b: f64,
    ) -> Self {
        Self {
            name: name.into(),
            aliases,
            origin: QuestionOrigin::Hub(set),
            kind: AnswerKind::Math,
            samples,
            level_7b: Some(level_7b),
        }
    }

    /// Number of questions, if it is known without reading a file.
    pub fn questions(&self) -> Option<usize> {
        match &self.origin {
            QuestionOrigin::Hub(set) => Some(set.questions()),
            QuestionOrigin::Arithmetic { questions, .. } => Some(*questions),
            QuestionOrigin::File(_) => None,
        }
    }

    /// Loads the questions from `data_dir` if it has a file of them, else from the Hub cache or the Hub.
    ///
    /// # Errors
    /// No data is available: the message names the file and the folder for it. An unexpected number of rows; a missing
    /// column.
    pub fn load(&self, data_dir: Option<&Path>) -> Result<Set> {
        let what = || format!("load the questions of `{}`", self.name);
        match &self.origin {
            QuestionOrigin::Hub(set) => set.load(self.kind, data_dir).with_context(what),
            QuestionOrigin::Arithmetic { levels, questions } => generated(levels, *questions),
            QuestionOrigin::File(file) => file.load().with_context(what),
        }
    }
}

impl HubSet {
    pub(super) fn load(&self, kind: AnswerKind, data_dir: Option<&Path>) -> Result<Set> {
        self.read(kind, &self.find(data_dir)?)
    }

    /// Number of questions of the benchmark.
    pub fn questions(&self) -> usize {
        self.by_rules.unwrap_or(self.rows)
    }

    pub(super) fn read(&self, kind: AnswerKind, path: &Path) -> Result<Set> {
        let mut hash = Sha256::new();
        let rows = read::read(path, &mut hash)?;
        self.check_columns(path, &rows)?;
        let columns = QuestionColumns {
            schema: schema::known(self.id),
            question: Some(self.question),
            answer: Some(self.answer),
        };
        let FileQuestions { mut questions, mut notes, empty } = schema::questions(path, &rows, self.id, columns)?;
        if let Some(empty) = empty {
            bail!("`{}` has rows without a question or an answer: {empty}", path.display());
        }
        ensure!(
            questions.len() == self.rows,
            "`{}` has {} questions, but {} has {}\nhint: use the complete file and --limit to evaluate on part of it, \
             or pass the path of the file as the benchmark",
            path.display(),
            questions.len(),
            self.id,
            self.rows
        );
        let differs = |known| kind == AnswerKind::Math && golds_sha256(&questions) != known;
        if self.golds_sha256.is_some_and(differs) {
            notes.push(format!("the answers in `{}` differ from the known answers of {}", path.display(), self.id));
        }
        if let Some(expected) = self.by_rules {
            questions.retain(|it| !needs_judge(it));
            ensure!(
                questions.len() == expected,
                "rules can grade {} questions of `{}`, but {} has {expected} such questions\nhint: use the file that it publishes",
                questions.len(),
                path.display(),
                self.id
            );
        }
        notes.extend(judged(&questions));
        Ok(Set { questions, notes, sha256: hex::encode(hash.finalize()) })
    }

    /// # Errors
    /// A row does not have exactly the published columns.
    fn check_columns(&self, path: &Path, file: &FileRows) -> Result<()> {
        if self.columns.is_empty() {
            return Ok(());
        }
        for (number, row) in &file.rows {
            let missing: Vec<&str> =
                self.columns.iter().copied().filter(|it| !row.names().any(|name| name == *it)).collect();
            let unknown: Vec<&str> = row.names().filter(|it| !self.columns.contains(it)).collect();
            let listed = |what: &str, names: &[&str]| match names {
                [] => None,
                [name] => Some(format!("{what} column `{name}`")),
                names => Some(format!("{what} columns `{}`", names.join("`, `"))),
            };
            let faults: Vec<String> =
                [listed("missing", &missing), listed("unknown", &unknown)].into_iter().flatten().collect();
            ensure!(
                faults.is_empty(),
                "`{}` {}: {}; found: {}; {} has {}\nhint: use the file that it publishes, or pass the path of the file as the \
                 benchmark",
                path.display(),
                file.place(*number),
                faults.join(", "),
                row.listed(),
                self.id,
                self.columns.join(", ")
            );
        }
        Ok(())
    }

    /// A file of the question set in a folder.
    pub(super) fn find_in(&self, folder: &Path) -> Option<PathBuf> {
        self.files.iter().map(|name| folder.join(name)).find(|path| path.is_file())
    }

    /// A file of the question set, from the data folder, the Hub cache or the Hub.
    pub fn find(&self, data_dir: Option<&Path>) -> Result<PathBuf> {
        if let Some(folder) = data_dir {
            ensure!(
                folder.is_dir(),
                "the data folder `{}` does not exist\nhint: set it with --data-dir or RFT_DATA_DIR",
                folder.display()
            );
            if let Some(path) = self.find_in(folder) {
                return Ok(path);
            }
        }
        let names = self.files.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ");
        if let Some(address) = self.download {
            bail!(
                "the questions of {} are not on this machine\n\
                 hint: download {names} from {address} to a folder, and pass the folder with --data-dir or RFT_DATA_DIR",
                self.id
            );
        }
        let fetched = match self.hub_file {
            Some(file) => hub::dataset_file(self.id, self.revision, file),
            None => hub::dataset_files(self.id, self.revision, self.split),
        };
        let paths = fetched.with_context(|| {
            format!(
                "download {}\nhint: or put {names} into a folder, and pass the folder with --data-dir or RFT_DATA_DIR",
                self.id,
            )
        })?;
        match <[PathBuf; 1]>::try_from(paths) {
            Ok([path]) => Ok(path),
            Err(paths) => bail!("{}: expected one file on the Hub, found {}", self.id, paths.len()),
        }
    }
}

/// A note about the questions that rules cannot grade, if there are any.
fn judged(questions: &[Question]) -> Option<String> {
    let (judged, all) = (questions.iter().filter(|it| needs_judge(it)).count(), questions.len());
    (judged > 0).then(|| {
        format!(
            "the answers of {judged} of {all} questions are descriptions, which rules cannot grade; they are undecided, so the \
             accuracy is at most {:.1} %",
            100.0 * (all - judged) as f64 / all as f64
        )
    })
}

fn generated(levels: &[u8], n: usize) -> Result<Set> {
    // The seed of the questions that training holds out, so that both are the same questions.
    let questions = crate::data::arithmetic::questions(Split::HeldOut, 0, levels, n)?;
    let sha256 = sha256(&serde_json::to_vec(&questions)?);
    Ok(Set { questions, notes: Vec::new(), sha256 })
}

/// SHA-256 of the gold answers, whole numbers without leading zeros, sorted and joined by line feeds. It does not depend on
/// the format or the order of the questions.
pub fn golds_sha256(questions: &[Question]) -> String {
    let plain = |gold: &str| match gold.bytes().all(|it| it.is_ascii_digit()) {
        true => Some(gold.trim_start_matches('0')).filter(|it| !it.is_empty()).unwrap_or("0").to_owned(),
        false => gold.to_owned(),
    };
    let mut golds: Vec<String> = questions.iter().map(|it| plain(&it.gold)).collect();
    golds.sort_unstable();
    sha256(golds.join("\n").as_bytes())
}
