//! Grading: from a completion to a verdict.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::asked::QuestionRecord;
use super::bench::{self, AnswerKind, AnswerOptions, QuestionOrigin};
use super::choice::{Chosen, stated};
use super::profile::Extraction;
use crate::code::{self, CodeTask, Tasks, TestStatus};
use crate::data::Question;
use crate::math::{self, Verdict};
use crate::sandbox::{Sandbox, SandboxLayers};

/// The grade of a completion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grade {
    /// The extracted answer, literally.
    pub answer: Option<String>,
    pub verdict: Verdict,
    /// How the answer was found, or the reason why there is none.
    pub how: String,
    /// For options: whether the completion gave the letter itself, and it is right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub letter: Option<bool>,
    /// For programs: whether the base tests pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<bool>,
    /// For programs: whether no program defines the function.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unparsable: bool,
}

impl Grade {
    pub fn new(verdict: Verdict, how: impl Into<String>) -> Self {
        Self { answer: None, verdict, how: how.into(), letter: None, base: None, unparsable: false }
    }

    pub fn is_right(&self) -> bool {
        self.verdict == Verdict::Correct
    }
}

/// Grades completions. The default grader does not run programs.
#[derive(Default)]
pub struct Grader {
    programs: Option<Programs>,
}

/// The tests of programs, and the sandbox to run them in.
struct Programs {
    sandbox: Sandbox,
    /// Tests by the id of the question.
    tasks: BTreeMap<String, CodeTask>,
    /// Whether the extra tests count.
    plus: bool,
}

impl Grader {
    /// The grader of the benchmark `name`. A benchmark of programs needs its tests, see [`bench::HubSet::find`], and a sandbox.
    /// `unsafe_local_exec` runs programs even without isolation.
    ///
    /// # Errors
    /// There are no tests, or no sandbox.
    pub fn new(name: &str, extraction: Extraction, data_dir: Option<&Path>, unsafe_local_exec: bool) -> Result<Self> {
        if !extraction.is_program() {
            return Ok(Self::default());
        }
        let benchmark = bench::find(name)?;
        let (QuestionOrigin::Hub(set), AnswerKind::Code { plus }) = (&benchmark.origin, benchmark.kind) else {
            bail!("`{name}` has no tests")
        };
        let tasks = Tasks::read(&set.find(data_dir)?)?.tasks;
        let sandbox = Sandbox::probe(unsafe_local_exec).with_context(|| format!("run the programs of `{name}`"))?;
        let tasks = tasks.into_iter().map(|task| (task.id.clone(), task)).collect();
        Ok(Self { programs: Some(Programs { sandbox, tasks, plus }) })
    }

    /// The version of the grader, which is stored in every result. It changes whenever a verdict may change.
    pub fn version(&self) -> String {
        "2".to_owned()
    }

    /// The isolation of programs during their tests; `None` if there are no programs.
    pub fn layers(&self) -> Option<&SandboxLayers> {
        self.programs.as_ref().map(|programs| programs.sandbox.layers())
    }

    /// Ends all programs. The process has been asked to end, and its grades are not used.
    pub fn stop(&self) {
        if let Some(programs) = &self.programs {
            programs.sandbox.stop();
        }
    }

    /// Checks that all questions can be graded.
    ///
    /// # Errors
    /// A question without tests.
    pub fn check_questions(&self, questions: &[Question]) -> Result<()> {
        let Some(programs) = &self.programs else { return Ok(()) };
        match questions.iter().find(|it| !programs.tasks.contains_key(&it.id)) {
            Some(question) => {
                bail!("question {} has no tests\nhint: use the complete file of the benchmark", question.id)
            }
            None => Ok(()),
        }
    }

    /// Grades a completion of a question.
    ///
    /// # Errors
    /// For programs: the sandbox fails, or there are no tests for the question. A failure of the program itself is a verdict.
    pub fn grade(&self, extraction: Extraction, question: &QuestionRecord, response: &str) -> Result<Grade> {
        match extraction {
            Extraction::Math => Ok(value(question, response)),
            Extraction::Option => Ok(option(question, response)),
            Extraction::AnswerLine => Ok(answer_line(question, response)),
            Extraction::Fenced => self.program(question, response),
            Extraction::Opened => self.program(question, &format!("```python\n{response}")),
        }
    }

    fn program(&self, question: &QuestionRecord, response: &str) -> Result<Grade> {
        let programs = self.programs.as_ref().context("this grader does not run programs")?;
        programs.grade(&question.id, response).with_context(|| format!("test the program for {}", question.id))
    }
}

