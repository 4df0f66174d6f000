//! AMO-Bench (An et al., arXiv 2510.26768): 50 new questions of olympiad difficulty.
//!
//! License MIT. The column `answer_type` is `number`, `set`, `variable` (an expression in a variable) or `description`. Its
//! authors grade the 11 descriptions with a model as judge, and the other 39, the subset AMO-Bench-P, by rules. They take 32
//! samples per question.

use super::judged::{AMO_BENCH, ANSWER_TYPE};
use super::{Benchmark, HubSet};

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
    Benchmark::of_values("amo-bench", &["amo_bench", "amobench"], &ALL, 32, 0.02)
}

pub fn by_rules() -> Benchmark {
    Benchmark::of_values("amo-bench-p", &["amo_bench_p", "amobench-p"], &BY_RULES, 32, 0.02)
}
