//! Written numbers: groups of digits, decimal points, exponents of ten, repeating digits, ordinals.

use num_bigint::BigInt;

use super::{Grouping, Lexer};
use crate::math::limits::Reason;
use crate::math::token::{Bracket, Literal, MathToken};

impl<'a> Lexer<'a> {
    /// Digits, with optional group separators, a point and an exponent of ten.
    pub(super) fn number(&mut self) -> Result<(), Reason> {
        let mut digits = self.digits().to_string();
        if (1..=3).contains(&digits.len()) && !digits.starts_with('0') {
            while let Some(group) = self.group() {
                digits.push_str(group);
            }
        }
        let after_point = self.rest.strip_prefix('.').unwrap_or("");
        let decimal = after_point.starts_with(|c: char| c.is_ascii_digit());
        let mut places = 0;
        if decimal {
            self.skip(1);
            let fraction = self.digits();
            places = fraction.len() as i32;
            digits.push_str(fraction);
        }
        if decimal || repeat(after_point).is_some() {
            if !decimal {
                self.skip(1);
            }
            if self.rest.starts_with(" \\overline") {
                self.skip(1);
            }
            if let Some((period, bytes)) = repeat(self.rest).or_else(|| dots(self.rest, &digits, places as usize)) {
                self.skip(bytes);
                // `0.\overline{3}\ldots` says the same twice.
                let rest = self.rest.trim_start();
                if let Some(mark) = DOTS.iter().find(|it| rest.starts_with(**it)) {
                    self.rest = &rest[mark.len()..];
                }
                self.repeating(&digits, places as u32, &period);
                return Ok(());
            }
        }
        if self.letter_digits(&digits, decimal) {
            return Ok(());
        }
        let exponent = self.exponent()?;
        let written = digits.len();
        let digits = digits.parse().map_err(|_| "a point without digits")?;
        self.out.push(MathToken::Number(Literal { digits, last_place: exponent - places, decimal, written }));
        if !decimal && exponent == 0 {
            self.ordinal();
        }
        Ok(())
    }

    fn digits(&mut self) -> &'a str {
        let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
        let digits = &self.rest[..end];
        self.rest = &self.rest[end..];
        digits
    }

    /// The next three digits of a grouped number such as `1,234`, `1{,}234`, `1\,234` or `1 234`.
    ///
    /// `1, 234` is a list and `1 234/5` is a mixed number: both are left unchanged.
    fn group(&mut self) -> Option<&'a str> {
        const SEPARATORS: [&str; 12] =
            [",\\!", ", \\!", "{,}\\!", "{,}", "\\,", "\\ ", ",", " ", "\u{202f}", "\u{2009}", "\u{a0}", "{\\,}"];
        let separator = SEPARATORS.iter().find(|it| self.rest.starts_with(**it))?;
        if *separator == "," && (self.grouping == Grouping::Lists || self.in_brackets()) {
            return None;
        }
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

    /// Whether a comma separates the items of a tuple here: in brackets, unless its items are separated by a comma and
    /// a space.
    fn in_brackets(&self) -> bool {
        let depth = self.out.iter().fold(0, |depth, token| match token {
            MathToken::Open(Bracket::Round | Bracket::Square | Bracket::Set) => depth + 1,
            MathToken::Close(Bracket::Round | Bracket::Square | Bracket::Set) => depth - 1,
            _ => depth,
        });
        let end = self.rest.find([')', ']', '}']).unwrap_or(self.rest.len());
        depth > 0 && !self.rest[..end].contains(", ")
    }

    /// `e5` or `E-3` directly after the digits.
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

    /// `0.1\overline{6}` is the fraction 1/6.
    fn repeating(&mut self, digits: &str, places: u32, period: &str) {
        let ten = BigInt::from(10);
        // `.\overline{3}` has no digits before the period.
        let whole: BigInt = format!("0{digits}").parse().expect("only digits");
        let nines = ten.pow(period.len() as u32) - 1;
        let over = whole * &nines + period.parse::<BigInt>().expect("only digits");
        let number = |digits: BigInt| MathToken::Number(Literal { digits, last_place: 0, decimal: false, written: 1 });
        let open = MathToken::Open(Bracket::Round);
        self.out.extend([
            open,
            number(over),
            MathToken::Slash,
            number(nines * ten.pow(places)),
            MathToken::Close(Bracket::Round),
        ]);
    }

    /// `152A_{11}` has letters among its digits.
    fn letter_digits(&mut self, digits: &str, decimal: bool) -> bool {
        let end = self.rest.find(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit()).unwrap_or(self.rest.len());
        // `^6P_3` is a number of permutations.
        let script = self.out.last() == Some(&MathToken::Caret);
        if decimal || script || end == 0 || !self.rest[end..].starts_with('_') {
            return false;
        }
        self.out.push(MathToken::Digits(format!("{digits}{}", &self.rest[..end])));
        self.skip(end);
        true
    }

    /// The ending of `12th` has no meaning.
    fn ordinal(&mut self) {
        for ending in ["st", "nd", "rd", "th"] {
            for form in [
                ending.to_string(),
                format!("^{{{ending}}}"),
                format!("^{{\\text{{{ending}}}}}"),
                format!("^\\text{{{ending}}}"),
                format!("^{{\\mathrm{{{ending}}}}}"),
                format!("^{{\\textrm{{{ending}}}}}"),
                format!("\\text{{{ending}}}"),
            ] {
                let Some(after) = self.rest.strip_prefix(form.as_str()) else { continue };
                if form.ends_with('}') || !after.starts_with(|c: char| c.is_ascii_alphabetic()) {
                    self.rest = after;
                    return;
                }
            }
        }
    }
}

