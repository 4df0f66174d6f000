//! How a model is used: tokenizer, chat template, and what ends a completion. Its weights are on a device.

use super::{Completion, Finish, Prompt};
use crate::config::RunConfig;
use crate::model::source::ModelSource;
use crate::model::tokenizer::Tokenizer;
use crate::prompt::PriorPrompt;
use crate::prompt::template::{ChatTemplate, Rendered, SpecialStrings, encode_prompt};
use anyhow::Result;
use jiff::Timestamp;
use std::collections::BTreeSet;

/// Everything that is needed to convert between text and tokens.
pub struct Policy {
    pub tokenizer: Tokenizer,
    pub template: ChatTemplate,
    /// Tokens that end a completion: the union of those in config, generation config, tokenizer and template.
    pub stop_tokens: Vec<u32>,
    /// Strings that end a completion.
    pub stop_strings: Vec<String>,
}

impl Policy {
    /// For the model that `source` describes, with the template and stop rules of `config`.
    pub fn load(source: &ModelSource, config: &RunConfig) -> Result<Self> {
        let tokenizer = source.tokenizer()?;
        let tokens =
            source.tokenizer_config.as_deref().map(SpecialStrings::from_config).transpose()?.unwrap_or_default();
        let own = ChatTemplate::from_model(source.chat_template.as_deref(), source.tokenizer_config.as_deref())?;
        let template = ChatTemplate::choose(&config.prompt.template, own, tokens)?;
        let mut stop_tokens: BTreeSet<u32> = source.config.eos_token_ids.iter().copied().collect();
        stop_tokens.extend(template.end_ids(&tokenizer));
        let own = template.stop_strings().iter().map(ToString::to_string);
        let stop_strings = own.chain(config.rollout.stop.iter().cloned()).collect();
        Ok(Self { tokenizer, template, stop_tokens: stop_tokens.into_iter().collect(), stop_strings })
    }

    /// The same policy, whose template writes the date of `time`.
    pub fn at(self, time: Timestamp) -> Result<Self> {
        Ok(Self { template: self.template.at(time.as_second())?, ..self })
    }

    /// The prompt of a question under a prior prompt.
    pub fn render(&self, prior: &PriorPrompt, question: &str, prefill: bool) -> Result<Rendered> {
        let opening = opening(prior, prefill);
        encode_prompt(&self.tokenizer, &self.template, &prior.messages(question), opening.as_deref())
    }

    /// A prompt for the engine. `key` identifies the question.
    pub fn prompt(&self, prior: &PriorPrompt, question: &str, prefill: bool, key: u64) -> Result<Prompt> {
        Ok(Prompt { ids: self.render(prior, question, prefill)?.ids, key })
    }

    /// The text of the completion, without end-of-sequence tokens and stop strings.
    pub fn text(&self, completion: &Completion) -> String {
        let mut text = self.tokenizer.decode(&completion.tokens);
        if completion.finish == Finish::String
            && let Some(at) = self.stop_strings.iter().filter_map(|stop| text.find(stop.as_str())).min()
        {
            text.truncate(at);
        }
        text
    }

    /// Whether the text of `tokens` contains a stop string. Only the end is decoded: earlier tokens have been checked.
    pub fn ends(&self, tokens: &[u32]) -> bool {
        let Some(longest) = self.stop_strings.iter().map(String::len).max() else { return false };
        // A token is at least one byte, and a character may be spread over four tokens.
        let tail = self.tokenizer.decode(&tokens[tokens.len().saturating_sub(longest + 4)..]);
        self.stop_strings.iter().any(|stop| tail.contains(stop.as_str()))
    }

    /// Why a completion ended, for the logs.
    pub fn finish_name(&self, finish: Finish) -> String {
        match finish {
            Finish::Token(id) => self.tokenizer.token(id).unwrap_or_else(|| id.to_string()),
            Finish::String => "stop string".to_owned(),
            Finish::Length => "length".to_owned(),
        }
    }
}

/// The opening tag at the start of every completion.
pub fn opening(prior: &PriorPrompt, prefill: bool) -> Option<String> {
    prior.tag.as_ref().filter(|_| prefill).map(|tag| format!("<{tag}>"))
}
