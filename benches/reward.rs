//! The cost of scoring a completion: extraction, the check against the gold answer, and a whole rollout batch.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rft::config::{ConfigLayers, resolve};
use rft::data::Question;
use rft::math::{Scope, Verdict, check, grade};
use rft::prompt::{PriorPrompt, Role};
use rft::reward::{CompletionKey, RewardInput, RewardSet};

/// Gold answer and answer, as in training on competition questions.
const ANSWERS: [(&str, &str, &str); 7] = [
    ("integer", "118", "118"),
    ("thousands", "10,\\!080", "10080"),
    ("fraction", "\\frac{14}{3}", "4\\frac{2}{3}"),
    ("decimal", "\\frac{2}{3}", "0.6667"),
    ("root", "2\\sqrt{113}", "\\sqrt{452}"),
    ("polynomial", "(a+5)(b+2)", "ab+2a+5b+10"),
    ("interval", "\\left(\\frac{3}{5},\\frac{8}{3}\\right]", "(0.6, 8/3]"),
];

fn checks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("check");
    for (name, gold, answer) in ANSWERS {
        group.bench_function(name, |bencher| bencher.iter(|| check(black_box(gold), black_box(answer))));
    }
    group.bench_function("tower of powers", |bencher| bencher.iter(|| check("3", black_box("9^{9^{9^9}}"))));
    group.finish();
}

/// The gold answers of MATH-500, each with another way to write it; `tests/oracle/math_verify_speed.py` measures the
/// same.
const REWRITTEN: &str = include_str!("../tests/fixtures/rewritten.tsv");

/// All pairs in sequence, and the median over pairs, because a mean over easy and hard ones would hide it.
fn rewritten(criterion: &mut Criterion) {
    let lines = REWRITTEN.lines().filter(|it| !it.starts_with('#'));
    let pairs: Vec<(&str, &str)> = lines.map(|it| it.split_once('\t').expect("two columns")).collect();
    let accepted = pairs.iter().filter(|(gold, answer)| check(gold, answer) == Verdict::Correct).count();
    let mut times: Vec<Duration> = pairs.iter().map(|(gold, answer)| fastest_of_ten(gold, answer)).collect();
    times.sort_unstable();
    println!("median of {} pairs: {:?}; {accepted} accepted", pairs.len(), times[pairs.len() / 2]);

    let mut group = criterion.benchmark_group("rewritten");
    group.throughput(Throughput::Elements(pairs.len() as u64));
    group.bench_function("MATH-500", |bencher| {
        bencher
            .iter(|| pairs.iter().filter(|(gold, answer)| check(gold, black_box(answer)) == Verdict::Correct).count());
    });
    group.finish();
}

fn fastest_of_ten(gold: &str, answer: &str) -> Duration {
    let time = || {
        let start = Instant::now();
        black_box(check(black_box(gold), black_box(answer)));
        start.elapsed()
    };
    (0..10).map(|_| time()).min().expect("ten rounds")
}

/// A completion of about 4,000 tokens with its answer at the end.
fn long_response() -> String {
    let step = "First, \\frac{1}{2} of {x : x > 2} gives $3\\sqrt{2}$, so we go on.\n".repeat(200);
    format!("<think>{step}</think>\n<answer>The answer is \\boxed{{\\frac{{14}}{{3}}}}</answer>")
}

fn responses(criterion: &mut Criterion) {
    let response = long_response();
    let mut group = criterion.benchmark_group("grade");
    group.throughput(Throughput::Bytes(response.len() as u64));
    group.bench_function("4,000 tokens", |bencher| {
        bencher.iter(|| grade(black_box(&response), "\\frac{14}{3}", Scope::Response, Some("answer")));
    });
    group.finish();

    let prompt = PriorPrompt {
        name: "reasoning".into(),
        paper_name: "Reasoning".into(),
        tag: Some("think".into()),
        answer_tag: Some("answer".into()),
        role: Role::System,
        text: String::new(),
        description: String::new(),
        stems_from: String::new(),
        wording: "rft".into(),
    };
    let question = Question {
        id: "1".into(),
        text: "?".into(),
        gold: "\\frac{14}{3}".into(),
        source: "bench".into(),
        extra: serde_json::Map::new(),
    };
    let sample = RewardInput {
        question: &question,
        response: &response,
        prompt: &prompt,
        prefilled: false,
        tokens: 4000,
        truncated: false,
        key: CompletionKey::default(),
    };
    let batch = vec![sample; 512];
    let mut group = criterion.benchmark_group("a rollout batch of 512");
    let all = ["format_strict", "tag_count", "length", "repetition"].map(|it| format!("reward.{it}.weight=1"));
    for (name, sets) in [("the study's rewards", Vec::new()), ("all rules", all.to_vec())] {
        let config = resolve(&ConfigLayers { sets, ..ConfigLayers::default() }).expect("a configuration").config;
        let rewards = RewardSet::from_config(&config.reward, &prompt, 4096).expect("rules alone");
        group.bench_function(name, |bencher| bencher.iter(|| rewards.score_all(black_box(&batch)).expect("no errors")));
    }
    group.finish();
}

criterion_group!(benches, checks, rewritten, responses);
criterion_main!(benches);
