//! The lenient mode: a list of rules, each tried from the end of the completion.
//!
//! The order is that of math-verify 0.9: `final answer … is` and boxes, of which the later one counts; `answer:`;
//! `####`;
//! `the answer is`; the last formula or number, again the later one. As in math-verify, the first candidate that can be
//! *read* is the answer, so if the last box contains nonsense, earlier text is tried. If nothing can be read, the first
//! candidate is the answer, and will be undecided.
//!
//! The intended differences are: the last of several boxes counts, unless only `,`, `and` or `or` is between them (a
//! box that corrects an earlier one is not joined to it); `####` is supported; words are an answer after `answer:`; a
//! dollar sign before a digit does not close a formula; and few candidates per rule are tried, so the time is linear in
//! the length.

use std::cmp::Reverse;
use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::super::lex::Grouping;
use super::super::parse::parse;
use super::{BoxSpan, boxes, prose, unboxed};

/// The rule that found an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExtractionRule {
    /// `the final answer is …`
    FinalAnswer,
    /// `\boxed{…}` or `\fbox{…}`
    Boxed,
    /// `answer: …`, and with lower priority `answer … is …`
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

/// Number of candidates tried per rule: anchors, boxes, formulas, numbers.
const TRIES: usize = 6;
/// Maximum distance of `is` from `final answer`, and of an answer from its anchor, in bytes.
const IS_WITHIN: usize = 100;
const ANSWER_WITHIN: usize = 50;

/// The answer of a completion by the first rule that gives one that can be read.
pub fn extract_lenient(response: &str) -> Option<FoundAnswer<'_>> {
    let candidates = Page::of(response).candidates();
    let readable = |it: &&FoundAnswer| parse(it.answer, Grouping::Commas).is_ok();
    candidates.iter().find(readable).or(candidates.first()).copied()
}

/// The answer of a worked solution: the content of its last box, or of the last boxes if only `,`, `and` or `or` separates
/// them, as a list. `None` without a box.
pub fn solution_answer(solution: &str) -> Option<String> {
    let spans = boxes(solution);
    let range = joined(solution, &spans).pop()?;
    let mut outermost: Vec<&BoxSpan> = Vec::new();
    for span in spans.iter().filter(|it| it.whole.start >= range.start) {
        // A box comes after those nested in it.
        outermost.retain(|it| it.whole.start < span.whole.start);
        outermost.push(span);
    }
    let content = |span: &&BoxSpan| unboxed(&solution[span.content.clone()]).trim_end_matches('.').to_owned();
    Some(outermost.iter().map(content).collect::<Vec<_>>().join(", "))
}

/// A completion and the positions of its parts.
struct Page<'a> {
    text: &'a str,
    formulas: Vec<BoxSpan>,
    /// Formulas that are a list together are one range.
    joined: Vec<Range<usize>>,
    numbers: Vec<Range<usize>>,
}

impl<'a> Page<'a> {
    fn of(text: &'a str) -> Page<'a> {
        let formulas = formulas(text);
        Page { text, joined: joined(text, &formulas), formulas, numbers: numbers(text) }
    }

    /// In the order in which they are tried.
    ///
    /// A statement that denies a number, bounds it or withdraws it ends the list: what follows the statement replaces it,
    /// and if nothing does, the words themselves are the answer, which is then undecided or wrong. Nothing before such a
    /// statement is an answer.
    fn candidates(&self) -> Vec<FoundAnswer<'a>> {
        let (mut out, ended) = self.final_answers_and_boxes();
        if ended {
            return out;
        }
        let (colons, others) = self.answers();
        let statements = [
            (colons, true, ExtractionRule::Answer),
            (self.last_places("####"), true, ExtractionRule::Hashes),
            (others, false, ExtractionRule::Answer),
        ];
        for (places, strong, rule) in statements {
            for from in places {
                if self.after(from, strong, rule, &mut out) {
                    return out;
                }
            }
        }
        for (range, rule) in self.last_formulas_and_numbers(0).into_iter().take(2 * TRIES) {
            self.push(range, rule, &mut out);
        }
        out
    }

