//! Questions with their rendered prompts.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::bench::{AnswerKind, AnswerOptions, Set, needs_judge};
use super::profile::Style;
use crate::data::Question;
use crate::disk::hash::sha256_ids;
use crate::prompt::template::{Rendered, encode_prompt};
use crate::prompt::{Mixture, PriorPrompt, find_shipped};
use crate::rng::name_hash;
use crate::rollout::EVALUATION_STEP;
use crate::rollout::policy::{Policy, opening};

/// A question with its prompt.
#[derive(Clone, Debug)]
pub struct EvalQuestion {
    pub id: String,
    pub text: String,
    /// The gold answer; for options, its letter.
    pub gold: String,
    /// The options in the order shown; empty for questions without options.
    pub options: Vec<String>,
    /// See [`AnswerOptions::order`].
    pub order: Vec<usize>,
    /// See [`QuestionRecord::needs_judge`].
    pub needs_judge: bool,
    /// Whether the prompt leaves enough of the model's context for a completion. Questions whose prompt does not count as wrong.
    pub fits: bool,
    /// See [`QuestionRecord::ppe`].
    pub ppe: Option<String>,
    pub prompt: Rendered,
    /// The key of the question's random numbers.
    pub key: u64,
}

/// The record of a question, stored with its samples. It is enough to grade them again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuestionRecord {
    pub id: String,
    pub question: String,
    pub gold: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub order: Vec<usize>,
    /// The answer is a description, which rules cannot grade.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub needs_judge: bool,
    /// The prior prompt that the question drew; absent if the evaluation has only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ppe: Option<String>,
    /// The rendered prompt.
    pub prompt_text: String,
    /// [`sha256_ids`] of the prompt.
    pub prompt_sha256: String,
}

/// The settings for rendering prompts.
pub struct Asking<'a> {
    pub policy: &'a Policy,
    /// The prior prompts, of which every question gets one.
    pub mixture: &'a Mixture,
    /// Start completions with the prior prompt's opening tag.
    pub prefill: bool,
    pub style: &'a Style,
    pub seed: u64,
}

impl Asking<'_> {
    /// Renders the questions of `set`.
    ///
    /// # Errors
    /// Options that are missing or not distinct; a template that cannot be rendered.
    pub fn all(&self, set: &Set, kind: AnswerKind) -> Result<Vec<EvalQuestion>> {
        let none = find_shipped("none").context("the prior prompt `none` is shipped")?;
        let one = |question: &Question| {
            let drawn = self.mixture.draw(self.seed, EVALUATION_STEP, name_hash(&question.id));
            let drawn = &self.mixture.parts()[drawn].prompt;
            let prior = if self.style.takes_prior_prompt() { drawn } else { none };
            let start = self.style.prefill.clone().or_else(|| opening(prior, self.prefill));
            self.one(question, kind, prior, start.as_deref())
        };
        set.questions.iter().map(one).collect()
    }

    fn one(
        &self,
        question: &Question,
        kind: AnswerKind,
        prior: &PriorPrompt,
        start: Option<&str>,
    ) -> Result<EvalQuestion> {
        let choices = match kind {
            AnswerKind::Choice => Some(AnswerOptions::of(question, self.seed)?),
            AnswerKind::Math | AnswerKind::Code { .. } => None,
        };
        let (gold, options, order) = match choices {
            Some(choices) => (AnswerOptions::letter(choices.right).to_string(), choices.options, choices.order),
            None => (question.gold.clone(), Vec::new(), Vec::new()),
        };
        let said = self.style.ask(&question.text, &options);
        let prompt = encode_prompt(&self.policy.tokenizer, &self.policy.template, &prior.messages(&said), start)?;
        let (id, text) = (question.id.clone(), question.text.clone());
        Ok(EvalQuestion {
            key: name_hash(&id),
            id,
            text,
            gold,
            options,
            order,
            needs_judge: needs_judge(question),
            fits: true,
            ppe: (self.mixture.is_mixed() && self.style.takes_prior_prompt()).then(|| prior.name.clone()),
            prompt,
        })
    }
}

impl EvalQuestion {
    pub fn record(&self) -> QuestionRecord {
        QuestionRecord {
            id: self.id.clone(),
            question: self.text.clone(),
            gold: self.gold.clone(),
            options: self.options.clone(),
            order: self.order.clone(),
            needs_judge: self.needs_judge,
            ppe: self.ppe.clone(),
            prompt_text: self.prompt.text.clone(),
            prompt_sha256: sha256_ids(&self.prompt.ids),
        }
    }
}
