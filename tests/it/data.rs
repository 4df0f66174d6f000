//! Data sets: every format gives the same questions, and errors in a file are reported with their position.

use std::io::Write;
use std::path::{Path, PathBuf};

use parquet::basic::Compression;
use rft::config::{DataSection, Take};
use rft::data::{LoadedData, Question, load};

use crate::parquet_file::{self, Leaf};
use crate::require::{data, file};

fn section(path: &Path) -> DataSection {
    DataSection {
        path: path.to_str().unwrap().to_owned(),
        revision: "main".to_owned(),
        split: "train".to_owned(),
        question_column: None,
        answer_column: None,
        take: Take::Head,
        max_questions: None,
        decontaminate: false,
        max_unreadable: 0.05,
        pass_rate: None,
        difficulty: None,
        shuffle: true,
        levels: vec![1],
    }
}

fn no_hub(id: &str, _: &str, _: &str) -> anyhow::Result<Vec<PathBuf>> {
    panic!("unexpected request to the Hub for {id}")
}

/// Writes a file of this name and loads it.
fn load_bytes(name: &str, bytes: &[u8]) -> anyhow::Result<LoadedData> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    load(&section(&path), 0, 0, &no_hub)
        .map_err(|error| anyhow::anyhow!(format!("{error:#}").replace(folder.path().to_str().unwrap(), "DIR")))
}

