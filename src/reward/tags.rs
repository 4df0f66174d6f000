//! The tags that a prior prompt asks for.

use std::borrow::Cow;

use anyhow::{Result, bail};

use super::Sample;
use crate::prompt::PriorPrompt;

/// Opening and closing tag of the first element, then of the answer.
#[derive(Clone, Debug)]
pub struct Tags(pub [String; 4]);

impl Tags {
    /// The tags that `prompt` asks for, if it asks for any.
    pub fn of(prompt: &PriorPrompt) -> Result<Option<Tags>> {
        let Some(tag) = &prompt.tag else { return Ok(None) };
        let Some(answer_tag) = &prompt.answer_tag else {
            bail!("the prior prompt `{}` has a tag but no answer tag\nhint: give it an `answer_tag`", prompt.name);
        };
        if tag == answer_tag {
            bail!("the prior prompt `{}` has `{tag}` for both its tags\nhint: give it another `tag`", prompt.name);
        }
        Ok(Some(Tags([format!("<{tag}>"), format!("</{tag}>"), format!("<{answer_tag}>"), format!("</{answer_tag}>")])))
    }

    /// The response with its opening tag, where that was pre-filled.
    pub fn whole<'a>(&self, sample: &Sample<'a>) -> Cow<'a, str> {
        if sample.prefilled { format!("{}{}", self.0[0], sample.response).into() } else { sample.response.into() }
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

        let error = |prompt: PriorPrompt| Tags::of(&prompt).expect_err("refused").to_string();
        assert!(error(prompt(Some("answer"))).contains("for both its tags"));
        assert!(error(PriorPrompt { answer_tag: None, ..prompt(Some("plan")) }).contains("no answer tag"));
    }
}
