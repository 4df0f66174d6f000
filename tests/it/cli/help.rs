//! The help of each command, word for word.

use insta::assert_snapshot;

use super::help;

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
      watch          Follow runs in the browser
      classify       Find behaviors in completions: verification, backtracking, planning, code ...
      merge          Merge an adapter into its model
      push           Upload a run with a model card to the Hugging Face Hub
      export         Write an adapter for llama.cpp
      plan           Estimate a run's GPU memory, time and cost
      rehearse       Go through all phases of a run in about a minute, with a small model
      verify-resume  Check on this machine that an interrupted run resumes to the same bytes
      selftest       Check every GPU operation against the CPU, or a model against candle's decoder
      perf           Measure a GPU: operations, decoding, training, a full step
      config         Show, check and list configurations
      prompts        List, show and render prior prompts
      reward         Test the reward, or check answers with it
      overlap        Find benchmark questions that overlap with training data
      difficulty     Measure how often a model solves each training question
      doctor         Check what works on this machine
      completions    Print completions for a shell, or write man pages
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
    `--model` and `--config`, it trains a small embedded model on generated word problems. With several
    prior prompts (`prompt.mix`), every group draws one.

    With `train.method = "distill"`, the model learns to answer without the prior prompt as it does with
    it; see docs/distillation.md.

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
              Number of steps; each step is one rollout batch. With --resume: train on to this number

          --init-adapter <ADAPTER>
              Adapter to start from: a run, a PEFT folder or a Hub id; its rank is at most `lora.r`

          --name <NAME>
              Name of the run directory, which must not exist yet [default: model, prompt and a counter]

          --resume <RUN>
              Resume an interrupted run

          --accept-changes
              Resume even if the data, the model, the prompt or the configuration has changed; the
              manifest records what changed

          --show-completions <N>
              Print the first completions of each step

      -q, --quiet
              Print only results and errors

      -y, --yes
              Start without asking: download the model, and train with very large steps

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
      rft train --set 'prompt.mix=[{ppe="reasoning"},{ppe="planning",weight=2}]'
      rft train --ppe planning --init-adapter runs/tiny-null-example-1
      rft train --ppe reasoning --set train.method=distill
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
              Maximum completion length in tokens [default: 2048, or what the model's context leaves]

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
    the adapter, or with `--gguf` one file for llama.cpp. A GGUF file of a GGUF model keeps the model's
    metadata.

    Usage: rft merge [OPTIONS] --out <DIR|FILE> <RUN|DIR>

    Arguments:
      <RUN|DIR>
              Run directory or adapter folder

    Options:
          --out <DIR|FILE>
              Folder to write, or file with `--gguf`; it must not exist yet

          --gguf
              Write a GGUF file for llama.cpp

          --dtype <DTYPE>
              Data type of the written weights; bf16 halves the size, with rounding; f16 and q8_0 only
              with `--gguf`

              [default: f32]
              [alias: --type]
              [possible values: f32, bf16, f16, q8_0]

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
      rft merge runs/tiny-null-example-1 --gguf --out merged.gguf --dtype q8_0
    ");
}

#[test]
fn help_of_export() {
    assert_snapshot!(help(&["export"]), @r"
    Write an adapter for llama.cpp

    Writes the adapter as a GGUF file, which llama.cpp and programs that are based on it apply to a GGUF
    file of the same model (`llama-server -m model.gguf --lora adapter.gguf`). Of the model, only the
    configuration and the tokenizer are read.

    Usage: rft export [OPTIONS] --gguf <RUN|DIR>

    Arguments:
      <RUN|DIR>
              Run directory or adapter folder

    Options:
          --gguf
              Write a GGUF file, the only format that there is

          --out <FILE>
              File to write, which must not exist yet [default: adapter.gguf in the run directory or the
              folder]

          --dtype <DTYPE>
              Data type of the written values; f16 and bf16 halve the size, with rounding

              [default: f32]
              [alias: --type]
              [possible values: f32, f16, bf16]

          --model <MODEL>
              Model that the adapter was trained on [default: the run's, else the one named in the
              adapter's configuration]

          --revision <REVISION>
              Branch, tag or commit of a Hub model [default: the run's, else main]

      -v, --verbose...
              Print more; repeat for debug output (RUST_LOG overrides this)

      -h, --help
              Print help (see a summary with '-h')

      -V, --version
              Print version

    Examples:
      rft export runs/tiny-null-example-1 --gguf
      rft export my-adapter --gguf --model Qwen/Qwen2.5-0.5B --out my-adapter.gguf --dtype f16
    ");
}

#[test]
fn help_of_config() {
    assert_snapshot!(help(&["config"]), @r"
    Show, check and list configurations

    Usage: rft config [OPTIONS] <COMMAND>

    Commands:
      show     Print the resolved configuration of a run, as commented TOML that repeats it
      check    Check configuration files; environment variables are ignored
      explain  Explain keys: type, default, meaning, allowed values, TRL's name
      schema   Print the JSON schema of a configuration file, for editors
      list     List the presets
      help     Print this message or the help of the given subcommand(s)

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
