//! BeyondAIME (ByteDance Seed, 2025): 100 new questions of at least the difficulty of the last five of an AIME, whose answers
//! are positive integers.
//!
//! License CC0 1.0. The columns are those that public loaders of the data set read.

use super::{Benchmark, HubSet};

const SET: HubSet = HubSet {
    id: "ByteDance-Seed/BeyondAIME",
    revision: "main",
    split: "test",
    hub_file: None,
    download: None,
    columns: &["problem", "answer"],
    by_rules: None,
    files: &["beyond_aime.parquet", "beyondaime.parquet", "beyond_aime.jsonl", "beyondaime.jsonl"],
    question: "problem",
    answer: "answer",
    rows: 100,
    golds_sha256: None,
};

pub fn benchmark() -> Benchmark {
    Benchmark::of_values("beyond-aime", &["beyondaime", "beyond_aime"], &SET, 16, 0.05)
}
