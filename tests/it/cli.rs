//! What the command line says: its help, and every mistake in one line with a hint.

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use insta::assert_snapshot;
use tempfile::TempDir;

pub fn rft_path() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_rft"))
}

/// `rft`, to be run in `folder` and in an environment that says nothing to it.
pub fn rft(folder: &Path) -> Command {
    let mut command = Command::new(rft_path());
    command.current_dir(folder).env_remove("RUST_LOG").env_remove("COLUMNS");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RFT_")) {
        command.env_remove(name);
    }
    command
}

/// What `rft` says to be helped with.
pub fn help(command: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let output = rft(folder.path()).args(command).arg("--help").output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// The error of a command that must fail: after its notes, one line, and below it nothing but hints.
#[track_caller]
pub fn error(folder: &TempDir, args: &[&str]) -> String {
    let output = rft(folder.path()).args(args).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(output.stdout.is_empty());
    let start = said.find("error: ").unwrap_or_else(|| panic!("no error in: {said}"));
    let error = said[start..].to_owned();
    assert!(error.lines().skip(1).all(|line| line.starts_with("hint: ")), "more than one line: {error}");
    error
}

pub fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// A folder with a file in it.
pub fn with(name: &str, content: &[u8]) -> TempDir {
    let folder = folder();
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
    folder
}

/// A folder with a copy of the embedded model in `model`.
fn with_model() -> TempDir {
    let folder = folder();
    fs::create_dir(folder.path().join("model")).unwrap();
    for (name, content) in rft::model::embedded::FILES {
        fs::write(folder.path().join("model").join(name), content).unwrap();
    }
    folder
}

#[test]
fn help_tells_what_there_is() {
    assert_snapshot!(help(&[]), @r"
    Reinforcement fine-tuning with prior prompts

    Trains LoRA adapters of a language model by GRPO, with a prior prompt put before every question, and
    tells what the prompt did. Start with `rft train --ppe null-example`: it trains a small embedded
    model in two minutes on a CPU.

    Usage: rft [OPTIONS] <COMMAND>

    Commands:
      train     Fine-tune a model by GRPO under a prior prompt
      eval      Measure a model on benchmarks
      sweep     Train and measure many arms from one file
      generate  Ask a model, trained or not, one question
      report    Tell what runs show, and what they do not
      compare   Compare two runs: configuration, training, evaluations
      runs      List runs and how far they are
      classify  Tell what responses do: verify, backtrack, plan, write code ...
      merge     Make an adapter part of its model
      plan      Say what a run takes of a GPU's memory, and of time and money
      selftest  Check a GPU against the CPU, or a model against candle's decoder
      perf      Measure a GPU: operations, decoding, training, a whole step
      config    Show, check and list configurations
      prompts   List, show and render prior prompts
      reward    Put the reward to the test, or check answers with it
      overlap   Tell which questions of benchmarks stand in training data
      doctor    Show what works on this machine
      help      Print this message or the help of the given subcommand(s)

    Options:
      -v, --verbose...
              Tell more; twice for debugging (RUST_LOG has the last word)

      -h, --help
              Print help (see a summary with '-h')

      -V, --version
              Print version
    ");
}

#[test]
fn help_of_train() {
    assert_snapshot!(help(&["train"]), @r#"
    Fine-tune a model by GRPO under a prior prompt

    Samples a group of completions for every question, rewards them by rules (right answer, right
    format), and moves LoRA weights towards the better ones of each group. Without `--model` and
    `--config` it trains a small embedded model on generated word problems. Everything of the run is
    written to a folder of its own under `runs/`: configuration, metrics (JSON lines and TensorBoard),
    every completion, checkpoints, and the adapter in PEFT's format.

    Ctrl-C ends a run cleanly with a checkpoint; `--resume` goes on from there.

    Usage: rft train [OPTIONS]

    Options:
          --ppe <NAME|FILE>
              Prior prompt: reasoning, planning, code, recall, null-example, none, or a file

          --model <MODEL>
              Model: `tiny` (embedded), a hub id, a Hugging Face folder or a .gguf file

          --data <DATA>
              Questions: `arithmetic` (generated), a JSONL, JSON, CSV or Parquet file, or a hub data set
              id

          --question-column <COLUMN>
              Column of the questions, where it cannot be told from the data

          --answer-column <COLUMN>
              Column of the gold answers

          --max-questions <N>
              Train on at most so many questions

          --steps <N>
              Rollout batches to train on

          --seed <N>
              Seed of everything that is random

          --name <NAME>
              Name of the run directory; it must not exist yet [default: model, prompt and a counter]

          --device <DEVICE>
              Device: `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:NUMBER`

          --threads <N>
              Worker threads [default: one for each core]; the result does not depend on them

          --resume <RUN>
              Go on with a run that was interrupted

      -y, --yes
              Download a model without asking

      -v, --verbose...
              Tell more; twice for debugging (RUST_LOG has the last word)

      -h, --help
              Print help (see a summary with '-h')

      -V, --version
              Print version

    Configuration:
          --preset <NAME>
              Start from this preset (`rft config list` names them)

              Without it a file's own `preset = "..."` counts, then `tiny`, or `qwen2.5-0.5b` where
              another model than the embedded one is named.

          --config <FILE>
              Take values from this TOML file; may be repeated, a later file wins

              The file needs just the keys it changes. `rft config show` prints them all.

          --set <KEY=VALUE>
              Set one value, such as `train.learning_rate=1e-5`; may be repeated

              The value is TOML, or a bare word: `--set grpo.loss_type=dapo`, `--set
              'rollout.stop=["\n\n"]'`. `unset` takes an optional value back. The environment variable
              RFT_TRAIN__LEARNING_RATE does the same, below `--set`.

    Examples:
      rft train --ppe null-example
      rft train --ppe reasoning --model Qwen/Qwen2.5-0.5B --data openai/gsm8k
      rft train --preset qwen2.5-7b --ppe planning --set train.seed=1
      rft train --resume runs/tiny-null-example-1
    "#);
}

#[test]
fn help_of_generate() {
    assert_snapshot!(help(&["generate"]), @r#"
    Ask a model, trained or not, one question

    The question is put into the model's chat template under the prior prompt, exactly as in training,
    and the answer is printed as it comes.

    Usage: rft generate [OPTIONS] <QUESTION>

    Arguments:
      <QUESTION>
              The question

    Options:
          --adapter <RUN|DIR>
              Run directory, or folder with an adapter; a run also gives the model and the prior prompt

          --ppe <NAME|FILE>
              Prior prompt: a name or a file [default: the run's, else the configuration's]

          --model <MODEL>
              Model: `tiny` (embedded), a hub id, a Hugging Face folder or a .gguf file

          --device <DEVICE>
              Device: `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:NUMBER`

          --temperature <T>
              0 takes the most probable token

              [default: 1]

          --max-tokens <N>
              Longest answer, in tokens

          --seed <N>
              [default: 42]

      -n, --n <N>
              Number of answers

              [default: 1]

          --show-prompt
              Show the rendered prompt first

      -v, --verbose...
              Tell more; twice for debugging (RUST_LOG has the last word)

      -h, --help
              Print help (see a summary with '-h')

      -V, --version
              Print version

    Configuration:
          --preset <NAME>
              Start from this preset (`rft config list` names them)

              Without it a file's own `preset = "..."` counts, then `tiny`, or `qwen2.5-0.5b` where
              another model than the embedded one is named.

          --config <FILE>
              Take values from this TOML file; may be repeated, a later file wins

              The file needs just the keys it changes. `rft config show` prints them all.

          --set <KEY=VALUE>
              Set one value, such as `train.learning_rate=1e-5`; may be repeated

              The value is TOML, or a bare word: `--set grpo.loss_type=dapo`, `--set
              'rollout.stop=["\n\n"]'`. `unset` takes an optional value back. The environment variable
              RFT_TRAIN__LEARNING_RATE does the same, below `--set`.

    Examples:
      rft generate --adapter runs/tiny-null-example-1 "Anna has 12 apples and buys 5 more. How many does
      she have?"
      rft generate --model Qwen/Qwen2.5-0.5B --ppe reasoning --temperature 0 "What is 7 times 8?"
    "#);
}

#[test]
fn help_of_merge() {
    assert_snapshot!(help(&["merge"]), @r"
    Make an adapter part of its model

    Writes a Hugging Face folder (weights, configuration, tokenizer) that any program loads without
    knowing of the adapter.

    Usage: rft merge [OPTIONS] --out <DIR> <RUN|DIR>

    Arguments:
      <RUN|DIR>
              Run directory, or folder with an adapter

    Options:
          --out <DIR>
              Folder to write; it must not exist

          --dtype <DTYPE>
              Type of the written weights; bf16 halves the size and rounds

              [default: f32]
              [possible values: f32, bf16]

          --model <MODEL>
              The model that the adapter belongs to [default: the run's, else the one the adapter names]

          --revision <REVISION>
              Branch, tag or commit, for a model from the hub [default: the run's, else main]

      -y, --yes
              Download a model without asking

      -v, --verbose...
              Tell more; twice for debugging (RUST_LOG has the last word)

      -h, --help
              Print help (see a summary with '-h')

      -V, --version
              Print version

    Examples:
      rft merge runs/tiny-null-example-1 --out merged
      rft merge my-adapter --model Qwen/Qwen2.5-0.5B --out merged --dtype bf16
    ");
}

#[test]
fn help_of_config() {
    assert_snapshot!(help(&["config"]), @r"
    Show, check and list configurations

    Usage: rft config [OPTIONS] <COMMAND>

    Commands:
      show   Print the configuration that a run would take, as TOML that repeats it
      check  Check files of configuration; the environment plays no part
      list   List the presets
      help   Print this message or the help of the given subcommand(s)

    Options:
      -v, --verbose...  Tell more; twice for debugging (RUST_LOG has the last word)
      -h, --help        Print help
      -V, --version     Print version
    ");
}

#[test]
fn help_of_prompts() {
    assert_snapshot!(help(&["prompts"]), @r"
    List, show and render prior prompts

    Usage: rft prompts [OPTIONS] <COMMAND>

    Commands:
      list    List the prior prompts that come with rft
      show    Print a prior prompt as the file to start a prompt of your own from
      render  Print what the model reads for a question
      help    Print this message or the help of the given subcommand(s)

    Options:
      -v, --verbose...  Tell more; twice for debugging (RUST_LOG has the last word)
      -h, --help        Print help
      -V, --version     Print version
    ");
}

#[test]
fn a_wrong_key_is_named_with_its_place_and_the_nearest() {
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
    error: --set rollout.num_generations=1: `rollout.num_generations`: 1 completions of a question leave nothing to compare
    hint: 2 or more; the study takes 8
    ");
    let empty = folder();
    let output = rft(empty.path()).env("RFT_TRAIN__STEP", "3").arg("train").output().unwrap();
    assert_snapshot!(String::from_utf8(output.stderr).unwrap(), @r"
    error: RFT_TRAIN__STEP: unknown key `train.step`
    hint: did you mean `train.steps`?
    ");
}

#[test]
fn an_unknown_prompt_is_named_with_the_nearest() {
    assert_snapshot!(error(&folder(), &["train", "--ppe", "nul-example"]), @r"
    error: no prior prompt is called `nul-example`; there are none, reasoning, planning, code, recall, null-example, answer-only, tag-swap
    hint: did you mean `null-example`?
    ");
    assert_snapshot!(error(&folder(), &["prompts", "show", "resoning"]), @r"
    error: no prior prompt is called `resoning`; there are none, reasoning, planning, code, recall, null-example, answer-only, tag-swap
    hint: did you mean `reasoning`?
    ");
}

#[test]
fn data_that_cannot_be_used_is_named_with_what_was_found() {
    let data = with("questions.jsonl", b"{\"question\": \"1 + 1?\", \"solution\": \"2\"}\n");
    assert_snapshot!(error(&data, &["train", "--data", "questions.jsonl", "--answer-column", "gold"]), @r"
    error: load the training questions: `questions.jsonl` has no column `gold`; found: question, solution
    hint: name the columns with --question-column and --answer-column
    ");
    assert_snapshot!(error(&data, &["train", "--data", "question.jsonl"]), @r"
    error: load the training questions: there is no data file `question.jsonl`
    hint: give a file, the id of a hub data set (`openai/gsm8k`) or `arithmetic`
    ");
    assert_snapshot!(error(&with("none.jsonl", b""), &["train", "--data", "none.jsonl"]), @"error: load the training questions: `none.jsonl` holds no questions (0 rows)");
    assert_snapshot!(error(&with("torn.jsonl", b"{\"question\": \"1 +"), &["train", "--data", "torn.jsonl"]), @"error: load the training questions: read `torn.jsonl`: line 1 is not a JSON object: EOF while parsing a string at line 1 column 17");
}

#[test]
fn a_model_that_cannot_be_read_is_refused() {
    let model = with_model();
    let path = model.path().join("model/model.safetensors");
    let weights = fs::read(&path).unwrap();
    fs::write(&path, &weights[..100_000]).unwrap();
    assert_snapshot!(error(&model, &["train", "--model", "model"]), @r"
    error: read `model/model.safetensors`: the file is truncated: 1679520 of 1774336 bytes of values are missing
    hint: download or copy it again
    ");
    fs::rename(&path, model.path().join("model/pytorch_model.bin")).unwrap();
    assert_snapshot!(error(&model, &["train", "--model", "model"]), @r"
    error: `pytorch_model.bin` is a pickle file, which can run any code when it is read, so it is refused
    hint: take the checkpoint in safetensors, or convert it with `save_pretrained(..., safe_serialization=True)`
    ");
    assert_snapshot!(error(&model, &["train", "--model", "model/pytorch_model.bin"]), @r"
    error: `pytorch_model.bin` is a pickle file, which can run any code when it is read, so it is refused
    hint: take the checkpoint in safetensors, or convert it with `save_pretrained(..., safe_serialization=True)`
    ");
    assert_snapshot!(error(&with("model.gguf", b"GGML, not GGUF"), &["train", "--model", "model.gguf"]), @r"
    error: read `model.gguf`: unknown magic 0x4c4d4747
    hint: it is no GGUF file, or not a whole one; download or copy it again
    ");
    assert_snapshot!(error(&folder(), &["train", "--model", "model"]), @r"
    error: there is no model `model`
    hint: give `tiny`, a model folder, a .gguf file or a hub id such as Qwen/Qwen2.5-0.5B
    ");
}

#[test]
fn a_question_that_is_too_long_is_told_so() {
    assert_snapshot!(error(&folder(), &["train", "--set", "rollout.max_prompt_length=9"]), @r"
    error: no question of `arithmetic` can be trained on: 4096 training questions left out: prompt longer than 9 tokens; 512 held-out questions left out: prompt longer than 9 tokens
    hint: see `data.path` and `rollout.max_prompt_length`
    ");
    assert_snapshot!(error(&folder(), &["generate", &"What is 1 + 1? ".repeat(100)]), @r"
    error: the prompt has 1017 tokens, more than 256
    hint: raise `rollout.max_prompt_length`
    ");
    assert_snapshot!(error(&folder(), &["generate", "1 + 1?", "--max-tokens", "1000"]), @r"
    error: prompt and completion may take 1256 tokens together, and the model was made for 512
    hint: lower `rollout.max_prompt_length` or `rollout.max_completion_length`
    ");
}

#[test]
fn a_run_directory_is_never_overwritten() {
    let runs = with("runs/taken/config.toml", b"");
    assert_snapshot!(error(&runs, &["train", "--name", "taken"]), @r"
    error: the run `runs/taken` exists, and nothing is overwritten
    hint: take another `--name`, leave it out for a counted one, or go on with `--resume runs/taken`
    ");
    assert_snapshot!(error(&runs, &["train", "--name", "a/b"]), @r"
    error: --name: `run.name`: `a/b` is no name of a folder
    hint: leave out slashes; run.dir says where
    ");
    // Also for root, who may write anywhere.
    assert_snapshot!(error(&with("runs", b"a file"), &["train"]), @r"
    error: write `runs`: File exists (os error 17)
    hint: something else stands in its place; choose another folder
    ");
}

#[test]
fn only_a_run_with_steps_to_go_is_resumed() {
    let runs = folder();
    let train = ["train", "--steps=1", "--set=rollout.prompts_per_step=1", "--set=rollout.num_generations=2"];
    rft(runs.path()).args(train).args(["--set=eval.questions=0", "--name=done"]).assert().success();
    assert_snapshot!(error(&runs, &["train", "--resume", "runs/done"]), @r"
    error: `runs/done` has already trained all of its 1 steps
    hint: its adapter is in `runs/done/adapter`
    ");
    assert_snapshot!(error(&runs, &["train", "--resume", "runs"]), @r"
    error: `runs` is no run directory: it has no config.toml
    hint: give the folder of the run, not that of a checkpoint
    ");
    assert_snapshot!(error(&runs, &["train", "--resume", "runs/none"]), @r"
    error: there is no run directory `runs/none`
    hint: give the folder that `rft train` named when it started, such as `runs/NAME`
    ");
    assert_snapshot!(error(&runs, &["generate", "--adapter", "runs", "1 + 1?"]), @r"
    error: `runs` is neither a run with an adapter nor an adapter
    hint: an adapter folder has an `adapter_config.json`
    ");
    assert_snapshot!(error(&runs, &["merge", "runs", "--out", "merged"]), @r"
    error: `runs` is not an adapter: it has no `adapter_config.json`
    hint: a run's adapter is in RUN/adapter
    ");

    // What goes with a new run does not go with an old one.
    let output = rft(runs.path()).args(["train", "--resume", "runs/done", "--steps", "9"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_snapshot!(String::from_utf8(output.stderr).unwrap(), @r"
    error: the argument '--resume <RUN>' cannot be used with '--steps <N>'

    Usage: rft train --resume <RUN>

    For more information, try '--help'.
    ");
}

#[test]
fn a_plan_says_what_fits() {
    let folder = tempfile::tempdir().unwrap();
    let output = rft(folder.path()).args(["plan", "--preset", "qwen2.5-7b"]).output().unwrap();
    assert!(output.status.success());
    assert_snapshot!(String::from_utf8(output.stdout).unwrap(), @r"
    Qwen/Qwen2.5-7B: 256 branches at a time of up to 1024 + 4096 tokens, micro-batches of 16384 tokens, checkpointed
     CUDA itself, and kept free for it         1.25 GiB
     weights, bf16                            14.42 GiB
     adapter, gradient, moments                1.20 GiB
     rollout: keys and values of prompts       3.50 GiB
     rollout: keys and values of branches     56.00 GiB
     rollout: working memory, logits           1.53 GiB
     training: kept for the backward pass      3.39 GiB
     training: working memory                  2.77 GiB
     training: the head, before that         706.32 MiB
     peak: what stays, and the larger phase   77.90 GiB
    24.00 GiB: does not fit; the most is rollout.max_rows=24 train.max_tokens_per_micro_batch=16384
    48.00 GiB: does not fit; the most is rollout.max_rows=127 train.max_tokens_per_micro_batch=16384
    80.00 GiB: fits
    141.00 GiB: fits
    ");
}

/// Some steps are trained and some questions evaluated; what the run takes follows from them, and nothing is left behind.
#[test]
fn a_measured_plan_says_what_a_run_takes() {
    let folder = folder();
    let sizes = ["rollout.prompts_per_step=2", "rollout.num_generations=2", "rollout.max_completion_length=12"];
    let run = ["train.steps=10", "train.save_steps=1", "eval.questions=20", "eval.every=4", "eval.greedy=true"];
    let sets = sizes.into_iter().chain(run).flat_map(|set| ["--set", set]);
    let mut command = rft(folder.path());
    // 3,600 an hour: a second costs one.
    command.args([
        "plan",
        "--measure",
        "0.2",
        "--device",
        "cpu",
        "--gpu-hour-price",
        "3600",
        "--output-format",
        "json",
    ]);
    let output = command.args(sets).env("TMPDIR", folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let measured = &plan["measured"];
    assert_eq!(measured["device"], "cpu");
    let number = |path: &str| measured.pointer(path).and_then(serde_json::Value::as_f64).unwrap_or(f64::NAN);
    let (steps, completions) = (number("/steps/units"), number("/evaluation/units"));
    assert!((1.0..=9.0).contains(&steps) && (2.0..=40.0).contains(&completions), "{measured:#}");
    // 10 steps; 20 questions, sampled and greedily, before and after and after steps 4 and 8.
    assert_eq!((number("/forecast/steps"), number("/forecast/completions")), (10.0, 160.0));
    for (part, piece, factor) in
        [("training", "steps", 10.0 / steps), ("evaluation", "evaluation", 160.0 / completions)]
    {
        let (seconds, tokens) = (number(&format!("/{piece}/seconds")), number(&format!("/{piece}/tokens")));
        assert!(seconds > 0.0 && tokens > 0.0, "{measured:#}");
        assert!((number(&format!("/forecast/{part}/money")) / (factor * seconds) - 1.0).abs() < 1e-9, "{measured:#}");
        assert!((number(&format!("/forecast/{part}/tokens")) / (factor * tokens) - 1.0).abs() < 1e-9, "{measured:#}");
    }
    let sum = number("/forecast/training/money") + number("/forecast/evaluation/money");
    assert!((number("/forecast/whole/money") / sum - 1.0).abs() < 1e-9);
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "what was measured is removed");

    let output = rft(folder.path()).args(["plan", "--gpu-hour-price", "2"]).output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("--measure"), "a price of what is not measured");
}

/// What only a GPU can do names what is missing, and refuses a CPU.
#[test]
fn what_needs_a_gpu_says_what_is_missing() {
    for command in [vec!["selftest"], vec!["perf", "decode"]] {
        if rft::device::gpus() == 0 {
            let said = error(&folder(), &command);
            assert!(said.contains("no CUDA driver") && said.contains("hint: `rft doctor`"), "{said}");
        }
        let on_cpu = [&command[..], &["--device", "cpu"]].concat();
        assert!(error(&folder(), &on_cpu).contains("hint: `cargo "));
    }
}

#[test]
fn doctor_says_what_holds_programs_in() {
    let folder = tempfile::tempdir().unwrap();
    let doctor = |args: &[&str]| rft(folder.path()).arg("doctor").args(args).output().unwrap();
    let output = doctor(&["--output-format", "json"]);
    assert!(output.status.success());
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["cuda"]["driver"].is_null(), rft::device::gpus() == 0, "{found}");
    assert!(found["folders"].as_array().unwrap().iter().all(|it| it["free"].as_u64() > Some(0)), "{found}");
    match rft::sandbox::Sandbox::probe(false) {
        Ok(sandbox) => {
            assert_eq!(found["sandbox"]["layers"], serde_json::to_value(sandbox.layers()).unwrap());
            assert!(String::from_utf8(doctor(&[]).stdout).unwrap().contains(&sandbox.layers().python));
        }
        Err(error) => assert!(found["sandbox"]["failures"][0].as_str().unwrap().contains(&error.to_string())),
    }
}
