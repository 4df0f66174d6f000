//! Data, benchmark and prompt files of every form: each is read as it is meant, or refused in one line before anything is
//! generated. Each test goes through the command to its output.

use std::fs;
use std::path::Path;

use parquet::basic::Compression;
use rft::model::embedded;
use serde_json::Value;
use tempfile::TempDir;

use crate::cli::{error, folder, rft, with};
use crate::code_eval::sandbox;
use crate::hub;
use crate::parquet_file::{Leaf, parquet};

/// Two questions, whose answers are 5 and 9.
const TWO: &str =
    "{\"question\": \"What is 2 + 3?\", \"answer\": \"5\"}\n{\"question\": \"What is 4 + 5?\", \"answer\": \"9\"}\n";

/// The output and the messages of a command that succeeds.
#[track_caller]
fn output(folder: &TempDir, args: &[&str]) -> (String, String) {
    let output = rft(folder.path()).args(args).output().unwrap();
    let (printed, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{args:?}: {said}");
    (printed, said)
}

/// An evaluation of `file` by the embedded model: the printed scores, and the questions and gold answers in the result.
#[track_caller]
fn evaluated(folder: &TempDir, file: &str, more: &[&str]) -> (String, Vec<(String, String)>) {
    let (bench, out) = (format!("--bench={file}"), format!("out-{file}"));
    let start = ["eval", &bench, "--ppe=none", "--max-tokens=1", "--out", &out];
    let (printed, _) = output(folder, &[&start, more].concat());
    let bench = fs::read_dir(folder.path().join(out)).unwrap().flatten().find(|it| it.path().is_dir()).unwrap();
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    let rows = fs::read_to_string(bench.path().join("questions.jsonl")).unwrap();
    let rows = rows.lines().map(|line| serde_json::from_str(line).unwrap());
    (printed, rows.map(|row: Value| (text(&row, "question"), text(&row, "gold"))).collect())
}

/// The gold answers of a file with this name and these bytes.
#[track_caller]
fn golds(name: &str, bytes: impl AsRef<[u8]>, more: &[&str]) -> Vec<String> {
    evaluated(&with(name, bytes.as_ref()), name, more).1.into_iter().map(|(_, gold)| gold).collect()
}

/// The error of an evaluation of a file with this name and these bytes.
#[track_caller]
fn refusal(name: &str, bytes: impl AsRef<[u8]>) -> String {
    error(&with(name, bytes.as_ref()), &["eval", "--bench", name, "--ppe=none", "--max-tokens=1", "--out=o"])
}

#[test]
fn two_benchmarks_never_share_a_name() {
    let folder = folder();
    for name in ["a/test.jsonl", "b/test.jsonl", "数学.jsonl", "物理.jsonl", "gsm8k.jsonl", "--.jsonl"] {
        fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
        fs::write(folder.path().join(name), TWO).unwrap();
    }
    let eval = |bench| ["eval", "--ppe=none", "--max-tokens=2", "--out=o", bench];
    let said = error(&folder, &eval("--bench=a/test.jsonl,b/test.jsonl"));
    assert!(
        said.starts_with("error: `a/test.jsonl` and `b/test.jsonl` are benchmarks with the same name, `test`\nhint: "),
        "{said}"
    );
    let said = error(&folder, &eval("--bench=arithmetic-1,ARITHMETIC-1"));
    assert!(said.contains("the same name, `arithmetic-1`"), "{said}");
    let said = error(&folder, &eval("--bench=./--.jsonl"));
    assert!(said.contains("has no letter or digit"), "{said}");
    assert!(!folder.path().join("o").exists(), "nothing is generated before the error");

    let (printed, _) = output(&folder, &eval("--bench=数学.jsonl,物理.jsonl,gsm8k.jsonl"));
    for name in ["数学", "物理", "gsm8k-file"] {
        assert!(printed.contains(&format!("│ {name} ")) && folder.path().join("o").join(name).is_dir(), "{printed}");
    }
}

#[test]
fn samples_of_another_file_with_the_same_name_are_not_touched() {
    let folder = folder();
    for (name, text) in [("a/test.jsonl", TWO.to_owned()), ("b/test.jsonl", TWO.replace('3', "7"))] {
        fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
        fs::write(folder.path().join(name), text).unwrap();
    }
    let eval = |bench| ["eval", "--ppe=none", "--max-tokens=2", "--out=o", bench];
    output(&folder, &eval("--bench=a/test.jsonl"));
    let files =
        || ["questions.jsonl", "benchmark.json"].map(|it| fs::read(folder.path().join("o/test").join(it)).unwrap());
    let before = files();
    let said = error(&folder, &eval("--bench=b/test.jsonl"));
    assert!(said.contains("has a sample of question 1 with other settings"), "{said}");
    assert!(files() == before);
}

#[test]
fn an_evaluation_names_and_counts_dropped_rows() {
    let lines = "{\"question\": \"1 + 1?\", \"answer\": \"2\"}\n{\"question\": \"\", \"answer\": \"5\"}\n\n\
                 {\"question\": \"1 + 2?\", \"answer\": null}\n{\"question\": \"1 + 3?\", \"answer\": []}\n\
                 {\"question\": \"1 + 4?\", \"answer\": [null]}\n{\"question\": \"1 + 5?\", \"answer\": 6}\n\
                 {\"question\": \"1 + 6?\", \"answer\": \"So \\\\boxed{}.\"}\n";
    let (printed, questions) = evaluated(&with("a.jsonl", lines.as_bytes()), "a.jsonl", &[]);
    assert_eq!(questions.len(), 2);
    let note = "\nnote: `a`: ignored 5 of 7 rows without a question or an answer: lines 2, 4-6, 8\n";
    assert!(printed.contains(note), "{printed}");

    let schema = "message m { optional binary question (UTF8); optional double answer; }";
    let leaves = [
        Leaf::text(["1 + 1?", "1 + 2?"]).levels(&[(1, 0), (0, 0), (1, 0)]),
        Leaf::f64([2.0, 3.0, f64::NAN]).levels(&[(1, 0); 3]),
    ];
    let file = with("a.parquet", &parquet(schema, Compression::SNAPPY, &leaves));
    let (printed, questions) = evaluated(&file, "a.parquet", &[]);
    assert_eq!(questions, [("1 + 1?".to_owned(), "2".to_owned())]);
    assert!(printed.contains("ignored 2 of 3 rows without a question or an answer: rows 2-3\n"), "{printed}");
    let (_, said) = output(&with("a.jsonl", lines.as_bytes()), &["reward", "test", "--data=a.jsonl"]);
    assert!(said.contains("ignored 5 of 7 rows"), "training counts them in the same way: {said}");
}

#[test]
fn every_parquet_codec_is_read() {
    let schema = "message m { required binary question (UTF8); required int32 answer; }";
    let gzip = Compression::GZIP(Default::default());
    let brotli = Compression::BROTLI(Default::default());
    let zstd = Compression::ZSTD(Default::default());
    for codec in
        [Compression::UNCOMPRESSED, Compression::SNAPPY, gzip, brotli, zstd, Compression::LZ4, Compression::LZ4_RAW]
    {
        let leaves = [Leaf::text(["What is 2 + 3?", "What is 4 + 5?"]), Leaf::i32([5, 9])];
        assert_eq!(golds("a.parquet", parquet(schema, codec, &leaves), &[]), ["5", "9"], "{codec}");
    }
}

#[test]
fn parquet_numbers_have_the_digits_of_their_type() {
    let question = "required binary question (UTF8);";
    let golds = |answer: &str, leaf: Leaf, rows: usize| {
        let schema = format!("message m {{ {question} required {answer}; }}");
        let questions = Leaf::text((0..rows).map(|i| format!("{i}?")));
        golds("a.parquet", parquet(&schema, Compression::SNAPPY, &[questions, leaf]), &[])
    };
    assert_eq!(golds("float answer", Leaf::f32([3.17, 0.1, 2.0, 1e-3]), 4), ["3.17", "0.1", "2", "0.001"]);
    let half = |value: f32| half::f16::from_f32(value).to_le_bytes().to_vec();
    let halves = Leaf::fixed([0.1, 2.5, 7.0].map(half));
    assert_eq!(golds("fixed_len_byte_array(2) answer (FLOAT16)", halves, 3), ["0.1", "2.5", "7"]);
    assert_eq!(golds("int32 answer (DECIMAL(9, 2))", Leaf::i32([-10, 314]), 2), ["-0.10", "3.14"]);
    let big = |value: i128| value.to_be_bytes().to_vec();
    let decimals = Leaf::fixed([big(1_124_000_727_777_607_680_000), big(-7)]);
    assert_eq!(
        golds("fixed_len_byte_array(16) answer (DECIMAL(38, 0))", decimals, 2),
        ["1124000727777607680000", "-7"]
    );
    assert_eq!(golds("int64 answer (UINT_64)", Leaf::i64([-1]), 1), ["18446744073709551615"]);
    assert_eq!(golds("double answer", Leaf::f64([0.1, 1e21]), 2), ["0.1", "1000000000000000000000"]);
}

#[test]
fn results_of_rounding_are_pointed_out() {
    let (printed, _) =
        evaluated(&with("a.jsonl", b"{\"question\": \"0.1 + 0.2?\", \"answer\": 0.30000000000000004}"), "a.jsonl", &[]);
    assert!(printed.contains("1 gold answers are numbers with at least 16 digits"), "{printed}");
}

#[test]
fn numbers_keep_the_digits_of_the_file() {
    let lines = "{\"question\": \"22!?\", \"answer\": 1124000727777607680000}\n{\"question\": \"b?\", \"answer\": 0.12345678901234567890123}\n\
                 {\"question\": \"c?\", \"answer\": 142.0}\n{\"question\": \"d?\", \"answer\": [-18446744073709551617]}\n";
    let expected = ["1124000727777607680000", "0.12345678901234567890123", "142", "-18446744073709551617"];
    assert_eq!(golds("a.jsonl", lines, &[]), expected);
    let array = format!("[{}]", lines.trim().replace('\n', ","));
    assert_eq!(golds("a.json", array, &[]), expected);

    let rows = "\u{feff}{\"gold\": 1124000727777607680000, \"answer\": \"22!\"}\r\n{\"gold\": 18446744073709551616, \"answer\": \"2^{64}\"}\r\n";
    let (printed, _) = output(&with("c.jsonl", rows.as_bytes()), &["reward", "check", "--jsonl=c.jsonl", "--bare"]);
    assert_eq!(printed.matches(r#""verdict":"correct""#).count(), 2, "{printed}");
    assert!(printed.starts_with(r#"{"gold":1124000727777607680000,"#), "{printed}");
}

/// A folder with the embedded model in `model`, whose chat template is in a separate file.
fn with_template(template: &str) -> TempDir {
    let folder = folder();
    let model = folder.path().join("model");
    fs::create_dir(&model).unwrap();
    for (name, bytes) in embedded::FILES {
        fs::write(model.join(name), bytes).unwrap();
    }
    fs::write(model.join("chat_template.jinja"), template).unwrap();
    folder
}

#[test]
fn line_breaks_and_byte_order_marks_do_not_reach_a_prompt() {
    let template = "{% for m in messages %}\n<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\n<|im_start|>assistant\n";
    let rendered = |template: &str| {
        output(&with_template(template), &["prompts", "render", "none", "--question=hi", "--model=model"]).0
    };
    let expected = rendered(template);
    for other in [
        template.replace('\n', "\r\n"),
        format!("\u{feff}{template}"),
        format!("\u{feff}{template}").replace('\n', "\r\n"),
    ] {
        assert_eq!(rendered(&other), expected);
    }

    let prior = "name = \"p\"\nanswer_tag = \"answer\"\ntext = \"\"\"One\nTwo.\"\"\"\n";
    let folder = folder();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let rendered = |text: &str| {
        write("p.toml", text);
        output(&folder, &["prompts", "render", "./p.toml", "--question=hi"]).0
    };
    let expected = rendered(prior);
    assert!(expected.contains("One\nTwo."));
    assert_eq!(rendered(&format!("\u{feff}{}", prior.replace('\n', "\r\n"))), expected);

    write("q.jsonl", TWO);
    let prompt = |name: &str, text: &str| {
        write(name, text);
        let template = format!("--prompt-template={name}");
        output(
            &folder,
            &["eval", "--bench=q.jsonl", "--ppe=none", "--max-tokens=1", &template, "--out", &format!("o-{name}")],
        );
        fs::read_to_string(folder.path().join(format!("o-{name}/q/questions.jsonl"))).unwrap()
    };
    let expected = prompt("lf.txt", "Solve:\n{question}\nShow your work.\n");
    assert!(expected.contains(r"Solve:\nWhat is 2 + 3?\nShow your work."));
    assert_eq!(prompt("crlf.txt", "\u{feff}Solve:\r\n{question}\r\nShow your work.\r\n"), expected);
}

#[test]
fn line_breaks_and_byte_order_marks_in_data_do_not_reach_a_question() {
    let questions = |name: &str, text: &str| evaluated(&with(name, text.as_bytes()), name, &[]).1;
    let expected = [("What is\n2 + 3?".to_owned(), "5".to_owned())];
    let csv = "question,answer\n\"What is\n2 + 3?\",5\n";
    let jsonl = "{\"question\": \"What is\\n2 + 3?\", \"answer\": \"5\"}\n\n";
    for (name, text) in [("a.csv", csv), ("a.jsonl", jsonl), ("a.ndjson", jsonl)] {
        assert_eq!(questions(name, text), expected);
        assert_eq!(questions(name, &format!("\u{feff}{}", text.replace('\n', "\r\n"))), expected, "{name}");
    }
}

#[test]
fn other_encodings_and_forms_are_named() {
    let utf16: Vec<u8> = TWO.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for bytes in [[b"\xff\xfe", &utf16[..]].concat(), utf16] {
        let said = refusal("a.jsonl", bytes);
        assert!(said.contains("UTF-16 text instead of UTF-8\nhint: convert it"), "{said}");
    }
    for (name, bytes, expected) in [
        ("a.csv", &b"question,answer\nWhat is 1 \xd7 1?,1\n"[..], "not UTF-8 text: byte 0xd7 in line 2\nhint: "),
        ("a.jsonl", b"\x1f\x8b\x08\x00", "compressed with gzip\nhint: "),
        (
            "a.json",
            b"{\"data\": [\n{\"question\": \"1?\", \"answer\": 1}\n]}",
            "one JSON object instead of rows\nhint: ",
        ),
        (
            "a.csv",
            b"question;answer\n1?;1\n",
            "expected columns separated by commas, found one column and `;` in its name",
        ),
        ("a.csv", b"question\tanswer\n1?\t1\n", "and `\\t` in its name"),
        ("a.csv", b"question,answer\nx,\"2", "line 2: a quoted field is not closed\nhint: "),
        ("a.csv", b"question,answer\n\"x\n,2\nz,3\n", "line 2: a quoted field is not closed"),
        ("a.csv", b"question,answer\nx,\"2\ny,\"3\"\n", "line 3: text after the closing quote of a field\nhint: "),
        ("a.csv", b"question,answer,question\nx,2,y\n", "two columns have the name `question`"),
        (
            "a.jsonl",
            b"{\"question\": \"1?\", \"answer\": 1, \"answer\": 2}",
            "line 1 is not a JSON object: two columns have the name `answer`",
        ),
        (
            "a.jsonl",
            b"{\"question\": \"1?\", \"answer\": NaN}",
            "line 1 is not a JSON object: expected value at column 30",
        ),
        (
            "a.jsonl",
            b"{\"question\": \"1?\", \"answer\": true}",
            "line 1: column `answer`: expected text or a number, found a boolean\nhint: ",
        ),
        (
            "a.jsonl",
            b"{\"question\": \"1?\", \"answer\": {\"value\": 1}}",
            "found an object\nhint: name one of its fields after a dot",
        ),
        ("a.jsonl", b"{\"question\": \"1?\", \"answer\": [1, 2]}", "found a list\nhint: write one text or number"),
        ("a.jsonl", b"{\"question\": \"1?\", \"answer\": \"\\ud800\"}", "line 1: column `answer`: "),
    ] {
        let said = refusal(name, bytes);
        assert!(said.contains(expected), "{}: {said}", String::from_utf8_lossy(bytes));
    }
    let schema = "message m { required binary question; required int32 answer; }";
    let leaves = [Leaf::bytes([b"1?".to_vec(), b"\xff?".to_vec()]), Leaf::i32([1, 2])];
    let said = refusal("a.parquet", parquet(schema, Compression::SNAPPY, &leaves));
    assert!(said.contains("row 2: column `question`: not UTF-8 text\nhint: "), "{said}");
    let schema = "message m { required binary question (UTF8); required int32 answer; required fixed_len_byte_array(12) t (INTERVAL); }";
    let leaves = [Leaf::text(["1?"]), Leaf::i32([1]), Leaf::fixed([vec![1; 12]])];
    let said = refusal("a.parquet", parquet(schema, Compression::SNAPPY, &leaves));
    assert!(said.contains("the column `t` contains intervals\nhint: "), "{said}");
}

#[test]
fn names_of_columns_do_not_flood_or_control_the_terminal() {
    let row = "{\"question\": \"1?\", \"answer\": 1}\n{\"question\": \"2?\", \"\\u001b[31m\": 2}\n";
    let said = refusal("a.jsonl", row);
    assert!(
        said.contains("line 2: column `answer`: missing; the row has question, ") && !said.contains('\u{1b}'),
        "{said:?}"
    );
    let header: Vec<String> = (0..16_000).map(|i| format!("c{i}")).collect();
    let row = vec!["1"; header.len()];
    let text = format!("{}\n{}\n", header.join(","), row.join(","));
    let said = error(&with("a.csv", text.as_bytes()), &["reward", "test", "--data=a.csv"]);
    assert!(
        said.contains("found: c0, c1, ") && said.contains(", and 15980 more\nhint: ") && said.len() < 600,
        "{said}"
    );
}

#[test]
fn files_that_are_not_regular_are_refused() {
    let folder = with("q.jsonl", TWO.as_bytes());
    std::os::unix::fs::symlink("/dev/zero", folder.path().join("zero.jsonl")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", folder.path().join("zero.toml")).unwrap();
    for (args, expected) in [
        (&["eval", "--bench=q.jsonl", "--ppe=./zero.toml"][..], "expected a TOML file"),
        (&["eval", "--bench=q.jsonl", "--ppe=none", "--prompt-template=zero.toml"], "not a regular file"),
        (&["eval", "--bench=q.jsonl", "--ppe=none", "--set=prompt.template=zero.toml"], "not a regular file"),
        (&["reward", "test", "--data=zero.jsonl"], "not a regular file"),
    ] {
        let said = error(&folder, args);
        assert!(said.contains(expected), "{said}");
    }
}

/// A parquet file in verl's form.
fn verl() -> Vec<u8> {
    let schema = "message m { required binary data_source (UTF8); \
                  required group prompt (LIST) { repeated group list { required group element { \
                  required binary role (UTF8); required binary content (UTF8); } } } \
                  required group reward_model { required binary ground_truth (UTF8); required binary style (UTF8); } }";
    let items = [(1, 0), (1, 1), (1, 0)];
    let leaves = [
        Leaf::text(["s", "s"]),
        Leaf::text(["system", "user", "user"]).levels(&items),
        Leaf::text(["Be brief.", "What is 2 + 3?", "What is 4 + 5?"]).levels(&items),
        Leaf::text(["5", "9"]),
        Leaf::text(["rule", "rule"]),
    ];
    parquet(schema, Compression::SNAPPY, &leaves)
}

#[test]
fn data_of_verl_and_trl_is_read() {
    let expected = [("What is 2 + 3?", "5"), ("What is 4 + 5?", "9")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    let folder = with("v.parquet", &verl());
    let (printed, questions) = evaluated(&folder, "v.parquet", &[]);
    assert_eq!(questions, expected);
    assert!(printed.contains("note: `v`: ignored the system messages of 1 rows"), "{printed}");
    let (printed, _) =
        output(&folder, &["reward", "test", "--data=v.parquet", "--answer-column=reward_model.ground_truth"]);
    assert!(printed.contains("v.parquet: 2 gold answers, 0 of them unreadable"), "{printed}");

    let questions = |lines: &str, more: &[&str]| evaluated(&with("a.jsonl", lines.as_bytes()), "a.jsonl", more).1;
    let trl = "{\"prompt\": [{\"role\": \"user\", \"content\": \"What is 2 + 3?\"}], \"answer\": \"5\"}\n\
               {\"prompt\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"What is 4 + 5?\"}]}], \"answer\": [\"9\"]}\n";
    assert_eq!(questions(trl, &[]), expected);
    let completions = trl
        .replace(
            "\"answer\": \"5\"",
            "\"completion\": [{\"role\": \"assistant\", \"content\": \"It is \\\\boxed{5}.\"}]",
        )
        .replace("\"answer\": [\"9\"]", "\"completion\": [{\"role\": \"assistant\", \"content\": \"9\"}]");
    assert_eq!(questions(&completions, &["--answer-column=completion"]), expected);
    let flat = "{\"q.text\": \"What is 2 + 3?\", \"a\": {\"b\": {\"c\": 5.0}}}\n{\"q.text\": \"What is 4 + 5?\", \"a\": {\"b\": {\"c\": 9}}}\n";
    assert_eq!(questions(flat, &["--question-column=q.text", "--answer-column=a.b.c"]), expected);

    let several = "{\"prompt\": [{\"role\": \"user\", \"content\": \"1?\"}, {\"role\": \"assistant\", \"content\": \"1\"}, \
                   {\"role\": \"user\", \"content\": \"2?\"}], \"answer\": \"5\"}\n";
    let said = refusal("a.jsonl", several);
    assert!(
        said.contains("expected a conversation of one user message, found the roles user, assistant, user"),
        "{said}"
    );
    let image = "{\"prompt\": [{\"role\": \"user\", \"content\": [{\"type\": \"image\"}]}], \"answer\": \"5\"}\n";
    assert!(refusal("a.jsonl", image).contains("a message has a part that is not text"));
}

#[test]
fn the_gold_of_a_worked_solution_is_its_last_box() {
    let lines = [
        r"{'problem': 'a', 'solution': 'We compute it. So the answer is $\\boxed{5}$.'}",
        r"{'problem': 'b', 'solution': 'First $\\boxed{1}$. Then\n\\[x = \\boxed{\\frac{9}{2}}.\\]\n[asy] draw((0,0)); [/asy]'}",
        r"{'problem': 'c', 'solution': 'So $x = \\boxed{2}$ or $\\boxed{3}$.'}",
        r"{'problem': 'd', 'solution': '\\boxed{7}'}",
        r"{'problem': 'e', 'solution': '$8$'}",
        r"{'problem': 'f', 'solution': 'Hence $n=\\fbox{10}$'}",
    ];
    let folder = with("train.jsonl", lines.join("\n").replace('\'', "\"").as_bytes());
    let columns = ["--question-column=problem", "--answer-column=solution"];
    let (_, questions) = evaluated(&folder, "train.jsonl", &columns);
    let golds: Vec<&str> = questions.iter().map(|(_, gold)| gold.as_str()).collect();
    assert_eq!(golds, ["5", r"\frac{9}{2}", "2, 3", "7", "$8$", "10"]);
    let (printed, _) = output(&folder, &[&["reward", "test", "--data=train.jsonl"], &columns[..]].concat());
    assert!(printed.contains("train.jsonl: 6 gold answers, 0 of them unreadable"), "{printed}");
}

/// `rft` with a Hub that serves `files`, in a folder.
fn with_hub(folder: &Path, stub: &hub::Stub) -> assert_cmd::Command {
    let mut command = rft(folder);
    command.env("HF_ENDPOINT", &stub.address).env("HF_HUB_CACHE", folder.join("cache")).env_remove("HF_HUB_OFFLINE");
    command
}

#[test]
fn a_split_is_only_the_files_of_its_name() {
    let row = |i: usize| format!("{{\"question\": \"What is {i} + 1?\", \"answer\": {}}}\n", i + 1);
    let rows = |n: usize| (0..n).map(row).collect::<String>().into_bytes();
    let files = [
        ("data/train-00000-of-00001.jsonl", rows(2)),
        ("data/train_1M-00000-of-00002.jsonl", rows(3)),
        ("data/train_1M-00001-of-00002.jsonl", (3..7).map(row).collect::<String>().into_bytes()),
    ];
    let stub = hub::Stub::start(hub::Hub::with(files));
    let folder = folder();
    let run = |args: &[&str]| {
        let output = with_hub(folder.path(), &stub).args(args).output().unwrap();
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    for (split, count) in [("train", 2), ("train_1M", 7)] {
        let set = format!("--set=data.split={split}");
        let (printed, said) = run(&["reward", "test", "--data=org/name", &set]);
        assert!(printed.contains(&format!("org/name: {count} gold answers")), "{printed}{said}");
        let (printed, said) = run(&["overlap", "org/name", "--split", split, "--bench=arithmetic-1"]);
        assert!(printed.starts_with(&format!("org/name: {count} questions")), "{printed}{said}");
    }
    let (_, said) = run(&["overlap", "org/name", "--split=train_2M"]);
    assert!(
        said.contains("unknown split `train_2M`; the repository has train, train_1M\nhint: select a split with"),
        "{said}"
    );
    assert!(said.contains("`rft overlap`: `--split train`"), "{said}");
}

#[test]
fn a_task_without_its_own_id_is_refused_before_anything_is_generated() {
    let Some(_) = sandbox() else { return };
    let task = |i: usize| {
        serde_json::json!({
            "task_id": format!("HumanEval/{}", i.min(100)), "entry_point": "f", "prompt": format!("def f(x):\n    # {i}\n"),
            "canonical_solution": "    return x\n", "contract": "", "atol": 0, "base_input": [[1]], "plus_input": [],
        })
    };
    let text: String = (0..164).map(|i| format!("{}\n", task(i))).collect();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, text.as_bytes()).unwrap();
    let folder = with("HumanEvalPlus.jsonl.gz", &gzip.finish().unwrap());
    let said =
        error(&folder, &["eval", "--bench=humaneval", "--data-dir=.", "--ppe=none", "--max-tokens=8", "--out=o"]);
    assert!(said.contains("question 1 has no tests\nhint: "), "{said}");
    assert!(!folder.path().join("o").exists());
}
