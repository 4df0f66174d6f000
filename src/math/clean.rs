//! Removes what surrounds an answer or hides in it and has no meaning: Markdown, delimiters of formulas, quotes, final
//! punctuation, invisible characters, and the many characters that look like a minus sign.

use std::borrow::Cow;

use super::limits::MAX_BYTES;

/// The text with one character for each sign: full-width letters are those of ASCII, every dash is a minus, spaces are
/// spaces, and invisible characters are left out.
///
/// Characters that change the direction of writing stay, and cannot be read: they can display other digits than the
/// text has.
pub fn plain(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{200b}'..='\u{200e}' | '\u{2060}' | '\u{2061}' | '\u{feff}' | '\u{ad}' | '\u{fe00}'..='\u{fe0f}' => {}
            // Invisible signs.
            '\u{2064}' => out.push('+'),
            '\u{2062}' => out.push('*'),
            '\u{2063}' => out.push(','),
            '！'..='～' => out.push((c as u32 - 0xfee0) as u8 as char),
            '‐'..='―' | '−' | '﹣' | '➖' | '₋' => out.push('-'),
            // Before a raised digit it belongs to the exponent.
            '⁻' if !chars.peek().is_some_and(|it| "⁰¹²³⁴⁵⁶⁷⁸⁹ⁿ".contains(*it)) => out.push('-'),
            '﹢' | '⁺' | '➕' => out.push('+'),
            '﹪' | '٪' => out.push('%'),
            '﹩' => out.push('$'),
            '٠'..='٩' => out.push(char::from(b'0' + (c as u32 - '٠' as u32) as u8)),
            '\u{305}' | '\u{304}' => accent(&mut out, "\\overline{"),
            '\u{307}' => accent(&mut out, "\\dot{"),
            _ if c.is_whitespace() && c != '\n' && !matches!(c, '\u{202f}' | '\u{2009}' | '\u{a0}') => out.push(' '),
            _ => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// Puts the digit before a combining accent under the command; lines over neighbors become one.
fn accent(out: &mut String, command: &str) {
    let Some(digit) = out.pop().filter(char::is_ascii_digit) else {
        // It has no meaning here, and cannot be read.
        out.push('\u{305}');
        return;
    };
    if command == "\\overline{"
        && out.ends_with('}')
        && out.rfind(command).is_some_and(|at| digits(&out[at + command.len()..out.len() - 1]))
    {
        out.pop();
    } else {
        out.push_str(command);
    }
    out.push(digit);
    out.push('}');
}

fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit())
}

/// The text without Markdown, math delimiters, quotes and emoji around all of it, and without the punctuation and the
/// TeX spaces at its ends.
pub fn bare(text: &str) -> &str {
    let mut text = text.trim();
    // Too long to be an answer, and to be peeled layer by layer.
    if text.len() > 8 * MAX_BYTES {
        return text;
    }
    loop {
        let length = text.len();
        text = unwrapped(without_start(without_end(text.trim())));
        if text.len() == length {
            return text;
        }
    }
}

fn without_end(text: &str) -> &str {
    // `5 a.m.` and `\right.` end in a period that belongs to them.
    if text.ends_with(".m.") || text.ends_with("\\right.") || text.ends_with("...") {
        return text;
    }
    for space in ["\\,", "\\;", "\\:", "\\!", "\\quad", "\\qquad"] {
        if let Some(rest) = text.strip_suffix(space) {
            return rest;
        }
    }
    // A control space, whose space was trimmed.
    if text.ends_with('\\') && text.bytes().rev().take_while(|it| *it == b'\\').count() % 2 == 1 {
        return &text[..text.len() - 1];
    }
    // Two of them strike the text out.
    if text.ends_with("~~") {
        return text;
    }
    text.strip_suffix("\\\\")
        .unwrap_or(text)
        .trim_end_matches(['.', ',', ';', '~', '。', '，', '；'])
        .trim_end_matches(is_picture)
}

fn without_start(text: &str) -> &str {
    let rest = ["\\,", "\\;", "\\:", "\\!", "\\ ", "\\quad ", "\\qquad "].iter().find_map(|it| text.strip_prefix(it));
    let rest = rest.unwrap_or(text);
    if rest.starts_with("~~") { rest } else { rest.trim_start_matches('~').trim_start_matches(is_picture) }
}

/// An emoji, except a cross, which denies the answer.
fn is_picture(c: char) -> bool {
    let cross = matches!(c, '✖'..='✘' | '❌' | '❎');
    !cross && matches!(c, '\u{1f300}'..='\u{1faff}' | '\u{2600}'..='\u{27bf}' | '\u{2b50}' | '▶' | '●' | '■')
}

fn unwrapped(text: &str) -> &str {
    const PAIRS: [(&str, &str); 13] = [
        ("$$", "$$"),
        ("$", "$"),
        ("\\(", "\\)"),
        ("\\[", "\\]"),
        ("**", "**"),
        ("__", "__"),
        ("*", "*"),
        ("_", "_"),
        ("`", "`"),
        ("\"", "\""),
        ("'", "'"),
        ("“", "”"),
        ("「", "」"),
    ];
    for (open, close) in PAIRS {
        let inner = text.strip_prefix(open).and_then(|it| it.strip_suffix(close));
        if let Some(inner) = inner.filter(|it| !it.contains(open) && !it.contains(close) && !it.ends_with('\\')) {
            return inner;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_surrounds_an_answer_is_removed() {
        for text in [
            "73",
            "**73**",
            "`73`",
            "$73.$",
            "73\\ ",
            "73\\",
            "\\,73\\;",
            "$$73$$",
            "\\(73\\)",
            "\\[ 73 \\].",
            "__73__",
            "*73*",
            "“73”",
            "\"73\"",
            "'73'",
            "✅ 73",
            "73 🎉",
            "**$73$.**",
            "73。",
            "73\\quad",
            "73~",
        ] {
            assert_eq!(bare(text), "73", "{text}");
        }
        for text in ["❌ 73", "~~73", "7**3", "$7$ and $3$", "5 a.m.", "73...", "73!"] {
            assert_eq!(bare(text), text);
        }
    }

    #[test]
    fn one_character_for_each_sign() {
        for minus in "‐‑‒–—―−⁻﹣－".chars() {
            assert_eq!(plain(&format!("{minus}3")), "-3", "{minus:?}");
        }
        assert_eq!(plain("10⁻³"), "10⁻³");
        for (text, expected) in [
            ("12\u{200b}", "12"),
            ("\u{2060}1\u{feff}2", "12"),
            ("2\u{2062}3", "2*3"),
            ("１２％", "12%"),
            ("٣٤", "34"),
            ("0.1\u{305}2\u{305}", "0.\\overline{12}"),
            ("0.3\u{307}", "0.\\dot{3}"),
        ] {
            assert_eq!(plain(text), expected, "{text}");
        }
        // It may display other digits than it has.
        assert_eq!(plain("\u{202e}21"), "\u{202e}21");
    }
}
