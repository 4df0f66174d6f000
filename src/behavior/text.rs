//! Splits a completion into sentences and marks text that shows no behavior: program text, and text copied from the prompt.

use std::collections::HashSet;
use std::ops::Range;

/// Words of a copied sequence. This many consecutive words are rarely equal by chance.
const RUN: usize = 5;
/// Share of copied words from which a passage counts as copied.
const COPIED: f64 = 0.8;
/// Share of a goal's words from which it counts as the question's own goal.
const ASKED: f64 = 0.7;

/// A completion, split once for all rules.
pub struct Text<'a> {
    pub response: &'a str,
    pub sentences: Vec<Sentence>,
    /// Fenced blocks, including their fences, in order.
    pub fences: Vec<Range<usize>>,
    /// Words of the completion, and whether they occur in the prompt in the same order.
    copied: Vec<(Range<usize>, bool)>,
    /// The stems of all words of the prompt, and of those of its question.
    given: HashSet<String>,
    asked: HashSet<String>,
}

/// A sentence, or a line that is not a sentence. Its range excludes list markers, heading marks, tags, and spaces at the ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentence {
    pub range: Range<usize>,
    /// The number of its line, from 0.
    pub line: usize,
    /// Whether it is the first of its line.
    pub first: bool,
    /// Whether the line is a list item or a heading.
    pub item: bool,
    /// The item's number, if it has one.
    pub number: Option<usize>,
}

impl<'a> Text<'a> {
    pub fn new(prompt: &str, response: &'a str) -> Self {
        let fences = fences(response);
        let sentences = sentences(response, &fences);
        let (given, asked) = (stems(prompt).collect(), stems(question_of(prompt)).collect());
        Self { response, sentences, fences, copied: copied(prompt, response), given, asked }
    }

    pub fn of(&self, sentence: &Sentence) -> &'a str {
        &self.response[sentence.range.clone()]
    }

    /// Whether nearly all words of `range` were copied from the prompt.
    pub fn is_copied(&self, range: &Range<usize>) -> bool {
        let from = self.copied.partition_point(|(word, _)| word.end <= range.start);
        let words = self.copied[from..].iter().take_while(|(word, _)| word.start < range.end);
        let (mut all, mut copied) = (0usize, 0usize);
        for (_, is_copied) in words {
            all += 1;
            copied += usize::from(*is_copied);
        }
        copied > 0 && copied as f64 >= COPIED * all as f64
    }
}

impl Text<'_> {
    /// Whether `passage` names only what the question asks for.
    pub fn is_asked(&self, passage: &str) -> bool {
        let (mut all, mut known) = (0usize, 0usize);
        for stem in stems(passage) {
            all += 1;
            known += usize::from(self.asked.contains(&stem));
        }
        all > 0 && known as f64 >= ASKED * all as f64
    }

    /// Whether `passage` is about something that is not in the prompt: half of its words are new, and so are two numbers or letters
    /// of formulas (a single one may be the answer). Without a prompt this cannot be determined.
    pub fn is_new(&self, passage: &str) -> bool {
        let is_symbol = |stem: &str| stem.len() == 1 || stem.starts_with(|c: char| c.is_ascii_digit());
        let (mut all, mut fresh, mut symbols) = (0usize, 0usize, HashSet::new());
        for stem in stems(passage) {
            all += 1;
            if !self.given.contains(&stem) {
                fresh += 1;
                symbols.extend(Some(stem).filter(|stem| is_symbol(stem)));
            }
        }
        !self.given.is_empty() && 2 * fresh >= all && symbols.len() >= 2
    }

    /// The numbers of a passage that are not in the prompt, with attached letters: `3x`.
    pub fn new_numbers(&self, passage: &str) -> impl Iterator<Item = String> {
        stems(passage).filter(|stem| stem.starts_with(|c: char| c.is_ascii_digit()) && !self.given.contains(stem))
    }

    /// Whether `range` is inside an element with this tag.
    pub fn is_within(&self, range: &Range<usize>, tag: &str) -> bool {
        let before = &self.response[..range.start];
        let open = before.rfind(&format!("<{tag}>"));
        open.is_some_and(|open| before.rfind(&format!("</{tag}>")).is_none_or(|close| close < open))
    }
}

