//! MATH-500: 500 questions of Hendrycks' MATH, selected by Lightman et al. (arXiv 2305.20050).

use super::{AnswerKind, Benchmark, HubSet, QuestionOrigin};

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
    let aliases = &["math_500", "math-500"];
    Benchmark {
        name: "math500".into(),
        aliases,
        origin: QuestionOrigin::Hub(&SET),
        kind: AnswerKind::Math,
        samples: 4,
        level_7b: Some(0.75),
    }
}
