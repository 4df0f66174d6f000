//! Overlap of training data with benchmarks, and its removal before training.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use rft::data::Question;
use rft::data::arithmetic::{self, Split};
use rft::data::decontaminate::{Contamination, OverlapBenchmark, SHARE, overlaps};
use serde_json::{Value, json};

use crate::cli::{rft, with};
use crate::require::{data, file};

fn question(id: impl ToString, text: &str) -> Question {
    let extra = serde_json::Map::new();
    Question { id: id.to_string(), text: text.to_owned(), gold: "1".to_owned(), source: String::new(), extra }
}

fn questions(texts: &[&str]) -> Vec<Question> {
    texts.iter().enumerate().map(|(i, text)| question(i, text)).collect()
}

fn written(name: &str, questions: Vec<Question>) -> OverlapBenchmark {
    OverlapBenchmark { name: name.to_owned(), questions, share: SHARE }
}

fn overlap(asked: &str, row: &str) -> bool {
    !overlaps(&questions(&[row]), &[written("b", questions(&[asked]))])[0].is_empty()
}

const TRAIN: &str = "A train leaves Lyon at noon and travels at $80$ km/h. Another leaves Paris, \\(465\\) km away, one hour \
                     later at $100$ km/h. How many minutes after noon do they meet?";
const FORMULA: &str = "Compute the sum \\[\\sum_{k=1}^{\\infty} \\frac{k^2 + 3k + 1}{k (k+1) (k+2)} \\left( \\frac{1}{2} \
                       \\right)^{k+1}\\] and write it as a fraction in lowest terms.";

#[test]
fn a_reformatted_copy_is_found() {
    let upper = TRAIN.to_uppercase();
    let bare: String = TRAIN.chars().filter(|c| !"$.,\\()?".contains(*c)).collect();
    let longer =
        format!("Solve the problem below step by step.\n\n### Problem\n{TRAIN}\n\nPut the answer in \\boxed{{}}.");
    for (dress, row) in [("itself", TRAIN), ("capitals", &upper), ("punctuation", &bare), ("embedded", &longer)] {
        assert!(overlap(TRAIN, row), "{dress}");
    }
    let spaced = "Compute the sum $$\\displaystyle \\sum _ { k = 1 } ^ { \\infty } \\dfrac { k ^ { 2 } + 3 k + 1 } { k ( k + 1 ) \
                  ( k + 2 ) } \\, \\bigg( \\tfrac12 \\bigg) ^ { k + 1 }$$ and write it as a fraction in lowest terms.";
    assert!(overlap(FORMULA, spaced), "different LaTeX");
    let figure =
        format!("{TRAIN} [asy] draw((0,0)--(465,0)); label(\"Lyon\",(0,0),S); label(\"Paris\",(465,0),S); [/asy]");
    assert!(overlap(&figure, TRAIN) && overlap(TRAIN, &figure), "with and without a figure");
    let changed = TRAIN.replace("do they meet", "will the two of them meet");
    assert!(overlap(TRAIN, &changed), "another wording at the end");
}

#[test]
fn similar_questions_are_not_overlaps() {
    let other_numbers = TRAIN.replace("80", "75").replace("465", "510").replace("100", "120");
    assert!(!overlap(TRAIN, &other_numbers), "the same story with other numbers");
    // More than thirteen shared words, but none of the problem itself.
    let ending = "can be written in the form $\\frac{m}{n}$, where $m$ and $n$ are relatively prime positive integers. Find $m+n$.";
    let of = |start: &str| format!("{start} {ending}");
    let (dice, circle) = (
        "Nine fair dice are thrown at once, and the probability that their sum is divisible by seven while none of them shows a six",
        "Two circles of radius three pass through each other's center, and the ratio of the area inside of both to that of one",
    );
    assert!(!overlap(&of(dice), &of(circle)), "boilerplate");
    let figure =
        "[asy] size(150); defaultpen(linewidth(0.7)); pair A=(0,0), B=(4,0), C=(0,3); draw(A--B--C--cycle); [/asy]";
    assert!(
        !overlap(&format!("What is the area? {figure}"), &format!("Find the longest side. {figure}")),
        "one figure"
    );
    assert!(!overlap(TRAIN, "How many minutes after noon do they meet?"), "a part of it");
    assert!(!overlap("", "") && !overlap("$+$", "?"), "no words");
}

