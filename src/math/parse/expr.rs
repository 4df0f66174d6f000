//! Parses expressions by binding power.

use super::{Parser, unexpected};
use crate::math::function::Function;
use crate::math::limits::Reason;
use crate::math::token::{Bracket, Joiner, Literal, MathToken};
use crate::math::tree::{Expr, Operator};

/// Binding power of adjacent factors in the argument of a function.
const ARGUMENT: u8 = 4;

impl Parser {
    /// An expression whose operators bind at least as tightly as `min`.
    pub(super) fn expression(&mut self, min: u8) -> Result<Expr, Reason> {
        let left = self.operand()?;
        self.operators(left, min, false)
    }

    /// Continues after `left`; in the argument of a function, a written multiplication sign or another function ends
    /// it.
    fn operators(&mut self, mut left: Expr, min: u8, in_argument: bool) -> Result<Expr, Reason> {
        loop {
            let (operator, written) = match self.peek() {
                Some(MathToken::Percent) => {
                    self.at += 1;
                    left = Expr::Percent(Box::new(left));
                    continue;
                }
                Some(MathToken::Bang) => {
                    self.at += 1;
                    let double = self.take(&MathToken::Bang);
                    let function = if double { Function::DoubleFactorial } else { Function::Factorial };
                    left = Expr::Call(function, vec![left]);
                    continue;
                }
                Some(MathToken::Degree) => {
                    self.at += 1;
                    left = self.degrees(left)?;
                    continue;
                }
                Some(MathToken::Plus) => (Operator::Add, true),
                Some(MathToken::Minus) => (Operator::Subtract, true),
                Some(MathToken::PlusMinus) => (Operator::PlusMinus, true),
                Some(MathToken::MinusPlus) => (Operator::MinusPlus, true),
                Some(MathToken::Times) if in_argument => return Ok(left),
                Some(MathToken::Times) => (Operator::Multiply, true),
                Some(MathToken::Slash) if matches!(self.tokens.get(self.at + 1), Some(MathToken::Word(_))) => {
                    return Ok(left);
                }
                Some(MathToken::Slash) => (Operator::Divide, true),
                Some(MathToken::Modulo) => (Operator::Modulo, true),
                Some(MathToken::Mod) if self.is_remainder(&left) => (Operator::Modulo, true),
                // `10C3`
                Some(MathToken::Symbol(name)) if self.combinations_between(&left) => {
                    let function = if name == "C" { Function::Binomial } else { Function::Permutations };
                    self.at += 1;
                    left = Expr::Call(function, vec![left, self.operand()?]);
                    continue;
                }
                Some(MathToken::Caret) => (Operator::Power, true),
                Some(MathToken::Cup) => (Operator::Union, true),
                Some(MathToken::Cap) => (Operator::Intersection, true),
                Some(MathToken::Without) => (Operator::Without, true),
                Some(MathToken::Choose) => {
                    if min > 0 {
                        return Ok(left);
                    }
                    self.at += 1;
                    let lower = self.nested(|parser| parser.expression(0))?;
                    left = Expr::Call(Function::Binomial, vec![left, lower]);
                    continue;
                }
                Some(MathToken::Function(_)) if in_argument => return Ok(left),
                Some(MathToken::Prime(count)) if matches!(left, Expr::Number(_)) && *count < 3 => {
                    let share = if *count == 1 { 60 } else { 3_600 };
                    self.at += 1;
                    self.degrees = true;
                    left = Operator::Divide.of(left, Expr::whole(share));
                    continue;
                }
                Some(MathToken::Frac) if self.unit_fraction() => return Ok(left),
                // Adjacent quantities are multiplied; a number only if it cannot be a typing error.
                Some(MathToken::Number(_)) if self.after_factor() => (Operator::Multiply, false),
                Some(MathToken::Open(Bracket::Round))
                    if is_function_name(&left)
                        && !matches!(self.tokens.get(self.at + 1), Some(MathToken::Word(_) | MathToken::Mod)) =>
                {
                    (Operator::Apply, false)
                }
                Some(
                    MathToken::Symbol(_)
                    | MathToken::Frac
                    | MathToken::Binom
                    | MathToken::Sqrt
                    | MathToken::Series(_)
                    | MathToken::Function(_),
                ) => (Operator::Multiply, false),
                Some(MathToken::Begin(_)) => (Operator::Multiply, false),
                Some(MathToken::Open(Bracket::Round))
                    if matches!(self.tokens.get(self.at + 1), Some(MathToken::Word(_) | MathToken::Mod)) =>
                {
                    return Ok(left);
                }
                Some(MathToken::Open(Bracket::Group))
                    if matches!(self.tokens.get(self.at + 1), Some(MathToken::Number(_) | MathToken::Close(_))) =>
                {
                    return Ok(left);
                }
                Some(MathToken::Open(_)) => (Operator::Multiply, false),
                Some(MathToken::Bar) if self.bars == 0 => (Operator::Multiply, false),
                _ => return Ok(left),
            };
            let binding = operator.binding();
            if binding < min {
                return Ok(left);
            }
            self.at += usize::from(written);
            let right = match operator {
                Operator::Power => self.nested(|parser| parser.expression(binding))?,
                _ if in_argument => {
                    let operand = self.operand()?;
                    self.operators(operand, binding + 1, true)?
                }
                // All operators except powers associate to the left.
                _ => self.expression(binding + 1)?,
            };
            left = operator.of(left, right);
        }
    }

