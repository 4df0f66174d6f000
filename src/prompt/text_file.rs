//! Text files as other programs read them: prompts, templates and data.

use std::path::Path;

use anyhow::{Result, anyhow, bail, ensure};

/// Maximum number of bytes of a prompt or a template.
const MAX_BYTES: u64 = 4 << 20;

/// The text of a prompt or a template, see [`plain`].
///
/// # Errors
/// A file that cannot be read, is not a regular file, is too large, or is not UTF-8 text.
pub fn read(path: &Path) -> Result<String> {
    let metadata = std::fs::metadata(path)?;
    ensure!(metadata.is_file(), "not a regular file");
    ensure!(metadata.len() <= MAX_BYTES, "larger than {} MiB", MAX_BYTES >> 20);
    Ok(plain(decode(&std::fs::read(path)?)?))
}

/// The text without a byte order mark, and with line feeds as line breaks: jinja2 and Python's text mode convert them too, and
/// other line breaks are other tokens.
pub fn plain(text: &str) -> String {
    text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n").replace('\r', "\n")
}

/// UTF-8 text.
///
/// # Errors
/// Other bytes; the message names the encoding or the first invalid byte.
pub fn decode(bytes: &[u8]) -> Result<&str> {
    match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, _, ..] | [_, 0, ..] => {
            bail!("UTF-16 text instead of UTF-8\nhint: convert it with `iconv -f UTF-16 -t UTF-8`")
        }
        [0x1f, 0x8b, ..] => {
            bail!("compressed with gzip\nhint: decompress it with gunzip, or add .gz to the name of a data file")
        }
        _ => {}
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let (before, from) = bytes.split_at(error.valid_up_to());
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        let byte = from.first().copied().unwrap_or_default();
        anyhow!("not UTF-8 text: byte 0x{byte:02x} in line {line}\nhint: convert it to UTF-8, for example with iconv")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_breaks_and_the_mark_do_not_reach_a_prompt() {
        assert_eq!(plain("\u{feff}a\r\nb\rc\n"), "a\nb\nc\n");
        assert_eq!(plain("a\u{feff}b"), "a\u{feff}b");
    }

    #[test]
    fn other_encodings_are_named() {
        let error = |bytes: &[u8]| decode(bytes).unwrap_err().to_string();
        assert!(error(b"\xff\xfea\0").starts_with("UTF-16"));
        assert!(error(b"a\0b\0").starts_with("UTF-16"));
        assert!(error(b"a\nb\xe9").starts_with("not UTF-8 text: byte 0xe9 in line 2"));
    }
}