impl Programs {
    fn grade(&self, id: &str, response: &str) -> Result<Grade> {
        let task = self.tasks.get(id).context("this question has no tests")?;
        let Some(program) = code::solution(&self.sandbox, task, response, Some("answer"))? else {
            let why = format!("no function `{}`", task.entry_point);
            return Ok(Grade { base: Some(false), unparsable: true, ..Grade::new(Verdict::Wrong, why) });
        };
        let tested = code::grade(&self.sandbox, task, &program)?;
        let passed = |status| status == TestStatus::Passed;
        let right = passed(if self.plus { tested.plus } else { tested.base });
        let verdict = if right { Verdict::Correct } else { Verdict::Wrong };
        let how = match (tested.base, tested.plus) {
            (TestStatus::Passed, TestStatus::Passed) => "all tests pass".to_owned(),
            (base, plus) => {
                let (tests, status) = if passed(base) { ("extra tests", plus) } else { ("base tests", base) };
                format!("{tests}: {status}: {}", tested.detail.unwrap_or_default())
            }
        };
        Ok(Grade { answer: Some(program), base: Some(passed(tested.base)), ..Grade::new(verdict, how) })
    }
}

/// Whether two answers count as the same vote.
pub fn same_answer(extraction: Extraction, a: &str, b: &str) -> bool {
    match extraction {
        Extraction::Math => a == b || math::check(a, b) == Verdict::Correct,
        _ => a == b,
    }
}

fn value(question: &QuestionRecord, response: &str) -> Grade {
    let graded = math::grade_lenient_for(&question.question, response, &question.gold);
    if question.needs_judge {
        let reason = "the gold answer is a description, which rules cannot grade";
        return Grade { answer: graded.answer, ..Grade::new(Verdict::Undecided(reason.to_owned()), "no rule") };
    }
    let how = match (graded.rule, graded.missing) {
        (Some(rule), _) => rule.to_string(),
        (None, missing) => missing.unwrap_or_default(),
    };
    Grade { answer: graded.answer, ..Grade::new(graded.verdict, how) }
}

/// A letter, or the text or the value of exactly one option, because with some prior prompts models do not give the letter.
fn option(question: &QuestionRecord, response: &str) -> Grade {
    let Some(statement) = stated(response, &question.options) else { return no_answer("no answer") };
    let how = statement.how;
    match statement.chosen {
        Chosen::Letter(place) => chosen(question, place, how, true),
        Chosen::Value(place) => chosen(question, place, how, false),
        Chosen::Other(text) => other(&text, Verdict::Wrong, format!("{how}; not one of the options")),
        Chosen::Several(text) => other(
            &text,
            Verdict::Undecided("more than one option is stated, or has this value".to_owned()),
            how.to_owned(),
        ),
    }
}

fn answer_line(question: &QuestionRecord, response: &str) -> Grade {
    match last_answer_line(response).and_then(|line| letter(line, question.options.len())) {
        Some(place) => chosen(question, place, "the answer line", true),
        None => no_answer("no line with an answer"),
    }
}

fn chosen(question: &QuestionRecord, place: usize, how: &str, by_letter: bool) -> Grade {
    let letter = AnswerOptions::letter(place).to_string();
    let right = letter == question.gold;
    let verdict = if right { Verdict::Correct } else { Verdict::Wrong };
    Grade { answer: Some(letter), letter: Some(by_letter && right), ..Grade::new(verdict, how) }
}

fn no_answer(why: &str) -> Grade {
    Grade { letter: Some(false), ..Grade::new(Verdict::Wrong, why) }
}

/// An answer that is not exactly one option.
fn other(found: &str, verdict: Verdict, how: String) -> Grade {
    Grade { answer: Some(found.to_owned()), letter: Some(false), ..Grade::new(verdict, how) }
}

/// The text after the last `answer:` or `answer is`, up to the end of its line.
fn last_answer_line(response: &str) -> Option<&str> {
    let lower = response.to_ascii_lowercase();
    let marks = ["answer:", "answer is:", "answer is", "answer**:", "answer:**"];
    let (at, mark) = marks.iter().filter_map(|mark| Some((lower.rfind(mark)? + mark.len(), mark))).max()?;
    debug_assert!(response.is_char_boundary(at), "`{mark}` is ASCII");
    let line = response[at..].lines().next().unwrap_or_default().trim();
    (!line.is_empty()).then_some(line)
}

