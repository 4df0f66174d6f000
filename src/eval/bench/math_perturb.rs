//! MATH-Perturb (Huang et al., arXiv 2502.06453): 279 questions of MATH, level 5, with a change after which the same method
//! solves them (simple) or does not (hard).
//!
//! Published on GitHub (license Apache 2.0); the form and the hashes are those of commit df4840f. Its authors ask not to train
//! on these questions.

use super::{Benchmark, HubSet};

const SIMPLE: HubSet = HubSet {
    id: "Kaffaljidhmah2/MATH-Perturb",
    revision: "main",
    split: "test",
    hub_file: None,
    download: Some("https://github.com/Kaffaljidhmah2/MATH-Perturb/tree/main/math_perturb"),
    columns: &["problem_id", "problem", "answer", "level", "type", "original_split"],
    by_rules: None,
    files: &["math_perturb_simple.jsonl", "math-perturb-simple.jsonl"],
    question: "problem",
    answer: "answer",
    rows: 279,
    golds_sha256: Some("4c70bd92bf88292079a396768319389de7c2ab913e9cd6e2061fba2574c1b197"),
};

const HARD: HubSet = HubSet {
    files: &["math_perturb_hard.jsonl", "math-perturb-hard.jsonl"],
    golds_sha256: Some("06832ae806eb86860b616bdf0c4400861f0ca8664ce156d87b702e26cf54d4d0"),
    ..SIMPLE
};

pub fn simple() -> Benchmark {
    Benchmark::of_values("math-perturb-simple", &["math_perturb_simple", "math-p-simple"], &SIMPLE, 4, 0.65)
}

pub fn hard() -> Benchmark {
    Benchmark::of_values("math-perturb-hard", &["math_perturb_hard", "math-p-hard"], &HARD, 4, 0.45)
}
