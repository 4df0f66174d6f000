//! The lenient mode: a ladder of rules, each tried from the end of the response.
//!
//! The order is that of math-verify 0.9: `final answer … is` and boxes, of which the later one counts; `answer:`; `####`;
//! `the answer is`; the last formula or number, again the later one. As there, the first thing that can be *read* is the answer, so
//! nonsense in the last box leads to what stands before it. Where nothing can be read, the first thing found is the answer,
//! and will be undecided.
//!
//! On purpose it differs in this: the last of several boxes counts, unless nothing but `,`, `and` or `or` stands between
//! them (a box that corrects an earlier one is not joined to it); `####` is known; words are an answer after `answer:`; a dollar sign before a digit does not
//! close a formula; and no more than a few candidates for each rule are tried, so that the time is linear in the response.

use std::cmp::Reverse;
use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::super::lex::Grouping;
use super::super::parse::parse;
use super::{BoxSpan, boxes};

/// What led to an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExtractionRule {
    /// `the final answer is …`
    FinalAnswer,
    /// `\boxed{…}` or `\fbox{…}`
    Boxed,
    /// `answer: …`, and further down the ladder `answer … is …`
    Answer,
    /// `#### …`, as in GSM8K
    Hashes,
    /// The last formula: `$…$`, `$$…$$`, `\(…\)`, `\[…\]` or a bare fraction of numbers.
    Environment,
    LastNumber,
}

impl fmt::Display for ExtractionRule {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            ExtractionRule::FinalAnswer => "`the final answer is`",
            ExtractionRule::Boxed => "the last box",
            ExtractionRule::Answer => "`the answer is`",
            ExtractionRule::Hashes => "`####`",
            ExtractionRule::Environment => "the last formula",
            ExtractionRule::LastNumber => "the last number",
        })
    }
}

/// An answer and the rule that found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundAnswer<'a> {
    pub answer: &'a str,
    pub rule: ExtractionRule,
}

/// Candidates of one rule that are tried: anchors, boxes, formulas, numbers.
const TRIES: usize = 6;
/// How far `is` may stand behind `final answer`, and an answer behind its anchor, in bytes.
const IS_WITHIN: usize = 100;
const ANSWER_WITHIN: usize = 50;

/// The answer of a response under the first rule that gives one that can be read.
pub fn extract_lenient(response: &str) -> Option<FoundAnswer<'_>> {
    let candidates = Page::of(response).candidates();
    let readable = |it: &&FoundAnswer| parse(it.answer, Grouping::Commas).is_ok();
    candidates.iter().find(readable).or(candidates.first()).copied()
}

/// A response and what stands where in it.
struct Page<'a> {
    text: &'a str,
    formulas: Vec<BoxSpan>,
    numbers: Vec<Range<usize>>,
}

impl<'a> Page<'a> {
    fn of(text: &'a str) -> Page<'a> {
        Page { text, formulas: formulas(text), numbers: numbers(text) }
    }

    /// In the order in which they are to be tried.
    fn candidates(&self) -> Vec<FoundAnswer<'a>> {
        let mut out = self.final_answers_and_boxes();
        let (colons, others) = self.answers();
        for from in colons {
            self.after(from, true, ExtractionRule::Answer, &mut out);
        }
        for from in self.last_places("####") {
            self.after(from, true, ExtractionRule::Hashes, &mut out);
        }
        for from in others {
            self.after(from, false, ExtractionRule::Answer, &mut out);
        }
        let formulas = joined(self.text, &self.formulas).into_iter().rev().take(TRIES);
        let numbers = self.numbers.iter().rev().take(TRIES).cloned();
        let mut places: Vec<_> = formulas.map(|it| (it, ExtractionRule::Environment)).collect();
        places.extend(numbers.map(|it| (it, ExtractionRule::LastNumber)));
        places.sort_by_key(|(it, _)| Reverse(it.end));
        for (range, rule) in places {
            self.push(range, rule, &mut out);
        }
        out
    }

