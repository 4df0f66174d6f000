//! The folder of an evaluation: what was asked of which model, and everything it said.
//!
//! ```text
//! eval.json               who was asked, and how: the identity that every sample belongs to
//! products.json           the algorithms that multiplied matrices; only of a GPU
//! BENCHMARK/questions.jsonl   the questions with their prompts
//! BENCHMARK/samples.jsonl     what the model said, one sample a line; appended as they end, in order once all are there
//! BENCHMARK/grades.jsonl      what each sample is worth
//! BENCHMARK/results.json      the scores; only where no sample is missing
//! ```
//!
//! None of these hold times or whole paths, so that two evaluations that are the same are the same bytes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::asked::QuestionRecord;
use super::grade::Grade;
use super::profile::Style;
use crate::disk::atomic::{self, write_error};
use crate::disk::hash::sha256;
use crate::disk::lock::{self, Lock};
use crate::run::jsonl::{self, JsonLines};

/// Who is asked, and how. Samples of another identity are never mixed with these.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// A hub id, or the last part of a path.
    pub model: String,
    /// Of the weights; of a server, its model's name there.
    pub model_sha256: String,
    /// The adapter's folder or run, by its last part.
    pub adapter: Option<String>,
    pub adapter_sha256: Option<String>,
    /// What completes: `cpu`, `cuda` or `endpoint`.
    pub engine: String,
    /// The prior prompt's name, and whose words it is in.
    pub ppe: String,
    pub wording: String,
    /// Of its text, tags and role.
    pub prompt_sha256: String,
    pub prefill: bool,
    /// Of the chat template's source.
    pub template_sha256: String,
    pub tokenizer_sha256: String,
    pub profile: String,
    pub temperature: f64,
    pub top_p: f64,
    pub top_k: usize,
    pub min_p: f64,
    pub seed: u64,
}

impl Identity {
    /// The first digits of a hash of all of it.
    pub fn short_hash(&self) -> Result<String> {
        Ok(sha256(&serde_json::to_vec(self)?)[..8].to_owned())
    }
}

/// One completion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleRecord {
    pub question_id: String,
    /// Number of the sample, from 0.
    pub sample: usize,
    /// Says which identity, prompt and style it belongs to, see [`BenchFolder::key`].
    pub key: String,
    pub text: String,
    pub tokens: usize,
    pub finish: String,
}

/// What a sample is worth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GradeRecord {
    pub question_id: String,
    pub sample: usize,
    #[serde(flatten)]
    pub grade: Grade,
}

/// An evaluation on disk.
pub struct EvalFolder {
    pub path: PathBuf,
    pub identity: Identity,
    /// Two processes must not append to the same samples.
    _lock: Option<Lock>,
}

impl EvalFolder {
    /// Goes on with the evaluation at `path`, or starts it.
    ///
    /// # Errors
    /// Another identity stands there; another process is at work on it.
    pub fn start(path: &Path, identity: &Identity) -> Result<Self> {
        std::fs::create_dir_all(path).map_err(|error| write_error(path, &error))?;
        let Some(lock) = lock::take(path)? else {
            bail!("another process is evaluating into `{}`", path.display());
        };
        let file = path.join(IDENTITY);
        if file.exists() {
            let found: Identity = read_json(&file)?;
            if let Some(field) = difference(&found, identity)? {
                bail!(
                    "`{}` holds an evaluation with another `{field}`\n\
                     hint: leave --out away, or give another folder",
                    path.display()
                );
            }
        } else {
            write_json(&file, identity)?;
        }
        Ok(Self { path: path.to_owned(), identity: identity.clone(), _lock: Some(lock) })
    }

    /// An evaluation that was made before, for reading and grading.
    pub fn open(path: &Path) -> Result<Self> {
        let file = path.join(IDENTITY);
        if !file.is_file() {
            bail!(
                "`{}` is not an evaluation: it has no `{IDENTITY}`\nhint: `rft eval` prints the folder it writes to",
                path.display()
            );
        }
        Ok(Self { path: path.to_owned(), identity: read_json(&file)?, _lock: None })
    }

