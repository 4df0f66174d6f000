//! Converts tokens to the tree of an answer: lists, chains of relations, sides with their units, and words.
//!
//! Expressions are parsed by binding power ([`expr`], a Pratt parser), the contents of brackets in [`bracket`].

mod bracket;
mod condition;
mod expr;
mod notation;

use super::lex::{Grouping, tokens};
use super::limits::{MAX_BYTES, MAX_NESTING, Reason};
use super::token::{Bracket, Environment, Joiner, MathToken, NamedSet, Relation};
use super::tree::{Chain, Expr, Operator, ParsedAnswer, Side};
use super::unit;

pub fn parse(text: &str, grouping: Grouping) -> Result<ParsedAnswer, Reason> {
    if text.len() > MAX_BYTES {
        return Err(format!("longer than {MAX_BYTES} bytes"));
    }
    let mut tokens = tokens(text, grouping)?;
    // `Thus, x = 3`
    if let [MathToken::Word(word), MathToken::Comma(Joiner::Comma), _, ..] = &tokens[..]
        && matches!(
            word.to_lowercase().as_str(),
            "thus" | "so" | "hence" | "therefore" | "then" | "finally" | "in conclusion"
        )
    {
        tokens.drain(..2);
    }
    // `f: x \mapsto 2x`
    if let Some(at) = tokens.iter().position(|it| *it == MathToken::MapsTo)
        && matches!(
            &tokens[..at],
            [MathToken::Symbol(_)] | [MathToken::Symbol(_), MathToken::Colon, MathToken::Symbol(_)]
        )
    {
        tokens.drain(..=at);
    }
    let condition = condition::taken(&mut tokens);
    let mut parser =
        Parser { tokens, at: 0, depth: 0, bars: 0, angle: false, head: false, currency: None, degrees: false };
    if parser.tokens.is_empty() || parser.tokens == [MathToken::Symbol("\\ldots".into())] {
        return Err("empty".into());
    }
    let answer = parser.answer()?;
    match parser.peek() {
        None => Ok(ParsedAnswer { condition, ..answer }),
        Some(token) => Err(unexpected(token)),
    }
}

/// `The answer is`, before the answer; every word of it is listed, so that `The answer is not` is none of these.
fn is_lead_in(text: &str) -> bool {
    const WORDS: [&str; 44] = [
        "so",
        "thus",
        "therefore",
        "hence",
        "then",
        "finally",
        "the",
        "our",
        "my",
        "final",
        "correct",
        "required",
        "desired",
        "answer",
        "result",
        "solution",
        "value",
        "total",
        "number",
        "sum",
        "product",
        "probability",
        "area",
        "volume",
        "length",
        "it",
        "that",
        "this",
        "which",
        "we",
        "i",
        "there",
        "is",
        "are",
        "equal",
        "to",
        "will",
        "would",
        "must",
        "should",
        "be",
        "of",
        "expression",
        "simply",
    ];
    const LAST: [&str; 11] =
        ["is", "are", "equals", "be", "get", "have", "find", "obtain", "gives", "yields", "exactly"];
    let text = text.to_lowercase();
    let words: Vec<&str> = text.split([' ', ',']).filter(|it| !it.is_empty()).collect();
    let Some((last, rest)) = words.split_last() else { return false };
    let ends = LAST.contains(last) || text.ends_with("equal to");
    ends && rest.iter().all(|it| WORDS.contains(it))
}

/// A few words that name something. `Simplify this expression:` does not: the question is repeated after it.
fn is_label(side: &Side) -> bool {
    const INSTRUCTIONS: [&str; 14] = [
        "calculate",
        "completely",
        "compute",
        "convert",
        "determine",
        "evaluate",
        "expand",
        "express",
        "factor",
        "find",
        "rationalize",
        "simplify",
        "solve",
        "write",
    ];
    const MOST_WORDS: usize = 3;
    let Expr::Text(text) = &side.expr else { return false };
    let first = text.split(' ').next().unwrap_or_default();
    text.split(' ').count() <= MOST_WORDS && !INSTRUCTIONS.contains(&first)
}

