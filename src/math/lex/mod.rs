//! Converts text to tokens, without spacing, sizing commands and math delimiters.

mod command;
mod number;
mod units;
mod words;

use super::clean;
use super::function::Function;
use super::limits::Reason;
use super::token::{Bracket, Joiner, Literal, MathToken, NamedSet, Relation};
use super::unit;

/// How to read a text that has two readings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grouping {
    /// `1,234` is one number.
    Commas,
    /// `1,234` is a list of two.
    Lists,
    /// As with [`Grouping::Commas`], and letters after a number are units where they can be: `5 m/s`. A single letter
    /// needs a space before it.
    Units,
    /// Like [`Grouping::Units`], also for `5m`.
    TightUnits,
}

pub fn tokens(text: &str, grouping: Grouping) -> Result<Vec<MathToken>, Reason> {
    let text = clean::plain(text);
    let text = clean::bare(&text);
    let one_dollar = lone_dollar(text);
    let mut lexer =
        Lexer { rest: text, spaced: true, out: Vec::new(), whole: text, one_dollar, grouping, apart: Vec::new() };
    while !lexer.rest.is_empty() {
        let (at, spaced) = (lexer.out.len(), lexer.spaced);
        lexer.step()?;
        if spaced && lexer.out.len() > at {
            lexer.apart.push(at);
        }
    }
    if matches!(grouping, Grouping::Units | Grouping::TightUnits) {
        lexer.out = units::gathered(lexer.out, &lexer.apart, grouping == Grouping::TightUnits);
    }
    turn_brackets(&mut lexer.out);
    Ok(lexer.out)
}

/// Reversed brackets exclude the end of an interval: `]1, 2[` is `(1, 2)`.
fn turn_brackets(tokens: &mut [MathToken]) {
    let apart = |token: Option<&MathToken>| {
        matches!(
            token,
            None | Some(
                MathToken::Cup | MathToken::Cap | MathToken::Without | MathToken::Comma(_) | MathToken::Relation(_)
            )
        )
    };
    for at in 0..tokens.len() {
        if tokens[at] == MathToken::Close(Bracket::Square) && apart(at.checked_sub(1).map(|it| &tokens[it])) {
            tokens[at] = MathToken::Open(Bracket::Round);
        } else if tokens[at] == MathToken::Open(Bracket::Square) && apart(tokens.get(at + 1)) {
            tokens[at] = MathToken::Close(Bracket::Round);
        }
    }
}

/// An odd number of dollar signs: then one is a currency sign, and pairs do not delimit formulas.
fn lone_dollar(text: &str) -> bool {
    (text.matches('$').count() - text.matches("\\$").count()) % 2 == 1
}

struct Lexer<'a> {
    rest: &'a str,
    whole: &'a str,
    /// Whether there was space before `rest`.
    spaced: bool,
    one_dollar: bool,
    grouping: Grouping,
    out: Vec<MathToken>,
    /// The places in `out` with a space before them.
    apart: Vec<usize>,
}

impl<'a> Lexer<'a> {
    fn step(&mut self) -> Result<(), Reason> {
        let first = self.rest.chars().next().expect("the rest is not empty");
        let spaced = self.spaced;
        self.spaced = first.is_whitespace() || first == '~';
        match first {
            '~' if self.rest.starts_with("~~") => return Err("text that is struck out".into()),
            _ if self.spaced => self.skip(first.len_utf8()),
            '*' if self.is_emphasis(spaced) => self.skip(2),
            '0'..='9' => self.number()?,
            '.' if self.rest[1..].starts_with(|c: char| c.is_ascii_digit()) => self.number()?,
            '.' if ["\\overline", "\\bar", "\\dot"].iter().any(|it| self.rest[1..].starts_with(it)) => self.number()?,
            '.' if self.rest.starts_with("...") => self.push(MathToken::Symbol("\\ldots".into()), 3),
            'a'..='z' | 'A'..='Z' => self.letters(spaced)?,
            '\\' => self.command()?,
            '$' if !self.one_dollar => self.skip(1),
            '^' => self.caret(),
            '{' if self.rest.starts_with("{:}") => self.push(MathToken::Colon, 3),
            '{' if self.rest.starts_with("{=}") => self.push(MathToken::Relation(Relation::Equal), 3),
            '\'' => {
                let count = self.rest.bytes().take_while(|it| *it == b'\'').count();
                self.push(MathToken::Prime(count), count);
            }
            _ => {
                if self.raised() {
                    return Ok(());
                }
                if let Some((token, bytes)) = self.operator(spaced) {
                    self.push(token, bytes);
                    return Ok(());
                }
                if self.foreign_word() {
                    return Ok(());
                }
                let tokens = unicode(first).ok_or_else(|| format!("unexpected `{}`", first.escape_debug()))?;
                self.out.extend(tokens);
                self.skip(first.len_utf8());
            }
        }
        Ok(())
    }

