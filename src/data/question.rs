//! A question with its gold answer.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A question of a data set, with its gold answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Stable within the data set. Part of the key of every random number for the question.
    pub id: String,
    pub text: String,
    pub gold: String,
    /// The data set it came from.
    pub source: String,
    /// The other columns of its row, for rewards that need more than the gold answer, such as a rubric or tests of a program.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub extra: Map<String, Value>,
}
