//! AMC 12 of 2022 and 2023: 83 questions, rewritten by their publisher so that the answer is an integer instead of a letter.

use super::{Benchmark, HubSet};

const SET: HubSet = HubSet {
    id: "AI-MO/aimo-validation-amc",
    revision: "main",
    split: "train",
    hub_file: None,
    download: None,
    columns: &[],
    by_rules: None,
    files: &["amc12.json", "amc12.jsonl", "amc23.jsonl", "amc12.parquet"],
    question: "problem",
    answer: "answer",
    rows: 83,
    golds_sha256: Some("cb96ef45d39fb671d84e80d12891c85ee6f471f5f4474d9d584223b07024e4ee"),
};

pub fn benchmark() -> Benchmark {
    Benchmark::of_values("amc12", &["amc", "amc23", "aimo-validation-amc"], &SET, 32, 0.4)
}
