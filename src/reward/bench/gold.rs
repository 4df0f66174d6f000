//! How the bench itself reads a gold answer.
//!
//! The expected verdict of a case follows from how the case was made, never from the checker under test. So the bench
//! has its own reader, which accepts only unambiguous forms and calls everything else [`GoldForm::Other`].

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Zero};

#[derive(Clone, Debug, PartialEq)]
pub enum GoldForm {
    Number(Number),
    List(GoldList),
    /// A letter of a multiple-choice question, such as `C` or `\text{(C)}`.
    Choice(char),
    /// One word, such as `\text{Evelyn}`.
    Word(String),
    /// Arithmetic on numbers and one-letter symbols: it can be put in brackets as a part of a larger formula.
    Expression,
    Other,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Number {
    /// The value without the affix: 50 for `50\%`.
    pub value: BigRational,
    /// Decimal places, if it is written with a point.
    pub places: Option<usize>,
    pub affix: Affix,
}

/// What is written next to a number and is not part of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Affix {
    None,
    Percent,
    Degrees,
    Dollars,
    /// One of [`UNITS`].
    Unit(&'static str),
}

/// Comma-separated items: a tuple, an interval, a set in braces, or a bare list of numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct GoldList {
    /// `(`, `[`, `\{` or nothing.
    pub open: &'static str,
    pub close: &'static str,
    pub items: Vec<String>,
    /// Values of the items, if all of them are plain numbers.
    pub values: Option<Vec<BigRational>>,
}

/// Units without a second meaning, each with one that contradicts it.
pub const UNITS: [(&str, &str); 22] = [
    ("cm", "kg"),
    ("mm", "kg"),
    ("km", "kg"),
    ("m", "kg"),
    ("centimeters", "grams"),
    ("meters", "grams"),
    ("kilometers", "grams"),
    ("inches", "pounds"),
    ("feet", "pounds"),
    ("ft", "pounds"),
    ("yards", "pounds"),
    ("miles", "pounds"),
    ("kg", "cm"),
    ("grams", "meters"),
    ("pounds", "feet"),
    ("ounces", "feet"),
    ("seconds", "feet"),
    ("minutes", "feet"),
    ("hours", "feet"),
    ("days", "feet"),
    ("years", "feet"),
    ("cents", "dollars"),
];

impl GoldForm {
    pub fn read(text: &str) -> GoldForm {
        let text = without_dollars(text.trim());
        if let Some(number) = Number::read(text) {
            return GoldForm::Number(number);
        }
        if let Some(list) = GoldList::read(text) {
            return GoldForm::List(list);
        }
        let inner = in_text(text).unwrap_or(text).trim();
        let letter = inner.strip_prefix('(').and_then(|it| it.strip_suffix(')')).unwrap_or(inner);
        match letter.as_bytes() {
            // A single letter may be a symbol, which has the same meaning in every spelling of it below.
            [letter @ b'A'..=b'E'] => return GoldForm::Choice(char::from(*letter)),
            // One or two letters may be a product of symbols, and most lower-case words are units.
            word if inner == letter && word.len() > 3 && word.iter().all(u8::is_ascii_alphabetic) => {
                return GoldForm::Word(letter.to_owned());
            }
            _ => {}
        }
        if is_expression(text) { GoldForm::Expression } else { GoldForm::Other }
    }
}

impl Number {
    fn read(text: &str) -> Option<Number> {
        let (core, affix) = split_affix(text);
        let (value, places) = exact(core)?;
        Some(Number { value, places, affix })
    }

    pub fn is_plain(&self) -> bool {
        self.affix == Affix::None
    }

    /// The value with this number's affix, in the same notation: with a point if this number has one and the value
    /// allows it, else as an integer or a fraction.
    pub fn spell(&self, value: &BigRational) -> String {
        let decimal = self.places.and_then(|places| terminating(value).map(|needed| needed.max(places)));
        let core = match decimal {
            Some(places) => decimal_text(value, places),
            None => fraction_text(value, r"\frac"),
        };
        self.dress(&core)
    }

    /// `core` with this number's affix.
    pub fn dress(&self, core: &str) -> String {
        match &self.affix {
            Affix::None => core.to_owned(),
            Affix::Percent => format!(r"{core}\%"),
            Affix::Degrees => format!(r"{core}^\circ"),
            Affix::Dollars => format!(r"\${core}"),
            Affix::Unit(unit) => format!(r"{core}\text{{ {unit}}}"),
        }
    }
}

