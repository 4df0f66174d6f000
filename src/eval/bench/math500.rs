//! MATH-500: 500 questions of Hendrycks' MATH, selected by Lightman et al. (arXiv 2305.20050).

use super::{Benchmark, HubSet};

const SET: HubSet = HubSet {
    id: "HuggingFaceH4/MATH-500",
    revision: "main",
    split: "test",
    hub_file: None,
    download: None,
    columns: &[],
    by_rules: None,
    files: &["math500.jsonl", "math_500.jsonl", "test.jsonl"],
    question: "problem",
    answer: "answer",
    rows: 500,
    golds_sha256: Some("4563c132723345af807dfeb0624fbef921b6ce25f08051a0cb4922d9a650d13a"),
};

pub fn benchmark() -> Benchmark {
    Benchmark::of_values("math500", &["math_500", "math-500"], &SET, 4, 0.75)
}
