//! Converts expressions to canonical values: equal expressions become equal values.
//!
//! A value is a quotient of two sums ([`sum`]). Integer powers of primes are part of the coefficients and only
//! fractional ones (`2^{1/2}`, `5^{2/3}`) remain in the products. Such products are linearly independent over the
//! rationals (Besicovitch 1940), so two sums of roots of rationals are equal exactly if their maps are: `2\sqrt{3}` and
//! `\sqrt{12}` are both {3^{1/2}: 2}. Symbols commute; a root of a sum, a function and a power with a symbol in the
//! exponent are separate bases, and if these occur, different forms may still be equal ([`super::equal`]).

mod call;
mod infinite;
mod power;
mod root;
mod series;
mod sum;

use num_rational::BigRational;
use num_traits::One;

use super::function::Function;
use super::limits::{Meter, Reason};
use super::tree::{Expr, Operator};

pub use sum::{Base, PowerProduct, Sum};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Value {
    pub over: Sum,
    /// Never zero; one, if it has a single term.
    pub under: Sum,
}

/// The beginning of the names that replace bound variables: the same for all spellings of a variable.
pub const BOUND: &str = "\\bound";

/// Values of some symbols: empty, unless an expression is evaluated at a point.
pub type SymbolValues<'a> = &'a [(String, BigRational)];

impl Value {
    pub fn of(expr: &Expr, meter: &mut Meter) -> Result<Value, Reason> {
        match Value::infinite(expr, meter) {
            Some(value) => value,
            None => Value::at(expr, &[], meter),
        }
    }

    /// The value with numbers for the symbols of `point`.
    pub fn at(expr: &Expr, point: SymbolValues, meter: &mut Meter) -> Result<Value, Reason> {
        let mut of = |inner: &Expr| Value::at(inner, point, meter);
        Ok(match expr {
            Expr::Number(literal) => Value::rational(literal.value(meter)?),
            Expr::Symbol(name) if name == "i" || name == "\\imath" => Value::base(Base::Imaginary),
            Expr::Symbol(name) => match point.iter().find(|(symbol, _)| symbol == name) {
                Some((_, number)) => Value::rational(number.clone()),
                None => Value::symbol(name),
            },
            Expr::Numeral { digits, base } => numeral(digits, *base)?,
            Expr::Negative(inner) => of(inner)?.negative(),
            Expr::Percent(inner) => {
                let hundredth = Value::rational(BigRational::new(1.into(), 100.into()));
                of(inner)?.times(&hundredth, meter)?
            }
            Expr::Degrees(inner) => {
                let degree =
                    Value::symbol("\\pi").times(&Value::rational(BigRational::new(1.into(), 180.into())), meter)?;
                Value::at(inner, point, meter)?.times(&degree, meter)?
            }
            Expr::Binary(operator, left, right) => {
                let (left, right) = (of(left)?, of(right)?);
                match operator {
                    Operator::Add => left.plus(&right, meter)?,
                    Operator::Subtract => left.plus(&right.negative(), meter)?,
                    Operator::Multiply | Operator::Apply => left.times(&right, meter)?,
                    Operator::Divide => left.times(&right.inverse(meter)?, meter)?,
                    Operator::Modulo => left.remainder(&right)?,
                    Operator::Power => left.power(&right, meter)?,
                    Operator::Root => left.power(&right.inverse(meter)?, meter)?,
                    _ => return Err("a sign that is not arithmetic".into()),
                }
            }
            Expr::Call(function, arguments) if function.binds() => Value::series(*function, arguments, point, meter)?,
            Expr::Call(function, arguments) => {
                let arguments = arguments.iter().map(of).collect::<Result<Vec<_>, _>>()?;
                Value::call(*function, arguments, meter)?
            }
            Expr::Text(text) => return Err(format!("the word `{text}` in an expression")),
            Expr::Ratio(_) => return Err("a ratio inside an expression".into()),
            Expr::List { .. } | Expr::Where(_) | Expr::Matrix(_) | Expr::Cases(_) | Expr::Set(_) => {
                return Err("a list inside an expression".into());
            }
        })
    }

    pub fn rational(value: BigRational) -> Value {
        Value::from(Sum::rational(value))
    }

    pub fn integer(value: i64) -> Value {
        Value::rational(BigRational::from_integer(value.into()))
    }