    /// `10 \mod 7`, a number above its modulus, which stands for the remainder; not in `n \equiv 10 \pmod 7`.
    fn is_remainder(&self, left: &Expr) -> bool {
        let modulus = match &self.tokens[self.at + 1..] {
            [MathToken::Number(modulus), ..] | [MathToken::Open(Bracket::Group), MathToken::Number(modulus), ..] => {
                modulus
            }
            _ => return false,
        };
        let related = self.tokens[..self.at].iter().any(|it| matches!(it, MathToken::Relation(_)));
        let whole = |it: &Literal| it.is_integer();
        matches!(left, Expr::Number(left) if whole(left) && whole(modulus) && left.digits >= modulus.digits && !related)
    }

    fn combinations_between(&self, left: &Expr) -> bool {
        let integer = |it: &Literal| it.is_integer();
        matches!(left, Expr::Number(it) if integer(it))
            && matches!(self.tokens.get(self.at - 1), Some(MathToken::Number(_)))
            && matches!(&self.tokens[self.at..], [MathToken::Symbol(name), MathToken::Number(it), ..] if (name == "C" || name == "P") && integer(it))
    }

    /// Whether a number that comes next is a factor: `(2+3)4`, `\pi 2` and `3!7!`, but not `x2` or `3 4`.
    fn after_factor(&self) -> bool {
        match &self.tokens[self.at - 1] {
            MathToken::Close(bracket) => *bracket != Bracket::Set,
            MathToken::Symbol(name) => name.starts_with('\\'),
            MathToken::Bang => true,
            _ => false,
        }
    }

    /// `\frac{\text{m}}{\text{s}}` is a unit.
    pub(super) fn unit_fraction(&self) -> bool {
        matches!(&self.tokens[self.at..], [MathToken::Frac, MathToken::Open(Bracket::Group), MathToken::Word(_), ..])
    }

