//! A configuration as text.

use std::collections::BTreeMap;
use std::fmt::Write;

use toml::{Table, Value};

use super::optional::UNSET;
use super::place::ValueOrigin;
use super::schema::RunConfig;

/// Every key in the order of the schema, so that the text alone repeats the run. With `origins`, each line shows the origin
/// of its value.
pub fn to_toml(config: &RunConfig, origins: Option<&BTreeMap<String, ValueOrigin>>) -> String {
    to_toml_with(config, &Remarks { origins, meanings: None })
}

/// What is written next to the keys, each by its full name.
pub struct Remarks<'a> {
    pub origins: Option<&'a BTreeMap<String, ValueOrigin>>,
    pub meanings: Option<&'a BTreeMap<String, String>>,
}

/// The same with the meaning of each key above it.
pub fn to_toml_with(config: &RunConfig, remarks: &Remarks) -> String {
    let table = Table::try_from(config).expect("TOML can represent a configuration");
    let mut text = String::new();
    write_section(&mut text, &table, "", remarks);
    text
}

fn write_section(text: &mut String, table: &Table, section: &str, remarks: &Remarks) {
    let lines: Vec<(&String, String)> = table
        .iter()
        .filter(|(_, value)| !value.is_table())
        .map(|(key, value)| (key, format!("{key} = {value}")))
        .collect();
    if !lines.is_empty() {
        let gap = if text.is_empty() { "" } else { "\n" };
        _ = writeln!(text, "{gap}[{section}]");
    }
    let width = lines.iter().map(|(_, line)| line.chars().count()).max().unwrap_or(0);
    for (key, line) in lines {
        let name = format!("{section}.{key}");
        if let Some(meaning) = remarks.meanings.and_then(|it| it.get(&name)) {
            _ = writeln!(text, "# {meaning}");
        }
        match remarks.origins.and_then(|it| it.get(&name)) {
            Some(origin) => _ = writeln!(text, "{line:width$}  # from {origin}"),
            None => _ = writeln!(text, "{line}"),
        }
    }
    for (key, value) in table {
        if let Value::Table(inner) = value {
            let name = if section.is_empty() { key.clone() } else { format!("{section}.{key}") };
            write_section(text, inner, &name, remarks);
        }
    }
}

/// The same as JSON, with null for unset values.
pub fn to_json(config: &RunConfig) -> serde_json::Value {
    let mut json = serde_json::to_value(config).expect("JSON can represent a configuration");
    unset_to_null(&mut json);
    json
}

fn unset_to_null(json: &mut serde_json::Value) {
    match json {
        serde_json::Value::Object(object) => object.values_mut().for_each(unset_to_null),
        serde_json::Value::String(text) if text == UNSET => *json = serde_json::Value::Null,
        _ => {}
    }
}
