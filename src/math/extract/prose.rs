//! What the words around a number say about it: whether it is denied, a bound, part of a calculation, or withdrawn.

use std::ops::Range;

/// Words before a number that deny it.
const DENIALS: [&str; 15] = [
    "doubt",
    "false",
    "untrue",
    "not",
    "never",
    "neither",
    "nor",
    "cannot",
    "unlike",
    "excluding",
    "except",
    "wrong",
    "incorrect",
    "without",
    "no",
];

/// Words before a number by which the answer is not this number: bounds, ranges, multiples.
const BOUNDS: [&str; 27] = [
    "between", "than", "least", "most", "over", "under", "above", "below", "almost", "nearly", "half", "twice",
    "double", "triple", "up", "within", "either", "from", "exceeds", "exceed", "beyond", "until", "minus", "plus",
    "times", "before", "after",
];

/// Words that make another number of the one after `of`.
const FUNCTIONS: [&str; 14] = [
    "root",
    "square",
    "cube",
    "negative",
    "reciprocal",
    "inverse",
    "opposite",
    "multiple",
    "percent",
    "fraction",
    "part",
    "logarithm",
    "power",
    "third",
];

/// Words after a number that make it part of a calculation, a range or a bound.
const CONTINUATIONS: [&str; 24] = [
    "times",
    "squared",
    "cubed",
    "plus",
    "minus",
    "divided",
    "multiplied",
    "over",
    "to",
    "or",
    "more",
    "less",
    "fewer",
    "halves",
    "thirds",
    "fourths",
    "fifths",
    "sixths",
    "tenths",
    "hundredths",
    "choose",
    "factorial",
    "mod",
    "raised",
];

/// Words between a number and the word that withdraws it.
const FILLERS: [&str; 40] = [
    "wait",
    "hmm",
    "oops",
    "sorry",
    "actually",
    "but",
    "and",
    "so",
    "which",
    "that",
    "this",
    "it",
    "is",
    "was",
    "are",
    "that's",
    "it's",
    "seems",
    "must",
    "be",
    "clearly",
    "obviously",
    "the",
    "my",
    "our",
    "i",
    "think",
    "looks",
    "answer",
    "above",
    "result",
    "previous",
    "oh",
    "however",
    "though",
    "made",
    "a",
    "an",
    "would",
    "also",
];

/// Words that withdraw the answer before them.
const WITHDRAWALS: [&str; 13] = [
    "wrong",
    "incorrect",
    "mistaken",
    "mistake",
    "not",
    "false",
    "impossible",
    "cannot",
    "error",
    "scratch",
    "invalid",
    "nonsense",
    "correction",
];

/// Words that begin another clause.
const TURNS: [&str; 8] = ["but", "so", "therefore", "hence", "thus", "because", "since", "then"];

/// Words after a denial that make it one of the whole answer: `not right`, `can't be the answer`.
const DENIED: [&str; 16] = [
    "right", "correct", "possible", "true", "valid", "it", "accurate", "answer", "sense", "work", "works", "add",
    "fit", "allowed", "solution", "what",
];

/// How far the words before and after a number are looked at, in bytes.
const CONTEXT: usize = 120;

fn is_boundary(c: char) -> bool {
    matches!(c, ',' | ';' | ':' | '.' | '?' | '!' | '\n' | '—' | '。' | '，')
}

/// The word without punctuation and emphasis, in lower case.
fn plain(word: &str) -> String {
    word.trim_matches(|c: char| !c.is_alphanumeric() && c != '\'').replace('’', "'").to_lowercase()
}

fn denies(word: &str) -> bool {
    DENIALS.contains(&word) || word.ends_with("n't") || word.ends_with("n’t")
}

