//! An error as text for the user.

use anyhow::Error;

use crate::run::printable::shortened;

/// The message and the hints of an error. A hint is a line `hint: ...` in any error of the chain.
pub fn describe(error: &Error) -> (String, Vec<String>) {
    let (mut parts, mut hints): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    for cause in error.chain() {
        let text = cause.to_string();
        let (hint_lines, lines): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with("hint: "));
        hints.extend(hint_lines.iter().map(|line| line["hint: ".len()..].to_owned()));
        // After its first line, a library's error may contain a backtrace or an excerpt of a file.
        let line = lines.first().map(|line| shortened(line.trim_end_matches(':')).into_owned()).unwrap_or_default();
        if !line.is_empty() && !parts.iter().any(|part| part.contains(&line)) {
            parts.push(line);
        }
    }
    (parts.join(": "), hints)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};

    #[test]
    fn an_error_is_one_line_followed_by_its_hints() {
        let error =
            Err::<(), _>(anyhow!("file is truncated\nhint: download it again")).context("read `x`").unwrap_err();
        assert_eq!(describe(&error), ("read `x`: file is truncated".to_owned(), vec!["download it again".to_owned()]));
    }
}
