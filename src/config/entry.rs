//! Single values, read from the places where a layer can stand.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use toml::de::DeTable;
use toml::{Table, Value};

use super::place::{Origin, line_and_column};

/// A value that a layer sets.
pub(super) struct Entry {
    /// The key, part by part.
    pub path: Vec<String>,
    pub value: Value,
    /// As it was typed, where the value was typed without TOML's quotes.
    pub raw: Option<String>,
    /// Where the value stands.
    pub origin: Origin,
    /// Where each part of the key stands; empty where the key has no place of its own.
    pub parts: Vec<Origin>,
}

impl Entry {
    pub fn new(key: &str, value: Value, origin: Origin) -> Entry {
        Entry { path: key.split('.').map(str::to_owned).collect(), value, raw: None, origin, parts: Vec::new() }
    }

    /// A value typed in a shell: TOML, or else a string without quotes.
    fn typed(key: &str, raw: &str, origin: Origin) -> Entry {
        let value = raw.parse().unwrap_or_else(|_| Value::String(raw.to_owned()));
        Entry { raw: Some(raw.to_owned()), ..Entry::new(key, value, origin) }
    }

    pub fn key(&self) -> String {
        self.path.join(".")
    }
}

/// What `RFT_SECTION__KEY` variables set.
pub(super) fn of_environment(variables: &[(String, String)]) -> Vec<Entry> {
    let entry = |(name, value): &(String, String)| {
        let key = name.strip_prefix("RFT_").filter(|it| it.contains("__"))?.to_lowercase().replace("__", ".");
        Some(Entry::typed(&key, value.trim(), Origin::Environment(name.clone())))
    };
    variables.iter().filter_map(entry).collect()
}

/// What an argument of `--set` sets.
pub(super) fn of_set(argument: &str) -> Result<Vec<Entry>> {
    let (key, raw) = argument
        .split_once('=')
        .ok_or_else(|| anyhow!("--set {argument}: no `=` in it\nhint: write --set section.key=value"))?;
    let typed = Entry::typed(key.trim(), raw.trim(), Origin::Set(argument.to_owned()));
    let Value::Table(table) = &typed.value else { return Ok(vec![typed]) };
    // An inline table sets several keys of a section at once.
    let mut entries = Vec::new();
    flatten(table, &mut typed.path.clone(), &mut |path, value| {
        entries.push(Entry::new(&path.join("."), value.clone(), typed.origin.clone()));
    });
    Ok(entries)
}

/// Visit every value, and every empty table, with its path.
pub(super) fn flatten(table: &Table, path: &mut Vec<String>, visit: &mut impl FnMut(&[String], &Value)) {
    for (name, value) in table {
        path.push(name.clone());
        match value {
            Value::Table(inner) if !inner.is_empty() => flatten(inner, path, visit),
            _ => visit(path, value),
        }
        path.pop();
    }
}

/// What a file sets, in order.
pub(super) fn of_file(path: &Path) -> Result<Vec<Entry>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read `{}`", path.display()))?;
    parse(&text, &|offset| {
        let (line, column) = line_and_column(&text, offset);
        Origin::File { path: path.to_owned(), line, column }
    })
}

/// All values of a TOML text, in order, with their places.
fn parse(text: &str, at: &dyn Fn(usize) -> Origin) -> Result<Vec<Entry>> {
    let not_toml = |error: toml::de::Error| {
        let origin = at(error.span().map_or(0, |span| span.start));
        anyhow!("{}: not TOML: {}", origin.site(), error.message().lines().next().unwrap_or_default())
    };
    let spans = DeTable::parse(text).map_err(not_toml)?;
    let values: Table = text.parse().map_err(not_toml)?;
    let mut entries = Vec::new();
    flatten(&values, &mut Vec::new(), &mut |path, value| {
        let (parts, origin) = places(spans.get_ref(), path, at);
        entries.push(Entry { path: path.to_vec(), value: value.clone(), raw: None, origin, parts });
    });
    Ok(entries)
}

/// Where each part of a key stands, and where its value does.
fn places(root: &DeTable<'_>, path: &[String], at: &dyn Fn(usize) -> Origin) -> (Vec<Origin>, Origin) {
    let mut table = Some(root);
    let mut parts = Vec::new();
    let mut origin = at(0);
    for name in path {
        let entry = table.and_then(|it| it.iter().find(|(key, _)| key.get_ref() == name));
        let Some((key, value)) = entry else { break };
        parts.push(at(key.span().start));
        origin = at(value.span().start);
        table = value.get_ref().as_table();
    }
    (parts, origin)
}
