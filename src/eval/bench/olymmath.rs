//! OlymMATH (Sun et al., arXiv 2503.21380): 100 easy and 100 hard questions of olympiads, each in English and in Chinese. The
//! answers are numbers, expressions and intervals.
//!
//! License MIT. The form and the hashes are those of the files in the authors' repository; the English ones are identical to
//! those of the data set at the revision below.

use super::{Benchmark, HubSet};

const EN_EASY: HubSet = HubSet {
    id: "RUC-AIBOX/OlymMATH",
    revision: "2c6532ea2cf929ac1c421532af5951553eaee727",
    split: "test",
    hub_file: Some("data/OlymMATH-EN-EASY.jsonl"),
    download: None,
    columns: &["problem", "answer", "subject", "unique_id"],
    by_rules: None,
    files: &["OlymMATH-EN-EASY.jsonl", "olymmath-en-easy.jsonl"],
    question: "problem",
    answer: "answer",
    rows: 100,
    golds_sha256: Some("5817c5e8c6c6a069402707512b869a74a1c5c61d34eb59bc71994cc0246ee829"),
};

const EN_HARD: HubSet = HubSet {
    hub_file: Some("data/OlymMATH-EN-HARD.jsonl"),
    files: &["OlymMATH-EN-HARD.jsonl", "olymmath-en-hard.jsonl"],
    golds_sha256: Some("f54cfb4c445d793bbf12c9178c77efe153254b0c441a57b6659b26060d1faf16"),
    ..EN_EASY
};

const ZH_EASY: HubSet = HubSet {
    hub_file: Some("data/OlymMATH-ZH-EASY.jsonl"),
    files: &["OlymMATH-ZH-EASY.jsonl", "olymmath-zh-easy.jsonl"],
    ..EN_EASY
};

const ZH_HARD: HubSet = HubSet {
    hub_file: Some("data/OlymMATH-ZH-HARD.jsonl"),
    files: &["OlymMATH-ZH-HARD.jsonl", "olymmath-zh-hard.jsonl"],
    ..EN_HARD
};

pub fn benchmarks() -> [Benchmark; 4] {
    let sets: [(&str, &'static [&'static str], &'static HubSet, f64); 4] = [
        ("olymmath-en-easy", &["olymmath_en_easy", "olymmath-easy"], &EN_EASY, 0.10),
        ("olymmath-en-hard", &["olymmath_en_hard", "olymmath-hard", "olymmath"], &EN_HARD, 0.02),
        ("olymmath-zh-easy", &["olymmath_zh_easy"], &ZH_EASY, 0.10),
        ("olymmath-zh-hard", &["olymmath_zh_hard"], &ZH_HARD, 0.02),
    ];
    sets.map(|(name, aliases, set, level_7b)| Benchmark::of_values(name, aliases, set, 16, level_7b))
}
