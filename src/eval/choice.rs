//! The option that a completion states, in the forms that models use.
//!
//! Every statement has a place in the text, and the last one counts: `**Answer: D**` after a box in the reasoning, or a box
//! after `the answer is B`. What is denied, withdrawn or a question is not a statement, and a statement of two options is one
//! of no option.

use crate::math::{self, Scope, Verdict, extract_boxed};

/// What the last statement says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// An option by its letter.
    Letter(usize),
    /// An option by its text or its value.
    Value(usize),
    /// More than one option.
    Several(String),
    /// A text that is not an option.
    Other(String),
}

/// A statement, and how it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChoiceStatement {
    pub chosen: Chosen,
    pub how: &'static str,
}

/// Words that may come between an announcement and the letter.
const LEADS: [&str; 27] = [
    "either",
    "neither",
    "between",
    "option",
    "choice",
    "letter",
    "answer",
    "alternative",
    "therefore",
    "thus",
    "hence",
    "clearly",
    "definitely",
    "likely",
    "probably",
    "indeed",
    "then",
    "simply",
    "just",
    "most",
    "the",
    "correct",
    "is",
    "be",
    "with",
    "for",
    "statement",
];
/// Words that may follow a letter without being part of a name: `A because ...`, and not `A force of ...`.
const FOLLOWERS: [&str; 30] = [
    "because",
    "since",
    "as",
    "due",
    "given",
    "which",
    "where",
    "when",
    "while",
    "based",
    "by",
    "from",
    "with",
    "is",
    "for",
    "so",
    "but",
    "if",
    "after",
    "rather",
    "instead",
    "not",
    "per",
    "according",
    "though",
    "although",
    "in",
    "right",
    "here",
    "that",
];
/// What completions write about the right option.
const RIGHT: [&str; 15] = [
    "remains",
    "is correct",
    "is right",
    "is the correct",
    "is the right",
    "is the best",
    "is the answer",
    "is the only",
    "is the most",
    "must be correct",
    "must be right",
    "is therefore correct",
    "is thus correct",
    "is true",
    "is the final",
];
/// Words that announce a choice.
const VERBS: [&str; 21] = [
    "it is",
    "it's",
    "it should be",
    "it must be",
    "leaning towards",
    "choose",
    "select",
    "pick",
    "go with",
    "going with",
    "opt for",
    "chose",
    "conclude",
    "hence",
    "therefore",
    "thus",
    "so",
    "answer with",
    "consequently",
    "i'd say",
    "settle on",
];
/// How far before a letter the words are looked at, in bytes.
const BEFORE: usize = 60;

/// The last statement of a completion about these options.
pub fn stated(response: &str, options: &[String]) -> Option<ChoiceStatement> {
    let reader = ChoiceReader { text: response, lower: response.to_ascii_lowercase(), options };
    let mut found: Vec<(usize, ChoiceStatement)> = Vec::new();
    reader.announced(&mut found);
    reader.named(&mut found);
    reader.called_right(&mut found);
    reader.boxed(&mut found);
    reader.last_line(&mut found);
    let definite = found.iter().filter(|(_, it)| !matches!(it.chosen, Chosen::Other(_))).max_by_key(|(at, _)| *at);
    definite.or_else(|| found.iter().max_by_key(|(at, _)| *at)).map(|(_, it)| it.clone())
}

struct ChoiceReader<'a> {
    text: &'a str,
    lower: String,
    options: &'a [String],
}

/// A letter that was read, as the place of its option, and the place in the text after it.
struct Letter {
    place: usize,
    end: usize,
}

