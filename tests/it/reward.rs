//! `rft reward`: the bench passes the rules on real gold answers, single checks and files of them, and a run that
//! refuses data that it cannot score.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::cli::{error, folder, help, rft, rft_path, with};
use crate::require::data;

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

/// Removes the measured times.
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
    let Some(folder) = data() else { return };
    let file = folder.join("gsm8k_test.jsonl");
    assert_eq!(bench(&["--data", file.to_str().unwrap(), "--limit", "1319"])["golds"], 1_319);
}

#[test]
fn the_same_seed_gives_the_same_report() {
    let report = |seed: &str| timeless(bench(&["--limit", "40", "--seed", seed]));
    assert_eq!(report("1"), report("1"));
    assert_ne!(report("1"), report("2"));
}

#[test]
fn unreadable_gold_answers_are_listed_and_limited() {
    let rows = "{\"question\": \"How much is it?\", \"answer\": \"4\"}\n{\"question\": \"How many?\", \"answer\": \"\\\\frac{1}{\"}\n";
    let data = with("rows.jsonl", rows.as_bytes());
    let output = rft(data.path()).args(["reward", "test", "--data", "rows.jsonl"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_snapshot!(String::from_utf8(output.stderr).unwrap(), @"error: the reward failed the test: 1 gold answers that cannot be read (50.00 %), more than 5 %");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.starts_with("data     rows.jsonl: 2 gold answers, 1 of them unreadable\nprompt   reasoning\n"),
        "{text}"
    );
    assert!(text.contains("\n│ off by one "), "{text}");
    assert!(text.contains("gold answers that cannot be read:\n  question 2: `\\frac{1}{`: "), "{text}");

    let passing = ["reward", "test", "--data", "rows.jsonl", "--set", "data.max_unreadable=0.5"];
    rft(data.path()).args(passing).assert().success();
    assert_snapshot!(error(&data, &["reward", "test", "--data", "rows.jsonl", "--answer-column", "gold"]), @"
    error: `rows.jsonl` has no column `gold`; found: question, answer
    hint: set the columns with --question-column and --answer-column
    ");
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
    assert_snapshot!(error(&data, &train), @r"
    error: the gold answers of 3 of 20 training questions cannot be read (15.0 %, more than 5 %): question 18: `\frac{1}{`: unexpected end; question 19: `\frac{1}{`: unexpected end; question 20: `\frac{1}{`: unexpected end
    hint: check `data.answer_column`, or raise `data.max_unreadable`, the maximum share of such questions
    ");
    assert!(!data.path().join("runs").exists(), "a run that cannot start does not create files");

    let few = ["--set=data.max_unreadable=0.2", "--set=rollout.num_generations=2", "--name=few"];
    let output = rft(data.path()).args(train).args(few).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("note     3 of 20 training questions left out: gold answer unreadable (first: question 18: "),
        "{said}"
    );
    assert!(!said.contains("reward tested on"), "{said}");
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
    assert_snapshot!(check(&[&half[..], &["--answer", r"\boxed{2}, no: \boxed{0.5}"]].concat()), @"
    extracted  0.5
    verdict    correct
    ");
    assert_snapshot!(check(&[&half[..], &["--answer", "it is 0.5"]].concat()), @"
    extracted  -
    verdict    wrong
    reason     no box
    ");
    assert_snapshot!(check(&[&half[..], &["--answer", "-0.5", "--bare"]].concat()), @"
    extracted  -0.5
    verdict    wrong
    ");
    assert_snapshot!(check(&[&half[..], &["--answer", r"\boxed{@@}"]].concat()), @"
    extracted  @@
    verdict    undecided
    reason     unexpected `@`
    ");
    assert_snapshot!(check(&[&half[..], &["--answer", r"\boxed{0.5} <answer>\boxed{2}</answer>", "--scope", "answer"]].concat()), @"
    extracted  2
    verdict    wrong
    ");
    assert_snapshot!(check(&[&half[..], &["--answer", "The answer is: 0.5", "--mode", "eval"]].concat()), @"
    extracted  0.5
    found by   answer
    verdict    correct
    ");
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
fn a_file_of_answers_is_printed_with_verdicts() {
    let rows = with("rows.jsonl", ROWS.as_bytes());
    let output = rft(rows.path()).args(["reward", "check", "--jsonl", "rows.jsonl"]).output().unwrap();
    assert!(output.status.success());
    let said = String::from_utf8(output.stdout).unwrap();
    assert_snapshot!(said, @r#"
    {"id":3,"gold":"7","answer":"\\boxed{7}","extra":{"b": 1, "a": [2]},"verdict":"correct","reason":null,"extracted":"7"}
    {"answer":"it is 7","gold":7,"verdict":"wrong","reason":"no box","extracted":null}
    {"gold":"7","answer":"\\boxed{8}","verdict":"wrong","reason":null,"extracted":"8"}
    {"gold":"\\frac{1}{","answer":"\\boxed{8}","verdict":"undecided","reason":"gold: unexpected end","extracted":"8"}
    "#);
    // From stdin, the same.
    let piped = rft(rows.path()).args(["reward", "check", "--jsonl", "-"]).write_stdin(ROWS).output().unwrap();
    assert_eq!(String::from_utf8(piped.stdout).unwrap(), said);
    let bare = r#"{"gold": "1/2", "answer": "0.5"}"#;
    let output =
        rft(rows.path()).args(["reward", "check", "--bare", "--jsonl", "-"]).write_stdin(bare).output().unwrap();
    assert_snapshot!(String::from_utf8(output.stdout).unwrap(), @r#"{"gold":"1/2","answer":"0.5","verdict":"correct","reason":null,"extracted":"0.5"}"#);
}

/// The question of a row decides whether a percent sign adds something.
#[test]
fn a_row_may_have_its_question() {
    let row = |question: &str, answer: &str| {
        let row = json!({"question": question, "gold": "60", "answer": answer});
        let check = ["reward", "check", "--bare", "--jsonl", "-"];
        let output = rft(folder().path()).args(check).write_stdin(row.to_string()).output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["verdict"].as_str().unwrap().to_owned()
    };
    assert_eq!(row("What percentage of the apples did she sell?", r"60\%"), "correct");
    assert_eq!(row("What percentage of the apples did she sell?", "0.6"), "wrong");
    assert_eq!(row("How many apples did she sell?", r"60\%"), "wrong");
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
    assert_snapshot!(String::from_utf8(output.stdout).unwrap(), @r#"
    {"gold":"7","answer":"so \\boxed{7}, with 8 left over","verdict":"correct","reason":null,"rule":"boxed","extracted":"7"}
    {"gold":"7","answer":"2 + 5 is #### 7","verdict":"correct","reason":null,"rule":"hashes","extracted":"7"}
    {"gold":"7","answer":"there are 7 of 9","verdict":"wrong","reason":null,"rule":"last-number","extracted":"9"}
    {"gold":"7","answer":"I do not know","verdict":"wrong","reason":"no answer","rule":null,"extracted":null}
    "#);
    assert_snapshot!(error(&folder(), &["reward", "check", "--jsonl", "x", "--mode", "eval", "--scope", "answer"]), @"
    error: --scope cannot be used with mode `eval`, which finds an answer anywhere
    hint: use --mode reward
    ");
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
        // The rows before it have been written.
        assert_eq!(output.stdout.is_empty(), place != "no answer");
        fs::write(folder.path().join(place), output.stderr).unwrap();
        let said = fs::read_to_string(folder.path().join(place)).unwrap();
        match place {
            "no answer" => assert_snapshot!(said, @"
            error: `rows.jsonl`: line 2: missing field `answer`; found: gold
            hint: a row has the fields `gold` and `answer`
            "),
            "a list" => assert_snapshot!(said, @"error: `rows.jsonl`: line 1: `answer` is not text or a number"),
            "no object" => {
                assert_snapshot!(said, @"error: `rows.jsonl`: line 1: not a JSON object: invalid type: sequence, expected an object at column 0")
            }
            _ => {
                assert_snapshot!(said, @"error: `rows.jsonl`: line 2: not a JSON object: EOF while parsing a string at column 18")
            }
        }
    }
    assert_snapshot!(error(&folder(), &["reward", "check", "--jsonl", "none.jsonl"]), @"error: read `none.jsonl`: No such file or directory (os error 2)");
}

/// Rows are answered one by one, so that a program can write, read and write again, and may stop reading.
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
    // It meets the closed pipe at its next line, and later writes may fail too.
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
fn conflicting_arguments_are_refused() {
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
    assert_snapshot!(help(&["reward"]), @"
    Test the reward, or check answers with it

    Usage: rft reward [OPTIONS] <COMMAND>

    Commands:
      test   Test the reward on the gold answers of a data set
      check  Check an answer, or a file of answers, against the gold answer
      help   Print this message or the help of the given subcommand(s)

    Options:
      -v, --verbose...  Print more; repeat for debug output (RUST_LOG overrides this)
      -h, --help        Print help
      -V, --version     Print version
    ");
}

#[test]
fn help_of_reward_test() {
    assert_snapshot!(help(&["reward", "test"]), @r#"
    Test the reward on the gold answers of a data set

    Rewrites each gold answer in ways that must be accepted (spelling, separators, units, layout), and
    derives near misses and attacks that must be rejected (off by one, hedges, every option, echoes,
    giant numbers, code). Each is scored as a whole completion by all rules of the reward; custom
    commands are not called. Exits with 1 if an error rate is above its limit.

    Usage: rft reward test [OPTIONS]

    Options:
          --data <DATA>
              Questions: `arithmetic` (generated), a JSONL, JSON, CSV or Parquet file, or a Hub data set
              id

          --question-column <COLUMN>
              Column with the questions, if it cannot be detected

          --answer-column <COLUMN>
              Column with the gold answers, if it cannot be detected

          --ppe <NAME|FILE>
              Prior prompt (a name or a file), which determines the format of a completion

          --limit <N>
              Maximum number of gold answers to test, selected at random

              [default: 500]

          --seed <N>
              Random seed of the selection and of the near misses

              [default: 42]

          --max-false-accept <SHARE>
              Maximum share of wrong answers that are accepted

              [default: 0]

          --max-false-reject <SHARE>
              Maximum share of right answers that are rejected

              [default: 0.005]

          --max-undecided <SHARE>
              Maximum share of right answers that are undecided

              [default: 0.01]

          --output-format <FORMAT>
              Output format

              [default: table]
              [possible values: table, json]

      -v, --verbose...
              Print more; repeat for debug output (RUST_LOG overrides this)

      -h, --help
              Print help (see a summary with '-h')

      -V, --version
              Print version

    Configuration:
          --preset <NAME>
              Start from this preset (`rft config list` prints them)

              Default: the `preset` key of the configuration file, else `tiny`, or `qwen2.5-0.5b` if you
              select a model other than the embedded one.

          --config <FILE>
              Read values from this TOML file; repeatable, later files override earlier ones

              The file needs only the keys that it changes. `rft config show` prints all keys.

          --set <KEY=VALUE>
              Set one value, such as `train.learning_rate=1e-5`; repeatable

              The value is TOML or a bare word: `--set grpo.loss_type=dapo`, `--set
              'rollout.stop=["\n\n"]'`. The value `unset` removes an optional value. The environment
              variable RFT_TRAIN__LEARNING_RATE does the same; `--set` overrides it.

    Examples:
      rft reward test
      rft reward test --data train.jsonl --question-column problem --answer-column solution
      rft reward test --data openai/gsm8k --ppe planning --set reward.accuracy.scope=answer
      rft reward test --data train.jsonl --limit 5000 --output-format json > bench.json
    "#);
}

#[test]
fn help_of_reward_check() {
    assert_snapshot!(help(&["reward", "check"]), @r"
    Check an answer, or a file of answers, against the gold answer

    By default, an answer is a whole completion, and its last box counts, as in training. With `--bare`,
    it is the answer itself. Each row of a file has the fields `gold` and `answer`, and optionally
    `question`: if that asks for a percentage, `60%` answers the gold answer 60. It is printed with the
    added fields `verdict`, `reason` and `extracted`, and in mode `eval` also `rule`, which found the
    answer.

    Usage: rft reward check [OPTIONS] <--gold <GOLD>|--jsonl <FILE>>

    Options:
          --gold <GOLD>
              Gold answer, which counts as right

          --answer <TEXT>
              Completion to check, or the answer itself with `--bare`

          --explain
              Show how both answers were parsed, and the rule that decided

          --jsonl <FILE>
              Check every row of this file; `-` reads stdin

          --bare
              Treat the answer as it is, without extraction from a completion

          --mode <MODE>
              How the answer is found in a completion

              Possible values:
              - reward: Only the last box, as in training
              - eval:   The announced or boxed answer, else the last formula or number; comparable with
                other evaluations

              [default: reward]

          --scope <SCOPE>
              Where in a completion the box may be, in mode `reward` [default: response]

              Possible values:
              - response: Anywhere
              - answer:   In the last closed `<answer>` element

      -v, --verbose...
              Print more; repeat for debug output (RUST_LOG overrides this)

      -h, --help
              Print help (see a summary with '-h')

      -V, --version
              Print version

    Examples:
      rft reward check --gold '\frac{1}{2}' --answer 'so it is \boxed{0.5}'
      rft reward check --gold '(1, 2]' --answer '1 < x \le 2' --bare --explain
      rft reward check --jsonl answers.jsonl --bare > verdicts.jsonl
      rft reward check --jsonl completions.jsonl --mode eval
      zcat completions.jsonl.gz | rft reward check --jsonl - --scope answer
    ");
}
