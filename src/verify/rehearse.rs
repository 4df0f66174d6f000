//! All phases of a run in about a minute, with the embedded model in place of the real one: what would fail after hours fails now.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use indicatif::HumanBytes;
use jiff::Timestamp;

use super::child::{RftProcess, ScratchFolder};
use super::reduce::{COMPLETION, Change, STEPS, reduce, write_model};
use crate::config::{RunConfig, to_toml};
use crate::disk::{atomic, space};
use crate::model::config::{ModelConfig, known_shape};
use crate::model::hub::is_hub_id;
use crate::model::lora::Adapter;
use crate::model::source::ModelSource;
use crate::run::{RunDir, Stop, metrics};
use crate::train::checkpoints::{self, check_space};
use crate::train::initial::InitialAdapter;
use crate::train::sample::TrainQuestion;
use crate::train::setup::Setup;

/// A rehearsal.
pub struct Rehearsal<'a> {
    pub config: &'a RunConfig,
    /// Benchmarks by name, or data files.
    pub bench: &'a [String],
    /// The folder with the benchmarks' files, which is searched before the Hub.
    pub data_dir: Option<&'a Path>,
    pub stop: &'a Stop,
}

/// The result of a phase.
pub struct PhaseResult {
    pub name: String,
    pub seconds: f64,
    pub outcome: PhaseOutcome,
    /// Further lines for the user.
    pub notes: Vec<String>,
}

pub enum PhaseOutcome {
    /// What was done.
    Done(String),
    Failed(anyhow::Error),
    /// Why it was not done.
    Skipped(String),
}

/// What a rehearsal showed, and what it did not.
pub struct RehearsalSummary {
    pub failed: usize,
    /// Keys with other values than in the given configuration.
    pub changed: Vec<Change>,
    /// Keys that were not rehearsed, and why.
    pub not_rehearsed: Vec<(&'static str, String)>,
}

/// A phase that ended well.
struct Done<T> {
    value: T,
    summary: String,
    notes: Vec<String>,
}

impl<T> Done<T> {
    fn new(value: T, summary: String) -> Self {
        Self { value, summary, notes: Vec::new() }
    }
}

/// Runs phases and shows their results.
struct Phases<'a> {
    show: &'a mut dyn FnMut(&PhaseResult),
    failed: usize,
}

impl Phases<'_> {
    /// Runs a phase; `None` if it failed.
    fn run<T>(&mut self, name: &str, work: impl FnOnce() -> Result<Done<T>>) -> Option<T> {
        let started = Instant::now();
        let (value, outcome, notes) = match work() {
            Ok(Done { value, summary, notes }) => (Some(value), PhaseOutcome::Done(summary), notes),
            Err(error) => (None, PhaseOutcome::Failed(error), Vec::new()),
        };
        self.failed += usize::from(value.is_none());
        (self.show)(&PhaseResult { name: name.to_owned(), seconds: started.elapsed().as_secs_f64(), outcome, notes });
        value
    }

    /// Runs a phase that needs the value of an earlier one.
    fn run_with<N, T>(&mut self, name: &str, needs: Option<N>, work: impl FnOnce(N) -> Result<Done<T>>) -> Option<T> {
        match needs {
            Some(needs) => self.run(name, || work(needs)),
            None => {
                self.skip(name, "an earlier phase failed".to_owned());
                None
            }
        }
    }

    fn skip(&mut self, name: &str, why: String) {
        let outcome = PhaseOutcome::Skipped(why);
        (self.show)(&PhaseResult { name: name.to_owned(), seconds: 0.0, outcome, notes: Vec::new() });
    }
}

