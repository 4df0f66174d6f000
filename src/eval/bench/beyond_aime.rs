//! BeyondAIME (ByteDance Seed, 2025): 100 new questions of at least the difficulty of the last five of an AIME, whose answers
//! are positive integers.
//!
//! License CC0 1.0. The columns are those that public loaders of the data set read.

use super::{AnswerKind, Benchmark, HubSet, QuestionOrigin};

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
    let aliases = &["beyondaime", "beyond_aime"];
    Benchmark {
        name: "beyond-aime".into(),
        aliases,
        origin: QuestionOrigin::Hub(&SET),
        kind: AnswerKind::Math,
        samples: 16,
        level_7b: Some(0.05),
    }
}