    /// `**` with a space or an end on exactly one side: Markdown, and not a power.
    fn is_emphasis(&self, spaced: bool) -> bool {
        let Some(after) = self.rest.strip_prefix("**") else { return false };
        let space_after = after.is_empty() || after.starts_with(char::is_whitespace);
        let space_before = spaced || self.out.is_empty();
        space_before != space_after
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = &self.rest[bytes..];
    }

    fn push(&mut self, token: MathToken, bytes: usize) {
        self.out.push(token);
        self.skip(bytes);
    }

    /// Consumes `text` if it comes next.
    fn eat(&mut self, text: &str) -> bool {
        let found = self.rest.starts_with(text);
        if found {
            self.skip(text.len());
        }
        found
    }

    /// Superscript or subscript digits, as a power or an index.
    fn raised(&mut self) -> bool {
        for (digits, mark) in [("⁰¹²³⁴⁵⁶⁷⁸⁹", MathToken::Caret), ("₀₁₂₃₄₅₆₇₈₉", MathToken::Underscore)]
        {
            let digit = |c: char| digits.chars().position(|it| it == c);
            let negative = self.rest.starts_with('⁻') && mark == MathToken::Caret;
            let rest = if negative { &self.rest['⁻'.len_utf8()..] } else { self.rest };
            let text: String = rest.chars().map_while(digit).map(|it| char::from(b'0' + it as u8)).collect();
            let Ok(number) = text.parse::<num_bigint::BigInt>() else { continue };
            let bytes = rest.chars().take(text.len()).map(char::len_utf8).sum::<usize>();
            let written = text.len();
            self.out.extend([mark, MathToken::Open(Bracket::Group)]);
            self.out.extend(negative.then_some(MathToken::Minus));
            self.out.push(MathToken::Number(Literal { digits: number, last_place: 0, decimal: false, written }));
            self.out.push(MathToken::Close(Bracket::Group));
            self.rest = &rest[bytes..];
            return true;
        }
        false
    }

    fn caret(&mut self) {
        const DEGREES: [&str; 9] = [
            "^\\circ",
            "^{\\circ}",
            "^{\\circ }",
            "^ {\\circ}",
            "^\\degree",
            "^\\text{o}",
            "^{\\text{o}}",
            "^\\mathrm{o}",
            "^{o}",
        ];
        const PRIMES: [(&str, usize); 5] =
            [("^{\\prime\\prime}", 2), ("^{\\prime \\prime}", 2), ("^{\\prime}", 1), ("^\\prime", 1), ("^{'}", 1)];
        if let Some(sign) = DEGREES.iter().find(|it| self.rest.starts_with(**it)) {
            self.push(MathToken::Degree, sign.len());
        } else if let Some((sign, count)) = PRIMES.iter().find(|(it, _)| self.rest.starts_with(it)) {
            self.push(MathToken::Prime(*count), sign.len());
        } else {
            self.push(MathToken::Caret, 1);
        }
    }

