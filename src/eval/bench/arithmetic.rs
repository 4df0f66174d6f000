//! Held-out questions of the embedded generator: levels 1 to 3 together, which the embedded model was trained on, or one level.

use super::{AnswerKind, Benchmark, QuestionOrigin};
use crate::data::arithmetic::MAX_LEVEL;

pub fn benchmarks() -> impl Iterator<Item = Benchmark> {
    let all = ("arithmetic".to_owned(), vec![1, 2, 3], 512);
    let each = (1..=MAX_LEVEL).map(|level| (format!("arithmetic-{level}"), vec![level], 256));
    [all].into_iter().chain(each).map(|(name, levels, questions)| {
        let origin = QuestionOrigin::Arithmetic { levels, questions };
        Benchmark { name, aliases: &[], origin, kind: AnswerKind::Math, samples: 1, level_7b: None }
    })
}
