//! Standard output and standard error of the commands.
//!
//! A reader that goes away (`rft eval list | head -1`, a closed terminal) is not an error, and does not end a run: what follows
//! is discarded. Any other failure, such as a full disk, is kept and returned by [`finish`], after the command has done its work.

use std::borrow::Cow;
use std::io::{self, ErrorKind, Write};
use std::sync::Mutex;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::run::printable::{is_harmful, printable};
use crate::run::terminal;
use crate::run::wrap::wrapped;

/// The first error of standard output.
static FAILED: Mutex<Option<io::Error>> = Mutex::new(None);

/// All values that are printed have keys that are strings.
const SERIALIZABLE: &str = "serialization to memory succeeds";

/// Prints text for people, with harmful characters escaped: it can contain parts of any file. On a terminal, its lines are
/// broken between words.
pub fn text(text: &str) {
    write(fitted(&printable(text), terminal::stdout_width()).as_bytes());
}

/// Prints a file, such as a configuration, with its own lines, so that it can be copied from a terminal.
pub fn document(text: &str) {
    write(printable(text).as_bytes());
}

fn fitted(text: &str, width: Option<usize>) -> Cow<'_, str> {
    width.map_or(Cow::Borrowed(text), |width| wrapped(text, width))
}

/// Prints one value as indented JSON, and a line break.
pub fn json(value: &impl Serialize) {
    let json = serde_json::to_string_pretty(value).expect(SERIALIZABLE);
    write(format!("{}\n", escaped(&json)).as_bytes());
}

/// Prints one value as a line of JSON.
pub fn json_line(value: &impl Serialize) {
    let json = serde_json::to_string(value).expect(SERIALIZABLE);
    write(format!("{}\n", escaped(&json)).as_bytes());
}

/// Prints to standard error, as [`text`] does. A message that cannot be written is lost.
pub fn message(text: &str) {
    let _ = io::stderr().write_all(fitted(&printable(text), terminal::stderr_width()).as_bytes());
}

/// Whether the reader of standard output has gone, so that a command whose only result it is can end.
pub fn is_closed() -> bool {
    failed().as_ref().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// Writes what is left.
///
/// # Errors
/// Something could not be written, for another reason than that the reader has gone.
pub fn finish() -> Result<()> {
    write(b"");
    match failed().take() {
        Some(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("write to standard output"),
        _ => Ok(()),
    }
}

fn failed() -> std::sync::MutexGuard<'static, Option<io::Error>> {
    FAILED.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn write(bytes: &[u8]) {
    let mut failed = failed();
    if failed.is_none() {
        let mut stdout = io::stdout().lock();
        *failed = stdout.write_all(bytes).and_then(|()| stdout.flush()).err();
    }
}

/// JSON with the same value, in which harmful characters, which only strings can contain, are escaped.
fn escaped(json: &str) -> Cow<'_, str> {
    // The line breaks of indented JSON are not harmful.
    if !json.contains(is_harmful) {
        return Cow::Borrowed(json);
    }
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match is_harmful(c) {
            true => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| text += &format!("\\u{unit:04x}")),
            false => text.push(c),
        }
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_keeps_its_value_without_harmful_characters() {
        let value = serde_json::json!({"\u{1b}[31m": ["\u{9b}2J\u{7f}", "a\u{202e}b\u{e0001}\u{feff}", "é\n\t漢"]});
        let json = serde_json::to_string_pretty(&value).unwrap();
        let text = escaped(&json);
        assert!(!text.contains(is_harmful), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
        assert!(matches!(escaped("{\n\t\"é\": 1\n}"), Cow::Borrowed(_)));
    }
}