    /// ASCII signs, some of two characters.
    fn operator(&self, spaced: bool) -> Option<(MathToken, usize)> {
        let pair = |text| self.rest.starts_with(text);
        let relation = |relation, bytes| Some((MathToken::Relation(relation), bytes));
        if pair("<=") {
            return relation(Relation::AtMost, 2);
        }
        if pair(">=") {
            return relation(Relation::AtLeast, 2);
        }
        if pair(":=") {
            return relation(Relation::Equal, 2);
        }
        if pair("==") {
            return relation(Relation::Equal, 2);
        }
        // `5!=120` is a factorial and `x != 5` is not.
        if pair("!=") && spaced {
            return relation(Relation::NotEqual, 2);
        }
        if pair("**") {
            return Some((MathToken::Caret, 2));
        }
        let token = match self.rest.as_bytes()[0] {
            b'+' if pair("+/-") => return Some((MathToken::PlusMinus, 3)),
            b'+' => MathToken::Plus,
            b'-' => MathToken::Minus,
            b'*' => MathToken::Times,
            b'/' => MathToken::Slash,
            b'_' => MathToken::Underscore,
            b'=' => MathToken::Relation(Relation::Equal),
            b'<' => MathToken::Relation(Relation::Less),
            b'>' => MathToken::Relation(Relation::Greater),
            b',' | b';' => MathToken::Comma(Joiner::Comma),
            b':' => MathToken::Colon,
            b'!' => MathToken::Bang,
            b'|' => MathToken::Bar,
            b'&' => MathToken::Cell,
            b'(' => MathToken::Open(Bracket::Round),
            b')' => MathToken::Close(Bracket::Round),
            b'[' => MathToken::Open(Bracket::Square),
            b']' => MathToken::Close(Bracket::Square),
            b'{' => MathToken::Open(Bracket::Group),
            b'}' => MathToken::Close(Bracket::Group),
            b'%' => MathToken::Percent,
            b'"' => MathToken::Prime(2),
            b'$' => MathToken::Currency('$'),
            _ => return None,
        };
        Some((token, 1))
    }

    /// A sequence of letters: words if they look like words, symbols otherwise.
    fn letters(&mut self, spaced: bool) -> Result<(), Reason> {
        let end = self.rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(self.rest.len());
        let run = &self.rest[..end];
        let alone = run.len() == self.whole.len();
        let after_quantity = match self.out.last() {
            Some(MathToken::Number(_) | MathToken::Close(_)) => true,
            Some(MathToken::Symbol(_)) => spaced,
            _ => false,
        };
        self.skip(end);
        if after_quantity && matches!(run, "am" | "pm" | "AM" | "PM" | "a" | "p" | "A" | "P") {
            let point = [".m.", ".m", ".M.", ".M"].into_iter().any(|it| run.len() == 1 && self.eat(it));
            if run.len() == 2 || point {
                self.out.push(MathToken::Word(format!("{}m", &run[..1].to_lowercase())));
                return Ok(());
            }
        }
        if run == "to"
            && matches!(self.out.last(), Some(MathToken::Number(_)))
            && self.rest.trim_start().starts_with(|c: char| c.is_ascii_digit())
        {
            self.out.push(MathToken::Colon);
            return Ok(());
        }
        let measure = after_quantity && unit::is_known(run);
        if self.numeral_of_letters(run) || self.currency_code(run) {
            return Ok(());
        }
        if run == "for" && self.condition_follows() {
            return Ok(());
        }
        if let Some(used) = self.operation(run, self.rest).filter(|_| !alone) {
            self.skip(used);
            return Ok(());
        }
        if let Some(word) = self.known(run, alone).filter(|it| !(measure && matches!(it, MathToken::Function(_)))) {
            self.out.push(word);
            return Ok(());
        }
        // `no solution` is a sentence, and not a product with a unit.
        let next = self.rest.split_whitespace().next().unwrap_or_default().trim_end_matches(['.', ',', ':']);
        let sentence = self.out.is_empty() && self.rest.starts_with(' ') && !matches!(next, "and" | "or");
        let sentence = sentence && next.len() > 2 && next.bytes().all(|it| it.is_ascii_alphabetic());
        let label = run.len() > 1 && self.rest.starts_with(':');
        let in_sentence = run.len() > 1 && matches!(self.out.last(), Some(MathToken::Word(_))) && spaced;
        if (alone && run.len() > 2)
            || (sentence && run.len() > 1)
            || (run.len() > 1 && measure)
            || (run.len() > 3 && spaced && split_function(run).is_none())
            || label
            || in_sentence
        {
            self.out.push(MathToken::Word(run.to_string()));
            return Ok(());
        }
        if let Some((name, rest)) = split_function(run) {
            self.out.push(name);
            if rest == "pi" || rest == "theta" {
                self.out.push(MathToken::Symbol(format!("\\{rest}")));
                return Ok(());
            }
            self.out.extend(rest.chars().map(|it| MathToken::Symbol(it.to_string())));
            return Ok(());
        }
        self.out.extend(run.chars().map(|it| MathToken::Symbol(it.to_string())));
        Ok(())
    }

