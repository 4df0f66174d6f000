//! Arithmetic of matrices and vectors, as it occurs in answers: sums, and products with numbers.

use super::claim::ClaimItem;
use super::limits::{Meter, Reason};
use super::quantity::Quantity;
use super::token::Bracket;
use super::tree::{Expr, Operator};
use super::value::Value;

enum Tensor {
    Number(Value),
    Rows(Vec<Vec<Value>>),
}

pub fn item(expr: &Expr, meter: &mut Meter) -> Result<ClaimItem, Reason> {
    let cell = |value| ClaimItem::Quantity(Box::new(Quantity::exact(value)));
    Ok(match tensor(expr, meter)? {
        Tensor::Number(value) => cell(value),
        Tensor::Rows(rows) => {
            ClaimItem::Matrix(rows.into_iter().map(|row| row.into_iter().map(cell).collect()).collect())
        }
    })
}

fn tensor(expr: &Expr, meter: &mut Meter) -> Result<Tensor, Reason> {
    Ok(match expr {
        Expr::Matrix(rows) => {
            let mut values = Vec::new();
            for row in rows {
                values.push(row.iter().map(|it| Value::of(it, meter)).collect::<Result<Vec<_>, _>>()?);
            }
            Tensor::Rows(values)
        }
        // A column, as in `(1, 2) + t (3, 4)`.
        Expr::List { open: Bracket::Round | Bracket::Angle, items, .. } => {
            let mut rows = Vec::new();
            for chain in items {
                if !chain.rest.is_empty() || !chain.first.unit.is_empty() {
                    return Err("a vector with an entry that is not a number".into());
                }
                rows.push(vec![Value::of(&chain.first.expr, meter)?]);
            }
            Tensor::Rows(rows)
        }
        Expr::Binary(Operator::Power, inner, power) if is_transpose(power) => transposed(inner, meter)?,
        Expr::Negative(inner) => scale(Tensor::Number(Value::integer(-1)), tensor(inner, meter)?, meter)?,
        Expr::Binary(operator, left, right) => {
            let (left, right) = (tensor(left, meter)?, tensor(right, meter)?);
            match (operator, left, right) {
                (Operator::Add, left, right) => add(left, right, meter)?,
                (Operator::Subtract, left, right) => {
                    let negative = scale(Tensor::Number(Value::integer(-1)), right, meter)?;
                    add(left, negative, meter)?
                }
                (Operator::Multiply | Operator::Apply, left, right) => scale(left, right, meter)?,
                (Operator::Divide, left, Tensor::Number(value)) => {
                    scale(left, Tensor::Number(value.inverse(meter)?), meter)?
                }
                (Operator::Power, Tensor::Number(base), Tensor::Number(power)) => {
                    Tensor::Number(base.power(&power, meter)?)
                }
                (Operator::Root, Tensor::Number(base), Tensor::Number(index)) => {
                    Tensor::Number(base.power(&index.inverse(meter)?, meter)?)
                }
                _ => return Err("an unsupported operation on matrices".into()),
            }
        }
        _ => Tensor::Number(Value::of(expr, meter)?),
    })
}

/// The exponent of a transposed matrix.
fn is_transpose(power: &Expr) -> bool {
    matches!(power, Expr::Symbol(name) if name == "T" || name == "\\top")
}

/// A transposed list is a column, whichever brackets it has.
fn transposed(expr: &Expr, meter: &mut Meter) -> Result<Tensor, Reason> {
    let columns = match expr {
        Expr::List { open: Bracket::Square, items, .. } => {
            let list = Expr::List { open: Bracket::Round, items: items.clone(), close: Bracket::Round };
            return tensor(&list, meter);
        }
        Expr::List { .. } => return tensor(expr, meter),
        _ => match tensor(expr, meter)? {
            Tensor::Rows(rows) => rows,
            Tensor::Number(_) => return Err("a transposed number".into()),
        },
    };
    let width = columns.first().map_or(0, Vec::len);
    Ok(Tensor::Rows((0..width).map(|at| columns.iter().map(|row| row[at].clone()).collect()).collect()))
}

fn scale(left: Tensor, right: Tensor, meter: &mut Meter) -> Result<Tensor, Reason> {
    Ok(match (left, right) {
        (Tensor::Number(one), Tensor::Number(other)) => Tensor::Number(one.times(&other, meter)?),
        (Tensor::Number(number), Tensor::Rows(mut rows)) | (Tensor::Rows(mut rows), Tensor::Number(number)) => {
            for value in rows.iter_mut().flatten() {
                *value = value.times(&number, meter)?;
            }
            Tensor::Rows(rows)
        }
        _ => return Err("a product of matrices".into()),
    })
}

fn add(left: Tensor, right: Tensor, meter: &mut Meter) -> Result<Tensor, Reason> {
    match (left, right) {
        (Tensor::Number(one), Tensor::Number(other)) => Ok(Tensor::Number(one.plus(&other, meter)?)),
        (Tensor::Rows(mut one), Tensor::Rows(other)) => {
            if one.len() != other.len() || one[0].len() != other[0].len() {
                return Err("a sum of matrices of different shapes".into());
            }
            for (row, others) in one.iter_mut().zip(&other) {
                for (value, other) in row.iter_mut().zip(others) {
                    *value = value.plus(other, meter)?;
                }
            }
            Ok(Tensor::Rows(one))
        }
        _ => Err("a sum of a number and a matrix".into()),
    }
}