impl Rehearsal<'_> {
    /// Runs all phases. `show` receives each result when the phase ends. Leaves no files behind.
    ///
    /// # Errors
    /// A folder to work in cannot be created, or the rehearsal was interrupted. The failure of a phase is part of its result.
    pub fn run(&self, show: &mut dyn FnMut(&PhaseResult)) -> Result<RehearsalSummary> {
        let mut phases = Phases { show, failed: 0 };
        let scratch = match phases.run("run directory", || self.run_directory()) {
            Some(scratch) => scratch,
            None => {
                let scratch = ScratchFolder::create(&std::env::temp_dir(), "rft-rehearsal")?;
                write_model(scratch.path())?;
                scratch
            }
        };
        let place = |name: &str| scratch.path().join(name).display().to_string();
        let (config, changed) = reduce(self.config, scratch.path());
        let file = place("config.toml");
        atomic::write(file.as_ref(), to_toml(&config, None).as_bytes())?;

        let texts = self.texts(&mut phases);
        let questions = phases.run("data, prompts, rewards", || match &texts {
            Some(texts) => self.questions(self.config, texts),
            None => self.questions(&config, &ModelSource::open_embedded()?),
        });
        if let Some(texts) = texts.as_ref().filter(|_| self.config.lora.init_adapter.is_some()) {
            phases.run("initial adapter", || self.initial_adapter(&texts.config));
        }
        phases.run_with("disk space", questions, |questions| self.disk_space(questions));

        let (run, stop) = (place("run"), self.stop);
        let start = |log: &str, args: &[&str]| RftProcess::start(args, place(log).as_ref());
        let trained = phases.run_with("train, save, kill", questions, |_| {
            let args = ["train", "--yes", "--config", &file, "--name", "run"];
            start("train.log", &args)?.kill_after(run.as_ref(), 1, stop)?;
            Ok(Done::new((), format!("killed in step 2; {}", rewards(&run, 1)?)))
        });
        let resumed = phases.run_with("resume, evaluate", trained, |()| {
            start("resume.log", &["train", "--yes", "--resume", &run])?.finish(stop)?;
            let evaluated = match config.eval.questions {
                0 => "eval.questions is 0".to_owned(),
                count => format!("{count} held-out questions"),
            };
            Ok(Done::new((), format!("step 2, {evaluated}; {}", rewards(&run, STEPS)?)))
        });
        for (number, bench) in self.bench.iter().enumerate() {
            phases.run_with(&format!("benchmark {bench}"), resumed, |()| {
                let (out, tokens) = (place(&format!("evaluation-{number}")), COMPLETION.to_string());
                let mut args = vec!["eval", "--yes", "--bench", bench, "--adapter", &run, "--out", &out];
                args.extend(["--limit", "2", "--samples", "1", "--max-tokens", &tokens, "--device", "cpu"]);
                let data_dir = self.data_dir.map(|path| path.display().to_string());
                data_dir.iter().for_each(|path| args.extend(["--data-dir", path]));
                start("eval.log", &args)?.finish(stop)?;
                Ok(Done::new((), "2 questions: prompted, sampled, graded".to_owned()))
            });
        }
        phases.run_with("export", resumed, |()| {
            let merged = place("merged");
            start("merge.log", &["merge", "--yes", &run, "--out", &merged])?.finish(stop)?;
            ModelSource::open_folder(merged.as_ref()).context("open the merged model")?;
            Ok(Done::new((), "adapter merged into the model, and the model opened".to_owned()))
        });
        if stop.requested().is_some() {
            bail!("interrupted");
        }
        let not_rehearsed = not_rehearsed(self.config, texts.is_some());
        Ok(RehearsalSummary { failed: phases.failed, changed, not_rehearsed })
    }

    /// A folder in the run's own, so that a folder that cannot be written to is found, with the embedded model.
    fn run_directory(&self) -> Result<Done<ScratchFolder>> {
        let section = &self.config.run;
        if let Some(path) = section.name.as_ref().map(|name| Path::new(&section.dir).join(name)) {
            ensure!(!path.exists(), "the run `{}` already exists\nhint: use another `run.name`", path.display());
        }
        let scratch = ScratchFolder::create(section.dir.as_ref(), ".rehearsal")?;
        write_model(scratch.path())?;
        Ok(Done::new(scratch, format!("`{}` is writable", section.dir)))
    }

    /// Tokenizer and chat template of the real model. `None` if its files are neither on this machine nor on the Hub.
    fn texts(&self, phases: &mut Phases) -> Option<ModelSource> {
        let model = &self.config.model;
        let open = || ModelSource::open_texts(&model.path, &model.revision);
        let opened = |source| Done::new(source, format!("`{}`", model.path));
        let name = "tokenizer and template";
        if !is_hub_id(&model.path) || Path::new(&model.path).exists() {
            return phases.run(name, || open().map(opened));
        }
        match open() {
            Ok(source) => phases.run(name, || Ok(opened(source))),
            Err(error) => {
                let error = format!("{error:#}");
                phases.skip(name, error.lines().next().unwrap_or_default().to_owned());
                None
            }
        }
    }

    /// Loads the questions, reads every gold answer, tries the rewards, and renders every prompt. Returns the number of training
    /// questions.
    fn questions(&self, config: &RunConfig, source: &ModelSource) -> Result<Done<usize>> {
        let setup = Setup::new(config, source, Timestamp::now(), self.data_dir, None)?;
        let questions = setup.questions.len();
        ensure!(
            self.config.total_steps(questions) > 0,
            "{questions} questions are fewer than one step needs, which is {}\nhint: lower rollout.prompts_per_step",
            self.config.rollout.prompts_per_step
        );
        let longest = setup.questions.iter().map(TrainQuestion::longest_prompt).max().unwrap_or(0);
        let summary = format!(
            "{questions} training questions, {} held-out questions; the longest prompt has {longest} tokens of `{}`",
            setup.held_out.len(),
            source.name
        );
        let tested = setup.test_rewards(config)?;
        Ok(Done { value: questions, summary, notes: [setup.notes, tested].concat() })
    }

    /// Checks that the adapter that the run starts from fits the real model's shape.
    fn initial_adapter(&self, shape: &ModelConfig) -> Result<Done<()>> {
        let mut adapter = Adapter::zeros(shape, &self.config.lora)?;
        let initial = InitialAdapter::open(self.config)?.context("open the initial adapter")?;
        Ok(Done::new((), initial.fit(&mut adapter, shape)?))
    }

    /// Compares the free space with the checkpoints of the real run.
    fn disk_space(&self, questions: usize) -> Result<Done<()>> {
        let config = self.config;
        let model = &config.model;
        let Ok(shape) = known_shape(&model.path).map_or_else(|| peek(config), Ok) else {
            return Ok(Done::new((), "not compared: the model's shape is not known".to_owned()));
        };
        let adapter = Adapter::zeros(&shape, &config.lora)?;
        let warning = check_space(config, &adapter, config.total_steps(questions), 0)?;
        let free =
            space::free(config.run.dir.as_ref()).map_or("unknown".to_owned(), |free| HumanBytes(free).to_string());
        let summary = format!("{} per checkpoint; {free} free", HumanBytes(checkpoints::bytes(&adapter)));
        Ok(Done { value: (), summary, notes: warning.into_iter().collect() })
    }
}

