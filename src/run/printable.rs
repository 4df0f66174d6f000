//! Text from files and models as a terminal may show it.

use std::borrow::Cow;

/// `text` with its control characters escaped, except line breaks and tabs: an error can contain any part of a file, and
/// a terminal would obey an escape code in it.
pub fn printable(text: &str) -> Cow<'_, str> {
    let harmful = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match harmful(c) {
            true => escaped.extend(c.escape_default()),
            false => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

/// `text` without its middle if it is longer than a message should be: a name in a file can have any length.
pub fn shortened(text: &str) -> Cow<'_, str> {
    /// Characters kept at the start and at the end.
    const KEPT: (usize, usize) = (600, 200);
    let count = text.chars().count();
    let (head, tail) = KEPT;
    if count <= head + tail + 50 {
        return Cow::Borrowed(text);
    }
    let start: String = text.chars().take(head).collect();
    let end: String = text.chars().skip(count - tail).collect();
    Cow::Owned(format!("{start} ... ({} characters more) ... {end}", count - head - tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        let text = "a\u{1b}[31m\tb\r\nc\u{9b}2J \u{7f}\u{0} é 漢";
        assert_eq!(printable(text), "a\\u{1b}[31m\tb\\r\nc\\u{9b}2J \\u{7f}\\u{0} é 漢");
        assert!(matches!(printable("plain\n\ttext é"), Cow::Borrowed(_)));
    }

    #[test]
    fn long_text_loses_its_middle() {
        let text = format!("begin {} end", "é".repeat(1_000_000));
        let short = shortened(&text);
        assert!(short.chars().count() < 900 && short.starts_with("begin é") && short.ends_with("é end"), "{short}");
        assert!(short.contains("(999210 characters more)"), "{short}");
        assert!(matches!(shortened(&text[..800]), Cow::Borrowed(_)));
    }
}
