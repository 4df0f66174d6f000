//! Text from files and models as a terminal may show it.

use std::borrow::Cow;

/// Whether a character can change what other text looks like: a terminal obeys control characters, and the others reorder or
/// hide text. Line breaks and tabs are not harmful.
pub fn is_harmful(c: char) -> bool {
    match c {
        '\n' | '\t' => false,
        // Marks, embeddings, overrides and isolates of the bidirectional algorithm; separators; the byte order mark; tags.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        '\u{feff}' | '\u{e0000}'..='\u{e007f}' => true,
        c => c.is_control(),
    }
}

/// `text` with its harmful characters escaped: an error can contain any part of a file.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match is_harmful(c) {
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
        assert!(matches!(printable("plain\n\ttext é 👩‍💻"), Cow::Borrowed(_)));
    }

    #[test]
    fn characters_that_reorder_or_hide_text_are_escaped() {
        assert_eq!(printable("a\u{202e}b\u{2066}c\u{200f}"), "a\\u{202e}b\\u{2066}c\\u{200f}");
        assert_eq!(printable("\u{feff}x\u{2028}\u{e0041}"), "\\u{feff}x\\u{2028}\\u{e0041}");
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
