//! Finds the answer in a completion, in one of two modes.
//!
//! **Reward** ([`extract_boxed`]) is strict, because a model is trained against it: the last closed box, `\boxed{…}` or
//! `\fbox{…}`, in the completion or in its last closed answer element. Nothing else is an answer. If the last box
//! contains nonsense, no other text is used, and two boxes are not a list.
//!
//! **Eval** ([`extract_lenient`]) is for scores that can be compared with those of math-verify: it tries a list of
//! rules, continues as long as nothing can be read, and returns the [`ExtractionRule`] that gave the answer. A model
//! could exploit it, so no reward uses it.

mod lenient;
mod prose;

use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use prose::{is_hypothetical, withdraws};

pub use lenient::{ExtractionRule, FoundAnswer, extract_lenient, solution_answer};

/// The part of a completion that is searched for the box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// The last box of the whole completion: accuracy and format stay independent, as in the study.
    Response,
    /// The last box of the last closed answer element only.
    Answer,
}

/// The result of [`extract_boxed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extracted<'a> {
    /// The content of the last box, trimmed; possibly empty or nonsense.
    Answer(&'a str),
    /// There is no answer to read, with the reason.
    Missing(&'static str),
}

/// The content of the last box of `response`, or of its last closed answer element.
///
/// `Scope::Answer` without an `answer_tag` searches the whole completion: the prior prompt does not ask for an element.
pub fn extract_boxed<'a>(response: &'a str, scope: Scope, answer_tag: Option<&str>) -> Extracted<'a> {
    let text = match (scope, answer_tag) {
        (Scope::Answer, Some(tag)) => match last_element(response, tag) {
            Some(content) => content,
            None => return Extracted::Missing("no closed answer element"),
        },
        _ => response,
    };
    match last_box(text) {
        Some(content) => Extracted::Answer(content.trim()),
        None => Extracted::Missing("no box"),
    }
}

/// The content of the last `<tag>…</tag>` that is closed.
pub fn last_element<'a>(text: &'a str, tag: &str) -> Option<&'a str> {
    let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
    let mut end = text.rfind(&close)?;
    loop {
        // The opening tag belongs to this closing tag only if there is no other closing tag between them.
        let earlier = text[..end].rfind(&close);
        let from = earlier.map_or(0, |at| at + close.len());
        match text[from..end].rfind(&open) {
            Some(at) => return Some(&text[from + at + open.len()..end]),
            None => end = earlier?,
        }
    }
}

fn last_box(text: &str) -> Option<&str> {
    boxes(text).last().map(|it| &text[it.content.clone()])
}

/// The text without boxes around all of it, which have no effect.
pub fn unboxed(text: &str) -> &str {
    let text = text.trim();
    if !text.starts_with("\\boxed") && !text.starts_with("\\fbox") {
        return text;
    }
    let mut inner = 0..text.len();
    // From the outermost to the innermost.
    for BoxSpan { whole, content } in boxes(text).into_iter().rev() {
        if whole == inner {
            let blank = |side: &str| content.len() - side.len();
            let content_text = &text[content.clone()];
            inner = content.start + blank(content_text.trim_start())..content.end - blank(content_text.trim_end());
        }
    }
    &text[inner]
}

/// A closed box.
#[derive(Clone)]
struct BoxSpan {
    /// Including its command and braces.
    whole: Range<usize>,
    content: Range<usize>,
}

/// The closed boxes, by the position where they close: the last one is last, and a box comes after those nested in it.
///
/// One pass with a stack of open braces.
fn boxes(text: &str) -> Vec<BoxSpan> {
    let bytes = text.as_bytes();
    // For every open brace, the start of its box and of the content; `None` for a brace that does not belong to a box.
    let mut open: Vec<Option<(usize, usize)>> = Vec::new();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => match box_content(text, at) {
                Some(start) => {
                    open.push(Some((at, start)));
                    at = start;
                }
                // Skips escaped characters: `\{` and `\}` are not braces, and in `\\{` the brace is not escaped.
                None => at += 2,
            },
            b'{' => {
                open.push(None);
                at += 1;
            }
            b'}' => {
                if let Some(Some((from, start))) = open.pop() {
                    found.push(BoxSpan { whole: from..at + 1, content: start..at });
                }
                at += 1;
            }
            _ => at += 1,
        }
    }
    found
}

