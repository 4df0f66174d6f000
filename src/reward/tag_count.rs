//! A quarter for each of the four tags that occurs exactly once with its line breaks: a step towards the strict format.
//!
//! huggingface/open-r1, `tag_count_reward`, for the tags of the prior prompt. The four are counted separately, in any
//! order.

use super::tags::Tags;
use super::{Reward, RewardInput, Score};

pub struct TagCountReward {
    /// What has to occur once: `<think>\n`, `\n</think>\n`, `\n<answer>\n`, `\n</answer>`.
    lines: Vec<String>,
    tags: Tags,
}

impl TagCountReward {
    pub fn new(tags: Tags) -> TagCountReward {
        // A line break on each side, except before the first tag and after the last.
        let last = tags.0.len() - 1;
        let line = |(at, tag): (usize, &String)| {
            format!("{}{tag}{}", if at > 0 { "\n" } else { "" }, if at < last { "\n" } else { "" })
        };
        let lines = tags.0.iter().enumerate().map(line).collect();
        TagCountReward { lines, tags }
    }
}

impl Reward for TagCountReward {
    fn name(&self) -> &str {
        "tag_count"
    }

    fn score(&self, input: &RewardInput) -> Score {
        let text = self.tags.whole(input);
        let once = self.lines.iter().filter(|line| text.matches(line.as_str()).count() == 1).count();
        Score { value: Some(once as f64 / self.lines.len() as f64), ..Score::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{input, prompt, question};
    use super::*;

    fn score(response: &str, prefilled: bool) -> f64 {
        let (question, prompt) = (question("7"), prompt(Some("plan")));
        let tags = Tags::of(&prompt).unwrap().unwrap();
        let input = RewardInput { prefilled, ..input(&question, &prompt, response) };
        TagCountReward::new(tags).score(&input).value.unwrap()
    }

    #[test]
    fn a_quarter_for_each_tag_that_occurs_once() {
        for (response, expected) in [
            ("<plan>\na\n</plan>\n<answer>\nb\n</answer>", 1.0),
            ("Well: <plan>\na\n</plan>\n<answer>\nb\n</answer> done", 1.0),
            // One line break between two tags counts for both.
            ("<plan>\na\n</plan>\n<answer>\nb\n</answer>\n", 1.0),
            ("<plan>\na\n</plan>\n<answer>\nb", 0.75),
            ("<plan>\na\n</plan>\n", 0.5),
            ("<plan>\na", 0.25),
            ("<plan>a</plan><answer>b</answer>", 0.0),
            // Two are as bad as none.
            ("<plan>\n<plan>\na\n</plan>\n<answer>\nb\n</answer>", 0.75),
            ("<plan>\na\n</plan>\n<answer>\nb\n</answer>\n</answer>", 0.75),
            // The order does not matter.
            ("<answer>\n\n</answer>\n<plan>\n\n</plan>\n\n<answer>\n", 1.0),
            ("<think>\na\n</think>\n<answer>\nb\n</answer>", 0.5),
            ("", 0.0),
        ] {
            assert_eq!(score(response, false), expected, "{response:?}");
        }
    }

    #[test]
    fn a_prefilled_tag_counts() {
        assert_eq!(score("\na\n</plan>\n<answer>\nb\n</answer>", true), 1.0);
        assert_eq!(score("a\n</plan>\n<answer>\nb\n</answer>", true), 0.75);
    }
}
