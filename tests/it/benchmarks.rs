//! Every shipped benchmark, from the file in which it is published to the printed score: a server on this machine sends right
//! answers or wrong ones.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use parquet::basic::Compression;
use rft::eval::bench;
use rft::model::embedded;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cli::{error, folder, rft};
use crate::code_eval::sandbox;
use crate::hub;
use crate::parquet_file::{Leaf, parquet};
use crate::require::{data, file};
use crate::stub_server::{Behavior, Stub, like_tiny};

/// A benchmark whose questions come from the Hub.
struct Published {
    name: &'static str,
    /// The file in its repository.
    file: &'static str,
    rows: usize,
    /// The file's bytes, for this number of rows. Question number i contains `<i>`, and its answer is 3 * i.
    bytes: fn(usize) -> Vec<u8>,
}

/// The order is that of `rft eval list`.
const PUBLISHED: [Published; 18] = [
    Published { name: "aime2024", file: "data/train-00000-of-00001.parquet", rows: 30, bytes: aime2024 },
    Published { name: "aime2025", file: "data/train-00000-of-00001.parquet", rows: 30, bytes: aime2025 },
    Published { name: "aime2026", file: "data/train-00000-of-00001.parquet", rows: 30, bytes: aime2026 },
    Published { name: "hmmt-feb-2026", file: "data/train-00000-of-00001.parquet", rows: 33, bytes: hmmt },
    Published { name: "beyond-aime", file: "data/test.parquet", rows: 100, bytes: beyond_aime },
    Published { name: "amc12", file: "data/train-00000-of-00001.parquet", rows: 83, bytes: amc },
    Published { name: "math500", file: "test.jsonl", rows: 500, bytes: math500 },
    Published { name: "gsm8k", file: "main/test-00000-of-00001.parquet", rows: 1_319, bytes: gsm8k },
    Published { name: "gsm-symbolic", file: "main/test.jsonl", rows: 5_000, bytes: gsm_symbolic },
    Published { name: "gsm-symbolic-p1", file: "p1/test.jsonl", rows: 5_000, bytes: gsm_symbolic },
    Published { name: "gsm-symbolic-p2", file: "p2/test.jsonl", rows: 2_500, bytes: gsm_symbolic },
    Published { name: "amo-bench", file: "data/test-00000-of-00001.parquet", rows: 50, bytes: amo_bench },
    Published { name: "amo-bench-p", file: "data/test-00000-of-00001.parquet", rows: 50, bytes: amo_bench },
    Published { name: "gpqa-diamond", file: "gpqa_diamond.csv", rows: 198, bytes: gpqa },
    Published { name: "olymmath-en-easy", file: "data/OlymMATH-EN-EASY.jsonl", rows: 100, bytes: olymmath },
    Published { name: "olymmath-en-hard", file: "data/OlymMATH-EN-HARD.jsonl", rows: 100, bytes: olymmath },
    Published { name: "olymmath-zh-easy", file: "data/OlymMATH-ZH-EASY.jsonl", rows: 100, bytes: olymmath },
    Published { name: "olymmath-zh-hard", file: "data/OlymMATH-ZH-HARD.jsonl", rows: 100, bytes: olymmath },
];

fn ask(i: usize) -> String {
    format!("What is three times <{i}>?")
}

fn texts(rows: usize, text: impl Fn(usize) -> String) -> Leaf {
    Leaf::text((0..rows).map(text))
}

fn url(_: usize) -> String {
    "https://artofproblemsolving.com/wiki/index.php/2024_AIME_I_Problems/Problem_1".to_owned()
}

fn aime2024(rows: usize) -> Vec<u8> {
    let schema = "message m { required int64 id; required binary problem (UTF8); required binary solution (UTF8); \
                  required binary answer (UTF8); required binary url (UTF8); required binary year (UTF8); }";
    let leaves = [
        Leaf::i64((0..rows as i64).map(|i| 60 + i)),
        texts(rows, ask),
        texts(rows, |_| "It is \\boxed{0}.".to_owned()),
        texts(rows, |i| format!("{:03}", 3 * i)),
        texts(rows, url),
        texts(rows, |_| "2024".to_owned()),
    ];
    parquet(schema, Compression::SNAPPY, &leaves)
}

