//! 1 if the completion has the format that the prior prompt asks for: one element of its tag, then one answer element.
//!
//! Each of the four tags occurs exactly once and in this order; any other text may come anywhere.

use super::tags::Tags;
use super::{Reward, RewardInput, Score};

pub struct FormatReward {
    pub tags: Tags,
}

impl FormatReward {
    /// Whether the completion has the format of its prior prompt.
    pub(super) fn gate(input: &RewardInput) -> bool {
        Tags::of(input.prompt).ok().flatten().is_some_and(|tags| FormatReward { tags }.holds(input))
    }

    /// Whether the completion has the format.
    pub fn holds(&self, input: &RewardInput) -> bool {
        self.flaw(input.response, input.prefilled).is_none()
    }

    /// What is wrong with the format, if anything is. It depends only on the tags in `response` and their order.
    pub fn flaw(&self, response: &str, prefilled: bool) -> Option<String> {
        let mut end = 0;
        for (index, tag) in self.tags.0.iter().enumerate() {
            // The prefilled tag comes before everything that the model wrote.
            let given = prefilled && index == 0;
            let mut places = response.match_indices(tag.as_str()).map(|(at, _)| at);
            let (first, more) = (places.next(), places.next());
            match (given, first, more) {
                (true, None, _) => {}
                (false, Some(at), None) if at >= end => end = at + tag.len(),
                (false, None, _) => return Some(format!("no {tag}")),
                (false, Some(_), None) => return Some(format!("{tag} before {}", self.tags.0[index - 1])),
                _ => return Some(format!("more than one {tag}")),
            }
        }
        None
    }
}

impl Reward for FormatReward {
    fn name(&self) -> &str {
        "format"
    }

    fn score(&self, input: &RewardInput) -> Score {
        let flaw = self.flaw(input.response, input.prefilled);
        Score { value: Some(if flaw.is_none() { 1.0 } else { 0.0 }), note: flaw, ..Score::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::prompt;
    use super::*;

    /// The flaw in `response` for the tags `think` and `answer`; empty if there is none.
    fn flaw(response: &str, prefilled: bool) -> String {
        let tags = Tags::of(&prompt(Some("think"))).unwrap().unwrap();
        FormatReward { tags }.flaw(response, prefilled).unwrap_or_default()
    }

    #[test]
    fn each_tag_once_and_in_order() {
        for (response, expected) in [
            ("<think>a</think><answer>b</answer>", ""),
            ("Well. <think>a</think> so <answer>b</answer> done", ""),
            ("<think>\n</think>\n\n<answer></answer>", ""),
            ("<think>one <b>two</b> <code>x</code></think><answer>b</answer>", ""),
            // unclosed
            ("<think>a<answer>b</answer>", "no </think>"),
            ("<think>a</think><answer>b", "no </answer>"),
            ("a</think><answer>b</answer>", "no <think>"),
            ("<think>a</think>b</answer>", "no <answer>"),
            ("", "no <think>"),
            // twice
            ("<think>a</think><think>a</think><answer>b</answer>", "more than one <think>"),
            ("<think>a</think></think><answer>b</answer>", "more than one </think>"),
            ("<think>a</think><answer>b</answer><answer>c</answer>", "more than one <answer>"),
            ("<think>a</think><answer>b</answer></answer>", "more than one </answer>"),
            // nested
            ("<think>a<think>b</think></think><answer>c</answer>", "more than one <think>"),
            ("<think>a<answer>b</answer></think>", "<answer> before </think>"),
            ("<answer><think>a</think>b</answer>", "<answer> before </think>"),
            ("<think><answer></think></answer>", "<answer> before </think>"),
            // wrong order
            ("<answer>b</answer><think>a</think>", "<answer> before </think>"),
            ("</think><think><answer>b</answer>", "</think> before <think>"),
            ("<think>a</think></answer><answer>", "</answer> before <answer>"),
            // another arm's tag, and text that only resembles a tag
            ("<plan>a</plan><answer>b</answer>", "no <think>"),
            ("<Think>a</Think><answer>b</answer>", "no <think>"),
            ("<think >a</think><answer>b</answer>", "no <think>"),
            ("< think>a</think><answer>b</answer>", "no <think>"),
        ] {
            assert_eq!(flaw(response, false), expected, "{response}");
        }
    }

    #[test]
    fn a_prefilled_tag_counts_as_present() {
        for (response, expected) in [
            ("a</think><answer>b</answer>", ""),
            ("<think>a</think><answer>b</answer>", "more than one <think>"),
            ("a</think><answer>b</answer><think>", "more than one <think>"),
            ("a<answer>b</answer>", "no </think>"),
        ] {
            assert_eq!(flaw(response, true), expected, "{response}");
        }
    }
}
