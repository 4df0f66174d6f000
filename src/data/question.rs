//! A question with its answer.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One question of a data set, with the answer that counts as right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Stable within the data set; part of the key of every random draw made for the question.
    pub id: String,
    pub text: String,
    pub gold: String,
    /// The data set it came from.
    pub source: String,
    /// The other columns of its row, for rewards that need more than the gold answer: a rubric, the tests of a program.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub extra: Map<String, Value>,
}
