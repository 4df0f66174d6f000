//! AIME 2026, I and II: 30 questions whose answers are integers from 0 to 999.
//!
//! The form is that of the data set's card at revision 2548a41 (license CC BY-NC-SA 4.0).

use super::{Benchmark, HubSet};

const SET: HubSet = HubSet {
    id: "MathArena/aime_2026",
    revision: "main",
    split: "train",
    hub_file: None,
    download: None,
    columns: &["problem_idx", "answer", "problem"],
    by_rules: None,
    files: &["aime2026.parquet", "aime_2026.parquet", "aime2026.jsonl", "aime_2026.jsonl"],
    question: "problem",
    answer: "answer",
    rows: 30,
    golds_sha256: None,
};

pub fn benchmark() -> Benchmark {
    Benchmark::of_values("aime2026", &["aime26", "aime_2026"], &SET, 64, 0.10)
}