#[test]
fn a_short_question_is_compared_as_a_whole() {
    assert!(overlap("Compute $\\sin 45^\\circ$.", "compute \\( \\sin{45}^{\\circ} \\)"));
    assert!(!overlap("Compute $\\sin 45^\\circ$.", "Compute $\\sin 45^\\circ + \\cos 45^\\circ$."));
    assert!(!overlap("What is 3 + 4?", "What is 3 + 4 when it is written in the base two, and in the base five?"));
}

fn shuffled_data() -> (Vec<Question>, Vec<OverlapBenchmark>) {
    let rows = arithmetic::questions(Split::HeldOut, 0, &[1, 2, 3], 400).unwrap();
    let asked = arithmetic::questions(Split::HeldOut, 1, &[1, 2], 300).unwrap();
    let generated = OverlapBenchmark { name: "generated".to_owned(), questions: asked, share: 1.0 };
    let copies: Vec<Question> = rows.iter().step_by(7).cloned().collect();
    (rows, vec![written("copies", copies), generated])
}

#[test]
fn the_record_does_not_depend_on_threads() {
    let (rows, benchmarks) = shuffled_data();
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| (overlaps(&rows, &benchmarks), Contamination::of(&rows, &benchmarks, true)))
    };
    let (pairs, record) = with(1);
    assert!(pairs[0].len() >= 58 && !pairs[1].is_empty());
    for threads in [2, 5] {
        assert_eq!(with(threads), (pairs.clone(), record.clone()));
    }
}

#[test]
fn the_record_lists_the_rows_that_are_trained_on() {
    let rows = questions(&["How far is it?", TRAIN, FORMULA, "Who goes there?"]);
    let benchmarks = [written("a", vec![question("x-1", FORMULA), question("x-2", "Why?")]), written("b", Vec::new())];
    let kept = Contamination::of(&rows, &benchmarks, false);
    assert_eq!((kept.rows, kept.removed, kept.decontaminated), (4, 0, false));
    let a = &kept.benchmarks["a"];
    assert_eq!((a.questions, &a.overlapping[..], &a.rows[..]), (2, &["x-1".to_owned()][..], &["2".to_owned()][..]));
    assert_eq!(kept.clean(rows.clone()), rows);
    assert!(kept.notes()[0].contains("a (1 of 2)"), "{:?}", kept.notes());

    let removed = Contamination::of(&rows, &benchmarks, true);
    assert_eq!((removed.rows, removed.removed, &removed.removed_rows[..]), (4, 1, &["2".to_owned()][..]));
    let a = &removed.benchmarks["a"];
    assert!(a.overlapping.is_empty() && a.rows.is_empty(), "no overlapping question is used for training");
    assert_eq!(a.avoided, ["x-1"]);
    let clean = removed.clean(rows);
    assert_eq!(clean.iter().map(|it| it.id.as_str()).collect::<Vec<_>>(), ["0", "1", "3"]);
    assert_eq!(Contamination::of(&clean, &benchmarks, true).removed, 0);
    let json = serde_json::to_string(&removed).unwrap();
    assert_eq!(serde_json::from_str::<Contamination>(&json).unwrap(), removed);
}

#[test]
fn generated_splits_overlap_only_if_they_are_the_same() {
    let benchmark = rft::eval::bench::find("arithmetic").unwrap();
    let at_hand = rft::eval::bench::at_hand(&[benchmark], None);
    let found = |split, seed| {
        let rows = arithmetic::questions(split, seed, &[1, 2, 3], 2048).unwrap();
        Contamination::of(&rows, &at_hand.benchmarks, false).benchmarks["arithmetic"].overlapping.len()
    };
    assert_eq!(found(Split::Train, 42), 0);
    assert_eq!(found(Split::HeldOut, 0), 512);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A row that contains a question's words in order overlaps with it, whatever text is around and between them.
    #[test]
    fn the_same_words_in_the_same_order_overlap(
        words in prop::collection::vec("[a-z]{1,9}|[0-9]{1,4}", 8..60),
        gaps in prop::collection::vec("[ ,.$(){}^_+=-]{1,3}", 60),
        around in prop::collection::vec("[a-z]{1,9}", 0..40),
    ) {
        let asked = words.join(" ");
        let dressed: String = words.iter().zip(&gaps).map(|(word, gap)| format!("{word}{gap}")).collect();
        let row = format!("{} {dressed} {}", around.join(" "), around.join(" "));
        prop_assert!(overlap(&asked, &row));
        // No n-gram is left if every fourth word is different.
        let other: Vec<String> =
            words.iter().enumerate().map(|(i, w)| if i % 4 == 3 { "ZZZZZZZZZZ".to_owned() } else { w.clone() }).collect();
        prop_assert!(!overlap(&asked, &other.join(" ")));
    }
}