/// The question part of a prompt: the last sentence with a question mark or a mathematical instruction, from the question word to
/// the end of the prompt.
fn question_of(prompt: &str) -> &str {
    const COMMANDS: [&str; 14] = [
        "find",
        "compute",
        "determine",
        "calculate",
        "evaluate",
        "simplify",
        "solve",
        "what",
        "how",
        "express",
        "factor",
        "prove",
        "show",
        "which",
    ];
    let mut start = 0;
    let mut asks = None;
    for line in lines(prompt) {
        let mut from = line.start;
        for end in ends(&prompt[line.clone()]).into_iter().map(|end| line.start + end) {
            let sentence = &prompt[from..end];
            let commands = |word: &Range<usize>| COMMANDS.contains(&sentence[word.clone()].to_lowercase().as_str());
            if let Some(command) = words(sentence).find(commands) {
                asks = Some(from + command.start);
            } else if sentence.contains('?') {
                asks = Some(from);
            }
            from = end;
        }
        start = line.start;
    }
    &prompt[asks.unwrap_or(start)..]
}

/// The content words of a passage, without endings.
fn stems(passage: &str) -> impl Iterator<Item = String> {
    const IDLE: [&str; 52] = [
        "the", "of", "an", "to", "in", "for", "is", "are", "be", "that", "this", "it", "we", "you", "each", "all",
        "and", "or", "by", "with", "his", "her", "their", "he", "she", "they", "can", "will", "does", "do", "did",
        "how", "many", "much", "what", "which", "number", "total", "value", "values", "there", "when", "if", "at",
        "on", "from", "as", "find", "first", "was", "has", "have",
    ];
    words(passage).filter_map(|word| {
        let word = passage[word].to_lowercase();
        if IDLE.contains(&word.as_str()) {
            return None;
        }
        let word = word.strip_suffix("'s").unwrap_or(&word);
        let stem =
            ["ing", "ed", "es", "s", "e"].iter().find_map(|end| word.strip_suffix(end).filter(|stem| stem.len() > 2));
        Some(stem.unwrap_or(word).to_owned())
    })
}

/// Fenced blocks: from a line that starts with three backquotes to the next such line, or to the end of the text.
fn fences(response: &str) -> Vec<Range<usize>> {
    let (mut fences, mut open) = (Vec::new(), None);
    for line in lines(response) {
        if response[line.clone()].trim_start().starts_with("```") {
            match open.take() {
                Some(start) => fences.push(start..line.end),
                None => open = Some(line.start),
            }
        }
    }
    fences.extend(open.map(|start| start..response.len()));
    fences
}

/// The lines of a text, without their ends.
pub fn lines(text: &str) -> impl Iterator<Item = Range<usize>> {
    text.split_inclusive('\n').scan(0, |at, line| {
        let start = *at;
        *at += line.len();
        Some(start..start + line.trim_end_matches(['\n', '\r']).len())
    })
}

fn sentences(response: &str, fences: &[Range<usize>]) -> Vec<Sentence> {
    let mut sentences = Vec::new();
    let mut fences = fences.iter().peekable();
    for (number, line) in lines(response).enumerate() {
        while fences.next_if(|fence| fence.end < line.start).is_some() {}
        if fences.peek().is_some_and(|fence| fence.contains(&line.start)) {
            continue;
        }
        let mut marker = None;
        let mut first = true;
        for piece in pieces(response, line) {
            // A tag may precede the marker of a list.
            let mut range = piece;
            if first && marker.is_none() {
                marker = Marker::read(&response[range.clone()]);
                range.start += marker.as_ref().map_or(0, |marker| marker.length);
            }
            let mut start = range.start;
            for end in ends(&response[range.clone()]).into_iter().map(|end| range.start + end) {
                let sentence = trim(response, start..end);
                start = end;
                if response[sentence.clone()].chars().any(char::is_alphanumeric) {
                    sentences.push(Sentence {
                        range: sentence,
                        line: number,
                        first,
                        item: marker.is_some(),
                        number: marker.as_ref().and_then(|marker| marker.number),
                    });
                    first = false;
                }
            }
        }
    }
    sentences
}