fn aime2025(rows: usize) -> Vec<u8> {
    let schema = "message m { required int64 id; required binary problem (UTF8); required binary answer (UTF8); \
                  required binary solution (UTF8); required binary url (UTF8); required int64 year; }";
    let leaves = [
        Leaf::i64(0..rows as i64),
        texts(rows, ask),
        texts(rows, |i| (3 * i).to_string()),
        texts(rows, |_| "It is \\boxed{0}.".to_owned()),
        texts(rows, url),
        Leaf::i64(vec![2025; rows]),
    ];
    parquet(schema, Compression::SNAPPY, &leaves)
}

fn aime2026(rows: usize) -> Vec<u8> {
    let schema = "message m { required int64 problem_idx; required int64 answer; required binary problem (UTF8); }";
    let leaves = [Leaf::i64(1..=rows as i64), Leaf::i64((0..rows as i64).map(|i| 3 * i)), texts(rows, ask)];
    parquet(schema, Compression::SNAPPY, &leaves)
}

fn hmmt(rows: usize) -> Vec<u8> {
    let schema = "message m { required int64 problem_idx; required binary answer (UTF8); required group problem_type (LIST) { \
                  repeated group list { required binary element (UTF8); } } required binary problem (UTF8); }";
    let types = Leaf::text((0..2 * rows).map(|_| "Algebra"));
    let of_each: Vec<(i16, i16)> = (0..2 * rows).map(|i| (1, (i % 2) as i16)).collect();
    let leaves =
        [Leaf::i64(1..=rows as i64), texts(rows, |i| (3 * i).to_string()), types.levels(&of_each), texts(rows, ask)];
    parquet(schema, Compression::SNAPPY, &leaves)
}

fn beyond_aime(rows: usize) -> Vec<u8> {
    let schema = "message m { required binary problem (UTF8); required int64 answer; }";
    parquet(schema, Compression::SNAPPY, &[texts(rows, ask), Leaf::i64((0..rows as i64).map(|i| 3 * i))])
}

/// 11 descriptions, 34 numbers, 3 sets and 2 expressions, as published.
fn amo_bench(rows: usize) -> Vec<u8> {
    let schema = "message m { required int64 question_id; required binary prompt (UTF8); required binary solution (UTF8); \
                  required binary answer (UTF8); required binary answer_type (UTF8); }";
    let leaves = [
        Leaf::i64(1..=rows as i64),
        texts(rows, ask),
        texts(rows, |_| "By calculation.".to_owned()),
        texts(rows, |i| format!("$\\boxed{{{}}}$", 3 * i)),
        texts(rows, |i| {
            ["number", "description", "set", "variable"]
                [usize::from(i >= 34) + usize::from(i >= 45) + usize::from(i >= 48)]
            .to_owned()
        }),
    ];
    parquet(schema, Compression::SNAPPY, &leaves)
}

fn gsm_symbolic(rows: usize) -> Vec<u8> {
    let row = |i: usize| {
        json!({
            "id": i / 50, "instance": i % 50, "question": ask(i), "answer": format!("Three times {i}.\n#### {}", 3 * i),
            "original_id": i / 50 + 7, "original_question": "How many?", "original_answer": "One.\n#### 1",
            "canary": "none",
        })
    };
    (0..rows).map(|i| format!("{}\n", row(i))).collect::<String>().into_bytes()
}

fn olymmath(rows: usize) -> Vec<u8> {
    let id = |i: usize| format!("OlymMATH-EASY-{i}-EN");
    let row = |i: usize| json!({ "problem": ask(i), "answer": (3 * i).to_string(), "subject": "Algebra", "unique_id": id(i) });
    (0..rows).map(|i| format!("{}\n", row(i))).collect::<String>().into_bytes()
}