/// The last words of the clause before a place, the nearest first.
fn words_before(text: &str, at: usize) -> Vec<String> {
    let start = text.ceil_char_boundary(at.saturating_sub(CONTEXT));
    let before = &text[start..at];
    // A period or comma between digits does not end the clause.
    let boundary = before.char_indices().rev().find(|(place, c)| {
        let after = before[place + c.len_utf8()..].starts_with(|it: char| it.is_ascii_digit());
        is_boundary(*c) && !(matches!(c, '.' | ',') && after)
    });
    let clause = &before[boundary.map_or(0, |(place, c)| place + c.len_utf8())..];
    let mut words: Vec<String> = clause.split_whitespace().rev().map(plain).filter(|it| !it.is_empty()).collect();
    if let Some(turn) = words.iter().position(|it| TURNS.contains(&it.as_str())) {
        words.truncate(turn);
    }
    words
}

/// Whether the number at this place is denied by the words before it, in its clause: `not 33`, `rather than 33`.
pub fn is_denied(text: &str, start: usize) -> bool {
    let words = words_before(text, start);
    let nearest = |count: usize| words.iter().take(count);
    nearest(6).any(|it| denies(it) && it != "no") || is_comparison(&words)
}

/// `rather than 33`, `instead of 33`.
fn is_comparison(words: &[String]) -> bool {
    words.windows(2).take(3).any(|pair| {
        matches!(
            (pair[1].as_str(), pair[0].as_str()),
            ("rather" | "other" | "more" | "less" | "greater", "than") | ("instead", "of")
        )
    })
}

/// Whether the words between an announcement and the number deny it or make it a bound.
pub fn is_bounded(lead: &str) -> bool {
    // The last clause counts: in `not obvious, but it is 5` nothing is denied.
    let clause = lead.rsplit([',', ';', ':', '.']).next().unwrap_or_default();
    let words: Vec<String> = clause.split_whitespace().map(plain).collect();
    let from = words.iter().rposition(|it| it == "but").map_or(0, |at| at + 1);
    let anything_but =
        words.windows(2).any(|pair| matches!((&*pair[0], &*pair[1]), ("anything" | "everything", "but")));
    // `the square root of 33`
    let function = words.windows(2).last().is_some_and(|pair| FUNCTIONS.contains(&pair[0].as_str()) && pair[1] == "of");
    anything_but || function || words[from..].iter().any(|it| denies(it) || BOUNDS.contains(&it.as_str()))
}

/// Whether the number at this place is a bound or the end of a range, in its clause.
pub fn is_in_bounds(text: &str, start: usize) -> bool {
    words_before(text, start).iter().take(6).any(|it| BOUNDS.contains(&it.as_str()))
}

/// Whether an announcement such as `the answer is` is itself denied or a condition: `I don't think the answer is`, `if the
/// answer is`. `start` is the place of its word `answer`.
pub fn is_hypothetical(text: &str, start: usize) -> bool {
    let words = words_before(text, start);
    let own = |it: &String| {
        matches!(
            it.as_str(),
            "the" | "my" | "our" | "your" | "a" | "an" | "correct" | "final" | "right" | "this" | "that"
        )
    };
    let mut before = words.iter().skip_while(|it| own(it)).peekable();
    let conditional =
        before.peek().is_some_and(|it| matches!(it.as_str(), "if" | "whether" | "unless" | "suppose" | "assume"));
    conditional || before.take(3).any(|it| denies(it) && it != "no" || it == "doubt")
}

/// Whether the number that ends here is part of something larger: `33 times 2`, `33 or 34`, `33 squared`, `33 + 2`.
pub fn continues(text: &str, end: usize) -> bool {
    let rest = text[end..].trim_start_matches(['*', '_', '`', '$', ')', ']', '}']);
    let after = rest.trim_start();
    let first = after.chars().next();
    let beyond = first.map_or("", |it| &after[it.len_utf8()..]);
    let number_next = beyond.trim_start().starts_with(|c: char| c.is_ascii_digit() || c == '$');
    match first {
        Some('^') if beyond.trim_start_matches('{').starts_with("\\circ") => {}
        Some('×' | '·' | '^' | '÷' | '²' | '³' | '√') => return true,
        Some('+' | '-' | '–' | '−' | '/' | 'x' | '*') if number_next => return true,
        _ => {}
    }
    let word = plain(after.split_whitespace().next().unwrap_or_default());
    let stops = after.starts_with(is_boundary);
    if stops || !CONTINUATIONS.contains(&word.as_str()) {
        return false;
    }
    // `33 to get` is not a range, and `33 more apples` is a number of apples.
    match word.as_str() {
        "to" | "over" | "plus" | "minus" | "choose" | "mod" => {
            let rest = after[word.len()..].trim_start();
            rest.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '$' | '\\')) || rest.starts_with("the power")
        }
        "more" | "less" | "fewer" => after[word.len()..].trim_start().starts_with("than"),
        "times" => true,
        _ => true,
    }
}

