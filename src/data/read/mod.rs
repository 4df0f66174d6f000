//! Reads rows from files: JSON Lines, a JSON array, CSV or Parquet. The text formats may be compressed with gzip.

mod csv;
mod json;
pub mod parquet;

use std::io::{self, ErrorKind};
use std::path::Path;

use anyhow::{Context, Error, Result, ensure};
use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};

use crate::disk::budget::Budget;
use crate::disk::regular;
use crate::prompt::text_file;

pub use super::row::FileRows;
pub use json::in_line;

/// Maximum number of bytes of a file.
const LONGEST: u64 = 16 << 30;

/// Supported file name extensions.
pub const ENDINGS: [&str; 5] = [".jsonl", ".ndjson", ".json", ".csv", ".parquet"];

/// Whether a file with this name can be read.
pub fn is_readable(name: &str) -> bool {
    let name = name.to_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// Reads all rows of a file and adds the file's bytes to `hash`.
///
/// # Errors
/// A file that cannot be read, has another format, or is damaged. The message names the file and the first invalid row.
pub fn read(path: &Path, hash: &mut Sha256) -> Result<FileRows> {
    parse(path, hash).with_context(|| format!("read `{}`", path.display()))
}

fn parse(path: &Path, hash: &mut Sha256) -> Result<FileRows> {
    let kind = std::fs::metadata(path)?;
    ensure!(!kind.is_dir(), "this is a folder\nhint: pass a file in it");
    ensure!(kind.is_file(), "this is not a regular file");
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    ensure!(
        is_readable(&name),
        "unknown format\nhint: use a file that ends in {}, or in one of these and .gz",
        ENDINGS.join(", ")
    );
    let bytes = regular::read(path, LONGEST)?;
    hash.update(&bytes);
    let mut budget = Budget::of_file(bytes.len() as u64);
    let (name, bytes) = match name.strip_suffix(".gz") {
        Some(name) => (name, budget.read(MultiGzDecoder::new(bytes.as_slice())).map_err(unzip_failed)?),
        None => (name.as_str(), bytes),
    };
    if name.ends_with(".parquet") {
        ensure!(
            path.extension().is_some_and(|it| it == "parquet"),
            "a Parquet file compressed with gzip\nhint: decompress it with gunzip"
        );
        return parquet::rows(path, budget);
    }
    let text = text_file::decode(&bytes)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let budget = Budget::of_rows(text.len() as u64);
    if name.ends_with(".csv") { csv::rows(text, budget) } else { json::rows(text, budget) }
}

fn unzip_failed(error: io::Error) -> Error {
    match error.kind() {
        ErrorKind::FileTooLarge => error.into(),
        _ => Error::from(error).context("damaged gzip file"),
    }
}
