//! The place where a value is set, for `--origin` and for errors.

use std::fmt;
use std::path::PathBuf;

/// The origin of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueOrigin {
    /// A compiled-in preset, by name.
    Preset(String),
    /// A file; line and column count from 1.
    File { path: PathBuf, line: usize, column: usize },
    /// An environment variable, by name.
    Environment(String),
    /// An argument of `--set`.
    Set(String),
    /// A flag of the command, such as `--steps`.
    Flag(String),
}

impl ValueOrigin {
    /// The place as it is printed in an error, with line and column.
    pub(crate) fn site(&self) -> String {
        match self {
            ValueOrigin::File { path, line, column } => format!("{}:{line}:{column}", path.display()),
            ValueOrigin::Set(argument) => format!("--set {argument}"),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for ValueOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueOrigin::Preset(name) => write!(f, "preset {name}"),
            ValueOrigin::File { path, line, .. } => write!(f, "{}:{line}", path.display()),
            ValueOrigin::Environment(variable) => f.write_str(variable),
            ValueOrigin::Set(_) => f.write_str("--set"),
            ValueOrigin::Flag(flag) => f.write_str(flag),
        }
    }
}

/// The line and column, from 1, of a byte offset; columns count characters.
pub(super) fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..offset.min(text.len())];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}