/// The parts of a line between its tags, such as `<think>`.
fn pieces(response: &str, line: Range<usize>) -> Vec<Range<usize>> {
    let (mut pieces, mut start) = (Vec::new(), line.start);
    let mut at = line.start;
    while let Some(found) = response[at..line.end].find('<') {
        let open = at + found;
        at = open + 1;
        let name = response[at..line.end].trim_start_matches('/');
        let length = name.bytes().take_while(|byte| byte.is_ascii_alphabetic() || *byte == b'_').count();
        if length > 0 && name[length..].starts_with('>') {
            pieces.push(start..open);
            at = line.end - name.len() + length + 1;
            start = at;
        }
    }
    pieces.push(start..line.end);
    pieces.retain(|piece| !response[piece.clone()].trim().is_empty());
    pieces
}

/// The prefix of a list item or a heading: `1.`, `2)`, `-`, `##`, `Step 3:`.
struct Marker {
    length: usize,
    number: Option<usize>,
}

impl Marker {
    fn read(line: &str) -> Option<Self> {
        let mut rest = line;
        let mut marked = false;
        let mut number = None;
        let strip = |rest: &str| rest.trim_start_matches([' ', '\t', '#', '*', '>', '_']).len();
        // A heading may contain a number, and the number may follow `Step`: `### **Step 1:** Find`.
        for _ in 0..3 {
            let before = rest;
            let bare = &rest[rest.len() - strip(rest)..];
            marked |= rest[..rest.len() - bare.len()].contains(['#', '*', '_']);
            rest = bare;
            if let Some(after) = ["- ", "• ", "– "].iter().find_map(|mark| rest.strip_prefix(mark)) {
                (rest, marked) = (after, true);
            }
            let word = rest.get(..4).filter(|word| word.eq_ignore_ascii_case("step")).map_or(0, str::len);
            let after_word = rest[word..].trim_start();
            let digits = after_word.bytes().take_while(u8::is_ascii_digit).count();
            if (1..=3).contains(&digits) {
                let mark = after_word[digits..].trim_start_matches('*');
                let mark = if word > 0 { mark.trim_start() } else { mark };
                let stops = mark.starts_with([':', ')']) || mark.starts_with('.') && !digit_at(mark, 1);
                if stops || word > 0 && (mark.is_empty() || mark.starts_with('-')) {
                    number = number.or_else(|| after_word[..digits].parse().ok());
                    rest = mark.get(1..).unwrap_or("");
                    marked = true;
                }
            }
            if rest.len() == before.len() {
                break;
            }
        }
        marked.then(|| Self { length: line.len() - rest.len(), number })
    }
}

fn digit_at(text: &str, at: usize) -> bool {
    text.as_bytes().get(at).is_some_and(u8::is_ascii_digit)
}

/// The ends of the sentences of a line: after `.`, `!` or `?` and closing quotes followed by a space, unless it belongs to an
/// abbreviation such as `e.g.` or to a factorial, and at the end of the line.
fn ends(line: &str) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut characters = line.char_indices().peekable();
    while let Some((at, c)) = characters.next() {
        if !matches!(c, '.' | '!' | '?') || c == '.' && is_shortening(&line[..at]) {
            continue;
        }
        let mut stop = at + c.len_utf8();
        while let Some((at, quote)) = characters.next_if(|(_, next)| matches!(next, '"' | '\'' | '”' | ')')) {
            stop = at + quote.len_utf8();
        }
        let rest = &line[stop..];
        // A factorial does not end a sentence: `n! is even`.
        let goes_on = c == '!' && rest.trim_start().starts_with(|next: char| !next.is_uppercase());
        if rest.starts_with(char::is_whitespace) && !goes_on {
            ends.push(stop);
        }
    }
    ends.push(line.len());
    ends
}

