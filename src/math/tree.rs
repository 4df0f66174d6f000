//! The tree of an answer: expressions, and the chains, lists, units and text around them.

use super::token::{Bracket, Literal};

/// Sides joined by `=`; one side where there is none.
pub type Chain = Vec<Side>;

#[derive(Clone, Debug, PartialEq)]
pub enum Side {
    Quantity {
        expr: Expr,
        /// As it was written; empty for none.
        unit: String,
    },
    Text(String),
    Sequence(Sequence),
}

/// Items between brackets: a tuple or an interval in round and square ones, a set in braces.
#[derive(Clone, Debug, PartialEq)]
pub struct Sequence {
    pub open: Bracket,
    pub items: Vec<Chain>,
    pub close: Bracket,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    Number(Literal),
    Symbol(String),
    Negative(Box<Expr>),
    Percent(Box<Expr>),
    Binary(Operator, Box<Expr>, Box<Expr>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    Add,
    Subtract,
    PlusMinus,
    Multiply,
    Divide,
    Power,
    /// The radicand, then the index.
    Root,
}

impl Operator {
    pub fn of(self, left: Expr, right: Expr) -> Expr {
        Expr::Binary(self, Box::new(left), Box::new(right))
    }

    /// A larger number binds more tightly.
    pub fn binding(self) -> u8 {
        match self {
            Operator::Add | Operator::Subtract | Operator::PlusMinus => 1,
            Operator::Multiply | Operator::Divide => 2,
            Operator::Power | Operator::Root => 3,
        }
    }
}

impl Side {
    /// Whether ± occurs in it: then it stands for two values.
    pub fn has_plus_minus(&self) -> bool {
        matches!(self, Side::Quantity { expr, .. } if expr.has_plus_minus())
    }

    /// The side with `sign` for every ±.
    pub fn with_sign(&self, sign: Operator) -> Side {
        match self {
            Side::Quantity { expr, unit } => Side::Quantity { expr: expr.with_sign(sign), unit: unit.clone() },
            _ => self.clone(),
        }
    }
}

impl Expr {
    fn has_plus_minus(&self) -> bool {
        match self {
            Expr::Number(_) | Expr::Symbol(_) => false,
            Expr::Negative(inner) | Expr::Percent(inner) => inner.has_plus_minus(),
            Expr::Binary(operator, left, right) => {
                *operator == Operator::PlusMinus || left.has_plus_minus() || right.has_plus_minus()
            }
        }
    }

    /// The expression with `sign` for every ±.
    fn with_sign(&self, sign: Operator) -> Expr {
        let boxed = |inner: &Expr| Box::new(inner.with_sign(sign));
        match self {
            Expr::Number(_) | Expr::Symbol(_) => self.clone(),
            Expr::Negative(inner) => Expr::Negative(boxed(inner)),
            Expr::Percent(inner) => Expr::Percent(boxed(inner)),
            Expr::Binary(operator, left, right) => {
                let operator = if *operator == Operator::PlusMinus { sign } else { *operator };
                Expr::Binary(operator, boxed(left), boxed(right))
            }
        }
    }
}
