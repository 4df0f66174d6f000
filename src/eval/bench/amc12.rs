//! AMC 12 of 2022 and 2023: 83 questions, rewritten by their publisher so that the answer is an integer instead of a letter.

use super::{AnswerKind, Benchmark, HubSet, QuestionOrigin};

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
    let aliases = &["amc", "amc23", "aimo-validation-amc"];
    Benchmark {
        name: "amc12".into(),
        aliases,
        origin: QuestionOrigin::Hub(&SET),
        kind: AnswerKind::Math,
        samples: 32,
        level_7b: Some(0.4),
    }
}