    fn operand(&mut self) -> Result<Expr, Reason> {
        match self.next()? {
            MathToken::Number(literal) => self.number(literal),
            MathToken::Digits(digits) => self.numeral(digits),
            MathToken::Symbol(name) => match self.combinations(&name)? {
                Some(call) => Ok(call),
                None => self.subscripted(name),
            },
            MathToken::Series(function) => self.nested(|parser| parser.series(function)),
            MathToken::Caret | MathToken::Underscore => {
                self.at -= 1;
                self.nested(Parser::scripts_in_front)?.ok_or_else(|| "a script without its letter".into())
            }
            MathToken::Function(function) => self.nested(|parser| parser.call(function)),
            MathToken::Set(set) => Ok(Expr::Set(set)),
            MathToken::Plus => self.nested(|parser| parser.expression(Operator::Power.binding())),
            MathToken::Minus => {
                let operand = self.nested(|parser| parser.expression(Operator::Power.binding()))?;
                Ok(Expr::Negative(Box::new(operand)))
            }
            MathToken::PlusMinus => {
                let right = self.nested(|parser| parser.expression(Operator::Multiply.binding()))?;
                Ok(Operator::PlusMinus.of(Expr::whole(0), right))
            }
            MathToken::MinusPlus => {
                let right = self.nested(|parser| parser.expression(Operator::Multiply.binding()))?;
                Ok(Operator::MinusPlus.of(Expr::whole(0), right))
            }
            MathToken::Currency(sign) if self.currency.is_none() => {
                self.currency = Some(sign);
                self.operand()
            }
            MathToken::Frac => {
                let numerator = self.argument()?;
                Ok(Operator::Divide.of(numerator, self.argument()?))
            }
            MathToken::Binom => {
                let upper = self.argument()?;
                Ok(Expr::Call(Function::Binomial, vec![upper, self.argument()?]))
            }
            MathToken::Sqrt => {
                let index = if self.take(&MathToken::Open(Bracket::Square)) {
                    self.until(Bracket::Square)?
                } else {
                    Expr::whole(2)
                };
                let radicand = match self.peek() {
                    Some(MathToken::Open(Bracket::Round | Bracket::Group) | MathToken::Number(_)) => {
                        self.operand_alone()?
                    }
                    _ => self.argument()?,
                };
                Ok(Operator::Root.of(radicand, index))
            }
            MathToken::Bar => {
                let bars = std::mem::replace(&mut self.bars, 1);
                let inner = self.nested(|parser| parser.expression(0))?;
                self.bars = bars;
                self.expect(&MathToken::Bar)?;
                Ok(Expr::Call(Function::Abs, vec![inner]))
            }
            MathToken::Begin(environment) => self.environment(environment),
            MathToken::Open(Bracket::Group) if self.peek() == Some(&MathToken::Close(Bracket::Group)) => {
                self.at -= 1;
                self.nested(Parser::scripts_in_front)?.ok_or_else(|| "an empty group".into())
            }
            MathToken::Open(bracket) => {
                let expr = self.bracket(bracket)?;
                // `(1011)_2`
                match (&expr, self.peek()) {
                    (Expr::Number(literal), Some(MathToken::Underscore)) if literal.is_integer() => {
                        let digits = literal.text();
                        self.numeral(digits)
                    }
                    _ => Ok(expr),
                }
            }
            token => Err(unexpected(&token)),
        }
    }

    /// A function and its argument: in brackets, or the factors up to the next sign.
    fn call(&mut self, function: Function) -> Result<Expr, Reason> {
        let mut base = None;
        let mut power = None;
        loop {
            if self.take(&MathToken::Underscore) {
                base = Some(self.argument()?);
            } else if self.take(&MathToken::Caret) {
                power = Some(self.argument()?);
            } else {
                break;
            }
        }
        if base.is_some() && function != Function::Log {
            return Err(format!("`{}` with an index", function.name()));
        }
        if matches!(self.peek(), Some(MathToken::Relation(_) | MathToken::Colon)) {
            // A label: `\min = 1`.
            return Ok(Expr::Text(function.name().to_string()));
        }
        if function.of_list() {
            return Ok(Expr::Call(function, self.arguments()?));
        }
        let outer = std::mem::replace(&mut self.angle, function.of_angle());
        let argument = self.function_argument();
        self.angle = outer;
        let mut function = function;
        let minus_one = |it: &Expr| matches!(it, Expr::Negative(one) if **one == Expr::whole(1));
        if power.as_ref().is_some_and(minus_one)
            && let Some(inverse) = function.inverse()
        {
            (function, power) = (inverse, None);
        }
        let mut arguments = vec![argument?];
        arguments.extend(base);
        let call = Expr::Call(function, arguments);
        Ok(match power {
            Some(power) => Operator::Power.of(call, power),
            None => call,
        })
    }