    /// `for all x` after an answer, and `except for 2`; the word `for` has been read.
    fn condition_follows(&mut self) -> bool {
        let rest = self.rest.trim_start();
        if self.out.last() == Some(&MathToken::Except) {
            return true;
        }
        let after = ["all", "every", "any", "each"].iter().find_map(|it| rest.strip_prefix(it));
        match after.filter(|it| it.starts_with(' ') && !self.out.is_empty()) {
            Some(after) => {
                self.rest = after;
                self.out.push(MathToken::ForAll);
                true
            }
            None => false,
        }
    }

    /// Letters of other scripts after a quantity, as in `12元`, `5万` and `3米/秒`.
    fn foreign_word(&mut self) -> bool {
        let foreign = |c: char| matches!(c, '\u{3040}'..='\u{30ff}' | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}' | '\u{400}'..='\u{4ff}');
        let end = self.rest.find(|c: char| !foreign(c)).unwrap_or(self.rest.len());
        let after = matches!(
            self.out.last(),
            Some(MathToken::Number(_) | MathToken::Close(_) | MathToken::Slash | MathToken::Word(_))
        );
        if end == 0 || !after {
            return false;
        }
        let word = &self.rest[..end];
        // A number word and the unit after it.
        let scale = ["万", "亿"].iter().find(|it| word.starts_with(**it) && word.len() > it.len());
        let parts = scale.map_or(vec![word], |it| vec![&word[..it.len()], &word[it.len()..]]);
        self.out.extend(parts.into_iter().map(|it| MathToken::Word(it.to_string())));
        self.skip(end);
        true
    }

    /// `A5_{11}` has letters as digits.
    fn numeral_of_letters(&mut self, run: &str) -> bool {
        let digits =
            self.rest.find(|c: char| !c.is_ascii_digit() && !c.is_ascii_uppercase()).unwrap_or(self.rest.len());
        let numeral = digits > 0
            && self.rest[digits..].starts_with('_')
            && self.rest[..digits].contains(|c: char| c.is_ascii_digit())
            && run.bytes().all(|it| it.is_ascii_uppercase());
        if numeral {
            let token = MathToken::Digits(format!("{run}{}", &self.rest[..digits]));
            self.push(token, digits);
        }
        numeral
    }

    /// A word that is a token by itself.
    fn known(&self, run: &str, alone: bool) -> Option<MathToken> {
        Some(match run {
            "pi" => MathToken::Symbol("\\pi".into()),
            "theta" | "alpha" | "beta" | "lambda" if !alone => MathToken::Symbol(format!("\\{run}")),
            "sqrt" => MathToken::Sqrt,
            "and" => MathToken::Comma(Joiner::And),
            "or" => MathToken::Comma(Joiner::Or),
            "infinity" | "infty" | "inf" | "oo" | "Infinity" => MathToken::Symbol("\\infty".into()),
            "mod" if !alone => MathToken::Mod,
            "Pr" if !alone => MathToken::Symbol("P".into()),
            "nCr" | "comb" | "binom" if self.rest.starts_with('(') => MathToken::Symbol("C".into()),
            "nPr" | "perm" if self.rest.starts_with('(') => MathToken::Symbol("P".into()),
            "except" | "excluding" if !alone => MathToken::Except,
            "R" if self.names_a_set() => MathToken::Set(NamedSet::Reals),
            "choose" if !alone => MathToken::Choose,
            "in" if matches!(self.out.last(), Some(MathToken::Symbol(_))) && bracket_next(self.rest) => {
                MathToken::Relation(Relation::In)
            }
            "USD" if self.out.is_empty() && !alone => MathToken::Currency('$'),
            "EUR" if self.out.is_empty() && !alone => MathToken::Currency('€'),
            "union" if !alone => MathToken::Cup,
            "U" if matches!(self.out.last(), Some(MathToken::Close(_))) && bracket_next(self.rest) => MathToken::Cup,
            _ if !alone => MathToken::Function(Function::named(run)?),
            _ => return None,
        })
    }
}

fn bracket_next(rest: &str) -> bool {
    rest.trim_start().starts_with(['(', '[', '{', '\\'])
}

