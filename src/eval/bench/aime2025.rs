//! AIME 2025, I and II: 30 questions, which are newer than the training data of models from 2024.

use super::{Benchmark, HubSet};

const SET: HubSet = HubSet {
    id: "yentinglin/aime_2025",
    revision: "main",
    split: "train",
    hub_file: None,
    download: None,
    columns: &[],
    by_rules: None,
    files: &["aime2025.jsonl", "aime_2025.jsonl", "aime25.jsonl", "aime2025.parquet"],
    question: "problem",
    answer: "answer",
    rows: 30,
    golds_sha256: None,
};

pub fn benchmark() -> Benchmark {
    Benchmark::of_values("aime2025", &["aime25", "aime_2025"], &SET, 64, 0.10)
}
