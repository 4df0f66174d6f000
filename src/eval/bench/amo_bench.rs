//! AMO-Bench (An et al., arXiv 2510.26768): 50 new questions of olympiad difficulty.
//!
//! License MIT. The column `answer_type` is `number`, `set`, `variable` (an expression in a variable) or `description`. Its
//! authors grade the 11 descriptions with a model as judge, and the other 39, the subset AMO-Bench-P, by rules.

use super::judged::{AMO_BENCH, ANSWER_TYPE};
use super::{AnswerKind, Benchmark, HubSet, QuestionOrigin};

const ALL: HubSet = HubSet {
    id: AMO_BENCH,
    revision: "2f422616c25d862984408fbbfaed63a961e8e025",
    split: "test",
    hub_file: None,
    download: None,
    columns: &["question_id", "prompt", "solution", "answer", ANSWER_TYPE],
    by_rules: None,
    files: &["amo_bench.parquet", "amo-bench.parquet", "amo_bench.jsonl", "amo-bench.jsonl"],
    question: "prompt",
    answer: "answer",
    rows: 50,
    golds_sha256: None,
};

const BY_RULES: HubSet = HubSet { by_rules: Some(39), ..ALL };

pub fn all() -> Benchmark {
    benchmark("amo-bench", &["amo_bench", "amobench"], &ALL, 0.02)
}

pub fn by_rules() -> Benchmark {
    benchmark("amo-bench-p", &["amo_bench_p", "amobench-p"], &BY_RULES, 0.02)
}

/// The number of samples in the paper.
fn benchmark(name: &str, aliases: &'static [&'static str], set: &'static HubSet, level_7b: f64) -> Benchmark {
    Benchmark {
        name: name.into(),
        aliases,
        origin: QuestionOrigin::Hub(set),
        kind: AnswerKind::Math,
        samples: 32,
        level_7b: Some(level_7b),
    }
}