fn amc(rows: usize) -> Vec<u8> {
    let schema = "message m { required int64 id; required binary problem (UTF8); required double answer; \
                  required binary url (UTF8); }";
    let answers = Leaf::f64((0..rows).map(|i| 3.0 * i as f64));
    parquet(schema, Compression::SNAPPY, &[Leaf::i64(0..rows as i64), texts(rows, ask), answers, texts(rows, url)])
}

fn math500(rows: usize) -> Vec<u8> {
    let row = |i: usize| {
        json!({
            "problem": ask(i), "solution": "It is $\\boxed{0}$.", "answer": (3 * i).to_string(), "subject": "Algebra",
            "level": 2, "unique_id": format!("test/algebra/{i}.json"),
        })
    };
    (0..rows).map(|i| format!("{}\n", row(i))).collect::<String>().into_bytes()
}

fn gsm8k(rows: usize) -> Vec<u8> {
    let schema = "message m { required binary question (UTF8); required binary answer (UTF8); }";
    let answers = texts(rows, |i| format!("Three times {i} is <<3*{i}={0}>>{0}.\n#### {0}", grouped(3 * i)));
    parquet(schema, Compression::SNAPPY, &[texts(rows, ask), answers])
}

/// With separated thousands, as some answers are written.
fn grouped(n: usize) -> String {
    if n < 1_000 { n.to_string() } else { format!("{},{:03}", n / 1_000, n % 1_000) }
}

fn gpqa(rows: usize) -> Vec<u8> {
    let header = "Pre-Revision Question,Pre-Revision Correct Answer,Question,Correct Answer,Incorrect Answer 1,\
                  Incorrect Answer 2,Incorrect Answer 3,Explanation,Subdomain,Record ID,Canary String";
    let row = |i: usize| {
        let question = format!("\"{}\nTwo lines, with \"\"quotes\"\".\"", ask(i));
        let options = format!("\"{0} kg\n\",\"{0},5 kg\",{0} m,{1} kg", 3 * i, 3 * i + 1);
        format!("old?,old,{question},{options},\"Because.\nSo.\",Physics,rec{i},none")
    };
    let rows: Vec<String> = (0..rows).map(row).collect();
    format!("{header}\n{}\n", rows.join("\n")).into_bytes()
}

/// The number of the question in a prompt.
fn number(prompt: &str) -> usize {
    prompt.split('<').filter_map(|part| part.split('>').next()?.parse().ok()).next_back().unwrap_or(0)
}

/// The letter of the option with this text in a prompt.
fn letter(prompt: &str, option: &str) -> Option<char> {
    let line = prompt.lines().find(|line| line.split_once(") ").is_some_and(|(_, text)| text.trim() == option))?;
    line.chars().next()
}

/// A folder with `model`: the embedded model's tokenizer and template, for prompts of any length.
fn folder_with_model() -> TempDir {
    let folder = folder();
    fs::create_dir(folder.path().join("model")).unwrap();
    for (name, bytes) in embedded::FILES.iter().filter(|(name, _)| !name.ends_with(".safetensors")) {
        let mut bytes = bytes.to_vec();
        if *name == "config.json" {
            let mut config: Value = serde_json::from_slice(&bytes).unwrap();
            config["max_position_embeddings"] = 1_000_000.into();
            bytes = serde_json::to_vec(&config).unwrap();
        }
        fs::write(folder.path().join("model").join(name), bytes).unwrap();
    }
    folder
}