    fn function_argument(&mut self) -> Result<Expr, Reason> {
        match self.peek() {
            Some(MathToken::Open(bracket @ (Bracket::Round | Bracket::Square | Bracket::Group))) => {
                let bracket = *bracket;
                self.at += 1;
                let inner = self.until(bracket)?;
                if self.take(&MathToken::Degree) { self.degrees(inner) } else { Ok(inner) }
            }
            Some(MathToken::Minus) => {
                self.at += 1;
                Ok(Expr::Negative(Box::new(self.nested(Parser::function_argument)?)))
            }
            _ => {
                let operand = self.operand()?;
                self.operators(operand, ARGUMENT, true)
            }
        }
    }

    /// The angle whose degrees are `whole`, with the minutes and seconds that may follow.
    fn degrees(&mut self, whole: Expr) -> Result<Expr, Reason> {
        let mut angle = whole;
        for (prime, share) in [(1, 60), (2, 3_600)] {
            if let [MathToken::Number(_), MathToken::Prime(count), ..] = &self.tokens[self.at..]
                && *count == prime
            {
                let MathToken::Number(part) = self.next()? else { unreachable!("it was matched above") };
                self.at += 1;
                angle = Operator::Add.of(angle, Operator::Divide.of(Expr::Number(part), Expr::whole(share)));
            }
        }
        if self.angle {
            return Ok(Expr::Degrees(Box::new(angle)));
        }
        self.degrees = true;
        Ok(angle)
    }

    /// A whole number or a bracket, without the fraction that would make it a mixed number.
    fn operand_alone(&mut self) -> Result<Expr, Reason> {
        match self.next()? {
            MathToken::Number(literal) => Ok(Expr::Number(literal)),
            MathToken::Open(bracket) => self.until(bracket),
            token => Err(unexpected(&token)),
        }
    }

    /// An argument of a command, as TeX reads it: a group, or one digit, letter or command.
    pub(super) fn argument(&mut self) -> Result<Expr, Reason> {
        match self.next()? {
            MathToken::Open(Bracket::Group) => self.until(Bracket::Group),
            MathToken::Symbol(name) => Ok(Expr::Symbol(name)),
            MathToken::Frac | MathToken::Sqrt | MathToken::Binom => {
                self.at -= 1;
                self.nested(Parser::operand)
            }
            MathToken::Number(literal) if literal.is_integer() => {
                let (first, rest) = split(&literal);
                if let Some(rest) = rest {
                    self.at -= 1;
                    self.tokens[self.at] = MathToken::Number(rest);
                }
                Ok(Expr::Number(first))
            }
            MathToken::Number(literal) => Ok(Expr::Number(literal)),
            token => Err(unexpected(&token)),
        }
    }

    /// A number, and the fraction after it if the two make a mixed number: `1\frac{4}{5}` and `1 4/5` are 9/5.
    fn number(&mut self, literal: Literal) -> Result<Expr, Reason> {
        if self.peek() == Some(&MathToken::Underscore) && (literal.decimal || literal.is_integer()) {
            return self.numeral(literal.to_string());
        }
        if !literal.is_integer() {
            return Ok(Expr::Number(literal));
        }
        let (over, under) = match &self.tokens[self.at..] {
            [MathToken::Frac, rest @ ..] if starts_with_two_integers(rest) => {
                self.at += 1;
                (self.argument()?, self.argument()?)
            }
            [MathToken::Number(over), MathToken::Slash, MathToken::Number(under), ..] => {
                let parts = (Expr::Number(over.clone()), Expr::Number(under.clone()));
                self.at += 3;
                parts
            }
            _ => return Ok(Expr::Number(literal)),
        };
        match (&over, &under) {
            (Expr::Number(a), Expr::Number(b)) if a.is_integer() && b.is_integer() && a.digits < b.digits => {
                Ok(Operator::Add.of(Expr::Number(literal), Operator::Divide.of(over, under)))
            }
            _ => Err("a mixed number without a proper fraction".into()),
        }
    }

