//! Rewards: named, weighted components of a completion's score.
//!
//! A component gives a value between 0 and 1 and knows nothing of weights; [`RewardSet`] weighs and adds them.

mod accuracy;
pub mod bench;
mod format;

use anyhow::{Result, bail};
use rayon::prelude::*;
use serde::Serialize;

use crate::config::RewardSection;
use crate::data::Question;
use crate::math::Verdict;
use crate::prompt::PriorPrompt;

pub use accuracy::Accuracy;
pub use format::Format;

/// One completion, with all that a reward may look at.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    pub question: &'a Question,
    /// What the model wrote, without the opening tag where that was pre-filled.
    pub response: &'a str,
    pub prompt: &'a PriorPrompt,
    /// The response was started with the opening tag of the prior prompt.
    pub prefilled: bool,
    /// It was cut off at the longest length allowed.
    pub truncated: bool,
}

/// One component of a score.
pub trait Reward: Send + Sync {
    fn name(&self) -> &str;
    fn score(&self, sample: &Sample) -> Score;
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Score {
    /// Between 0 and 1. `None`: the gold answer cannot be read, and neither 0 nor 1 would be true.
    pub value: Option<f64>,
    /// What the model answered, for a reward that looks for an answer.
    pub answer: Option<String>,
    pub verdict: Option<Verdict>,
    /// Why the value is what it is, for the log.
    pub note: Option<String>,
}

/// The score of one completion.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scored {
    /// Unweighted, in the order of [`RewardSet::names`].
    pub components: Vec<f64>,
    /// The weighted sum.
    pub total: f64,
    /// `false` where a component could not score the question; its value then stands as 0, and the sample must not be
    /// trained on. It is the same for all completions of a question.
    pub scorable: bool,
    pub answer: Option<String>,
    pub verdict: Verdict,
    pub note: Option<String>,
}

/// The components of a run, with their weights.
pub struct RewardSet {
    components: Vec<(Box<dyn Reward>, f64)>,
}

impl RewardSet {
    /// `accuracy`, and `format` where the prior prompt asks for one.
    ///
    /// Unset weights are a half for each; without a format reward, `accuracy` has all the weight. A component of weight 0
    /// is still measured.
    pub fn from_config(section: &RewardSection, prompt: &PriorPrompt) -> Result<RewardSet> {
        let format_weight = section.format.weight.unwrap_or(if prompt.tag.is_some() { 0.5 } else { 0.0 });
        let accuracy_weight = section.accuracy.weight.unwrap_or(if format_weight > 0.0 { 0.5 } else { 1.0 });
        for (key, weight) in [("reward.accuracy.weight", accuracy_weight), ("reward.format.weight", format_weight)] {
            if !(weight.is_finite() && weight >= 0.0) {
                bail!("`{key}` is {weight}\nhint: a weight is a number of 0 or more");
            }
        }
        if accuracy_weight + format_weight == 0.0 {
            bail!("all rewards have weight 0\nhint: set `reward.accuracy.weight` or `reward.format.weight` above 0");
        }
        let mut components: Vec<(Box<dyn Reward>, f64)> =
            vec![(Box::new(Accuracy { scope: section.accuracy.scope }), accuracy_weight)];
        match Format::of(prompt)? {
            Some(format) => components.push((Box::new(format), format_weight)),
            None if format_weight > 0.0 => bail!(
                "`reward.format.weight` is {format_weight}, but the prior prompt `{}` has no tags\nhint: leave it out, or set it to 0",
                prompt.name
            ),
            None => {}
        }
        Ok(RewardSet { components })
    }

    pub fn names(&self) -> Vec<&str> {
        self.components.iter().map(|(reward, _)| reward.name()).collect()
    }

    /// The largest total there is.
    pub fn max(&self) -> f64 {
        self.components.iter().map(|(_, weight)| weight).sum()
    }

    pub fn score(&self, sample: &Sample) -> Scored {
        let mut scored = Scored {
            components: Vec::with_capacity(self.components.len()),
            total: 0.0,
            scorable: true,
            answer: None,
            verdict: Verdict::Undecided("no component checks the answer".into()),
            note: None,
        };
        for (reward, weight) in &self.components {
            let score = reward.score(sample);
            let value = score.value.unwrap_or(0.0);
            scored.scorable &= score.value.is_some();
            scored.components.push(value);
            scored.total += weight * value;
            scored.answer = scored.answer.or(score.answer);
            scored.verdict = score.verdict.unwrap_or(scored.verdict);
            scored.note = match (scored.note, score.note) {
                (Some(notes), Some(note)) => Some(format!("{notes}; {note}")),
                (notes, note) => notes.or(note),
            };
        }
        scored
    }

