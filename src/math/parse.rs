//! Tokens to an expression tree, by binding power (a Pratt parser), with chains, lists, units and text around it.

use super::limits::{MAX_BYTES, MAX_NESTING, Reason};
use super::token::{Bracket, Literal, Token, tokens};
use super::tree::{Chain, Expr, Operator, Sequence, Side};

/// The items of an answer; more than one where commas, `and` or `or` separate them.
pub fn parse(text: &str) -> Result<Vec<Chain>, Reason> {
    if text.len() > MAX_BYTES {
        return Err(format!("longer than {MAX_BYTES} bytes"));
    }
    let mut parser = Parser { tokens: tokens(text)?, at: 0, depth: 0, currency: None };
    if parser.tokens.is_empty() {
        return Err("empty".into());
    }
    let items = parser.items()?;
    match parser.peek() {
        None => Ok(items),
        Some(token) => Err(unexpected(token)),
    }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
    /// A currency sign read inside the expression of the side at hand.
    currency: Option<char>,
}

impl Parser {
    fn items(&mut self) -> Result<Vec<Chain>, Reason> {
        let mut items = vec![self.chain()?];
        while self.take(&Token::Comma) {
            // `1, 2, and 3` has two separators in a row.
            self.take(&Token::Comma);
            items.push(self.chain()?);
        }
        Ok(items)
    }

    fn chain(&mut self) -> Result<Chain, Reason> {
        let mut sides = vec![self.side()?];
        while self.take(&Token::Equals) {
            sides.push(self.side()?);
        }
        Ok(sides)
    }

    fn side(&mut self) -> Result<Side, Reason> {
        let (open, inside) = match self.peek() {
            Some(Token::Word(_)) => return self.words(),
            Some(Token::Open(open)) => (*open, self.bracketed()),
            _ => return self.quantity(),
        };
        if !inside.whole {
            return self.quantity();
        }
        // A group changes nothing, nor do the parentheses of a choice such as `(\text{C})`.
        let text = matches!(self.tokens.get(self.at + 1), Some(Token::Word(_)));
        match open {
            _ if inside.commas || open == Bracket::Set => self.nested(|parser| parser.sequence(open)),
            Bracket::Round | Bracket::Group if text || open == Bracket::Group => self.nested(|parser| {
                parser.at += 1;
                let side = parser.side()?;
                parser.expect(&Token::Close(open))?;
                Ok(side)
            }),
            _ => self.quantity(),
        }
    }

    fn quantity(&mut self) -> Result<Side, Reason> {
        self.currency = None;
        let expr = self.expression(0)?;
        let mut unit = self.currency.take().map(String::from).unwrap_or_default();
        unit.push_str(&self.unit()?);
        Ok(Side::Quantity { expr, unit })
    }

    fn sequence(&mut self, open: Bracket) -> Result<Side, Reason> {
        // Braces without backslashes around a list are those of a set.
        let set = |bracket| if bracket == Bracket::Group { Bracket::Set } else { bracket };
        self.at += 1;
        let items = self.items()?;
        match self.next()? {
            Token::Close(close) if (set(open) == Bracket::Set) == (set(close) == Bracket::Set) => {
                Ok(Side::Sequence(Sequence { open: set(open), items, close: set(close) }))
            }
            token => Err(unexpected(&token)),
        }
    }

