//! The command line's texts: its help, and every error as one line with a hint.

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use insta::assert_snapshot;
use tempfile::TempDir;

pub fn rft_path() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_rft"))
}

/// `rft`, to be run in `folder`, in an environment without its variables.
pub fn rft(folder: &Path) -> Command {
    let mut command = Command::new(rft_path());
    command.current_dir(folder).env_remove("RUST_LOG").env_remove("COLUMNS");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RFT_")) {
        command.env_remove(name);
    }
    command
}

/// The output of `rft COMMAND --help`.
pub fn help(command: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let output = rft(folder.path()).args(command).arg("--help").output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// The error of a command that must fail: after its notes, one line, followed only by hints.
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

/// A folder with one file.
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
fn help_lists_the_commands() {
    assert_snapshot!(help(&[]), @r"
    Fine-tune language models with GRPO and measure what prior prompts change

    Trains LoRA adapters with a prior prompt placed before every question, evaluates them, and reports
    the differences with confidence intervals. To try it, run `rft train --ppe null-example`: it trains
    a small embedded model on a CPU in about two minutes.

    Usage: rft [OPTIONS] <COMMAND>

    Commands:
      train          Train a LoRA adapter with GRPO under a prior prompt
      eval           Evaluate a model on benchmarks
      sweep          Train and evaluate many arms from one file
      generate       Generate completions for one question
      report         Write a report of runs, with statistics
      compare        Compare two runs: configuration, training, evaluations
      runs           List runs and their progress
      classify       Find behaviors in completions: verification, backtracking, planning, code ...
      merge          Merge an adapter into its model
      plan           Estimate a run's GPU memory, time and cost
      rehearse       Go through all phases of a run in about a minute, with a small model
      verify-resume  Check on this machine that an interrupted run resumes to the same bytes
      selftest       Check every GPU operation against the CPU, or a model against candle's decoder
      perf           Measure a GPU: operations, decoding, training, a full step
      config         Show, check and list configurations
      prompts        List, show and render prior prompts
      reward         Test the reward, or check answers with it
      overlap        Find benchmark questions that overlap with training data
      doctor         Check what works on this machine
      help           Print this message or the help of the given subcommand(s)

    Options:
      -v, --verbose...
              Print more; repeat for debug output (RUST_LOG overrides this)

      -h, --help
              Print help (see a summary with '-h')

      -V, --version
              Print version
    ");
}

#[test]
fn help_of_train() {
    assert_snapshot!(help(&["train"]), @r#"
    Train a LoRA adapter with GRPO under a prior prompt

    For every question, samples a group of completions, scores them with rule-based rewards (correct
    answer, correct format), and makes the completions with an above-average reward more likely. Without
    `--model` and `--config`, it trains a small embedded model on generated word problems.

    Each run writes to its own folder under `runs/`: configuration, metrics (JSON lines and
    TensorBoard), every completion, checkpoints, and the adapter in PEFT format. Ctrl-C saves a
    checkpoint and stops the run; `--resume` continues from it.

    Usage: rft train [OPTIONS]

    Options:
          --ppe <NAME|FILE>
              Prior prompt: reasoning, planning, code, recall, null-example, none, or a file

          --model <MODEL>
              Model: `tiny` (embedded), a Hub id, a Hugging Face folder or a .gguf file

          --data <DATA>
              Training questions: `arithmetic` (generated), a JSONL, JSON, CSV or Parquet file, or a Hub
              data set id

          --question-column <COLUMN>
              Column with the questions, if it cannot be detected

          --answer-column <COLUMN>
              Column with the gold answers, if it cannot be detected

          --max-questions <N>
              Maximum number of training questions

          --seed <N>
              Random seed

          --device <DEVICE>
              Device: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:NUMBER`

          --threads <N>
              Worker threads; the result does not depend on their number [default: one per core]

          --steps <N>
              Number of steps; each step is one rollout batch

          --name <NAME>
              Name of the run directory, which must not exist yet [default: model, prompt and a counter]

          --resume <RUN>
              Resume an interrupted run

          --accept-changes
              Resume even if the data, the model, the prompt or the configuration has changed; the
              manifest records what changed

      -y, --yes
              Download the model without asking

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
      rft train --ppe null-example
      rft train --ppe reasoning --model Qwen/Qwen2.5-0.5B --data openai/gsm8k
      rft train --preset qwen2.5-7b --ppe planning --set train.seed=1
      rft train --resume runs/tiny-null-example-1
    "#);
}

#[test]
fn help_of_rehearse() {
    assert_snapshot!(help(&["rehearse"]), @r#"
    Go through all phases of a run in about a minute, with a small model

    Takes the configuration that you will train with, and replaces only its model by the embedded one.
    Loads the real data, reads every gold answer, renders every prompt, runs the rewards, trains one
    step, saves a checkpoint, kills the process, resumes it, evaluates, and exports the adapter. What
    would fail after hours, such as a reward command, a data column, a benchmark file or the disk space,
    fails now. Prints one line per phase, the lengths and numbers that it reduced, the keys that it
    cannot rehearse, and the memory plan of the real model.

    If the tokenizer of the real model is on this machine or on the Hub, prompts are rendered with it.
    The weights are never loaded or downloaded. Leaves no files behind.

    Usage: rft rehearse [OPTIONS]

    Options:
          --bench <NAME|FILE>
              Comma-separated benchmark names (`rft eval list` prints them) or data files that you will
              evaluate on

              [default: arithmetic]

          --data-dir <DIR>
              Folder with data files, searched before the Hub

              [env: RFT_DATA_DIR=]

          --ppe <NAME|FILE>
              Prior prompt: reasoning, planning, code, recall, null-example, none, or a file

          --model <MODEL>
              Model: `tiny` (embedded), a Hub id, a Hugging Face folder or a .gguf file

          --data <DATA>
              Training questions: `arithmetic` (generated), a JSONL, JSON, CSV or Parquet file, or a Hub
              data set id

          --question-column <COLUMN>
              Column with the questions, if it cannot be detected

          --answer-column <COLUMN>
              Column with the gold answers, if it cannot be detected

          --max-questions <N>
              Maximum number of training questions

          --seed <N>
              Random seed

          --device <DEVICE>
              Device: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:NUMBER`

          --threads <N>
              Worker threads; the result does not depend on their number [default: one per core]

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
      rft rehearse --preset qwen2.5-7b
      rft rehearse --config my-run.toml --data train.jsonl --bench math500,gsm8k --data-dir data
    "#);
}

#[test]
fn help_of_verify_resume() {
    assert_snapshot!(help(&["verify-resume"]), @r#"
    Check on this machine that an interrupted run resumes to the same bytes

    Trains 2 x N steps of the configuration without interruption, and once more in a process that is
    killed after its checkpoint of step N and resumed by another process. Then compares completions,
    metrics, counters, optimizer moments, adapter and evaluations of the two runs. Prints the hash of
    each part and `equal`, or the first difference, with exit code 1.

    Run it before a long run on a new machine, GPU or version. Without `--model` and `--config` it takes
    less than two minutes. With another model, it takes three times as long as 2 x N steps; `--set
    rollout.prompts_per_step=2` shortens them.

    Usage: rft verify-resume [OPTIONS]

    Options:
          --steps <N>
              Steps before the kill, and as many after it

              [default: 3]

          --keep
              Keep the folder with both runs; it is also kept if they differ

      -y, --yes
              Download the model without asking

          --ppe <NAME|FILE>
              Prior prompt: reasoning, planning, code, recall, null-example, none, or a file

          --model <MODEL>
              Model: `tiny` (embedded), a Hub id, a Hugging Face folder or a .gguf file

          --data <DATA>
              Training questions: `arithmetic` (generated), a JSONL, JSON, CSV or Parquet file, or a Hub
              data set id

          --question-column <COLUMN>
              Column with the questions, if it cannot be detected

          --answer-column <COLUMN>
              Column with the gold answers, if it cannot be detected

          --max-questions <N>
              Maximum number of training questions

          --seed <N>
              Random seed

          --device <DEVICE>
              Device: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:NUMBER`

          --threads <N>
              Worker threads; the result does not depend on their number [default: one per core]

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
      rft verify-resume
      rft verify-resume --config my-run.toml --data train.jsonl --steps 1
    "#);
}

#[test]
fn help_of_generate() {
    assert_snapshot!(help(&["generate"]), @r#"
    Generate completions for one question

    Renders the question with the model's chat template under the prior prompt, exactly as in training,
    and prints the completion as it is generated. The model may be trained (`--adapter`) or not.

    Usage: rft generate [OPTIONS] <QUESTION>

    Arguments:
      <QUESTION>
              The question

    Options:
          --adapter <RUN|DIR>
              Run directory or adapter folder; a run also sets the model and the prior prompt

          --ppe <NAME|FILE>
              Prior prompt: a name or a file [default: the run's, else the configuration's]

          --model <MODEL>
              Model: `tiny` (embedded), a Hub id, a Hugging Face folder or a .gguf file

          --device <DEVICE>
              Device: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:NUMBER`

          --temperature <T>
              Sampling temperature; 0 is greedy

              [default: 1]

          --max-tokens <N>
              Maximum completion length in tokens

          --seed <N>
              Random seed

              [default: 42]

      -n, --n <N>
              Number of completions

              [default: 1]

          --show-prompt
              Print the rendered prompt first

          --output-format <FORMAT>
              Output format; `json` prints one line per completion: text, token ids, log-probabilities
              and why it ended

              [default: text]
              [possible values: text, json]

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
      rft generate --adapter runs/tiny-null-example-1 "Anna has 12 apples and buys 5 more. How many does
      she have?"
      rft generate --model Qwen/Qwen2.5-0.5B --ppe reasoning --temperature 0 "What is 7 times 8?"
    "#);
}

#[test]
fn help_of_merge() {
    assert_snapshot!(help(&["merge"]), @r"
    Merge an adapter into its model

    Writes a Hugging Face folder (weights, configuration, tokenizer) that any program can load without
    the adapter.

    Usage: rft merge [OPTIONS] --out <DIR> <RUN|DIR>

    Arguments:
      <RUN|DIR>
              Run directory or adapter folder

    Options:
          --out <DIR>
              Folder to write, which must not exist yet

          --dtype <DTYPE>
              Data type of the written weights; bf16 halves the size, with rounding

              [default: f32]
              [possible values: f32, bf16]

          --model <MODEL>
              Model that the adapter was trained on [default: the run's, else the one named in the
              adapter's configuration]

          --revision <REVISION>
              Branch, tag or commit of a Hub model [default: the run's, else main]

      -y, --yes
              Download the model without asking

      -v, --verbose...
              Print more; repeat for debug output (RUST_LOG overrides this)

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
      show   Print the resolved configuration of a run, as TOML that repeats it
      check  Check configuration files; environment variables are ignored
      list   List the presets
      help   Print this message or the help of the given subcommand(s)

    Options:
      -v, --verbose...  Print more; repeat for debug output (RUST_LOG overrides this)
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
      list    List the shipped prior prompts
      show    Print a prior prompt as a file that you can edit
      render  Print the rendered prompt for a question
      help    Print this message or the help of the given subcommand(s)

    Options:
      -v, --verbose...  Print more; repeat for debug output (RUST_LOG overrides this)
      -h, --help        Print help
      -V, --version     Print version
    ");
}

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
    error: `pytorch_model.bin` is a pickle file, which is not supported because loading it can run code
    hint: use the checkpoint in safetensors, or convert it with `save_pretrained(..., safe_serialization=True)`
    ");
    assert_snapshot!(error(&model, &["train", "--model", "model/pytorch_model.bin"]), @r"
    error: `pytorch_model.bin` is a pickle file, which is not supported because loading it can run code
    hint: use the checkpoint in safetensors, or convert it with `save_pretrained(..., safe_serialization=True)`
    ");
    assert_snapshot!(error(&with("model.gguf", b"GGML, not GGUF"), &["train", "--model", "model.gguf"]), @r"
    error: read `model.gguf`: unknown magic 0x4c4d4747
    hint: download or copy it again; it is not a GGUF file, or a truncated one
    ");
    assert_snapshot!(error(&folder(), &["train", "--model", "model"]), @r"
    error: there is no model `model`
    hint: pass `tiny`, a model folder, a .gguf file or a Hub id such as Qwen/Qwen2.5-0.5B
    ");
}

#[test]
fn a_question_that_is_too_long_is_an_error() {
    assert_snapshot!(error(&folder(), &["train", "--set", "rollout.max_prompt_length=9"]), @r"
    error: no question of `arithmetic` is usable: 4096 training questions left out because their prompt is longer than 9 tokens; 512 held-out questions left out because their prompt is longer than 9 tokens
    hint: check `data.path` and `rollout.max_prompt_length`
    ");
    assert_snapshot!(error(&folder(), &["generate", &"What is 1 + 1? ".repeat(100)]), @r"
    error: the prompt has 1017 tokens, more than 256
    hint: raise `rollout.max_prompt_length`
    ");
    assert_snapshot!(error(&folder(), &["generate", "1 + 1?", "--max-tokens", "1000"]), @r"
    error: the maximum length of prompt and completion together is 1256 tokens, but the model supports 512
    hint: lower `rollout.max_prompt_length` or `rollout.max_completion_length`
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
    let output = rft(runs.path()).args(["train", "--resume", "runs/done", "--steps", "9"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_snapshot!(String::from_utf8(output.stderr).unwrap(), @r"
    error: the argument '--resume <RUN>' cannot be used with '--steps <N>'

    Usage: rft train --resume <RUN>

    For more information, try '--help'.
    ");
}

#[test]
fn plan_prints_what_fits() {
    let folder = tempfile::tempdir().unwrap();
    let output = rft(folder.path()).args(["plan", "--preset", "qwen2.5-7b"]).output().unwrap();
    assert!(output.status.success());
    assert_snapshot!(String::from_utf8(output.stdout).unwrap(), @r"
    Qwen/Qwen2.5-7B: 256 completions at a time, prompts of up to 1024 tokens, completions of up to 4096, micro-batches of 16384, activation checkpointing
     CUDA context and reserve                 1.25 GiB
     weights, bf16                           14.42 GiB
     adapter, gradient, optimizer             1.20 GiB
     rollout: KV cache of prompts             3.50 GiB
     rollout: KV cache of completions        56.00 GiB
     rollout: work buffers, logits            1.53 GiB
     training: saved for the backward pass    3.39 GiB
     training: work buffers                   2.77 GiB
     training: the head, separate phase     706.32 MiB
     peak                                    77.90 GiB
    24.00 GiB: does not fit; largest that fits: rollout.max_rows=24 train.max_tokens_per_micro_batch=16384
    48.00 GiB: does not fit; largest that fits: rollout.max_rows=127 train.max_tokens_per_micro_batch=16384
    80.00 GiB: fits
    141.00 GiB: fits
    ");
}

/// Some steps are trained and some questions evaluated; the estimate follows from them, and no files are left behind.
#[test]
fn a_measured_plan_forecasts_the_whole_run() {
    let folder = folder();
    let sizes = ["rollout.prompts_per_step=2", "rollout.num_generations=2", "rollout.max_completion_length=12"];
    let run = ["train.steps=10", "train.save_steps=1", "eval.questions=20", "eval.every=4", "eval.greedy=true"];
    let sets = sizes.into_iter().chain(run).flat_map(|set| ["--set", set]);
    let mut command = rft(folder.path());
    // 3,600 per hour: one second costs 1.
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
    // 10 steps; 20 questions, sampled and greedy, before, after, and after steps 4 and 8.
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
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "the measurement is removed");

    let output = rft(folder.path()).args(["plan", "--gpu-hour-price", "2"]).output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("--measure"), "a price without a measurement");
}

/// Commands that need a GPU name what is missing, and do not run on a CPU.
#[test]
fn gpu_commands_name_what_is_missing() {
    for command in [vec!["selftest"], vec!["perf", "decode"]] {
        if rft::device::gpus() == 0 {
            let said = error(&folder(), &command);
            assert!(said.contains("no CUDA driver") && said.contains("hint: run `rft doctor`"), "{said}");
        }
        let on_cpu = [&command[..], &["--device", "cpu"]].concat();
        assert!(error(&folder(), &on_cpu).contains("hint: `cargo "));
    }
}

#[test]
fn doctor_reports_the_layers_of_the_sandbox() {
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
