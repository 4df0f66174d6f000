//! The contents of brackets: tuples, intervals, sets, matrices and cases.

use super::{Parser, unexpected};
use crate::math::function::Function;
use crate::math::limits::Reason;
use crate::math::token::{Bracket, Environment, MathToken, Relation};
use crate::math::tree::{Chain, Expr, Side};

pub(super) struct Bracketed {
    /// It contains a comma, outside of inner brackets.
    pub commas: bool,
    /// It contains a bar or a colon, before the condition of a set.
    condition: bool,
    /// The bracket that closes it.
    pub close: Option<Bracket>,
    /// The side ends at the closing bracket.
    pub ends_side: bool,
}

impl Parser {
    /// Looks ahead at the bracket that opens here.
    pub(super) fn bracketed(&self) -> Bracketed {
        let (mut depth, mut commas, mut bars) = (0, false, 0);
        let mut condition = false;
        for (offset, token) in self.tokens[self.at..].iter().enumerate() {
            match token {
                MathToken::Open(_) => depth += 1,
                MathToken::Close(_) => depth -= 1,
                MathToken::Comma(_) => commas |= depth == 1,
                MathToken::Such | MathToken::Colon => condition |= depth == 1,
                MathToken::Bar => bars += usize::from(depth == 1),
                _ => {}
            }
            if let (0, MathToken::Close(close)) = (depth, token) {
                let after = self.tokens.get(self.at + offset + 1);
                let ends_side = matches!(
                    after,
                    None | Some(
                        MathToken::Comma(_)
                            | MathToken::Relation(_)
                            | MathToken::Close(_)
                            | MathToken::Row
                            | MathToken::End(_)
                    )
                );
                return Bracketed { commas, condition: condition || bars % 2 == 1, close: Some(*close), ends_side };
            }
        }
        Bracketed { commas, condition, close: None, ends_side: false }
    }

    /// An operand that begins with a bracket, which has been consumed.
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
        if !(open == Bracket::Set && matches!(self.peek(), Some(MathToken::Close(Bracket::Set)))) {
            items = self.answer()?.items;
        }
        self.bars = bars;
        match self.next()? {
            MathToken::Close(close) if fits(open, set(close)) => Ok(Expr::List { open, items, close: set(close) }),
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
        if !matches!(self.next()?, MathToken::Such | MathToken::Bar | MathToken::Colon) {
            return Err("a set without its condition".into());
        }
        let mut conditions = self.answer()?.items;
        self.expect(&MathToken::Close(open))?;
        if !matches!(head.first.expr, Expr::Symbol(_)) || head.rest.len() > 1 {
            return Err("a set builder without a single variable".into());
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
            MathToken::Close(close) if close == bracket => Ok(expr),
            MathToken::Comma(_) => Err("a list inside an expression".into()),
            token => Err(unexpected(&token)),
        }
    }

    /// The rest of an environment.
    pub(super) fn environment(&mut self, environment: Environment) -> Result<Expr, Reason> {
        match environment {
            Environment::Matrix => {
                let rows = self.nested(Parser::rows)?;
                self.expect(&MathToken::End(environment))?;
                let width = rows.first().map_or(0, Vec::len);
                if width == 0 || rows.iter().any(|row| row.len() != width) {
                    return Err("a matrix with rows of different length".into());
                }
                Ok(Expr::Matrix(rows))
            }
            Environment::Cases => {
                let cases = self.nested(Parser::cases)?;
                self.expect(&MathToken::End(environment))?;
                Ok(Expr::Cases(cases))
            }
            Environment::Determinant => {
                let rows = self.nested(Parser::rows)?;
                self.expect(&MathToken::End(environment))?;
                if rows.iter().any(|row| row.len() != rows.len()) || rows.len() > 4 {
                    return Err("a determinant that does not have two to four rows".into());
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
            if self.take(&MathToken::Cell) {
                continue;
            }
            if !self.take(&MathToken::Row) || matches!(self.peek(), Some(MathToken::End(_))) {
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
            self.expect(&MathToken::Cell)?;
            // `if` and `for` add nothing to the meaning of their position.
            if let Some(MathToken::Word(word)) = self.peek()
                && matches!(word.to_lowercase().as_str(), "if" | "for" | "when" | "where")
            {
                self.at += 1;
            }
            cases.push((value, self.chain()?));
            self.comma();
            if !self.take(&MathToken::Row) || matches!(self.peek(), Some(MathToken::End(_))) {
                return Ok(cases);
            }
        }
    }

    fn comma(&mut self) {
        if matches!(self.peek(), Some(MathToken::Comma(_))) {
            self.at += 1;
        }
    }

    /// The items of `\gcd(12, 18)` or `\max\{1, 2\}`.
    pub(super) fn arguments(&mut self) -> Result<Vec<Expr>, Reason> {
        let MathToken::Open(open @ (Bracket::Round | Bracket::Set | Bracket::Group)) = self.next()? else {
            return Err("a function without its list".into());
        };
        let items = self.nested(Parser::answer)?.items;
        self.expect(&MathToken::Close(open))?;
        let alone = |chain: Chain| match chain {
            Chain { first: Side { expr, unit }, rest } if unit.is_empty() && rest.is_empty() => Ok(expr),
            _ => Err("an argument that is not an expression".to_string()),
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
