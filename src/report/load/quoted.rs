//! Names in sentences.

/// An untrusted name for use in a sentence: in backquotes and on one line, whatever it contains.
pub fn quoted(name: &str) -> String {
    let plain = |c: char| match c {
        '`' => '\'',
        c if c.is_control() => ' ',
        c => c,
    };
    format!("`{}`", name.chars().map(plain).collect::<String>().trim())
}
