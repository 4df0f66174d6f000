//! A configuration for the embedded model in place of the real one, in little time.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::config::{RunConfig, to_json};
use crate::disk::{atomic, files};
use crate::model::embedded;

/// Maximum length of completions. The embedded model's are short, and say nothing about those of the real model.
pub const COMPLETION: usize = 64;

/// Steps: one before the kill, and one after it.
pub const STEPS: usize = 2;

/// Maximum length of prompts, for which the embedded model's context is extended.
const PROMPT: usize = 8192;

/// Upper bound of the embedded model's tokens per token of a real model: its vocabulary is small.
const TOKENS: usize = 4;

/// Largest numbers of questions in a step, of completions in a group, and of held-out questions.
const QUESTIONS: usize = 4;
const COMPLETIONS: usize = 8;
const HELD_OUT: usize = 8;

/// A key with another value than in the given configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub key: String,
    pub given: String,
    pub here: String,
}

/// `config` with the model and the runs in `folder`, and its changes except those of the model, the initial adapter, the
/// device and the run directory.
pub fn reduce(config: &RunConfig, folder: &Path) -> (RunConfig, Vec<Change>) {
    let mut reduced = config.clone();
    let rollout = &mut reduced.rollout;
    rollout.max_completion_length = rollout.max_completion_length.min(COMPLETION);
    rollout.max_prompt_length = (TOKENS * rollout.max_prompt_length).min(PROMPT);
    (rollout.prompts_per_step, rollout.num_generations) = batch(config);
    let longest = rollout.max_sequence_length();
    reduced.train.max_tokens_per_micro_batch = reduced.train.max_tokens_per_micro_batch.max(longest);
    reduced.train.steps = Some(STEPS);
    reduced.train.save_steps = 1;
    let length = &mut reduced.reward.length;
    let limit = length.max_length.unwrap_or(reduced.rollout.max_completion_length);
    length.soft_punish_cache = length.soft_punish_cache.map(|cache| cache.min(limit));
    reduced.grpo.max_refills = reduced.grpo.max_refills.min(1);
    reduced.eval.questions = reduced.eval.questions.min(HELD_OUT);
    reduced.eval.every = reduced.eval.every.min(1);

    let mut changes = Vec::new();
    add_changes("", &to_json(config), &to_json(&reduced), &mut changes);
    reduced.model.path = folder.join(MODEL).display().to_string();
    reduced.lora.init_adapter = None;
    reduced.run.device = "cpu".to_owned();
    reduced.run.dir = folder.display().to_string();
    reduced.run.name = None;
    (reduced, changes)
}

/// The smallest batch that can be split into the configuration's mini-batches: questions, and completions of each.
fn batch(config: &RunConfig) -> (usize, usize) {
    let (questions, completions) = (config.rollout.prompts_per_step, config.rollout.num_generations);
    let fits = |questions: usize, completions: usize| {
        (questions * completions).is_multiple_of(config.grpo.steps_per_generation)
    };
    let few = completions.min(COMPLETIONS);
    let smaller = (QUESTIONS.min(questions)..=questions).find(|&questions| fits(questions, few));
    smaller.map_or((questions, completions), |questions| (questions, few))
}

fn add_changes(key: &str, given: &Value, here: &Value, changes: &mut Vec<Change>) {
    if let (Value::Object(given), Value::Object(here)) = (given, here) {
        for (name, value) in given {
            let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
            add_changes(&key, value, &here[name], changes);
        }
    } else if given != here {
        let shown = |value: &Value| if value.is_null() { "unset".to_owned() } else { value.to_string() };
        changes.push(Change { key: key.to_owned(), given: shown(given), here: shown(here) });
    }
}

const MODEL: &str = "model";

/// Writes the embedded model to `folder`, with a context for the longest prompt of a rehearsal.
pub fn write_model(folder: &Path) -> Result<()> {
    let folder = folder.join(MODEL);
    files::create_dir(&folder).map_err(|error| atomic::write_error(&folder, &error))?;
    for (name, bytes) in embedded::FILES {
        let mut text = bytes.to_vec();
        if name == "config.json" {
            let mut config: Value = serde_json::from_slice(bytes).context("parse the embedded configuration")?;
            config["max_position_embeddings"] = (PROMPT + COMPLETION).into();
            text = serde_json::to_vec(&config)?;
        }
        atomic::write(&folder.join(name), &text)?;
    }
    Ok(())
}
