//! `rft train`: train a LoRA adapter with GRPO under a prior prompt.

use super::held_out;
use super::run_args::RunArgs;
use crate::config::{self, LrScheduler, RunConfig};
use crate::device::memory::cpu::{CpuMemory, PromptSizes};
use crate::device::memory::machine::{self, MachineMemory};
use crate::device::{self, Device, Extent, LoadedModel};
use crate::grpo::schedule::learning_rate;
use crate::model::config::ModelConfig;
use crate::model::source::ModelSource;
use crate::prompt::WeightedPrompt;
use crate::rollout::Engine;
use crate::rollout::servers::Servers;
use crate::run::inputs::is_from_older_version;
use crate::run::{Manifest, Progress, RunDir, RunSession, Stop};
use crate::train::checkpoints::{best, check_space};
use crate::train::contamination;
use crate::train::inputs::{HashingInputs, compare, explain, extend};
use crate::train::sample::TrainQuestion;
use crate::train::setup::Setup;
use crate::train::state::TrainState;
use crate::train::summary;
use crate::train::{TrainOutcome, Training, train};
use anyhow::{Result, ensure};
use jiff::Timestamp;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Train a LoRA adapter with GRPO under a prior prompt
///
/// For every question, samples a group of completions, scores them with rule-based rewards (correct answer, correct
/// format), and makes the completions with an above-average reward more likely. Without `--model` and `--config`, it trains
/// a small embedded model on generated word problems. With several prior prompts (`prompt.mix`), every group draws one.
///
/// With `train.method = "distill"`, the model learns to answer without the prior prompt as it does with it; see
/// docs/distillation.md.
///
/// Each run writes to its own folder under `runs/`: configuration, metrics (JSON lines and TensorBoard), every completion,
/// checkpoints, and the adapter in PEFT format. Ctrl-C saves a checkpoint and stops the run; `--resume` continues from it.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  rft train --ppe null-example
  rft train --ppe reasoning --model Qwen/Qwen2.5-0.5B --data openai/gsm8k
  rft train --preset qwen2.5-7b --ppe planning --set train.seed=1
  rft train --set 'prompt.mix=[{ppe=\"reasoning\"},{ppe=\"planning\",weight=2}]'
  rft train --ppe planning --init-adapter runs/tiny-null-example-1
  rft train --ppe reasoning --set train.method=distill
  rft train --resume runs/tiny-null-example-1")]
pub struct TrainArgs {
    #[command(flatten)]
    run: RunArgs,

    /// Number of steps; each step is one rollout batch. With --resume: train on to this number
    #[arg(long, value_name = "N")]
    steps: Option<i64>,

    /// Adapter to start from: a run, a PEFT folder or a Hub id; its rank is at most `lora.r`
    #[arg(long, value_name = "ADAPTER")]
    init_adapter: Option<String>,

    /// Name of the run directory, which must not exist yet [default: model, prompt and a counter]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Resume an interrupted run
    #[arg(long, value_name = "RUN", conflicts_with_all = [
        "ppe", "model", "data", "question_column", "answer_column", "max_questions", "seed", "name",
        "init_adapter", "preset", "files", "sets",
    ])]
    resume: Option<PathBuf>,

    /// Resume even if the data, the model, the prompt or the configuration has changed; the manifest records what changed
    #[arg(long, requires = "resume")]
    accept_changes: bool,

    /// Print the first completions of each step
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    show_completions: usize,

    /// Print only results and errors
    #[arg(long, short)]
    quiet: bool,

    /// Start without asking: download the model, and train with very large steps
    #[arg(long, short)]
    yes: bool,
}

