//! Which files of a data set's repository make up a split.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, bail};

use super::config::HubConfig;
use super::plan::Plan;
use super::repo::{Kind, Repo};

/// Formats we read, best first.
const FORMATS: [&str; 8] = [".parquet", ".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz", ".ndjson"];
const SPLITS: [&str; 8] = ["train", "training", "test", "testing", "validation", "valid", "dev", "eval"];

/// The files of one split of a data set on the hub, downloaded where they are not in the cache.
pub fn dataset_files(id: &str, revision: &str, split: &str) -> Result<Vec<PathBuf>> {
    dataset_files_from(&HubConfig::from_env()?, id, revision, split)
}

/// As [`dataset_files`], from the hub of `config`.
pub fn dataset_files_from(config: &HubConfig, id: &str, revision: &str, split: &str) -> Result<Vec<PathBuf>> {
    let repo = Repo::new(Kind::Dataset, id, revision)?;
    Plan::new(config, repo, |names| split_files(names, split))?.fetch(&mut |_| {})
}

/// One file of a data set on the hub, downloaded where it is not in the cache.
pub fn dataset_file(id: &str, revision: &str, file: &str) -> Result<Vec<PathBuf>> {
    dataset_file_from(&HubConfig::from_env()?, id, revision, file)
}

/// As [`dataset_file`], from the hub of `config`.
pub fn dataset_file_from(config: &HubConfig, id: &str, revision: &str, file: &str) -> Result<Vec<PathBuf>> {
    let repo = Repo::new(Kind::Dataset, id, revision)?;
    let only = |names: &[String]| match names.iter().find(|name| *name == file) {
        Some(name) => Ok(vec![name.clone()]),
        None => bail!("the repository has no file `{file}`"),
    };
    Plan::new(config, repo, only)?.fetch(&mut |_| {})
}

/// Picks the files of `split` by name: `train.jsonl`, `data/train-00000-of-00002.parquet`, `main/train-...`. A repository whose
/// names contain no split at all is its own training split. Of several formats or folders one is taken whole.
fn split_files(names: &[String], split: &str) -> Result<Vec<String>> {
    let format = |name: &str| FORMATS.iter().position(|ending| name.ends_with(ending));
    let is_data = |name: &&String| {
        let file = name.rsplit('/').next().unwrap_or(name);
        format(name).is_some() && !file.starts_with("dataset_info") && file != "config.json" && !name.starts_with('.')
    };
    let data: Vec<&String> = names.iter().filter(is_data).collect();
    let mut found: Vec<&String> = data.iter().copied().filter(|name| speaks_of(name, split)).collect();
    if found.is_empty() && split == "train" && !data.iter().any(|name| SPLITS.iter().any(|it| speaks_of(name, it))) {
        found.clone_from(&data);
    }
    if found.is_empty() {
        let listed: Vec<&str> = data.iter().take(6).map(|it| it.as_str()).collect();
        let listed = if listed.is_empty() { "no data files".to_owned() } else { listed.join(", ") };
        bail!(
            "there is no split `{split}`; the repository has {listed}\nhint: set data.split, or download a file and name it"
        );
    }

    let mut folders: BTreeMap<(&str, Option<usize>), Vec<String>> = BTreeMap::new();
    for name in found {
        let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
        folders.entry((folder, format(name))).or_default().push(name.clone());
    }
    let best = folders.keys().filter_map(|(_, format)| *format).min();
    folders.retain(|(_, format), _| *format == best);
    for usual in ["main", "default", "data", ""] {
        if let Some(files) = folders.remove(&(usual, best)) {
            return Ok(files);
        }
    }
    match folders.len() {
        1 => Ok(folders.into_values().flatten().collect()),
        _ => {
            let names: Vec<&str> = folders.keys().map(|(folder, _)| *folder).collect();
            bail!(
                "the split `{split}` is in several folders: {}\nhint: download the files of one folder and pass a file",
                names.join(", ")
            )
        }
    }
}

/// Whether a part of the name between separators is the split.
fn speaks_of(name: &str, split: &str) -> bool {
    name.split(['/', '-', '_', '.']).any(|part| part.eq_ignore_ascii_case(split))
        || name.contains(&format!("/{split}/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(names: &[&str], split: &str) -> Result<Vec<String>, String> {
        let names: Vec<String> = names.iter().map(|&it| it.to_owned()).collect();
        split_files(&names, split).map_err(|error| error.to_string())
    }

    #[test]
    fn splits_are_found_by_name() {
        let gsm8k = [
            "README.md",
            "main/test-00000-of-00001.parquet",
            "main/train-00000-of-00001.parquet",
            "socratic/test-00000-of-00001.parquet",
            "socratic/train-00000-of-00001.parquet",
        ];
        assert_eq!(pick(&gsm8k, "train").unwrap(), ["main/train-00000-of-00001.parquet"]);
        assert_eq!(pick(&gsm8k, "test").unwrap(), ["main/test-00000-of-00001.parquet"]);
        assert!(pick(&gsm8k, "validation").unwrap_err().contains("main/test-00000"));
        assert_eq!(
            pick(&["README.md", "deepscaler.json", "dataset_infos.json"], "train").unwrap(),
            ["deepscaler.json"]
        );
        assert_eq!(
            pick(&["data/train-0-of-2.parquet", "data/train-1-of-2.parquet", "train.csv"], "train").unwrap().len(),
            2
        );
        assert_eq!(pick(&["train.jsonl", "test.jsonl"], "test").unwrap(), ["test.jsonl"]);
        assert!(pick(&["a/train.csv", "b/train.csv"], "train").unwrap_err().contains("several folders: a, b"));
        assert!(pick(&["test.jsonl"], "train").unwrap_err().contains("no split `train`"));
        assert!(pick(&["README.md"], "train").unwrap_err().contains("no data files"));
    }
}
