//! 1 if the program in the completion passes all tests of its question, run in the sandbox.
//!
//! The tests are in a column: `assert` lines, whose arguments and expected values are read as literals, or objects with
//! `stdin` and `stdout`. The expected values never enter the sandbox that runs the program.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value as Json;

use super::{Reward, RewardInput, Score};
use crate::code::{extract, is_right, shown, tolerances};
use crate::config::CodeSection;
use crate::data::Question;
use crate::math::Verdict;
use crate::sandbox::{CallOutcome, Program, PythonValue, Sandbox, SandboxLimits};

pub struct CodeReward {
    sandbox: Sandbox,
    column: String,
    /// Time limit for all tests of a function, or for each run of a script.
    time: Duration,
    /// Tests that have been read, by their text: the completions of a question share them.
    read: Mutex<BTreeMap<String, Arc<Result<Tests, String>>>>,
}

/// The tests of one question.
enum Tests {
    /// A function's name, and (arguments, expected value).
    Calls(String, Vec<(Vec<PythonValue>, PythonValue)>),
    Scripts(Vec<Script>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Script {
    #[serde(default)]
    stdin: String,
    stdout: String,
}

/// The result of a program on its tests.
enum TestRun {
    Passed,
    /// Failed, for this reason.
    Failed(String),
}

impl CodeReward {
    /// # Errors
    /// If Python or a way to isolate programs is missing.
    pub fn new(section: &CodeSection) -> Result<CodeReward> {
        let sandbox = Sandbox::probe(section.unsafe_local_exec).context("reward `code`")?;
        let time = Duration::from_secs_f64(section.timeout);
        Ok(CodeReward { sandbox, column: section.column.clone(), time, read: Mutex::default() })
    }

    fn tests(&self, question: &Question) -> Arc<Result<Tests, String>> {
        let Some(column) = question.extra.get(&self.column) else {
            return Arc::new(Err(format!("no column `{}`", self.column)));
        };
        let text = column.to_string();
        let lock = || self.read.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(tests) = lock().get(&text) {
            return tests.clone();
        }
        let tests = Arc::new(self.parse(column).map_err(|error| format!("{error:#}")));
        lock().insert(text, tests.clone());
        tests
    }

    /// Reads a column: a list, or the JSON text of one, or `assert` lines.
    fn parse(&self, column: &Json) -> Result<Tests> {
        let items = match column {
            Json::Array(items) => items.clone(),
            Json::String(text) => match serde_json::from_str(text) {
                Ok(Json::Array(items)) => items,
                _ => vec![column.clone()],
            },
            _ => bail!("expected a list or text"),
        };
        ensure!(!items.is_empty(), "no tests");
        if items.iter().all(Json::is_object) {
            let script = |item: Json| serde_json::from_value(item).context("expected a test with `stdin` and `stdout`");
            return Ok(Tests::Scripts(items.into_iter().map(script).collect::<Result<_>>()?));
        }
        let lines: Option<Vec<PythonValue>> = items.iter().map(|item| item.as_str().map(PythonValue::str)).collect();
        self.read_asserts(lines.context("expected `assert` lines, or objects with `stdin` and `stdout`")?)
    }

    fn read_asserts(&self, lines: Vec<PythonValue>) -> Result<Tests> {
        let program = Program { source: include_str!("asserts.py"), entry_point: "cases" };
        let mut session = self.sandbox.load(&program, &SandboxLimits::time(self.time))?;
        let found = match session.call(&[PythonValue::List(lines)], self.time) {
            CallOutcome::Value(PythonValue::List(found)) => found,
            CallOutcome::Raised(why) => bail!("{why}"),
            other => bail!("{other:?}"),
        };
        let (mut function, mut cases) = (String::new(), Vec::new());
        for case in found {
            let PythonValue::Tuple(parts) = case else { bail!("{case} is not a test") };
            match <[PythonValue; 3]>::try_from(parts) {
                Ok([PythonValue::Str(name), PythonValue::List(arguments), expected]) => {
                    function = name;
                    cases.push((arguments, expected));
                }
                _ => bail!("not a test"),
            }
        }
        ensure!(!cases.is_empty(), "no tests");
        Ok(Tests::Calls(function, cases))
    }

    fn run(&self, tests: &Tests, source: &str) -> Result<TestRun> {
        let limits = SandboxLimits::time(self.time);
        match tests {
            Tests::Calls(function, cases) => {
                let mut session = self.sandbox.load(&Program { source, entry_point: function }, &limits)?;
                let tolerances = tolerances(0.0, cases.iter().map(|(_, expected)| expected));
                let mut tests = cases.iter().zip(tolerances).zip(1..);
                let mut failed = None;
                session.call_all(cases.iter().map(|(arguments, _)| (arguments.as_slice(), self.time)), |outcome, _| {
                    let Some((((_, expected), tolerance), number)) = tests.next() else { return false };
                    failed = match outcome {
                        CallOutcome::Value(output) if is_right(&output, expected, tolerance) => None,
                        CallOutcome::Value(output) => {
                            Some(format!("{} instead of {}", shown(&output), shown(expected)))
                        }
                        other => Some(went_wrong(other)),
                    }
                    .map(|what| format!("test {number}: {what}"));
                    failed.is_none()
                });
                Ok(failed.map_or(TestRun::Passed, TestRun::Failed))
            }
            Tests::Scripts(scripts) => {
                for (number, script) in (1..).zip(scripts) {
                    let what = match self.sandbox.stdout(source, &script.stdin, &limits)? {
                        CallOutcome::Value(PythonValue::Str(printed)) if is_same_text(&printed, &script.stdout) => {
                            continue;
                        }
                        CallOutcome::Value(printed) => {
                            format!("{} instead of {}", shown(&printed), shown(&PythonValue::str(&script.stdout)))
                        }
                        other => went_wrong(other),
                    };
                    return Ok(TestRun::Failed(format!("test {number}: {what}")));
                }
                Ok(TestRun::Passed)
            }
        }
    }
}

impl Reward for CodeReward {
    fn name(&self) -> &str {
        "code"
    }

    fn stop(&self) {
        self.sandbox.stop();
    }

    fn score(&self, input: &RewardInput) -> Score {
        let tests = self.tests(input.question);
        let tests = match tests.as_ref() {
            Ok(tests) => tests,
            Err(why) => return Score { note: Some(format!("the tests cannot be read: {why}")), ..Score::default() },
        };
        let source = extract(input.response, input.prompt.answer_tag.as_deref());
        let (value, verdict, note) = match self.run(tests, source) {
            Ok(TestRun::Passed) => (1.0, Verdict::Correct, None),
            Ok(TestRun::Failed(why)) => (0.0, Verdict::Wrong, Some(why)),
            Err(error) => return Score { note: Some(format!("{error:#}")), ..Score::default() },
        };
        Score { value: Some(value), answer: None, verdict: Some(verdict), note }
    }
}

fn went_wrong(outcome: CallOutcome) -> String {
    match outcome {
        CallOutcome::Raised(what) => what,
        CallOutcome::TimedOut => "timed out".to_owned(),
        CallOutcome::Died(why) => format!("ended: {why}"),
        CallOutcome::Value(value) => shown(&value),
    }
}

/// Equal except for white space at the ends of lines and of the text.
fn is_same_text(printed: &str, expected: &str) -> bool {
    let lines = |text: &str| -> Vec<String> { text.trim_end().lines().map(|it| it.trim_end().to_owned()).collect() };
    lines(printed) == lines(expected)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{input, prompt, question};
    use super::*;
    use serde_json::json;

    fn rule() -> Option<CodeReward> {
        let section =
            CodeSection { weight: Some(1.0), column: "tests".into(), timeout: 20.0, unsafe_local_exec: false };
        CodeReward::new(&section).inspect_err(|error| eprintln!("skipped: {error:#}")).ok()
    }

    fn score(rule: &CodeReward, tests: Json, response: &str) -> Score {
        let mut question = question("");
        question.extra.insert("tests".into(), tests);
        rule.score(&input(&question, &prompt(Some("think")), response))
    }

    #[test]
    fn a_function_is_called_with_the_arguments_of_the_asserts() {
        let Some(rule) = rule() else { return };
        let tests = json!(["assert add([1, 2]) == 3", "assert add([0.5, 0.25]) == 0.75\nassert add(()) == 0"]);
        let right = "<answer>\n```python\ndef add(xs):\n    return sum(xs)\n```\n</answer>";
        assert_eq!(score(&rule, tests.clone(), right).value, Some(1.0));
        assert_eq!(score(&rule, json!(tests.to_string()), right).value, Some(1.0), "the list as text");
        for (response, why) in [
            ("```python\ndef add(xs): return 3\n```", "test 2: 3 instead of 0.75"),
            ("```python\ndef add(xs): return xs[0] + xs[1]\n```", "test 3: IndexError: tuple index out of range"),
            ("```python\ndef sub(xs): return 3\n```", "test 1: NameError: `add` is not defined"),
            ("```python\nimport os\nos._exit(0)\n```", "test 1: ended: exit status 0"),
        ] {
            let score = score(&rule, tests.clone(), response);
            assert_eq!((score.value, score.note.as_deref()), (Some(0.0), Some(why)), "{response}");
            assert_eq!(score.verdict, Some(Verdict::Wrong));
        }
        assert_eq!(score(&rule, tests, "I do not know.").value, Some(0.0));
    }

    #[test]
    fn a_script_is_run_on_its_input() {
        let Some(rule) = rule() else { return };
        let tests = json!([{"stdin": "1 2\n", "stdout": "3"}, {"stdin": "4 5", "stdout": "9\n\n"}]);
        let right = "```python\nprint(sum(map(int, input().split())), '')\n```";
        assert_eq!(score(&rule, tests.clone(), right).value, Some(1.0));
        let wrong = score(&rule, tests, "```python\nprint(3)\n```");
        assert_eq!((wrong.value, wrong.note.as_deref()), (Some(0.0), Some(r#"test 2: "3\n" instead of "9\n\n""#)));
    }

    #[test]
    fn tests_that_cannot_be_read_give_no_score() {
        let Some(rule) = rule() else { return };
        for tests in [
            json!([]),
            json!(7),
            json!([{"stdin": "1"}]),
            json!(["assert f(g(1)) == 2"]),
            json!(["assert f(1)"]),
            json!(["assert f(1) == 1", "assert g(1) == 1"]),
            json!(["import os"]),
            json!("not Python"),
        ] {
            let score = score(&rule, tests.clone(), "```python\ndef f(x): return x\n```");
            assert_eq!(score.value, None, "{tests}");
            assert!(score.note.unwrap().starts_with("the tests cannot be read"), "{tests}");
        }
        let without = rule.score(&input(&question("7"), &prompt(None), "x"));
        assert_eq!(
            (without.value, without.note.as_deref()),
            (None, Some("the tests cannot be read: no column `tests`"))
        );
    }
}
