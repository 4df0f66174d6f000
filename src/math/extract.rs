//! Finds the answer in a response: the last balanced `\boxed{…}` or `\fbox{…}`.

use crate::config::Scope;

/// What [`extract_boxed`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extracted<'a> {
    /// The content of the last box, trimmed; possibly empty or nonsense.
    Answer(&'a str),
    /// There is no answer to read, and why.
    Missing(&'static str),
}

/// The content of the last box of `response`, or of its last closed answer element.
///
/// `Scope::Answer` without an `answer_tag` looks at the whole response: the prior prompt asks for no element to look into.
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
fn last_element<'a>(text: &'a str, tag: &str) -> Option<&'a str> {
    let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
    let mut end = text.rfind(&close)?;
    loop {
        // The opening tag belongs to this closing tag only where no other closing tag stands between them.
        let earlier = text[..end].rfind(&close);
        let from = earlier.map_or(0, |at| at + close.len());
        match text[from..end].rfind(&open) {
            Some(at) => return Some(&text[from + at + open.len()..end]),
            None => end = earlier?,
        }
    }
}

/// One pass with a stack of open braces. The box that closes last is the last one, and the outermost where boxes are nested.
fn last_box(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    // For every open brace, where the content of its box starts; `None` for a brace that is no box's.
    let mut open: Vec<Option<usize>> = Vec::new();
    let mut found = None;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => match box_content(text, at) {
                Some(start) => {
                    open.push(Some(start));
                    at = start;
                }
                // Skips what is escaped: `\{` and `\}` are no braces, and in `\\{` the brace is not escaped.
                None => at += 2,
            },
            b'{' => {
                open.push(None);
                at += 1;
            }
            b'}' => {
                if let Some(Some(start)) = open.pop() {
                    found = Some(&text[start..at]);
                }
                at += 1;
            }
            _ => at += 1,
        }
    }
    found
}

/// Where the content starts, if `\boxed {` or `\fbox {` stands at `at`.
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
    fn a_box_that_never_closes_is_none() {
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
    fn ten_thousand_braces_are_one_pass() {
        assert_eq!(whole(&r"\boxed{".repeat(10_000)), None);
        assert_eq!(whole(&"{".repeat(100_000)), None);
        let deep = format!("{}{}", r"\boxed{".repeat(10_000), "}".repeat(10_000));
        assert_eq!(whole(&deep).map(str::len), Some(9_999 * 8));
        assert_eq!(inside(&"</answer>".repeat(10_000)), Extracted::Missing("no closed answer element"));
    }
}