/// Whether the word before a full stop is an abbreviation or a single letter, as in `e.g.` and `A. Smith`.
fn is_shortening(before: &str) -> bool {
    let word = before.rsplit(|c: char| c.is_whitespace() || c == '(').next().unwrap_or("");
    let known = ["e.g", "i.e", "cf", "eq", "vs", "approx", "resp", "fig", "no", "dr", "mr", "mrs", "st"];
    known.iter().any(|known| word.eq_ignore_ascii_case(known))
}

/// Without spaces and emphasis at the ends.
fn trim(response: &str, range: Range<usize>) -> Range<usize> {
    let text = &response[range.clone()];
    let idle = |c: char| c.is_whitespace() || matches!(c, '*' | '_' | '#');
    let start = range.start + text.len() - text.trim_start_matches(idle).len();
    let end = start + response[start..range.end].trim_end_matches(idle).len();
    start..end
}

/// Every word of the completion, and whether it is in a sequence of [`RUN`] words that also occurs in the prompt.
fn copied(prompt: &str, response: &str) -> Vec<(Range<usize>, bool)> {
    let source: Vec<String> = words(prompt).map(|range| prompt[range].to_lowercase()).collect();
    let runs: HashSet<&[String]> = source.windows(RUN).collect();
    let ranges: Vec<Range<usize>> = words(response).collect();
    let own: Vec<String> = ranges.iter().map(|range| response[range.clone()].to_lowercase()).collect();
    let mut marks = vec![false; own.len()];
    for (start, run) in own.windows(RUN).enumerate() {
        if runs.contains(run) {
            marks[start..start + RUN].fill(true);
        }
    }
    ranges.into_iter().zip(marks).collect()
}

fn words(text: &str) -> impl Iterator<Item = Range<usize>> {
    let mut rest = text.char_indices().peekable();
    std::iter::from_fn(move || {
        while rest.next_if(|(_, c)| !c.is_alphanumeric()).is_some() {}
        let (start, first) = rest.next()?;
        let mut end = start + first.len_utf8();
        while let Some((at, c)) = rest.next_if(|(_, c)| c.is_alphanumeric() || *c == '\'') {
            end = at + c.len_utf8();
        }
        Some(start..end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(response: &str) -> Vec<&str> {
        let text = Text::new("", response);
        text.sentences.iter().map(|sentence| &response[sentence.range.clone()]).collect()
    }

    #[test]
    fn sentences_without_their_marks() {
        assert_eq!(
            cut("<think> It is 3.5 m, i.e. long. So what? Yes.</think> <answer> 4"),
            ["It is 3.5 m, i.e. long.", "So what?", "Yes.", "4"]
        );
        assert_eq!(
            cut("### **Step 1:** Find x\n1. **Add** them\n- a\n* b\n---\n2 + 2 = 4\n"),
            ["Find x", "Add** them", "a", "b", "2 + 2 = 4"]
        );
        assert_eq!(cut("before\n```python\nx = 1\n```\nafter\n```\nnever closed"), ["before", "after"]);
        assert_eq!(cut("2 < 3 and <b is"), ["2 < 3 and <b is"]);
    }

    #[test]
    fn items_have_their_numbers() {
        let text = Text::new("", "<plan> Step 2: a. b\n**3.** c\n4) d\n5.5 e\n- f");
        let seen: Vec<_> = text.sentences.iter().map(|it| (it.line, it.first, it.item, it.number)).collect();
        assert_eq!(
            seen,
            [
                (0, true, true, Some(2)),
                (0, false, true, Some(2)),
                (1, true, true, Some(3)),
                (2, true, true, Some(4)),
                (3, true, false, None),
                (4, true, true, None),
            ]
        );
    }

    #[test]
    fn copies_are_found_by_sequences_of_words() {
        let response = "How many apples has Ann in all? Ann has many apples, let me see.";
        let text = Text::new("Ann buys 3. How many apples has Ann, in all?", response);
        assert!(text.is_copied(&text.sentences[0].range));
        assert!(!text.is_copied(&text.sentences[1].range));
    }
}
