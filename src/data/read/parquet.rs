//! Parquet files.

use std::cell::Cell;
#[cfg(target_os = "linux")]
use std::ffi::OsStr;
use std::fs::File;
#[cfg(target_os = "linux")]
use std::os::unix::ffi::OsStrExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Once;

use anyhow::{Context, Result, anyhow, bail, ensure};
use half::f16;
use jiff::Timestamp;
use parquet::basic::{Compression, ConvertedType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{self, Field};
use serde_json::value::RawValue;

use crate::data::row::{FileRows, Row, distinct};
use crate::disk::budget::Budget;
#[cfg(target_os = "linux")]
use crate::sandbox::worker::{self, Worker};

/// The hidden subcommand that calls [`serve`].
pub const SUBCOMMAND: &str = "read-parquet";

/// The library allocates as much memory as a file declares, so the command line reads Parquet files in a separate process.
pub fn rows(path: &Path, mut budget: Budget) -> Result<FileRows> {
    #[cfg(target_os = "linux")]
    let mut source = match worker::is_enabled() {
        true => RowSource::Apart(Worker::start(SUBCOMMAND)?, path.as_os_str().as_bytes().to_vec()),
        false => RowSource::Here(RowReader::open(path)?),
    };
    #[cfg(not(target_os = "linux"))]
    let mut source = RowSource::Here(RowReader::open(path)?);
    let mut rows = Vec::new();
    loop {
        let batch = source.next()?;
        if batch.is_empty() {
            return Ok(FileRows { unit: "row", rows });
        }
        for row in batch {
            budget.take(row.memory())?;
            rows.push((rows.len() + 1, row));
        }
    }
}

enum RowSource {
    Here(RowReader),
    /// The process, and the next request: the path, then nothing.
    #[cfg(target_os = "linux")]
    Apart(Worker, Vec<u8>),
}

impl RowSource {
    /// Some of the next rows; none at the end.
    fn next(&mut self) -> Result<Vec<Row>> {
        match self {
            Self::Here(reader) => reader.next(),
            #[cfg(target_os = "linux")]
            Self::Apart(worker, request) => {
                let reply = worker.ask(&std::mem::take(request))?;
                let lines = worker::read_reply(reply)?;
                lines.lines().map(|line| Ok(Row::from_json(line)?)).collect()
            }
        }
    }
}

/// Reads a file for the process that started this one. The first request is the path. Each reply has some rows as lines of JSON;
/// the last has none.
///
/// # Errors
/// The channel fails.
#[cfg(target_os = "linux")]
pub fn serve() -> Result<()> {
    let mut reader = None;
    worker::serve(|request| {
        let mut next = || -> Result<String> {
            let reader = match &mut reader {
                Some(reader) => reader,
                reader => reader.insert(RowReader::open(Path::new(OsStr::from_bytes(request)))?),
            };
            let rows = reader.next()?;
            let lines: serde_json::Result<Vec<String>> = rows.iter().map(serde_json::to_string).collect();
            Ok(lines?.join("\n"))
        };
        worker::reply(next())
    })
}

/// Other systems do not have such a process.
#[cfg(not(target_os = "linux"))]
pub fn serve() -> Result<()> {
    bail!("reading in a separate process requires Linux")
}

/// The result of `run`; `None` if it panics, which prints nothing.
fn without_panics<T>(run: impl FnOnce() -> T) -> Option<T> {
    thread_local!(static SILENT: Cell<bool> = const { Cell::new(false) });
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !SILENT.get() {
                print(info);
            }
        }));
    });
    SILENT.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(run));
    SILENT.set(false);
    result.ok()
}

/// An open file.
struct RowReader {
    rows: RowIter<'static>,
    /// Number of rows read.
    done: usize,
}

impl RowReader {
    fn open(path: &Path) -> Result<RowReader> {
        // The library asserts some properties of files instead of checking them.
        without_panics(|| open(File::open(path)?)).unwrap_or_else(|| bail!("damaged Parquet file"))
    }

    /// The next rows, of about this size; none at the end.
    fn next(&mut self) -> Result<Vec<Row>> {
        const BYTES: u64 = 1 << 20;
        without_panics(|| {
            let (mut batch, mut bytes) = (Vec::new(), 0);
            while bytes < BYTES {
                let Some(row) = self.rows.next() else { break };
                self.done += 1;
                let row = columns(row, self.done)?;
                bytes += row.memory();
                batch.push(row);
            }
            Ok(batch)
        })
        .unwrap_or_else(|| bail!("damaged Parquet file"))
    }
}

fn open(file: File) -> Result<RowReader> {
    let reader = SerializedFileReader::new(file)?;
    let metadata = reader.metadata();
    let schema = metadata.file_metadata().schema_descr();
    distinct(schema.root_schema().get_fields().iter().map(|it| it.name())).map_err(|problem| anyhow!(problem))?;
    for column in schema.columns() {
        ensure!(
            column.converted_type() != ConvertedType::INTERVAL,
            "the column `{}` contains intervals\nhint: remove the column or convert it to text",
            column.path().string()
        );
    }
    for column in metadata.row_groups().iter().flat_map(|group| group.columns()) {
        ensure!(
            column.compression() != Compression::LZO,
            "the column `{}` is compressed with LZO\nhint: write the file with zstd, gzip, snappy, brotli or lz4",
            column.column_path().string()
        );
    }
    Ok(RowReader { rows: RowIter::from_file_into(Box::new(reader)), done: 0 })
}

