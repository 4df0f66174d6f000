//! Letters after a number as units: `5 m`, `5 m/s`, `5\frac{m}{s}`, `5 m s^{-1}`.
//!
//! The same letters may be symbols, so this reading is only tried if the other answer is a number or names a unit. A
//! single letter directly after the number (`5m`) is a unit only if the gold answer has one.

use crate::math::token::{Bracket, MathToken};
use crate::math::unit;

/// The tokens with every such sequence of letters as one word; `apart` are the places with a space before them, which a
/// single letter needs unless `tight`.
pub(super) fn gathered(tokens: Vec<MathToken>, apart: &[usize], tight: bool) -> Vec<MathToken> {
    let mut out = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        let after_quantity = match out.last() {
            Some(MathToken::Number(_) | MathToken::Close(_)) => true,
            Some(MathToken::Symbol(name)) => name == "\\pi",
            _ => false,
        };
        if after_quantity
            && let Some((text, end)) = (UnitReader { tokens: &tokens, apart, tight, at, atoms: 0, letters: 0 }).read()
        {
            out.push(MathToken::Word(text));
            at = end;
            continue;
        }
        out.push(tokens[at].clone());
        at += 1;
    }
    out
}

struct UnitReader<'a> {
    tokens: &'a [MathToken],
    apart: &'a [usize],
    tight: bool,
    at: usize,
    /// Units and powers read so far.
    atoms: usize,
    letters: usize,
}

impl UnitReader<'_> {
    /// The unit and the place after it, if it ends its side and has a letter in it.
    fn read(mut self) -> Option<(String, usize)> {
        let spaced = self.apart.contains(&self.at);
        let text = self.product()?;
        let ends = matches!(
            self.peek(),
            None | Some(
                MathToken::Comma(_) | MathToken::Relation(_) | MathToken::Row | MathToken::Cell | MathToken::End(_)
            ) | Some(MathToken::Close(Bracket::Round | Bracket::Square | Bracket::Set))
        );
        (ends && self.letters > 0 && (spaced || self.tight || self.atoms > 1)).then_some((text, self.at))
    }

    fn peek(&self) -> Option<&MathToken> {
        self.tokens.get(self.at)
    }

    fn take(&mut self, token: &MathToken) -> bool {
        let found = self.peek() == Some(token);
        self.at += usize::from(found);
        found
    }

    /// Units side by side or with a sign between them.
    fn product(&mut self) -> Option<String> {
        let mut text = self.factor()?;
        loop {
            let start = self.at;
            let sign = if self.take(&MathToken::Slash) {
                "/"
            } else if self.take(&MathToken::Times) || self.apart.contains(&self.at) || self.newton_meter() {
                " "
            } else {
                return Some(text);
            };
            match self.factor() {
                Some(factor) => text = format!("{text}{sign}{factor}"),
                None => {
                    self.at = start;
                    return Some(text);
                }
            }
        }
    }

    /// `Nm`: no other two letters are written without a space.
    fn newton_meter(&self) -> bool {
        let letter = |at: usize, name: &str| matches!(self.tokens.get(at), Some(MathToken::Symbol(it)) if it == name);
        letter(self.at - 1, "N") && letter(self.at, "m")
    }

    fn factor(&mut self) -> Option<String> {
        let start = self.at;
        let found = self.factor_here();
        if found.is_none() {
            self.at = start;
        }
        found
    }

    fn factor_here(&mut self) -> Option<String> {
        let token = self.peek()?.clone();
        self.at += 1;
        let name = match token {
            MathToken::Symbol(name) if unit::is_letter(&name) || unit::is_doubtful_letter(&name) => {
                self.letters += 1;
                name
            }
            MathToken::Word(word) if unit::read(&word).1.is_some_and(|it| it.is_known()) => word,
            MathToken::Open(bracket @ (Bracket::Round | Bracket::Group)) => {
                let inner = self.product()?;
                return self.take(&MathToken::Close(bracket)).then_some(inner);
            }
            MathToken::Frac => {
                let (over, under) = (self.factor()?, self.factor()?);
                return Some(format!("{over}/{under}"));
            }
            _ => return None,
        };
        self.atoms += 1;
        if !self.take(&MathToken::Caret) {
            return Some(name);
        }
        self.atoms += 1;
        let group = self.take(&MathToken::Open(Bracket::Group));
        let sign = if self.take(&MathToken::Minus) { "-" } else { "" };
        let Some(MathToken::Number(power)) = self.peek() else { return None };
        let text = format!("{name}^{sign}{}", power.digits);
        self.at += 1;
        (!group || self.take(&MathToken::Close(Bracket::Group))).then_some(text)
    }
}