    /// Both in one order: what stands later comes first.
    fn final_answers_and_boxes(&self) -> Vec<FoundAnswer<'a>> {
        let boxes = joined(self.text, &boxes(self.text));
        let mut places: Vec<(usize, Range<usize>, ExtractionRule)> = Vec::new();
        places.extend(boxes.into_iter().rev().take(TRIES).map(|it| (it.end, it, ExtractionRule::Boxed)));
        for from in self.last_places("final answer") {
            let window = &self.text[from..self.text.floor_char_boundary(from + IS_WITHIN)];
            if let Some(at) = find_word(window, "is") {
                let start = from + at + "is".len();
                places.push((start, start..start, ExtractionRule::FinalAnswer));
            }
        }
        // A box that stands after `the final answer is` is the same answer; its own rule has the better bounds.
        places.sort_by_key(|(end, ..)| Reverse(*end));
        let mut out = Vec::new();
        for (_, range, rule) in places {
            match rule {
                ExtractionRule::FinalAnswer => self.after(range.start, true, rule, &mut out),
                _ => self.push(range, rule, &mut out),
            }
        }
        out
    }

    /// Where `answer:` ends, and where the `is` after `answer` does; the last ones first.
    fn answers(&self) -> (Vec<usize>, Vec<usize>) {
        let (mut colons, mut others) = (Vec::new(), Vec::new());
        for from in self.last_places("answer") {
            let rest = self.text[from..].trim_start_matches(['*', ' ', '_']);
            if rest.starts_with(':') {
                colons.push(self.text.len() - rest.len() + 1);
            } else {
                let window = &self.text[from..self.text.floor_char_boundary(from + ANSWER_WITHIN)];
                others.push(from + find_word(window, "is").map_or(0, |at| at + "is".len()));
            }
        }
        (colons, others)
    }

    /// Where the last occurrences of `word` end, the last one first; in any case.
    fn last_places(&self, word: &str) -> Vec<usize> {
        let windows = self.text.as_bytes().windows(word.len()).enumerate().rev();
        let places = windows.filter(|(_, it)| it.eq_ignore_ascii_case(word.as_bytes()));
        places.map(|(at, _)| at + word.len()).take(TRIES).collect()
    }

    /// What may be the answer after an anchor: a formula at once, the rest of the sentence, or what comes first of a formula
    /// and a number. Words alone count only behind a `strong` anchor.
    fn after(&self, from: usize, strong: bool, rule: ExtractionRule, out: &mut Vec<FoundAnswer<'a>>) {
        let rest = self.text[from..].trim_start_matches(|it: char| it.is_whitespace() || "*_:=".contains(it));
        let start = self.text.len() - rest.len();
        let end = self.text.floor_char_boundary(start + ANSWER_WITHIN);
        let index = self.formulas.partition_point(|it| it.whole.start < start);
        let formula = joined(self.text, &self.formulas[index..(index + TRIES).min(self.formulas.len())]);
        let formula = formula.into_iter().next().filter(|it| it.start <= end);
        if let Some(range) = formula.clone().filter(|it| it.start == start) {
            return self.push(range, rule, out);
        }
        let sentence = sentence(rest);
        let is_word = |it: &str| it.len() > 1 && it.bytes().all(|it| it.is_ascii_alphabetic() || b",;".contains(&it));
        let words = sentence.split_whitespace().filter(|it| is_word(it)).count();
        let mathematical = sentence.contains(|it: char| it.is_ascii_digit() || it == '\\');
        let starts_with_word = sentence.split_whitespace().next().is_some_and(is_word);
        // Two words may be a unit; more of them, or one in front, are a story.
        let plausible = if mathematical { !starts_with_word } else { strong };
        if plausible && !sentence.is_empty() && words <= 2 {
            out.push(FoundAnswer { answer: sentence, rule });
        }
        let index = self.numbers.partition_point(|it| it.start < start);
        let number = self.numbers.get(index).cloned().filter(|it| it.start <= end);
        let mut places: Vec<_> = formula.into_iter().chain(number).collect();
        places.sort_by_key(|it| it.start);
        for range in places {
            self.push(range, rule, out);
        }
    }

    /// Without the delimiters, where the range is one formula or one box.
    fn push(&self, range: Range<usize>, rule: ExtractionRule, out: &mut Vec<FoundAnswer<'a>>) {
        let mut answer = &self.text[range];
        if let [formula] = &formulas(answer)[..]
            && formula.whole == (0..answer.len())
        {
            answer = &answer[formula.content.clone()];
        }
        answer = answer.trim();
        if let Some(last) = boxes(answer).last()
            && last.whole == (0..answer.len())
        {
            answer = answer[last.content.clone()].trim();
        }
        out.push(FoundAnswer { answer: answer.trim_end_matches('.'), rule });
    }
}

/// Ranges of the spans, several in one where only a comma, `and` or `or` parts them: together they are one list.
fn joined(text: &str, spans: &[BoxSpan]) -> Vec<Range<usize>> {
    let mut out: Vec<Range<usize>> = Vec::new();
    for span in spans {
        match out.last_mut() {
            // What closes later and starts earlier holds the other one.
            Some(last) if span.whole.start < last.end => *last = span.whole.clone(),
            Some(last) if joins(&text[last.end..span.whole.start]) => last.end = span.whole.end,
            _ => out.push(span.whole.clone()),
        }
    }
    out
}