/// The start of the content, if `\boxed {` or `\fbox {` is at `at`.
fn box_content(text: &str, at: usize) -> Option<usize> {
    let rest = &text[at..];
    let after = rest.strip_prefix("\\boxed").or_else(|| rest.strip_prefix("\\fbox"))?;
    let content = after.trim_start().strip_prefix('{')?;
    Some(text.len() - content.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(response: &str) -> Option<&str> {
        match extract_boxed(response, Scope::Response, Some("answer")) {
            Extracted::Answer(answer) => Some(answer),
            Extracted::Missing(_) => None,
        }
    }

    fn inside(response: &str) -> Extracted<'_> {
        extract_boxed(response, Scope::Answer, Some("answer"))
    }

    #[test]
    fn the_last_box_counts() {
        assert_eq!(whole(r"\boxed{8}. Wait, \boxed{7}."), Some("7"));
        assert_eq!(whole(r"so $\boxed{ \frac{1}{2} }$"), Some(r"\frac{1}{2}"));
        assert_eq!(whole(r"\fbox{3}"), Some("3"));
        assert_eq!(whole(r"\boxed {3}"), Some("3"));
        assert_eq!(whole(r"We have 7 apples. \boxed{@@}"), Some("@@"));
        assert_eq!(whole(r"\boxed{5} then \boxed{}"), Some(""));
        assert_eq!(whole("the answer is 5"), None);
        assert_eq!(whole(r"\boxed 5"), None);
        assert_eq!(whole(r"\boxedx{5}"), None);
    }

    #[test]
    fn nested_boxes_count_as_the_outer_one() {
        assert_eq!(whole(r"\boxed{\boxed{5}}"), Some(r"\boxed{5}"));
        assert_eq!(whole(r"\boxed{3 + \boxed{4}}"), Some(r"3 + \boxed{4}"));
        assert_eq!(whole(r"\boxed{a \boxed{4} b} and \fbox{6}"), Some("6"));
    }

    #[test]
    fn escaped_braces_do_not_count() {
        assert_eq!(whole(r"\boxed{\{1,2\}}"), Some(r"\{1,2\}"));
        assert_eq!(whole(r"\boxed{\left\{1\right.}"), Some(r"\left\{1\right."));
        assert_eq!(whole(r"\boxed{1 \\{2}}"), Some(r"1 \\{2}"));
    }

    #[test]
    fn a_box_that_is_not_closed_is_ignored() {
        assert_eq!(whole(r"\boxed{5"), None);
        assert_eq!(whole(r"\boxed{4} so \boxed{\frac{5}{2}"), Some("4"));
        assert_eq!(whole(r"\boxed{ \boxed{5}"), Some("5"));
        assert_eq!(whole(r"} \boxed{5} }"), Some("5"));
    }

    #[test]
    fn the_answer_element_bounds_the_search() {
        assert_eq!(inside(r"\boxed{1}<answer>\boxed{2}</answer>\boxed{3}"), Extracted::Answer("2"));
        assert_eq!(inside(r"<answer>\boxed{1}</answer><answer>\boxed{2}</answer>"), Extracted::Answer("2"));
        assert_eq!(inside(r"<answer>\boxed{1}</answer><answer>\boxed{2}"), Extracted::Answer("1"));
        assert_eq!(inside(r"<answer>\boxed{1}</answer></answer>"), Extracted::Answer("1"));
        assert_eq!(inside(r"<answer>1<answer>\boxed{2}</answer>"), Extracted::Answer("2"));
        assert_eq!(inside(r"<answer>\boxed{1}"), Extracted::Missing("no closed answer element"));
        assert_eq!(inside(r"\boxed{1}<answer>2</answer>"), Extracted::Missing("no box"));
        assert_eq!(extract_boxed(r"\boxed{1}", Scope::Answer, None), Extracted::Answer("1"));
    }

    #[test]
    fn ten_thousand_braces_take_one_pass() {
        assert_eq!(whole(&r"\boxed{".repeat(10_000)), None);
        assert_eq!(whole(&"{".repeat(100_000)), None);
        let deep = format!("{}{}", r"\boxed{".repeat(10_000), "}".repeat(10_000));
        assert_eq!(whole(&deep).map(str::len), Some(9_999 * 8));
        assert_eq!(inside(&"</answer>".repeat(10_000)), Extracted::Missing("no closed answer element"));
    }

    /// Every rule of the lenient mode, what it prefers, and what it falls back to.
    #[test]
    fn the_order_of_rules_in_the_lenient_mode() {
        let cases: &[(&str, &str, ExtractionRule)] = &[
            // The final answer and boxes: the later one counts.
            ("Final Answer: The final answer is $7$. I hope it is correct.", "7", ExtractionRule::FinalAnswer),
            ("The final answer to your question is 12.", "12", ExtractionRule::FinalAnswer),
            ("the final answer is:\n\n$$\\frac{1}{2}$$", "\\frac{1}{2}", ExtractionRule::FinalAnswer),
            ("The final answer is 7. Let me check: \\boxed{8}", "8", ExtractionRule::Boxed),
            ("\\boxed{8}, and so the final answer is 7.", "7", ExtractionRule::FinalAnswer),
            ("The final answer is $\\boxed{8}$.", "8", ExtractionRule::Boxed),
            ("So \\[ \\boxed{\\frac{a}{b}} \\] as the answer: 5", "\\frac{a}{b}", ExtractionRule::Boxed),
            ("\\boxed{8}. Hmm, wait, it is \\boxed{7}.", "7", ExtractionRule::Boxed),
            ("$\\boxed{1}$ and $\\boxed{2}$", "\\boxed{1}$ and $\\boxed{2}", ExtractionRule::Boxed),
            ("\\fbox{3} costs 5", "3", ExtractionRule::Boxed),
            // `answer:`, before and after `####`.
            ("Answer: 42\nI used 3 steps.", "42", ExtractionRule::Answer),
            ("**Answer:** $x = 5$ by step 3", "x = 5", ExtractionRule::Answer),
            ("ANSWER: (B)", "(B)", ExtractionRule::Answer),
            ("Answer: no", "no", ExtractionRule::Answer),
            ("Answer: $1$, $2$ and $3$. I checked 4 cases.", "$1$, $2$ and $3$", ExtractionRule::Answer),
            ("She has 3 * 6 = 18.\n#### 18", "18", ExtractionRule::Hashes),
            ("The answer needs 20 steps.\n#### 1,080", "1,080", ExtractionRule::Hashes),
            ("So the answer is 12 apples, with 3 left.", "12", ExtractionRule::Answer),
            ("so the answer is obvious: we see that it must be $5$", "5", ExtractionRule::Answer),
            // The last formula or number.
            ("It took 2 steps to get $x = 3$. Also, \\(y = 4\\).", "y = 4", ExtractionRule::Environment),
            ("We get \\(y = 4\\) in 2 steps.", "2", ExtractionRule::LastNumber),
            ("the answer is therefore 7 dollars", "7", ExtractionRule::Answer),
            ("<answer>1,080</answer>", "1,080", ExtractionRule::Answer),
            ("It is \\[\n x = 9 \n\\] then.", "x = 9", ExtractionRule::Environment),
            ("the ratio is \\frac{3}{4}.", "\\frac{3}{4}", ExtractionRule::Environment),
            ("She pays $5 and gets $6 back", "$6", ExtractionRule::LastNumber),
            ("so -1,234.5 it is, by rule x2.", "-1,234.5", ExtractionRule::LastNumber),
            ("that is 3/4 of them", "3/4", ExtractionRule::LastNumber),
            ("that is 35%.", "35%", ExtractionRule::LastNumber),
            // Text that cannot be read is skipped; a reward never does this.
            ("We have 7 apples. \\boxed{@@}", "7", ExtractionRule::LastNumber),
            ("\\boxed{5} or rather \\boxed{@@}", "5", ExtractionRule::Boxed),
            ("\\boxed{@@}", "@@", ExtractionRule::Boxed),
            ("The final answer is \\boxed{", "\\boxed{", ExtractionRule::FinalAnswer),
        ];
        for (response, answer, rule) in cases {
            assert_eq!(extract_lenient(response), Some(FoundAnswer { answer, rule: *rule }), "{response}");
        }
        for nothing in ["", "I do not know.", "x2", "$$", "answer", "####"] {
            assert_eq!(extract_lenient(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn no_text_is_slow_or_splits_a_character() {
        let pieces = [
            "{",
            "}",
            "$",
            "$$",
            "\\(",
            "\\)",
            "\\[",
            "\\boxed{",
            "\\boxed{}",
            "\\frac{1}{",
            "\\frac{1}{2}",
            "answer: ",
            "answer",
            "final answer is ",
            "final answer é is",
            "#### ",
            "1",
            "1 ",
            "1,",
            "-1",
            "−1 ",
            "$1",
            "é",
            "答",
            "</answer>",
            "<answer>",
            "\n",
            "$x$ and ",
            "\\boxed{1},",
            ". ",
            "\\",
            "€5 ",
        ];
        for one in pieces {
            for other in pieces {
                let text = format!("{one}{other}").repeat(100_000 / (one.len() + other.len()));
                let start = std::time::Instant::now();
                let _ = (extract_lenient(&text), whole(&text), inside(&text));
                let taken = start.elapsed();
                assert!(taken < std::time::Duration::from_secs(2), "{one}{other}: {taken:?}");
            }
        }
    }

    #[test]
    fn rules_are_written_in_kebab_case() {
        assert_eq!(serde_json::to_string(&ExtractionRule::FinalAnswer).unwrap(), "\"final-answer\"");
        assert_eq!(serde_json::from_str::<ExtractionRule>("\"last-number\"").unwrap(), ExtractionRule::LastNumber);
    }
}
