//! Names in sentences.

/// A name from outside, for a sentence: in backquotes, on one line, whatever it holds.
pub fn quoted(name: &str) -> String {
    let plain = |c: char| match c {
        '`' => '\'',
        c if c.is_control() => ' ',
        c => c,
    };
    format!("`{}`", name.chars().map(plain).collect::<String>().trim())
}