    /// Text up to the end of the side, in lower case and with single spaces; `(C)` is the choice `c`.
    fn words(&mut self) -> Result<Side, Reason> {
        let mut text = String::new();
        loop {
            match self.peek() {
                Some(Token::Word(word) | Token::Symbol(word)) => {
                    text.push_str(word);
                    text.push(' ');
                }
                Some(Token::Minus) => text = text.trim_end().to_string() + "-",
                None | Some(Token::Comma | Token::Equals | Token::Close(_)) => break,
                Some(token) => return Err(unexpected(token)),
            }
            self.at += 1;
        }
        let text = text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
        let choice = text.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).filter(|inner| inner.len() == 1);
        Ok(Side::Text(choice.unwrap_or(&text).trim_end_matches('.').to_string()))
    }

    /// What follows a quantity: words, degrees, and their powers and quotients.
    fn unit(&mut self) -> Result<String, Reason> {
        let mut unit = String::new();
        loop {
            match self.peek() {
                Some(Token::Word(word)) => unit = format!("{unit} {word}"),
                Some(Token::Currency(sign)) if unit.is_empty() => unit.push(*sign),
                Some(Token::Slash) if matches!(self.tokens.get(self.at + 1), Some(Token::Word(_))) => unit.push('/'),
                Some(Token::Symbol(scale)) if unit == " degree" => unit.push_str(scale),
                Some(Token::Degree) => unit.push_str(" degree"),
                Some(Token::Caret) if self.degree_ahead() => {
                    unit.push_str(" degree");
                    self.at += if self.tokens[self.at + 1] == Token::Degree { 1 } else { 3 };
                }
                Some(Token::Caret) if !unit.is_empty() => {
                    self.at += 1;
                    let Expr::Number(power) = self.argument()? else {
                        return Err("the power of a unit is no number".into());
                    };
                    unit.push_str(&format!("^{}", power.digits));
                    continue;
                }
                _ => return Ok(unit),
            }
            self.at += 1;
        }
    }

    /// An expression whose operators bind at least as tightly as `min`.
    fn expression(&mut self, min: u8) -> Result<Expr, Reason> {
        let mut left = self.operand()?;
        loop {
            let (operator, written) = match self.peek() {
                Some(Token::Percent) => {
                    self.at += 1;
                    left = Expr::Percent(Box::new(left));
                    continue;
                }
                Some(Token::Plus) => (Operator::Add, true),
                Some(Token::Minus) => (Operator::Subtract, true),
                Some(Token::PlusMinus) => (Operator::PlusMinus, true),
                Some(Token::Times) => (Operator::Multiply, true),
                Some(Token::Slash) => (Operator::Divide, true),
                Some(Token::Caret) if !self.degree_ahead() => (Operator::Power, true),
                // Quantities side by side are multiplied, but never a number after something: `(3)4` is a slip, not 12.
                Some(Token::Symbol(_) | Token::Frac | Token::Sqrt) => (Operator::Multiply, false),
                Some(Token::Open(Bracket::Round | Bracket::Square)) => (Operator::Multiply, false),
                _ => return Ok(left),
            };
            let binding = operator.binding();
            if binding < min {
                return Ok(left);
            }
            self.at += usize::from(written);
            let right = match operator {
                Operator::Power => self.nested(|parser| parser.expression(binding))?,
                // All but powers associate to the left.
                _ => self.expression(binding + 1)?,
            };
            left = operator.of(left, right);
        }
    }

    fn operand(&mut self) -> Result<Expr, Reason> {
        match self.next()? {
            Token::Number(literal) => self.number(literal),
            Token::Symbol(name) => self.subscripted(name),
            Token::Plus => self.nested(|parser| parser.expression(Operator::Power.binding())),
            Token::Minus => {
                let operand = self.nested(|parser| parser.expression(Operator::Power.binding()))?;
                Ok(Expr::Negative(Box::new(operand)))
            }
            Token::PlusMinus => {
                let right = self.nested(|parser| parser.expression(Operator::Multiply.binding()))?;
                Ok(Operator::PlusMinus.of(whole(0), right))
            }
            Token::Currency(sign) if self.currency.is_none() => {
                self.currency = Some(sign);
                self.operand()
            }
            Token::Frac => {
                let numerator = self.argument()?;
                Ok(Operator::Divide.of(numerator, self.argument()?))
            }
            Token::Sqrt => {
                let index =
                    if self.take(&Token::Open(Bracket::Square)) { self.until(Bracket::Square)? } else { whole(2) };
                let radicand = match self.peek() {
                    Some(Token::Open(Bracket::Round | Bracket::Group) | Token::Number(_)) => self.operand_alone()?,
                    _ => self.argument()?,
                };
                Ok(Operator::Root.of(radicand, index))
            }
            Token::Open(bracket @ (Bracket::Round | Bracket::Square | Bracket::Group)) => self.until(bracket),
            token => Err(unexpected(&token)),
        }
    }

    /// A whole number or a bracket, without the fraction that would make it a mixed number.
    fn operand_alone(&mut self) -> Result<Expr, Reason> {
        match self.next()? {
            Token::Number(literal) => Ok(Expr::Number(literal)),
            Token::Open(bracket) => self.until(bracket),
            token => Err(unexpected(&token)),
        }
    }

    /// The rest of a bracketed expression.
    fn until(&mut self, bracket: Bracket) -> Result<Expr, Reason> {
        let expr = self.nested(|parser| parser.expression(0))?;
        match self.next()? {
            Token::Close(close) if close == bracket => Ok(expr),
            Token::Comma => Err("a list inside an expression".into()),
            token => Err(unexpected(&token)),
        }
    }

    /// An argument of a command, as TeX reads it: a group, or one digit, letter or command.
    fn argument(&mut self) -> Result<Expr, Reason> {
        match self.next()? {
            Token::Open(Bracket::Group) => self.until(Bracket::Group),
            Token::Symbol(name) => Ok(Expr::Symbol(name)),
            Token::Frac | Token::Sqrt => {
                self.at -= 1;
                self.nested(Parser::operand)
            }
            Token::Number(literal) if literal.is_integer() => {
                let (first, rest) = split(&literal);
                if let Some(rest) = rest {
                    self.at -= 1;
                    self.tokens[self.at] = Token::Number(rest);
                }
                Ok(Expr::Number(first))
            }
            token => Err(unexpected(&token)),
        }
    }

    /// A number, and the fraction after it if the two make a mixed number: `1\frac{4}{5}` and `1 4/5` are 9/5.
    fn number(&mut self, literal: Literal) -> Result<Expr, Reason> {
        if !literal.is_integer() {
            return Ok(Expr::Number(literal));
        }
        if self.peek() == Some(&Token::Underscore) {
            // A number in another base stays a name: its digits and its base are the answer, not its value.
            return self.subscripted(literal.digits.to_string());
        }
        let (over, under) = match &self.tokens[self.at..] {
            [Token::Frac, rest @ ..] if starts_with_two_integers(rest) => {
                self.at += 1;
                (self.argument()?, self.argument()?)
            }
            [Token::Number(over), Token::Slash, Token::Number(under), ..] => {
                let parts = (Expr::Number(over.clone()), Expr::Number(under.clone()));
                self.at += 3;
                parts
            }
            _ => return Ok(Expr::Number(literal)),
        };
        match (&over, &under) {
            (Expr::Number(a), Expr::Number(b)) if a.is_integer() && b.is_integer() && a.digits < b.digits => {
                Ok(Operator::Add.of(Expr::Number(literal), Operator::Divide.of(over, under)))
            }
            _ => Err("a mixed number without a proper fraction".into()),
        }
    }

    /// A name with the subscript that may follow it, as one symbol.
    fn subscripted(&mut self, mut name: String) -> Result<Expr, Reason> {
        if self.take(&Token::Underscore) {
            let group = self.take(&Token::Open(Bracket::Group));
            name.push('_');
            loop {
                match self.next()? {
                    Token::Number(literal) if literal.is_integer() => name.push_str(&literal.digits.to_string()),
                    Token::Symbol(part) | Token::Word(part) => name.push_str(&part),
                    token => return Err(unexpected(&token)),
                }
                if !group || self.take(&Token::Close(Bracket::Group)) {
                    break;
                }
            }
        }
        Ok(Expr::Symbol(name))
    }

    /// What stands in the bracket that opens here.
    fn bracketed(&self) -> Bracketed {
        let (mut depth, mut commas) = (0, false);
        for (offset, token) in self.tokens[self.at..].iter().enumerate() {
            match token {
                Token::Open(_) => depth += 1,
                Token::Close(_) => depth -= 1,
                Token::Comma => commas |= depth == 1,
                _ => {}
            }
            if depth == 0 {
                let after = self.tokens.get(self.at + offset + 1);
                let whole = matches!(after, None | Some(Token::Comma | Token::Equals | Token::Close(_)));
                return Bracketed { commas, whole };
            }
        }
        Bracketed { commas, whole: false }
    }

    fn degree_ahead(&self) -> bool {
        matches!(
            &self.tokens[self.at..],
            [Token::Caret, Token::Degree, ..]
                | [Token::Caret, Token::Open(Bracket::Group), Token::Degree, Token::Close(Bracket::Group), ..]
        )
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

struct Bracketed {
    /// A comma stands in it, outside of inner brackets.
    commas: bool,
    /// The side ends where the bracket does.
    whole: bool,
}

/// Whether these tokens are two whole numbers as arguments: `{4}{5}`, `45`, `4{5}` or `{4}5`.
fn starts_with_two_integers(tokens: &[Token]) -> bool {
    use Token::{Close, Number, Open};
    let second = match tokens {
        [Number(both), ..] if both.is_integer() && both.written > 1 => return true,
        [Number(first), rest @ ..] if first.is_integer() => rest,
        [Open(Bracket::Group), Number(first), Close(Bracket::Group), rest @ ..] if first.is_integer() => rest,
        _ => return false,
    };
    match second {
        [Number(it), ..] | [Open(Bracket::Group), Number(it), Close(Bracket::Group), ..] => it.is_integer(),
        _ => false,
    }
}

fn whole(number: u8) -> Expr {
    Expr::Number(Literal { digits: number.into(), last_place: 0, decimal: false, written: 1 })
}

/// The first digit of a number, and the others.
fn split(literal: &Literal) -> (Literal, Option<Literal>) {
    let text = format!("{:0>width$}", literal.digits.to_string(), width = literal.written);
    let part = |digits: &str| Literal {
        digits: digits.parse().expect("only digits"),
        last_place: 0,
        decimal: false,
        written: digits.len(),
    };
    (part(&text[..1]), (text.len() > 1).then(|| part(&text[1..])))
}

fn unexpected(token: &Token) -> Reason {
    let shown = match token {
        Token::Number(literal) => return format!("unexpected number ending in {}", &literal.digits % 10),
        Token::Symbol(name) | Token::Word(name) => name,
        Token::Plus => "+",
        Token::Minus => "-",
        Token::PlusMinus => "±",
        Token::Times => "*",
        Token::Slash => "/",
        Token::Caret => "^",
        Token::Underscore => "_",
        Token::Equals => "=",
        Token::Comma => ",",
        Token::Frac => "\\frac",
        Token::Sqrt => "\\sqrt",
        Token::Percent => "%",
        Token::Degree => "°",
        Token::Currency(_) => "a currency sign",
        Token::Open(_) | Token::Close(_) => "a bracket",
    };
    format!("unexpected `{shown}`")
}
