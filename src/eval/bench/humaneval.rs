//! HumanEval (Chen et al., arXiv 2107.03374): 164 Python functions to be completed. HumanEval+ (Liu et al., arXiv 2305.01210)
//! has the same tasks with about 80 times as many tests.

use super::{AnswerKind, Benchmark, HubSet, QuestionOrigin};

/// Both read the release file of evalplus, which has the inputs of both and no expected values that could be leaked.
pub const SET: HubSet = HubSet {
    id: "evalplus/humanevalplus",
    revision: "main",
    split: "test",
    hub_file: None,
    download: Some("https://github.com/evalplus/humanevalplus_release/releases"),
    columns: &[],
    by_rules: None,
    files: &["humanevalplus-inputs.jsonl.gz", "HumanEvalPlus.jsonl.gz", "HumanEvalPlus-v0.1.10.jsonl.gz"],
    question: "prompt",
    answer: "canonical_solution",
    rows: 164,
    golds_sha256: None,
};

pub fn base() -> Benchmark {
    let aliases = &["openai_humaneval", "human_eval"];
    let kind = AnswerKind::Code { plus: false };
    Benchmark {
        name: "humaneval".into(),
        aliases,
        origin: QuestionOrigin::Hub(&SET),
        kind,
        samples: 4,
        level_7b: Some(0.82),
    }
}

pub fn plus() -> Benchmark {
    let aliases = &["humanevalplus", "humaneval_plus", "humaneval-plus", "he+"];
    let kind = AnswerKind::Code { plus: true };
    Benchmark {
        name: "humaneval+".into(),
        aliases,
        origin: QuestionOrigin::Hub(&SET),
        kind,
        samples: 4,
        level_7b: Some(0.78),
    }
}
