//! The operator `%` of strings (`'%s: %s' % (role, text)`), which the template engine does not have.
//!
//! It becomes a call of [`FUNCTION`] in the template's source. Only operators whose left side may be a string are changed: those
//! after a string literal, and those whose right side is not a number.

use std::borrow::Cow;
use std::ops::Range;

/// The function that replaces the operator.
pub(super) const FUNCTION: &str = "__mod__";

/// The source of a template with function calls instead of operators.
pub(super) fn without_operators(source: &str) -> Cow<'_, str> {
    let mut text = String::new();
    let mut copied = 0;
    let mut position = 0;
    while let Some(start) = source[position..].find('{').map(|at| position + at) {
        let opening = source.get(start..start + 2).unwrap_or_default();
        let end = match opening {
            "{#" => source[start..].find("#}").map_or(source.len(), |at| start + at + 2),
            "{{" | "{%" => {
                let (tokens, end) = tokens(source, start + 2, if opening == "{{" { "}}" } else { "%}" });
                let is_raw = opening == "{%" && tokens.first().is_some_and(|it| source[it.clone()] == *"raw");
                if is_raw {
                    after_raw(source, end)
                } else {
                    // The first word of a statement is not part of an expression.
                    let first = usize::from(opening == "{%");
                    let tokens = tokens.get(first..).unwrap_or_default();
                    if let (Some(from), Some(to)) = (tokens.first(), tokens.last())
                        && tokens.iter().any(|it| source[it.clone()] == *"%")
                    {
                        text.push_str(&source[copied..from.start]);
                        text.push_str(&rewritten(source, tokens, 0));
                        copied = to.end;
                    }
                    end
                }
            }
            _ => start + 1,
        };
        position = end;
    }
    if copied == 0 {
        return Cow::Borrowed(source);
    }
    text.push_str(&source[copied..]);
    Cow::Owned(text)
}

/// The position after the block `raw` whose first tag ends at `start`.
fn after_raw(source: &str, start: usize) -> usize {
    let mut position = start;
    while let Some(at) = source[position..].find("{%").map(|at| position + at) {
        let tag = source[at + 2..].trim_start_matches(['-', '+']).trim_start();
        position = at + 2;
        if tag.starts_with("endraw") {
            return position;
        }
    }
    source.len()
}