/// `sinx` is the sine of x.
fn split_function(run: &str) -> Option<(MathToken, &str)> {
    const NAMES: [&str; 9] = ["arcsin", "arccos", "arctan", "sin", "cos", "tan", "log", "ln", "sqrt"];
    let name = NAMES.iter().find(|name| run.starts_with(**name))?;
    let rest = &run[name.len()..];
    let token = if *name == "sqrt" { MathToken::Sqrt } else { MathToken::Function(Function::named(name)?) };
    (rest.len() <= 1 || matches!(rest, "pi" | "theta")).then_some((token, rest))
}

/// The tokens of a non-ASCII character.
fn unicode(first: char) -> Option<Vec<MathToken>> {
    let symbol = |name: &str| MathToken::Symbol(name.to_string());
    let relation = MathToken::Relation;
    let number = |number| MathToken::Number(Literal::whole(number));
    if let Some((_, over, under)) =
        [('½', 1, 2), ('⅓', 1, 3), ('⅔', 2, 3), ('¼', 1, 4), ('¾', 3, 4), ('⅛', 1, 8)].iter().find(|it| it.0 == first)
    {
        return Some(vec![MathToken::Frac, number(*over), number(*under)]);
    }
    Some(vec![match first {
        '±' => MathToken::PlusMinus,
        '∓' => MathToken::MinusPlus,
        '×' | '·' | '⋅' | '∗' | '∙' => MathToken::Times,
        '÷' | '∕' | '⁄' => MathToken::Slash,
        '、' => MathToken::Comma(Joiner::Comma),
        '⟨' | '〈' => MathToken::Open(Bracket::Angle),
        '⟩' | '〉' => MathToken::Close(Bracket::Angle),
        '⌊' => MathToken::Open(Bracket::Floor),
        '⌋' => MathToken::Close(Bracket::Floor),
        '⌈' => MathToken::Open(Bracket::Ceiling),
        '⌉' => MathToken::Close(Bracket::Ceiling),
        '≤' | '⩽' | '≦' => relation(Relation::AtMost),
        '≥' | '⩾' | '≧' => relation(Relation::AtLeast),
        '≠' => relation(Relation::NotEqual),
        '≡' | '≔' => relation(Relation::Equal),
        '∀' => MathToken::ForAll,
        '→' => MathToken::Arrow,
        '↦' => MathToken::MapsTo,
        '∑' => MathToken::Series(Function::Sum),
        '∏' => MathToken::Series(Function::Product),
        '∫' => MathToken::Series(Function::Integral),
        'Ω' => MathToken::Word("ohm".into()),
        '≈' | '≃' | '≅' => relation(Relation::About),
        '∈' => relation(Relation::In),
        '∉' => relation(Relation::NotIn),
        '∪' => MathToken::Cup,
        '∩' => MathToken::Cap,
        '∖' => MathToken::Without,
        '∅' => MathToken::Set(NamedSet::Empty),
        'ℝ' => MathToken::Set(NamedSet::Reals),
        'ℤ' => MathToken::Set(NamedSet::Integers),
        'ℕ' => MathToken::Set(NamedSet::Naturals),
        'ℚ' => MathToken::Set(NamedSet::Rationals),
        'ℂ' => MathToken::Set(NamedSet::Complex),
        '°' | '˚' | 'º' => MathToken::Degree,
        '′' | '’' | '‘' => MathToken::Prime(1),
        '″' | '”' => MathToken::Prime(2),
        '√' => MathToken::Sqrt,
        '€' | '£' | '¥' | '¢' | '₹' => MathToken::Currency(first),
        '∞' => symbol("\\infty"),
        '…' | '⋯' => symbol("\\ldots"),
        'π' => symbol("\\pi"),
        'θ' => symbol("\\theta"),
        'α' => symbol("\\alpha"),
        'β' => symbol("\\beta"),
        'γ' => symbol("\\gamma"),
        'δ' => symbol("\\delta"),
        'λ' => symbol("\\lambda"),
        'μ' => symbol("\\mu"),
        'σ' => symbol("\\sigma"),
        'φ' | 'ϕ' => symbol("\\phi"),
        'ω' => symbol("\\omega"),
        'Δ' => symbol("\\Delta"),
        'ⁿ' => return Some(vec![MathToken::Caret, symbol("n")]),
        '∛' | '∜' => {
            let index = if first == '∛' { 3 } else { 4 };
            let [open, close] = [MathToken::Open(Bracket::Square), MathToken::Close(Bracket::Square)];
            return Some(vec![MathToken::Sqrt, open, number(index), close]);
        }
        _ => return None,
    }])
}