    pub fn symbol(name: &str) -> Value {
        Value::base(Base::Symbol(name.to_string()))
    }

    fn base(base: Base) -> Value {
        Value::from(Sum::base(base))
    }

    /// The two values are equal by the rules of arithmetic.
    pub fn equals(&self, other: &Value, meter: &mut Meter) -> Result<bool, Reason> {
        if self.under == other.under {
            return Ok(self.over == other.over);
        }
        Ok(self.over.times(&other.under, meter)? == other.over.times(&self.under, meter)?)
    }

    /// A rational number, if it is one.
    pub fn as_rational(&self) -> Option<BigRational> {
        self.under.is_one().then(|| self.over.as_rational()).flatten()
    }

    /// Whether every base of it satisfies `test`, including the bases inside roots and functions.
    pub fn all_bases(&self, test: &impl Fn(&Base) -> bool) -> bool {
        self.over.all_bases(test) && self.under.all_bases(test)
    }

    /// A single number: its only symbols are π and e.
    pub fn is_constant(&self) -> bool {
        self.all_bases(&|base| match base {
            Base::Symbol(name) => is_constant(name),
            _ => true,
        })
    }

    /// The symbols that can have any value, in order.
    pub fn symbols(&self) -> Vec<String> {
        let found = std::cell::RefCell::new(std::collections::BTreeSet::new());
        self.all_bases(&|base| {
            if let Base::Symbol(name) = base
                && !is_constant(name)
            {
                found.borrow_mut().insert(name.clone());
            }
            true
        });
        found.into_inner().into_iter().collect()
    }

    pub fn negative(mut self) -> Value {
        self.over = self.over.negative();
        self
    }

    pub fn plus(&self, other: &Value, meter: &mut Meter) -> Result<Value, Reason> {
        if self.under == other.under {
            return Value::quotient(self.over.plus(&other.over, meter)?, self.under.clone(), meter);
        }
        let left = self.over.times(&other.under, meter)?;
        let right = other.over.times(&self.under, meter)?;
        Value::quotient(left.plus(&right, meter)?, self.under.times(&other.under, meter)?, meter)
    }

    pub fn minus(&self, other: &Value, meter: &mut Meter) -> Result<Value, Reason> {
        self.plus(&other.clone().negative(), meter)
    }

    pub fn times(&self, other: &Value, meter: &mut Meter) -> Result<Value, Reason> {
        Value::quotient(self.over.times(&other.over, meter)?, self.under.times(&other.under, meter)?, meter)
    }

    pub fn inverse(self, meter: &mut Meter) -> Result<Value, Reason> {
        Value::quotient(self.under, self.over, meter)
    }

    fn quotient(over: Sum, under: Sum, meter: &mut Meter) -> Result<Value, Reason> {
        if under.0.is_empty() {
            return Err("division by zero".into());
        }
        let Some((product, coefficient)) = under.single() else { return Ok(Value { over, under }) };
        if product.is_empty() && coefficient.is_one() {
            return Ok(Value { over, under });
        }
        let flipped = product.iter().map(|(base, exponent)| (base.clone(), -exponent)).collect();
        let inverse = Sum::term(flipped, meter.pow(coefficient, -1)?, meter)?;
        Ok(Value::from(over.times(&inverse, meter)?))
    }
}

impl From<Sum> for Value {
    fn from(over: Sum) -> Value {
        Value { over, under: Sum::rational(BigRational::one()) }
    }
}

/// Whether a symbol is the name of a real number.
pub fn is_constant(name: &str) -> bool {
    name == "\\pi" || name == "e" || name.starts_with(BOUND)
}

/// The value of digits in a base, which may contain a point.
fn numeral(digits: &str, base: u32) -> Result<Value, Reason> {
    let mut value = num_bigint::BigInt::ZERO;
    let mut scale = num_bigint::BigInt::one();
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    for digit in whole.chars().chain(fraction.chars()) {
        value =
            value * base + digit.to_digit(base).ok_or_else(|| format!("`{digit}` is not a digit in base {base}"))?;
    }
    for _ in fraction.chars() {
        scale *= base;
    }
    Ok(Value::rational(BigRational::new(value, scale)))
}

/// A function of one argument as a separate base.
fn call_of(function: Function, argument: Value) -> Value {
    Value::base(Base::Call(function, vec![argument]))
}
