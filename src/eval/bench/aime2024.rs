//! AIME 2024, I and II: 30 questions whose answers are integers from 0 to 999.

use super::{Benchmark, HubSet};

const SET: HubSet = HubSet {
    id: "HuggingFaceH4/aime_2024",
    revision: "main",
    split: "train",
    hub_file: None,
    download: None,
    columns: &[],
    by_rules: None,
    files: &["aime2024.jsonl", "aime_2024.jsonl", "aime24.jsonl", "aime2024.parquet"],
    question: "problem",
    answer: "answer",
    rows: 30,
    golds_sha256: Some("26b2e319e14bdec51519f4cbb0a47ad57a80751c03b39c937514c67994cea9f2"),
};

/// 64 samples, as in lighteval's `aime24_avg` and most reports, because thirty questions alone give a wide interval.
pub fn benchmark() -> Benchmark {
    Benchmark::of_values("aime2024", &["aime24", "aime_2024", "aime"], &SET, 64, 0.15)
}
