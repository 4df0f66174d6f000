//! Faults of a single value, told in the words of TOML.

use anyhow::anyhow;

use super::known::nearest_name;
use super::place::Origin;

/// A value of the wrong type, or a word that is none of the choices.
pub(super) struct Fault {
    problem: String,
    hint: Option<String>,
}

impl Fault {
    /// Say in the words of TOML what serde says in those of Rust.
    pub fn of_message(message: &str) -> Fault {
        let message = message.lines().next().unwrap_or_default();
        if let Some((found, expected)) =
            message.strip_prefix("invalid type: ").and_then(|it| it.split_once(", expected "))
        {
            let hint = (expected == "a sequence").then(|| r#"a list is written ["one", "two"]"#.to_owned());
            return Fault { problem: format!("expected {}, found {}", kind(expected), in_toml(found)), hint };
        }
        if let Some((found, expected)) =
            message.strip_prefix("invalid value: ").and_then(|it| it.split_once(", expected "))
        {
            let range = if expected == "u8" { "an integer from 0 to 255" } else { "an integer of at least 0" };
            return Fault { problem: format!("expected {range}, found {}", in_toml(found)), hint: None };
        }
        if let Some((found, expected)) =
            message.strip_prefix("unknown variant ").and_then(|it| it.split_once(", expected "))
        {
            let choices: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
            let meant = nearest_name(found.trim_matches('`'), choices.iter().copied());
            let question = meant.map(|it| format!("did you mean `{it}`? ")).unwrap_or_default();
            return Fault {
                problem: format!("unknown value {found}"),
                hint: Some(format!("{question}one of {}", choices.join(", "))),
            };
        }
        Fault { problem: message.to_owned(), hint: None }
    }

    pub fn at(self, origin: &Origin, key: &str) -> anyhow::Error {
        let hint = self.hint.map(|it| format!("\nhint: {it}")).unwrap_or_default();
        anyhow!("{}: `{key}`: {}{hint}", origin.site(), self.problem)
    }
}

fn kind(expected: &str) -> &str {
    match expected {
        "usize" | "u64" | "u8" => "integer",
        "f64" => "number",
        "a string" => "string",
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
