//! The selection and the order of questions. Everything here is a function of seeds and contents, never of earlier random
//! numbers.

use sha2::{Digest, Sha256};

use super::Question;
use crate::config::Take;
use crate::rng::{Purpose, Stream};

/// The order of `len` questions in an epoch.
pub fn epoch(seed: u64, epoch: u64, len: usize) -> Vec<usize> {
    Stream::new(seed, Purpose::Shuffle, &[epoch]).permutation(len)
}

/// Questions to hold out of training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldOut {
    /// This number of questions for the evaluation of a run.
    Evaluation(usize),
    /// This number of questions for the choice of a setting. They are not those of an evaluation, if there are enough questions.
    Tuning(usize),
}

impl HoldOut {
    /// The number of questions.
    pub fn count(self) -> usize {
        let (Self::Evaluation(count) | Self::Tuning(count)) = self;
        count
    }
}

/// Selects at most `max` questions for training, and holds out `held_out` others.
///
/// Held-out questions come from those that are not used for training, so that a training set that is defined as the first
/// 10,000 rows, for example, does not change. If too few are left, they come from all questions, and training uses the rest. The
/// selection depends only on the texts, so that runs with different seeds are evaluated on the same questions. Evaluation and
/// tuning take their questions from opposite ends of the same order.
///
/// Returns (training, held out), both in their original order. Fewer than `held_out` are returned only if there are no more.
pub fn split(
    questions: Vec<Question>,
    take: Take,
    max: Option<usize>,
    held_out: HoldOut,
    seed: u64,
) -> (Vec<Question>, Vec<Question>) {
    let len = questions.len();
    let max = max.unwrap_or(len).min(len);
    let candidates: Vec<usize> = match take {
        Take::Head => (0..len).collect(),
        // No epoch uses the empty path.
        Take::Shuffle => Stream::new(seed, Purpose::Shuffle, &[]).permutation(len),
    };
    let (taken, rest) = candidates.split_at(max);

    let mut pool = if rest.len() >= held_out.count() { rest.to_vec() } else { candidates.clone() };
    pool.sort_by_cached_key(|&i| Sha256::digest(&questions[i].text));
    if matches!(held_out, HoldOut::Tuning(_)) {
        pool.reverse();
    }
    pool.truncate(held_out.count());

    let mut role = vec![QuestionUse::Unused; len];
    taken.iter().for_each(|&i| role[i] = QuestionUse::Taken);
    pool.iter().for_each(|&i| role[i] = QuestionUse::HeldOut);
    let (mut taken, mut held_out) = (Vec::with_capacity(max), Vec::with_capacity(pool.len()));
    for (question, role) in questions.into_iter().zip(role) {
        match role {
            QuestionUse::Taken => taken.push(question),
            QuestionUse::HeldOut => held_out.push(question),
            QuestionUse::Unused => {}
        }
    }
    (taken, held_out)
}

#[derive(Clone, Copy)]
enum QuestionUse {
    Unused,
    Taken,
    HeldOut,
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn questions(n: usize) -> Vec<Question> {
        let question = |i: usize| Question {
            id: i.to_string(),
            text: format!("What is {i} + 1?"),
            gold: (i + 1).to_string(),
            source: "test".to_owned(),
            extra: serde_json::Map::new(),
        };
        (0..n).map(question).collect()
    }

    fn ids(questions: &[Question]) -> Vec<usize> {
        questions.iter().map(|it| it.id.parse().unwrap()).collect()
    }

    #[test]
    fn the_order_of_an_epoch_depends_only_on_seed_and_epoch() {
        assert_eq!(epoch(1, 2, 100), epoch(1, 2, 100));
        assert_ne!(epoch(1, 2, 100), epoch(1, 3, 100));
        assert_ne!(epoch(1, 2, 100), epoch(2, 2, 100));
        assert_eq!(epoch(1, 2, 100).into_iter().collect::<HashSet<_>>().len(), 100);
    }

    #[test]
    fn the_first_questions_are_kept_if_others_can_be_held_out() {
        let (taken, held_out) = split(questions(100), Take::Head, Some(60), HoldOut::Evaluation(30), 7);
        assert_eq!(ids(&taken), (0..60).collect::<Vec<_>>());
        assert_eq!(held_out.len(), 30);
        assert!(ids(&held_out).iter().all(|&i| i >= 60));
    }

    #[test]
    fn settings_are_chosen_on_other_questions_than_runs_are_evaluated_on() {
        for max in [None, Some(60)] {
            let evaluated = split(questions(100), Take::Head, max, HoldOut::Evaluation(20), 7);
            let (taken, tuning) = split(questions(100), Take::Head, max, HoldOut::Tuning(20), 7);
            let disjoint = |a: &[Question], b: &[Question]| ids(a).iter().all(|id| !ids(b).contains(id));
            assert!(disjoint(&evaluated.1, &tuning) && disjoint(&taken, &tuning), "{max:?}");
            assert_eq!(tuning.len(), 20);
            // With questions to spare, trials train on the same questions as other runs.
            assert_eq!(ids(&taken) == ids(&evaluated.0), max.is_some());
        }
    }

    #[test]
    fn training_and_held_out_questions_are_disjoint() {
        for take in [Take::Head, Take::Shuffle] {
            for (max, n) in [(None, 20), (Some(90), 20), (Some(50), 20), (Some(100), 0), (None, 200)] {
                let (taken, held_out) = split(questions(100), take, max, HoldOut::Evaluation(n), 7);
                let all: HashSet<usize> = ids(&taken).into_iter().chain(ids(&held_out)).collect();
                assert_eq!(all.len(), taken.len() + held_out.len());
                assert_eq!(held_out.len(), n.min(100));
                assert!(taken.len() >= max.unwrap_or(100).saturating_sub(n));
            }
        }
    }

    #[test]
    fn the_seed_selects_only_the_training_questions() {
        let run = |seed| split(questions(200), Take::Shuffle, None, HoldOut::Evaluation(20), seed);
        assert_eq!(ids(&run(1).1), ids(&run(2).1));
        let none = HoldOut::Evaluation(0);
        let drawn = |seed| ids(&split(questions(200), Take::Shuffle, Some(50), none, seed).0);
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
        assert!(drawn(1).is_sorted());
    }
}
