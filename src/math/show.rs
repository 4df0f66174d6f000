//! Displays trees as text.

use std::fmt::{Display, Formatter, Result};

use super::token::{Bracket, Joiner, Literal, NamedSet, Relation};
use super::tree::{Chain, Expr, Operator, ParsedAnswer, Side};

impl Display for ParsedAnswer {
    fn fmt(&self, f: &mut Formatter) -> Result {
        let joiner = match self.joiner {
            Some(Joiner::And) => " and ",
            Some(Joiner::Or) => " or ",
            _ => ", ",
        };
        list(f, &self.items, joiner)
    }
}

impl Display for Chain {
    fn fmt(&self, f: &mut Formatter) -> Result {
        write!(f, "{}", self.first)?;
        for (relation, side) in &self.rest {
            write!(f, " {relation} {side}")?;
        }
        Ok(())
    }
}

impl Display for Side {
    fn fmt(&self, f: &mut Formatter) -> Result {
        write!(f, "{}", self.expr)?;
        if self.unit.is_empty() { Ok(()) } else { write!(f, " [{}]", self.unit.trim()) }
    }
}

impl Display for Relation {
    fn fmt(&self, f: &mut Formatter) -> Result {
        f.write_str(match self {
            Relation::Equal => "=",
            Relation::About => "≈",
            Relation::NotEqual => "≠",
            Relation::Less => "<",
            Relation::AtMost => "≤",
            Relation::Greater => ">",
            Relation::AtLeast => "≥",
            Relation::In => "∈",
            Relation::NotIn => "∉",
        })
    }
}

impl Display for Literal {
    fn fmt(&self, f: &mut Formatter) -> Result {
        let text = self.text();
        match self.last_place {
            0 => f.write_str(&text),
            places @ -100..0 if self.decimal => {
                let places = places.unsigned_abs() as usize;
                let padded = format!("{text:0>width$}", width = places + 1);
                let (whole, fraction) = padded.split_at(padded.len() - places);
                write!(f, "{whole}.{fraction}")
            }
            exponent => write!(f, "{text}e{exponent}"),
        }
    }
}

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter) -> Result {
        match self {
            Expr::Number(literal) => write!(f, "{literal}"),
            Expr::Symbol(name) => f.write_str(name.trim_start_matches('\\')),
            Expr::Text(text) => write!(f, "\"{text}\""),
            Expr::Numeral { digits, base } => write!(f, "{digits} in base {base}"),
            Expr::Negative(inner) => {
                f.write_str("-")?;
                inside(f, inner, Operator::Multiply.binding())
            }
            Expr::Percent(inner) => {
                inside(f, inner, Operator::Power.binding())?;
                f.write_str("%")
            }
            Expr::Degrees(inner) => {
                inside(f, inner, Operator::Power.binding())?;
                f.write_str("°")
            }
            Expr::Binary(Operator::Root, radicand, index) if **index == Expr::whole(2) => write!(f, "√({radicand})"),
            Expr::Binary(Operator::Root, radicand, index) => write!(f, "root({radicand}, {index})"),
            Expr::Binary(operator, left, right) => {
                let binding = operator.binding();
                // The operand on the side to which an operator does not associate needs brackets.
                let power = *operator == Operator::Power;
                inside(f, left, binding + u8::from(power))?;
                write!(f, "{operator}")?;
                inside(f, right, binding + u8::from(!power))
            }
            Expr::Call(function, arguments) => {
                write!(f, "{}(", function.name())?;
                list(f, arguments, ", ")?;
                f.write_str(")")
            }
            Expr::Ratio(parts) => list(f, parts, ":"),
            Expr::List { open, items, close } => {
                f.write_str(bracket(*open).0)?;
                list(f, items, ", ")?;
                f.write_str(bracket(*close).1)
            }
            Expr::Where(conditions) => {
                f.write_str("{such that ")?;
                list(f, conditions, " and ")?;
                f.write_str("}")
            }
            Expr::Matrix(rows) => {
                f.write_str("[")?;
                for (index, row) in rows.iter().enumerate() {
                    f.write_str(if index > 0 { "; " } else { "" })?;
                    list(f, row, ", ")?;
                }
                f.write_str("]")
            }
            Expr::Cases(cases) => {
                for (index, (value, condition)) in cases.iter().enumerate() {
                    write!(f, "{}{value} if {condition}", if index > 0 { "; " } else { "" })?;
                }
                Ok(())
            }
            Expr::Set(set) => f.write_str(match set {
                NamedSet::Empty => "∅",
                NamedSet::Naturals => "ℕ",
                NamedSet::Integers => "ℤ",
                NamedSet::Rationals => "ℚ",
                NamedSet::Reals => "ℝ",
                NamedSet::Complex => "ℂ",
            }),
        }
    }
}

impl Display for Operator {
    fn fmt(&self, f: &mut Formatter) -> Result {
        f.write_str(match self {
            Operator::Union => " ∪ ",
            Operator::Intersection => " ∩ ",
            Operator::Without => " ∖ ",
            Operator::Add => " + ",
            Operator::Subtract => " - ",
            Operator::PlusMinus => " ± ",
            Operator::MinusPlus => " ∓ ",
            Operator::Multiply => "·",
            Operator::Apply => "",
            Operator::Divide => "/",
            Operator::Modulo => " mod ",
            Operator::Power => "^",
            Operator::Root => "√",
        })
    }
}

/// In round brackets if it binds less tightly than `min`.
fn inside(f: &mut Formatter, expr: &Expr, min: u8) -> Result {
    let binding = match expr {
        Expr::Binary(Operator::Root, ..) => u8::MAX,
        Expr::Binary(operator, ..) => operator.binding(),
        Expr::Negative(_) => Operator::Add.binding(),
        _ => u8::MAX,
    };
    if binding < min { write!(f, "({expr})") } else { write!(f, "{expr}") }
}

fn bracket(bracket: Bracket) -> (&'static str, &'static str) {
    match bracket {
        Bracket::Round | Bracket::Group => ("(", ")"),
        Bracket::Square => ("[", "]"),
        Bracket::Set => ("{", "}"),
        Bracket::Angle => ("⟨", "⟩"),
        Bracket::Floor => ("⌊", "⌋"),
        Bracket::Ceiling => ("⌈", "⌉"),
    }
}

fn list<T: Display>(f: &mut Formatter, items: &[T], between: &str) -> Result {
    for (index, item) in items.iter().enumerate() {
        write!(f, "{}{item}", if index > 0 { between } else { "" })?;
    }
    Ok(())
}
