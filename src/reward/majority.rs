//! A control: 1 if the answer is the most frequent one of its group. The gold answer is not used.
//!
//! Agreement with the majority, as in TTRL (arXiv 2504.16084). Equal answers are one answer, however they are written.
//! If several answers are most frequent, all of them get 1. A completion without an answer, or with one that cannot be
//! read, does not vote and gets 0.

use super::{RewardInput, Score};
use crate::math::{Extracted, Scope, Verdict, extract_boxed, prepare_for};
use crate::stats::vote_classes;

pub struct MajorityReward {
    /// Where the answer is searched.
    pub scope: Scope,
}

impl MajorityReward {
    pub fn name(&self) -> &'static str {
        "majority"
    }

    /// One score for each completion of a group, in the same order.
    pub fn score(&self, group: &[RewardInput]) -> Vec<Score> {
        let question = group.first().map_or("", |input| &input.question.text);
        let read = |answer: &str| prepare_for(question, answer);
        let answers: Vec<Option<&str>> = group.iter().map(|input| self.answer(input)).collect();
        let readable: Vec<Option<&str>> = answers.iter().map(|it| it.filter(|answer| read(answer).is_ok())).collect();
        let same =
            |one: &&str, other: &&str| one == other || read(one).is_ok_and(|one| one.check(other) == Verdict::Correct);
        let classes = vote_classes(&readable, same);
        let votes = |class: usize| classes.iter().filter(|it| **it == Some(class)).count();
        let most = classes.iter().flatten().map(|class| votes(*class)).max();
        let score = |(class, answer): (&Option<usize>, &Option<&str>)| {
            let is_most_frequent = class.is_some_and(|class| Some(votes(class)) == most);
            let answer = answer.map(str::to_owned);
            Score { value: Some(f64::from(u8::from(is_most_frequent))), answer, ..Score::default() }
        };
        classes.iter().zip(&answers).map(score).collect()
    }

    fn answer<'a>(&self, input: &RewardInput<'a>) -> Option<&'a str> {
        match extract_boxed(input.response, self.scope, input.prompt.answer_tag.as_deref()) {
            Extracted::Answer(answer) => Some(answer),
            Extracted::Missing(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{input, prompt, question};
    use super::*;

    fn values(gold: &str, responses: &[&str]) -> Vec<f64> {
        let (question, prompt) = (question(gold), prompt(Some("think")));
        let group: Vec<RewardInput> = responses.iter().map(|it| input(&question, &prompt, it)).collect();
        let scores = MajorityReward { scope: Scope::Response }.score(&group);
        scores.into_iter().map(|score| score.value.unwrap()).collect()
    }

    #[test]
    fn the_most_frequent_answer_gets_one() {
        let half = [r"\boxed{1/2}", r"\boxed{3}", r"\boxed{0.5}", "3", r"\boxed{@@}", r"\boxed{\frac{2}{4}}"];
        assert_eq!(values("3", &half), [1.0, 0.0, 1.0, 0.0, 0.0, 1.0], "three forms of one half");
        let tie = [r"\boxed{1}", r"\boxed{2}", r"\boxed{2}", r"\boxed{1}", r"\boxed{5}"];
        assert_eq!(values("5", &tie), [1.0, 1.0, 1.0, 1.0, 0.0], "both answers of a tie");
        assert_eq!(values("5", &["5", r"\boxed{@}", r"\boxed{@}"]), [0.0; 3], "no answer at all");
        assert_eq!(values("5", &[r"\boxed{7}"]), [1.0], "a group of one");
    }

    #[test]
    fn the_gold_answer_is_never_read() {
        let responses = [r"\boxed{1}", r"\boxed{2}", r"\boxed{2}", "none"];
        for gold in ["2", "1", "", r"\oint @", "<|garbage|>"] {
            assert_eq!(values(gold, &responses), [0.0, 1.0, 1.0, 0.0], "{gold}");
        }
    }
}
