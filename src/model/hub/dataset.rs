//! Which files of a data set's repository make up a split.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, bail};

use super::config::HubConfig;
use super::plan::Plan;
use super::repo::{Kind, Repo};

/// Formats we read, best first.
const FORMATS: [&str; 9] =
    [".parquet", ".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz", ".ndjson", ".ndjson.gz"];
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

/// Picks the files of `split` by name: those whose own split has this name (`train.jsonl`, `data/train-00000-of-00002.parquet`,
/// `train/0000.parquet`), or else those that have it as a word (`gsm8k_train.jsonl`). `train` is therefore not `train_1M`. A
/// repository whose names contain no split at all is its own training split. Of several formats or folders one is taken whole.
fn split_files(names: &[String], split: &str) -> Result<Vec<String>> {
    let data: Vec<&str> = names.iter().map(String::as_str).filter(|name| is_data(name)).collect();
    let pick =
        |matches: &dyn Fn(&str) -> bool| -> Vec<&str> { data.iter().copied().filter(|it| matches(it)).collect() };
    let mut found = pick(&|name| is_split(name, split));
    if found.is_empty() {
        found = pick(&|name| !is_shard(name) && has_word(name, split));
        let splits = split_names(&found);
        // Numbered parts are one split.
        if splits.iter().any(|it| without_number(it) != without_number(&splits[0])) {
            bail!("the split `{split}` may be {}\n{}", splits.join(" or "), hint(&splits));
        }
    }
    if found.is_empty() && split == "train" && !data.iter().any(|name| SPLITS.iter().any(|it| has_word(name, it))) {
        found.clone_from(&data);
    }
    if found.is_empty() {
        if data.is_empty() {
            bail!("unknown split `{split}`; the repository has no data files\nhint: download a file and pass it");
        }
        let splits = split_names(&data);
        bail!("unknown split `{split}`; the repository has {}\n{}", splits.join(", "), hint(&splits));
    }

    let mut folders: BTreeMap<(&str, Option<usize>), Vec<String>> = BTreeMap::new();
    for name in found {
        let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
        folders.entry((folder, format(name))).or_default().push(name.to_owned());
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

fn format(name: &str) -> Option<usize> {
    FORMATS.iter().position(|ending| name.ends_with(ending))
}

fn is_data(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    format(name).is_some() && !file.starts_with("dataset_info") && file != "config.json" && !name.starts_with('.')
}

/// The hint of an error about a split.
fn hint(splits: &[String]) -> String {
    let first = splits.first().map(String::as_str).unwrap_or_default();
    format!(
        "hint: select a split with `--set data.split={first}` (`rft overlap`: `--split {first}`), or download a file and pass it"
    )
}

/// The names of the splits that files belong to, in the order of the files, at most ten.
fn split_names(names: &[&str]) -> Vec<String> {
    let mut splits: Vec<String> = Vec::new();
    for name in names {
        let own = own_split(name);
        if !splits.iter().any(|it| it == own) && splits.len() < 10 {
            splits.push(own.to_owned());
        }
    }
    splits
}

/// The file's name without its folder, its format and the numbers of shards: `train_1M` for
/// `data/train_1M-00000-of-00168.parquet`.
fn own_split(name: &str) -> &str {
    let file = name.rsplit('/').next().unwrap_or(name);
    let end = FORMATS.iter().filter(|ending| file.ends_with(**ending)).map(|ending| ending.len()).max().unwrap_or(0);
    let stem = &file[..file.len() - end];
    shard(stem).unwrap_or(stem)
}

/// The part of a file name before `-00000-of-00002`, to which older tools add a hash; `None` without such numbers.
fn shard(stem: &str) -> Option<&str> {
    let (before, total) = stem.rsplit_once("-of-")?;
    let (split, number) = before.rsplit_once('-')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    let total = total.split('-').next().unwrap_or(total);
    (is_number(number) && is_number(total)).then_some(split)
}

fn without_number(split: &str) -> &str {
    split.trim_end_matches(|it: char| it.is_ascii_digit()).trim_end_matches(['-', '_', '.'])
}

/// Whether the file is one of the numbered parts of a split, which has exactly the name before the number.
fn is_shard(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    shard(file.split('.').next().unwrap_or(file)).is_some()
}

/// Whether the file's own split, or a folder that it is in, has this name.
fn is_split(name: &str, split: &str) -> bool {
    own_split(name).eq_ignore_ascii_case(split)
        || name.rsplit('/').skip(1).any(|folder| folder.eq_ignore_ascii_case(split))
}

/// Whether the split is a word of the name.
fn has_word(name: &str, split: &str) -> bool {
    name.split(['/', '-', '_', '.']).any(|word| word.eq_ignore_ascii_case(split))
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
        assert!(pick(&gsm8k, "validation").unwrap_err().contains("the repository has test, train\n"));
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
        assert!(pick(&["test.jsonl"], "train").unwrap_err().contains("unknown split `train`"));
        assert!(pick(&["README.md"], "train").unwrap_err().contains("no data files"));
    }
    #[test]
    fn a_split_with_an_underscore_is_a_split_of_its_own() {
        let shards = [
            "data/train-00000-of-00001.parquet",
            "data/train_1M-00000-of-00002.parquet",
            "data/train_1M-00001-of-00002.parquet",
        ];
        assert_eq!(pick(&shards, "train").unwrap(), shards[..1]);
        assert_eq!(pick(&shards, "train_1M").unwrap(), shards[1..]);
        assert!(
            pick(&shards, "train_2M")
                .unwrap_err()
                .contains("the repository has train, train_1M\nhint: select a split with")
        );
        assert!(
            pick(&shards[1..], "train").unwrap_err().contains("unknown split `train`; the repository has train_1M")
        );
        let hashed = ["data/test_sft-00000-of-00001-f7dfac4afe5b93f4.parquet", "data/test-00000-of-00001-a.parquet"];
        assert_eq!(pick(&hashed, "test").unwrap(), hashed[1..]);
        assert_eq!(pick(&hashed, "test_sft").unwrap(), hashed[..1]);
        let plain = ["train.jsonl", "train_1M.jsonl", "train-2.jsonl.gz"];
        assert_eq!(pick(&plain, "train").unwrap(), plain[..1]);
        assert_eq!(pick(&plain, "train_1M").unwrap(), plain[1..2]);
        assert!(pick(&plain[1..], "train").unwrap_err().contains("may be train_1M or train-2"));
        assert_eq!(pick(&["train-0.jsonl", "train-1.jsonl", "test.jsonl"], "train").unwrap().len(), 2);
        assert_eq!(pick(&["gsm8k_train.jsonl", "gsm8k_test.jsonl"], "train").unwrap(), ["gsm8k_train.jsonl"]);
        assert_eq!(pick(&["train/0000.parquet", "train/0001.parquet", "test/0000.parquet"], "train").unwrap().len(), 2);
        assert_eq!(pick(&["train/train_a.jsonl", "train/b.jsonl"], "train").unwrap().len(), 2);
    }
}
