//! HMMT February 2026: 33 questions whose answers are numbers, expressions and lists of them.
//!
//! The form is that of the data set's card at revision afb530a (license CC BY-NC-SA 4.0).

use super::{AnswerKind, Benchmark, HubSet, QuestionOrigin};

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
    let aliases = &["hmmt_feb_2026", "hmmt_feb_26", "hmmt26"];
    Benchmark {
        name: "hmmt-feb-2026".into(),
        aliases,
        origin: QuestionOrigin::Hub(&SET),
        kind: AnswerKind::Math,
        samples: 64,
        level_7b: Some(0.05),
    }
}
