//! The measurement of pass rates: how often a model solves each training question.
//!
//! It is made once, before training, so that all arms of a study train on the same questions.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::pass_rates::{PassRate, fingerprint, read};
use super::sample::{DrawCounts, TrainQuestion};
use super::sampling;
use super::setup::Setup;
use crate::config::RunConfig;
use crate::data::Question;
use crate::disk::atomic;
use crate::disk::hash::sha256;
use crate::math::Verdict;
use crate::model::source::ModelSource;
use crate::rollout::{EVALUATION_STEP, Engine, RolloutWatch};
use crate::run::jsonl::JsonLines;
use crate::run::manifest::PromptIdentity;

/// Groups between two writes, in units of what the engine decodes at the same time.
const ROUNDS: usize = 4;

/// Everything that the samples depend on besides the questions. It is written next to the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeasuredWith {
    pub model: String,
    pub model_sha256: String,
    pub prompt: String,
    pub prompt_sha256: String,
    pub template_sha256: String,
    pub prefill: bool,
    /// `cpu` or `cuda`.
    pub device: String,
    pub samples: usize,
    pub temperature: f64,
    pub top_p: f64,
    pub top_k: usize,
    pub min_p: f64,
    pub max_prompt_length: usize,
    pub max_completion_length: usize,
    pub seed: u64,
}

impl MeasuredWith {
    pub fn new(config: &RunConfig, setup: &Setup, source: &ModelSource, device: &str, samples: usize) -> Self {
        let (rollout, prompt) = (&config.rollout, PromptIdentity::from(&setup.asked));
        Self {
            model: source.name.clone(),
            model_sha256: source.hash.clone(),
            prompt: prompt.name,
            prompt_sha256: prompt.sha256,
            template_sha256: sha256(setup.policy.template.source().as_bytes()),
            prefill: config.prompt.prefill,
            device: device.to_owned(),
            samples,
            temperature: rollout.temperature,
            top_p: rollout.top_p,
            top_k: rollout.top_k,
            min_p: rollout.min_p,
            max_prompt_length: rollout.max_prompt_length,
            max_completion_length: rollout.max_completion_length,
            seed: config.train.seed,
        }
    }
}

/// A measurement whose results are in a file, complete or not.
pub struct Difficulty {
    path: PathBuf,
    rates: BTreeMap<String, PassRate>,
    samples: usize,
}

impl Difficulty {
    /// Starts a measurement, or resumes the one in `path`.
    ///
    /// # Errors
    /// The file has results of another model, other settings or other questions.
    pub fn open(path: &Path, with: &MeasuredWith, setup: &Setup) -> Result<Self> {
        let settings = settings_path(path);
        if path.exists() {
            let text = std::fs::read(&settings).with_context(|| format!("read `{}`", settings.display()))?;
            let before: MeasuredWith =
                serde_json::from_slice(&text).with_context(|| format!("parse `{}`", settings.display()))?;
            ensure!(
                before == *with,
                "`{}` was measured with another model or other settings\nhint: compare with `{}`, or use another --out",
                path.display(),
                settings.display()
            );
        } else {
            let mut text = serde_json::to_vec_pretty(with).context("encode the settings")?;
            text.push(b'\n');
            atomic::write(&settings, &text)?;
        }
        let rates = if path.exists() { read(path)? } else { BTreeMap::new() };
        let difficulty = Self { path: path.to_owned(), rates, samples: with.samples };
        let questions: BTreeMap<&str, String> =
            setup.measured().map(|question| (question.id.as_str(), fingerprint(question))).collect();
        for (id, rate) in &difficulty.rates {
            ensure!(
                questions.get(id.as_str()) == Some(&rate.sha256),
                "`{}` has question `{id}`, which is not in the data\nhint: use another --out",
                path.display()
            );
        }
        Ok(difficulty)
    }

    /// The number of questions with a result.
    pub fn done(&self) -> usize {
        self.rates.len()
    }

    /// Right samples and all samples so far.
    pub fn right(&self) -> (usize, usize) {
        self.rates.values().fold((0, 0), |(right, all), rate| (right + rate.right, all + rate.samples))
    }

    /// Questions by their number of right samples, from 0 to all.
    pub fn histogram(&self) -> Vec<usize> {
        let mut counts = vec![0; self.samples + 1];
        self.rates.values().filter(|rate| rate.samples > 0).for_each(|rate| counts[rate.right] += 1);
        counts
    }

    /// Samples the questions without a result, and writes each result to the file. `after` is called after each part. Returns
    /// whether all questions have a result; a stop that `watch` requests ends the measurement earlier.
    pub fn measure(
        &mut self,
        setup: &Setup,
        config: &RunConfig,
        engine: &mut dyn Engine,
        watch: &mut dyn RolloutWatch,
        after: &mut dyn FnMut(&Self),
    ) -> Result<bool> {
        let mut log = JsonLines::append_to(&self.path)?;
        for question in &setup.too_long {
            self.add(&mut log, question, 0, 0)?;
        }
        let missing: Vec<&TrainQuestion> =
            setup.questions.iter().filter(|item| !self.rates.contains_key(&item.question.id)).collect();
        let (scorer, sampling) = (setup.scorer(config), sampling(config));
        let part = (ROUNDS * config.rollout.max_rows).div_ceil(self.samples);
        for items in missing.chunks(part) {
            // The numbers of a question depend on its key alone, so the parts do not change the samples.
            let mut draws = DrawCounts::default();
            let groups =
                scorer.groups(engine, None, items, self.samples, &sampling, EVALUATION_STEP, &mut draws, watch)?;
            let Some(groups) = groups else { return Ok(false) };
            for group in &groups {
                let is_right = |verdict: &Verdict| *verdict == Verdict::Correct;
                let right = group.completions.iter().filter(|it| is_right(&it.scored.verdict)).count();
                self.add(&mut log, &group.item.question, right, self.samples)?;
            }
            log.sync()?;
            after(self);
        }
        Ok(true)
    }

    fn add(&mut self, log: &mut JsonLines, question: &Question, right: usize, samples: usize) -> Result<()> {
        // A data set can have a question twice under one id.
        if let Entry::Vacant(vacant) = self.rates.entry(question.id.clone()) {
            let rate = PassRate { question_id: question.id.clone(), sha256: fingerprint(question), right, samples };
            log.append(&rate)?;
            vacant.insert(rate);
        }
        Ok(())
    }
}

/// `FILE.settings.json`
fn settings_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".settings.json");
    name.into()
}