impl GoldList {
    fn read(text: &str) -> Option<GoldList> {
        let text = text.replace("\\left", "").replace("\\right", "").replace("\\!", "");
        let text = text.trim();
        let (open, rest) =
            ["(", "[", "\\{"].iter().find_map(|open| Some((*open, text.strip_prefix(open)?))).unwrap_or(("", text));
        let (close, inside) =
            [")", "]", "\\}"].iter().find_map(|close| Some((*close, rest.strip_suffix(close)?))).unwrap_or(("", rest));
        let alike = match open {
            "(" | "[" => [")", "]"].contains(&close),
            "\\{" => close == "\\}",
            _ => close.is_empty(),
        };
        let items: Vec<String> = top_level(inside)?.into_iter().map(|item| item.trim().to_owned()).collect();
        // `1,000` can be a number or a list.
        let grouped = items.iter().skip(1).any(|item| item.len() == 3 && item.bytes().all(|it| it.is_ascii_digit()));
        if !alike || items.len() < 2 || grouped || items.iter().any(String::is_empty) {
            return None;
        }
        let values: Option<Vec<BigRational>> = items.iter().map(|item| exact(item).map(|(value, _)| value)).collect();
        // Without brackets, commas between words and names can mean anything.
        (!open.is_empty() || values.is_some()).then_some(GoldList { open, close, items, values })
    }

    /// The same brackets around other items.
    pub fn with(&self, items: &[String]) -> String {
        format!("{}{}{}", self.open, items.join(", "), self.close)
    }

    /// A set, or a list that does not specify an order.
    pub fn is_unordered(&self) -> bool {
        self.open.is_empty() || self.open == "\\{"
    }

    /// `[0, 1)` or `(0, 1]`, which can only be an interval.
    pub fn is_half_open(&self) -> bool {
        self.items.len() == 2 && matches!((self.open, self.close), ("[", ")") | ("(", "]"))
    }
}

/// The comma-separated parts, ignoring commas inside brackets; `None` if the brackets in `text` do not match.
fn top_level(text: &str) -> Option<Vec<&str>> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0usize);
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.checked_sub(1)?,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    (depth == 0).then_some(parts)
}

/// `$x$` as `x`.
fn without_dollars(text: &str) -> &str {
    let inner = text.strip_prefix('$').and_then(|it| it.strip_suffix('$'));
    inner.filter(|it| !it.is_empty() && !it.contains('$') && !it.ends_with('\\')).map_or(text, str::trim)
}

/// `\text{x}` as `x`.
fn in_text(text: &str) -> Option<&str> {
    let inner = ["\\text{", "\\textbf{", "\\mathrm{", "\\mbox{"].iter().find_map(|open| text.strip_prefix(open))?;
    inner.strip_suffix('}').filter(|it| !it.contains(['{', '}', '\\']))
}

fn split_affix(text: &str) -> (&str, Affix) {
    if let Some(rest) = text.strip_prefix("\\$").or_else(|| text.strip_prefix('$')) {
        return (rest, Affix::Dollars);
    }
    for (end, affix) in [
        ("\\%", Affix::Percent),
        ("%", Affix::Percent),
        ("^\\circ", Affix::Degrees),
        ("^{\\circ}", Affix::Degrees),
        ("°", Affix::Degrees),
    ] {
        if let Some(rest) = text.strip_suffix(end) {
            return (rest, affix);
        }
    }
    let unit = text.find("\\text{").or_else(|| text.find("\\mbox{")).or_else(|| text.find("\\mathrm{"));
    if let Some(at) = unit
        && let Some(word) = in_text(&text[at..])
        && let Some((unit, _)) = UNITS.iter().find(|(unit, _)| *unit == word.trim())
    {
        return (text[..at].trim_end_matches(['~', ' ']).trim_end_matches("\\,"), Affix::Unit(unit));
    }
    (text, Affix::None)
}

/// The value of a number in one of its plain spellings, and its decimal places if it has a point.
pub fn exact(text: &str) -> Option<(BigRational, Option<usize>)> {
    let text = text.replace(",\\! ", ",").replace("\\!", "").replace("{,}", ",").replace('−', "-");
    let text = text.trim();
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest.trim_start()),
        None => (false, text),
    };
    let (value, places) = unsigned(text)?;
    Some((if negative { -value } else { value }, places))
}