/// The printed accuracy of an evaluation with these arguments, in a folder with `model`, whose server answers a prompt with `text`.
fn printed(
    bench: &str,
    (folder, behavior): (&Path, &Behavior),
    arguments: &[&str],
    text: impl Fn(&str) -> String + Send + Sync + 'static,
) -> String {
    let text = move |request: &Value| text(request["prompt"].as_str().unwrap_or_default());
    let stub = Stub::start(Behavior { text: Arc::new(text), ..behavior.clone() });
    let out = tempfile::tempdir().unwrap();
    let mut command = rft(folder);
    let (hub, arguments): (Vec<&str>, Vec<&str>) = arguments.iter().partition(|it| it.starts_with("http://"));
    for address in hub {
        command.env("HF_ENDPOINT", address).env("HF_HUB_CACHE", folder.join("cache")).env_remove("HF_HUB_OFFLINE");
    }
    command.args(["eval", "--model=model", "--ppe=none", "--samples=1", "--max-tokens=40", "--bench", bench]);
    command.args(arguments).args(["--endpoint", &stub.url, "--out"]).arg(out.path().join("e"));
    let output = command.output().unwrap();
    let (table, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{bench}: {said}");
    assert!(!table.contains("ignored"), "{table}");
    let row =
        table.lines().find(|line| line.starts_with(&format!("│ {bench} "))).unwrap_or_else(|| panic!("{table}{said}"));
    let accuracy = row.split('┆').nth(2).unwrap().split('[').next().unwrap().trim();
    let grades = fs::read_to_string(out.path().join("e").join(bench).join("grades.jsonl")).unwrap();
    for grade in grades.lines().filter(|line| !line.contains(r#""verdict":"correct""#)).take(2) {
        println!("{bench}: {}", grade.chars().take(300).collect::<String>());
    }
    accuracy.to_owned()
}

#[test]
fn every_benchmark_in_its_published_form_is_scored() {
    let behavior = like_tiny();
    for Published { name, file, rows, bytes } in PUBLISHED {
        let hub = hub::Stub::start(hub::Hub::with([(file, bytes(rows))]));
        let folder = folder_with_model();
        // Rules cannot grade 11 of the 50 answers.
        let best = if name == "amo-bench" { "78.0 %" } else { "100.0 %" };
        let limit = if rows > 2_000 { "--limit=200" } else { "--limit=2000" };
        for (add, score) in [(0, best), (1, "0.0 %")] {
            let answer = move |prompt: &str| {
                let value = 3 * number(prompt) + add;
                let option = letter(prompt, &format!("{value} kg")).map(String::from);
                format!("I count. So it is \\boxed{{{}}}.", option.unwrap_or_else(|| value.to_string()))
            };
            assert_eq!(printed(name, (folder.path(), &behavior), &[&hub.address, limit], answer), score, "{name}");
        }
    }
}

#[test]
fn generated_benchmarks_are_scored() {
    let behavior = like_tiny();
    let folder = folder_with_model();
    for name in ["arithmetic", "arithmetic-1", "arithmetic-2", "arithmetic-3", "arithmetic-9", "arithmetic-14"] {
        let questions = bench::find(name).unwrap().load(None).unwrap().questions;
        let golds: Vec<(String, String)> = questions.into_iter().map(|it| (it.text, it.gold)).collect();
        right_and_wrong(name, (folder.path(), &behavior), &[], golds, "-987654.5", |it| format!("\\boxed{{{it}}}"));
    }
}

/// The scores with the gold answers and with `wrong` ones, which `reply` makes completions of.
fn right_and_wrong(
    name: &str,
    with: (&Path, &Behavior),
    arguments: &[&str],
    golds: Vec<(String, String)>,
    wrong: &'static str,
    reply: fn(&str) -> String,
) {
    let golds = Arc::new(golds);
    let right = {
        let golds = golds.clone();
        move |prompt: &str| reply(gold_of(prompt, &golds))
    };
    let scores = [printed(name, with, arguments, right), printed(name, with, arguments, move |_| reply(wrong))];
    println!("{name}: {} questions, {} with the golds, {} with wrong answers", golds.len(), scores[0], scores[1]);
    assert_eq!(scores, ["100.0 %", "0.0 %"], "{name}");
}

/// The gold answer of the question that is in a prompt: of the longest, because questions may be in each other.
fn gold_of<'a>(prompt: &str, golds: &'a [(String, String)]) -> &'a str {
    let found = golds.iter().filter(|(question, _)| prompt.contains(question.trim()));
    found.max_by_key(|(question, _)| question.len()).map_or("no such question", |(_, gold)| gold)
}

/// The rows of a published file, read without the code under test.
fn rows(path: &Path) -> Vec<Value> {
    let mut text = String::new();
    let mut open = fs::File::open(path).unwrap();
    if path.extension().is_some_and(|it| it == "gz") {
        MultiGzDecoder::new(open).read_to_string(&mut text).unwrap();
    } else {
        open.read_to_string(&mut text).unwrap();
    }
    match serde_json::from_str(&text) {
        Ok(Value::Array(rows)) => rows,
        _ => text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
    }
}

