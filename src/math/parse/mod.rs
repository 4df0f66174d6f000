//! Tokens to the tree of an answer: lists, chains of relations, sides with their units, and words.
//!
//! Expressions are read by binding power ([`expr`], a Pratt parser), what stands between brackets in [`bracket`].

mod bracket;
mod expr;

use super::lex::{Grouping, tokens};
use super::limits::{MAX_BYTES, MAX_NESTING, Reason};
use super::token::{Bracket, Environment, Joiner, NamedSet, Relation, Token};
use super::tree::{Answer, Chain, Expr, Operator, Side};
use super::unit;

pub fn parse(text: &str, grouping: Grouping) -> Result<Answer, Reason> {
    if text.len() > MAX_BYTES {
        return Err(format!("longer than {MAX_BYTES} bytes"));
    }
    let tokens = tokens(text, grouping)?;
    let mut parser =
        Parser { tokens, at: 0, depth: 0, bars: 0, angle: false, head: false, currency: None, degrees: false };
    if parser.tokens.is_empty() || parser.tokens == [Token::Symbol("\\ldots".into())] {
        return Err("empty".into());
    }
    let answer = parser.answer()?;
    match parser.peek() {
        None => Ok(answer),
        Some(token) => Err(unexpected(token)),
    }
}

/// A few words that name something. `Simplify this expression:` names nothing: what follows is the question again.
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

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
    /// Bars that are open: another one closes.
    bars: usize,
    /// Inside of the argument of a sine: degrees are part of the expression, and not a unit.
    angle: bool,
    /// Before the condition of a set: a colon ends it.
    head: bool,
    /// A currency sign read inside the expression of the side at hand.
    currency: Option<char>,
    /// A degree sign read inside the expression of the side at hand.
    degrees: bool,
}

impl Parser {
    fn answer(&mut self) -> Result<Answer, Reason> {
        let mut items = Vec::new();
        let mut joiner = None;
        loop {
            self.item(&mut items)?;
            let Some(Token::Comma(sign)) = self.peek() else { return Ok(Answer { items, joiner }) };
            joiner = joiner.max(Some(*sign));
            self.at += 1;
            // `1, 2, and 3` has two separators in a row.
            if let Some(Token::Comma(sign)) = self.peek() {
                joiner = joiner.max(Some(*sign));
                self.at += 1;
            }
        }
    }

    /// One item, or all lines of a system of equations.
    fn item(&mut self, items: &mut Vec<Chain>) -> Result<(), Reason> {
        if let Some(Token::Begin(environment @ (Environment::Lines | Environment::Cases))) = self.peek()
            && (*environment == Environment::Lines || !self.has_cells())
        {
            let environment = *environment;
            self.at += 1;
            // The sign at which lines are aligned says nothing.
            self.tokens.retain(|it| *it != Token::Cell);
            loop {
                items.extend(self.answer()?.items);
                while self.take(&Token::Row) {}
                if self.take(&Token::End(environment)) {
                    return Ok(());
                }
                if self.peek().is_none() {
                    return Err("it ends too early".into());
                }
            }
        }
        items.push(self.chain()?);
        Ok(())
    }

    fn has_cells(&self) -> bool {
        self.tokens[self.at..].contains(&Token::Cell)
    }

    fn chain(&mut self) -> Result<Chain, Reason> {
        // `\approx 5` goes on from the question; `= 5` is half an equation.
        if let [Token::Relation(Relation::About), _, ..] = &self.tokens[self.at..] {
            self.at += 1;
        }
        let first = self.side()?;
        let mut rest = Vec::new();
        loop {
            let relation = match self.peek() {
                Some(Token::Relation(relation)) => *relation,
                // A label such as `Minimum: 1` is assigned to.
                Some(Token::Colon) if rest.is_empty() && is_label(&first) => Relation::Equal,
                _ => return Ok(Chain { first, rest }),
            };
            self.at += 1;
            rest.push((relation, self.side()?));
        }
    }