/// Dots after digits that continue.
const DOTS: [&str; 5] = ["\\ldots", "\\dots", "\\cdots", "...", "…"];

/// The repeating digits of `0.333…`, at least three times the same digit or twice the same few; nothing is added to
/// `digits`.
fn dots(text: &str, digits: &str, places: usize) -> Option<(String, usize)> {
    let mark = DOTS.into_iter().find(|it| text.starts_with(it))?;
    let fraction = &digits[digits.len() - places..];
    (1..=places / 2).find_map(|length| {
        let times = if length == 1 { 3 } else { 2 };
        let period = &fraction[places - length..];
        (length * times <= places && fraction.ends_with(&period.repeat(times)))
            .then(|| (period.to_string(), mark.len()))
    })
}

/// The repeating digits at this position, and the length of their mark: `\overline{12}`, `(12)`, or dots over the first
/// and the last of them, as in `\dot{1}4285\dot{7}`.
fn repeat(text: &str) -> Option<(String, usize)> {
    let mark = ["\\overline", "\\bar", "\\dot", "("].into_iter().find(|it| text.starts_with(it))?;
    let (mut period, mut length) = marked(text, mark)?;
    if mark == "\\dot" {
        let after = &text[length..];
        let between = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        match after[between..].starts_with("\\dot").then(|| marked(&after[between..], "\\dot")).flatten() {
            Some((last, bytes)) => {
                period = format!("{period}{}{last}", &after[..between]);
                length += between + bytes;
            }
            // A digit after the only dot: it is not clear what repeats.
            None if between > 0 => return None,
            None => {}
        }
    }
    (period.len() <= 100).then_some((period, length))
}

/// The digits under a mark, and the length of both.
fn marked(text: &str, mark: &str) -> Option<(String, usize)> {
    let after = &text[mark.len()..];
    let trimmed = after.trim_start();
    let (inner, close) = match trimmed.strip_prefix('{') {
        Some(inner) if mark != "(" => (inner, "}"),
        _ if mark == "(" => (after, ")"),
        // `\bar3` has one digit.
        _ => {
            let digit = trimmed.get(..1).filter(|it| it.bytes().all(|it| it.is_ascii_digit()))?;
            return Some((digit.into(), mark.len() + (after.len() - trimmed.len()) + 1));
        }
    };
    let end = inner.find(close)?;
    let digits = &inner[..end];
    let only_digits = !digits.is_empty() && digits.len() <= 100 && digits.bytes().all(|it| it.is_ascii_digit());
    only_digits.then(|| (digits.to_string(), text.len() - inner.len() + end + close.len()))
}
