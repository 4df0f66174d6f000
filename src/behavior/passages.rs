//! Behaviors that depend on the structure of a passage, not on one sentence: program text, plans, chains of steps.

use std::collections::HashSet;
use std::ops::Range;

use anyhow::{Context, Result};
use regex::Regex;
use serde::Deserialize;

use super::text::{Sentence, Text, lines};
use super::{BehaviorSpan, Class};

/// Maximum number of other sentences between steps of the same chain.
const GAP: usize = 6;

/// The patterns of a rule file for lines or sentences. rules.toml explains each.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patterns {
    statement: String,
    assignment: String,
    comment: String,
    task: String,
    worked: String,
    outline: String,
    ordered: String,
    step: String,
    part: String,
    result: String,
    equation: String,
}

/// The patterns, compiled.
pub struct Passages {
    /// A line that occurs only in program text.
    statement: Regex,
    /// A line that program text may have; two of them make it likely.
    assignment: Regex,
    /// A line that is program text if it is next to program text.
    comment: Regex,
    /// A sentence that names a task.
    task: Regex,
    /// A sentence with a result.
    worked: Regex,
    /// A sentence that lists several tasks.
    outline: Regex,
    /// A sentence of prose that names a task and its position in a sequence.
    ordered: Regex,
    /// A sentence that draws a conclusion.
    step: Regex,
    /// A separator between the clauses of a sentence.
    part: Regex,
    /// A clause that states a value.
    result: Regex,
    /// A clause that transforms a formula.
    equation: Regex,
}

impl Patterns {
    pub fn compile(&self) -> Result<Passages> {
        let regex = |name: &str, pattern: &str| Regex::new(pattern).with_context(|| format!("`passages.{name}`"));
        Ok(Passages {
            statement: regex("statement", &self.statement)?,
            assignment: regex("assignment", &self.assignment)?,
            comment: regex("comment", &self.comment)?,
            task: regex("task", &self.task)?,
            worked: regex("worked", &self.worked)?,
            outline: regex("outline", &self.outline)?,
            step: regex("step", &self.step)?,
            ordered: regex("ordered", &self.ordered)?,
            part: regex("part", &self.part)?,
            result: regex("result", &self.result)?,
            equation: regex("equation", &self.equation)?,
        })
    }
}

impl Passages {
    /// Fenced blocks with statements, and sequences of lines outside of blocks that can only be program text.
    pub fn code(&self, text: &Text) -> Vec<BehaviorSpan> {
        let mut spans = Vec::new();
        let mut run: Option<LineRun> = None;
        let mut fences = text.fences.iter().peekable();
        for line in lines(text.response) {
            while fences.next_if(|fence| fence.end <= line.start).is_some() {}
            let fence = fences.peek().filter(|fence| fence.contains(&line.start));
            if let Some(fence) = fence {
                spans.extend(run.take().and_then(LineRun::unfenced));
                if fence.start == line.start {
                    spans.extend(self.fenced(text.response, (*fence).clone()));
                }
                continue;
            }
            let (kind, range) = self.kind(text.response, line);
            match (kind, &mut run) {
                (LineKind::Other, _) => spans.extend(run.take().and_then(LineRun::unfenced)),
                (LineKind::Blank, _) | (LineKind::Comment, None) => {}
                (_, None) => run = Some(LineRun::new(range, kind)),
                (_, Some(run)) => run.push(range, kind),
            }
        }
        spans.extend(run.and_then(LineRun::unfenced));
        spans
    }

    fn fenced(&self, response: &str, fence: Range<usize>) -> Option<BehaviorSpan> {
        let mut run = LineRun::default();
        for line in lines(&response[fence.clone()]).skip(1) {
            let (kind, range) = self.kind(&response[fence.clone()], line);
            run.push(range, kind);
        }
        (run.statements > 0 || run.assignments > 1).then(|| span(Class::Code, fence, "fenced program text"))
    }

    /// The kind of a line, and its range without tags.
    fn kind(&self, response: &str, line: Range<usize>) -> (LineKind, Range<usize>) {
        let text = &response[line.clone()];
        // A program may start after a tag and end before one: `<code> x = 1`.
        let mut start = 0;
        let mut rest = text;
        while let Some(after) = rest.trim_start().strip_prefix('<').and_then(|it| Some(it.split_once('>')?.1)) {
            start = text.len() - after.len();
            rest = after;
        }
        let end = rest.find("</").map_or(text.len(), |at| start + at);
        let body = text[start..end].trim_end();
        let indent = body.len() - body.trim_start().len();
        let range = line.start + start + if start > 0 { indent } else { 0 }..line.start + start + body.len();
        let body = if start > 0 { body.trim_start() } else { body };
        let kind = if body.trim().is_empty() {
            LineKind::Blank
        } else if self.comment.is_match(body) {
            LineKind::Comment
        } else if self.statement.is_match(body) {
            LineKind::Statement
        } else if self.assignment.is_match(body) {
            LineKind::Assignment
        } else {
            LineKind::Other
        };
        (kind, range)
    }

