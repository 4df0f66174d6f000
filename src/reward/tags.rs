//! The tags that a prior prompt asks for.

use std::borrow::Cow;

use anyhow::{Result, bail};

use super::{Reward, RewardInput, Score};
use crate::prompt::PriorPrompt;

/// Opening and closing tag of the first element, if there is one, then of the answer.
#[derive(Clone, Debug)]
pub struct Tags(pub Vec<String>);

impl Tags {
    /// The tags that `prompt` asks for, if it asks for any.
    pub fn of(prompt: &PriorPrompt) -> Result<Option<Tags>> {
        let (tag, Some(answer_tag)) = (&prompt.tag, &prompt.answer_tag) else {
            if prompt.tag.is_some() {
                bail!(
                    "the prior prompt `{}` has a tag but no answer tag\nhint: add an `answer_tag` to it",
                    prompt.name
                );
            }
            return Ok(None);
        };
        if tag.as_ref() == Some(answer_tag) {
            bail!(
                "the prior prompt `{}` uses `{answer_tag}` for both tags\nhint: set another `tag` in it",
                prompt.name
            );
        }
        let tags = tag.iter().chain([answer_tag]);
        Ok(Some(Tags(tags.flat_map(|tag| [format!("<{tag}>"), format!("</{tag}>")]).collect())))
    }

    /// The completion with its opening tag, if that was prefilled.
    pub fn whole<'a>(&self, input: &RewardInput<'a>) -> Cow<'a, str> {
        if input.prefilled { format!("{}{}", self.0[0], input.response).into() } else { input.response.into() }
    }
}

/// A rule about tags: those of the prior prompt of each completion. No value if that prompt asks for none.
pub(super) struct TagRule {
    pub name: &'static str,
    pub of: fn(Tags) -> Box<dyn Reward>,
}

impl Reward for TagRule {
    fn name(&self) -> &str {
        self.name
    }

    fn score(&self, input: &RewardInput) -> Score {
        match Tags::of(input.prompt) {
            Ok(Some(tags)) => (self.of)(tags).score(input),
            _ => Score::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::prompt;
    use super::*;

    #[test]
    fn tags_come_from_the_prior_prompt() {
        assert!(Tags::of(&prompt(None)).unwrap().is_none());
        let tags = Tags::of(&prompt(Some("plan"))).unwrap().unwrap();
        assert_eq!(tags.0, ["<plan>", "</plan>", "<answer>", "</answer>"]);
        let answer_only = PriorPrompt { tag: None, ..prompt(Some("plan")) };
        assert_eq!(Tags::of(&answer_only).unwrap().unwrap().0, ["<answer>", "</answer>"]);

        let error = |prompt: PriorPrompt| Tags::of(&prompt).expect_err("refused").to_string();
        assert!(error(prompt(Some("answer"))).contains("for both tags"));
        assert!(error(PriorPrompt { answer_tag: None, ..prompt(Some("plan")) }).contains("no answer tag"));
    }
}
