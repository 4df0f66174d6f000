//! The tree of an answer: expressions, and the chains, lists, units and text around them.

use super::function::Function;
use super::token::{Bracket, Joiner, Literal, NamedSet, Relation};

/// A whole answer: one item, or a list of them.
#[derive(Clone, Debug, PartialEq)]
pub struct ParsedAnswer {
    pub items: Vec<Chain>,
    /// The strongest joiner between the items; `None` for a single item.
    pub joiner: Option<Joiner>,
    /// Where the answer holds, if this may restrict it; as text.
    pub condition: Option<String>,
}

/// Sides joined by relations; one side if there is no relation.
#[derive(Clone, Debug, PartialEq)]
pub struct Chain {
    pub first: Side,
    pub rest: Vec<(Relation, Side)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Side {
    pub expr: Expr,
    /// As written; empty if there is none.
    pub unit: String,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    Number(Literal),
    Symbol(String),
    Text(String),
    /// Digits in a base, such as `1011_2`.
    Numeral {
        digits: String,
        base: u32,
    },
    Negative(Box<Expr>),
    Percent(Box<Expr>),
    /// An angle in degrees inside a function.
    Degrees(Box<Expr>),
    Binary(Operator, Box<Expr>, Box<Expr>),
    Call(Function, Vec<Expr>),
    /// `3:4:5`, and times of the day.
    Ratio(Vec<Expr>),
    /// Items in brackets: a tuple or an interval in round and square ones, a set in braces.
    List {
        open: Bracket,
        items: Vec<Chain>,
        close: Bracket,
    },
    /// `\{x \mid x > 2\}`: the conditions.
    Where(Vec<Chain>),
    Matrix(Vec<Vec<Expr>>),
    /// Values, each with the condition under which it holds.
    Cases(Vec<(Chain, Chain)>),
    Set(NamedSet),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    Union,
    Intersection,
    Without,
    Add,
    Subtract,
    PlusMinus,
    MinusPlus,
    Multiply,
    /// `f(x)`: a product, unless it is the name of what follows an equals sign.
    Apply,
    Divide,
    /// The remainder of a division.
    Modulo,
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
            Operator::Union | Operator::Without => 1,
            Operator::Intersection => 2,
            Operator::Add | Operator::Subtract | Operator::PlusMinus | Operator::MinusPlus => 3,
            Operator::Multiply | Operator::Apply | Operator::Divide | Operator::Modulo => 4,
            Operator::Power | Operator::Root => 5,
        }
    }
}

impl Chain {
    pub fn sides(&self) -> impl Iterator<Item = &Side> {
        std::iter::once(&self.first).chain(self.rest.iter().map(|(_, side)| side))
    }

    /// Whether it contains ±, so that it represents two values.
    pub fn has_plus_minus(&self) -> bool {
        self.sides()
            .any(|side| side.expr.any(&|it| matches!(it, Expr::Binary(Operator::PlusMinus | Operator::MinusPlus, ..))))
    }

    /// The chain with one of the two signs for every ±, and the other for every ∓.
    pub fn with_sign(&self, plus: bool) -> Chain {
        let side = |side: &Side| Side { expr: side.expr.with_sign(plus), unit: side.unit.clone() };
        Chain { first: side(&self.first), rest: self.rest.iter().map(|(it, other)| (*it, side(other))).collect() }
    }
}

impl From<Side> for Chain {
    fn from(first: Side) -> Chain {
        Chain { first, rest: Vec::new() }
    }
}

impl From<Expr> for Side {
    fn from(expr: Expr) -> Side {
        Side { expr, unit: String::new() }
    }
}

impl Expr {
    pub fn whole(number: u64) -> Expr {
        Expr::Number(Literal::whole(number))
    }

    /// Whether `test` holds for one of its nodes, except in lists: their items are separate answers.
    pub fn any(&self, test: &impl Fn(&Expr) -> bool) -> bool {
        test(self)
            || match self {
                Expr::Negative(inner) | Expr::Percent(inner) | Expr::Degrees(inner) => inner.any(test),
                Expr::Binary(_, left, right) => left.any(test) || right.any(test),
                Expr::Call(_, parts) | Expr::Ratio(parts) => parts.iter().any(|it| it.any(test)),
                Expr::Matrix(rows) => rows.iter().flatten().any(|it| it.any(test)),
                Expr::Number(_) | Expr::Symbol(_) | Expr::Text(_) | Expr::Numeral { .. } => false,
                Expr::List { .. } | Expr::Where(_) | Expr::Cases(_) | Expr::Set(_) => false,
            }
    }

    /// The expression with another name for the symbol `from`.
    pub fn renamed(&self, from: &str, to: &str) -> Expr {
        let boxed = |inner: &Expr| Box::new(inner.renamed(from, to));
        let each = |parts: &[Expr]| parts.iter().map(|it| it.renamed(from, to)).collect();
        match self {
            Expr::Symbol(name) if name == from => Expr::Symbol(to.to_string()),
            Expr::Negative(inner) => Expr::Negative(boxed(inner)),
            Expr::Percent(inner) => Expr::Percent(boxed(inner)),
            Expr::Degrees(inner) => Expr::Degrees(boxed(inner)),
            Expr::Binary(operator, left, right) => Expr::Binary(*operator, boxed(left), boxed(right)),
            Expr::Call(function, parts) => Expr::Call(*function, each(parts)),
            Expr::Ratio(parts) => Expr::Ratio(each(parts)),
            Expr::Matrix(rows) => Expr::Matrix(rows.iter().map(|row| each(row)).collect()),
            _ => self.clone(),
        }
    }

    fn with_sign(&self, plus: bool) -> Expr {
        let boxed = |inner: &Expr| Box::new(inner.with_sign(plus));
        let each = |parts: &[Expr]| parts.iter().map(|it| it.with_sign(plus)).collect();
        match self {
            Expr::Negative(inner) => Expr::Negative(boxed(inner)),
            Expr::Percent(inner) => Expr::Percent(boxed(inner)),
            Expr::Degrees(inner) => Expr::Degrees(boxed(inner)),
            Expr::Binary(operator, left, right) => {
                let operator = match operator {
                    Operator::PlusMinus if plus => Operator::Add,
                    Operator::MinusPlus if !plus => Operator::Add,
                    Operator::PlusMinus | Operator::MinusPlus => Operator::Subtract,
                    other => *other,
                };
                Expr::Binary(operator, boxed(left), boxed(right))
            }
            Expr::Call(function, parts) => Expr::Call(*function, each(parts)),
            Expr::Ratio(parts) => Expr::Ratio(each(parts)),
            Expr::Matrix(rows) => Expr::Matrix(rows.iter().map(|row| each(row)).collect()),
            _ => self.clone(),
        }
    }
}
