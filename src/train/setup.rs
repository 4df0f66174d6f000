//! Loads and checks everything that a run needs, from its configuration.

use super::contamination;
use super::initial::InitialAdapter;
use super::inputs::{InputFiles, InputHashes, InputSource};
use super::pass_rates::{band_hash, within};
use super::sample::{RolloutScorer, TrainQuestion, render_all};
use super::state::TrainState;
use super::teacher;
use crate::config::{self, DataSection, HELD_OUT, RunConfig, TUNING};
use crate::data::decontaminate::Contamination;
use crate::data::{self, HoldOut, Question};
use crate::disk::atomic;
use crate::disk::hash_cache::NamedFiles;
use crate::model::config::ModelConfig;
use crate::model::hub;
use crate::model::source::ModelSource;
use crate::prompt::{Mixture, PriorPrompt};
use crate::reward::RewardSet;
use crate::reward::bench::{Frame, gate};
use crate::rollout::policy::Policy;
use crate::rollout::servers::ServerSetup;
use crate::run::RunDir;
use crate::run::manifest::{Manifest, PromptIdentity};
use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Maximum number of questions from which the test of the reward selects.
const TESTED: usize = 4096;

/// A run that is ready to start.
pub struct Setup {
    pub policy: Policy,
    /// The prior prompts whose format the rewards expect.
    pub mixture: Mixture,
    /// The prior prompts of the rollouts: the same, or none if the one prompt is distilled.
    pub asked: Mixture,
    pub rewards: RewardSet,
    pub questions: Vec<TrainQuestion>,
    pub held_out: Vec<TrainQuestion>,
    /// Training questions whose prompt is too long.
    pub too_long: Vec<Question>,
    /// Notes for the user: the questions that were left out, and why.
    pub notes: Vec<String>,
    /// The overlap of the training questions with benchmarks.
    pub contamination: Contamination,
    /// The adapter that the run starts from, unless it starts from a new one.
    pub initial: Option<InitialAdapter>,
    /// The files that the run reads.
    pub inputs: InputFiles,
}

impl Setup {
    /// Loads the model from `source` and the questions of `config`, and renders every prompt. `started` is the time at which
    /// the run was started: a chat template that writes the date writes that one, also in a run that is resumed later.
    /// `data_dir` may contain benchmarks to compare the questions with; for a resumed run, `recorded` has the result of that
    /// comparison.
    pub fn new(
        config: &RunConfig,
        source: &ModelSource,
        started: Timestamp,
        data_dir: Option<&Path>,
        recorded: Option<Contamination>,
    ) -> Result<Self> {
        let mixture = Mixture::of_config(&config.prompt)?;
        let asked = Mixture::of_entries(&config.training_prompts())?;
        let distilled = config.distilled().is_some();
        if distilled {
            teacher::check(config, &mixture)?;
        }
        let initial = InitialAdapter::open(config)?;
        let prompts: Vec<&PriorPrompt> = mixture.prompts().collect();
        let rewards = RewardSet::for_prompts(&config.reward, &prompts, config.rollout.max_completion_length)?;
        let questions = Questions::load(config, data_dir, recorded)?;
        let questions = if rewards.needs_gold() { questions.readable(config)? } else { questions };
        let questions = questions.within_band(config)?;
        let policy = Policy::load(source, config)?.at(started)?;
        let mut notes = questions.notes;
        notes.extend(mixture.prompts().filter_map(PriorPrompt::warning));
        let mut render = |questions: Vec<Question>, what: &str, taught: bool| -> Result<_> {
            let length = config.rollout.max_prompt_length;
            let (mut items, mut long) = render_all(&policy, &asked, config.prompt.prefill, questions, length)?;
            if taught {
                let (rendered, too_long) = teacher::render(&policy, &mixture, items, length)?;
                items = rendered;
                long.extend(too_long);
            }
            if !long.is_empty() {
                let count = long.len();
                notes.push(format!(
                    "{count} {what} questions left out because their prompt is longer than {length} tokens"
                ));
            }
            Ok((items, long))
        };
        let (train, too_long) = render(questions.train, "training", distilled)?;
        let (held_out, _) = render(questions.held_out, "held-out", false)?;
        ensure!(
            !train.is_empty(),
            "no question of `{}` is usable: {}\nhint: check `data.path` and `rollout.max_prompt_length`",
            config.data.path,
            notes.join("; ")
        );
        Ok(Self {
            policy,
            mixture,
            asked,
            rewards,
            questions: train,
            held_out,
            too_long,
            notes,
            contamination: questions.contamination,
            inputs: InputFiles {
                model: InputSource::model(config, source)?,
                data: questions.source,
                held_out: questions.held_out_source,
                template: InputSource::template(config),
                difficulty: InputSource::difficulty(config),
                init_adapter: initial.as_ref().map(InitialAdapter::input).transpose()?,
            },
            initial,
        })
    }

