//! GSM-Symbolic (Mirzadeh et al., arXiv 2410.05229): questions of GSM8K as templates, with 50 instances each. P1 and P2 have
//! one and two clauses more.
//!
//! License CC BY-NC-ND 4.0. The form is that of the authors' repository and of the data set at the revision below.

use super::{Benchmark, HubSet};

const MAIN: HubSet = HubSet {
    id: "apple/GSM-Symbolic",
    revision: "93b5b3758d9d9841ffe81d6cd2ae2b030685b078",
    split: "test",
    hub_file: Some("main/test.jsonl"),
    download: None,
    columns: &["id", "instance", "question", "answer", "original_id", "original_question", "original_answer", "canary"],
    by_rules: None,
    files: &["gsm_symbolic.jsonl", "gsm-symbolic.jsonl", "GSM_symbolic.jsonl"],
    question: "question",
    answer: "answer",
    rows: 5_000,
    golds_sha256: None,
};

const P1: HubSet = HubSet {
    hub_file: Some("p1/test.jsonl"),
    files: &["gsm_symbolic_p1.jsonl", "gsm-symbolic-p1.jsonl", "GSM_p1.jsonl"],
    ..MAIN
};

const P2: HubSet = HubSet {
    hub_file: Some("p2/test.jsonl"),
    files: &["gsm_symbolic_p2.jsonl", "gsm-symbolic-p2.jsonl", "GSM_p2.jsonl"],
    rows: 2_500,
    golds_sha256: Some("74eacbff9d83e7a2c392a4f99c07432805921c4aa208c5feb529478378708ca5"),
    ..MAIN
};

pub fn main() -> Benchmark {
    Benchmark::of_values("gsm-symbolic", &["gsm_symbolic"], &MAIN, 1, 0.85)
}

pub fn p1() -> Benchmark {
    Benchmark::of_values("gsm-symbolic-p1", &["gsm_symbolic_p1", "gsm_p1"], &P1, 1, 0.75)
}

pub fn p2() -> Benchmark {
    Benchmark::of_values("gsm-symbolic-p2", &["gsm_symbolic_p2", "gsm_p2"], &P2, 1, 0.60)
}