/// A name for the tokens of a label; different labels are different names.
fn label_text(tokens: &[MathToken]) -> String {
    let bar = |token: &MathToken| if *token == MathToken::Such { MathToken::Bar } else { token.clone() };
    format!("{:?}", tokens.iter().map(bar).collect::<Vec<_>>())
}

/// `The final answer is`, before a colon.
fn is_announcement(side: &Side) -> bool {
    matches!(&side.expr, Expr::Text(text) if is_lead_in(text))
}

struct Parser {
    tokens: Vec<MathToken>,
    at: usize,
    depth: usize,
    /// Open bars: the next one closes.
    bars: usize,
    /// Inside the argument of a sine: degrees are part of the expression, and not a unit.
    angle: bool,
    /// Before the condition of a set: a colon ends it.
    head: bool,
    /// A currency sign that was read inside the expression of the current side.
    currency: Option<char>,
    /// A degree sign that was read inside the expression of the current side.
    degrees: bool,
}

impl Parser {
    fn answer(&mut self) -> Result<ParsedAnswer, Reason> {
        let mut items = Vec::new();
        let mut joiner = None;
        loop {
            self.item(&mut items)?;
            let Some(MathToken::Comma(sign)) = self.peek() else {
                return Ok(ParsedAnswer { items, joiner, condition: None });
            };
            joiner = joiner.max(Some(*sign));
            self.at += 1;
            // `1, 2, and 3` has two separators in a row.
            if let Some(MathToken::Comma(sign)) = self.peek() {
                joiner = joiner.max(Some(*sign));
                self.at += 1;
            }
        }
    }

    /// One item, or all lines of a system of equations.
    fn item(&mut self, items: &mut Vec<Chain>) -> Result<(), Reason> {
        if let Some(MathToken::Begin(environment @ (Environment::Lines | Environment::Cases))) = self.peek()
            && (*environment == Environment::Lines || !self.has_cells())
        {
            let environment = *environment;
            self.at += 1;
            // The alignment sign has no meaning.
            self.tokens.retain(|it| *it != MathToken::Cell);
            loop {
                items.extend(self.answer()?.items);
                while self.take(&MathToken::Row) {}
                if self.take(&MathToken::End(environment)) {
                    return Ok(());
                }
                if self.peek().is_none() {
                    return Err("unexpected end".into());
                }
            }
        }
        items.push(self.chain()?);
        Ok(())
    }

    fn has_cells(&self) -> bool {
        self.tokens[self.at..].contains(&MathToken::Cell)
    }

    fn chain(&mut self) -> Result<Chain, Reason> {
        // `\approx 5` continues the question; `= 5` is half an equation.
        if let [MathToken::Relation(Relation::About), _, ..] = &self.tokens[self.at..] {
            self.at += 1;
        }
        let first = self.side()?;
        let mut rest = Vec::new();
        loop {
            let relation = match self.peek() {
                Some(MathToken::Relation(relation)) => *relation,
                // A label such as `Minimum: 1` is assigned to.
                Some(MathToken::Colon) if rest.is_empty() && (is_label(&first) || is_announcement(&first)) => {
                    Relation::Equal
                }
                _ => return Ok(Chain { first, rest }),
            };
            self.at += 1;
            rest.push((relation, self.side()?));
        }
    }

    fn side(&mut self) -> Result<Side, Reason> {
        self.skip_lead_in();
        if let Some(end) = self.label_with_argument() {
            let name = label_text(&self.tokens[self.at..end]);
            self.at = end;
            return Ok(Side::from(Expr::Text(name)));
        }
        let side = self.plain_side()?;
        if self.peek() == Some(&MathToken::Except) && side.unit.is_empty() {
            return self.exception(side.expr).map(Side::from);
        }
        Ok(side)
    }