    /// All training questions, also those whose prompt is too long.
    pub fn measured(&self) -> impl Iterator<Item = &Question> {
        self.questions.iter().map(|item| &item.question).chain(&self.too_long)
    }

    /// The state before the first step, and a note for the user if it starts from an adapter.
    pub fn initial_state(&self, config: &RunConfig, source: &ModelSource) -> Result<(TrainState, Option<String>)> {
        let mut state = TrainState::new(&source.config, &config.lora, config.train.seed)?;
        let note = self.initial.as_ref().map(|initial| initial.apply(&mut state.adapter, source)).transpose()?;
        Ok((state, note))
    }

    /// Tests the reward on some of the training questions, as `reward.bench` requires. Returns notes for the user.
    ///
    /// # Errors
    /// If the reward fails the test.
    pub fn test_rewards(&self, config: &RunConfig) -> Result<Vec<String>> {
        let every = self.questions.len().div_ceil(TESTED).max(1);
        let questions: Vec<Question> = self.questions.iter().step_by(every).map(|item| item.question.clone()).collect();
        let batch = config.rollout.completions_per_step();
        let mut notes: Vec<String> = Vec::new();
        for prompt in self.mixture.prompts() {
            let frame = Frame::new(config, prompt);
            let tested = gate::test(&self.rewards, &config.reward, frame, &questions, config.train.seed, batch);
            let tested = match self.mixture.is_mixed() {
                true => tested.with_context(|| format!("test the reward with the prior prompt `{}`", prompt.name))?,
                false => tested?,
            };
            tested.into_iter().for_each(|note| {
                if !notes.contains(&note) {
                    notes.push(note);
                }
            });
        }
        Ok(notes)
    }

    /// Generates and scores completions.
    pub fn scorer(&self, config: &RunConfig) -> RolloutScorer<'_> {
        RolloutScorer {
            policy: &self.policy,
            mixture: &self.mixture,
            rewards: &self.rewards,
            prefill: config.prompt.prefill,
            max_completion_length: config.rollout.max_completion_length,
            truncation_penalty: config.grpo.truncation_penalty,
            seed: config.train.seed,
        }
    }

    /// For an engine on servers, of a model of the shape `model`.
    pub fn servers<'a>(&'a self, config: &'a RunConfig, run: &RunDir, model: &ModelConfig) -> ServerSetup<'a> {
        ServerSetup {
            section: &config.rollout,
            folder: run.server_adapters(),
            base: &config.model.path,
            vocabulary: model.vocab_size,
            stop_strings: &self.policy.stop_strings,
            pause: Duration::from_secs(1),
        }
    }

    /// Creates the run directory and writes the run's configuration and prompt. `model` is the name of the model's source.
    pub fn start(&self, config: &RunConfig, model: &str) -> Result<RunDir> {
        // The second part of a Hub id; a file name without its extension.
        let model = model.rsplit('/').next().unwrap_or(model).trim_end_matches(".gguf");
        let prompts: Vec<&str> = self.mixture.prompts().map(|prompt| prompt.name.as_str()).collect();
        let how = if config.distilled().is_some() { "-distilled" } else { "" };
        let stem = format!("{}-{}{how}", model.to_lowercase(), prompts.join("-"));
        let run = RunDir::create(Path::new(&config.run.dir), config.run.name.as_deref(), &stem)?;
        // Before the configuration: a folder with a configuration can be resumed, and that requires the prompt, and the
        // excluded rows to be known.
        contamination::write(&self.contamination, &run)?;
        atomic::write(&run.prompt(), self.mixture.to_toml().as_bytes())?;
        atomic::write(&run.config(), config::to_toml(config, None).as_bytes())?;
        Ok(run)
    }

    /// The manifest of a run without its sessions.
    pub fn manifest(&self, config: &RunConfig, hashes: InputHashes) -> Manifest {
        let InputHashes { model, data, held_out, difficulty, template, init_adapter, files } = hashes;
        Manifest {
            seed: config.train.seed,
            steps: config.total_steps(self.questions.len()),
            model,
            data,
            prompt: PromptIdentity::from(&self.asked),
            distilled: config.distilled().is_some().then(|| PromptIdentity::from(&self.mixture)),
            template,
            init_adapter,
            held_out,
            difficulty,
            files,
            sessions: Vec::new(),
        }
    }
}