fn unsigned(text: &str) -> Option<(BigRational, Option<usize>)> {
    if let Some(at) = ["\\frac", "\\dfrac", "\\tfrac"].iter().find_map(|name| text.find(name)) {
        let part = fraction(text[at..].trim_start_matches(['\\', 'd', 't']).strip_prefix("frac")?)?;
        return match text[..at].trim() {
            "" => Some((part, None)),
            // A mixed number, unless the fraction is improper: then the meaning is unclear.
            whole if part < BigRational::one() && !part.is_zero() => {
                Some((BigRational::from(integer(whole)?) + part, None))
            }
            _ => None,
        };
    }
    if let Some((over, under)) = text.split_once('/') {
        return Some((ratio(integer(over.trim())?, integer(under.trim())?)?, None));
    }
    match text.split_once('.') {
        Some((before, after)) if !after.is_empty() => {
            let whole = if before.is_empty() { BigInt::zero() } else { integer(before)? };
            let unit = BigInt::from(10).pow(after.len() as u32);
            Some((BigRational::new(whole * &unit + plain_digits(after)?, unit), Some(after.len())))
        }
        _ => Some((BigRational::from(integer(text)?), None)),
    }
}

/// What follows `\frac`: `{1}{2}`, `12`, `1{2}`.
fn fraction(text: &str) -> Option<BigRational> {
    let (over, rest) = argument(text.trim_start())?;
    let (under, rest) = argument(rest.trim_start())?;
    if !rest.trim().is_empty() {
        return None;
    }
    let (over, negative) = over.strip_prefix('-').map_or((over, false), |it| (it, true));
    let value = ratio(integer(over)?, integer(under)?)?;
    Some(if negative { -value } else { value })
}

fn argument(text: &str) -> Option<(&str, &str)> {
    match text.strip_prefix('{') {
        Some(rest) => rest.split_once('}').map(|(inside, rest)| (inside.trim(), rest)),
        None => text.starts_with(|it: char| it.is_ascii_digit()).then(|| text.split_at(1)),
    }
}

fn ratio(over: BigInt, under: BigInt) -> Option<BigRational> {
    (!under.is_zero()).then(|| BigRational::new(over, under))
}

/// Digits, plain or in groups of three with commas.
fn integer(text: &str) -> Option<BigInt> {
    let mut groups = text.split(',');
    let first = groups.next()?;
    let mut digits = first.to_owned();
    for group in groups {
        if group.len() != 3 || first.len() > 3 || first.starts_with('0') {
            return None;
        }
        digits.push_str(group);
    }
    plain_digits(&digits)
}

