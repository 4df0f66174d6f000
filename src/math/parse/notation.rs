//! Notation with its own order: numbers of combinations and permutations, sums and products with bounds, integrals,
//! limits, and sets without some elements.

use super::{Parser, named_set};
use crate::math::function::Function;
use crate::math::limits::Reason;
use crate::math::token::{Bracket, Literal, MathToken, Relation};
use crate::math::tree::{Chain, Expr, Operator, Side};

impl Parser {
    /// `C(10, 3)`, `C_{10}^3`, `C^3_{10}`, and the same with P or A for permutations; the letter has been read.
    pub(super) fn combinations(&mut self, letter: &str) -> Result<Option<Expr>, Reason> {
        let Some(function) = counting(letter) else { return Ok(None) };
        if letter != "A" && self.peek() == Some(&MathToken::Open(Bracket::Round)) && self.pair_of_numbers() {
            let arguments = self.arguments()?;
            return Ok(Some(Expr::Call(function, arguments)));
        }
        let (first, second) = match self.peek() {
            Some(MathToken::Underscore) => (self.whole_script(self.at), MathToken::Caret),
            Some(MathToken::Caret) => (self.whole_script(self.at), MathToken::Underscore),
            _ => return Ok(None),
        };
        let Some(middle) = first.filter(|it| self.tokens.get(*it) == Some(&second)) else { return Ok(None) };
        // `C_1^2` is the square of a constant.
        let large = |at: usize| matches!(self.script(at), Some(it) if it.digits > 2.into());
        if self.whole_script(middle).is_none() || !(large(self.at) || large(middle)) {
            return Ok(None);
        }
        self.at += 1;
        let one = self.argument()?;
        self.at += 1;
        let other = self.argument()?;
        // The larger number is chosen from, whichever of the two is below.
        let (upper, lower) = match (&one, &other) {
            (Expr::Number(a), Expr::Number(b)) if a.digits < b.digits => (other, one),
            _ => (one, other),
        };
        Ok(Some(Expr::Call(function, vec![upper, lower])))
    }

    /// The place after a sign and its argument, if that is a whole number.
    fn whole_script(&self, at: usize) -> Option<usize> {
        let group = self.tokens.get(at + 1) == Some(&MathToken::Open(Bracket::Group));
        self.script(at).map(|_| at + if group { 4 } else { 2 })
    }

    /// The whole number that is the argument of the sign at this place: one digit, or a group.
    fn script(&self, at: usize) -> Option<&Literal> {
        match self.tokens.get(at + 1..)? {
            [MathToken::Number(it), ..] if it.is_integer() && it.written == 1 => Some(it),
            [MathToken::Open(Bracket::Group), MathToken::Number(it), MathToken::Close(Bracket::Group), ..] => {
                it.is_integer().then_some(it)
            }
            _ => None,
        }
    }

    /// Whether the round bracket here has two expressions without relations in it, and the end of the side after it.
    fn pair_of_numbers(&self) -> bool {
        let (mut depth, mut commas, mut digits) = (0, 0, false);
        for token in &self.tokens[self.at..] {
            match token {
                MathToken::Open(_) => depth += 1,
                MathToken::Close(_) => depth -= 1,
                MathToken::Comma(_) if depth == 1 => commas += 1,
                MathToken::Relation(_) | MathToken::Word(_) => return false,
                MathToken::Number(literal) => digits |= literal.is_integer(),
                _ => {}
            }
            if depth == 0 {
                return commas == 1 && digits;
            }
        }
        false
    }

    /// `{}^{10}C_3`, `^{10}C_3` and `{}_{10}C_3`, at their first token.
    pub(super) fn scripts_in_front(&mut self) -> Result<Option<Expr>, Reason> {
        let start = self.at;
        if self.take(&MathToken::Open(Bracket::Group)) && !self.take(&MathToken::Close(Bracket::Group)) {
            self.at = start;
            return Ok(None);
        }
        if !self.take(&MathToken::Caret) && !self.take(&MathToken::Underscore) {
            self.at = start;
            return Ok(None);
        }
        let upper = self.argument()?;
        let function = match self.next()? {
            MathToken::Symbol(name) => counting(&name),
            _ => None,
        };
        let function = function.ok_or("a script without a letter before it")?;
        while self.take(&MathToken::Open(Bracket::Group)) {
            self.expect(&MathToken::Close(Bracket::Group))?;
        }
        if !self.take(&MathToken::Underscore) {
            self.expect(&MathToken::Caret)?;
        }
        Ok(Some(Expr::Call(function, vec![upper, self.argument()?])))
    }

