//! CSV files.

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::value::to_raw_value;

use crate::data::row::{FileRows, Row, distinct};
use crate::disk::budget::Budget;

/// Maximum number of columns, as in a spreadsheet. A row of commas alone would need fifty times its size in memory.
const COLUMNS: usize = 16_384;

pub fn rows(text: &str, mut budget: Budget) -> Result<FileRows> {
    // Line breaks within quotes are the file's own, as those between rows are.
    let text = text.replace("\r\n", "\n");
    check_fields(&text)?;
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers()?.clone();
    distinct(header.iter()).map_err(|problem| anyhow!(problem))?;
    if header.len() == 1
        && let Some(separator) = [';', '\t', '|'].into_iter().find(|it| header[0].contains(*it))
    {
        bail!("expected columns separated by commas, found one column and `{}` in its name", separator.escape_debug());
    }
    let mut rows = Vec::new();
    for (i, record) in reader.records().enumerate() {
        // The error itself contains the line and the byte.
        let record = record?;
        let column = |(name, value): (&str, &str)| Ok((name.to_owned(), to_raw_value(value)?));
        let columns = header.iter().zip(&record).map(column).collect::<Result<_>>()?;
        let row = Row::new(columns).map_err(|problem| anyhow!(problem)).context("columns")?;
        budget.take(row.memory())?;
        rows.push((i + 1, row));
    }
    Ok(FileRows { unit: "row", rows })
}

/// Checks that every quoted field is closed where it ends, and that no row has too many of them. The reader would take the rest of
/// the file for the content of a field that is not closed.
fn check_fields(text: &str) -> Result<()> {
    enum At {
        FieldStart,
        Field,
        /// Within quotes, which opened in this line.
        Quoted(usize),
        /// After a quote within quotes, which closes the field or is the first of a double quote.
        Quote(usize),
        /// After a closing quote and spaces.
        Closed,
    }
    let (mut at, mut line, mut fields) = (At::FieldStart, 1, 1);
    for byte in text.bytes() {
        let ends = matches!(byte, b',' | b'\n' | b'\r');
        at = match (at, byte) {
            (At::FieldStart, b'"') => At::Quoted(line),
            (At::Quoted(from), b'"') => At::Quote(from),
            (At::Quoted(from), _) => At::Quoted(from),
            (At::Quote(from), b'"') => At::Quoted(from),
            (At::Quote(_) | At::Closed | At::FieldStart | At::Field, _) if ends => {
                fields = if byte == b',' { fields + 1 } else { 1 };
                ensure!(fields <= COLUMNS, "line {line}: more than {COLUMNS} columns");
                At::FieldStart
            }
            (At::Quote(_) | At::Closed, b' ') => At::Closed,
            (At::Quote(_) | At::Closed, _) => {
                bail!("line {line}: text after the closing quote of a field\nhint: write a quote within quotes twice")
            }
            (At::FieldStart | At::Field, _) => At::Field,
        };
        line += usize::from(byte == b'\n');
    }
    let open = match at {
        At::Quoted(from) => Some(from),
        _ => None,
    };
    ensure!(
        open.is_none(),
        "line {}: a quoted field is not closed\nhint: write a quote within quotes twice",
        open.unwrap_or_default()
    );
    Ok(())
}
