//! One rollout of questions with its scores: what training steps and evaluations have in common.

use crate::data::Question;
use crate::disk::hash::sha256_ids;
use crate::prompt::PriorPrompt;
use crate::reward::{RewardSet, Scored};
use crate::rng::name_hash;
use crate::rollout::policy::Policy;
use crate::rollout::{Branch, Prompt};
use crate::run::completions::{BranchRecord, GroupRecord};
use crate::stats::mean;
use anyhow::Result;
use std::collections::BTreeMap;

/// A question, rendered.
#[derive(Clone, Debug)]
pub struct Item {
    pub question: Question,
    pub prompt: Prompt,
}

/// Renders `questions` under the prior prompt. Those whose prompt is longer than `max_length` are left out; their number
/// comes second.
pub fn render_all(
    policy: &Policy,
    prior: &PriorPrompt,
    prefill: bool,
    questions: Vec<Question>,
    max_length: usize,
) -> Result<(Vec<Item>, usize)> {
    let total = questions.len();
    let mut items = Vec::with_capacity(total);
    for question in questions {
        let prompt = policy.prompt(prior, &question.text, prefill, name_hash(&question.id))?;
        if prompt.ids.len() <= max_length {
            items.push(Item { question, prompt });
        }
    }
    let left_out = total - items.len();
    Ok((items, left_out))
}

/// A question with its completions and their scores.
pub struct Group<'a> {
    pub item: &'a Item,
    pub branches: Vec<ScoredBranch>,
}

impl Group<'_> {
    /// Gives completions that could not be scored the mean of the others, so that they teach nothing either way.
    pub(super) fn settle_unscored(&mut self) {
        let (known, unknown): (Vec<_>, Vec<_>) = self.branches.iter_mut().partition(|branch| branch.scored.scorable);
        let mean = mean(&known.iter().map(|branch| branch.reward).collect::<Vec<_>>());
        let mean = if known.is_empty() { 0.0 } else { mean };
        unknown.into_iter().for_each(|branch| branch.reward = mean);
    }
}

pub struct ScoredBranch {
    pub branch: Branch,
    pub text: String,
    pub scored: Scored,
    /// The score's total, less the penalty for a truncated completion; the mean of its group where it has no score.
    pub reward: f64,
}

/// What every rollout of a run needs.
pub struct Sampler<'a> {
    pub policy: &'a Policy,
    pub prior: &'a PriorPrompt,
    pub rewards: &'a RewardSet,
    pub prefill: bool,
    pub max_completion_length: usize,
    pub truncation_penalty: f64,
    pub seed: u64,
}

/// How often each question was drawn in a step. One that comes again, as in a small data set, gets new random numbers:
/// the same would give the same completions.
#[derive(Default)]
pub struct Drawn(BTreeMap<u64, u64>);

impl Drawn {
    /// The prompt of `item`, with a key of its own for each time it is drawn.
    pub(super) fn next(&mut self, item: &Item) -> Prompt {
        let times = self.0.entry(item.prompt.key).or_default();
        let prompt = Prompt { key: item.prompt.key.wrapping_add(*times), ..item.prompt.clone() };
        *times += 1;
        prompt
    }
}

impl Sampler<'_> {
    /// The log's form of a group.
    pub fn record(&self, group: &Group, step: usize, advantages: &[f32]) -> GroupRecord {
        let names = self.rewards.names();
        let branch = |(branch, &advantage): (&ScoredBranch, &f32)| BranchRecord {
            text: branch.text.clone(),
            tokens: branch.branch.tokens.len(),
            finish: self.policy.finish_name(branch.branch.finish),
            rewards: names
                .iter()
                .zip(&branch.scored.components)
                .map(|(name, value)| (name.to_string(), value.map(|it| it as f32)))
                .collect(),
            reward: branch.reward as f32,
            verdict: branch.scored.verdict.clone(),
            answer: branch.scored.answer.clone(),
            note: branch.scored.note.clone(),
            advantage,
        };
        GroupRecord {
            step,
            question_id: group.item.question.id.clone(),
            question: group.item.question.text.clone(),
            gold: group.item.question.gold.clone(),
            prompt_sha256: sha256_ids(&group.item.prompt.ids),
            branches: group.branches.iter().zip(advantages).map(branch).collect(),
        }
    }
}