    /// `\sum_{k=1}^{n} k^2`, `\int_0^1 x \, dx`, `\lim_{x \to 0} x`, after the sign.
    pub(super) fn series(&mut self, function: Function) -> Result<Expr, Reason> {
        if function == Function::Integral {
            return self.integral();
        }
        if !self.take(&MathToken::Underscore) {
            return Err(format!("a {} without its bounds", function.name()));
        }
        let start = self.at;
        let mut parts = match self.bounds(function) {
            Ok(parts) => parts,
            // `\sum_{i < j}`: the condition as written.
            Err(_) => {
                self.at = start;
                let end = self.whole_group().ok_or("a sum with bounds that cannot be read")?;
                let condition = format!("{:?}", &self.tokens[start..end]);
                self.at = end;
                vec![Expr::Symbol("\\none".into()), Expr::Symbol(condition)]
            }
        };
        parts.push(self.nested(|parser| parser.expression(Operator::Multiply.binding()))?);
        Ok(Expr::Call(function, parts))
    }

    /// `{k=1}^{n}` or `{x \to 0}`: the variable and its bounds.
    fn bounds(&mut self, function: Function) -> Result<Vec<Expr>, Reason> {
        self.expect(&MathToken::Open(Bracket::Group))?;
        let MathToken::Symbol(variable) = self.next()? else {
            return Err("bounds of something that is not a name".into());
        };
        let variable = self.subscripted(variable)?;
        let sign = if function == Function::Limit { MathToken::Arrow } else { MathToken::Relation(Relation::Equal) };
        self.expect(&sign)?;
        let mut parts = vec![variable, self.until(Bracket::Group)?];
        if function != Function::Limit {
            self.expect(&MathToken::Caret)?;
            parts.push(self.argument()?);
        }
        Ok(parts)
    }

    /// The place after the group that opens here.
    fn whole_group(&self) -> Option<usize> {
        let mut depth = 0;
        for (offset, token) in self.tokens[self.at..].iter().enumerate() {
            match token {
                MathToken::Open(_) => depth += 1,
                MathToken::Close(_) => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return (offset > 0).then_some(self.at + offset + 1);
            }
        }
        None
    }

    fn integral(&mut self) -> Result<Expr, Reason> {
        let mut bounds = Vec::new();
        if self.take(&MathToken::Underscore) {
            bounds.push(self.argument()?);
            self.expect(&MathToken::Caret)?;
            bounds.push(self.argument()?);
        }
        // The differential ends the integrand.
        let mut depth = 0;
        let end = self.tokens[self.at..].windows(2).position(|pair| {
            match &pair[0] {
                MathToken::Open(_) => depth += 1,
                MathToken::Close(_) => depth -= 1,
                _ => {}
            }
            depth == 0 && is_d(&pair[0]) && matches!(&pair[1], MathToken::Symbol(_))
        });
        let end = self.at + end.ok_or("an integral without its differential")?;
        let integrand = if end == self.at {
            Expr::whole(1)
        } else {
            // The expression ends at a token that cannot be a part of it.
            self.tokens[end] = MathToken::Cell;
            self.nested(|parser| parser.expression(0))?
        };
        if self.at != end {
            return Err("an integral that cannot be read".into());
        }
        self.at += 1;
        let MathToken::Symbol(variable) = self.next()? else { return Err("an integral without its variable".into()) };
        let mut parts = vec![Expr::Symbol(variable)];
        parts.append(&mut bounds);
        parts.push(integrand);
        Ok(Expr::Call(Function::Integral, parts))
    }

    /// The elements after `except`, up to the end of the answer, taken away from a set.
    pub(super) fn exception(&mut self, base: Expr) -> Result<Expr, Reason> {
        let base = match base {
            Expr::Text(text) => {
                named_set(&text).map(Expr::Set).ok_or("an exception from something that is not a set")?
            }
            base => base,
        };
        self.expect(&MathToken::Except)?;
        if let Some(MathToken::Word(word)) = self.peek()
            && matches!(
                word.to_lowercase().as_str(),
                "for" | "at" | "when" | "the number" | "the numbers" | "the point" | "the points" | "possibly"
            )
        {
            self.at += 1;
        }
        let mut items = Vec::new();
        loop {
            let chain = self.nested(Parser::chain)?;
            let last = chain.rest.into_iter().next_back().map_or(chain.first, |(_, side)| side);
            match last.expr {
                Expr::List { open: Bracket::Set, items: inner, .. } => items.extend(inner),
                expr => items.push(Chain::from(Side::from(expr))),
            }
            if !matches!(self.peek(), Some(MathToken::Comma(_))) {
                break;
            }
            while matches!(self.peek(), Some(MathToken::Comma(_))) {
                self.at += 1;
            }
        }
        Ok(Operator::Without.of(base, Expr::List { open: Bracket::Set, items, close: Bracket::Set }))
    }
}

fn is_d(token: &MathToken) -> bool {
    matches!(token, MathToken::Symbol(name) | MathToken::Word(name) if name == "d")
}

fn counting(letter: &str) -> Option<Function> {
    match letter {
        "C" => Some(Function::Binomial),
        "P" | "A" => Some(Function::Permutations),
        _ => None,
    }
}