    /// The last formulas and numbers after a place that nothing denies or withdraws, the last one first.
    fn last_formulas_and_numbers(&self, from: usize) -> Vec<(Range<usize>, ExtractionRule)> {
        let formulas = self.joined.iter().rev().take(TRIES).cloned();
        let numbers = self.numbers.iter().rev().take(TRIES).cloned();
        let mut places: Vec<_> = formulas.map(|it| (it, ExtractionRule::Environment)).collect();
        places.extend(numbers.map(|it| (it, ExtractionRule::LastNumber)));
        places.sort_by_key(|(it, _)| Reverse(it.end));
        // The same number may have been computed before it was denied.
        let mut denied: Vec<&str> = Vec::new();
        places.retain(|(range, rule)| {
            let text = &self.text[range.clone()];
            if prose::is_denied(self.text, range.start) || prose::withdrawal(self.text, range.end).is_some() {
                denied.push(text);
            }
            let part = *rule == ExtractionRule::LastNumber
                && (prose::continues(self.text, range.end) || prose::is_operand(self.text, range.start));
            range.start >= from && !part && !denied.contains(&text)
        });
        places
    }

    /// Both in one order: the last one comes first. Also whether the list ends here.
    fn final_answers_and_boxes(&self) -> (Vec<FoundAnswer<'a>>, bool) {
        let boxes = joined(self.text, &boxes(self.text));
        let mut places: Vec<(usize, Range<usize>, ExtractionRule)> = Vec::new();
        places.extend(boxes.into_iter().rev().take(TRIES).map(|it| (it.end, it, ExtractionRule::Boxed)));
        for from in self.last_places("final answer") {
            let window = &self.text[from..self.text.floor_char_boundary((from + IS_WITHIN).min(self.text.len()))];
            if let Some(at) = find_word(window, "is")
                && !prose::is_hypothetical(self.text, from - "answer".len())
            {
                let start = from + at + "is".len();
                places.push((start, start..start, ExtractionRule::FinalAnswer));
            }
        }
        // A box after `the final answer is` is the same answer; the rule for boxes has better bounds.
        places.sort_by_key(|(end, ..)| Reverse(*end));
        let mut out = Vec::new();
        for (_, range, rule) in places {
            match rule {
                ExtractionRule::FinalAnswer if self.after(range.start, true, rule, &mut out) => return (out, true),
                ExtractionRule::FinalAnswer => {}
                _ if prose::is_denied(self.text, range.start) || prose::withdrawal(self.text, range.end).is_some() => {}
                _ => self.push(range, rule, &mut out),
            }
        }
        (out, false)
    }

    /// Where `answer:` ends, and where the `is` after `answer` does; the last ones first.
    fn answers(&self) -> (Vec<usize>, Vec<usize>) {
        let (mut colons, mut others) = (Vec::new(), Vec::new());
        for from in self.last_places("answer") {
            if prose::is_hypothetical(self.text, from - "answer".len()) {
                continue;
            }
            let rest = self.text[from..].trim_start_matches(['*', ' ', '_']);
            if rest.starts_with(':') {
                colons.push(self.text.len() - rest.len() + 1);
            } else {
                let window =
                    &self.text[from..self.text.floor_char_boundary((from + ANSWER_WITHIN).min(self.text.len()))];
                others.push(from + find_word(window, "is").map_or(0, |at| at + "is".len()));
            }
        }
        (colons, others)
    }

    /// The ends of the last occurrences of `word`, ignoring case, the last one first.
    fn last_places(&self, word: &str) -> Vec<usize> {
        let windows = self.text.as_bytes().windows(word.len()).enumerate().rev();
        let places = windows.filter(|(_, it)| it.eq_ignore_ascii_case(word.as_bytes()));
        places.map(|(at, _)| at + word.len()).take(TRIES).collect()
    }

