//! `rft train`: fine-tune a model by GRPO under a prior prompt.

use super::config_args::ConfigArgs;
use crate::config::{self, RunConfig};
use crate::device::{self, Device, Extent, Loaded};
use crate::disk::atomic;
use crate::model::config::ModelConfig;
use crate::model::source::Source;
use crate::prompt;
use crate::run::{Progress, RunDir, Session, Stop};
use crate::train::contamination;
use crate::train::evaluate::Evaluation;
use crate::train::setup::Setup;
use crate::train::state::TrainState;
use crate::train::{Outcome, Training, train};
use anyhow::{Result, ensure};
use comfy_table::{Table, presets};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Fine-tune a model by GRPO under a prior prompt
///
/// Samples a group of completions for every question, rewards them by rules (right answer, right format), and moves LoRA
/// weights towards the better ones of each group. Without `--model` and `--config` it trains a small embedded model on
/// generated word problems. Everything of the run is written to a folder of its own under `runs/`: configuration, metrics
/// (JSON lines and TensorBoard), every completion, checkpoints, and the adapter in PEFT's format.
///
/// Ctrl-C ends a run cleanly with a checkpoint; `--resume` goes on from there.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  rft train --ppe null-example
  rft train --ppe reasoning --model Qwen/Qwen2.5-0.5B --data openai/gsm8k
  rft train --preset qwen2.5-7b --ppe planning --set train.seed=1
  rft train --resume runs/tiny-null-example-1")]
pub struct Args {
    /// Prior prompt: reasoning, planning, code, recall, null-example, none, or a file
    #[arg(long, value_name = "NAME|FILE")]
    ppe: Option<String>,

    /// Model: `tiny` (embedded), a hub id, a Hugging Face folder or a .gguf file
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,

    /// Questions: `arithmetic` (generated), a JSONL, JSON, CSV or Parquet file, or a hub data set id
    #[arg(long, value_name = "DATA")]
    data: Option<String>,

    /// Column of the questions, where it cannot be told from the data
    #[arg(long, value_name = "COLUMN")]
    question_column: Option<String>,

    /// Column of the gold answers
    #[arg(long, value_name = "COLUMN")]
    answer_column: Option<String>,

    /// Train on at most so many questions
    #[arg(long, value_name = "N")]
    max_questions: Option<i64>,

    /// Rollout batches to train on
    #[arg(long, value_name = "N")]
    steps: Option<i64>,

    /// Seed of everything that is random
    #[arg(long, value_name = "N")]
    seed: Option<i64>,

    /// Name of the run directory; it must not exist yet [default: model, prompt and a counter]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Device: `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:NUMBER`
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,

    /// Worker threads [default: one for each core]; the result does not depend on them
    #[arg(long, value_name = "N")]
    threads: Option<i64>,

    /// Go on with a run that was interrupted
    #[arg(long, value_name = "RUN", conflicts_with_all = [
        "ppe", "model", "data", "question_column", "answer_column", "max_questions", "steps", "seed", "name",
        "preset", "files", "sets",
    ])]
    resume: Option<PathBuf>,

    /// Download a model without asking
    #[arg(long, short)]
    yes: bool,

    #[command(flatten)]
    config: ConfigArgs,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let (config, resumed, recorded) = match &args.resume {
        Some(path) => {
            let run = RunDir::resume(path)?;
            let mut config = read_config(&run)?;
            config.train.threads = args.threads.map(|threads| threads.max(1) as usize).or(config.train.threads);
            let recorded = contamination::recorded(&run, &config)?;
            (config, Some(run), recorded)
        }
        None => (resolve(&args)?, None, None),
    };
    device::use_threads(config.train.threads)?;
    super::download::confirm(&config, args.yes)?;
    let source = Source::open(&config.model.path, &config.model.revision)?;
    let setup = Setup::new(&config, &source, data_dir().as_deref(), recorded)?;
    let device = Device::choose(&config.run.device)?;
    let shape = source.config.clone();
    let mut state = match &resumed {
        Some(run) => restore(&config, &shape, run)?,
        None => TrainState::new(&shape, &config.lora, config.train.seed)?,
    };
    let loaded = Loaded::load(device, &source, Some(&state.adapter), &Extent::of(&config))?;
    let name = source.name.clone();
    drop(source);
    let run = match resumed {
        Some(run) => run,
        None => start(&config, &setup, &name)?,
    };
    introduce(&config, &setup, &shape, device, &run);
    if let Some(warning) = loaded.keep_products(&run.products())? {
        eprintln!("warning: {warning}");
    }

    let steps = config.total_steps(setup.questions.len());
    ensure!(
        state.counters.step < steps || !run.is_finished(steps, &config.eval)?,
        "`{}` has already trained all of its {steps} steps\nhint: its adapter is in `{}`",
        run.path().display(),
        run.adapter().display()
    );
    let mut manifest = match args.resume {
        Some(_) => crate::run::Manifest::read(&run)?,
        None => setup.manifest(&config),
    };
    let resumed_from = args.resume.is_some().then_some(state.counters.step);
    manifest.sessions.push(Session::start(&device.to_string(), rayon::current_num_threads(), resumed_from));
    manifest.write(&run)?;

    let progress = Progress::new(steps, state.counters.step);
    let heard = progress.clone();
    let stop = Stop::on_signals(move |_| heard.note("stopping; a checkpoint comes first (again to stop at once)"))?;
    let training = Training {
        config: &config,
        sampler: setup.sampler(&config),
        base: &config.model.path,
        questions: &setup.questions,
        held_out: &setup.held_out,
        run: &run,
        progress: &progress,
        stop: &stop,
    };
    let (mut engine, mut learner) = (loaded.engine(), loaded.learner());
    let outcome = train(&training, engine.as_mut(), learner.as_mut(), &mut state)?;
    conclude(&run, &outcome, steps);
    Ok(outcome.stopped.map_or(ExitCode::SUCCESS, |signal| ExitCode::from(signal.exit_code() as u8)))
}

