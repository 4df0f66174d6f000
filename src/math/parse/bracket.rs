//! What stands between brackets: tuples, intervals, sets, matrices and cases.

use super::{Parser, unexpected};
use crate::math::function::Function;
use crate::math::limits::Reason;
use crate::math::token::{Bracket, Environment, Relation, Token};
use crate::math::tree::{Chain, Expr, Side};

pub(super) struct Bracketed {
    /// A comma stands in it, outside of inner brackets.
    pub commas: bool,
    /// A bar or a colon stands in it, before the condition of a set.
    condition: bool,
    /// The bracket that closes it.
    pub close: Option<Bracket>,
    /// The side ends where the bracket does.
    pub ends_side: bool,
}

impl Parser {
    /// Looks ahead at the bracket that opens here.
    pub(super) fn bracketed(&self) -> Bracketed {
        let (mut depth, mut commas, mut bars) = (0, false, 0);
        let mut condition = false;
        for (offset, token) in self.tokens[self.at..].iter().enumerate() {
            match token {
                Token::Open(_) => depth += 1,
                Token::Close(_) => depth -= 1,
                Token::Comma(_) => commas |= depth == 1,
                Token::Such | Token::Colon => condition |= depth == 1,
                Token::Bar => bars += usize::from(depth == 1),
                _ => {}
            }
            if let (0, Token::Close(close)) = (depth, token) {
                let after = self.tokens.get(self.at + offset + 1);
                let ends_side = matches!(
                    after,
                    None | Some(Token::Comma(_) | Token::Relation(_) | Token::Close(_) | Token::Row | Token::End(_))
                );
                return Bracketed { commas, condition: condition || bars % 2 == 1, close: Some(*close), ends_side };
            }
        }
        Bracketed { commas, condition, close: None, ends_side: false }
    }

    /// An operand that begins with a bracket, which has been taken.
    pub(super) fn bracket(&mut self, open: Bracket) -> Result<Expr, Reason> {
        self.at -= 1;
        let inside = self.bracketed();
        self.at += 1;
        if set(open) == Bracket::Set && inside.condition {
            return self.nested(|parser| parser.builder(open));
        }
        let half_open = matches!(open, Bracket::Round | Bracket::Square) && inside.close != Some(open);
        if inside.commas || half_open || matches!(open, Bracket::Set | Bracket::Angle) {
            return self.nested(|parser| parser.list(set(open)));
        }
        let expr = self.until(open)?;
        Ok(match open {
            Bracket::Floor => Expr::Call(Function::Floor, vec![expr]),
            Bracket::Ceiling => Expr::Call(Function::Ceiling, vec![expr]),
            _ => expr,
        })
    }

    fn list(&mut self, open: Bracket) -> Result<Expr, Reason> {
        let bars = std::mem::take(&mut self.bars);
        let mut items = Vec::new();
        if !(open == Bracket::Set && matches!(self.peek(), Some(Token::Close(Bracket::Set)))) {
            items = self.answer()?.items;
        }
        self.bars = bars;
        match self.next()? {
            Token::Close(close) if fits(open, set(close)) => Ok(Expr::List { open, items, close: set(close) }),
            token => Err(unexpected(&token)),
        }
    }

    /// The rest of `\{x \mid x > 2\}`, or of `\{x \in \mathbb{R} : x > 2\}`.
    fn builder(&mut self, open: Bracket) -> Result<Expr, Reason> {
        let bars = std::mem::replace(&mut self.bars, 1);
        self.head = true;
        let head = self.chain()?;
        self.head = false;
        self.bars = bars;
        if !matches!(self.next()?, Token::Such | Token::Bar | Token::Colon) {
            return Err("a set without its condition".into());
        }
        let mut conditions = self.answer()?.items;
        self.expect(&Token::Close(open))?;
        if !matches!(head.first.expr, Expr::Symbol(_)) || head.rest.len() > 1 {
            return Err("a set of other things than one variable".into());
        }
        if let Some((Relation::In, _)) = head.rest.first() {
            conditions.push(head);
        }
        Ok(Expr::Where(conditions))
    }

