//! Held-out questions of the embedded generator: all levels together, or one level.

use super::{AnswerKind, Benchmark, QuestionOrigin};

pub fn benchmarks() -> impl Iterator<Item = Benchmark> {
    let sets: [(&str, &'static [u8], usize); 4] = [
        ("arithmetic", &[1, 2, 3], 512),
        ("arithmetic-1", &[1], 256),
        ("arithmetic-2", &[2], 256),
        ("arithmetic-3", &[3], 256),
    ];
    sets.into_iter().map(|(name, levels, questions)| {
        let origin = QuestionOrigin::Arithmetic { levels, questions };
        Benchmark { name: name.into(), aliases: &[], origin, kind: AnswerKind::Math, samples: 1 }
    })
}
