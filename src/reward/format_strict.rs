//! 1 if the completion consists only of the two elements, with their tags on separate lines: open-r1's format reward.
//!
//! Its pattern is `^<think>\n.*?\n</think>\n<answer>\n.*?\n</answer>$` (huggingface/open-r1, `format_reward`). There
//! the last `$` also matches at the end of any line, so that more text may follow; here only white space may.

use super::tags::Tags;
use super::{Reward, RewardInput, Score};

pub struct FormatStrictReward {
    pub tags: Tags,
}

impl FormatStrictReward {
    /// What is wrong with the format, if anything is.
    fn flaw(&self, response: &str) -> Option<String> {
        let (open, end) = (self.tags.0.first()?, self.tags.0.last()?);
        let Some(rest) = response.strip_prefix(&format!("{open}\n")) else {
            return Some(format!("the first line is not {open}"));
        };
        let Some(rest) = rest.trim_end().strip_suffix(&format!("\n{end}")) else {
            return Some(format!("the last line is not {end}"));
        };
        // An answer alone has no second element.
        let [_, close, answer, _] = &self.tags.0[..] else { return None };
        let has_turn = rest.contains(&format!("\n{close}\n{answer}\n"));
        (!has_turn).then(|| format!("no lines {close} and {answer} between the two elements"))
    }
}

impl Reward for FormatStrictReward {
    fn name(&self) -> &str {
        "format_strict"
    }

    fn score(&self, input: &RewardInput) -> Score {
        let flaw = self.flaw(&self.tags.whole(input));
        Score { value: Some(if flaw.is_none() { 1.0 } else { 0.0 }), note: flaw, ..Score::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{input, prompt, question};
    use super::*;

    fn score(tag: &str, response: &str, prefilled: bool) -> f64 {
        let (question, prompt) = (question("7"), prompt(Some(tag)));
        let tags = Tags::of(&prompt).unwrap().unwrap();
        let input = RewardInput { prefilled, ..input(&question, &prompt, response) };
        FormatStrictReward { tags }.score(&input).value.unwrap()
    }

    #[test]
    fn each_tag_has_its_line_and_nothing_else_is_outside() {
        for (response, expected) in [
            ("<think>\na\n</think>\n<answer>\nb\n</answer>", 1.0),
            ("<think>\na\n\nb\n</think>\n<answer>\nc\nd\n</answer>\n", 1.0),
            ("<think>\n\n</think>\n<answer>\n\n</answer>", 1.0),
            // The pattern allows tags within the elements.
            ("<think>\na\n</think>\n<answer>\nb\n</answer>\n<answer>\nc\n</answer>", 1.0),
            ("<think>a</think>\n<answer>b</answer>", 0.0),
            ("<think>\na\n</think><answer>\nb\n</answer>", 0.0),
            ("<think>\na\n</think>\n\n<answer>\nb\n</answer>", 0.0),
            ("<think>\n</think>\n<answer>\nb\n</answer>", 0.0),
            ("<think>\na\n</think>\n<answer>\n</answer>", 0.0),
            ("Well.\n<think>\na\n</think>\n<answer>\nb\n</answer>", 0.0),
            ("<think>\na\n</think>\n<answer>\nb\n</answer>\nDone.", 0.0),
            ("<think>\na\n</think>\n<answer>\nb", 0.0),
            ("", 0.0),
        ] {
            assert_eq!(score("think", response, false), expected, "{response:?}");
        }
    }

    #[test]
    fn the_tag_comes_from_the_prior_prompt_and_may_be_prefilled() {
        assert_eq!(score("plan", "<plan>\na\n</plan>\n<answer>\nb\n</answer>", false), 1.0);
        assert_eq!(score("plan", "<think>\na\n</think>\n<answer>\nb\n</answer>", false), 0.0);
        assert_eq!(score("plan", "\na\n</plan>\n<answer>\nb\n</answer>", true), 1.0);
        assert_eq!(score("plan", "a\n</plan>\n<answer>\nb\n</answer>", true), 0.0);
        assert_eq!(score("plan", "<plan>\na\n</plan>\n<answer>\nb\n</answer>", true), 0.0);
    }

    #[test]
    fn an_answer_alone_has_two_lines_of_tags() {
        let prompt = crate::prompt::find("answer-only").unwrap();
        let strict = FormatStrictReward { tags: Tags::of(&prompt).unwrap().unwrap() };
        assert_eq!(strict.flaw("<answer>\nb\n</answer>"), None);
        assert!(strict.flaw("Well.\n<answer>\nb\n</answer>").is_some());
        assert!(strict.flaw("<answer>b</answer>").is_some());
    }
}