    /// The end of `P(X = 1)` or `f(2, 3)` before an equals sign: a name with something in brackets that is not an expression.
    fn label_with_argument(&self) -> Option<usize> {
        let [MathToken::Symbol(_), MathToken::Open(Bracket::Round | Bracket::Square), ..] = &self.tokens[self.at..]
        else {
            return None;
        };
        let (mut depth, mut special) = (0, false);
        for (offset, token) in self.tokens[self.at + 1..].iter().enumerate() {
            match token {
                MathToken::Open(_) => depth += 1,
                MathToken::Close(_) => depth -= 1,
                MathToken::Relation(_)
                | MathToken::Comma(_)
                | MathToken::Bar
                | MathToken::Such
                | MathToken::Word(_)
                | MathToken::Cup
                | MathToken::Cap => special = true,
                MathToken::Begin(_) | MathToken::End(_) => return None,
                _ => {}
            }
            if depth == 0 {
                let end = self.at + 1 + offset + 1;
                let equals = self.tokens.get(end) == Some(&MathToken::Relation(Relation::Equal));
                return (special && equals).then_some(end);
            }
        }
        None
    }

    /// Skips `The answer is` before an answer.
    fn skip_lead_in(&mut self) {
        let word = |it: &MathToken| match it {
            MathToken::Word(word) => Some(word.clone()),
            _ => None,
        };
        let words: Vec<String> = self.tokens[self.at..].iter().map_while(word).collect();
        let next = self.tokens.get(self.at + words.len());
        let value = next.is_some_and(|it| {
            !matches!(it, MathToken::Comma(_) | MathToken::Relation(_) | MathToken::Close(_) | MathToken::Colon)
        });
        if !words.is_empty() && value && is_lead_in(&words.join(" ")) {
            self.at += words.len();
        }
    }

    fn plain_side(&mut self) -> Result<Side, Reason> {
        match self.peek() {
            Some(MathToken::Word(_)) => self.words(),
            // A group around a whole side has no effect, and neither do the parentheses of a choice such as
            // `(\text{C})`.
            Some(MathToken::Open(bracket @ (Bracket::Round | Bracket::Group))) => {
                let bracket = *bracket;
                let inside = self.bracketed();
                let text = matches!(self.tokens.get(self.at + 1), Some(MathToken::Word(_)));
                if inside.ends_side
                    && !inside.commas
                    && inside.close == Some(bracket)
                    && (text || bracket == Bracket::Group)
                {
                    return self.nested(|parser| {
                        parser.at += 1;
                        let side = parser.side()?;
                        parser.expect(&MathToken::Close(bracket))?;
                        Ok(side)
                    });
                }
                self.quantity()
            }
            _ => self.quantity(),
        }
    }

    fn quantity(&mut self) -> Result<Side, Reason> {
        let outer = (self.currency.take(), std::mem::take(&mut self.degrees), std::mem::take(&mut self.angle));
        let mut expr = self.expression(0)?;
        if self.peek() == Some(&MathToken::Colon) && !self.head {
            expr = self.ratio(expr)?;
        }
        let mut unit = self.currency.take().map(String::from).unwrap_or_default();
        if self.degrees {
            unit.push_str(" degree");
        }
        self.unit(&mut unit)?;
        // `1 hour 30 minutes`
        while matches!(self.peek(), Some(MathToken::Number(_))) && !unit.is_empty() {
            let part = self.expression(0)?;
            let mut smaller = String::new();
            self.unit(&mut smaller)?;
            let share = unit::share(&smaller, &unit).ok_or("two adjacent numbers")?;
            expr = Operator::Add.of(expr, Operator::Divide.of(part, Expr::whole(share)));
        }
        (self.currency, self.degrees, self.angle) = outer;
        Ok(Side { expr, unit })
    }

    /// `3:4`, or `4:51:06`.
    fn ratio(&mut self, first: Expr) -> Result<Expr, Reason> {
        let mut parts = vec![first];
        while self.take(&MathToken::Colon) {
            parts.push(self.expression(0)?);
        }
        Ok(Expr::Ratio(parts))
    }

