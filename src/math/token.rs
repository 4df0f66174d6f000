//! Tokens of a text: from here on, LaTeX and plain text look alike.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::Zero;

use super::function::Function;
use super::limits::{MAX_BITS, Meter, Reason};

#[derive(Clone, Debug, PartialEq)]
pub enum MathToken {
    Number(Literal),
    /// One letter, or a named constant such as `\pi`, with its backslash.
    Symbol(String),
    /// Text that is not a formula: a unit, a name, a choice.
    Word(String),
    /// A numeral with letters as digits, which needs a base: `152A`.
    Digits(String),
    Function(Function),
    Relation(Relation),
    Set(NamedSet),
    Plus,
    Minus,
    PlusMinus,
    MinusPlus,
    Times,
    Slash,
    Caret,
    Underscore,
    Cup,
    Cap,
    Without,
    Bang,
    Colon,
    /// `|`, which opens and closes.
    Bar,
    /// `\mid`, before the condition of a set.
    Such,
    /// Between the items of a list; also `and` and `or`.
    Comma(Joiner),
    Frac,
    Binom,
    /// `a \choose b`, between its arguments.
    Choose,
    Sqrt,
    /// `\pmod`, before a modulus that belongs to the whole side.
    Mod,
    /// `\bmod`, between two numbers.
    Modulo,
    /// `except` and its synonyms: the following elements do not belong to the set.
    Except,
    /// `\forall`
    ForAll,
    /// `\to`
    Arrow,
    /// `\mapsto`
    MapsTo,
    /// `\sum`, `\prod`, `\int` or `\lim`, before its bounds.
    Series(Function),
    Percent,
    Degree,
    /// `'` or `''`: minutes and seconds after degrees, a derivative after a name.
    Prime(usize),
    Currency(char),
    Open(Bracket),
    Close(Bracket),
    Begin(Environment),
    End(Environment),
    /// `&`
    Cell,
    /// `\\`
    Row,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Relation {
    Equal,
    /// `\approx`: right if the decimal is rounded correctly.
    About,
    NotEqual,
    Less,
    AtMost,
    Greater,
    AtLeast,
    In,
    NotIn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NamedSet {
    Empty,
    Naturals,
    Integers,
    Rationals,
    Reals,
    Complex,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bracket {
    Round,
    Square,
    /// `{…}`, which groups.
    Group,
    /// `\{…\}`, which makes a set.
    Set,
    /// `\langle…\rangle`
    Angle,
    Floor,
    Ceiling,
}

/// What joins the items of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Joiner {
    Comma,
    And,
    Or,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Environment {
    Matrix,
    /// A matrix between bars is its determinant.
    Determinant,
    Cases,
    /// Lines of equations.
    Lines,
}

/// A number as written.
#[derive(Clone, Debug, PartialEq)]
pub struct Literal {
    pub digits: BigInt,
    /// Power of ten of the last digit: -2 in `0.25`, 3 in `7e3`.
    pub last_place: i32,
    /// Written with a point: such a number may be a rounded value.
    pub decimal: bool,
    /// Number of written digits, without group separators: 2 in `07`.
    pub written: usize,
}

impl Literal {
    pub fn whole(number: u64) -> Literal {
        Literal { digits: number.into(), last_place: 0, decimal: false, written: 1 }
    }

    pub fn is_integer(&self) -> bool {
        !self.decimal && self.last_place == 0
    }

    pub fn value(&self, meter: &mut Meter) -> Result<BigRational, Reason> {
        if self.last_place == 0 {
            return Ok(BigRational::from_integer(self.digits.clone()));
        }
        // 10 has less than 4 bits.
        let places = self.last_place.unsigned_abs();
        if u64::from(places) * 4 > MAX_BITS {
            return Err("a number is too large".into());
        }
        let scale = BigInt::from(10).pow(places);
        if self.last_place >= 0 {
            meter.ratio(&self.digits * scale, 1.into())
        } else {
            meter.ratio(self.digits.clone(), scale)
        }
    }

    /// Digits from the first nonzero one.
    pub fn significant(&self) -> usize {
        if self.digits.is_zero() { 0 } else { self.digits.magnitude().to_string().len() }
    }

    /// The digits as written, with leading zeros.
    pub fn text(&self) -> String {
        format!("{:0>width$}", self.digits.to_string(), width = self.written)
    }
}
