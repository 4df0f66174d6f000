//! Reads rows from files: JSON Lines, a JSON array, CSV or Parquet. The text formats may be compressed with gzip.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use flate2::read::MultiGzDecoder;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// The rows of one file.
#[derive(Debug)]
pub struct FileRows {
    /// The word for a row in messages.
    unit: &'static str,
    /// The number of each row in the file, from 1, and its columns.
    pub rows: Vec<(usize, Map<String, Value>)>,
}

impl FileRows {
    /// The position of a row in messages: `line 17`.
    pub fn place(&self, number: usize) -> String {
        format!("{} {number}", self.unit)
    }
}

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
pub fn read(path: &Path, hash: &mut Sha256) -> anyhow::Result<FileRows> {
    parse(path, hash).with_context(|| format!("read `{}`", path.display()))
}

fn parse(path: &Path, hash: &mut Sha256) -> anyhow::Result<FileRows> {
    ensure!(!path.is_dir(), "this is a folder\nhint: pass a file in it");
    let bytes = std::fs::read(path)?;
    hash.update(&bytes);
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let (name, bytes) = match name.strip_suffix(".gz") {
        Some(name) => (name, unzip(&bytes)?),
        None => (name.as_str(), bytes),
    };
    if name.ends_with(".parquet") {
        ensure!(
            path.extension().is_some_and(|it| it == "parquet"),
            "a Parquet file compressed with gzip\nhint: decompress it with gunzip"
        );
        return parquet(File::open(path)?);
    }
    let text = std::str::from_utf8(&bytes).context("not UTF-8 text")?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if name.ends_with(".csv") {
        csv(text)
    } else if is_readable(name) {
        // Some data sets are published as JSON Lines in a file with the extension .json.
        if text.trim_start().starts_with('[') { json_array(text) } else { json_lines(text) }
    } else {
        bail!("unknown format\nhint: use a file that ends in {}, or in one of these and .gz", ENDINGS.join(", "));
    }
}

fn unzip(bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut unzipped = Vec::new();
    MultiGzDecoder::new(bytes).read_to_end(&mut unzipped).context("damaged gzip file")?;
    Ok(unzipped)
}

fn json_lines(text: &str) -> anyhow::Result<FileRows> {
    let mut rows = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let row = serde_json::from_str(line).with_context(|| format!("line {} is not a JSON object", i + 1))?;
        rows.push((i + 1, row));
    }
    Ok(FileRows { unit: "line", rows })
}

fn json_array(text: &str) -> anyhow::Result<FileRows> {
    let items: Vec<Value> = serde_json::from_str(text).context("not a JSON array")?;
    let mut rows = Vec::with_capacity(items.len());
    for (i, item) in items.into_iter().enumerate() {
        let Value::Object(row) = item else { bail!("item {} of the array is not an object", i + 1) };
        rows.push((i + 1, row));
    }
    Ok(FileRows { unit: "item", rows })
}

fn csv(text: &str) -> anyhow::Result<FileRows> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers()?.clone();
    for (i, name) in header.iter().enumerate() {
        ensure!(!header.iter().take(i).any(|other| other == name), "two columns have the name `{name}`");
    }
    let mut rows = Vec::new();
    for (i, record) in reader.records().enumerate() {
        // The error itself contains the line and the byte.
        let record = record?;
        let columns = header.iter().zip(&record).map(|(name, value)| (name.to_owned(), Value::from(value)));
        rows.push((i + 1, columns.collect()));
    }
    Ok(FileRows { unit: "row", rows })
}

fn parquet(file: File) -> anyhow::Result<FileRows> {
    let reader = SerializedFileReader::new(file)?;
    let mut rows = Vec::new();
    for (i, row) in reader.get_row_iter(None)?.enumerate() {
        let row = row.with_context(|| format!("row {}", i + 1))?;
        rows.push((i + 1, row.into_columns().into_iter().map(|(name, field)| (name, json(field))).collect()));
    }
    Ok(FileRows { unit: "row", rows })
}

/// A Parquet value as JSON. Dates and similar types, which questions do not use, become text.
fn json(field: Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(value) => value.into(),
        Field::Byte(value) => value.into(),
        Field::Short(value) => value.into(),
        Field::Int(value) => value.into(),
        Field::Long(value) => value.into(),
        Field::UByte(value) => value.into(),
        Field::UShort(value) => value.into(),
        Field::UInt(value) => value.into(),
        Field::ULong(value) => value.into(),
        Field::Float(value) => value.into(),
        Field::Double(value) => value.into(),
        Field::Str(value) => value.into(),
        // Some writers do not mark text as text.
        Field::Bytes(value) => String::from_utf8_lossy(value.data()).into(),
        Field::Group(row) => row.into_columns().into_iter().map(|(name, field)| (name, json(field))).collect(),
        Field::ListInternal(list) => list.elements().iter().cloned().map(json).collect(),
        Field::MapInternal(map) => {
            let pair = |(key, value): &(Field, Field)| Value::Array(vec![json(key.clone()), json(value.clone())]);
            map.entries().iter().map(pair).collect()
        }
        other => other.to_string().into(),
    }
}
