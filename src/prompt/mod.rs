//! Prior prompts: the instruction placed before every question.

use serde::{Deserialize, Serialize};

mod jinja;
pub mod mixture;
mod percent;
mod python;
pub mod registry;
pub mod renderer;
pub mod template;
pub mod text_file;

pub use mixture::{Mixture, WeightedPrompt};
pub use registry::{controls, find, find_shipped, shipped, wordings};

/// The position of a prior prompt in the conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// As the system message.
    #[default]
    System,
    /// Before the question, in the user's message.
    User,
}

/// An instruction placed before every question, with the tags that it asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriorPrompt {
    /// The name of the strategy; `reasoning@2` is wording 2 of `reasoning`.
    pub name: String,
    /// The name the study (arXiv 2505.14157) uses.
    pub paper_name: String,
    /// Tag of the first element, without brackets (`think`); `None` asks for no such element.
    pub tag: Option<String>,
    /// Tag of the element with the answer (`answer`); `None` asks for no format.
    pub answer_tag: Option<String>,
    pub role: Role,
    /// Empty for `none`.
    pub text: String,
    pub description: String,
    /// The inference-time prompting strategy that it is based on.
    pub stems_from: String,
    /// Source of the wording: `rft`, or the file and the prefix of its SHA-256 for a user's prompt.
    pub wording: String,
}

/// The name of a prior prompt without the number of its wording: `reasoning` for `reasoning@2`.
pub fn strategy(name: &str) -> &str {
    match name.rsplit_once('@') {
        Some((strategy, number)) if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) => strategy,
        _ => name,
    }
}

/// One turn of a conversation, in the form for chat templates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: &'static str,
    pub content: String,
}

impl PriorPrompt {
    /// The name without the number of the wording.
    pub fn strategy(&self) -> &str {
        strategy(&self.name)
    }

    /// The conversation that asks `question` with this prompt. `none` gives only the user's turn, so that
    /// a system message that the model's template adds is kept.
    pub fn messages(&self, question: &str) -> Vec<Message> {
        let user = |content| Message { role: "user", content };
        match self.role {
            _ if self.text.is_empty() => vec![user(question.to_owned())],
            Role::System => {
                vec![Message { role: "system", content: self.text.clone() }, user(question.to_owned())]
            }
            Role::User => vec![user(format!("{}\n\n{question}", self.text))],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_role_determines_the_position_of_the_text() {
        let mut prompt = find("think").unwrap();
        let system = prompt.messages("2 + 2?");
        assert_eq!(system.iter().map(|m| m.role).collect::<Vec<_>>(), ["system", "user"]);
        assert_eq!((system[0].content.as_str(), system[1].content.as_str()), (prompt.text.as_str(), "2 + 2?"));

        prompt.role = Role::User;
        let user = prompt.messages("2 + 2?");
        assert_eq!(user.len(), 1);
        assert_eq!((user[0].role, user[0].content.as_str()), ("user", format!("{}\n\n2 + 2?", prompt.text).as_str()));
    }

    #[test]
    fn without_a_prior_prompt_there_is_only_the_question() {
        for role in [Role::System, Role::User] {
            let prompt = PriorPrompt { role, ..find("none").unwrap() };
            assert_eq!(prompt.messages("2 + 2?"), [Message { role: "user", content: "2 + 2?".to_owned() }]);
        }
    }
}
