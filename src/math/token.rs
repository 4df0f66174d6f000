//! Text to tokens: LaTeX and plain text look alike from here on.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::Zero;

use super::limits::{MAX_BITS, Meter, Reason};
use super::unit;

#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    Number(Literal),
    /// One letter, or a named constant such as `\pi`, with its backslash.
    Symbol(String),
    /// What is not mathematics: a unit, a name, a choice.
    Word(String),
    Plus,
    Minus,
    PlusMinus,
    Times,
    Slash,
    Caret,
    Underscore,
    Equals,
    /// Between the items of a list; also `and` and `or`.
    Comma,
    Frac,
    Sqrt,
    Percent,
    Degree,
    Currency(char),
    Open(Bracket),
    Close(Bracket),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bracket {
    Round,
    Square,
    /// `{…}`, which groups.
    Group,
    /// `\{…\}`, which makes a set.
    Set,
}

/// A number as it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Literal {
    pub digits: BigInt,
    /// Power of ten of the last digit: -2 in `0.25`, 3 in `7e3`.
    pub last_place: i32,
    /// Written with a point: such a number may stand for one with more digits.
    pub decimal: bool,
    /// How many digits were written, without the group separators: 2 in `07`.
    pub written: usize,
}

impl Literal {
    pub fn is_integer(&self) -> bool {
        !self.decimal && self.last_place == 0
    }

    pub fn value(&self, meter: &mut Meter) -> Result<BigRational, Reason> {
        // 10 has less than 4 bits.
        let places = self.last_place.unsigned_abs();
        if u64::from(places) * 4 > MAX_BITS {
            return Err("a number is too large".into());
        }
        let scale = BigInt::from(10).pow(places);
        if self.last_place >= 0 {
            meter.ratio(&self.digits * scale, 1.into())
        } else {
            meter.ratio(self.digits.clone(), scale)
        }
    }

    /// Digits from the first that is not zero.
    pub fn significant(&self) -> usize {
        if self.digits.is_zero() { 0 } else { self.digits.magnitude().to_string().len() }
    }
}

/// The tokens of an answer, without spacing, sizing commands and the marks of mathematics mode.
pub fn tokens(text: &str) -> Result<Vec<Token>, Reason> {
    let text = text.trim().trim_end_matches(['.', ' ']);
    let mut lexer = Lexer { rest: text, spaced: true, out: Vec::new(), whole: text, one_dollar: lone_dollar(text) };
    while !lexer.rest.is_empty() {
        lexer.step()?;
    }
    Ok(lexer.out)
}

/// An odd number of dollar signs: then one is money, and no pair marks mathematics.
fn lone_dollar(text: &str) -> bool {
    (text.matches('$').count() - text.matches("\\$").count()) % 2 == 1
}

struct Lexer<'a> {
    rest: &'a str,
    whole: &'a str,
    /// Whether space stood before `rest`.
    spaced: bool,
    one_dollar: bool,
    out: Vec<Token>,
}

impl<'a> Lexer<'a> {
    fn step(&mut self) -> Result<(), Reason> {
        let first = self.rest.chars().next().expect("the rest is not empty");
        let spaced = self.spaced;
        self.spaced = first.is_whitespace() || first == '~';
        match first {
            _ if self.spaced => self.skip(first.len_utf8()),
            '0'..='9' => self.number()?,
            '.' if self.rest[1..].starts_with(|c: char| c.is_ascii_digit()) => self.number()?,
            'a'..='z' | 'A'..='Z' => self.letters(spaced)?,
            '\\' => self.command()?,
            '$' if !self.one_dollar => self.skip(1),
            '²' => self.power("2"),
            '³' => self.power("3"),
            _ => {
                let token = punctuation(first).ok_or_else(|| format!("unexpected `{first}`"))?;
                self.push(token, first.len_utf8());
            }
        }
        Ok(())
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = &self.rest[bytes..];
    }

    fn push(&mut self, token: Token, bytes: usize) {
        self.out.push(token);
        self.skip(bytes);
    }

    fn power(&mut self, digit: &str) {
        let literal = Literal { digits: digit.parse().expect("a digit"), last_place: 0, decimal: false, written: 1 };
        self.out.push(Token::Caret);
        self.push(Token::Number(literal), '²'.len_utf8());
    }