pub fn run(args: TrainArgs) -> Result<ExitCode> {
    let resumed = args.resume.as_deref().map(|path| ResumedRun::open(path, args.accept_changes)).transpose()?;
    let prepared = prepare(&args, resumed.as_ref()).map_err(|error| {
        let run = resumed.as_ref().filter(|_| !args.accept_changes);
        match run.and_then(|it| explain(&it.run, it.manifest.as_ref()?)) {
            Some(changed) => error.context(changed),
            None => error,
        }
    });
    let PreparedRun { config, started, setup, shape, device, memory, mut state, loaded, name, hashing } = prepared?;
    // A resumed run was tested when it started.
    let tested = if resumed.is_none() { setup.test_rewards(&config)? } else { Vec::new() };
    let steps = config.total_steps(setup.questions.len());
    if let Some(warning) = check_space(&config, &state.adapter, steps, state.counters.step)? {
        eprintln!("warning: {warning}");
    }
    let (run, before) = match resumed {
        Some(resumed) => (resumed.run, resumed.manifest),
        None => (setup.start(&config, &name)?, None),
    };
    if !args.quiet {
        introduce(&config, &setup, &tested, &shape, device, memory, &run);
    }
    if let Some(warning) = loaded.keep_products(&run.products())? {
        eprintln!("warning: {warning}");
    }

    ensure!(
        state.counters.step < steps || !run.is_finished(steps, &config.eval)? || !run.summary().is_file(),
        "`{}` has already trained all of its {steps} steps\nhint: its adapter is in `{}`",
        run.path().display(),
        run.adapter().display()
    );
    let manifest = setup.manifest(&config, hashing.finish(&run)?);
    let (mut manifest, mut changes) = match before {
        Some(before) => compare(before, manifest, &run, args.accept_changes)?,
        None => (manifest, Vec::new()),
    };
    let extended = args.resume.is_some() && args.steps.is_some() && run.run_config()?.train.steps != config.train.steps;
    if extended {
        ensure!(
            state.counters.step < steps,
            "--steps: the run has already trained {} steps\nhint: pass a larger number",
            state.counters.step
        );
        let before = run.run_config()?.total_steps(setup.questions.len());
        changes.push(extend(&run, steps, &mut manifest)?);
        if let Some(note) = new_schedule(&config, [before, steps], &state) {
            eprintln!("note     {note}");
        }
    }
    for change in &changes {
        eprintln!("note     changed since the run was started: {change}");
    }
    let resumed_from = args.resume.is_some().then_some(state.counters.step);
    let time = if manifest.sessions.is_empty() { started } else { Timestamp::now() };
    let session = RunSession::start(time, &device.to_string(), rayon::current_num_threads(), resumed_from);
    manifest.sessions.push(RunSession { changes, ..session });
    manifest.write(&run)?;

    let progress = if args.quiet { Progress::silent() } else { Progress::new(steps, state.counters.step) };
    let heard = progress.clone();
    let killed = progress.clone();
    let stop = Stop::on_signals_and(
        move |_| heard.note("stopping after saving a checkpoint (interrupt again to stop immediately)"),
        move |_| killed.finish(),
    )?;
    let training = Training {
        config: &config,
        scorer: setup.scorer(&config),
        base: &config.model.path,
        questions: &setup.questions,
        held_out: &setup.held_out,
        run: &run,
        progress: &progress,
        show_completions: args.show_completions,
        stop: &stop,
    };
    let mut engine: Box<dyn Engine> = match config.rollout.endpoints.is_empty() {
        true => loaded.engine(),
        false => Box::new(Servers::connect(setup.servers(&config, &run, &shape))?),
    };
    let mut learner = loaded.learner();
    let outcome = train(&training, engine.as_mut(), learner.as_mut(), &mut state);
    // An error is printed below the progress.
    progress.finish();
    let outcome = outcome?;
    conclude(&run, &outcome, steps)?;
    Ok(outcome.stopped.map_or(ExitCode::SUCCESS, |signal| ExitCode::from(signal.exit_code() as u8)))
}

/// A run to resume.
struct ResumedRun {
    run: RunDir,
    /// Absent if the run was killed before it was written.
    manifest: Option<Manifest>,
}

impl ResumedRun {
    fn open(path: &Path, accept_changes: bool) -> Result<Self> {
        let run = RunDir::resume(path)?;
        if !run.manifest().is_file() {
            // Without a checkpoint nothing has been trained with other inputs.
            ensure!(
                accept_changes || run.checkpoints()?.is_empty(),
                "`{}` has checkpoints but no manifest.json, so its inputs cannot be compared with those of its start\n\
                 hint: restore the file, or pass --accept-changes to continue without the comparison",
                run.path().display()
            );
            return Ok(Self { run, manifest: None });
        }
        let manifest = Manifest::read(&run)?;
        if is_from_older_version(&manifest) {
            eprintln!(
                "note     `{}` is from an older version of rft: only the hashes of the model, the data and the prompt are compared",
                run.manifest().display()
            );
        }
        Ok(Self { run, manifest: Some(manifest) })
    }
}

/// Everything that a run needs before its first step.
struct PreparedRun {
    config: RunConfig,
    /// When the run was started.
    started: Timestamp,
    setup: Setup,
    shape: ModelConfig,
    device: Device,
    memory: Option<(CpuMemory, MachineMemory)>,
    state: TrainState,
    loaded: LoadedModel,
    /// The model's name.
    name: String,
    hashing: HashingInputs,
}

