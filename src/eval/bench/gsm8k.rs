//! GSM8K: 1,319 word problems of grade school (Cobbe et al., arXiv 2110.14168).

use super::{Benchmark, HubSet};

const SET: HubSet = HubSet {
    id: "openai/gsm8k",
    revision: "main",
    split: "test",
    hub_file: None,
    download: None,
    columns: &[],
    by_rules: None,
    files: &["gsm8k_test.jsonl", "gsm8k.jsonl", "gsm8k_test.parquet"],
    question: "question",
    answer: "answer",
    rows: 1_319,
    golds_sha256: Some("c09cc2ca225e8a628b6b44137286d0ace75423234cc2b08be20f1e7523d4e192"),
};

pub fn benchmark() -> Benchmark {
    Benchmark::of_values("gsm8k", &["gsm_8k"], &SET, 1, 0.90)
}