    /// What may be the answer after an anchor: a formula immediately after it, the rest of the sentence, or the first
    /// formula or number. Words alone count only after a `strong` anchor. Returns whether the list of candidates ends.
    fn after(&self, from: usize, strong: bool, rule: ExtractionRule, out: &mut Vec<FoundAnswer<'a>>) -> bool {
        let rest = self.text[from..].trim_start_matches(|it: char| it.is_whitespace() || "*_:=".contains(it));
        let start = self.text.len() - rest.len();
        let end = self.text.floor_char_boundary((start + ANSWER_WITHIN).min(self.text.len()));
        let index = self.formulas.partition_point(|it| it.whole.start < start);
        let formula = joined(self.text, &self.formulas[index..(index + TRIES).min(self.formulas.len())]);
        let formula = formula.into_iter().next().filter(|it| it.start <= end);
        let index = self.numbers.partition_point(|it| it.start < start);
        let number = self.numbers.get(index).cloned().filter(|it| it.start <= end);
        let mut places: Vec<_> = formula.clone().into_iter().chain(number).collect();
        places.sort_by_key(|it| it.start);
        let sentence = without_words_in_brackets(sentence(rest));
        if let Some(first) = places.first()
            && let Some(after) = self.spoiled(start, first)
        {
            let mut later = self.last_formulas_and_numbers(after).into_iter();
            match later.find(|(range, _)| !prose::is_in_bounds(self.text, range.start)) {
                Some((range, _)) => self.push(range, rule, out),
                None => {
                    let phrase = start..start + sentence_length(rest).max(after.saturating_sub(start));
                    let end = self.text.floor_char_boundary(phrase.end.min(self.text.len()));
                    out.push(FoundAnswer { answer: self.text[start..end].trim(), rule });
                }
            }
            return true;
        }
        if let Some(range) = formula.filter(|it| it.start == start) {
            self.push(range, rule, out);
            return false;
        }
        let is_word = |it: &str| it.len() > 1 && it.bytes().all(|it| it.is_ascii_alphabetic() || b",;".contains(&it));
        let words = sentence.split_whitespace().filter(|it| is_word(it)).count();
        let mathematical = sentence.contains(|it: char| it.is_ascii_digit() || it == '\\');
        let starts_with_word = sentence.split_whitespace().next().is_some_and(is_word);
        // Two words may be a unit; more words, or a word in front, are prose.
        let plausible = if mathematical { !starts_with_word } else { strong };
        if plausible && !sentence.is_empty() && words <= 2 {
            out.push(FoundAnswer { answer: sentence, rule });
        }
        let calculation = places.first().filter(|it| prose::continues(self.text, it.end));
        if calculation.is_some() {
            // `33 times 2`: none of its numbers alone is the answer.
            if out.is_empty() {
                out.push(FoundAnswer { answer: sentence, rule });
            }
            return true;
        }
        for range in places {
            self.push(range, rule, out);
        }
        false
    }

    /// Whether the words around the first formula or number after an announcement deny, bound or withdraw it, and where
    /// the text after that begins.
    fn spoiled(&self, start: usize, first: &Range<usize>) -> Option<usize> {
        if prose::is_bounded(&self.text[start..first.start]) {
            return Some(first.end);
        }
        if let Some(range) = prose::withdrawal(self.text, first.end) {
            return Some(range.end);
        }
        // Only if another number replaces it.
        let again = prose::is_reconsidered(self.text, first.end);
        (again && !self.last_formulas_and_numbers(first.end).is_empty()).then_some(first.end)
    }

    /// Without the delimiters, if the range is one formula or one box.
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

/// Ranges of the spans. Spans that only a comma, `and` or `or` separates are joined: together they are one list.
fn joined(text: &str, spans: &[BoxSpan]) -> Vec<Range<usize>> {
    let mut out: Vec<Range<usize>> = Vec::new();
    for span in spans {
        match out.last_mut() {
            // A span that ends later and starts earlier contains the other one.
            Some(last) if span.whole.start < last.end => *last = span.whole.clone(),
            Some(last) if joins(&text[last.end..span.whole.start]) => last.end = span.whole.end,
            _ => out.push(span.whole.clone()),
        }
    }
    out
}

/// Whether the text has a comma, `and` or `or`, and otherwise only delimiters of formulas.
fn joins(between: &str) -> bool {
    if between.len() > 30 {
        return false;
    }
    let mut words = between.to_string();
    for (from, to) in
        [("\\text", " "), ("\\quad", " "), ("\\qquad", " "), ("as well as", "and"), ("、", ","), ("，", ",")]
    {
        words = words.replace(from, to);
    }
    let words = words.replace(['$', '\\', '(', ')', '{', '}', '*', '~', '[', ']'], " ").replace([',', ';', '&'], " , ");
    let words: Vec<&str> = words.split_whitespace().collect();
    // A name may be assigned to again: `$x = \boxed{1}$ and $x = \boxed{2}$`.
    let words = match &words[..] {
        [rest @ .., name, "="] if name.len() == 1 => rest,
        all => all,
    };
    !words.is_empty() && words.iter().all(|it| matches!(*it, "," | "and" | "or" | "和" | "或"))
}

/// The start of a standalone word.
fn find_word(text: &str, word: &str) -> Option<usize> {
    let alone = |at: usize| {
        let before = text[..at].chars().next_back().is_some_and(char::is_whitespace);
        before && !text[at + word.len()..].starts_with(char::is_alphanumeric)
    };
    text.match_indices(word).map(|(at, _)| at).find(|at| alone(*at))
}

/// The text up to the end of the sentence, without emphasis. A period between digits does not end it.
fn sentence(text: &str) -> &str {
    text[..sentence_length(text)].trim_matches(|it: char| it.is_whitespace() || "*_.,;\"".contains(it))
}

/// `33` of `33 (thirty-three)`.
fn without_words_in_brackets(sentence: &str) -> &str {
    let Some((before, inside)) = sentence.split_once(" (") else { return sentence };
    let words = inside.trim_end_matches([')', '.']);
    let only_words = words.len() > 2 && words.chars().all(|it| it.is_alphabetic() || matches!(it, ' ' | '-'));
    let number = before.ends_with(|it: char| it.is_ascii_digit() || matches!(it, '%' | '}'));
    if only_words && number { before } else { sentence }
}

fn sentence_length(text: &str) -> usize {
    let line = text.split(['\n', '<']).next().unwrap_or_default();
    line.find(". ").unwrap_or(line.len())
}

/// The formulas of a text, by position. One pass: an opening delimiter within an open formula starts a new one, and
/// inline formulas end with their line.
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
            // `\$` does not open a formula, and neither does the second half of `\\[`.
            at += if rest[0] == b'\\' && rest.len() > 1 { 2 } else { 1 };
            at = text.ceil_char_boundary(at);
        }
    }
    found
}