    /// Text up to the end of the side, in lower case and with single spaces; `(C)` is the choice `c`.
    fn words(&mut self) -> Result<Side, Reason> {
        let mut text = String::new();
        loop {
            match self.peek() {
                Some(MathToken::Word(word) | MathToken::Symbol(word)) => text = format!("{text} {word}"),
                Some(MathToken::Number(literal)) if literal.last_place == 0 => {
                    text = format!("{text} {}", literal.text())
                }
                // Words with a number or a sign in them are still words.
                Some(MathToken::Minus) => text.push('-'),
                Some(MathToken::Prime(_)) => text.push('\''),
                None
                | Some(
                    MathToken::Comma(_)
                    | MathToken::Relation(_)
                    | MathToken::Close(_)
                    | MathToken::Colon
                    | MathToken::Except
                    | MathToken::Row,
                ) => {
                    break;
                }
                // `\text{Area}(ABC) = 5`
                Some(MathToken::Open(Bracket::Round | Bracket::Square))
                    if !text.is_empty() && self.names_its_argument() =>
                {
                    let start = self.at;
                    while !matches!(self.peek(), Some(MathToken::Relation(_))) {
                        self.at += 1;
                    }
                    text.push_str(&label_text(&self.tokens[start..self.at]));
                    continue;
                }
                Some(MathToken::End(_) | MathToken::Cell) => break,
                Some(token) => return Err(unexpected(token)),
            }
            self.at += 1;
        }
        let text = text.to_lowercase().replace("- ", "-").split_whitespace().collect::<Vec<_>>().join(" ");
        let choice = text.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).filter(|inner| inner.len() == 1);
        let text = choice.unwrap_or(&text).trim_end_matches('.');
        Ok(Side::from(named_set(text).map_or_else(|| Expr::Text(text.to_string()), Expr::Set)))
    }

    /// Whether the bracket here ends before an equals sign.
    fn names_its_argument(&self) -> bool {
        let inside = self.bracketed();
        inside.ends_side && {
            let after =
                self.tokens[self.at..].iter().position(|it| matches!(it, MathToken::Relation(_) | MathToken::Comma(_)));
            after.is_some_and(|it| self.tokens[self.at + it] == MathToken::Relation(Relation::Equal))
        }
    }

    /// What follows a quantity: words, degrees, and their powers and quotients.
    fn unit(&mut self, unit: &mut String) -> Result<(), Reason> {
        loop {
            match self.peek() {
                Some(MathToken::Word(word)) => *unit = format!("{unit} {word}"),
                Some(MathToken::Frac) if self.unit_fraction() => {
                    self.at += 1;
                    for index in 0..2 {
                        self.expect(&MathToken::Open(Bracket::Group))?;
                        unit.push_str(if index == 0 { " " } else { "/" });
                        self.unit(unit)?;
                        self.expect(&MathToken::Close(Bracket::Group))?;
                    }
                    continue;
                }
                Some(MathToken::Currency(sign)) if unit.is_empty() => unit.push(*sign),
                Some(MathToken::Slash) if matches!(self.tokens.get(self.at + 1), Some(MathToken::Word(_))) => {
                    unit.push('/')
                }
                // The `h` of `50 km/h` looks like a symbol, but is part of a unit.
                Some(MathToken::Slash) if !unit.is_empty() => match self.tokens.get(self.at + 1) {
                    Some(MathToken::Symbol(name)) if unit::is_known(name) => {
                        *unit = format!("{unit}/{name}");
                        self.at += 1;
                    }
                    _ => return Ok(()),
                },
                Some(MathToken::Symbol(scale)) if unit == " degree" || unit == "degree" => unit.push_str(scale),
                Some(MathToken::Mod) => {
                    self.at += 1;
                    let modulus = self.argument()?;
                    unit.push_str(&format!(" mod {modulus}"));
                    continue;
                }
                Some(MathToken::Open(Bracket::Round))
                    if matches!(self.tokens.get(self.at + 1), Some(MathToken::Mod | MathToken::Word(_))) =>
                {
                    self.at += 1;
                    self.unit(unit)?;
                    self.expect(&MathToken::Close(Bracket::Round))?;
                    continue;
                }
                Some(MathToken::Caret) if !unit.is_empty() => {
                    self.at += 1;
                    let (sign, power) = match self.argument()? {
                        Expr::Number(power) => ("", power),
                        Expr::Negative(inner) if matches!(*inner, Expr::Number(_)) => {
                            let Expr::Number(power) = *inner else { unreachable!("it was matched above") };
                            ("-", power)
                        }
                        _ => return Err("the power of a unit is not a number".into()),
                    };
                    unit.push_str(&format!("^{sign}{}", power.digits));
                    continue;
                }
                _ => return Ok(()),
            }
            self.at += 1;
        }
    }

    fn nested<T>(&mut self, read: impl FnOnce(&mut Parser) -> Result<T, Reason>) -> Result<T, Reason> {
        self.depth += 1;
        if self.depth > MAX_NESTING {
            return Err("nested too deeply".into());
        }
        let result = read(self);
        self.depth -= 1;
        result
    }

    fn peek(&self) -> Option<&MathToken> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Result<MathToken, Reason> {
        let token = self.peek().cloned().ok_or("unexpected end")?;
        self.at += 1;
        Ok(token)
    }

    fn take(&mut self, token: &MathToken) -> bool {
        let found = self.peek() == Some(token);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, token: &MathToken) -> Result<(), Reason> {
        if self.take(token) {
            return Ok(());
        }
        Err(self.peek().map_or("unexpected end".into(), unexpected))
    }
}

