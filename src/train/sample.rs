//! A rollout of questions with its scores, for training steps and evaluations.

use crate::data::Question;
use crate::disk::hash::sha256_ids;
use crate::prompt::{Mixture, PriorPrompt};
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
    /// Under each prior prompt of the run, in their order.
    pub prompts: Vec<Prompt>,
    /// The prompt that the teacher sees, if a prior prompt is distilled.
    pub teacher: Option<Vec<u32>>,
}

impl TrainQuestion {
    /// Number of tokens of the longest prompt.
    pub fn longest_prompt(&self) -> usize {
        self.prompts.iter().map(|prompt| prompt.ids.len()).max().unwrap_or_default()
    }
}

/// Renders `questions` under every prior prompt. Questions with a prompt longer than `max_length` are left out; they are the
/// second value.
pub fn render_all(
    policy: &Policy,
    mixture: &Mixture,
    prefill: bool,
    questions: Vec<Question>,
    max_length: usize,
) -> Result<(Vec<TrainQuestion>, Vec<Question>)> {
    let (mut items, mut left_out) = (Vec::with_capacity(questions.len()), Vec::new());
    for question in questions {
        let key = name_hash(&question.id);
        let prompts = mixture.prompts().map(|prior| policy.prompt(prior, &question.text, prefill, key));
        let item = TrainQuestion { prompts: prompts.collect::<Result<_>>()?, question, teacher: None };
        if item.longest_prompt() <= max_length {
            items.push(item);
        } else {
            left_out.push(item.question);
        }
    }
    Ok((items, left_out))
}

/// A question with its completions and their scores.
pub struct ScoredGroup<'a> {
    pub item: &'a TrainQuestion,
    /// The index of the prior prompt that the group drew.
    pub prior: usize,
    pub completions: Vec<ScoredCompletion>,
}

impl ScoredGroup<'_> {
    /// The prompt of its completions.
    pub fn prompt(&self) -> &Prompt {
        &self.item.prompts[self.prior]
    }

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
    /// The prior prompts whose format the rewards expect.
    pub mixture: &'a Mixture,
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
    /// The key of `item`, a different one each time it is used.
    pub(super) fn next(&mut self, item: &TrainQuestion) -> u64 {
        let key = item.prompts[0].key;
        let times = self.0.entry(key).or_default();
        *times += 1;
        key.wrapping_add(*times - 1)
    }
}

impl RolloutScorer<'_> {
    /// A prior prompt of the run.
    pub fn prior(&self, index: usize) -> &PriorPrompt {
        &self.mixture.parts()[index].prompt
    }

    /// The name of a group's prior prompt, for the logs; `None` if the run has only one.
    pub fn drawn_name(&self, group: &ScoredGroup) -> Option<String> {
        self.mixture.is_mixed().then(|| self.prior(group.prior).name.clone())
    }

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
            ppe: self.drawn_name(group),
            prompt_sha256: sha256_ids(&group.prompt().ids),
            completions: group.completions.iter().zip(advantages).map(completion).collect(),
        }
    }
}
