//! Single values and the keys that they set, read from a configuration layer.

use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use toml::{Table, Value};

use super::node::{ConfigKey, Node};
use super::place::ValueOrigin;

/// A value that a layer sets.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The parts of the key.
    pub path: Vec<String>,
    pub value: Value,
    /// The text as typed, if it was typed without TOML quotes.
    pub raw: Option<String>,
    /// The place of the value.
    pub origin: ValueOrigin,
    /// The place of each part of the key; empty if the key has no place of its own.
    pub parts: Vec<ValueOrigin>,
}

impl Entry {
    pub fn new(key: &str, value: Value, origin: ValueOrigin) -> Entry {
        Entry { path: key.split('.').map(str::to_owned).collect(), value, raw: None, origin, parts: Vec::new() }
    }

    /// A value from a file, under a key whose parts may contain dots: `"train.seed" = 1`.
    pub fn of_node(key: &[&ConfigKey], node: &Node) -> Entry {
        let names =
            key.iter().flat_map(|key| key.name.split('.').map(move |part| (part.to_owned(), key.origin.clone())));
        let (path, parts) = names.unzip();
        Entry { path, value: node.to_value(), raw: None, origin: node.origin.clone(), parts }
    }

    /// A value typed in a shell: TOML, or a string without quotes.
    fn typed(key: &str, raw: &str, origin: ValueOrigin) -> Entry {
        let value = raw.parse().unwrap_or_else(|_| Value::String(raw.to_owned()));
        Entry { raw: Some(raw.to_owned()), ..Entry::new(key, value, origin) }
    }

    pub fn key(&self) -> String {
        self.path.join(".")
    }
}

impl Node {
    /// The values that this table sets, in order.
    pub fn entries(&self) -> Vec<Entry> {
        self.leaves().into_iter().map(|(path, node)| Entry::of_node(&path, node)).collect()
    }
}

/// The values that `RFT_SECTION__KEY` variables set.
pub(super) fn of_environment(variables: &[(String, String)]) -> Vec<Entry> {
    let entry = |(name, value): &(String, String)| {
        let key = name.strip_prefix("RFT_").filter(|it| it.contains("__"))?.to_lowercase().replace("__", ".");
        Some(Entry::typed(&key, value.trim(), ValueOrigin::Environment(name.clone())))
    };
    variables.iter().filter_map(entry).collect()
}

/// The value that an argument of `--set` sets.
pub(crate) fn of_set(argument: &str) -> Result<Vec<Entry>> {
    let (key, raw) = argument
        .split_once('=')
        .ok_or_else(|| anyhow!("--set {argument}: expected `=`\nhint: write --set section.key=value"))?;
    let typed = Entry::typed(key.trim(), raw.trim(), ValueOrigin::Set(argument.to_owned()));
    let Value::Table(table) = &typed.value else { return Ok(vec![typed]) };
    // An inline table sets several keys of a section.
    let mut entries = Vec::new();
    flatten(table, &mut typed.path.clone(), &mut |path, value| {
        entries.push(Entry::new(&path.join("."), value.clone(), typed.origin.clone()));
    });
    Ok(entries)
}

/// Visits every value, and every empty table, with its path.
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

/// Maximum length of a configuration file in bytes.
const LONGEST: u64 = 1 << 20;

/// The values that a file sets, in order.
pub(super) fn of_file(path: &Path) -> Result<Vec<Entry>> {
    if let Ok(metadata) = path.metadata() {
        let is_readable = metadata.is_file() && metadata.len() <= LONGEST;
        ensure!(is_readable, "read `{}`: expected a TOML file of at most 1 MiB", path.display());
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("read `{}`", path.display()))?;
    Ok(Node::of_text(&text, path)?.entries())
}