/// The folder with benchmarks that `RFT_DATA_DIR` names.
fn data_dir() -> Option<PathBuf> {
    std::env::var_os("RFT_DATA_DIR").filter(|folder| !folder.is_empty()).map(Into::into)
}

/// The configuration of a new run, from all layers.
fn resolve(args: &Args) -> Result<RunConfig> {
    let mut layers = args.config.layers();
    layers.flag("prompt.ppe", args.ppe.clone(), "--ppe");
    layers.flag("model.path", args.model.clone(), "--model");
    layers.flag("run.device", args.device.clone(), "--device");
    layers.flag("data.path", args.data.clone(), "--data");
    layers.flag("data.question_column", args.question_column.clone(), "--question-column");
    layers.flag("data.answer_column", args.answer_column.clone(), "--answer-column");
    layers.flag("data.max_questions", args.max_questions, "--max-questions");
    layers.flag("train.steps", args.steps, "--steps");
    layers.flag("train.seed", args.seed, "--seed");
    layers.flag("train.threads", args.threads, "--threads");
    layers.flag("run.name", args.name.clone(), "--name");
    let config = config::resolve(&layers)?.config;
    if args.model.is_none()
        && args.config.files.is_empty()
        && args.config.preset.is_none()
        && config.model.path == "tiny"
    {
        eprintln!("training the embedded model `tiny`; --model takes a real one, such as Qwen/Qwen2.5-0.5B");
    }
    Ok(config)
}

/// Makes the run directory and writes down what the run is.
fn start(config: &RunConfig, setup: &Setup, model: &str) -> Result<RunDir> {
    // A hub id by its second part, a file without its ending.
    let model = model.rsplit('/').next().unwrap_or(model).trim_end_matches(".gguf");
    let stem = format!("{}-{}", model.to_lowercase(), setup.prior.name);
    let run = RunDir::create(Path::new(&config.run.dir), config.run.name.as_deref(), &stem)?;
    // Before the configuration, without which this is no run that could be resumed: the rows to leave out are known by then.
    contamination::write(&setup.contamination, &run)?;
    atomic::write(&run.config(), config::to_toml(config, None).as_bytes())?;
    atomic::write(&run.prompt(), setup.prior.to_toml().as_bytes())?;
    Ok(run)
}

/// The configuration that the run was started with. A prompt of the user's is read from the run's own copy.
fn read_config(run: &RunDir) -> Result<RunConfig> {
    let layers = config::Layers { files: vec![run.config()], ..config::Layers::default() };
    let mut config = config::resolve(&layers)?.config;
    if prompt::find_shipped(&config.prompt.ppe).is_none() {
        config.prompt.ppe = run.prompt().display().to_string();
    }
    Ok(config)
}