    /// Lists of tasks without their results, and sentences that list several tasks.
    pub fn planning(&self, text: &Text, sentences: &[&Sentence]) -> Vec<BehaviorSpan> {
        let mut spans = Vec::new();
        let mut plan: Option<TaskList> = None;
        for sentence in sentences {
            let words = text.of(sentence);
            let worked = self.worked.is_match(words);
            let listed = sentence.item && sentence.first && self.task.is_match(words) || self.ordered.is_match(words);
            if listed && !worked {
                match &mut plan {
                    Some(plan) => plan.push(sentence),
                    None => plan = Some(TaskList { range: sentence.range.clone(), tasks: 1, line: sentence.line }),
                }
                continue;
            }
            if let Some(plan) = plan.take() {
                // If the result follows immediately, the last task is carried out and not only named.
                let between = &text.response[plan.range.end..sentence.range.start];
                let told = sentence.line <= plan.line + 2 && !between.contains("</") && (worked || sentence.item);
                spans.extend(plan.close(told));
            }
            if !worked && self.outline.is_match(words) {
                spans.push(span(Class::Planning, sentence.range.clone(), "outline"));
            }
        }
        spans.extend(plan.and_then(|plan| plan.close(false)));
        spans
    }

    /// Passages with at least two steps. A step states a number that neither the prompt nor an earlier step contains, or transforms
    /// a formula, or draws a conclusion.
    pub fn reasoning(&self, text: &Text, sentences: &[&Sentence]) -> Vec<BehaviorSpan> {
        let mut spans = Vec::new();
        let mut known = HashSet::new();
        let mut chain: Option<(Range<usize>, usize, usize)> = None;
        for (index, sentence) in sentences.iter().enumerate() {
            let steps = self.steps(text, text.of(sentence), &mut known);
            match &mut chain {
                _ if steps == 0 => {}
                Some((range, total, last)) if index - *last <= GAP => {
                    range.end = sentence.range.end;
                    *total += steps;
                    *last = index;
                }
                _ => {
                    spans.extend(linked(chain.take()));
                    chain = Some((sentence.range.clone(), steps, index));
                }
            }
        }
        spans.extend(linked(chain));
        spans
    }

    /// Number of steps in a sentence: clauses with a new result.
    fn steps(&self, text: &Text, sentence: &str, known: &mut HashSet<String>) -> usize {
        let mut steps = 0;
        for clause in self.part.split(sentence) {
            let fresh = text.new_numbers(clause).filter(|number| known.insert(number.clone())).count();
            steps += match self.result.find_iter(clause).count() {
                0 => 0,
                // A chain such as `17 * 23 = 400 - 9 = 391` has more than one step.
                results if fresh > 1 && results > 2 => 2,
                _ if fresh > 0 || self.equation.is_match(clause) => 1,
                _ => 0,
            };
        }
        steps.max(usize::from(self.step.is_match(sentence)))
    }
}

/// Consecutive tasks.
struct TaskList {
    range: Range<usize>,
    tasks: usize,
    /// Number of the last task.
    line: usize,
}

impl TaskList {
    fn push(&mut self, sentence: &Sentence) {
        self.range.end = sentence.range.end;
        self.tasks += 1;
        self.line = sentence.line;
    }

    fn close(self, last_is_worked: bool) -> Option<BehaviorSpan> {
        let tasks = self.tasks - usize::from(last_is_worked);
        (tasks >= 2).then(|| span(Class::Planning, self.range, "list of tasks"))
    }
}

fn linked(chain: Option<(Range<usize>, usize, usize)>) -> Option<BehaviorSpan> {
    let (range, steps, _) = chain?;
    (steps >= 2).then(|| span(Class::Reasoning, range, "linked steps"))
}

fn span(class: Class, range: Range<usize>, rule: &str) -> BehaviorSpan {
    BehaviorSpan { class, start: range.start, end: range.end, rule: rule.to_owned() }
}

#[derive(Clone, Copy, PartialEq)]
enum LineKind {
    Statement,
    Assignment,
    Comment,
    Blank,
    Other,
}

/// Consecutive lines that may be program text.
#[derive(Default)]
struct LineRun {
    range: Range<usize>,
    statements: usize,
    assignments: usize,
}

impl LineRun {
    fn new(range: Range<usize>, kind: LineKind) -> Self {
        let mut run = Self { range: range.clone(), ..Self::default() };
        run.push(range, kind);
        run
    }

    fn push(&mut self, range: Range<usize>, kind: LineKind) {
        self.range.end = range.end;
        self.statements += usize::from(kind == LineKind::Statement);
        self.assignments += usize::from(kind == LineKind::Assignment);
    }

    fn unfenced(self) -> Option<BehaviorSpan> {
        (self.statements > 0 || self.assignments > 1).then(|| span(Class::Code, self.range, "program text"))
    }
}
