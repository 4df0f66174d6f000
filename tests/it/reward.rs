//! `rft reward`: the bench finds the rules in order on real golds, single checks and files of them, and a run that refuses
//! data it cannot score.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::cli::{error, folder, help, rft, rft_path, with};

/// The report of a bench that must pass.
#[track_caller]
fn bench(args: &[&str]) -> Value {
    let folder = folder();
    let command = ["reward", "test", "--output-format", "json"];
    let output = rft(folder.path()).args(command).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["passed"], &report["failures"], &report["unreadable"]), (&json!(true), &json!([]), &json!([])));
    report
}

/// Without what a clock measured.
fn timeless(mut report: Value) -> Value {
    let strip = |counts: &mut Value| {
        let counts = counts.as_object_mut().unwrap();
        assert!(counts.remove("median_microseconds").is_some() && counts.remove("max_microseconds").is_some());
    };
    strip(&mut report["all"]);
    report["kinds"].as_array_mut().unwrap().iter_mut().for_each(strip);
    report
}

#[test]
fn the_rules_pass_on_the_embedded_data() {
    let report = bench(&[]);
    assert_eq!((&report["data"], &report["golds"]), (&json!("arithmetic"), &json!(500)));
    assert!(report["all"]["cases"].as_u64().unwrap() > 50_000, "{}", report["all"]);
    for args in [
        &["--ppe", "none"][..],
        &["--ppe", "planning", "--set", "reward.accuracy.scope=answer", "--set", "prompt.prefill=true"],
        &[
            "--set",
            "reward.gate=format",
            "--set",
            "reward.format_strict.weight=1",
            "--set",
            "reward.tag_count.weight=1",
        ],
    ] {
        assert_eq!(bench(&[args, &["--limit", "60"]].concat())["golds"], 60);
    }
}

/// Needs RFT_DATA_DIR.
#[test]
fn the_rules_pass_on_gsm8k() {
    let Some(data) = std::env::var_os("RFT_DATA_DIR") else {
        return eprintln!("skipped: RFT_DATA_DIR is not set");
    };
    let file = Path::new(&data).join("gsm8k_test.jsonl");
    assert_eq!(bench(&["--data", file.to_str().unwrap(), "--limit", "1319"])["golds"], 1_319);
}

#[test]
fn the_same_seed_gives_the_same_report() {
    let report = |seed: &str| timeless(bench(&["--limit", "40", "--seed", seed]));
    assert_eq!(report("1"), report("1"));
    assert_ne!(report("1"), report("2"));
}

#[test]
fn the_table_lists_what_is_wrong_and_the_limit_says_why_it_fails() {
    let rows = "{\"question\": \"How much is it?\", \"answer\": \"4\"}\n{\"question\": \"How many?\", \"answer\": \"\\\\frac{1}{\"}\n";
    let data = with("rows.jsonl", rows.as_bytes());
    let output = rft(data.path()).args(["reward", "test", "--data", "rows.jsonl"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_snapshot!(String::from_utf8(output.stderr).unwrap(), @"");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.starts_with("data     rows.jsonl: 2 gold answers, 1 of them unreadable\nprompt   reasoning\n"),
        "{text}"
    );
    assert!(text.contains("\n│ off by one "), "{text}");
    assert!(text.contains("gold answers that cannot be read:\n  question 2: `\\frac{1}{`: "), "{text}");

    let passing = ["reward", "test", "--data", "rows.jsonl", "--set", "data.max_unreadable=0.5"];
    rft(data.path()).args(passing).assert().success();
    assert_snapshot!(error(&data, &["reward", "test", "--data", "rows.jsonl", "--answer-column", "gold"]), @"");
}

#[test]
fn a_run_refuses_data_that_it_cannot_score() {
    let row =
        |i: usize, gold: &str| json!({ "question": format!("What is {i} + 1?"), "answer": gold }).to_string() + "\n";
    let mut rows: String = (0..17).map(|i| row(i, &(i + 1).to_string())).collect();
    rows += &(17..20).map(|i| row(i, r"\frac{1}{")).collect::<String>();
    let data = with("rows.jsonl", rows.as_bytes());
    let train =
        ["train", "--data=rows.jsonl", "--steps=1", "--set=rollout.prompts_per_step=1", "--set=eval.questions=0"];
    assert_snapshot!(error(&data, &train), @"");
    assert!(!data.path().join("runs").exists(), "a run that cannot start leaves nothing behind");

    let few = ["--set=data.max_unreadable=0.2", "--set=rollout.num_generations=2", "--name=few"];
    let output = rft(data.path()).args(train).args(few).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("note     3 of 20 training questions left out: gold answer unreadable (first: question 18: "),
        "{said}"
    );
    assert!(!said.contains("the reward, tried on"), "{said}");
}