    /// Digits, with group separators, a point and an exponent of ten where they are written.
    fn number(&mut self) -> Result<(), Reason> {
        let mut digits = self.digits();
        if (1..=3).contains(&digits.len()) && !digits.starts_with('0') {
            while let Some(group) = self.group() {
                digits.push_str(group);
            }
        }
        let mut places = 0;
        let decimal = self.rest.starts_with('.') && self.rest[1..].starts_with(|c: char| c.is_ascii_digit());
        if decimal {
            self.skip(1);
            let fraction = self.digits();
            places = fraction.len() as i32;
            digits.push_str(&fraction);
        }
        let exponent = self.exponent()?;
        let written = digits.len();
        let digits = digits.parse().expect("only digits");
        self.out.push(Token::Number(Literal { digits, last_place: exponent - places, decimal, written }));
        Ok(())
    }

    fn digits(&mut self) -> String {
        let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
        let digits = self.rest[..end].to_string();
        self.skip(end);
        digits
    }

    /// The next three digits of a grouped number such as `1,234`, `1{,}234`, `1\,234` or `1 234`.
    ///
    /// `1, 234` is a list and `1 234/5` is a mixed number: both are left alone.
    fn group(&mut self) -> Option<&'a str> {
        const SEPARATORS: [&str; 8] = [",\\!", "{,}\\!", "{,}", "\\,", "\\ ", ",", " ", "\u{202f}"];
        let separator = SEPARATORS.iter().find(|it| self.rest.starts_with(**it))?;
        let mut after = &self.rest[separator.len()..];
        if separator.ends_with("\\!") {
            after = after.trim_start();
        }
        let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        let fraction = after[digits..].trim_start().starts_with('/');
        if digits != 3 || (*separator == " " && fraction) {
            return None;
        }
        self.rest = &after[3..];
        Some(&after[..3])
    }

    /// `e5` or `E-3` right after the digits.
    fn exponent(&mut self) -> Result<i32, Reason> {
        let Some(after) = self.rest.strip_prefix(['e', 'E']) else { return Ok(0) };
        let (negative, after) = match after.strip_prefix(['-', '+']) {
            Some(unsigned) => (after.starts_with('-'), unsigned),
            None => (false, after),
        };
        if !after.starts_with(|c: char| c.is_ascii_digit()) {
            return Ok(0);
        }
        self.rest = after;
        let size: i32 = self.digits().parse().ok().filter(|size| *size <= 100_000).ok_or("a number is too large")?;
        Ok(if negative { -size } else { size })
    }

    /// A run of letters: words where they look like words, symbols otherwise.
    fn letters(&mut self, spaced: bool) -> Result<(), Reason> {
        let end = self.rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(self.rest.len());
        let run = &self.rest[..end];
        let alone = run.len() == self.whole.len();
        let after_quantity = match self.out.last() {
            Some(Token::Number(_) | Token::Close(_)) => true,
            Some(Token::Symbol(_)) => spaced,
            _ => false,
        };
        self.skip(end);
        // `no solution` is a sentence, and not a product with a unit.
        let next = self.rest.split_whitespace().next().unwrap_or_default();
        let sentence = self.out.is_empty() && self.rest.starts_with(' ') && !matches!(next, "and" | "or");
        let sentence = sentence && next.len() > 2 && next.bytes().all(|it| it.is_ascii_alphabetic());
        match run {
            "pi" => self.out.push(Token::Symbol("\\pi".into())),
            "sqrt" => self.out.push(Token::Sqrt),
            "and" | "or" => self.out.push(Token::Comma),
            "percent" => self.out.push(Token::Percent),
            "sin" | "cos" | "tan" | "cot" | "sec" | "csc" | "log" | "ln" | "exp" | "lim" | "max" | "min" | "gcd"
            | "lcm"
                if !alone =>
            {
                return Err(format!("the function `{run}` is not supported"));
            }
            _ if (alone && run.len() > 2)
                || (sentence && run.len() > 1)
                || (run.len() > 1 && after_quantity && unit::is_known(run))
                || (run.len() > 3 && spaced) =>
            {
                self.out.push(Token::Word(run.to_string()));
            }
            _ => self.out.extend(run.chars().map(|it| Token::Symbol(it.to_string()))),
        }
        Ok(())
    }

    fn command(&mut self) -> Result<(), Reason> {
        let after = &self.rest[1..];
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        // A command is a run of letters or one other character.
        let length = if letters > 0 { letters } else { after.chars().next().map_or(0, char::len_utf8) };
        let name = &after[..length];
        self.skip(1 + length);
        self.spaced = letters == 0;
        let token = match name {
            "left" | "right" | "big" | "Big" | "bigl" | "bigr" | "Bigl" | "Bigr" | "displaystyle" | "textstyle"
            | "quad" | "qquad" | "boxed" | "fbox" | "," | ";" | ":" | "!" | " " | "(" | ")" | "[" | "]" => {
                return Ok(());
            }
            "text" | "textbf" | "textit" | "textrm" | "textnormal" | "mbox" | "mathrm" | "mathbf" | "mathit"
            | "operatorname" | "rm" => {
                return self.text(name);
            }
            "frac" | "dfrac" | "tfrac" | "cfrac" => Token::Frac,
            "sqrt" => Token::Sqrt,
            "cdot" | "times" | "ast" => Token::Times,
            "div" => Token::Slash,
            "pm" => Token::PlusMinus,
            "%" => Token::Percent,
            "$" => Token::Currency('$'),
            "circ" | "degree" => Token::Degree,
            "{" | "lbrace" => Token::Open(Bracket::Set),
            "}" | "rbrace" => Token::Close(Bracket::Set),
            "lbrack" => Token::Open(Bracket::Square),
            "rbrack" => Token::Close(Bracket::Square),
            _ if SYMBOLS.contains(&name) => Token::Symbol(format!("\\{name}")),
            _ => return Err(format!("unknown command `\\{name}`")),
        };
        self.out.push(token);
        Ok(())
    }

    /// The group of `\text{…}`: a word, unless there is mathematics in it.
    fn text(&mut self, command: &str) -> Result<(), Reason> {
        let group = self.rest.trim_start();
        let Some(content) = group.strip_prefix('{') else {
            // `\rm cm` switches the font and has no group.
            return if command == "rm" { Ok(()) } else { Err(format!("`\\{command}` without braces")) };
        };
        let end = content.find(['{', '}']).filter(|at| content[*at..].starts_with('}'));
        let end = end.ok_or_else(|| format!("cannot read `\\{command}`"))?;
        let word = content[..end].trim_matches(|c: char| c.is_whitespace() || c == '~');
        self.rest = &content[end + 1..];
        self.spaced = true;
        match word {
            "" => {}
            "and" | "or" | "," | ", and" | ", or" => self.out.push(Token::Comma),
            "percent" => self.out.push(Token::Percent),
            // In these fonts a lone letter is a constant or a vector more often than a unit.
            "e" | "i" => self.out.push(Token::Symbol(word.to_string())),
            _ if word.len() == 1 && command != "mathrm" && command.starts_with("math") => {
                self.out.push(Token::Symbol(word.to_string()));
            }
            // `5 cm` is a quantity, `cm^2` is a unit.
            _ if word.contains(|c: char| c.is_ascii_digit()) && !word.starts_with(|c: char| c.is_alphabetic()) => {
                self.out.extend(tokens(word)?);
            }
            _ => self.out.push(Token::Word(word.to_string())),
        }
        Ok(())
    }
}