/// Loads the model and the questions, while the files are hashed.
fn prepare(args: &TrainArgs, resumed: Option<&ResumedRun>) -> Result<PreparedRun> {
    let (config, recorded) = match resumed {
        Some(ResumedRun { run, .. }) => {
            let mut config = run.run_config()?;
            if let Some(threads) = args.run.threads {
                ensure!((1..=1024).contains(&threads), "--threads: {threads} is out of range, expected 1 to 1024");
                config.train.threads = Some(threads as usize);
            }
            config.run.device = args.run.device.clone().unwrap_or(config.run.device);
            if let Some(steps) = args.steps {
                ensure!(
                    (1..=100_000_000).contains(&steps),
                    "--steps: {steps} is out of range, expected 1 to 100000000"
                );
                config.train.steps = Some(steps as usize);
            }
            let recorded = contamination::recorded(run, &config)?;
            (config, recorded)
        }
        None => (resolve(args)?, None),
    };
    check_size(&config, args.yes || resumed.is_some())?;
    device::use_threads(config.train.threads)?;
    super::download::confirm(&config, args.yes)?;
    let source = ModelSource::open(&config.model.path, &config.model.revision)?;
    let before = resumed.and_then(|run| run.manifest.as_ref());
    let started = before.and_then(Manifest::started).unwrap_or_else(Timestamp::now);
    let mut setup = Setup::new(&config, &source, started, data_dir().as_deref(), recorded)?;
    let hashing = setup.inputs.hash();
    let device = Device::choose(&config.run.device)?;
    let shape = source.config.clone();
    let memory = estimate(&config, &setup, &shape, device)?;
    let saved = match resumed {
        Some(ResumedRun { run, .. }) => TrainState::resume(run, &shape, &config.lora, |step, error| {
            eprintln!("warning: skipping the damaged checkpoint of step {step}: {error:#}");
        })?,
        None => None,
    };
    let state = match saved {
        Some(state) => state,
        None => {
            let (state, note) = setup.initial_state(&config, &source)?;
            setup.notes.extend(note);
            state
        }
    };
    let loaded = LoadedModel::load(device, &source, Some(&state.adapter), &Extent::of(&config))?;
    let name = source.name.clone();
    Ok(PreparedRun { config, started, setup, shape, device, memory, state, loaded, name, hashing })
}

/// Above this number of completions per step, a typing error is likely.
const LARGE_STEP: usize = 65_536;

fn check_size(config: &RunConfig, yes: bool) -> Result<()> {
    let completions = config.rollout.completions_per_step();
    ensure!(
        yes || completions <= LARGE_STEP,
        "a step would have {completions} completions: {} questions with {} each\n\
         hint: lower rollout.num_generations or rollout.prompts_per_step, or pass --yes",
        config.rollout.prompts_per_step,
        config.rollout.num_generations
    );
    Ok(())
}

/// What happens to the learning rate when a run of `before` steps trains on to `steps`; `None` if it is constant.
fn new_schedule(config: &RunConfig, [before, steps]: [usize; 2], state: &TrainState) -> Option<String> {
    let (train, step, done) = (&config.train, state.counters.step, state.counters.updates);
    let rate = |update, steps: usize| learning_rate(train, update, steps * config.grpo.updates_per_step());
    let next = rate(done, steps);
    if train.lr_scheduler_type == LrScheduler::Constant && next == train.learning_rate {
        return None;
    }
    let last = match step {
        0 => String::new(),
        _ => format!(", after {:.3e} in step {step}", rate(done.saturating_sub(1), before)),
    };
    Some(format!(
        "the learning rate schedule is now that of {steps} steps instead of {before}: step {} has {next:.3e}{last}",
        step + 1
    ))
}

/// The folder with benchmark files, from `RFT_DATA_DIR`.
fn data_dir() -> Option<PathBuf> {
    std::env::var_os("RFT_DATA_DIR").filter(|folder| !folder.is_empty()).map(Into::into)
}

/// The configuration of a new run, from all layers.
fn resolve(args: &TrainArgs) -> Result<RunConfig> {
    let mut layers = args.run.layers();
    layers.flag("train.steps", args.steps, "--steps");
    layers.flag("run.name", args.name.clone(), "--name");
    layers.flag("lora.init_adapter", args.init_adapter.clone(), "--init-adapter");
    let config = config::resolve(&layers)?.config;
    if args.run.model.is_none()
        && args.run.config.files.is_empty()
        && args.run.config.preset.is_none()
        && config.model.path == "tiny"
    {
        eprintln!("training the embedded model `tiny`; use --model for another one, such as Qwen/Qwen2.5-0.5B");
    }
    Ok(config)
}