fn input(section: &DataSection, sha256: String, paths: Vec<PathBuf>) -> InputSource {
    InputSource::new(&section.path, &section.revision, Some(sha256), NamedFiles::of(paths))
}

/// The questions of a run: for training, and held out for evaluation. No question is in both.
struct Questions {
    train: Vec<Question>,
    held_out: Vec<Question>,
    notes: Vec<String>,
    contamination: Contamination,
    source: InputSource,
    held_out_source: Option<InputSource>,
}

impl Questions {
    fn load(config: &RunConfig, data_dir: Option<&Path>, recorded: Option<Contamination>) -> Result<Self> {
        let fetch = |id: &str, revision: &str, split: &str| hub::dataset_files(id, revision, split);
        let seed = config.train.seed;
        let from_training = [HELD_OUT, TUNING].contains(&config.eval.path.as_str());
        let held_out = match config.eval.path.as_str() {
            TUNING => HoldOut::Tuning(config.eval.questions),
            _ => HoldOut::Evaluation(if from_training { config.eval.questions } else { 0 }),
        };
        let (loaded, contamination) =
            contamination::load(config, held_out, &fetch, data_dir, recorded).context("load the training questions")?;
        let mut questions = Self {
            train: loaded.questions,
            held_out: loaded.held_out,
            notes: loaded.warnings,
            contamination,
            source: input(&config.data, loaded.sha256, loaded.paths),
            held_out_source: None,
        };
        questions.notes.extend(questions.contamination.notes());
        if !from_training && config.eval.questions > 0 {
            let section = DataSection {
                path: config.eval.path.clone(),
                max_questions: Some(config.eval.questions),
                ..config.data.clone()
            };
            let loaded = data::load(&section, seed, 0, &fetch).context("load the evaluation questions")?;
            questions.held_out = loaded.questions;
            questions.held_out_source = Some(input(&section, loaded.sha256, loaded.paths));
            questions.notes.extend(loaded.warnings);
        }
        Ok(questions)
    }

    /// The questions whose gold answer can be parsed.
    fn readable(self, config: &RunConfig) -> Result<Self> {
        let Self { train, held_out, mut notes, .. } = self;
        let limit = config.data.max_unreadable;
        let (train, unread) = gate::readable(train, "training", limit)?;
        // There are few held-out questions, from the same data: they are counted, and fail only together with the others.
        let (held_out, unread_held_out) = gate::readable(held_out, "held-out", 1.0)?;
        notes.extend([unread, unread_held_out].into_iter().flatten());
        Ok(Self { train, held_out, notes, ..self })
    }

    /// The training questions in the band of `data.pass_rate`, which becomes a part of the data's hash. The held-out questions
    /// stay the same, so that runs with and without a band can be compared.
    fn within_band(self, config: &RunConfig) -> Result<Self> {
        let (Some(band), Some(path)) = (config.data.pass_rate, &config.data.difficulty) else { return Ok(self) };
        let Self { train, mut notes, mut source, .. } = self;
        let (train, note) = within(train, Path::new(path), band).context("select by `data.pass_rate`")?;
        notes.push(note);
        source.add_to_hash(&band_hash(Path::new(path), band)?);
        Ok(Self { train, notes, source, ..self })
    }
}