/// Whether the number that begins here is the second operand of a calculation in words: `33 times 2`.
pub fn is_operand(text: &str, start: usize) -> bool {
    let before = text[..start].trim_end();
    if before.len() < start && before.ends_with(['×', '·', '÷', '+', '*', '^']) {
        return true;
    }
    let words = words_before(text, start);
    let word = |at: usize| words.get(at).map_or("", String::as_str);
    matches!(word(0), "times" | "plus" | "minus") || matches!((word(1), word(0)), ("divided" | "multiplied", "by"))
}

/// Whether the text after an answer withdraws it, and where the withdrawal ends: `33? No, ...`, `33. Wait, that is wrong.`
pub fn withdrawal(text: &str, end: usize) -> Option<Range<usize>> {
    let rest = &text[end..text.floor_char_boundary((end + CONTEXT).min(text.len()))];
    let question = rest.trim_start_matches(['*', '$', '"', '`', ')', '}']).starts_with('?');
    let mut at = 0;
    for (index, word) in rest.split_inclusive(char::is_whitespace).take(14).enumerate() {
        let (raw, word) = (word.trim_end(), plain(word));
        at += raw.len();
        let here = end..end + at;
        at += rest[at..].len() - rest[at..].trim_start().len();
        if word == "no" || word == "nope" {
            // `No, it is 34` and not `no more`.
            if raw.ends_with([',', '.', '!', ';', ':', '-']) || raw.ends_with('—') {
                return Some(here);
            }
            return None;
        }
        if WITHDRAWALS.contains(&word.as_str()) || word.ends_with("n't") {
            // `which is not a prime` denies something else.
            let certain = !matches!(word.as_str(), "not" | "cannot") && !word.ends_with("n't");
            let denied = rest[at..].split_whitespace().take(4).map(plain).any(|it| DENIED.contains(&it.as_str()));
            return (certain || denied).then_some(here);
        }
        if !word.is_empty() && !FILLERS.contains(&word.as_str()) {
            return (question && index > 0 && is_correction(rest)).then_some(here);
        }
    }
    None
}

/// Whether the text after an answer withdraws it.
pub fn withdraws(text: &str, end: usize) -> bool {
    withdrawal(text, end).is_some()
}

/// Whether another thought follows: `33? Let me check`, `33? It should be 34`.
fn is_correction(rest: &str) -> bool {
    rest.contains(|c: char| c.is_ascii_digit())
}

/// Whether the text after an answer takes it up again, so that a later number replaces it: `33. Wait, it should be 34`.
pub fn is_reconsidered(text: &str, end: usize) -> bool {
    let rest = &text[end..text.floor_char_boundary((end + 60).min(text.len()))];
    let rest = rest.trim_start_matches(|c: char| !c.is_alphabetic());
    let first = plain(rest.split_whitespace().next().unwrap_or_default());
    let second = rest.split_whitespace().nth(1).map(plain).unwrap_or_default();
    matches!(first.as_str(), "wait" | "oops" | "hmm" | "correction" | "sorry")
        || first == "actually" && matches!(second.as_str(), "it" | "the" | "no" | "it's" | "that" | "wait")
        || matches!((first.as_str(), second.as_str()), ("no" | "but", "wait") | ("on", "second") | ("let", "me"))
}
