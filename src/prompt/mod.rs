//! Prior prompts: the instruction put before every question.

use serde::{Deserialize, Serialize};

/// Where a prior prompt stands in the conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// As the system message.
    System,
    /// Before the question, in the user's message.
    User,
}

/// An instruction put before every question, with the tags that it asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriorPrompt {
    pub name: String,
    /// The name the study (arXiv 2505.14157) uses.
    pub paper_name: String,
    /// Tag of the first element, without brackets (`think`); `None` asks for no format.
    pub tag: Option<String>,
    /// Tag of the element that holds the answer (`answer`).
    pub answer_tag: Option<String>,
    pub role: Role,
    /// Empty for `none`.
    pub text: String,
    pub description: String,
    /// The inference-time prompting strategy it stems from.
    pub stems_from: String,
    /// Whose words: `rft`, or the file and its SHA-256 prefix for a user's prompt.
    pub wording: String,
}
