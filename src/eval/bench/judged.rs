//! Questions whose answers only a judge can grade: the descriptions of AMO-Bench.

use serde_json::Value;

use crate::data::Question;

/// The data set.
pub const AMO_BENCH: &str = "meituan-longcat/AMO-Bench";
/// Its column with the kind of answer, and the kind that rules cannot grade.
pub const ANSWER_TYPE: &str = "answer_type";
const DESCRIPTION: &str = "description";

/// Whether the answer is a description, which only a judge can grade.
pub fn needs_judge(question: &Question) -> bool {
    question.source == AMO_BENCH && question.extra.get(ANSWER_TYPE).and_then(Value::as_str) == Some(DESCRIPTION)
}