/// The shape of a model that is not known by its name.
pub fn peek(config: &RunConfig) -> Result<ModelConfig> {
    let (path, revision) = (&config.model.path, &config.model.revision);
    match ModelSource::plan(path, revision)? {
        Some(_) => ModelSource::peek(path, revision),
        None => Ok(ModelSource::open_texts(path, revision).context("read the model's shape")?.config),
    }
}

/// The mean of each reward component in a step.
fn rewards(run: &str, step: usize) -> Result<String> {
    let lines = metrics::read(&RunDir::open(run.as_ref())?.metrics())?;
    let line = lines.iter().find(|line| line.step == step).context("read the metrics of the step")?;
    let component = |(name, value): (&String, &Option<f64>)| {
        let name = name.strip_prefix("rewards/")?.strip_suffix("/mean")?;
        Some(format!("{name} {:.2}", (*value)?))
    };
    let components: Vec<String> = line.values.iter().filter_map(component).collect();
    Ok(format!("rewards: {}", components.join(", ")))
}

/// What a rehearsal does not show, by key.
fn not_rehearsed(config: &RunConfig, has_texts: bool) -> Vec<(&'static str, String)> {
    let mut keys = vec![("model.path", format!("the embedded model replaced the weights of `{}`", config.model.path))];
    if let Some(name) = &config.lora.init_adapter {
        keys.push(("lora.init_adapter", format!("training from `{name}`: the rehearsal starts from a new adapter")));
    }
    if !has_texts {
        keys.push(("rollout.max_prompt_length", "the model's tokenizer is not on this machine".to_owned()));
    }
    if !has_texts && config.prompt.template == "model" {
        keys.push(("prompt.template", "the model's chat template is not on this machine".to_owned()));
    }
    keys.extend([
        ("run.device", format!("`{}`: the rehearsal ran on the CPU", config.run.device)),
        ("rollout.max_completion_length", "time and memory of long completions".to_owned()),
        ("rollout.max_rows", "GPU memory; see the plan".to_owned()),
        ("train.learning_rate", "whether the model learns".to_owned()),
    ]);
    keys
}