/// The length of a fraction of two numbers at the start of `text`.
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

/// The standalone numbers, with sign and percent: `-1,234.5`, `3/4`, `$18`, `7%`, but not the 2 of `x2`.
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
        at = with_words(text, at);
        let before = |start: usize| text[..start].chars().next_back();
        // A currency and a sign, in any order.
        for _ in 0..2 {
            let Some(sign) = before(start).filter(|it| is_sign(*it)) else { break };
            start -= sign.len_utf8();
            if sign == '$' && before(start) == Some('\\') {
                start -= 1;
            }
        }
        // The period of `Rs.18` is not a decimal point.
        if text[start..].starts_with('.') && text[..start].ends_with("Rs") {
            start += 1;
            found.push(start..at);
            continue;
        }
        // `US$18`
        let code = text[..start].len() - text[..start].trim_end_matches(|it: char| it.is_ascii_uppercase()).len();
        let code_text = &text[start - code..start];
        let dollars = text[start..].starts_with(['$', '\\'])
            && matches!(code_text, "US" | "A" | "AU" | "C" | "CA" | "HK" | "NZ" | "NT" | "S")
            || matches!(code_text, "USD" | "EUR" | "GBP" | "INR" | "RMB" | "CNY" | "JPY");
        if before(if dollars { start - code } else { start }).is_none_or(may_precede) {
            found.push(with_sign_word(text, start)..at);
        }
    }
    found
}

/// A currency or a minus.
fn is_sign(c: char) -> bool {
    matches!(c, '$' | '€' | '£' | '¥' | '₹' | '₩' | '-' | '−' | '‐'..='―' | '﹣' | '－')
}

/// What may come directly before a number that is not a part of something else: white space, quotes, brackets, emphasis,
/// pictures, and letters of scripts without spaces, but no letter, digit, point or sign of a formula.
fn may_precede(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_whitespace() || "=*(>\":~[`'_".contains(c);
    }
    let unspaced = matches!(c, '\u{3040}'..='\u{30ff}' | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}');
    unspaced || !(c.is_alphanumeric() || "×·÷⋅∕⁄√∛∜±∓°∑∏∫≤≥≠<∙∗−–".contains(c))
}

/// The end of a number with the words that belong to it: `5 percent`, `5 thousand`.
fn with_words(text: &str, at: usize) -> usize {
    const WORDS: [&str; 11] = [
        "percentage",
        "percent",
        "per cent",
        "hundred",
        "thousand",
        "million",
        "billion",
        "trillion",
        "dozen",
        "万",
        "亿",
    ];
    let rest = &text[at..];
    let spaces = rest.len() - rest.trim_start_matches([' ', '-']).len();
    let word = WORDS.iter().find(|it| rest[spaces..].starts_with(**it) && spaces <= 1);
    let Some(word) = word else { return at };
    let after = &rest[spaces + word.len()..];
    let points = after.trim_start().starts_with("point");
    if after.starts_with(|c: char| c.is_ascii_alphabetic() && c != 's') || points {
        at
    } else {
        at + spaces + word.len()
    }
}

/// The start of a number with the word `negative` or `minus` before it, unless that is a subtraction.
fn with_sign_word(text: &str, start: usize) -> usize {
    let before = text[..start].trim_end();
    for word in ["negative", "minus"] {
        if let Some(rest) = before.strip_suffix(word) {
            let subtraction = rest.trim_end().ends_with(|c: char| c.is_ascii_digit() || c == ')');
            let separate = !rest.ends_with(char::is_alphanumeric);
            if separate && !subtraction {
                return rest.len();
            }
        }
    }
    start
}