    fn side(&mut self) -> Result<Side, Reason> {
        match self.peek() {
            Some(Token::Word(_)) => self.words(),
            // A group around a whole side changes nothing, nor do the parentheses of a choice such as `(\text{C})`.
            Some(Token::Open(bracket @ (Bracket::Round | Bracket::Group))) => {
                let bracket = *bracket;
                let inside = self.bracketed();
                let text = matches!(self.tokens.get(self.at + 1), Some(Token::Word(_)));
                if inside.ends_side
                    && !inside.commas
                    && inside.close == Some(bracket)
                    && (text || bracket == Bracket::Group)
                {
                    return self.nested(|parser| {
                        parser.at += 1;
                        let side = parser.side()?;
                        parser.expect(&Token::Close(bracket))?;
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
        if self.peek() == Some(&Token::Colon) && !self.head {
            expr = self.ratio(expr)?;
        }
        let mut unit = self.currency.take().map(String::from).unwrap_or_default();
        if self.degrees {
            unit.push_str(" degree");
        }
        self.unit(&mut unit)?;
        // `1 hour 30 minutes`
        while matches!(self.peek(), Some(Token::Number(_))) && !unit.is_empty() {
            let part = self.expression(0)?;
            let mut smaller = String::new();
            self.unit(&mut smaller)?;
            let share = unit::share(&smaller, &unit).ok_or("two numbers side by side")?;
            expr = Operator::Add.of(expr, Operator::Divide.of(part, Expr::whole(share)));
        }
        (self.currency, self.degrees, self.angle) = outer;
        Ok(Side { expr, unit })
    }

    /// `3:4`, or `4:51:06`.
    fn ratio(&mut self, first: Expr) -> Result<Expr, Reason> {
        let mut parts = vec![first];
        while self.take(&Token::Colon) {
            parts.push(self.expression(0)?);
        }
        Ok(Expr::Ratio(parts))
    }

    /// Text up to the end of the side, in lower case and with single spaces; `(C)` is the choice `c`.
    fn words(&mut self) -> Result<Side, Reason> {
        let mut text = String::new();
        loop {
            match self.peek() {
                Some(Token::Word(word) | Token::Symbol(word)) => text = format!("{text} {word}"),
                Some(Token::Number(literal)) if literal.last_place == 0 => text = format!("{text} {}", literal.text()),
                // Words with a number or a sign in them stay words.
                Some(Token::Minus) => text.push('-'),
                Some(Token::Prime(_)) => text.push('\''),
                None | Some(Token::Comma(_) | Token::Relation(_) | Token::Close(_) | Token::Colon | Token::Row) => {
                    break;
                }
                Some(Token::End(_) | Token::Cell) => break,
                Some(token) => return Err(unexpected(token)),
            }
            self.at += 1;
        }
        let text = text.to_lowercase().replace("- ", "-").split_whitespace().collect::<Vec<_>>().join(" ");
        let choice = text.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).filter(|inner| inner.len() == 1);
        let text = choice.unwrap_or(&text).trim_end_matches('.');
        Ok(Side::from(named_set(text).map_or_else(|| Expr::Text(text.to_string()), Expr::Set)))
    }

    /// What follows a quantity: words, degrees, and their powers and quotients.
    fn unit(&mut self, unit: &mut String) -> Result<(), Reason> {
        loop {
            match self.peek() {
                Some(Token::Word(word)) => *unit = format!("{unit} {word}"),
                Some(Token::Frac) if self.unit_fraction() => {
                    self.at += 1;
                    for index in 0..2 {
                        self.expect(&Token::Open(Bracket::Group))?;
                        unit.push_str(if index == 0 { " " } else { "/" });
                        self.unit(unit)?;
                        self.expect(&Token::Close(Bracket::Group))?;
                    }
                    continue;
                }
                Some(Token::Currency(sign)) if unit.is_empty() => unit.push(*sign),
                Some(Token::Slash) if matches!(self.tokens.get(self.at + 1), Some(Token::Word(_))) => unit.push('/'),
                // The `h` of `50 km/h` looks like a symbol, but what is divided is a unit.
                Some(Token::Slash) if !unit.is_empty() => match self.tokens.get(self.at + 1) {
                    Some(Token::Symbol(name)) if unit::is_known(name) => {
                        *unit = format!("{unit}/{name}");
                        self.at += 1;
                    }
                    _ => return Ok(()),
                },
                Some(Token::Symbol(scale)) if unit == " degree" || unit == "degree" => unit.push_str(scale),
                Some(Token::Mod) => {
                    self.at += 1;
                    let modulus = self.argument()?;
                    unit.push_str(&format!(" mod {modulus}"));
                    continue;
                }
                Some(Token::Open(Bracket::Round))
                    if matches!(self.tokens.get(self.at + 1), Some(Token::Mod | Token::Word(_))) =>
                {
                    self.at += 1;
                    self.unit(unit)?;
                    self.expect(&Token::Close(Bracket::Round))?;
                    continue;
                }
                Some(Token::Caret) if !unit.is_empty() => {
                    self.at += 1;
                    let (sign, power) = match self.argument()? {
                        Expr::Number(power) => ("", power),
                        Expr::Negative(inner) if matches!(*inner, Expr::Number(_)) => {
                            let Expr::Number(power) = *inner else { unreachable!("it was matched above") };
                            ("-", power)
                        }
                        _ => return Err("the power of a unit is no number".into()),
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

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Result<Token, Reason> {
        let token = self.peek().cloned().ok_or("it ends too early")?;
        self.at += 1;
        Ok(token)
    }

    fn take(&mut self, token: &Token) -> bool {
        let found = self.peek() == Some(token);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, token: &Token) -> Result<(), Reason> {
        if self.take(token) {
            return Ok(());
        }
        Err(self.peek().map_or("it ends too early".into(), unexpected))
    }
}

/// What `all real numbers` and `no solution` mean.
fn named_set(text: &str) -> Option<NamedSet> {
    Some(match text {
        "all real numbers" | "all reals" | "all real" | "the real numbers" | "any real number" | "real numbers" => {
            NamedSet::Reals
        }
        "no solution" | "no solutions" | "no real solution" | "no real solutions" | "empty set" | "the empty set" => {
            NamedSet::Empty
        }
        "all integers" => NamedSet::Integers,
        _ => return None,
    })
}

fn unexpected(token: &Token) -> Reason {
    let shown = match token {
        Token::Number(literal) => return format!("unexpected number ending in {}", &literal.digits % 10),
        Token::Symbol(name) | Token::Word(name) | Token::Digits(name) => name,
        Token::Function(function) => function.name(),
        Token::Relation(_) => "a relation",
        Token::Set(_) => "a set",
        Token::Plus => "+",
        Token::Minus => "-",
        Token::PlusMinus => "±",
        Token::MinusPlus => "∓",
        Token::Times => "*",
        Token::Slash => "/",
        Token::Caret => "^",
        Token::Underscore => "_",
        Token::Cup => "∪",
        Token::Cap => "∩",
        Token::Without => "∖",
        Token::Bang => "!",
        Token::Colon => ":",
        Token::Bar => "|",
        Token::Such => "\\mid",
        Token::Comma(Joiner::Comma) => ",",
        Token::Comma(Joiner::And) => "and",
        Token::Comma(Joiner::Or) => "or",
        Token::Frac => "\\frac",
        Token::Binom => "\\binom",
        Token::Choose => "\\choose",
        Token::Sqrt => "\\sqrt",
        Token::Mod => "\\mod",
        Token::Percent => "%",
        Token::Degree => "°",
        Token::Prime(_) => "'",
        Token::Currency(_) => "a currency sign",
        Token::Open(_) | Token::Close(_) => "a bracket",
        Token::Begin(_) | Token::End(_) => "an environment",
        Token::Cell => "&",
        Token::Row => "\\\\",
    };
    format!("unexpected `{}`", shown.escape_debug())
}