/// The published files with their gold answers: 100 %, and 0 % with wrong answers. Needs RFT_DATA_DIR.
#[test]
fn the_published_files_score_all_golds_right() {
    let Some(data) = data() else { return };
    let behavior = like_tiny();
    let folder = folder_with_model();
    let with = (folder.path(), &behavior);
    let arguments = ["--data-dir", data.to_str().unwrap()];
    for (name, published, question, answer) in [
        ("aime2024", "aime2024.jsonl", "problem", "answer"),
        ("amc12", "amc12.json", "problem", "answer"),
        ("math500", "math500.jsonl", "problem", "answer"),
        ("gsm8k", "gsm8k_test.jsonl", "question", "answer"),
    ] {
        let Some(path) = file("data", data.join(published)) else { continue };
        let pair = |row: Value| {
            let gold = row[answer].as_str().map_or_else(|| row[answer].as_f64().unwrap().to_string(), str::to_owned);
            let gold = gold.rsplit("####").next().unwrap().trim().to_owned();
            (row[question].as_str().unwrap().to_owned(), gold)
        };
        let golds = rows(&path).into_iter().map(pair).collect();
        right_and_wrong(name, with, &arguments, golds, "-987654.5", |it| format!("So it is \\boxed{{{it}}}."));
    }

    let (Some(path), Some(_)) = (file("data", data.join("humanevalplus-inputs.jsonl.gz")), sandbox()) else { return };
    let program = |row: Value| {
        let text = |name: &str| row[name].as_str().unwrap().to_owned();
        (text("prompt"), format!("{}{}", text("prompt"), text("canonical_solution")))
    };
    let golds: Vec<(String, String)> = rows(&path).into_iter().map(program).collect();
    for name in ["humaneval", "humaneval+"] {
        let wrong = "def has_close_elements(numbers, threshold):\n    return 'rft'";
        right_and_wrong(name, with, &arguments, golds.clone(), wrong, |it| format!("```python\n{it}\n```"));
    }
}

/// Fixtures with the published columns, and answers that the maintainers' graders accept or reject, see
/// `tests/oracle/benchmarks.py`.
const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/benchmarks");

/// The rows of a fixture, and others of the same form up to the number of rows of the published file.
fn completed(name: &str, rows: usize) -> (Vec<Value>, String) {
    let file = fs::read_to_string(Path::new(FIXTURES).join(format!("{name}.jsonl"))).unwrap();
    let fixture: Vec<Value> = file.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let descriptions = if name == "amo-bench" { 10 } else { 0 };
    let more = (fixture.len()..rows).map(|i| {
        let mut row = fixture[0].clone();
        if i < fixture.len() + descriptions {
            row["answer_type"] = "description".into();
        }
        row
    });
    let rows: Vec<Value> = fixture.iter().cloned().chain(more).collect();
    (fixture, rows.iter().map(|row| format!("{row}\n")).collect())
}

