//! Faults of a single value, told in the words of TOML.

use anyhow::anyhow;
use toml::Value;

use super::known::nearest_name;
use super::place::ValueOrigin;

/// A value of the wrong type, or a word that is none of the choices.
pub(crate) struct ConfigFault {
    problem: String,
    hint: Option<String>,
}

impl ConfigFault {
    /// Say in the words of TOML what serde says in those of Rust.
    pub fn of_value(value: &Value, message: &str) -> ConfigFault {
        let message = message.lines().next().unwrap_or_default();
        let told = |kind: &str| message.strip_prefix(kind)?.split_once(", expected ");
        if let Some((found, expected)) = told("invalid type: ") {
            // What serde says of a choice that is no word names neither the value nor its type.
            let whole_value = format!("{} {value}", value.type_str());
            let found = if found == "unit variant" { whole_value } else { in_toml(found) };
            let hint = (expected == "a sequence").then(|| r#"a list is written ["one", "two"]"#.to_owned());
            return ConfigFault { problem: format!("expected {}, found {found}", kind(expected)), hint };
        }
        if let Some((found, expected)) = told("invalid value: ") {
            let range = if expected == "u8" { "an integer from 0 to 255" } else { "an integer of at least 0" };
            return ConfigFault { problem: format!("expected {range}, found {}", in_toml(found)), hint: None };
        }
        if let Some((found, expected)) = told("unknown variant ") {
            let choices: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
            let meant = nearest_name(found.trim_matches('`'), choices.iter().copied());
            let question = meant.map(|it| format!("did you mean `{it}`? ")).unwrap_or_default();
            let hint = format!("{question}one of {}", choices.join(", "));
            return ConfigFault { problem: format!("unknown value {found}"), hint: Some(hint) };
        }
        ConfigFault { problem: message.to_owned(), hint: None }
    }

    pub fn at(self, origin: &ValueOrigin, key: &str) -> anyhow::Error {
        let hint = self.hint.map(|it| format!("\nhint: {it}")).unwrap_or_default();
        anyhow!("{}: `{key}`: {}{hint}", origin.site(), self.problem)
    }
}

fn kind(expected: &str) -> &str {
    match expected {
        "usize" | "u64" | "u8" => "integer",
        "f64" => "number",
        "a string" | "string only" => "string",
        "a boolean" => "boolean",
        "a sequence" => "array",
        other => other,
    }
}

fn in_toml(found: &str) -> String {
    match found {
        "sequence" => "array".to_owned(),
        "map" => "table".to_owned(),
        string if string.starts_with("string ") => string.to_owned(),
        number => number.replace("floating point", "float").replace('`', ""),
    }
}