/// The newest whole checkpoint of the run, or the state it began with.
fn restore(config: &RunConfig, model: &ModelConfig, run: &RunDir) -> Result<TrainState> {
    let newest = run.newest_checkpoint(|step, error| {
        eprintln!("warning: the checkpoint of step {step} is not whole and is left aside: {error:#}");
    })?;
    match newest {
        Some(step) => TrainState::load(&run.checkpoint(step), model, &config.lora),
        None => TrainState::new(model, &config.lora, config.train.seed),
    }
}

fn introduce(config: &RunConfig, setup: &Setup, model: &ModelConfig, device: Device, run: &RunDir) {
    let (first, answer) = (&setup.prior.tag, &setup.prior.answer_tag);
    let tag = first.as_ref().or(answer.as_ref()).map_or_else(|| "no tags".to_owned(), |tag| format!("<{tag}>"));
    let steps = config.total_steps(setup.questions.len());
    let place = match device {
        Device::Cpu => format!("f32 on the CPU, {} threads", rayon::current_num_threads()),
        Device::Cuda(ordinal) => format!("bf16 on GPU {ordinal}"),
    };
    eprintln!(
        "model    {} ({:.1} M weights, {place}), LoRA r {} on {}",
        config.model.path,
        model.parameters() as f64 / 1e6,
        config.lora.r,
        config.lora.target_modules.join(", ")
    );
    eprintln!("prompt   {} ({tag}, {}'s words)", setup.prior.name, setup.prior.wording);
    eprintln!(
        "data     {}: {} questions to train on, {} held out",
        config.data.path,
        setup.questions.len(),
        setup.held_out.len()
    );
    eprintln!(
        "plan     {steps} steps of {} questions x {} completions, {}",
        config.rollout.prompts_per_step,
        config.rollout.num_generations,
        render_loss(config)
    );
    eprintln!("run      {}", run.path().display());
    for note in &setup.notes {
        eprintln!("note     {note}");
    }
}

fn render_loss(config: &RunConfig) -> String {
    let loss = toml::Value::try_from(config.grpo.loss_type).map(|value| value.to_string()).unwrap_or_default();
    format!("loss {}, learning rate {}", loss.trim_matches('"'), config.train.learning_rate)
}

/// Before and after, and where things are.
fn conclude(run: &RunDir, outcome: &Outcome, steps: usize) {
    if outcome.stopped.is_some() {
        eprintln!(
            "stopped after step {} of {steps}; go on with: rft train --resume {}",
            outcome.steps,
            run.path().display()
        );
        return;
    }
    if let Some(after) = &outcome.after {
        println!("{}", table(outcome.before.as_ref(), after));
        for what in outcome.before.iter().flat_map(|before| undecided(before, after)) {
            println!("the intervals of {what} overlap: this run alone does not show a difference");
        }
    }
    println!("adapter      {}", run.adapter().display());
    println!("completions  {}", run.completions().display());
    println!("metrics      {}  (tensorboard --logdir {})", run.metrics().display(), run.path().display());
}

/// The sampled shares whose intervals before and after training overlap.
fn undecided(before: &Evaluation, after: &Evaluation) -> Vec<&'static str> {
    let (before, after) = (&before.sampled, &after.sampled);
    let accuracy = before.accuracy.interval.overlaps(&after.accuracy.interval).then_some("accuracy");
    let formats = before.format.zip(after.format);
    let format = formats.filter(|(before, after)| before.interval.overlaps(&after.interval)).map(|_| "format");
    accuracy.into_iter().chain(format).collect()
}

fn table(before: Option<&Evaluation>, after: &Evaluation) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    let n = after.sampled.accuracy.n;
    table.set_header([format!("{n} held-out questions"), "before".to_owned(), "after".to_owned()]);
    let mut row = |name: &str, value: &dyn Fn(&Evaluation) -> Option<String>| {
        if let Some(after) = value(after) {
            let before = before.and_then(value).unwrap_or_else(|| "-".to_owned());
            table.add_row([name.to_owned(), before, after]);
        }
    };
    row("accuracy, one sample at temperature 1", &|e| Some(e.sampled.accuracy.to_string()));
    row("format, one sample at temperature 1", &|e| e.sampled.format.map(|format| format.to_string()));
    row("accuracy, greedy", &|e| e.greedy.as_ref().map(|greedy| greedy.accuracy.to_string()));
    row("format, greedy", &|e| e.greedy.as_ref()?.format.map(|format| format.to_string()));
    row("tokens of a completion", &|e| Some(format!("{:.1}", e.sampled.mean_length)));
    row("cut at the longest length", &|e| Some(format!("{:.1} %", 100.0 * e.sampled.truncated)));
    table
}
