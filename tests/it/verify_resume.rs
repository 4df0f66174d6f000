//! `rft verify-resume` says "equal" of runs that are, and names the first difference of runs that are not.

use std::fs;
use std::path::Path;

use rft::run::RunDir;
use rft::verify::compare::compare;

use crate::cli::{error, folder, rft};

/// A step takes a moment.
const SHORT: [&str; 6] = [
    "--ppe=null-example",
    "--threads=1",
    "--set=rollout.prompts_per_step=2",
    "--set=rollout.num_generations=4",
    "--set=rollout.max_completion_length=48",
    "--set=eval.questions=2",
];

fn files_in(path: &Path) -> usize {
    fs::read_dir(path).unwrap().count()
}

#[test]
fn a_resumed_run_is_equal_and_leaves_no_files() {
    let (folder, scratch) = (folder(), folder());
    let mut command = rft(folder.path());
    command.args(["verify-resume", "--steps=2"]).args(SHORT).env("TMPDIR", scratch.path());
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.ends_with("equal: 4 steps, and 2 + 2 steps with a kill between them\n"), "{said}");
    for part in ["completions", "metrics", "counters", "optimizer moments", "adapter", "evaluation, greedy"] {
        let line = said.lines().find(|line| line.trim_start().starts_with(part));
        assert!(line.is_some_and(|line| line.contains(" equal ")), "{part}: {said}");
    }
    assert_eq!((files_in(folder.path()), files_in(scratch.path())), (0, 0));
}

/// A reward that depends on how often it was asked is the usual cause.
#[test]
fn a_run_that_cannot_be_repeated_is_different() {
    let (folder, scratch) = (folder(), folder());
    let script = r#"while read -r line; do id=${line#*:}; echo >>asked; n=$(wc -l <asked); echo "{\"id\":${id%%,*},\"score\":$n}"; done"#;
    let reward = format!("--set=reward.custom=[{{name='counter', weight=1, command=['sh', '-c', '''{script}''']}}]");
    let mut command = rft(folder.path());
    command.args(["verify-resume", "--steps=1", &reward]).args(SHORT).env("TMPDIR", scratch.path());
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let last = said.lines().last().unwrap();
    let expected = "different: completions: line 1, step 1, question ";
    assert!(last.starts_with(expected) && last.ends_with("the rewards or advantages differ"), "{said}");
    // Both runs are kept for the user.
    let kept = fs::read_dir(scratch.path()).unwrap().next().unwrap().unwrap().path();
    assert!(kept.join("whole/completions.jsonl").is_file() && kept.join("killed/completions.jsonl").is_file());
}

#[test]
fn an_error_of_the_run_is_the_error_of_the_command() {
    let folder = folder();
    let said = error(&folder, &["verify-resume", "--data=none.jsonl"]);
    assert!(said.starts_with("error: train without interruption: ") && said.contains("none.jsonl"), "{said}");
    let said = error(&folder, &["verify-resume", "--steps=0"]);
    assert_eq!(said, "error: `--steps` must be at least 1\n");
}

#[test]
fn every_part_of_a_run_is_compared() {
    let folder = folder();
    let args = ["train", "--steps=2", "--name=first"];
    rft(folder.path()).args(args).args(SHORT).assert().success();
    let (first, second) = (folder.path().join("runs/first"), folder.path().join("runs/second"));
    let change = |part: &str, file: &str, edit: &dyn Fn(&mut Vec<u8>)| {
        _ = fs::remove_dir_all(&second);
        copy(&first, &second);
        let mut bytes = fs::read(second.join(file)).unwrap();
        edit(&mut bytes);
        fs::write(second.join(file), bytes).unwrap();
        let parts = compare(&RunDir::open(&first).unwrap(), &RunDir::open(&second).unwrap(), 2).unwrap();
        let different: Vec<_> = parts.iter().filter(|it| it.difference.is_some()).map(|it| it.name).collect();
        assert_eq!(different, Vec::from_iter(Some(part).filter(|it| !it.is_empty())), "{file}");
        parts.into_iter().find_map(|it| it.difference).unwrap_or_default()
    };
    let replace = |from: &'static str, to: &'static str| {
        move |bytes: &mut Vec<u8>| {
            let text = String::from_utf8(bytes.clone()).unwrap();
            assert!(text.contains(from), "{from}");
            *bytes = text.replacen(from, to, 1).into_bytes();
        }
    };
    let last_byte = |bytes: &mut Vec<u8>| *bytes.last_mut().unwrap() ^= 1;
    let cut = |bytes: &mut Vec<u8>| {
        let end = bytes[..bytes.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap();
        bytes.truncate(end + 1);
    };

    assert_eq!(change("", "completions.jsonl", &|_| ()), "");
    // Times and memory differ between equal runs.
    change("", "metrics.jsonl", &replace("\"step_time\":", "\"step_time\":1"));
    if cfg!(target_os = "linux") {
        change("", "metrics.jsonl", &replace("\"peak_memory_gib\":", "\"peak_memory_gib\":1"));
    }
    let said = change("completions", "completions.jsonl", &replace("\"reward\":", "\"reward\":1"));
    assert!(
        said.starts_with("line 1, step 1, question ") && said.ends_with("the rewards or advantages differ"),
        "{said}"
    );
    assert_eq!(change("completions", "completions.jsonl", &cut), "4 groups and 3 groups");
    let said = change("metrics", "metrics.jsonl", &replace("\"num_tokens\":", "\"num_tokens\":1"));
    assert!(said.starts_with("step 1: num_tokens is "), "{said}");
    assert_eq!(change("metrics", "metrics.jsonl", &cut), "4 lines and 3 lines");
    let said =
        change("counters", "checkpoints/step-000002/trainer_state.json", &replace("\"updates\": 2", "\"updates\": 3"));
    assert_eq!(said, "updates is 2 and 3");
    let checkpoint = "checkpoints/step-000002";
    let said = change("optimizer moments", &format!("{checkpoint}/optimizer.safetensors"), &last_byte);
    assert!(said.contains("`, value "), "{said}");
    change("adapter", &format!("{checkpoint}/adapter/adapter_model.safetensors"), &last_byte);
    change("final adapter", "adapter/adapter_model.safetensors", &last_byte);
    change("evaluation, greedy", "eval/step-000002-greedy.jsonl", &replace("\"reward\":", "\"reward\":1"));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() { copy(&entry.path(), &target) } else { _ = fs::copy(entry.path(), target).unwrap() }
    }
}