fn plain_digits(text: &str) -> Option<BigInt> {
    let plain = (1..=40).contains(&text.len()) && text.bytes().all(|it| it.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// How many decimal places the value has; `None` if there are infinitely many, or more than thirty.
pub fn terminating(value: &BigRational) -> Option<usize> {
    let ten = BigRational::from(BigInt::from(10));
    let mut scaled = value.clone();
    for places in 0..=30 {
        if scaled.is_integer() {
            return Some(places);
        }
        scaled *= &ten;
    }
    None
}

/// The value with this number of decimal places, truncated.
pub fn decimal_text(value: &BigRational, places: usize) -> String {
    let scaled = (value * BigRational::from(BigInt::from(10).pow(places as u32))).to_integer();
    let digits = format!("{:0>width$}", scaled.magnitude().to_string(), width = places + 1);
    let (whole, part) = digits.split_at(digits.len() - places);
    let sign = if *value < BigRational::zero() { "-" } else { "" };
    if places == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{part}") }
}

/// An integer unchanged, else `\frac{3}{4}` with the sign in front.
pub fn fraction_text(value: &BigRational, command: &str) -> String {
    if value.is_integer() {
        return value.to_integer().to_string();
    }
    let sign = if *value < BigRational::zero() { "-" } else { "" };
    format!("{sign}{command}{{{}}}{{{}}}", value.numer().magnitude(), value.denom())
}

/// Whether `text` consists only of numbers, one-letter symbols, the four operations, powers, roots and fractions.
fn is_expression(text: &str) -> bool {
    const COMMANDS: [&str; 9] = ["frac", "dfrac", "tfrac", "sqrt", "pi", "cdot", "times", "left", "right"];
    let mut letters_in_a_row = 0;
    let mut operands = 0;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        let symbol = c.is_ascii_alphabetic();
        letters_in_a_row = if symbol { letters_in_a_row + 1 } else { 0 };
        match c {
            '\\' => {
                let name: &str = &rest[..rest.find(|it: char| !it.is_ascii_alphabetic()).unwrap_or(rest.len())];
                if !COMMANDS.contains(&name) {
                    return false;
                }
                operands += usize::from(name == "pi");
                rest = &rest[name.len()..];
            }
            _ if symbol || c.is_ascii_digit() => operands += 1,
            '+' | '-' | '/' | '^' | '(' | ')' | '{' | '}' | ' ' | '.' => {}
            _ => return false,
        }
        if letters_in_a_row > 1 {
            return false;
        }
    }
    operands > 0 && top_level(text).is_some() && !text.trim_end().ends_with(['+', '-', '/', '^'])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numerator and denominator of a gold that is a number.
    fn number(text: &str) -> Option<(i64, i64, Affix)> {
        match GoldForm::read(text) {
            GoldForm::Number(number) => {
                let part = |part: &BigInt| i64::try_from(part).unwrap();
                Some((part(number.value.numer()), part(number.value.denom()), number.affix))
            }
            _ => None,
        }
    }

    #[test]
    fn numbers_in_their_plain_spellings() {
        for (text, over, under) in [
            ("18", 18, 1),
            ("-3", -3, 1),
            ("1,234,567", 1_234_567, 1),
            (r"10,\!000", 10_000, 1),
            (r"11,\! 111,\! 100", 11_111_100, 1),
            ("2{,}500", 2_500, 1),
            (".25", 1, 4),
            ("-1.50", -3, 2),
            (r"\frac{6}{4}", 3, 2),
            (r"-\dfrac{1}{2}", -1, 2),
            (r"\frac{-1}{2}", -1, 2),
            (r"\frac 59", 5, 9),
            (r"\frac12", 1, 2),
            ("3/4", 3, 4),
            (r"2\frac{1}{3}", 7, 3),
            ("$7$", 7, 1),
        ] {
            assert_eq!(number(text), Some((over, under, Affix::None)), "{text}");
        }
        for text in ["1,23", "12,3456", "1.2.3", "1e5", "2^3", r"3\frac{5}{2}", "1/0", "", "1011_2", "4 5"] {
            assert_eq!(number(text), None, "{text}");
        }
    }

    #[test]
    fn affixes_of_a_number_are_distinguished() {
        assert_eq!(number(r"50\%"), Some((50, 1, Affix::Percent)));
        assert_eq!(number(r"\$1,250"), Some((1_250, 1, Affix::Dollars)));
        assert_eq!(number(r"55^\circ"), Some((55, 1, Affix::Degrees)));
        assert_eq!(number(r"5.4 \text{ cents}"), Some((27, 5, Affix::Unit("cents"))));
        // Without the word the number would change.
        assert_eq!(number(r"5 \text{ million}"), None);
    }

    #[test]
    fn other_forms_are_distinguished_or_left_alone() {
        let list = |text: &str| matches!(GoldForm::read(text), GoldForm::List(_));
        assert!(list("(1,2)") && list(r"\left( \frac{3}{2}, -13 \right)") && list("1, -2") && list(r"[2,\infty)"));
        assert!(!list(r"(0,9) \cup (9,36)") && !list("x, y") && !list("100, 200") && !list("(3)"));
        assert_eq!(GoldForm::read(r"\text{(E)}"), GoldForm::Choice('E'));
        assert_eq!(GoldForm::read(r"\text{Evelyn}"), GoldForm::Word("Evelyn".into()));
        for text in [r"\frac{\sqrt{21}}{5}", r"288 \pi", "8n^2 + 4n + 1", r"2\sqrt[3]{5}", "p - q"] {
            // An index is in square brackets, which elsewhere enclose an interval.
            let expected = if text.contains('[') { GoldForm::Other } else { GoldForm::Expression };
            assert_eq!(GoldForm::read(text), expected, "{text}");
        }
        for text in [r"3 \pm 2 \sqrt{2}", "x=3", "1011_2", "ab", r"\infty", "x>2", "4!", r"\text{3 or 4}", "1+"] {
            assert_eq!(GoldForm::read(text), GoldForm::Other, "{text}");
        }
    }

    #[test]
    fn values_are_written_in_the_notation_of_the_gold_answer() {
        let spell = |like: &str, over: i64, under: i64| match GoldForm::read(like) {
            GoldForm::Number(number) => number.spell(&BigRational::new(over.into(), under.into())),
            other => panic!("{other:?}"),
        };
        assert_eq!(spell("18", 19, 1), "19");
        assert_eq!(spell("1.50", -5, 2), "-2.50");
        assert_eq!(spell("1.5", 1, 3), r"\frac{1}{3}");
        assert_eq!(spell(r"\frac{1}{2}", -1, 2), r"-\frac{1}{2}");
        assert_eq!(spell(r"\$5", 6, 1), r"\$6");
        assert_eq!(decimal_text(&BigRational::new((-2).into(), 3.into()), 3), "-0.666");
    }
}
