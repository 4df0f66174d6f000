//! The benchmarks whose questions are on this machine already: those that training data is compared with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use super::{Benchmark, HubSet, QuestionOrigin};
use crate::data::decontaminate;
use crate::data::{Question, arithmetic};
use crate::model::hub::{self, HubConfig};

/// What could be read without a download.
#[derive(Default)]
pub struct AtHand {
    pub benchmarks: Vec<decontaminate::OverlapBenchmark>,
    /// The others by name, and why they are not there.
    pub missing: BTreeMap<String, String>,
    /// What a user should know: files that are there and cannot be read, a sentence each.
    pub warnings: Vec<String>,
}

/// Reads the questions of `wanted` from the folder or the hub's cache, and generates those that are generated. Never fails and
/// never downloads.
pub fn at_hand(wanted: &[Benchmark], data_dir: Option<&Path>) -> AtHand {
    let mut found = AtHand::default();
    // HumanEval and HumanEval+ share a file, which is large.
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

/// Of `all`, the benchmarks that training questions from `data_path` can overlap with, and why not the others.
pub fn comparable(all: Vec<Benchmark>, data_path: &str) -> (Vec<Benchmark>, BTreeMap<String, String>) {
    if data_path != arithmetic::NAME {
        return (all, BTreeMap::new());
    }
    // Reading their files would take longer than all else that a small run does before its first step.
    let (generated, others): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|it| matches!(it.origin, QuestionOrigin::Arithmetic { .. }));
    let reason = "the training questions are generated from templates, which quote no benchmark";
    (generated, others.into_iter().map(|it| (it.name, reason.to_owned())).collect())
}

/// The questions without what only graders need.
fn texts(questions: Vec<Question>) -> Vec<Question> {
    let text = |question: Question| Question { gold: String::new(), extra: serde_json::Map::new(), ..question };
    questions.into_iter().map(text).collect()
}

impl HubSet {
    /// A file of the set in the folder or in the hub's cache; the error says where it was looked for.
    fn find_offline(&self, data_dir: Option<&Path>) -> Result<PathBuf, String> {
        if let Some(path) = data_dir.and_then(|folder| self.find_in(folder)) {
            return Ok(path);
        }
        let cached = if self.download.is_none() { self.find_in_cache().ok() } else { None };
        cached.ok_or_else(|| match data_dir {
            // Which folder it is stays out of the record: that is this machine's business.
            Some(_) => {
                let names = self.files.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ");
                format!("no {names} in the folder with data, and not in the hub's cache")
            }
            None => "not in the hub's cache, and RFT_DATA_DIR names no folder".to_owned(),
        })
    }

    fn find_in_cache(&self) -> Result<PathBuf> {
        let config = HubConfig { offline: true, ..HubConfig::from_env()? };
        let mut paths = match self.hub_file {
            Some(file) => hub::dataset_file_from(&config, self.id, self.revision, file),
            None => hub::dataset_files_from(&config, self.id, self.revision, self.split),
        }?;
        ensure!(paths.len() == 1, "{} is in {} files", self.id, paths.len());
        Ok(paths.remove(0))
    }
}