/// The memory of a run on the CPU, and that of the machine if it is known.
///
/// # Errors
/// If the machine does not have this much memory.
fn estimate(
    config: &RunConfig,
    setup: &Setup,
    model: &ModelConfig,
    device: Device,
) -> Result<Option<(CpuMemory, MachineMemory)>> {
    let (Device::Cpu, Some(machine)) = (device, MachineMemory::now()) else { return Ok(None) };
    let questions = setup.questions.iter().chain(&setup.held_out);
    let longest = questions.map(TrainQuestion::longest_prompt).max().unwrap_or_default();
    let prompts = PromptSizes { longest, held_out: setup.held_out.len() };
    let memory = CpuMemory::of(model, config, prompts, machine::resident().unwrap_or_default())?;
    memory.check(&machine)?;
    Ok(Some((memory, machine)))
}

fn introduce(
    config: &RunConfig,
    setup: &Setup,
    tested: &[String],
    model: &ModelConfig,
    device: Device,
    memory: Option<(CpuMemory, MachineMemory)>,
    run: &RunDir,
) {
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
    let how = if config.distilled().is_some() { ", distilled: the model samples without it" } else { "" };
    for WeightedPrompt { prompt, weight } in setup.mixture.parts() {
        let tag = prompt.tag.as_ref().or(prompt.answer_tag.as_ref());
        let tag = tag.map_or_else(|| "no tags".to_owned(), |tag| format!("<{tag}>"));
        let weight = if setup.mixture.is_mixed() { format!(", weight {weight}") } else { String::new() };
        eprintln!("prompt   {} ({tag}, {} wording{weight}){how}", prompt.name, prompt.wording);
    }
    eprintln!(
        "data     {}: {} training questions, {} held-out questions",
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
    eprintln!("size     {}", size(config, steps, setup.questions.len()));
    if let Some((memory, machine)) = memory {
        let gib = |bytes: u64| match bytes as f64 / (1u64 << 30) as f64 {
            small if small < 1.0 => format!("{small:.2} GiB"),
            gib => format!("{gib:.1} GiB"),
        };
        eprintln!("memory   about {}; {} are available", gib(memory.peak()), gib(machine.available));
    }
    eprintln!("run      {}", run.path().display());
    for note in setup.notes.iter().chain(tested) {
        eprintln!("note     {note}");
    }
}

/// `5120 completions of at most 96 tokens; 640 of 4096 questions are used`
fn size(config: &RunConfig, steps: usize, questions: usize) -> String {
    let rollout = &config.rollout;
    let asked = steps * rollout.prompts_per_step;
    let use_of_questions = match asked {
        asked if asked <= questions => format!("{asked} of {questions} questions are used"),
        asked if rollout.prompts_per_step > questions => format!(
            "{questions} questions in steps of {}: each is used {:.1} times a step, {:.0} times in all",
            rollout.prompts_per_step,
            rollout.prompts_per_step as f64 / questions as f64,
            asked as f64 / questions as f64
        ),
        asked => format!("each of {questions} questions is used {:.1} times", asked as f64 / questions as f64),
    };
    let completions = asked * rollout.num_generations;
    format!("{completions} completions of at most {} tokens; {use_of_questions}", rollout.max_completion_length)
}

fn render_loss(config: &RunConfig) -> String {
    let name = |value: Result<toml::Value, _>| value.map(|it| it.to_string().replace('"', "")).unwrap_or_default();
    let loss = match config.distilled() {
        Some(kl) => format!("{} KL divergence from the teacher", name(toml::Value::try_from(kl))),
        None => format!("loss {}", name(toml::Value::try_from(config.grpo.loss_type))),
    };
    format!("{loss}, learning rate {}", config.train.learning_rate)
}

/// Prints the results before and after training, and the paths of the outputs.
fn conclude(run: &RunDir, outcome: &TrainOutcome, steps: usize) -> Result<()> {
    if outcome.stopped.is_some() {
        eprintln!(
            "stopped after step {} of {steps}; to resume, run `rft train --resume {}`",
            outcome.steps,
            run.path().display()
        );
        return Ok(());
    }
    summary::write(run, outcome.before.as_ref(), outcome.after.as_ref())?;
    if let Some(after) = &outcome.after {
        println!("{}", held_out::table(outcome.before.as_ref(), after));
        for what in outcome.before.iter().flat_map(|before| held_out::undecided(before, after)) {
            println!("{what}");
        }
    }
    println!("adapter      {}", run.adapter().display());
    let evaluated = best(run, &run.checkpoints()?)?;
    if let Some((step, accuracy)) = evaluated.filter(|(step, _)| *step < outcome.steps) {
        println!("best         {}  (held-out accuracy {accuracy})", run.checkpoint(step).display());
    }
    println!("summary      {}", run.summary().display());
    println!("completions  {}", run.completions().display());
    println!("metrics      {}  (tensorboard --logdir {})", run.metrics().display(), run.path().display());
    Ok(())
}
