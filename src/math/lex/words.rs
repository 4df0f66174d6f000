//! Words that stand for signs: `percent`, `negative`, `times`, `squared`, `halves`, and the codes of currencies.

use super::Lexer;
use crate::math::token::{Literal, MathToken, Relation};

/// A word between two operands, or after one.
enum Sign {
    /// After a quantity.
    After(Vec<MathToken>),
    /// Between a quantity and a number.
    Between(MathToken),
    /// Before a number, where no quantity is; between quantities it is a subtraction.
    Before(MathToken),
}

/// Parts of a whole, and how many make it up.
const PARTS: [(&str, u64); 11] = [
    ("halves", 2),
    ("thirds", 3),
    ("fourths", 4),
    ("fifths", 5),
    ("sixths", 6),
    ("sevenths", 7),
    ("eighths", 8),
    ("ninths", 9),
    ("tenths", 10),
    ("hundredths", 100),
    ("thousandths", 1000),
];

fn sign(word: &str) -> Option<Sign> {
    let number = |number| MathToken::Number(Literal::whole(number));
    Some(match word {
        "percent" | "percents" | "percentage" | "pct" | "percent." | "pct." | "%" => {
            Sign::After(vec![MathToken::Percent])
        }
        "squared" => Sign::After(vec![MathToken::Caret, number(2)]),
        "cubed" => Sign::After(vec![MathToken::Caret, number(3)]),
        "times" => Sign::Between(MathToken::Times),
        "plus" => Sign::Between(MathToken::Plus),
        "negative" | "Negative" | "minus" | "Minus" => Sign::Before(MathToken::Minus),
        part => {
            let (_, denominator) = PARTS.into_iter().find(|(name, _)| *name == part)?;
            Sign::After(vec![MathToken::Slash, number(denominator)])
        }
    })
}

impl Lexer<'_> {
    /// Reads a word as a sign, if it is one at its position. Returns how many bytes of `rest`, the text after it, belong to it.
    pub(super) fn operation(&mut self, word: &str, rest: &str) -> Option<usize> {
        let after_number = matches!(self.out.last(), Some(MathToken::Number(_) | MathToken::Close(_)));
        let whole = rest.len();
        let rest = rest.trim_start_matches([' ', '-', '~']);
        // `per cent`, in two words.
        if word == "per" && after_number {
            let after = rest.strip_prefix("cents").or_else(|| rest.strip_prefix("cent"))?;
            if after.starts_with(|c: char| c.is_ascii_alphabetic()) {
                return None;
            }
            self.out.push(MathToken::Percent);
            return Some(whole - after.len());
        }
        let after_symbol = matches!(self.out.last(), Some(MathToken::Symbol(_)));
        // Percentage points are another measure.
        let points = rest.starts_with("point");
        // `5 squared meters` are square meters.
        let unit_next = matches!(word, "squared" | "cubed")
            && rest.starts_with(|c: char| c.is_ascii_alphabetic())
            && !rest.starts_with("is ");
        if unit_next {
            return None;
        }
        match sign(word)? {
            Sign::After(tokens) if after_number && !(points && tokens[0] == MathToken::Percent) => {
                self.out.extend(tokens)
            }
            Sign::After(tokens) if after_symbol && tokens[0] == MathToken::Caret => self.out.extend(tokens),
            Sign::Between(token) if after_number && starts_with_number(rest) => self.out.push(token),
            Sign::Before(token) if (after_number || self.at_operand()) && starts_with_number(rest) => {
                self.out.push(token)
            }
            _ => return None,
        }
        Some(0)
    }

    /// Whether an operand comes next: at the start, after a sign, or after words such as `The answer is`.
    fn at_operand(&self) -> bool {
        match self.out.last() {
            None | Some(MathToken::Comma(_) | MathToken::Relation(_) | MathToken::Open(_) | MathToken::Colon) => true,
            Some(token) => ends_with_is(token),
        }
    }

    /// `US$18`, `USD 18` and `Rs. 18`: the code of a currency in front.
    pub(super) fn currency_code(&mut self, code: &str) -> bool {
        let first = matches!(self.out.last(), None | Some(MathToken::Comma(_) | MathToken::Relation(_)));
        let operand = first || self.out.last().is_some_and(ends_with_is);
        if !operand {
            return false;
        }
        let dollars = ["\\$", "$"].iter().find_map(|it| self.rest.strip_prefix(*it));
        if let Some(after) = dollars.filter(|_| DOLLARS.contains(&code)) {
            self.rest = after;
            self.out.push(MathToken::Currency('$'));
            return true;
        }
        let rest = self.rest.strip_prefix('.').unwrap_or(self.rest).trim_start();
        let number_next = rest.starts_with(|c: char| c.is_ascii_digit());
        let Some((_, sign)) = CODES.iter().find(|(it, _)| *it == code).filter(|_| number_next) else { return false };
        self.rest = rest;
        self.out.push(MathToken::Currency(*sign));
        true
    }

    /// Whether `R` is the set of real numbers here: after `\in`, or before a set is taken away from it.
    pub(super) fn names_a_set(&self) -> bool {
        let rest = self.rest.trim_start();
        matches!(self.out.last(), Some(MathToken::Relation(Relation::In | Relation::NotIn)))
            || self.out.is_empty()
                && [
                    "\\setminus",
                    "\\backslash",
                    "\\smallsetminus",
                    "∖",
                    "\\text{ except",
                    "\\text{except",
                    "except",
                    "-\\{",
                    "- \\{",
                    "-\\left\\{",
                ]
                .iter()
                .any(|it| rest.starts_with(it))
    }
}

/// `The answer is`, before its value.
fn ends_with_is(token: &MathToken) -> bool {
    matches!(token, MathToken::Word(word) if word == "is" || word.ends_with(" is"))
}

fn starts_with_number(text: &str) -> bool {
    const COMMANDS: [&str; 8] = ["\\frac", "\\dfrac", "\\tfrac", "\\sqrt", "\\$", "\\infty", "\\pi", "infinity"];
    text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '$' | '.'))
        || COMMANDS.iter().any(|it| text.starts_with(it))
}

/// What may be written before a dollar sign.
pub(super) const DOLLARS: [&str; 9] = ["US", "A", "AU", "C", "CA", "HK", "NZ", "NT", "S"];

const CODES: [(&str, char); 9] = [
    ("USD", '$'),
    ("EUR", '€'),
    ("GBP", '£'),
    ("JPY", '¥'),
    ("CNY", '¥'),
    ("RMB", '¥'),
    ("INR", '₹'),
    ("Rs", '₹'),
    ("RS", '₹'),
];