fn columns(row: Result<record::Row, ParquetError>, number: usize) -> Result<Row> {
    let row = row.with_context(|| format!("row {number}"))?;
    let column = |(name, field): (String, Field)| {
        let value = json(&field).with_context(|| format!("row {number}: column `{name}`"))?;
        Ok((name, RawValue::from_string(value)?))
    };
    let columns = row.into_columns().into_iter().map(column).collect::<Result<_>>()?;
    Row::new(columns).map_err(|problem| anyhow!(problem))
}

/// A value as JSON text. A number has the shortest digits that give it in its own type: 3.14 in 32 bits is not the
/// nearest number of 64 bits. Dates and times become text.
fn json(field: &Field) -> Result<String> {
    Ok(match field {
        Field::Null => "null".to_owned(),
        Field::Float16(value) => float(value.is_finite(), *value, short(*value)),
        Field::Float(value) => float(value.is_finite(), *value, format!("{value:?}")),
        Field::Double(value) => float(value.is_finite(), *value, format!("{value:?}")),
        // Without decimals, the text ends in a point.
        Field::Decimal(_) => field.to_string().trim_end_matches('.').to_owned(),
        Field::Str(value) => serde_json::to_string(value)?,
        // Some writers do not mark text as text.
        Field::Bytes(value) => {
            let text = std::str::from_utf8(value.data()).ok();
            serde_json::to_string(text.context("not UTF-8 text\nhint: remove the column")?)?
        }
        Field::Group(row) => {
            let mut fields = Vec::new();
            for (name, value) in row.get_column_iter() {
                fields.push(format!("{}:{}", serde_json::to_string(name)?, json(value)?));
            }
            format!("{{{}}}", fields.join(","))
        }
        Field::ListInternal(list) => {
            format!("[{}]", list.elements().iter().map(json).collect::<Result<Vec<_>>>()?.join(","))
        }
        Field::MapInternal(map) => {
            let pair = |(key, value): &(Field, Field)| Ok(format!("[{},{}]", json(key)?, json(value)?));
            format!("[{}]", map.entries().iter().map(pair).collect::<Result<Vec<_>>>()?.join(","))
        }
        Field::Date(days) => time(Timestamp::from_second(i64::from(*days) * 86_400), "%Y-%m-%d"),
        Field::TimestampMillis(value) => time(Timestamp::from_millisecond(*value), "%Y-%m-%d %H:%M:%S%.f"),
        Field::TimestampMicros(value) => time(Timestamp::from_microsecond(*value), "%Y-%m-%d %H:%M:%S%.f"),
        Field::TimeMillis(_) | Field::TimeMicros(_) => serde_json::to_string(&field.to_string())?,
        // Booleans and integers.
        other => other.to_string(),
    })
}

/// JSON has no numbers that are not finite. NaN is how tables mark a missing number.
fn float(finite: bool, value: impl PartialOrd + Copy + std::fmt::Display, digits: String) -> String {
    match value.partial_cmp(&value) {
        None => "null".to_owned(),
        Some(_) if finite => digits,
        Some(_) => format!("\"{value}\""),
    }
}

/// The shortest digits that give this number of 16 bits; all digits of an integer.
fn short(value: f16) -> String {
    let wide = value.to_f32();
    if wide.fract() == 0.0 {
        return format!("{wide:?}");
    }
    let digits = (0..=4).map(|places| format!("{wide:.places$e}"));
    let gives = |digits: &String| digits.parse().is_ok_and(|parsed: f32| f16::from_f32(parsed) == value);
    let shortest = digits.into_iter().find(gives).unwrap_or_else(|| format!("{wide:e}"));
    shortest.parse::<f64>().map_or(shortest, |number| format!("{number:?}"))
}

/// A time in UTC, as text; `null` if it is outside the calendar.
fn time(time: Result<Timestamp, jiff::Error>, format: &str) -> String {
    time.map_or_else(|_| "null".to_owned(), |time| format!("\"{}\"", time.strftime(format)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_of_their_type() {
        let json = |field| json(&field).unwrap();
        assert_eq!(json(Field::Float(4.35)), "4.35");
        assert_eq!(json(Field::Float(0.1)), "0.1");
        assert_eq!(json(Field::Double(0.1)), "0.1");
        assert_eq!(json(Field::Float16(f16::from_f32(0.1))), "0.1");
        assert_eq!(json(Field::Float16(f16::from_f32(2.5))), "2.5");
        assert_eq!(json(Field::Float16(f16::from_f32(-65504.0))), "-65504.0");
        assert_eq!(json(Field::Float(f32::NAN)), "null");
        assert_eq!(json(Field::Double(f64::NEG_INFINITY)), "\"-inf\"");
        assert_eq!(json(Field::Long(i64::MIN)), "-9223372036854775808");
        assert_eq!(json(Field::Date(19_000)), "\"2022-01-08\"");
        assert_eq!(json(Field::Date(i32::MAX)), "null");
        assert_eq!(json(Field::TimestampMillis(i64::MAX)), "null");
    }
}
