//! The folder of an evaluation: the model, the settings, the questions and all samples.
//!
//! ```text
//! eval.json               the model and the settings: the identity that every sample belongs to
//! products.json           on a GPU: the algorithms of matrix products
//! BENCHMARK/questions.jsonl   the questions with their prompts
//! BENCHMARK/samples.jsonl     completions, one sample per line; appended as they end, sorted when all are there
//! BENCHMARK/grades.jsonl      the grade of each sample
//! BENCHMARK/results.json      the scores; only if no sample is missing
//! ```
//!
//! None of these files contains times or absolute paths, so that equal evaluations have equal bytes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::asked::QuestionRecord;
use super::grade::Grade;
use super::profile::Style;
use crate::config::MixEntry;
use crate::disk::atomic::{self, write_error};
use crate::disk::files;
use crate::disk::hash::sha256;
use crate::disk::lock::{self, Lock};
use crate::run::jsonl::{self, JsonLines};

/// The model and the settings of an evaluation. Samples with different identities are never mixed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// A Hub id, or the last part of a path.
    pub model: String,
    /// Hash of the weights; for a server, the name of its model.
    pub model_sha256: String,
    /// The last part of the path of the adapter's folder or run.
    pub adapter: Option<String>,
    pub adapter_sha256: Option<String>,
    /// The source of completions: `cpu`, `cuda` or `endpoint`.
    pub engine: String,
    /// The prior prompt's name and the source of its wording.
    pub ppe: String,
    pub wording: String,
    /// The prior prompts of a mixture, of which every question draws one; empty for a single prompt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mix: Vec<MixEntry>,
    /// Hash of the prior prompt's text, tags and role.
    pub prompt_sha256: String,
    pub prefill: bool,
    /// Hash of the chat template's source.
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
    /// The first digits of a hash of the whole identity.
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
    /// See [`QuestionRecord::ppe`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ppe: Option<String>,
    /// Identifies its identity, prompt and style, see [`BenchFolder::key`].
    pub key: String,
    pub text: String,
    pub tokens: usize,
    pub finish: String,
}

/// The grade of a sample.
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
    /// Resumes the evaluation at `path`, or starts a new one.
    ///
    /// # Errors
    /// The folder has another identity; another process is writing to it.
    pub fn start(path: &Path, identity: &Identity) -> Result<Self> {
        files::create_dir_all(path).map_err(|error| write_error(path, &error))?;
        let Some(lock) = lock::take(path)? else {
            bail!("another process is writing to `{}`", path.display());
        };
        let file = path.join(IDENTITY);
        if file.exists() {
            let found: Identity = read_json(&file)?;
            if let Some(field) = difference(&found, identity)? {
                bail!(
                    "`{}` contains an evaluation with another `{field}`\n\
                     hint: omit --out, or pass another folder",
                    path.display()
                );
            }
        } else {
            write_json(&file, identity)?;
        }
        Ok(Self { path: path.to_owned(), identity: identity.clone(), _lock: Some(lock) })
    }

    /// Opens an existing evaluation for reading and grading.
    pub fn open(path: &Path) -> Result<Self> {
        let file = path.join(IDENTITY);
        if !file.is_file() {
            bail!(
                "`{}` is not an evaluation: it has no `{IDENTITY}`\nhint: pass the folder that `rft eval` printed",
                path.display()
            );
        }
        Ok(Self { path: path.to_owned(), identity: read_json(&file)?, _lock: None })
    }

    /// The folder of one benchmark.
    pub fn bench(&self, name: &str) -> BenchFolder {
        BenchFolder(self.path.join(name))
    }

    /// The names of the benchmarks that have samples in this folder.
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

/// The settings of a benchmark, stored with its samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BenchRecord {
    pub benchmark: String,
    /// Hash of the file of questions.
    pub data_sha256: String,
    pub style: Style,
    /// Notes about the questions for readers of the scores.
    pub notes: Vec<String>,
}

impl BenchFolder {
    /// The key of a sample: its identity, its style except for the number of samples, and its rendered prompt.
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

    /// Writes the files that precede the first sample.
    pub fn prepare(&self, record: &BenchRecord, questions: &[QuestionRecord]) -> Result<()> {
        files::create_dir_all(&self.0).map_err(|error| write_error(&self.0, &error))?;
        write_json(&self.0.join("benchmark.json"), record)?;
        write_lines(&self.0.join("questions.jsonl"), questions)
    }

    pub fn record(&self) -> Result<BenchRecord> {
        read_json(&self.0.join("benchmark.json"))
    }

    pub fn questions(&self) -> Result<Vec<QuestionRecord>> {
        jsonl::read(&self.0.join("questions.jsonl"))
    }

    /// The existing samples. An incomplete last line is ignored.
    pub fn samples(&self) -> Result<Vec<SampleRecord>> {
        let path = self.0.join(SAMPLES);
        if path.exists() { jsonl::read(&path) } else { Ok(Vec::new()) }
    }

    /// The log of samples, for appending.
    pub fn log(&self) -> Result<JsonLines> {
        JsonLines::append_to(&self.0.join(SAMPLES))
    }

    /// Replaces the log with `samples`, which are complete and in order.
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