/// The tokens of a tag, and the position after its end.
fn tokens(source: &str, start: usize, closing: &str) -> (Vec<Range<usize>>, usize) {
    let bytes = source.as_bytes();
    let (mut tokens, mut depth, mut at) = (Vec::new(), 0_usize, start);
    while at < bytes.len() {
        let from = at;
        let rest = &source[at..];
        let is_end = rest.starts_with(closing) || (rest.starts_with(['-', '+']) && rest[1..].starts_with(closing));
        if depth == 0 && is_end {
            let mark = usize::from(!rest.starts_with(closing));
            return (tokens, at + mark + 2);
        }
        match bytes[at] {
            quote @ (b'"' | b'\'') => {
                at += 1;
                while at < bytes.len() && bytes[at] != quote {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at = (at + 1).min(bytes.len());
            }
            byte if byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80 => {
                while at < bytes.len() && (bytes[at].is_ascii_alphanumeric() || bytes[at] == b'_' || bytes[at] >= 0x80)
                {
                    at += 1;
                }
            }
            byte if byte.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            byte => {
                depth += usize::from(matches!(byte, b'(' | b'[' | b'{'));
                depth = depth.saturating_sub(usize::from(matches!(byte, b')' | b']' | b'}')));
                let is_double = ["**", "//", "==", "!=", "<=", ">="].iter().any(|it| rest.starts_with(it));
                at += if is_double { 2 } else { 1 };
            }
        }
        // A backslash at the end of a damaged source.
        while !source.is_char_boundary(at) {
            at += 1;
        }
        tokens.push(from..at);
    }
    (tokens, source.len())
}

/// Deeper brackets are copied as they are; no expression in use nests so deeply.
const DEEPEST: usize = 100;

/// The text of some tokens, with function calls instead of operators.
fn rewritten(source: &str, tokens: &[Range<usize>], depth: usize) -> String {
    let mut result = String::new();
    let mut end = tokens.first().map_or(0, |it| it.start);
    // Where the current product starts in `result`, and whether with a string; none before its first token.
    let mut product: Option<(usize, bool)> = None;
    // Whether a call still has to be closed after the factor that is being read.
    let mut in_call = false;
    let mut after_operand = false;
    let mut previous = "";
    let mut index = 0;
    while let Some(token) = tokens.get(index) {
        let word = &source[token.clone()];
        let ends_product = match word {
            "+" | "-" => after_operand,
            "~" | "," | ":" | "=" | "==" | "!=" | "<" | ">" | "<=" | ">=" => true,
            "and" | "or" | "in" | "if" | "else" => previous != ".",
            "not" => !matches!(previous, "is" | "."),
            _ => false,
        };
        let ends_factor = ends_product || matches!(word, "*" | "/" | "//" | "%");
        if ends_factor && in_call {
            result.push(')');
            in_call = false;
        }
        let right = tokens.get(index + 1).map(|it| &source[it.clone()]);
        match (word, product, right) {
            ("%", Some((start, is_string)), Some(right)) if is_string || !right.starts_with(is_digit) => {
                result.insert_str(start, &format!("{FUNCTION}("));
                result.push(',');
                in_call = true;
            }
            _ => {
                result.push_str(&source[end..token.start]);
                if product.is_none() && !ends_product {
                    product = Some((result.len(), word.starts_with(['"', '\''])));
                }
                result.push_str(word);
            }
        }
        end = token.end;
        if ends_product {
            product = None;
        }
        after_operand = !ends_factor && !matches!(word, "+" | "-");
        previous = word;
        if matches!(word, "(" | "[" | "{") {
            let close = closing(source, tokens, index);
            let inner = &tokens[index + 1..close];
            if let (Some(first), Some(last)) = (inner.first(), inner.last()) {
                result.push_str(&source[end..first.start]);
                match depth < DEEPEST {
                    true => result.push_str(&rewritten(source, inner, depth + 1)),
                    false => result.push_str(&source[first.start..last.end]),
                }
                end = last.end;
            }
            if let Some(token) = tokens.get(close) {
                result.push_str(&source[end..token.end]);
                end = token.end;
            }
            index = close;
        }
        index += 1;
    }
    if in_call {
        result.push(')');
    }
    result
}

fn is_digit(char: char) -> bool {
    char.is_ascii_digit()
}

/// The index of the bracket that closes the one at `index`; the number of tokens if there is none.
fn closing(source: &str, tokens: &[Range<usize>], index: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(index) {
        match &source[token.clone()] {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    tokens.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_become_calls_with_the_same_sides() {
        for (source, expected) in [
            ("{{ '%s' % x }}", "{{ __mod__('%s', x) }}"),
            ("{{ '%s: %s' % (a, b) + c }}", "{{ __mod__('%s: %s', (a, b)) + c }}"),
            ("{{ '%s' % x | upper }}", "{{ __mod__('%s', x | upper) }}"),
            ("{%- if '%d' % 2 == y %}", "{%- if __mod__('%d', 2) == y %}"),
            ("{{ f('%s' % (g(x % y))) }}", "{{ f(__mod__('%s', (g(__mod__(x, y))))) }}"),
            ("{{ a + b * '%s' % c.d['e'] ~ f }}", "{{ a + __mod__(b * '%s', c.d['e']) ~ f }}"),
            ("{{ '%s' % a % b }}", "{{ __mod__(__mod__('%s', a), b) }}"),
            ("{{ x if '%s' % y is not none else z }}", "{{ x if __mod__('%s', y is not none) else z }}"),
            ("{% set s = '%s' % -x %}", "{% set s = __mod__('%s', -x) %}"),
            ("{{ {'a': '%s' % x} }}", "{{ {'a': __mod__('%s', x)} }}"),
        ] {
            assert_eq!(without_operators(source), expected);
        }
    }

    #[test]
    fn other_text_is_unchanged() {
        for source in [
            "{% if loop.index0 % 2 == 0 %}{{ i % 3 }}{% endif %}",
            "100 % of {# '%s' % x #} {% raw %}{{ '%s' % x }}{% endraw %}",
            "{{ '%s' }}{{ \"a % b\" }}{% set x = 1 %}{%- endif -%}",
            "{{ '%s' % ",
            "{{ '\\",
            "{% raw %}{% x",
            "{{ ((((((% }}",
            "é{é%é}{{é}}",
        ] {
            let changed = without_operators(source);
            assert!(changed == source || source.ends_with("% ") || source.contains("((("), "{source}: {changed}");
        }
    }
}