    /// Scores all samples on all cores, in their order.
    pub fn score_all(&self, samples: &[Sample]) -> Vec<Scored> {
        samples.par_iter().map(|sample| self.score(sample)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AccuracySection, FormatSection, Scope};
    use crate::prompt::Role;

    pub(super) fn prompt(tag: Option<&str>) -> PriorPrompt {
        PriorPrompt {
            name: tag.unwrap_or("none").into(),
            paper_name: String::new(),
            tag: tag.map(String::from),
            answer_tag: tag.map(|_| "answer".into()),
            role: Role::System,
            text: String::new(),
            description: String::new(),
            stems_from: String::new(),
            wording: "rft".into(),
        }
    }

    pub(super) fn question(gold: &str) -> Question {
        Question { id: "1".into(), text: "?".into(), gold: gold.into(), source: "test".into() }
    }

    fn section(accuracy: Option<f64>, format: Option<f64>) -> RewardSection {
        RewardSection {
            accuracy: AccuracySection { weight: accuracy, scope: Scope::Response },
            format: FormatSection { weight: format },
        }
    }

    fn sample<'a>(question: &'a Question, prompt: &'a PriorPrompt, response: &'a str) -> Sample<'a> {
        Sample { question, response, prompt, prefilled: false, truncated: false }
    }

    #[test]
    fn accuracy_and_format_are_a_half_each() {
        let (prompt, question) = (prompt(Some("think")), question("7"));
        let set = RewardSet::from_config(&section(None, None), &prompt).unwrap();
        assert_eq!(set.names(), ["accuracy", "format"]);
        assert_eq!(set.max(), 1.0);
        for (response, components, total) in [
            (r"<think>a</think><answer>\boxed{7}</answer>", [1.0, 1.0], 1.0),
            (r"<think>a</think><answer>\boxed{8}</answer>", [0.0, 1.0], 0.5),
            (r"it is \boxed{7}", [1.0, 0.0], 0.5),
            ("it is 7", [0.0, 0.0], 0.0),
        ] {
            let scored = set.score(&sample(&question, &prompt, response));
            assert_eq!((scored.components.as_slice(), scored.total), (components.as_slice(), total), "{response}");
        }
    }

    #[test]
    fn without_a_tag_accuracy_is_alone() {
        let (prompt, question) = (prompt(None), question("7"));
        let set = RewardSet::from_config(&section(None, None), &prompt).unwrap();
        assert_eq!((set.names(), set.max()), (vec!["accuracy"], 1.0));
        assert_eq!(set.score(&sample(&question, &prompt, r"\boxed{7}")).total, 1.0);
    }

    #[test]
    fn weights_come_from_the_config() {
        let (think, question) = (prompt(Some("think")), question("7"));
        let set = RewardSet::from_config(&section(Some(2.0), Some(0.0)), &think).unwrap();
        let scored = set.score(&sample(&question, &think, r"<think></think><answer>\boxed{7}</answer>"));
        assert_eq!((set.max(), scored.total), (2.0, 2.0));
        assert_eq!(scored.components, [1.0, 1.0]);

        let error = |section: RewardSection, prompt: &PriorPrompt| match RewardSet::from_config(&section, prompt) {
            Ok(_) => panic!("accepted"),
            Err(error) => error.to_string(),
        };
        assert!(error(section(None, Some(0.5)), &prompt(None)).contains("`none` has no tags"));
        assert!(error(section(Some(-1.0), None), &think).contains("`reward.accuracy.weight` is -1"));
        assert!(error(section(None, Some(f64::NAN)), &think).contains("`reward.format.weight` is NaN"));
        assert!(error(section(Some(0.0), Some(0.0)), &think).contains("all rewards have weight 0"));
    }

    #[test]
    fn a_gold_that_cannot_be_read_is_not_scored() {
        let (prompt, question) = (prompt(Some("think")), question(r"\oint"));
        let set = RewardSet::from_config(&section(None, None), &prompt).unwrap();
        for response in [r"\boxed{7}", "nothing"] {
            assert!(!set.score(&sample(&question, &prompt, response)).scorable);
        }
    }

    #[test]
    fn order_is_kept_on_many_cores() {
        let prompt = prompt(None);
        let set = RewardSet::from_config(&section(None, None), &prompt).unwrap();
        let questions: Vec<Question> = (0..200).map(|it| question(&it.to_string())).collect();
        let responses: Vec<String> = (0..200).map(|it| format!(r"\boxed{{{}}}", it - it % 3)).collect();
        let samples: Vec<Sample> =
            questions.iter().zip(&responses).map(|(question, response)| sample(question, &prompt, response)).collect();
        let scored = set.score_all(&samples);
        for (index, scored) in scored.iter().enumerate() {
            assert_eq!(scored.total, if index % 3 == 0 { 1.0 } else { 0.0 });
        }
    }

    #[test]
    fn a_score_is_written_as_json() {
        let (prompt, question) = (prompt(Some("plan")), question("7"));
        let set = RewardSet::from_config(&section(None, None), &prompt).unwrap();
        let json = |response| serde_json::to_string(&set.score(&sample(&question, &prompt, response))).unwrap();
        assert_eq!(
            json(r"\boxed{7}"),
            r#"{"components":[1.0,0.0],"total":0.5,"scorable":true,"answer":"7","verdict":"correct","note":"no <plan>"}"#
        );
        assert_eq!(
            json(r"<plan></plan><answer>\boxed{@}</answer>"),
            r#"{"components":[0.0,1.0],"total":0.5,"scorable":true,"answer":"@","verdict":{"undecided":"unexpected `@`"},"note":null}"#
        );
    }
}