    /// The rest of a bracketed expression.
    pub(super) fn until(&mut self, bracket: Bracket) -> Result<Expr, Reason> {
        let bars = std::mem::take(&mut self.bars);
        let expr = self.nested(|parser| parser.expression(0))?;
        self.bars = bars;
        match self.next()? {
            Token::Close(close) if close == bracket => Ok(expr),
            Token::Comma(_) => Err("a list inside an expression".into()),
            token => Err(unexpected(&token)),
        }
    }

    /// The rest of an environment.
    pub(super) fn environment(&mut self, environment: Environment) -> Result<Expr, Reason> {
        match environment {
            Environment::Matrix => {
                let rows = self.nested(Parser::rows)?;
                self.expect(&Token::End(environment))?;
                let width = rows.first().map_or(0, Vec::len);
                if width == 0 || rows.iter().any(|row| row.len() != width) {
                    return Err("a matrix with rows of different length".into());
                }
                Ok(Expr::Matrix(rows))
            }
            Environment::Cases => {
                let cases = self.nested(Parser::cases)?;
                self.expect(&Token::End(environment))?;
                Ok(Expr::Cases(cases))
            }
            Environment::Determinant => {
                let rows = self.nested(Parser::rows)?;
                self.expect(&Token::End(environment))?;
                if rows.iter().any(|row| row.len() != rows.len()) || rows.len() > 4 {
                    return Err("a determinant of another shape than two to four rows".into());
                }
                Ok(Expr::Call(Function::Determinant, rows.into_iter().flatten().collect()))
            }
            Environment::Lines => Err("lines inside an expression".into()),
        }
    }

    fn rows(&mut self) -> Result<Vec<Vec<Expr>>, Reason> {
        let mut rows = vec![vec![]];
        loop {
            let cell = self.quantity()?;
            if !cell.unit.is_empty() {
                return Err("a unit inside a matrix".into());
            }
            rows.last_mut().expect("a first row").push(cell.expr);
            if self.take(&Token::Cell) {
                continue;
            }
            if !self.take(&Token::Row) || matches!(self.peek(), Some(Token::End(_))) {
                return Ok(rows);
            }
            rows.push(Vec::new());
        }
    }

    fn cases(&mut self) -> Result<Vec<(Chain, Chain)>, Reason> {
        let mut cases = Vec::new();
        loop {
            let value = self.chain()?;
            self.comma();
            self.expect(&Token::Cell)?;
            // `if` and `for` say no more than the place does.
            if let Some(Token::Word(word)) = self.peek()
                && matches!(word.to_lowercase().as_str(), "if" | "for" | "when" | "where")
            {
                self.at += 1;
            }
            cases.push((value, self.chain()?));
            self.comma();
            if !self.take(&Token::Row) || matches!(self.peek(), Some(Token::End(_))) {
                return Ok(cases);
            }
        }
    }

    fn comma(&mut self) {
        if matches!(self.peek(), Some(Token::Comma(_))) {
            self.at += 1;
        }
    }

    /// The items of `\gcd(12, 18)` or `\max\{1, 2\}`.
    pub(super) fn arguments(&mut self) -> Result<Vec<Expr>, Reason> {
        let Token::Open(open @ (Bracket::Round | Bracket::Set | Bracket::Group)) = self.next()? else {
            return Err("a function without its list".into());
        };
        let items = self.nested(Parser::answer)?.items;
        self.expect(&Token::Close(open))?;
        let alone = |chain: Chain| match chain {
            Chain { first: Side { expr, unit }, rest } if unit.is_empty() && rest.is_empty() => Ok(expr),
            _ => Err("an argument that is no expression".to_string()),
        };
        items.into_iter().map(alone).collect()
    }
}

/// Braces of either kind make a set.
fn set(bracket: Bracket) -> Bracket {
    if bracket == Bracket::Group { Bracket::Set } else { bracket }
}

fn fits(open: Bracket, close: Bracket) -> bool {
    let real = |bracket| matches!(bracket, Bracket::Round | Bracket::Square);
    open == close || (real(open) && real(close))
}