fn punctuation(first: char) -> Option<Token> {
    Some(match first {
        '+' => Token::Plus,
        '-' | '−' | '–' => Token::Minus,
        '±' => Token::PlusMinus,
        '*' | '×' | '·' | '⋅' => Token::Times,
        '/' | '÷' => Token::Slash,
        '^' => Token::Caret,
        '_' => Token::Underscore,
        '=' => Token::Equals,
        ',' | ';' => Token::Comma,
        '(' => Token::Open(Bracket::Round),
        ')' => Token::Close(Bracket::Round),
        '[' => Token::Open(Bracket::Square),
        ']' => Token::Close(Bracket::Square),
        '{' => Token::Open(Bracket::Group),
        '}' => Token::Close(Bracket::Group),
        '%' => Token::Percent,
        '°' => Token::Degree,
        '√' => Token::Sqrt,
        '$' | '€' | '£' | '¥' => Token::Currency(first),
        'π' => Token::Symbol("\\pi".into()),
        'θ' => Token::Symbol("\\theta".into()),
        '∞' => Token::Symbol("\\infty".into()),
        _ => return None,
    })
}

/// Commands that stand for a quantity.
const SYMBOLS: [&str; 28] = [
    "pi",
    "theta",
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "varepsilon",
    "lambda",
    "mu",
    "nu",
    "rho",
    "sigma",
    "tau",
    "phi",
    "varphi",
    "omega",
    "psi",
    "xi",
    "eta",
    "zeta",
    "kappa",
    "chi",
    "ell",
    "Delta",
    "Omega",
    "Gamma",
    "infty",
];