/// Answers are graded as the maintainers of each benchmark grade them: sets, intervals, lists, matrices and expressions.
#[test]
fn special_answers_are_graded_as_by_the_maintainers() {
    let behavior = like_tiny();
    let folder = folder_with_model();
    let table = fs::read_to_string(Path::new(FIXTURES).join("answers.tsv")).unwrap();
    let answers: Vec<Vec<&str>> =
        table.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('\t').collect()).collect();
    for (name, rows, question) in [
        ("aime2026", 30, "problem"),
        ("hmmt-feb-2026", 33, "problem"),
        ("beyond-aime", 100, "problem"),
        ("math-perturb-simple", 279, "problem"),
        ("math-perturb-hard", 279, "problem"),
        ("gsm-symbolic", 5_000, "question"),
        ("gsm-symbolic-p1", 5_000, "question"),
        ("gsm-symbolic-p2", 2_500, "question"),
        ("amo-bench", 50, "prompt"),
        ("amo-bench-p", 50, "prompt"),
        ("olymmath-en-easy", 100, "problem"),
        ("olymmath-en-hard", 100, "problem"),
        ("olymmath-zh-easy", 100, "problem"),
        ("olymmath-zh-hard", 100, "problem"),
    ] {
        let of = name.trim_end_matches("-p");
        let (fixture, content) = completed(of, rows);
        let data = tempfile::tempdir().unwrap();
        let file = match of.strip_prefix("olymmath-") {
            Some(part) => format!("OlymMATH-{}.jsonl", part.to_uppercase()),
            None => format!("{}.jsonl", of.replace('-', "_")),
        };
        fs::write(data.path().join(file), content).unwrap();
        // The last row of AMO-Bench's fixture is the one that its part by rules does not have.
        let limit = fixture.len() - usize::from(name == "amo-bench-p");
        let arguments = ["--data-dir", data.path().to_str().unwrap(), "--limit", &limit.to_string()];
        let best = if name == "amo-bench" { "75.0 %" } else { "100.0 %" };
        for (column, score) in [(2, best), (3, "0.0 %")] {
            let texts = fixture.iter().enumerate().map(|(i, row)| {
                let answer = answers.iter().find(|it| it[0] == of && it[1] == i.to_string());
                (row[question].as_str().unwrap().to_owned(), answer.map_or("?", |it| it[column]).to_owned())
            });
            let texts: Vec<(String, String)> = texts.collect();
            let reply = move |prompt: &str| format!("So \\boxed{{{}}}.", gold_of(prompt, &texts));
            assert_eq!(printed(name, (folder.path(), &behavior), &arguments, reply), score, "{name}");
        }
    }
}

/// A description is undecided, which a note under the table reports.
#[test]
fn descriptions_are_undecided() {
    let folder = folder();
    let (_, content) = completed("amo-bench", 50);
    fs::write(folder.path().join("amo_bench.jsonl"), content).unwrap();
    let args =
        ["eval", "--bench=amo-bench", "--data-dir=.", "--ppe=none", "--samples=1", "--limit=4", "--max-tokens=4"];
    let output = rft(folder.path()).args(args).args(["--out=e"]).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let note = "note: `amo-bench`: the answers of 11 of 50 questions are descriptions, which rules cannot grade; they are \
                undecided, so the accuracy is at most 78.0 %";
    assert!(printed.contains(note), "{printed}");
    let grades = fs::read_to_string(folder.path().join("e/amo-bench/grades.jsonl")).unwrap();
    let last: Value = serde_json::from_str(grades.lines().nth(3).unwrap()).unwrap();
    assert_eq!(last["verdict"]["undecided"], "the gold answer is a description, which rules cannot grade");
    let again = rft(folder.path()).args(["eval", "regrade", "e"]).output().unwrap();
    assert!(again.status.success());
    assert_eq!(fs::read_to_string(folder.path().join("e/amo-bench/grades.jsonl")).unwrap(), grades);
}

#[test]
fn unknown_and_missing_columns_are_named() {
    let folder = folder();
    let (_, content) = completed("aime2026", 30);
    let said = |content: String| {
        fs::write(folder.path().join("aime2026.jsonl"), content).unwrap();
        error(&folder, &["eval", "--bench=aime2026", "--data-dir=."])
    };
    let expected = "; MathArena/aime_2026 has problem_idx, answer, problem\n";
    let text = said(content.replace("\"answer\"", "\"gold\""));
    assert!(
        text.contains("missing column `answer`, unknown column `gold`; found: ") && text.contains(expected),
        "{text}"
    );
    // In the second row only.
    let twice = content.replacen("\"answer\"", "\"source\":\"I\",\"answer\"", 2);
    let text = said(twice.replacen("\"source\":\"I\",", "", 1));
    assert!(text.contains("line 2: unknown column `source`; found: ") && text.contains(expected), "{text}");
    let three = content.lines().take(3).map(|line| format!("{line}\n")).collect();
    let text = said(three);
    assert!(text.contains("has 3 questions, but MathArena/aime_2026 has 30\n"), "{text}");
}
