//! Finds the code in a completion.

use std::time::Duration;

use anyhow::{Result, bail};

use super::CodeTask;
use crate::sandbox::{CallOutcome, Program, PythonValue, Sandbox, SandboxLimits};

/// Long texts without code take the longest.
const TIME: Duration = Duration::from_secs(60);

/// The part of a completion to look for code in: the last fenced block of the last closed answer element, else of the
/// whole completion, else the text of the element or the completion.
pub fn extract<'a>(response: &'a str, answer_tag: Option<&str>) -> &'a str {
    let answer = answer_tag.and_then(|tag| {
        let end = response.rfind(&format!("</{tag}>"))?;
        let open = format!("<{tag}>");
        let start = response[..end].rfind(&open)? + open.len();
        Some(&response[start..end])
    });
    answer.and_then(last_block).or_else(|| last_block(response)).or(answer).unwrap_or(response)
}

/// The text of the last fenced block. A block that is not closed extends to the end.
fn last_block(text: &str) -> Option<&str> {
    let (mut last, mut open) = (None, None);
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let next = at + line.len();
        match open {
            // There may be a tag before it: `<answer>```python`.
            None if line.matches("```").count() == 1 => open = Some(next),
            Some(start) if line.trim_start().starts_with("```") => {
                last = Some(&text[start..at]);
                open = None;
            }
            _ => {}
        }
        at = next;
    }
    // A last fence without a line after it closes a block that was never opened.
    let unclosed = open.map(|start| &text[start..]).filter(|it| !it.trim().is_empty());
    unclosed.or(last)
}

/// The program in a text, as evalplus's sanitizer finds it, and whether it defines the function. The text is parsed by
/// Python's own parser, inside the sandbox.
///
/// evalplus takes the structure from tree-sitter, we take it from `ast`; both only find text that Python can parse. As in
/// evalplus, decorated definitions and functions without a `return` are left out, and the first of two definitions counts.
///
/// # Errors
/// The sandbox does not work.
pub fn sanitize(sandbox: &Sandbox, text: &str, entry_point: &str) -> Result<Option<(String, bool)>> {
    let program = Program { source: include_str!("sanitize.py"), entry_point: "sanitize" };
    let mut session = sandbox.load(&program, &SandboxLimits::time(TIME))?;
    match session.call(&[PythonValue::str(text), PythonValue::str(entry_point)], TIME) {
        CallOutcome::Value(PythonValue::Tuple(found)) => match found.as_slice() {
            [PythonValue::Str(code), PythonValue::Bool(defines)] => Ok(Some((code.clone(), *defines))),
            _ => bail!("the sanitizer returned {found:?}"),
        },
        // Text that is too large for the parser does not contain a program that could be run.
        CallOutcome::TimedOut | CallOutcome::Raised(_) | CallOutcome::Died(_) => Ok(None),
        CallOutcome::Value(other) => bail!("the sanitizer returned {other:?}"),
    }
}

/// The program in a completion for a task: the function itself, or the continuation of the prompt. `None` if there is
/// neither.
///
/// # Errors
/// The sandbox does not work.
pub fn solution(
    sandbox: &Sandbox,
    task: &CodeTask,
    response: &str,
    answer_tag: Option<&str>,
) -> Result<Option<String>> {
    let text = extract(response, answer_tag);
    for text in [text.to_owned(), format!("{}\n{text}", task.prompt)] {
        if let Some((code, true)) = sanitize(sandbox, &text, &task.entry_point)? {
            return Ok(Some(code));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_taken_from_the_last_block_of_the_answer() {
        let response = "```\na\n```\n<answer>\n```python\nb\n```\nor\n```py\nc\n```\n</answer>\n```\nd\n```";
        assert_eq!(extract(response, Some("answer")), "c\n");
        assert_eq!(extract(response, None), "d\n");
        assert_eq!(extract("```\na\n```\n<answer>b</answer>", Some("answer")), "a\n");
        assert_eq!(extract("x <answer>b</answer> y", Some("answer")), "b");
        assert_eq!(extract("def f(): return 1", Some("answer")), "def f(): return 1");
        assert_eq!(extract("<answer>```python\ncut off", Some("answer")), "cut off");
        assert_eq!(extract("  ```python\n  indented\n  ```\n```", None), "  indented\n");
        assert_eq!(extract("", Some("answer")), "");
    }
}