/// The option that a text gives by its letter, in various forms: `B`, `(B)`, `**B.**`, `\text{B}`, `B) ...`.
fn letter(text: &str, options: usize) -> Option<usize> {
    let inner =
        text.trim().trim_start_matches("\\text{").trim_start_matches("\\textbf{").trim_start_matches("\\mathrm{");
    let inner = inner.trim_start_matches(['(', '[', '*', '$', ' ', '{', '`', '"']);
    let inner = inner.strip_prefix("option ").or_else(|| inner.strip_prefix("Option ")).unwrap_or(inner);
    let mut chars = inner.chars();
    let place = (chars.next()? as usize).checked_sub('A' as usize).filter(|&place| place < options)?;
    let rest = chars.as_str().trim_start_matches(['*', '$', '`', '"', '}']);
    // `A` and `A) because ...` are options; `A force of 3 N` and `A.B` are not.
    let ends = rest.trim_matches([')', ']', '.', ':', '*', '$', ' ', '}', '`', '"']).is_empty();
    (ends || rest.starts_with(')') || rest.starts_with(". ") || rest.starts_with(": ")).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> QuestionRecord {
        let options = ["3 m/s", r"$\frac{1}{2}$", "0.25", "None of the above"].map(str::to_owned).to_vec();
        QuestionRecord {
            id: "1".into(),
            question: "?".into(),
            gold: "B".into(),
            options,
            order: vec![1, 0, 2, 3],
            needs_judge: false,
            ppe: None,
            prompt_text: String::new(),
            prompt_sha256: String::new(),
        }
    }

    fn graded(extraction: Extraction, response: &str) -> (Option<String>, Verdict, Option<bool>) {
        let grade = Grader::default().grade(extraction, &question(), response).unwrap();
        (grade.answer, grade.verdict, grade.letter)
    }

    #[test]
    fn an_option_by_its_letter() {
        for response in [
            r"So \boxed{B}.",
            r"\boxed{\text{B}}",
            r"\boxed{(B)}",
            r"A is wrong. \boxed{A} \boxed{B) 0.5}",
            "<answer> B </answer>",
            "<answer>**B.**</answer>",
            "The answer is B.",
            "Answer: A\nAnswer: **B**",
            "the answer is option B",
        ] {
            assert_eq!(
                graded(Extraction::Option, response),
                (Some("B".into()), Verdict::Correct, Some(true)),
                "{response}"
            );
        }
        assert_eq!(graded(Extraction::Option, r"\boxed{A}").1, Verdict::Wrong);
    }

    #[test]
    fn an_option_by_its_text_or_value() {
        for response in [r"\boxed{\frac{1}{2}}", r"\boxed{0.5}", r"<answer>$\frac{1}{2}$</answer>"] {
            assert_eq!(
                graded(Extraction::Option, response),
                (Some("B".into()), Verdict::Correct, Some(false)),
                "{response}"
            );
        }
        assert_eq!(graded(Extraction::Option, r"\boxed{none of the above}").0, Some("D".into()));
        assert_eq!(graded(Extraction::Option, r"\boxed{7}"), (Some("7".into()), Verdict::Wrong, Some(false)));
        assert_eq!(graded(Extraction::Option, "I do not know").1, Verdict::Wrong);
        assert_eq!(graded(Extraction::Option, "I do not know").0, None);
        // A text that starts with a letter is not an option for that reason.
        assert_eq!(graded(Extraction::Option, r"\boxed{B field}").0, Some("B field".into()));
    }

    #[test]
    fn a_value_of_two_options_is_undecided() {
        let mut question = question();
        question.options[2] = "0.5".into();
        let grade = Grader::default().grade(Extraction::Option, &question, r"\boxed{1/2}").unwrap();
        assert!(matches!(grade.verdict, Verdict::Undecided(_)), "{grade:?}");
    }

    #[test]
    fn lighteval_only_reads_the_answer_line() {
        assert_eq!(graded(Extraction::AnswerLine, "Answer: B").1, Verdict::Correct);
        assert_eq!(graded(Extraction::AnswerLine, "Answer: $B$").1, Verdict::Correct);
        assert_eq!(graded(Extraction::AnswerLine, r"\boxed{B}").0, None);
        assert_eq!(graded(Extraction::AnswerLine, "Answer: B\nAnswer: C").1, Verdict::Wrong);
    }
}
