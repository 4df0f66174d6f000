//! `rft rehearse` goes through all phases of a configuration, and finds what would fail later.

use std::fs;
use std::path::Path;
use std::process::Output;

use rft::config::{ConfigLayers, resolve};
use rft::verify::reduce::reduce;
use tempfile::TempDir;

use crate::cli::{rft, with};

/// A folder with training data.
fn with_data() -> TempDir {
    let row = |i: usize| format!("{{\"question\": \"What is {i} + 5?\", \"answer\": \"#### {}\"}}\n", i + 5);
    with("data.jsonl", (0..60).map(row).collect::<String>().as_bytes())
}

/// A rehearsal for a model of the Hub, which cannot be reached.
fn rehearse(folder: &TempDir, args: &[&str]) -> (Output, String) {
    let mut command = rft(folder.path());
    command.args([
        "rehearse",
        "--preset=qwen2.5-7b",
        "--ppe=null-example",
        "--set=data.path=data.jsonl",
        "--threads=1",
    ]);
    command.args(["--set=rollout.prompts_per_step=8", "--set=eval.questions=4", "--set=grpo.steps_per_generation=8"]);
    command.args(args).env("HF_ENDPOINT", "http://127.0.0.1:9").env("HF_HOME", folder.path().join("hub"));
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    (output, said)
}

/// The verdict of the phase whose line starts with `name`.
fn verdict<'a>(said: &'a str, name: &str) -> &'a str {
    let line = said.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no line `{name}`: {said}"));
    line[24..].split_whitespace().next().unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

const PHASES: [&str; 8] = [
    "run directory",
    "tokenizer and template",
    "data, prompts, rewards",
    "disk space",
    "train, save, kill",
    "resume, evaluate",
    "benchmark arithmetic",
    "export",
];

#[test]
fn a_sound_configuration_passes_every_phase() {
    let folder = with_data();
    let (output, said) = rehearse(&folder, &[]);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for phase in PHASES {
        let expected = if phase == "tokenizer and template" { "skipped" } else { "ok" };
        assert_eq!(verdict(&said, phase), expected, "{phase}: {said}");
    }
    assert!(said.contains("  rollout.max_completion_length: 4096 -> 64\n"), "{said}");
    assert!(said.contains("  prompt.template: the model's chat template is not on this machine\n"), "{said}");
    // The plan is that of the real model.
    assert!(said.contains("Qwen/Qwen2.5-7B: ") && said.contains("80.00 GiB: "), "{said}");
    assert!(said.ends_with("the rehearsal passed\n"), "{said}");
    assert_eq!(names(&folder.path().join("runs")), Vec::<String>::new(), "no files are left");
}

/// Each fault fails in its phase, and the message names the cause.
#[test]
fn what_would_fail_later_fails_now() {
    let reward = "--set=reward.custom=[{name='judge', weight=1, command=['./no-such-judge']}]";
    let crash = "--set=reward.custom=[{name='judge', weight=1, command=['sh', '-c', 'echo no key >&2; exit 3']}]";
    for (args, phase, cause) in [
        (vec!["--question-column=problem"], "data, prompts, rewards", "problem"),
        (vec!["--data=none.jsonl"], "data, prompts, rewards", "none.jsonl"),
        (vec!["--set=eval.path=none.csv"], "data, prompts, rewards", "none.csv"),
        (vec!["--set=rollout.prompts_per_step=64"], "data, prompts, rewards", "fewer than one step"),
        (vec!["--set=run.dir=data.jsonl"], "run directory", "data.jsonl"),
        (vec!["--set=train.steps=100000", "--set=train.save_steps=1"], "disk space", "free"),
        (vec![reward], "data, prompts, rewards", "no-such-judge"),
        (vec![crash], "data, prompts, rewards", "no key"),
        (vec!["--bench=none.jsonl"], "benchmark none.jsonl", "none.jsonl"),
        (vec!["--model=./models/none"], "tokenizer and template", "models/none"),
    ] {
        let folder = with_data();
        let (output, said) = rehearse(&folder, &args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        assert_eq!(verdict(&said, phase), "FAILED", "{args:?}: {said}");
        let start = said.find(phase).unwrap();
        assert!(said[start..].lines().take(3).any(|line| line.contains(cause)), "{args:?}: {said}");
        assert!(said.contains("\nthe rehearsal failed in 1 of its phases"), "{args:?}: {said}");
    }
}

#[test]
fn the_reduced_configuration_is_valid_and_its_changes_are_listed() {
    for sets in [
        vec![],
        vec!["rollout.prompts_per_step=3", "rollout.num_generations=5", "grpo.steps_per_generation=15"],
        vec!["rollout.prompts_per_step=1", "rollout.num_generations=64", "grpo.steps_per_generation=64"],
        vec!["reward.length.weight=1", "reward.length.kind=soft-overlong", "reward.length.soft_punish_cache=800"],
        vec!["train.max_tokens_per_micro_batch=5120", "eval.questions=0"],
    ] {
        let sets = sets.into_iter().map(str::to_owned).collect();
        let layers = ConfigLayers { preset: Some("qwen2.5-7b".to_owned()), sets, ..ConfigLayers::default() };
        let config = resolve(&layers).unwrap().config;
        let (reduced, changes) = reduce(&config, Path::new("here"));
        reduced.validate().unwrap();
        assert!(reduced.rollout.completions_per_step() <= config.rollout.completions_per_step());
        let listed = |key: &str| changes.iter().any(|change| change.key == key);
        assert!(listed("rollout.max_completion_length") && listed("train.steps") && listed("train.save_steps"));
        let changed = reduced.rollout.prompts_per_step != config.rollout.prompts_per_step;
        assert_eq!(changed, listed("rollout.prompts_per_step"));
    }
}