#[test]
fn one_answer_is_checked_and_explained() {
    let check = |args: &[&str]| {
        let folder = folder();
        let output = rft(folder.path()).args(["reward", "check"]).args(args).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let half = ["--gold", r"\frac{1}{2}"];
    assert_snapshot!(check(&[&half[..], &["--answer", r"\boxed{2}, no: \boxed{0.5}"]].concat()), @"");
    assert_snapshot!(check(&[&half[..], &["--answer", "it is 0.5"]].concat()), @"");
    assert_snapshot!(check(&[&half[..], &["--answer", "-0.5", "--bare"]].concat()), @"");
    assert_snapshot!(check(&[&half[..], &["--answer", r"\boxed{@@}"]].concat()), @"");
    assert_snapshot!(check(&[&half[..], &["--answer", r"\boxed{0.5} <answer>\boxed{2}</answer>", "--scope", "answer"]].concat()), @"");
    assert_snapshot!(check(&[&half[..], &["--answer", "The answer is: 0.5", "--mode", "eval"]].concat()), @"");
    let explained = check(&["--gold", "1/2", "--answer", "0.5", "--bare", "--explain"]);
    let words: Vec<&str> = explained.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(["extracted", "gold", "answer", "rule", "verdict"].iter().all(|it| words.contains(it)), "{explained}");
}

const ROWS: &str = concat!(
    r#"{"id": 3, "gold": "7", "answer": "\\boxed{7}", "extra": {"b": 1, "a": [2]}}"#,
    "\n\n",
    r#"{"answer": "it is 7", "gold": 7}"#,
    "\n",
    r#"{"gold": "7", "answer": "\\boxed{8}"}"#,
    "\n",
    r#"{"gold": "\\frac{1}{", "answer": "\\boxed{8}"}"#,
);

#[test]
fn a_file_of_answers_comes_back_with_verdicts() {
    let rows = with("rows.jsonl", ROWS.as_bytes());
    let output = rft(rows.path()).args(["reward", "check", "--jsonl", "rows.jsonl"]).output().unwrap();
    assert!(output.status.success());
    let said = String::from_utf8(output.stdout).unwrap();
    assert_snapshot!(said, @"");
    // From stdin, the same.
    let piped = rft(rows.path()).args(["reward", "check", "--jsonl", "-"]).write_stdin(ROWS).output().unwrap();
    assert_eq!(String::from_utf8(piped.stdout).unwrap(), said);
    let bare = r#"{"gold": "1/2", "answer": "0.5"}"#;
    let output =
        rft(rows.path()).args(["reward", "check", "--bare", "--jsonl", "-"]).write_stdin(bare).output().unwrap();
    assert_snapshot!(String::from_utf8(output.stdout).unwrap(), @"");
}

#[test]
fn an_evaluation_finds_answers_outside_boxes() {
    let check = ["reward", "check", "--mode", "eval", "--jsonl", "-"];
    let rows = concat!(
        r#"{"gold": "7", "answer": "so \\boxed{7}, with 8 left over"}"#,
        "\n",
        r#"{"gold": "7", "answer": "2 + 5 is #### 7"}"#,
        "\n",
        r#"{"gold": "7", "answer": "there are 7 of 9"}"#,
        "\n",
        r#"{"gold": "7", "answer": "I do not know"}"#,
        "\n",
    );
    let output = rft(folder().path()).args(check).write_stdin(rows).output().unwrap();
    assert_snapshot!(String::from_utf8(output.stdout).unwrap(), @"");
    assert_snapshot!(error(&folder(), &["reward", "check", "--jsonl", "x", "--mode", "eval", "--scope", "answer"]), @"");
}

#[test]
fn a_row_that_cannot_be_checked_is_named() {
    for (rows, place) in [
        ("{\"gold\": \"1\", \"answer\": \"1\"}\n{\"gold\": \"1\"}\n", "no answer"),
        ("{\"gold\": \"1\", \"answer\": [1]}\n", "a list"),
        ("[1]\n", "no object"),
        ("\n{\"gold\": \"1\", \"ans", "torn"),
    ] {
        let folder = with("rows.jsonl", rows.as_bytes());
        let output = rft(folder.path()).args(["reward", "check", "--jsonl", "rows.jsonl", "--bare"]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        // The rows before it were written.
        assert_eq!(output.stdout.is_empty(), place != "no answer");
        fs::write(folder.path().join(place), output.stderr).unwrap();
        let said = fs::read_to_string(folder.path().join(place)).unwrap();
        match place {
            "no answer" => assert_snapshot!(said, @""),
            "a list" => assert_snapshot!(said, @""),
            "no object" => assert_snapshot!(said, @""),
            _ => assert_snapshot!(said, @""),
        }
    }
    assert_snapshot!(error(&folder(), &["reward", "check", "--jsonl", "none.jsonl"]), @"");
}

/// Rows are answered one by one, so that a program may ask, read and ask again; and who has read enough may go.
#[test]
fn rows_are_answered_as_they_come() {
    let mut child = Command::new(rft_path())
        .args(["reward", "check", "--jsonl", "-", "--bare"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    for answer in 0..3 {
        writeln!(input, "{{\"gold\": \"1\", \"answer\": \"{answer}\"}}").unwrap();
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let row: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(row["verdict"], if answer == 1 { "correct" } else { "wrong" });
    }
    drop(output);
    // It meets the closed pipe at its next line, and everything after that may find no reader either.
    for _ in 0..100 {
        if writeln!(input, "{{\"gold\": \"1\", \"answer\": \"1\"}}").is_err() {
            break;
        }
    }
    drop(input);
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success() && ended.stderr.is_empty(), "{}", String::from_utf8_lossy(&ended.stderr));
}

#[test]
fn what_does_not_go_together_is_refused() {
    for args in
        [&["--gold", "1"][..], &[], &["--gold", "1", "--answer", "1", "--jsonl", "x"], &["--jsonl", "x", "--explain"]]
    {
        let folder = folder();
        let output = rft(folder.path()).args(["reward", "check"]).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn help_of_reward() {
    assert_snapshot!(help(&["reward"]), @"");
}

#[test]
fn help_of_reward_test() {
    assert_snapshot!(help(&["reward", "test"]), @"");
}

#[test]
fn help_of_reward_check() {
    assert_snapshot!(help(&["reward", "check"]), @"");
}