/// The meaning of `all real numbers` and `no solution`.
fn named_set(text: &str) -> Option<NamedSet> {
    const QUANTIFIERS: [&str; 16] = [
        "all", "every", "any", "the", "set", "of", "x", "is", "can", "be", "a", "number", "numbers", "value", "values",
        "for",
    ];
    if matches!(
        text,
        "no solution" | "no solutions" | "no real solution" | "no real solutions" | "empty set" | "the empty set"
    ) {
        return Some(NamedSet::Empty);
    }
    if matches!(text, "all x" | "all values of x" | "all values" | "all numbers" | "every x" | "any x" | "every number")
    {
        return Some(NamedSet::Reals);
    }
    let of = |kinds: &[&str]| {
        let words: Vec<&str> = text.split(' ').collect();
        let kind = words.iter().filter(|it| kinds.contains(it)).count() == 1;
        kind && words.len() > 1 && words.iter().all(|it| kinds.contains(it) || QUANTIFIERS.contains(it))
    };
    if of(&["real", "reals"]) {
        return Some(NamedSet::Reals);
    }
    of(&["integer", "integers"])
        .then_some(NamedSet::Integers)
        .filter(|_| text.starts_with("all") || text.starts_with("the set"))
}

fn unexpected(token: &MathToken) -> Reason {
    let shown = match token {
        MathToken::Number(literal) => return format!("unexpected number ending in {}", &literal.digits % 10),
        MathToken::Symbol(name) | MathToken::Word(name) | MathToken::Digits(name) => name,
        MathToken::Function(function) => function.name(),
        MathToken::Relation(_) => "a relation",
        MathToken::Set(_) => "a set",
        MathToken::Plus => "+",
        MathToken::Minus => "-",
        MathToken::PlusMinus => "±",
        MathToken::MinusPlus => "∓",
        MathToken::Times => "*",
        MathToken::Slash => "/",
        MathToken::Caret => "^",
        MathToken::Underscore => "_",
        MathToken::Cup => "∪",
        MathToken::Cap => "∩",
        MathToken::Without => "∖",
        MathToken::Bang => "!",
        MathToken::Colon => ":",
        MathToken::Bar => "|",
        MathToken::Such => "\\mid",
        MathToken::Comma(Joiner::Comma) => ",",
        MathToken::Comma(Joiner::And) => "and",
        MathToken::Comma(Joiner::Or) => "or",
        MathToken::Frac => "\\frac",
        MathToken::Binom => "\\binom",
        MathToken::Choose => "\\choose",
        MathToken::Sqrt => "\\sqrt",
        MathToken::Mod | MathToken::Modulo => "\\mod",
        MathToken::Except => "except",
        MathToken::ForAll => "\\forall",
        MathToken::Arrow => "\\to",
        MathToken::MapsTo => "\\mapsto",
        MathToken::Series(function) => function.name(),
        MathToken::Percent => "%",
        MathToken::Degree => "°",
        MathToken::Prime(_) => "'",
        MathToken::Currency(_) => "a currency sign",
        MathToken::Open(_) | MathToken::Close(_) => "a bracket",
        MathToken::Begin(_) | MathToken::End(_) => "an environment",
        MathToken::Cell => "&",
        MathToken::Row => "\\\\",
    };
    format!("unexpected `{}`", shown.escape_debug())
}
