//! Questions with gold answers: readers, schemas, order, and the arithmetic generator.

pub mod arithmetic;

use serde::{Deserialize, Serialize};

/// One question of a data set, with the answer that counts as right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Stable within the data set; part of the key of every random draw made for the question.
    pub id: String,
    pub text: String,
    pub gold: String,
    /// The data set it came from.
    pub source: String,
}