/// Whether there is a comma, `and` or `or`, and nothing else but the delimiters of formulas.
fn joins(between: &str) -> bool {
    if between.len() > 20 {
        return false;
    }
    let words = between.replace(['$', '\\', '(', ')'], " ").replace(',', " , ");
    let mut words = words.split_whitespace().peekable();
    words.peek().is_some() && words.all(|it| matches!(it, "," | "and" | "or"))
}

/// Where a word starts that stands alone.
fn find_word(text: &str, word: &str) -> Option<usize> {
    let alone = |at: usize| {
        let before = text[..at].chars().next_back().is_some_and(char::is_whitespace);
        before && !text[at + word.len()..].starts_with(char::is_alphanumeric)
    };
    text.match_indices(word).map(|(at, _)| at).find(|at| alone(*at))
}

/// The text up to the end of the sentence, without emphasis. A full stop between digits ends nothing.
fn sentence(text: &str) -> &str {
    let line = text.split(['\n', '<']).next().unwrap_or_default();
    let end = line.find(". ").unwrap_or(line.len());
    line[..end].trim_matches(|it: char| it.is_whitespace() || "*_.,;\"".contains(it))
}

/// The formulas of a text, by where they stand. One pass: what opens within an open formula starts anew, and inline
/// formulas end with their line.
fn formulas(text: &str) -> Vec<BoxSpan> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    // How the open formula closes, and where it and its content start.
    let mut open: Option<(&[u8], usize, usize)> = None;
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let digit_after = rest.get(1).is_some_and(u8::is_ascii_digit);
        match open {
            Some((close, whole, content))
                if rest.starts_with(close) && at > content && !(close == b"$" && digit_after) =>
            {
                at += close.len();
                found.push(BoxSpan { whole: whole..at, content: content..at - close.len() });
                open = None;
                continue;
            }
            Some((b"$" | b"\\)", ..)) if rest[0] == b'\n' => open = None,
            _ => {}
        }
        let opening: Option<(&[u8], usize)> = match rest {
            [b'$', b'$', ..] => Some((b"$$", 2)),
            [b'$', ..] => Some((b"$", 1)),
            [b'\\', b'[', ..] => Some((b"\\]", 2)),
            [b'\\', b'(', ..] => Some((b"\\)", 2)),
            _ => None,
        };
        if let Some((close, length)) = opening {
            open = Some((close, at, at + length));
            at += length;
        } else if let Some(length) = open.is_none().then(|| bare_fraction(&text[at..])).flatten() {
            found.push(BoxSpan { whole: at..at + length, content: at..at + length });
            at += length;
        } else {
            // `\$` opens nothing, and neither does the second half of `\\[`.
            at += if rest[0] == b'\\' && rest.len() > 1 { 2 } else { 1 };
            at = text.ceil_char_boundary(at);
        }
    }
    found
}

/// The length of a fraction of two numbers that `text` starts with.
fn bare_fraction(text: &str) -> Option<usize> {
    let rest = text.strip_prefix("\\frac{").or_else(|| text.strip_prefix("\\dfrac{"))?;
    let number =
        |it: &str| !it.is_empty() && it.len() < 40 && it.bytes().all(|it| it.is_ascii_digit() || b".,-".contains(&it));
    let upto = |it: &str| it.bytes().take(40).position(|it| it == b'}');
    let over = upto(rest)?;
    let under = rest[over..].strip_prefix("}{")?;
    let length = upto(under)?;
    (number(&rest[..over]) && number(&under[..length])).then(|| text.len() - under.len() + length + 1)
}

/// The numbers that stand alone, with sign and percent: `-1,234.5`, `3/4`, `$18`, `7%`, but not the 2 of `x2`.
fn numbers(text: &str) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if !digit(at) && (bytes[at] != b'.' || !digit(at + 1)) {
            at += 1;
            continue;
        }
        let mut start = at;
        at += 1;
        while digit(at) || matches!(bytes.get(at), Some(b'.' | b',' | b'/')) && digit(at + 1) {
            at += 1;
        }
        if text[at..].starts_with('%') {
            at += 1;
        } else if text[at..].starts_with("\\%") {
            at += 2;
        }
        let before = |start: usize| text[..start].chars().next_back();
        // A currency and a sign, in either order.
        for _ in 0..2 {
            if let Some('$' | '€' | '£' | '¥' | '₹' | '-' | '−') = before(start) {
                start = text.floor_char_boundary(start - 1);
            }
        }
        if before(start).is_none_or(|it| it.is_whitespace() || "=*(>\":~≈".contains(it)) {
            found.push(start..at);
        }
    }
    found
}