/// The counts of docs/decontamination.md.
#[test]
fn overlaps_of_real_data_match_the_documentation() {
    let Some(folder) = data() else { return };
    let home = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for (name, expected) in [
        ("gsm8k_train.jsonl", BTreeMap::from([("gsm8k", (0, 0)), ("math500", (0, 0)), ("aime2024", (0, 0))])),
        ("math_level3to5.json", BTreeMap::from([("gsm8k", (0, 0)), ("math500", (11, 14)), ("amc12", (0, 0))])),
        ("math500.jsonl", BTreeMap::from([("gsm8k", (0, 0)), ("math500", (500, 500)), ("humaneval", (0, 0))])),
    ] {
        let Some(rows) = file("data", folder.join(name)) else { continue };
        let mut command = rft(home.path());
        command.env("HF_HOME", home.path()).arg("overlap").arg(&rows);
        let output = command.arg("--data-dir").arg(&folder).args(["--output-format", "json"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let found: Contamination = serde_json::from_slice(&output.stdout).unwrap();
        for (benchmark, counts) in expected {
            if let Some(overlap) = found.benchmarks.get(benchmark) {
                assert_eq!((overlap.overlapping.len(), overlap.rows.len()), counts, "{name} and {benchmark}");
                seen += 1;
            }
        }
    }
    println!("{seen} pairs of data and benchmark compared");
}

/// Ten questions, of which the second is a copy of one in the benchmark `arithmetic`.
fn planted() -> String {
    let copy = &arithmetic::questions(Split::HeldOut, 0, &[1, 2, 3], 512).unwrap()[100];
    let mut lines = String::new();
    for i in 1..=10 {
        let text = if i == 2 {
            format!("Please answer: {}", copy.text.to_uppercase().replace('.', " ;"))
        } else {
            format!("A shelf has {i} rows of {} jars, and {i} of all these jars are broken. How many are whole?", i + 3)
        };
        let gold = if i == 2 { copy.gold.clone() } else { (i * (i + 2)).to_string() };
        lines += &format!("{}\n", json!({ "question": text, "answer": gold }));
    }
    lines
}

const JOB: [&str; 11] = [
    "train",
    "--ppe=null-example",
    "--data=rows.jsonl",
    "--max-questions=4",
    "--steps=1",
    "--threads=1",
    "--set=rollout.prompts_per_step=4",
    "--set=rollout.num_generations=2",
    "--set=eval.questions=0",
    "--name",
    "run",
];

/// Identities of the questions that a run used, sorted.
fn asked(run: &Path) -> Vec<String> {
    let text = fs::read_to_string(run.join("completions.jsonl")).unwrap();
    let id = |line: &str| serde_json::from_str::<Value>(line).unwrap()["question_id"].as_str().unwrap().to_owned();
    let mut ids: Vec<String> = text.lines().map(id).collect();
    ids.sort();
    ids
}

fn record(run: &Path) -> Contamination {
    serde_json::from_slice(&fs::read(run.join("contamination.json")).unwrap()).unwrap()
}

#[test]
fn overlapping_questions_are_removed_from_training() {
    let folder = with("rows.jsonl", planted().as_bytes());
    let train = |sets: &[&str]| {
        let mut command = rft(folder.path());
        let output = command.env("HF_HOME", folder.path()).args(JOB).args(sets).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        said
    };
    let run = folder.path().join("runs/run");

    let said = train(&[]);
    assert!(said.contains("benchmark questions that overlap with training questions: arithmetic (1 of 512)"), "{said}");
    assert_eq!(asked(&run), ["1", "2", "3", "4"]);
    let kept = record(&run);
    assert_eq!((kept.rows, kept.removed), (4, 0));
    assert_eq!(kept.benchmarks["arithmetic"].overlapping, ["held-out-0-100"]);
    assert_eq!(kept.benchmarks["arithmetic"].rows, ["2"]);
    assert!(kept.not_checked["gsm8k"].contains("not in the Hub cache"), "{:?}", kept.not_checked);
    fs::remove_dir_all(&run).unwrap();

    let said = train(&["--set=data.decontaminate=true"]);
    assert!(
        said.contains("removed 1 training questions that overlap with questions of arithmetic (1 of 512)"),
        "{said}"
    );
    // Removed before the first four are selected.
    assert_eq!(asked(&run), ["1", "3", "4", "5"]);
    let cleaned = record(&run);
    assert_eq!((cleaned.rows, cleaned.removed, &cleaned.removed_rows[..]), (10, 1, &["2".to_owned()][..]));
    assert!(cleaned.benchmarks["arithmetic"].overlapping.is_empty());
    assert_eq!(cleaned.benchmarks["arithmetic"].avoided, ["held-out-0-100"]);

    // A resumed run uses the same questions as before, whatever benchmarks are available then.
    let first = fs::read(run.join("completions.jsonl")).unwrap();
    fs::remove_dir_all(run.join("checkpoints")).unwrap();
    let mut benchmark: Vec<Value> =
        (0..82).map(|i| json!({ "problem": format!("What is {i}?"), "answer": i })).collect();
    let third: Value = serde_json::from_str(planted().lines().nth(2).unwrap()).unwrap();
    benchmark.push(json!({ "problem": third["question"], "answer": 15 }));
    fs::write(folder.path().join("amc12.json"), Value::from(benchmark).to_string()).unwrap();
    let resume = || {
        let mut command = rft(folder.path());
        command.env("HF_HOME", folder.path()).env("RFT_DATA_DIR", folder.path());
        let output = command.args(["train", "--resume", "runs/run"]).output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let (resumed, said) = resume();
    assert!(resumed, "{said}");
    assert!(first == fs::read(run.join("completions.jsonl")).unwrap(), "different questions after resuming");
    assert_eq!(record(&run), cleaned);

    let config = fs::read_to_string(run.join("config.toml")).unwrap();
    fs::write(run.join("config.toml"), config.replace("decontaminate = true", "decontaminate = false")).unwrap();
    let (resumed, said) = resume();
    assert!(!resumed && said.contains("was started with `data.decontaminate = true`"), "{said}");
}

#[test]
fn benchmarks_are_only_read_from_the_folder_and_the_cache() {
    let folder = with("rows.jsonl", planted().as_bytes());
    let third: Value = serde_json::from_str(planted().lines().nth(2).unwrap()).unwrap();
    let text = third["question"].as_str().unwrap();
    let line =
        |i: usize| json!({ "problem": if i == 7 { text } else { "Which one?" }, "answer": i.to_string() }).to_string();
    let aime: Vec<String> = (0..30).map(line).collect();
    let cached = folder.path().join("hub/datasets--HuggingFaceH4--aime_2024");
    fs::create_dir_all(cached.join("refs")).unwrap();
    fs::write(cached.join("refs/main"), "abc").unwrap();
    fs::create_dir_all(cached.join("snapshots/abc")).unwrap();
    fs::write(cached.join("snapshots/abc/train.jsonl"), aime.join("\n")).unwrap();
    fs::write(folder.path().join("math500.jsonl"), "{\"problem\": \"torn").unwrap();

    let mut command = rft(folder.path());
    // Nothing listens at this address, so requests are refused immediately.
    command.env("HF_HOME", folder.path()).env("HF_ENDPOINT", "http://127.0.0.1:9").env_remove("HF_HUB_OFFLINE");
    let output =
        command.args(["overlap", "rows.jsonl", "--data-dir", ".", "--output-format", "json"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    let found: Contamination = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found.benchmarks["aime2024"].overlapping, ["8"]);
    assert_eq!(found.benchmarks["aime2024"].rows, ["3"]);
    assert_eq!(found.benchmarks["arithmetic"].rows, ["2"]);
    assert!(said.contains("warning: overlap with `math500` not checked: read `./math500.jsonl`"), "{said}");
    assert!(found.not_checked["math500"].contains("line 1 is not a JSON object"), "{:?}", found.not_checked);
    assert!(found.not_checked["amc12"].starts_with("no `amc12.json` or"), "{:?}", found.not_checked);
    assert!(!said.contains("127.0.0.1"), "{said}");

    let output = rft(folder.path()).args(["overlap", "rows.jsonl", "--bench", "arithmetic"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("rows.jsonl: 10 questions") && text.lines().any(|line| line.contains("512")), "{text}");
    assert!(!text.contains("not checked"), "{text}");
}