    /// The folder of one benchmark.
    pub fn bench(&self, name: &str) -> BenchFolder {
        BenchFolder(self.path.join(name))
    }

    /// The benchmarks that have samples here, by name.
    pub fn benches(&self) -> Result<BTreeMap<String, BenchFolder>> {
        let mut benches = BTreeMap::new();
        for entry in std::fs::read_dir(&self.path).with_context(|| format!("read `{}`", self.path.display()))? {
            let path = entry?.path();
            if path.join(SAMPLES).is_file() {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                benches.insert(name, BenchFolder(path));
            }
        }
        Ok(benches)
    }
}

const IDENTITY: &str = "eval.json";
const SAMPLES: &str = "samples.jsonl";

/// The first field in which two identities differ.
fn difference(a: &Identity, b: &Identity) -> Result<Option<String>> {
    let (a, b) = (serde_json::to_value(a)?, serde_json::to_value(b)?);
    let fields = a.as_object().into_iter().flatten();
    Ok(fields.into_iter().find(|(name, value)| b.get(name.as_str()) != Some(value)).map(|(name, _)| name.clone()))
}

/// The files of one benchmark.
#[derive(Clone, Debug)]
pub struct BenchFolder(PathBuf);

/// How a benchmark was asked, kept beside its samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BenchRecord {
    pub benchmark: String,
    /// Of the file with the questions.
    pub data_sha256: String,
    pub style: Style,
    /// What a reader of the scores should know of the questions.
    pub notes: Vec<String>,
}

impl BenchFolder {
    /// Says what a sample belongs to: the identity, the style but for its number of samples, the rendered prompt.
    pub fn key(identity: &str, style: &Style, question: &QuestionRecord) -> Result<String> {
        let style = Style { samples: 0, ..style.clone() };
        let parts = (identity, &style, &question.id, &question.gold, &question.prompt_sha256);
        Ok(sha256(&serde_json::to_vec(&parts)?)[..16].to_owned())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn results(&self) -> PathBuf {
        self.0.join("results.json")
    }

    /// Writes what is known before the first sample is drawn.
    pub fn prepare(&self, record: &BenchRecord, questions: &[QuestionRecord]) -> Result<()> {
        std::fs::create_dir_all(&self.0).map_err(|error| write_error(&self.0, &error))?;
        write_json(&self.0.join("benchmark.json"), record)?;
        write_lines(&self.0.join("questions.jsonl"), questions)
    }

    pub fn record(&self) -> Result<BenchRecord> {
        read_json(&self.0.join("benchmark.json"))
    }

    pub fn questions(&self) -> Result<Vec<QuestionRecord>> {
        jsonl::read(&self.0.join("questions.jsonl"))
    }

    /// The samples so far; a torn last line is left out.
    pub fn samples(&self) -> Result<Vec<SampleRecord>> {
        let path = self.0.join(SAMPLES);
        if path.exists() { jsonl::read(&path) } else { Ok(Vec::new()) }
    }

    /// The log of samples, for appending.
    pub fn log(&self) -> Result<JsonLines> {
        JsonLines::append_to(&self.0.join(SAMPLES))
    }

    /// Replaces the log by `samples`, which are all there, in order.
    pub fn settle(&self, samples: &[SampleRecord]) -> Result<()> {
        write_lines(&self.0.join(SAMPLES), samples)
    }

    pub fn grades(&self) -> Result<Vec<GradeRecord>> {
        jsonl::read(&self.0.join("grades.jsonl"))
    }

    pub fn write_grades(&self, grades: &[GradeRecord]) -> Result<()> {
        write_lines(&self.0.join("grades.jsonl"), grades)
    }

    pub fn write_results(&self, results: &impl Serialize) -> Result<()> {
        write_json(&self.results(), results)
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read(path).with_context(|| format!("read `{}`", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("parse `{}`", path.display()))
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    atomic::write(path, &text)
}

fn write_lines(path: &Path, records: &[impl Serialize]) -> Result<()> {
    let mut text = Vec::new();
    for record in records {
        serde_json::to_writer(&mut text, record)?;
        text.push(b'\n');
    }
    atomic::write(path, &text)
}