impl ChoiceReader<'_> {
    /// `The answer is B`, `Answer: **B**`, `Answer:` and the letter on the next line, `the correct option is B`.
    fn announced(&self, found: &mut Vec<(usize, ChoiceStatement)>) {
        for word in ["answer", "option", "choice", "alternative", "ans"] {
            for (at, _) in self.lower.match_indices(word) {
                // `Ans: B`, and not the beginning of another word.
                if word == "ans" && !self.lower[at + word.len()..].starts_with([':', '.', ' ']) {
                    continue;
                }
                let Some(from) = self.after_announcement(at + word.len()) else { continue };
                // `option A is` is another form.
                let before = self.before(at);
                let starts = before.is_empty() || before.ends_with(['\n', '#', '.']);
                if word == "ans" && before.len() == at && before.ends_with(|c: char| c.is_alphanumeric())
                    || word != "answer" && !starts && !before.ends_with(|c: char| c.is_alphanumeric())
                {
                    continue;
                }
                if math::is_hypothetical(self.text, at) {
                    continue;
                }
                let how = "the answer line";
                match self.letter_from(from, true) {
                    Some(letter) => self.push(letter, how, found),
                    None => self.denied_then_other(from, how, found),
                }
                if word == "answer" {
                    self.value_from(from, how, found);
                }
            }
        }
        let chinese = ["答案", "故选", "应选", "选择", "选"];
        for (at, word) in chinese.iter().flat_map(|word| self.text.match_indices(word)) {
            let from = at + word.len();
            let rest = self.text[from..].trim_start_matches(['是', '为', '选', '：', ':', ' ', '*']);
            if let Some(letter) = self.letter_from(self.text.len() - rest.len(), true) {
                self.push(letter, "the answer line", found);
            }
        }
    }

    /// The text before a place, without spaces at its end.
    fn before(&self, at: usize) -> &str {
        self.lower[..at].trim_end_matches([' ', '*', '_'])
    }

    /// The place after the `is` or the colon of an announcement whose noun ends here.
    fn after_announcement(&self, end: usize) -> Option<usize> {
        let window = &self.lower[end..self.lower.floor_char_boundary((end + BEFORE).min(self.lower.len()))];
        let window = window.split(['\n', '.', '?', '!']).next().unwrap_or_default();
        let marks =
            [":", "：", " - ", " – ", " is", "=", " would be", " should be", " must be", " will be", "->", "→", "#"];
        let (at, mark) = marks.iter().filter_map(|mark| window.find(mark).map(|at| (at, mark))).min()?;
        let between = &window[..at];
        let words = between.split_whitespace().filter(|it| it.chars().any(char::is_alphanumeric)).count();
        let after = &window[at + mark.len()..];
        // ` is` is a word by itself; `answer is:` has both.
        let whole = !mark.ends_with(|c: char| c.is_ascii_alphabetic())
            || !after.starts_with(|c: char| c.is_ascii_alphanumeric());
        (words <= 6 && whole).then_some(end + at + mark.len())
    }

    /// The letter after spaces, marks and a few words; `None` if something else comes first.
    fn letter_from(&self, from: usize, lines: bool) -> Option<Letter> {
        let mut at = from;
        for _ in 0..8 {
            let rest = &self.text[at..];
            let skipped = rest.trim_start_matches(|c: char| {
                "*_`\"'“‘$({[:：=>#-–—|".contains(c) || c == ' ' || (lines && c.is_whitespace())
            });
            at += rest.len() - skipped.len();
            let command =
                ["\\text{", "\\textbf{", "\\mathrm{", "\\mathbf{", "\\boxed{", "\\fbox{", "\\(", "\\[", "\\ ", "\\,"]
                    .iter()
                    .find(|it| skipped.starts_with(**it));
            if let Some(command) = command {
                at += command.len();
                continue;
            }
            let word = word_at(&self.lower[at..]);
            if LEADS.contains(&word) && self.letter_here(at).is_none() {
                at += word.len();
                continue;
            }
            break;
        }
        self.letter_here(at)
    }

    /// A letter of an option, not a part of a word or of a sentence.
    fn letter_here(&self, at: usize) -> Option<Letter> {
        let first = self.text[at..].chars().next()?;
        let place =
            (first.to_ascii_uppercase() as usize).checked_sub('A' as usize).filter(|it| *it < self.options.len())?;
        let end = at + 1;
        let rest = &self.text[end..];
        let closed = rest.trim_start_matches(['*', '_', '`', '"', '\'', '”', '’', '$', '}', ')', ']']);
        let marked = closed.len() < rest.len();
        let next = closed.chars().next();
        let alone = match next {
            None | Some('\n' | '\r' | ',' | ';' | '!' | '?' | '<' | '—' | '。' | '，' | '、' | '|' | '\\' | '/') => {
                true
            }
            Some('.' | ':') => !closed[1..].starts_with(|c: char| c.is_ascii_alphanumeric()),
            Some('(' | '[' | '–' | '-') => false,
            Some(' ') => {
                let after = closed.trim_start();
                let word = word_at(after);
                let lower = word.to_ascii_lowercase();
                marked
                    || FOLLOWERS.contains(&lower.as_str())
                    || matches!(lower.as_str(), "or" | "and" | "nor")
                    || after.starts_with(['-', '–', '—', '(', '=', '|', '\n', '<', ':', '→'])
                    || after.is_empty()
                    || word.is_empty() && !after.starts_with(|c: char| c.is_alphanumeric() || c == '\\' || c == '$')
            }
            _ => false,
        };
        // A small letter may be an article or a variable: it has to end its line or its sentence, or have marks.
        let small = first.is_ascii_lowercase();
        let ends = marked
            || matches!(next, None | Some('\n' | '\r' | '.' | '<' | ',' | '!'))
            || word_at(closed.trim_start()) == "because"
            || word_at(closed.trim_start()) == "since";
        (alone && (!small || ends)).then_some(Letter { place, end })
    }

    /// `not A, it is B`, `not A but B`: the other letter.
    fn denied_then_other(&self, from: usize, how: &'static str, found: &mut Vec<(usize, ChoiceStatement)>) {
        let rest = self.lower[from..].trim_start();
        if word_at(rest) != "not" {
            return;
        }
        let start = self.lower.len() - rest.len();
        let sentence = rest.split(['\n']).next().unwrap_or_default();
        let sentence = &sentence[..sentence.floor_char_boundary(80.min(sentence.len()))];
        for turn in ["it is", "it's", "but rather", "but", "rather", "instead"] {
            if let Some(at) = sentence.find(turn)
                && let Some(letter) = self.letter_from(start + at + turn.len(), false)
            {
                return self.push(letter, how, found);
            }
        }
    }

    /// An option by its text or value, on the line that starts here.
    fn value_from(&self, from: usize, how: &'static str, found: &mut Vec<(usize, ChoiceStatement)>) {
        let rest = self.text[from..].trim_start_matches(|c: char| c.is_whitespace() || "*_:".contains(c));
        let line = rest.lines().next().unwrap_or_default().trim().trim_end_matches(['*', '_']);
        if line.is_empty() || line.len() > 600 || self.letter_from(from, true).is_some() {
            return;
        }
        let start = self.text.len() - rest.len();
        let chosen = match self.meant(line) {
            Chosen::Other(_) if line.trim_start().to_ascii_lowercase().starts_with("not ") => return,
            chosen => chosen,
        };
        found.push((start + line.len(), ChoiceStatement { chosen, how }));
    }

    /// `option A is correct`, `Hence option A.`, `I choose (B)`.
    fn named(&self, found: &mut Vec<(usize, ChoiceStatement)>) {
        for word in ["option", "choice", "answer", "alternative"] {
            for (at, _) in self.lower.match_indices(word) {
                let from = at + word.len();
                let rest = &self.text[from..];
                if !rest.starts_with([' ', '*', '(']) {
                    continue;
                }
                let Some(letter) = self.letter_from(from, false) else { continue };
                let after = self.lower[letter.end..].trim_start_matches([')', ']', '*', '}', '$', ' ', '.']);
                let right = RIGHT.iter().skip(1).any(|it| after.starts_with(it));
                let ended =
                    self.text[letter.end..].trim_start_matches([')', ']', '*', '}', '$', '"', '`']).chars().next();
                let ends = matches!(ended, None | Some('.' | '\n' | '!' | ',' | '<'));
                if right || (ends && self.is_chosen(at)) {
                    self.push(letter, "the option named", found);
                }
            }
        }
        for verb in VERBS {
            for (at, _) in self.lower.match_indices(verb) {
                let end = at + verb.len();
                let alone = !self.lower[..at].ends_with(|c: char| c.is_alphanumeric())
                    && self.lower[end..].starts_with([' ', ',', ':']);
                if !alone || self.is_denied(at) {
                    continue;
                }
                let rest = self.text[end..].trim_start_matches([' ', ',', ':']);
                let from = self.text.len() - rest.len();
                let Some(letter) = self.letter_from(from, false) else { continue };
                let tail = self.text[letter.end..].trim_start_matches([')', ']', '*', '}', '$', '"', '`']);
                if tail.is_empty() || tail.starts_with(['.', '\n', '!', ',', '<']) {
                    self.push(letter, "the option chosen", found);
                }
            }
        }
    }

    /// Whether the words before announce a choice, without a denial.
    fn is_chosen(&self, at: usize) -> bool {
        let start = self.lower.ceil_char_boundary(at.saturating_sub(BEFORE));
        let clause = self.lower[start..at].rsplit(['.', '\n', '?', '!']).next().unwrap_or_default();
        !self.is_denied(at) && VERBS.iter().any(|it| clause.contains(it))
    }

    /// Whether one of the few words before is a denial.
    fn is_denied(&self, at: usize) -> bool {
        let start = self.lower.ceil_char_boundary(at.saturating_sub(40));
        let clause = self.lower[start..at].rsplit(['.', '\n', '?', '!', ',', ';']).next().unwrap_or_default();
        clause.split_whitespace().any(|it| {
            matches!(it, "not" | "never" | "cannot" | "neither" | "nor" | "eliminate" | "exclude")
                || it.ends_with("n't")
        })
    }

    /// `(A) is correct`, `A is the right answer`: the letter before.
    fn called_right(&self, found: &mut Vec<(usize, ChoiceStatement)>) {
        for phrase in RIGHT {
            for (at, _) in self.lower.match_indices(phrase) {
                let before = self.text[..at].trim_end_matches([' ', '*', ')', ']', '}', '$', '"', '`', '_']);
                let Some(letter) = before.chars().next_back().filter(char::is_ascii_uppercase) else { continue };
                let rest = &before[..before.len() - 1];
                let open = rest.ends_with([' ', '(', '*', '[', '{', '$', '"', '`', '_', '\n']) || rest.is_empty();
                let place = letter as usize - 'A' as usize;
                let words = rest.trim_end_matches(['(', '*', '[', '{', '$', '"', '`', '_', ' ']).to_ascii_lowercase();
                let last = words.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '\'').next().unwrap_or_default();
                let denied = matches!(
                    last,
                    "not" | "neither" | "nor" | "or" | "and" | "if" | "whether" | "why" | "unless" | "either"
                );
                let after = self.lower[at + phrase.len()..].trim_start();
                let partly = ["only if", "if", "in part", "but"].iter().any(|it| after.starts_with(it));
                // `only A remains`, and not `A remains constant`.
                let denied = denied || phrase == "remains" && last != "only";
                if open && place < self.options.len() && !denied && !partly && self.text.is_char_boundary(before.len())
                {
                    self.push(Letter { place, end: before.len() }, "the option called right", found);
                }
            }
        }
    }

    fn boxed(&self, found: &mut Vec<(usize, ChoiceStatement)>) {
        if let math::Extracted::Answer(answer) = extract_boxed(self.text, Scope::Response, None) {
            let at = answer.as_ptr() as usize - self.text.as_ptr() as usize + answer.len();
            found.push((at, ChoiceStatement { chosen: self.read(answer), how: "the last box" }));
        }
        if let Some(element) = math::last_element(self.text, "answer") {
            let at = element.as_ptr() as usize - self.text.as_ptr() as usize + element.len();
            let inner = element.trim();
            let boxed = matches!(extract_boxed(inner, Scope::Response, None), math::Extracted::Answer(_));
            // A sentence in the element is read by the other forms.
            let chosen = self.read(inner);
            let sentence = matches!(chosen, Chosen::Other(_)) && inner.contains(' ');
            if !boxed && (!sentence || found.is_empty()) {
                found.push((at, ChoiceStatement { chosen, how: "the last answer element" }));
            }
        }
    }

    /// The last line: a letter alone, or a letter and the text of its option.
    fn last_line(&self, found: &mut Vec<(usize, ChoiceStatement)>) {
        let text = self.text.trim_end().trim_end_matches("</answer>").trim_end();
        let start = text.rfind('\n').map_or(0, |at| at + 1);
        let line = text[start..].trim_matches(|c: char| c.is_whitespace() || "*_`#>=→⇒➡".contains(c));
        let how = "the last line";
        if let Chosen::Letter(place) = self.read(line) {
            return found.push((text.len(), ChoiceStatement { chosen: Chosen::Letter(place), how }));
        }
        if let Some(place) = self.letter_with_text(line, start == 0) {
            found.push((text.len(), ChoiceStatement { chosen: Chosen::Letter(place), how }));
        } else if start == 0
            && line.len() <= 600
            && let chosen @ Chosen::Value(_) = self.meant(line)
        {
            found.push((text.len(), ChoiceStatement { chosen, how }));
        }
    }

    /// `B) its text`: the letter, if the text is that of the option, or the completion is this line.
    fn letter_with_text(&self, line: &str, whole: bool) -> Option<usize> {
        let inner = line.trim_start_matches(['(', '[', '*', '_']);
        let letter = inner.chars().next().filter(char::is_ascii_uppercase)?;
        let place = letter as usize - 'A' as usize;
        let option = self.options.get(place)?;
        let rest = inner[1..].trim_start_matches(['*', '_']);
        let text =
            rest.strip_prefix([')', ']', '.', ':'])?.trim_matches(|c: char| c.is_whitespace() || "*_".contains(c));
        let others = self.options.iter().enumerate().any(|(other, it)| other != place && means(text, it));
        (means(text, option) || whole && !text.is_empty() && !others).then_some(place)
    }

    /// The content of a box or an element.
    fn read(&self, text: &str) -> Chosen {
        let inner =
            text.trim().trim_start_matches("\\text{").trim_start_matches("\\textbf{").trim_start_matches("\\mathrm{");
        let inner =
            inner.trim_start_matches("\\mathbf{").trim_start_matches(['(', '[', '*', '$', ' ', '{', '`', '"', '_']);
        let word = word_at(inner);
        let named = ["option", "choice", "answer"].iter().any(|it| word.eq_ignore_ascii_case(it));
        let inner = if named { inner[word.len()..].trim_start_matches([':', ' ', '(', '*']) } else { inner };
        let first = inner.chars().next();
        let place = first.and_then(|it| (it.to_ascii_uppercase() as usize).checked_sub('A' as usize));
        if let Some(place) = place.filter(|it| *it < self.options.len()) {
            let rest = inner[1..].trim_start_matches(['*', '$', '`', '"', '}', '_']);
            // `A` and `A) because ...` are options; `A force of 3 N` and `A.B` are not.
            let ends = rest.trim_matches([')', ']', '.', ':', '*', '$', ' ', '}', '`', '"', '_', ',']).is_empty();
            let small = first.is_some_and(|it| it.is_ascii_lowercase());
            let marked = rest.starts_with(')') || rest.starts_with(". ") || rest.starts_with(": ");
            let meant = if small { self.meant(text) } else { Chosen::Other(String::new()) };
            match meant {
                Chosen::Value(place) => return Chosen::Value(place),
                _ if ends || (marked && !small) => return Chosen::Letter(place),
                _ => {}
            }
            let mut others = rest.split(|c: char| !c.is_ascii_alphanumeric()).filter(|it| !it.is_empty());
            if others.clone().count() > 0
                && others.all(|it| {
                    matches!(it, "or" | "and" | "text") || it.len() == 1 && it.bytes().all(|it| it.is_ascii_uppercase())
                })
            {
                return Chosen::Several(text.to_owned());
            }
        }
        self.meant(text)
    }

    /// The option with this text or value, if there is exactly one.
    fn meant(&self, text: &str) -> Chosen {
        let same: Vec<usize> = (0..self.options.len()).filter(|&place| means(text, &self.options[place])).collect();
        match same[..] {
            [place] => Chosen::Value(place),
            [] => Chosen::Other(text.to_owned()),
            _ => Chosen::Several(text.to_owned()),
        }
    }

    /// A letter as a statement, unless it is questioned or withdrawn; with another letter after it, it is several.
    fn push(&self, letter: Letter, how: &'static str, found: &mut Vec<(usize, ChoiceStatement)>) {
        let rest = &self.text[letter.end..];
        let closed = rest.trim_start_matches(['*', '_', '`', '"', ')', ']', '}', '$']);
        if closed.starts_with('?') || math::withdraws(self.text, letter.end) {
            return;
        }
        let before =
            self.lower[..letter.end.saturating_sub(1)].trim_end_matches(['(', '*', ' ', '_', '`', '"', '[', '$', '{']);
        if ["either", "between", "neither", "not"].iter().any(|it| before.ends_with(it)) {
            if before.ends_with("not") || before.ends_with("neither") {
                return;
            }
            return found.push((letter.end, ChoiceStatement { chosen: Chosen::Several(self.around(letter.end)), how }));
        }
        let several = ["or", "and", ",", "/", "&"].iter().any(|joiner| {
            let Some(after) = closed.trim_start().strip_prefix(joiner) else { return false };
            let spaced = after.starts_with([' ', '(', '*']) || *joiner == "/";
            let next = after.trim_start_matches([' ', '(', '*', '[']);
            let option = next.strip_prefix("option ").unwrap_or(next);
            let other = option.chars().next().filter(|it| ('A'..='J').contains(it));
            let alone = !option.get(1..2).is_some_and(|it| it.chars().any(char::is_alphanumeric));
            let article = option.starts_with("A ");
            // `The answer is A, B is wrong`
            let listed = *joiner != "," || {
                let after = option.get(1..).unwrap_or_default().trim_start_matches([')', '*', ']']);
                after.is_empty()
                    || after.starts_with(['.', ',', '\n', ';', '!'])
                    || [" and ", " or ", " &"].iter().any(|it| after.starts_with(it))
            };
            spaced
                && listed
                && other.is_some_and(|it| {
                    (it as usize - 'A' as usize) < self.options.len() && it as usize - 'A' as usize != letter.place
                })
                && alone
                && !article
        });
        let chosen = if several { Chosen::Several(self.around(letter.end)) } else { Chosen::Letter(letter.place) };
        found.push((letter.end, ChoiceStatement { chosen, how }));
    }

    /// A few characters around a place, for the record.
    fn around(&self, end: usize) -> String {
        let start = self.text.ceil_char_boundary(end.saturating_sub(3));
        self.text[start..self.text.floor_char_boundary((end + 20).min(self.text.len()))].trim().to_owned()
    }
}

fn word_at(text: &str) -> &str {
    &text[..text.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(text.len())]
}

/// Whether a text equals an option: the same words, or the same value.
pub fn means(text: &str, option: &str) -> bool {
    let words = |text: &str| {
        let plain: String = text.chars().filter(|c| !"$*`\"'".contains(*c)).collect();
        plain.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches('.').to_lowercase()
    };
    words(text) == words(option) || math::check(option, text) == Verdict::Correct
}
