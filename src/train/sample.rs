//! A rollout of questions with its scores, for training steps and evaluations.

use crate::data::Question;
use crate::disk::hash::sha256_ids;
use crate::prompt::PriorPrompt;
use crate::reward::{RewardSet, Scored};
use crate::rng::name_hash;
use crate::rollout::policy::Policy;
use crate::rollout::{Completion, Prompt};
use crate::run::completions::{CompletionRecord, GroupRecord};
use crate::stats::mean;
use anyhow::Result;
use std::collections::BTreeMap;

/// A question, rendered.
#[derive(Clone, Debug)]
pub struct TrainQuestion {
    pub question: Question,
    pub prompt: Prompt,
    /// The prompt that the teacher sees, if a prior prompt is distilled.
    pub teacher: Option<Vec<u32>>,
}

/// Renders `questions` under the prior prompt. Questions whose prompt is longer than `max_length` are left out; they are the
/// second value.
pub fn render_all(
    policy: &Policy,
    prior: &PriorPrompt,
    prefill: bool,
    questions: Vec<Question>,
    max_length: usize,
) -> Result<(Vec<TrainQuestion>, Vec<Question>)> {
    let (mut items, mut left_out) = (Vec::with_capacity(questions.len()), Vec::new());
    for question in questions {
        let prompt = policy.prompt(prior, &question.text, prefill, name_hash(&question.id))?;
        if prompt.ids.len() <= max_length {
            items.push(TrainQuestion { question, prompt, teacher: None });
        } else {
            left_out.push(question);
        }
    }
    Ok((items, left_out))
}

/// A question with its completions and their scores.
pub struct ScoredGroup<'a> {
    pub item: &'a TrainQuestion,
    pub completions: Vec<ScoredCompletion>,
}

impl ScoredGroup<'_> {
    /// Gives completions that could not be scored the mean of the others, so that their advantage is zero.
    pub(super) fn settle_unscored(&mut self) {
        let (known, unknown): (Vec<_>, Vec<_>) =
            self.completions.iter_mut().partition(|completion| completion.scored.scorable);
        let mean = mean(&known.iter().map(|completion| completion.reward).collect::<Vec<_>>());
        let mean = if known.is_empty() { 0.0 } else { mean };
        unknown.into_iter().for_each(|completion| completion.reward = mean);
    }
}

pub struct ScoredCompletion {
    pub sampled: Completion,
    pub text: String,
    pub scored: Scored,
    /// The score's total, minus the penalty for a truncated completion; the mean of its group if it has no score.
    pub reward: f64,
}

/// The parts that every rollout of a run needs.
pub struct RolloutScorer<'a> {
    pub policy: &'a Policy,
    /// The prior prompt whose format the rewards expect.
    pub prior: &'a PriorPrompt,
    pub rewards: &'a RewardSet,
    pub prefill: bool,
    pub max_completion_length: usize,
    pub truncation_penalty: f64,
    pub seed: u64,
}

/// How often each question was used in a step. A question that is repeated, as in a small data set, gets new random
/// numbers: with the same ones, its completions would be the same.
#[derive(Default)]
pub struct DrawCounts(BTreeMap<u64, u64>);

impl DrawCounts {
    /// The prompt of `item`, with a different key each time it is used.
    pub(super) fn next(&mut self, item: &TrainQuestion) -> Prompt {
        let times = self.0.entry(item.prompt.key).or_default();
        let prompt = Prompt { key: item.prompt.key.wrapping_add(*times), ..item.prompt.clone() };
        *times += 1;
        prompt
    }
}

impl RolloutScorer<'_> {
    /// A group in the form of the log.
    pub fn record(&self, group: &ScoredGroup, step: usize, advantages: &[f32]) -> GroupRecord {
        let names = self.rewards.names();
        let completion = |(completion, &advantage): (&ScoredCompletion, &f32)| CompletionRecord {
            text: completion.text.clone(),
            tokens: completion.sampled.tokens.len(),
            finish: self.policy.finish_name(completion.sampled.finish),
            rewards: names
                .iter()
                .zip(&completion.scored.components)
                .map(|(name, value)| (name.to_string(), value.map(|it| it as f32)))
                .collect(),
            reward: completion.reward as f32,
            verdict: completion.scored.verdict.clone(),
            answer: completion.scored.answer.clone(),
            note: completion.scored.note.clone(),
            advantage,
        };
        GroupRecord {
            step,
            question_id: group.item.question.id.clone(),
            question: group.item.question.text.clone(),
            gold: group.item.question.gold.clone(),
            prompt_sha256: sha256_ids(&group.item.prompt.ids),
            completions: group.completions.iter().zip(advantages).map(completion).collect(),
        }
    }
}
