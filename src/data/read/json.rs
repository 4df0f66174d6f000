//! JSON files: one object per line, or one array of objects.

use anyhow::{Context, Result, anyhow, bail};
use serde::de::IgnoredAny;

use crate::data::row::{FileRows, Row, items};
use crate::disk::budget::Budget;

/// Some data sets are published as JSON Lines in a file with the extension `.json`.
pub fn rows(text: &str, budget: Budget) -> Result<FileRows> {
    if text.trim_start().starts_with('[') { array(text, budget) } else { lines(text, budget) }
}

fn lines(text: &str, mut budget: Budget) -> Result<FileRows> {
    let mut rows = Vec::new();
    for (i, line) in text.lines().enumerate() {
        // Files that were joined may have a byte order mark in the middle.
        let line = line.trim_start_matches('\u{feff}').trim();
        if line.is_empty() {
            continue;
        }
        match Row::from_json(line) {
            Ok(row) => {
                budget.take(row.memory())?;
                rows.push((i + 1, row));
            }
            Err(_) if rows.is_empty() && serde_json::from_str::<IgnoredAny>(text).is_ok() && !is_one_line(text) => {
                bail!("one JSON object instead of rows\nhint: write one object per line, or an array of objects")
            }
            Err(error) => return Err(in_line(&error)).context(format!("line {} is not a JSON object", i + 1)),
        }
    }
    Ok(FileRows { unit: "line", rows })
}

fn is_one_line(text: &str) -> bool {
    text.trim().lines().count() == 1
}

/// An error in the text of one line, without the number 1 of this line.
pub fn in_line(error: &serde_json::Error) -> anyhow::Error {
    anyhow!(error.to_string().replacen(" at line 1 column ", " at column ", 1))
}

fn array(text: &str, mut budget: Budget) -> Result<FileRows> {
    let items = items(text).context("not a JSON array")?;
    let mut rows = Vec::with_capacity(items.len());
    for (i, item) in items.into_iter().enumerate() {
        let row = Row::from_json(item.get()).map_err(|error| in_line(&error));
        let row = row.with_context(|| format!("item {} is not a JSON object", i + 1))?;
        budget.take(row.memory())?;
        rows.push((i + 1, row));
    }
    Ok(FileRows { unit: "item", rows })
}