fn load_text(name: &str, text: &str) -> anyhow::Result<LoadedData> {
    load_bytes(name, text.as_bytes())
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

fn pairs(loaded: &LoadedData) -> Vec<(&str, &str)> {
    loaded.questions.iter().map(|it| (it.text.as_str(), it.gold.as_str())).collect()
}

/// A Parquet file of the columns `problem` (text), `answer` (double) and `level` (int32, with a null).
pub fn parquet() -> Vec<u8> {
    let schema = "message m { required binary problem (UTF8); required double answer; optional int32 level; }";
    let leaves = [
        Leaf::text(["What is 1 + 1?", "Half of \"é\", 1?\nSay it."]),
        Leaf::f64([2.0, 0.5]),
        Leaf::i32([3]).levels(&[(1, 0), (0, 0)]),
    ];
    parquet_file::parquet(schema, Compression::SNAPPY, &leaves)
}

#[test]
fn every_format_gives_the_same_questions() {
    let lines = "{\"problem\": \"What is 1 + 1?\", \"answer\": 2.0}\n\n{\"answer\": 0.5, \"problem\": \"Half of \\\"é\\\", 1?\\nSay it.\"}\n";
    let array = "[{\"problem\": \"What is 1 + 1?\", \"answer\": 2}, {\"problem\": \"Half of \\\"é\\\", 1?\\nSay it.\", \"answer\": \"0.5\"}]";
    let csv = "\u{feff}Problem,level,Answer\r\nWhat is 1 + 1?,3,2\r\n\"Half of \"\"é\"\", 1?\nSay it.\",,0.5\r\n";
    let expected = [("What is 1 + 1?", "2"), ("Half of \"é\", 1?\nSay it.", "0.5")];
    for (name, bytes) in [
        ("a.jsonl", lines.into()),
        ("a.ndjson", lines.into()),
        ("lines.json", lines.into()),
        ("a.json", array.into()),
        ("a.csv", csv.into()),
        ("a.parquet", parquet()),
        ("a.jsonl.gz", gzip(lines.as_bytes())),
        ("a.JSON.gz", gzip(array.as_bytes())),
        ("a.csv.gz", gzip(csv.as_bytes())),
    ] {
        let loaded = load_bytes(name, &bytes).unwrap();
        assert_eq!(pairs(&loaded), expected, "{name}");
        assert_eq!(loaded.warnings, [""; 0], "{name}");
        assert_eq!(loaded.sha256.len(), 64);
    }
}

#[test]
fn errors_in_data_are_reported_with_their_place() {
    let good = r#"{"question": "1 + 1?", "answer": "2"}"#;
    let message = |name: &str, text: &str| format!("{:#}", load_text(name, text).unwrap_err());
    for (name, text, expected) in [
        (
            "a.jsonl",
            r#"{"task": "1 + 1?", "answer": "2"}"#,
            "`DIR/a.jsonl` has no column `question` or `problem` or `prompt`; found: task, answer\n\
             hint: set the columns with --question-column and --answer-column",
        ),
        (
            "a.csv",
            "question,solution\n1 + 1?,2\n",
            "`DIR/a.csv` has no column `answer`; found: question, solution\n\
             hint: set the columns with --question-column and --answer-column",
        ),
        ("a.jsonl", "", "`DIR/a.jsonl` has no questions (0 rows)"),
        ("a.csv", "question,answer\n", "`DIR/a.csv` has no questions (0 rows)"),
        ("a.json", "[]", "`DIR/a.json` has no questions (0 rows)"),
        ("a.jsonl", r#"{"question": " ", "answer": null}"#, "`DIR/a.jsonl` has no questions (1 rows)"),
        (
            "a.jsonl",
            &format!("{good}\n\n{{\"question\": \"2 + 2?\", \"answer\": [4, 5]}}"),
            "`DIR/a.jsonl` line 3: column `answer`: expected text or a number, found a list\n\
             hint: write one text or number, or a list of one",
        ),
        (
            "a.json",
            &format!("[{good}, {{\"question\": true, \"answer\": \"2\"}}]"),
            "`DIR/a.json` item 2: column `question`: expected text or a number, found a boolean\n\
             hint: convert the column to text",
        ),
        (
            "a.jsonl",
            &format!("{good}\n{{\"question\": \"2 + 2?\"}}"),
            "`DIR/a.jsonl` line 2: column `answer`: missing; the row has question",
        ),
        (
            "a.jsonl",
            &format!("{good}\n{{\"question\": \"2 + "),
            "read `DIR/a.jsonl`: line 2 is not a JSON object: EOF while parsing a string at column 17",
        ),
        (
            "a.jsonl",
            "12",
            "read `DIR/a.jsonl`: line 1 is not a JSON object: invalid type: integer `12`, expected an object at column 2",
        ),
        (
            "a.json",
            "[1]",
            "read `DIR/a.json`: item 1 is not a JSON object: invalid type: integer `1`, expected an object at column 1",
        ),
        (
            "a.csv",
            "question,answer\n1 + 1?,2\n2 + 2?\n",
            "read `DIR/a.csv`: CSV error: record 2 (line: 3, byte: 25): found record with 1 fields, but the previous record has 2 fields",
        ),
        ("a.csv", "answer,answer\n1,2\n", "read `DIR/a.csv`: two columns have the name `answer`"),
        (
            "a.txt",
            good,
            "read `DIR/a.txt`: unknown format\nhint: use a file that ends in .jsonl, .ndjson, .json, .csv, .parquet, or in one of these and .gz",
        ),
        ("a.parquet", good, "read `DIR/a.parquet`: Parquet error: Invalid Parquet file. Corrupt footer"),
    ] {
        assert_eq!(message(name, text), expected);
    }
    // A row of commas alone would need fifty times its size in memory.
    let wide = ",".repeat(20_000);
    for (text, line) in [(format!("question,answer{wide}\n"), 1), (format!("question,answer\n{wide}\n"), 2)] {
        assert_eq!(message("a.csv", &text), format!("read `DIR/a.csv`: line {line}: more than 16384 columns"));
    }
    let torn = gzip(good.as_bytes());
    let error = format!("{:#}", load_bytes("a.jsonl.gz", &torn[..torn.len() - 9]).unwrap_err());
    assert!(error.starts_with("read `DIR/a.jsonl.gz`: damaged gzip file"), "{error}");
    let error = format!("{:#}", load_bytes("a.csv", b"question,answer\n\xff,2\n").unwrap_err());
    assert!(error.starts_with("read `DIR/a.csv`: not UTF-8 text"), "{error}");
    let error = format!("{:#}", load(&section(Path::new("no/such/file.jsonl")), 0, 0, &no_hub).unwrap_err());
    assert!(error.starts_with("there is no data file `no/such/file.jsonl`\nhint: "), "{error}");
}

#[test]
fn columns_can_be_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    std::fs::write(&path, r#"{"question": "wrong", "answer": "wrong", "task": "1 + 1?", "Gold": 1e3}"#).unwrap();
    let mut section = section(&path);
    section.question_column = Some("task".to_owned());
    section.answer_column = Some("Gold".to_owned());
    assert_eq!(pairs(&load(&section, 0, 0, &no_hub).unwrap()), [("1 + 1?", "1000")]);
    section.answer_column = Some("gold".to_owned());
    let error = load(&section, 0, 0, &no_hub).unwrap_err().to_string();
    assert!(
        error.contains("no column `gold`; found: question, answer, task, Gold\nhint: did you mean `Gold`?"),
        "{error}"
    );
}

#[test]
fn question_ids_are_taken_from_the_file() {
    let ids =
        |text: &str| load_text("a.jsonl", text).unwrap().questions.into_iter().map(|it| it.id).collect::<Vec<_>>();
    let row = |id: &str, n: usize| format!("{{\"id\": {id}, \"question\": \"{n}?\", \"answer\": \"{n}\"}}\n");
    assert_eq!(ids(&(row("\"x\"", 1) + &row("7", 2))), ["x", "7"]);
    // Ids that are not unique are ignored; a row's number also counts the ignored rows before it.
    assert_eq!(ids(&(row("7", 1) + &row("7", 1) + &row("7", 2))), ["1", "3"]);
}

#[test]
fn duplicates_empty_rows_and_lost_options_are_warned_about() {
    let row =
        |question: &str, answer: &str| serde_json::json!({ "question": question, "answer": answer }).to_string() + "\n";
    let text = [
        row("1 + 1?", "2"),
        row(" 1 +\n1? ", "2"),
        row("1 + 1?", "3"),
        row("", "3"),
        row("2 + 2?", ""),
        row("Which of the following is prime?", "7"),
        row("Which of the following is prime? (A) 4 (B) 7", "B"),
        row("Which of the following is prime?\n1. 4\n2. 7", "2"),
        row("What is best?", "(C)"),
        row("Which number is greater than 0.7?", "0.8"),
        row("How many of the 4 cats sleep, if 1. cat A and 2. cat B do?", "2"),
    ];
    let loaded = load_text("a.jsonl", &text.concat()).unwrap();
    assert_eq!(loaded.questions.len(), 7);
    let [empty, duplicates, contradicted, options] = loaded.warnings.as_slice() else {
        panic!("{:?}", loaded.warnings)
    };
    assert!(empty.starts_with("ignored 2 of 11 rows without a question or an answer: lines 4-5"), "{empty}");
    assert_eq!(duplicates, "2 duplicates removed");
    assert_eq!(contradicted, "1 of the duplicates had a different answer from the question kept, the first: 3");
    assert_eq!(options, "3 multiple-choice questions without their options: 6, 9, 10");
}

#[test]
fn a_hub_data_set_has_its_schema() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let hub = |id: &'static str, paths: Vec<PathBuf>| {
        let fetch = move |asked: &str, revision: &str, split: &str| {
            assert_eq!((asked, revision, split), (id, "main", "train"));
            Ok(paths.clone())
        };
        load(&section(Path::new(id)), 0, 0, &fetch)
    };

    let one = file("one.jsonl", "{\"question\": \"1 + 1?\", \"answer\": \"It is <<1+1=2>>2.\\n#### 1,002\"}");
    let two = file("two.jsonl", "{\"question\": \"2 + 2?\", \"answer\": \"#### 4\"}");
    let loaded = hub("openai/gsm8k", vec![one.clone(), two]).unwrap();
    assert_eq!(pairs(&loaded), [("1 + 1?", "1,002"), ("2 + 2?", "4")]);
    assert_eq!(
        loaded.questions[1],
        Question {
            id: "1-1".to_owned(),
            text: "2 + 2?".to_owned(),
            gold: "4".to_owned(),
            source: "openai/gsm8k".to_owned(),
            extra: serde_json::Map::new()
        }
    );
    assert_eq!(loaded.warnings, ["`openai/gsm8k`: expected 7,473 rows, found 2"]);
    let unmarked = file("unmarked.jsonl", r#"{"question": "1 + 1?", "answer": "2"}"#);
    let error = hub("openai/gsm8k", vec![unmarked.clone()]).unwrap_err().to_string();
    assert!(error.contains("has no `####`"), "{error}");

    let still = hub("RUC-AIBOX/STILL-3-Preview-RL-Data", vec![unmarked]).unwrap();
    assert_eq!(still.warnings, ["`RUC-AIBOX/STILL-3-Preview-RL-Data`: expected 29,925 rows, found 1"]);
    let scaler = file("d.json", r#"[{"problem": "P", "answer": "1", "solution": "S", "prompt": "X"}]"#);
    assert_eq!(pairs(&hub("agentica-org/DeepScaleR-Preview-Dataset", vec![scaler.clone()]).unwrap()), [("P", "1")]);

    // An existing file has precedence over the Hub; a copy of gsm8k is recognized by its answers.
    assert_eq!(pairs(&load(&section(&one), 0, 0, &no_hub).unwrap()), [("1 + 1?", "1,002")]);
}

#[test]
fn questions_are_held_out_before_training() {
    let rows: String = (0..50).map(|i| format!("{{\"question\": \"{i}?\", \"answer\": {i}}}\n")).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    std::fs::write(&path, rows).unwrap();
    let loaded = load(&section(&path), 1, 10, &no_hub).unwrap();
    assert_eq!((loaded.questions.len(), loaded.held_out.len()), (40, 10));
    assert!(loaded.held_out.iter().all(|it| !loaded.questions.contains(it)));
    let error = load(&section(&path), 1, 50, &no_hub).unwrap_err().to_string();
    assert!(error.ends_with("has only 50 questions, and 50 are held out\nhint: lower eval.questions"), "{error}");
}

#[test]
fn generated_questions_are_a_data_set() {
    let mut section = section(Path::new("arithmetic"));
    section.max_questions = Some(30);
    let [one, other] = [1, 2].map(|seed| load(&section, seed, 20, &no_hub).unwrap());
    assert_eq!((one.questions.len(), one.held_out.len()), (30, 20));
    assert_ne!(one.questions, other.questions);
    assert_ne!(one.sha256, other.sha256);
    assert_eq!(one.held_out, other.held_out);
    section.split = "held-out".to_owned();
    assert_eq!(load(&section, 1, 0, &no_hub).unwrap().questions[..20], one.held_out);
    section.split = "dev".to_owned();
    assert!(load(&section, 1, 0, &no_hub).is_err());
}

/// The published data sets. Needs RFT_DATA_DIR.
#[test]
fn published_sets_load() {
    let Some(folder) = data() else { return };
    for (name, rows, first_gold) in [
        ("gsm8k_train.jsonl", 7_473, "72"),
        ("gsm8k_test.jsonl", 1_319, "18"),
        ("math500.jsonl", 500, "\\left( 3, \\frac{\\pi}{2} \\right)"),
        ("aime2024.jsonl", 30, "204"),
        ("amc12.json", 83, "142"),
        ("math_level3to5.json", 8_523, "118"),
    ] {
        let Some(path) = file("data", folder.join(name)) else { continue };
        let loaded = load(&section(&path), 0, 0, &no_hub).unwrap();
        eprintln!("{name}: {} questions, {:?}", loaded.questions.len(), loaded.warnings);
        assert!(loaded.questions.len() <= rows && loaded.questions.len() + rows / 20 >= rows, "{name}");
        assert_eq!(loaded.questions[0].gold, first_gold, "{name}");
        assert!(loaded.questions.iter().all(|it| !it.gold.contains("####")), "{name}");
    }
}
