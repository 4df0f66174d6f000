//! The functions that can occur in answers.

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Function {
    Sin,
    Cos,
    Tan,
    Cot,
    Sec,
    Csc,
    Arcsin,
    Arccos,
    Arctan,
    Arccot,
    Arcsec,
    Arccsc,
    Sinh,
    Cosh,
    Tanh,
    Coth,
    Sech,
    Csch,
    Arsinh,
    Arcosh,
    Artanh,
    Exp,
    /// The natural logarithm.
    Ln,
    /// The argument, then the base; the default base is ten.
    Log,
    Abs,
    Floor,
    Ceiling,
    Factorial,
    DoubleFactorial,
    Binomial,
    /// Ordered selections without repetition.
    Permutations,
    /// The variable, its bounds, and the term.
    Sum,
    /// Like [`Function::Sum`].
    Product,
    /// The variable, the bounds if there are any, and the integrand.
    Integral,
    /// The variable, what it tends to, and the expression.
    Limit,
    /// The entries of its matrix, row by row.
    Determinant,
    Gcd,
    Lcm,
    Max,
    Min,
}

use Function::*;

/// Every function with its spellings; the first one is used for display.
const NAMES: [(Function, &[&str]); 30] = [
    (Arcsin, &["arcsin", "asin"]),
    (Arccos, &["arccos", "acos"]),
    (Arctan, &["arctan", "atan", "arctg"]),
    (Arccot, &["arccot", "acot", "arcctg"]),
    (Arcsec, &["arcsec"]),
    (Arccsc, &["arccsc"]),
    (Arsinh, &["arsinh", "arcsinh", "asinh"]),
    (Arcosh, &["arcosh", "arccosh", "acosh"]),
    (Artanh, &["artanh", "arctanh", "atanh"]),
    (Sinh, &["sinh"]),
    (Cosh, &["cosh"]),
    (Tanh, &["tanh"]),
    (Coth, &["coth"]),
    (Sech, &["sech"]),
    (Csch, &["csch"]),
    (Sin, &["sin"]),
    (Cos, &["cos"]),
    (Tan, &["tan", "tg"]),
    (Cot, &["cot", "ctg", "cotan"]),
    (Sec, &["sec"]),
    (Csc, &["csc", "cosec"]),
    (Exp, &["exp"]),
    (Ln, &["ln"]),
    (Log, &["log", "lg"]),
    (Abs, &["abs"]),
    (Floor, &["floor"]),
    (Ceiling, &["ceil"]),
    (Gcd, &["gcd"]),
    (Lcm, &["lcm"]),
    (Max, &["max"]),
];

impl Function {
    pub fn named(name: &str) -> Option<Function> {
        if name == "min" {
            return Some(Min);
        }
        NAMES.iter().find(|(_, names)| names.contains(&name)).map(|(function, _)| *function)
    }

    pub fn name(self) -> &'static str {
        match self {
            Factorial => "factorial",
            DoubleFactorial => "double-factorial",
            Binomial => "binomial",
            Permutations => "permutations",
            Sum => "sum",
            Product => "product",
            Integral => "integral",
            Limit => "limit",
            Determinant => "determinant",
            Min => "min",
            _ => NAMES.iter().find(|(function, _)| *function == self).map_or("", |(_, names)| names[0]),
        }
    }

    /// `f^{-1}`, if it is not one over `f`.
    pub fn inverse(self) -> Option<Function> {
        Some(match self {
            Sin => Arcsin,
            Cos => Arccos,
            Tan => Arctan,
            Cot => Arccot,
            Sec => Arcsec,
            Csc => Arccsc,
            Sinh => Arsinh,
            Cosh => Arcosh,
            Tanh => Artanh,
            _ => return None,
        })
    }

    /// Whether its argument is an angle.
    pub fn of_angle(self) -> bool {
        matches!(self, Sin | Cos | Tan | Cot | Sec | Csc)
    }

    /// Whether its first argument is a variable that is bound in it.
    pub fn binds(self) -> bool {
        matches!(self, Sum | Product | Integral | Limit)
    }

    /// Whether its argument is a list in brackets.
    pub fn of_list(self) -> bool {
        matches!(self, Gcd | Lcm | Max | Min)
    }
}
