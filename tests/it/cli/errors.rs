//! Every error is one line with a hint.

use std::fs;

use insta::assert_snapshot;

use super::{error, folder, rft, with};
use crate::tiny_model::tiny_folder;

#[test]
fn a_wrong_key_is_reported_with_its_place_and_the_nearest_key() {
    let config = with("lab.toml", b"[train]\nsteps = 3\n  learning_rat = 1e-4\n");
    assert_snapshot!(error(&config, &["train", "--config", "lab.toml"]), @r"
    error: lab.toml:3:3: unknown key `train.learning_rat`
    hint: did you mean `train.learning_rate`?
    ");
    assert_snapshot!(error(&folder(), &["train", "--set", "rollout.num_generation=4"]), @r"
    error: --set rollout.num_generation=4: unknown key `rollout.num_generation`
    hint: did you mean `rollout.num_generations`?
    ");
    assert_snapshot!(error(&folder(), &["train", "--set", "rollout.num_generations=1"]), @r"
    error: --set rollout.num_generations=1: `rollout.num_generations`: a group of size 1 has nothing to compare
    hint: use 2 or more; the study uses 8
    ");
    let empty = folder();
    let output = rft(empty.path()).env("RFT_TRAIN__STEP", "3").arg("train").output().unwrap();
    assert_snapshot!(String::from_utf8(output.stderr).unwrap(), @r"
    error: RFT_TRAIN__STEP: unknown key `train.step`
    hint: did you mean `train.steps`?
    ");
}

#[test]
fn an_unknown_prompt_is_reported_with_the_nearest_one() {
    assert_snapshot!(error(&folder(), &["train", "--ppe", "nul-example"]), @r"
    error: unknown prior prompt `nul-example`; expected one of none, reasoning, planning, code, recall, null-example, answer-only, tag-swap
    hint: did you mean `null-example`?
    ");
    assert_snapshot!(error(&folder(), &["prompts", "show", "resoning"]), @r"
    error: unknown prior prompt `resoning`; expected one of none, reasoning, planning, code, recall, null-example, answer-only, tag-swap
    hint: did you mean `reasoning`?
    ");
}

#[test]
fn unusable_data_is_reported_with_what_was_found() {
    let data = with("questions.jsonl", b"{\"question\": \"1 + 1?\", \"solution\": \"2\"}\n");
    assert_snapshot!(error(&data, &["train", "--data", "questions.jsonl", "--answer-column", "gold"]), @r"
    error: load the training questions: `questions.jsonl` has no column `gold`; found: question, solution
    hint: set the columns with --question-column and --answer-column
    ");
    assert_snapshot!(error(&data, &["train", "--data", "question.jsonl"]), @r"
    error: load the training questions: there is no data file `question.jsonl`
    hint: pass a file, the id of a data set on the Hub (`openai/gsm8k`) or `arithmetic`
    ");
    assert_snapshot!(error(&with("none.jsonl", b""), &["train", "--data", "none.jsonl"]), @"error: load the training questions: `none.jsonl` has no questions (0 rows)");
    assert_snapshot!(error(&with("torn.jsonl", b"{\"question\": \"1 +"), &["train", "--data", "torn.jsonl"]), @"error: load the training questions: read `torn.jsonl`: line 1 is not a JSON object: EOF while parsing a string at column 17");
}

#[test]
fn an_unreadable_model_is_an_error() {
    let model = tiny_folder();
    let path = model.path().join("m/model.safetensors");
    let weights = fs::read(&path).unwrap();
    fs::write(&path, &weights[..100_000]).unwrap();
    assert_snapshot!(error(&model, &["train", "--model", "m"]), @r"
    error: read `m/model.safetensors`: the file is truncated: 1679520 of 1774336 bytes of values are missing
    hint: download or copy it again
    ");
    fs::rename(&path, model.path().join("m/pytorch_model.bin")).unwrap();
    assert_snapshot!(error(&model, &["train", "--model", "m"]), @r"
    error: `pytorch_model.bin` is a pickle file, which is not supported because loading it can run code
    hint: use the checkpoint in safetensors, or convert it with `save_pretrained(..., safe_serialization=True)`
    ");
    assert_snapshot!(error(&model, &["train", "--model", "m/pytorch_model.bin"]), @r"
    error: `pytorch_model.bin` is a pickle file, which is not supported because loading it can run code
    hint: use the checkpoint in safetensors, or convert it with `save_pretrained(..., safe_serialization=True)`
    ");
    assert_snapshot!(error(&with("model.gguf", b"GGML, not GGUF"), &["train", "--model", "model.gguf"]), @r"
    error: read `model.gguf`: not a GGUF file: it does not start with `GGUF`
    hint: download or copy it again
    ");
    assert_snapshot!(error(&folder(), &["train", "--model", "model"]), @r"
    error: there is no model `model`
    hint: pass `tiny`, a model folder, a .gguf file or a Hub id such as Qwen/Qwen2.5-0.5B
    ");
}

/// Files of prior prompts are checked as configurations are.
#[test]
fn errors_in_a_prompt_file_have_a_place() {
    for (text, expected) in [
        (
            "name = 'a'\ntext = 'b'\nanser_tag = 'c'\n",
            "p.toml:3:1: unknown key `anser_tag`\nhint: did you mean `answer_tag`?",
        ),
        ("name = 'a'\ntext = 7\n", "p.toml:2:8: `text`: expected string, found integer 7"),
        (
            "name = 'a'\nrole = 'sytem'\ntext = ''\n",
            "p.toml:2:8: `role`: unknown value `sytem`\nhint: did you mean `system`? use one of system, user",
        ),
        (
            "name = 'a'\ntext = ''\ntag = 't'\n",
            "p.toml:3:7: `tag` requires `answer_tag`, because the answer follows the element `tag`",
        ),
        (
            "name = 'a'\ntext = ''\nanswer_tag = '<x>'\n",
            "p.toml:3:14: `<x>` is not a valid tag\nhint: write `think`, not `<think>`",
        ),
        ("text = ''\n", "p.toml: the key `name` is missing\nhint: `rft prompts show reasoning` prints a complete file"),
        ("name = 'a\n", "p.toml:1:10: invalid TOML: invalid literal string"),
    ] {
        let folder = with("p.toml", text.as_bytes());
        let said = error(&folder, &["prompts", "show", "p.toml"]);
        assert!(said.starts_with(&format!("error: {expected}")), "{text}: {said}");
    }
    let folder = with("p.toml", b"name = 'a'\ntext = 'Use <t> and </t>.'\ntag = 't'\nanswer_tag = 'answer'\n");
    let output = rft(folder.path()).args(["prompts", "show", "p.toml"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && said.contains("does not contain <answer>, which the format reward expects"),
        "{said}"
    );
}

#[test]
fn a_question_that_is_too_long_is_an_error() {
    assert_snapshot!(error(&folder(), &["train", "--set", "rollout.max_prompt_length=9"]), @r"
    error: no question of `arithmetic` is usable: 4096 training questions left out because their prompt is longer than 9 tokens; 512 held-out questions left out because their prompt is longer than 9 tokens
    hint: check `data.path` and `rollout.max_prompt_length`
    ");
    assert_snapshot!(error(&folder(), &["generate", &"What is 1 + 1? ".repeat(100)]), @r"
    error: the prompt has 1017 tokens, but the model supports 512
    hint: shorten the question
    ");
    // The model's context limits a completion, not a training preset.
    let output = rft(folder().path()).args(["generate", "1 + 1?", "--max-tokens=1000"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("the model supports 512, and the prompt has "), "{said}");
}

#[test]
fn a_very_large_step_needs_consent() {
    assert_snapshot!(error(&folder(), &["train", "--set", "rollout.num_generations=20000"]), @r"
    error: a step would have 320000 completions: 16 questions with 20000 each
    hint: lower rollout.num_generations or rollout.prompts_per_step, or pass --yes
    ");
}

#[test]
fn a_run_directory_is_never_overwritten() {
    let runs = with("runs/taken/config.toml", b"");
    assert_snapshot!(error(&runs, &["train", "--name", "taken"]), @r"
    error: the run `runs/taken` already exists
    hint: use another `--name`, leave it out for a numbered one, or resume the run with `--resume runs/taken`
    ");
    assert_snapshot!(error(&runs, &["train", "--name", "a/b"]), @r"
    error: --name: `run.name`: `a/b` is not a valid folder name
    hint: use a name without slashes; run.dir sets the parent folder
    ");
    // Also as root, who can write anywhere.
    assert_snapshot!(error(&with("runs", b"a file"), &["train"]), @r"
    error: write `runs`: File exists (os error 17)
    hint: choose another folder; a file of this name exists
    ");
}

#[test]
fn what_is_not_an_unfinished_run_cannot_be_resumed() {
    let runs = folder();
    let train = ["train", "--steps=1", "--set=rollout.prompts_per_step=1", "--set=rollout.num_generations=2"];
    rft(runs.path()).args(train).args(["--set=eval.questions=0", "--name=done"]).assert().success();
    assert_snapshot!(error(&runs, &["train", "--resume", "runs/done"]), @r"
    error: `runs/done` has already trained all of its 1 steps
    hint: its adapter is in `runs/done/adapter`
    ");
    assert_snapshot!(error(&runs, &["train", "--resume", "runs"]), @r"
    error: `runs` is not a run directory: it has no config.toml
    hint: use the folder of the run, not of a checkpoint
    ");
    assert_snapshot!(error(&runs, &["train", "--resume", "runs/none"]), @r"
    error: no run directory `runs/none`
    hint: use the folder that `rft train` printed when it started, such as `runs/NAME`
    ");
    assert_snapshot!(error(&runs, &["generate", "--adapter", "runs", "1 + 1?"]), @r"
    error: `runs` is neither a run with an adapter nor an adapter folder
    hint: use a run directory, or a folder with an `adapter_config.json`
    ");
    assert_snapshot!(error(&runs, &["merge", "runs", "--out", "merged"]), @r"
    error: `runs` is neither a run with an adapter nor an adapter folder
    hint: use a run directory, or a folder with an `adapter_config.json`
    ");

    // Settings of a new run are not accepted with an old one.
    let output = rft(runs.path()).args(["train", "--resume", "runs/done", "--seed", "9"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_snapshot!(String::from_utf8(output.stderr).unwrap(), @r"
    error: the argument '--resume <RUN>' cannot be used with '--seed <N>'

    Usage: rft train --resume <RUN>

    For more information, try '--help'.
    ");
}