    /// Digits, and the base that follows as a subscript.
    fn numeral(&mut self, digits: String) -> Result<Expr, Reason> {
        self.expect(&MathToken::Underscore)?;
        let group = self.take(&MathToken::Open(Bracket::Group));
        let round = group && self.take(&MathToken::Open(Bracket::Round));
        let base = match self.next()? {
            MathToken::Number(literal) if literal.is_integer() => u32::try_from(&literal.digits).ok(),
            MathToken::Word(word) => {
                const NAMES: [&str; 17] = [
                    "", "", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
                    "", "", "", "sixteen",
                ];
                NAMES.iter().position(|it| *it == word.to_lowercase()).map(|it| it as u32)
            }
            _ => None,
        };
        if round {
            self.expect(&MathToken::Close(Bracket::Round))?;
        }
        if group {
            self.expect(&MathToken::Close(Bracket::Group))?;
        }
        let base = base.filter(|it| (2..=36).contains(it)).ok_or("a number with an index that is not a base")?;
        Ok(Expr::Numeral { digits, base })
    }

    /// A name with the subscript and the primes that may follow it, as one symbol.
    pub(super) fn subscripted(&mut self, mut name: String) -> Result<Expr, Reason> {
        while let Some(MathToken::Prime(count)) = self.peek() {
            name.push_str(&"'".repeat(*count));
            self.at += 1;
        }
        // `f(2)` is not two times `f`.
        if matches!(name.as_str(), "f" | "g" | "h")
            && let [MathToken::Open(Bracket::Round), MathToken::Number(literal), MathToken::Close(Bracket::Round), ..] =
                &self.tokens[self.at..]
        {
            name.push_str(&format!("({literal})"));
            self.at += 3;
        }
        if self.take(&MathToken::Underscore) {
            let group = self.take(&MathToken::Open(Bracket::Group));
            name.push('_');
            loop {
                match self.next()? {
                    MathToken::Number(literal) if literal.is_integer() => name.push_str(&literal.text()),
                    MathToken::Symbol(part) | MathToken::Word(part) => name.push_str(&part),
                    MathToken::Plus if group => name.push('+'),
                    MathToken::Minus if group => name.push('-'),
                    MathToken::Comma(Joiner::Comma) if group => name.push(','),
                    token => return Err(unexpected(&token)),
                }
                if !group || self.take(&MathToken::Close(Bracket::Group)) {
                    break;
                }
            }
        }
        Ok(Expr::Symbol(name))
    }
}

/// Names that are more likely applied to the content of brackets than multiplied by it.
fn is_function_name(expr: &Expr) -> bool {
    match expr {
        Expr::Symbol(name) => name.trim_end_matches('\'').len() == 1 && "fghpqrsuvyFGHPQRST".contains(&name[..1]),
        Expr::Binary(Operator::Power, base, _) => is_function_name(base),
        _ => false,
    }
}

/// Whether these tokens are two whole numbers as arguments: `{4}{5}`, `45`, `4{5}` or `{4}5`.
fn starts_with_two_integers(tokens: &[MathToken]) -> bool {
    use MathToken::{Close, Number, Open};
    let second = match tokens {
        [Number(both), ..] if both.is_integer() && both.written > 1 => return true,
        [Number(first), rest @ ..] if first.is_integer() => rest,
        [Open(Bracket::Group), Number(first), Close(Bracket::Group), rest @ ..] if first.is_integer() => rest,
        _ => return false,
    };
    match second {
        [Number(it), ..] | [Open(Bracket::Group), Number(it), Close(Bracket::Group), ..] => it.is_integer(),
        _ => false,
    }
}

/// The first digit of a number, and the others.
fn split(literal: &Literal) -> (Literal, Option<Literal>) {
    let text = literal.text();
    let part = |digits: &str| Literal {
        digits: digits.parse().expect("only digits"),
        last_place: 0,
        decimal: false,
        written: digits.len(),
    };
    (part(&text[..1]), (text.len() > 1).then(|| part(&text[1..])))
}
