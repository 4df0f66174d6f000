//! What an answer says about where it holds: `f(x) = 2x \text{ for all } x`, `x + c, c \in \mathbb{R}`.

use crate::math::token::{Joiner, MathToken, NamedSet, Relation};

/// Words that begin such a condition.
const OPENINGS: [&str; 11] =
    ["for all", "for every", "for any", "for each", "for some", "for", "where", "if", "when", "whenever", "provided"];

/// Words with which it holds everywhere, or only names a constant.
const VACUOUS: [&str; 25] = [
    "for",
    "all",
    "every",
    "any",
    "each",
    "some",
    "where",
    "is",
    "are",
    "a",
    "an",
    "the",
    "arbitrary",
    "constant",
    "constants",
    "real",
    "reals",
    "number",
    "numbers",
    "value",
    "values",
    "of",
    "and",
    "parameter",
    "its",
];

/// Takes the condition at the end off the tokens. Returns it as text, if it may restrict the answer.
pub(super) fn taken(tokens: &mut Vec<MathToken>) -> Option<String> {
    let start = start(tokens)?;
    let condition = tokens.split_off(start);
    while matches!(tokens.last(), Some(MathToken::Comma(Joiner::Comma))) {
        tokens.pop();
    }
    (!condition.iter().all(is_vacuous)).then(|| format!("{condition:?}"))
}

/// The place where the condition starts, outside of all brackets and after an answer.
fn start(tokens: &[MathToken]) -> Option<usize> {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            MathToken::Open(_) | MathToken::Begin(_) => depth += 1,
            MathToken::Close(_) | MathToken::End(_) => depth -= 1,
            _ => {}
        }
        if at == 0 {
            continue;
        }
        let opens = match token {
            MathToken::ForAll => true,
            MathToken::Word(word) => {
                let word = word.to_lowercase();
                OPENINGS
                    .iter()
                    .any(|it| word.strip_prefix(it).is_some_and(|rest| rest.is_empty() || rest.starts_with(' ')))
            }
            MathToken::Comma(Joiner::Comma) => names_domain(&tokens[at + 1..], &tokens[..at]),
            MathToken::Open(_) => {
                depth == 1
                    && matches!(tokens.last(), Some(MathToken::Close(_)))
                    && names_domain(&tokens[at + 1..tokens.len() - 1], &tokens[..at])
            }
            _ => false,
        };
        let outside = depth == 0 || matches!(token, MathToken::Open(_));
        if opens && outside {
            return Some(at);
        }
    }
    None
}

/// `x \in \mathbb{R}`, for a name that occurs in the answer.
fn names_domain(rest: &[MathToken], answer: &[MathToken]) -> bool {
    let [name @ MathToken::Symbol(_), MathToken::Relation(Relation::In), MathToken::Set(_)] = rest else {
        return false;
    };
    answer.contains(name) && answer.len() > 1
}

fn is_vacuous(token: &MathToken) -> bool {
    match token {
        MathToken::ForAll | MathToken::Symbol(_) | MathToken::Comma(_) | MathToken::Open(_) | MathToken::Close(_) => {
            true
        }
        MathToken::Relation(Relation::In) | MathToken::Set(NamedSet::Reals) => true,
        MathToken::Word(words) => words.to_lowercase().split(' ').all(|it| VACUOUS.contains(&it) || it.len() == 1),
        _ => false,
    }
}
