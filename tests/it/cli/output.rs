//! What becomes of output whose reader has gone, or that cannot be written, and of foreign text in it.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{folder, rft, rft_path, with};

/// A short run.
const TRAIN: [&str; 7] = [
    "train",
    "--ppe=none",
    "--steps=2",
    "--name=run",
    "--set=rollout.prompts_per_step=2",
    "--set=rollout.num_generations=2",
    "--set=eval.questions=2",
];
const EVAL: [&str; 6] = ["eval", "--bench=arithmetic", "--limit=2", "--max-tokens=4", "--ppe=none", "--out=out"];

/// Runs `rft` with one of its outputs closed. Returns its exit code and what it wrote to the other.
fn closed(folder: &Path, args: &[&str], stderr: bool) -> (Option<i32>, String) {
    let mut command = Command::new(rft_path());
    command.args(args).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    match stderr {
        true => drop(child.stderr.take()),
        false => drop(child.stdout.take()),
    }
    let output = child.wait_with_output().unwrap();
    let said = if stderr { output.stdout } else { output.stderr };
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[test]
fn a_reader_that_goes_away_is_not_an_error() {
    let folder = folder();
    for command in [
        &["eval", "list"][..],
        &["config", "show"],
        &["config", "list", "--output-format=json"],
        &["prompts", "list"],
        &["prompts", "show", "planning"],
        &["overlap", "arithmetic"],
        &["doctor"],
        &["plan", "--preset=qwen2.5-7b"],
        &["generate", "--ppe=none", "--n=3", "1+1?"],
        &TRAIN,
        &EVAL,
        &["runs"],
        &["reward", "test"],
    ] {
        let (code, said) = closed(folder.path(), command, false);
        assert_eq!(code, Some(0), "{command:?}: {said}");
        assert!(!said.contains("panicked") && !said.contains("error"), "{command:?}: {said}");
    }
    assert!(folder.path().join("runs/run/adapter/adapter_model.safetensors").exists());
    assert!(folder.path().join("out/arithmetic/results.json").exists());
}

#[test]
fn the_reader_of_the_messages_may_go_away() {
    let folder = folder();
    for command in [&TRAIN[..], &EVAL, &["runs"], &["prompts", "render", "none", "--question=x"]] {
        let (code, table) = closed(folder.path(), command, true);
        assert!(code == Some(0) && !table.is_empty(), "{command:?}: {code:?} {table}");
    }
    assert!(folder.path().join("runs/run/adapter/adapter_model.safetensors").exists());
    let (code, _) = closed(folder.path(), &["train", "--ppe=no-such-prompt"], true);
    assert_eq!(code, Some(1), "it fails without its message");
}

#[test]
fn output_that_cannot_be_written_is_an_error_after_the_work_is_done() {
    let folder = folder();
    for command in [&TRAIN[..], &EVAL, &["runs"], &["eval", "list"]] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = Command::new(rft_path()).args(command).current_dir(folder.path()).stdout(full).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{command:?}: {said}");
        let last = said.lines().last().unwrap();
        assert_eq!(last, "error: write to standard output: No space left on device (os error 28)", "{command:?}");
    }
    assert!(folder.path().join("runs/run/adapter/adapter_model.safetensors").exists());
    assert!(folder.path().join("out/arithmetic/results.json").exists());
}

/// Escape codes, a control character of Latin-1, an override and a mark of direction.
const HARMFUL: [char; 4] = ['\u{1b}', '\u{9b}', '\u{202e}', '\u{200f}'];

#[test]
fn foreign_text_is_escaped_in_tables_json_and_errors() {
    let foreign: String = HARMFUL.iter().collect::<String>() + "[31mred";
    let row = serde_json::json!({"question": foreign, "answer": "1", "id": foreign});
    let folder = with("q.jsonl", format!("{row}\n").as_bytes());
    let run = |args: &[&str]| {
        let output = rft(folder.path()).args(args).output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!text.contains(HARMFUL), "{args:?}: {text:?}");
        text
    };
    run(&["eval", "--bench=q.jsonl", "--max-tokens=4", "--ppe=none", "--out=out"]);
    assert!(run(&["eval", "show", "out"]).contains("\\u{1b}\\u{9b}\\u{202e}\\u{200f}[31mred"));
    let set = format!("prompt.ppe={}", serde_json::json!(foreign));
    assert!(run(&["config", "show", "--set", &set]).contains("[31mred"));
    run(&["train", "--ppe", &foreign]);
    run(&["train", "--model", &foreign]);
    run(&["train", &format!("--{foreign}")]);
    run(&["eval", "--bench", &foreign]);
    run(&["report", &foreign]);

    let pair = serde_json::json!({"gold": "1", "answer": format!("\\boxed{{{foreign}}}")});
    let mut check = rft(folder.path());
    check.args(["reward", "check", "--jsonl=-"]).write_stdin(pair.to_string());
    let printed = String::from_utf8(check.output().unwrap().stdout).unwrap();
    assert!(!printed.contains(HARMFUL), "{printed:?}");
    let value: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(value["extracted"], foreign.as_str(), "the value is the same");
}
