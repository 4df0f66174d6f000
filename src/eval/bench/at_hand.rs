//! Benchmarks whose questions are already on this machine. Training data is compared with these.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use super::{Benchmark, HubSet, QuestionOrigin};
use crate::data::decontaminate;
use crate::data::{Question, arithmetic};
use crate::model::hub::{self, HubConfig};

/// Question sets that could be read without a download.
#[derive(Default)]
pub struct AtHand {
    pub benchmarks: Vec<decontaminate::OverlapBenchmark>,
    /// The other benchmarks by name, and the reason why each is missing.
    pub missing: BTreeMap<String, String>,
    /// Warnings about files that exist but cannot be read, one sentence each.
    pub warnings: Vec<String>,
}

/// Reads the questions of `wanted` from the data folder or the Hub cache, and generates generated ones. Never fails and
/// never downloads.
pub fn at_hand(wanted: &[Benchmark], data_dir: Option<&Path>) -> AtHand {
    let mut found = AtHand::default();
    // HumanEval and HumanEval+ share a large file, so it is read once.
    let mut read: BTreeMap<PathBuf, Vec<Question>> = BTreeMap::new();
    for benchmark in wanted {
        let name = benchmark.name.clone();
        let questions = match &benchmark.origin {
            QuestionOrigin::Hub(set) => match set.find_offline(data_dir) {
                Ok(path) => match read.get(&path) {
                    Some(questions) => Ok(questions.clone()),
                    None => set
                        .read(benchmark.kind, &path)
                        .map(|set| read.entry(path).or_insert(texts(set.questions)).clone()),
                },
                Err(reason) => {
                    found.missing.insert(name, reason);
                    continue;
                }
            },
            QuestionOrigin::Arithmetic { .. } | QuestionOrigin::File(_) => {
                benchmark.load(None).map(|set| texts(set.questions))
            }
        };
        match questions {
            Ok(questions) => {
                let generated = matches!(benchmark.origin, QuestionOrigin::Arithmetic { .. });
                let share = if generated { 1.0 } else { decontaminate::SHARE };
                found.benchmarks.push(decontaminate::OverlapBenchmark { name, questions, share });
            }
            Err(error) => {
                let reason = format!("{error:#}").lines().next().unwrap_or_default().to_owned();
                found.warnings.push(format!("overlap with `{name}` not checked: {reason}"));
                found.missing.insert(name, reason);
            }
        }
    }
    found
}

/// The benchmarks in `all` that training questions from `data_path` can overlap with, and a reason for each of the others.
pub fn comparable(all: Vec<Benchmark>, data_path: &str) -> (Vec<Benchmark>, BTreeMap<String, String>) {
    if data_path != arithmetic::NAME {
        return (all, BTreeMap::new());
    }
    // Reading their files would take longer than everything else that a small run does before its first step.
    let (generated, others): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|it| matches!(it.origin, QuestionOrigin::Arithmetic { .. }));
    let reason = "the training questions are generated from templates without benchmark questions";
    (generated, others.into_iter().map(|it| (it.name, reason.to_owned())).collect())
}

/// The questions without fields that only graders need.
fn texts(questions: Vec<Question>) -> Vec<Question> {
    let text = |question: Question| Question { gold: String::new(), extra: serde_json::Map::new(), ..question };
    questions.into_iter().map(text).collect()
}

impl HubSet {
    /// A file of the question set, from the data folder or the Hub cache. The error lists the places that were searched.
    fn find_offline(&self, data_dir: Option<&Path>) -> Result<PathBuf, String> {
        if let Some(path) = data_dir.and_then(|folder| self.find_in(folder)) {
            return Ok(path);
        }
        let cached = if self.download.is_none() { self.find_in_cache().ok() } else { None };
        cached.ok_or_else(|| match data_dir {
            // The path of the folder is not recorded, because it depends on the machine.
            Some(_) => {
                let names = self.files.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ");
                format!("no {names} in the data folder or in the Hub cache")
            }
            None => "not in the Hub cache, and RFT_DATA_DIR is not set".to_owned(),
        })
    }

    fn find_in_cache(&self) -> Result<PathBuf> {
        let config = HubConfig { offline: true, ..HubConfig::from_env()? };
        let mut paths = match self.hub_file {
            Some(file) => hub::dataset_file_from(&config, self.id, self.revision, file),
            None => hub::dataset_files_from(&config, self.id, self.revision, self.split),
        }?;
        ensure!(paths.len() == 1, "{}: expected one file, found {}", self.id, paths.len());
        Ok(paths.remove(0))
    }
}
