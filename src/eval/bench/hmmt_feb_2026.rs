//! HMMT February 2026: 33 questions whose answers are numbers, expressions and lists of them.
//!
//! The form is that of the data set's card at revision afb530a (license CC BY-NC-SA 4.0).

use super::{Benchmark, HubSet};

const SET: HubSet = HubSet {
    id: "MathArena/hmmt_feb_2026",
    revision: "main",
    split: "train",
    hub_file: None,
    download: None,
    columns: &["problem_idx", "answer", "problem_type", "problem"],
    by_rules: None,
    files: &["hmmt_feb_2026.parquet", "hmmt-feb-2026.parquet", "hmmt_feb_2026.jsonl", "hmmt-feb-2026.jsonl"],
    question: "problem",
    answer: "answer",
    rows: 33,
    golds_sha256: None,
};

pub fn benchmark() -> Benchmark {
    Benchmark::of_values("hmmt-feb-2026", &["hmmt_feb_2026", "hmmt_feb_26", "hmmt26"], &SET, 64, 0.05)
}
