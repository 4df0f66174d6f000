//! The command line: how tests call it, and its texts.

mod errors;
mod help;
mod machine;
mod output;
mod plan;

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use tempfile::TempDir;

pub fn rft_path() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_rft"))
}

/// `rft`, to be run in `folder`, in an environment without its variables.
pub fn rft(folder: &Path) -> Command {
    let mut command = Command::new(rft_path());
    command.current_dir(folder).env_remove("RUST_LOG").env_remove("COLUMNS");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RFT_")) {
        command.env_remove(name);
    }
    command
}

/// The output of `rft COMMAND --help`.
pub fn help(command: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let output = rft(folder.path()).args(command).arg("--help").output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// The error of a command that must fail: after its notes, one line, followed only by hints.
#[track_caller]
pub fn error(folder: &TempDir, args: &[&str]) -> String {
    let output = rft(folder.path()).args(args).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(output.stdout.is_empty());
    let start = said.find("error: ").unwrap_or_else(|| panic!("no error in: {said}"));
    let error = said[start..].to_owned();
    assert!(error.lines().skip(1).all(|line| line.starts_with("hint: ")), "more than one line: {error}");
    error
}

pub fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// A folder with one file.
pub fn with(name: &str, content: &[u8]) -> TempDir {
    let folder = folder();
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
    folder
}
