//! The known keys, read from a complete configuration, and the most similar known key to an unknown one.

use toml::{Table, Value};

/// Minimum similarity of a suggestion.
const LIKENESS: f64 = 0.6;

/// The dotted keys of all values and the dotted names of all sections, in the order of the schema.
#[derive(Clone)]
pub(super) struct Known {
    keys: Vec<String>,
    sections: Vec<String>,
}

impl Known {
    pub fn of(complete: &Table) -> Known {
        let mut known = Known { keys: Vec::new(), sections: Vec::new() };
        known.collect(complete, "");
        known
    }

    fn collect(&mut self, table: &Table, prefix: &str) {
        for (name, value) in table {
            let key = format!("{prefix}{name}");
            match value {
                Value::Table(section) => {
                    self.collect(section, &format!("{key}."));
                    self.sections.push(key);
                }
                _ => self.keys.push(key),
            }
        }
    }

    pub fn has_key(&self, key: &str) -> bool {
        self.keys.iter().any(|it| it == key)
    }

    pub fn has_section(&self, section: &str) -> bool {
        self.sections.iter().any(|it| it == section)
    }

    /// The hint for an unknown `key`.
    pub fn hint(&self, key: &str) -> String {
        if let Some(meant) = self.nearest(key) {
            return format!("did you mean `{meant}`?");
        }
        match key.rsplit_once('.') {
            Some((section, _)) if self.has_section(section) => {
                format!("the keys of [{section}] are {}", self.names_in(section).join(", "))
            }
            _ => "`rft config show` prints all keys".to_owned(),
        }
    }

    /// The known key or section that is most similar to `key`. The last part of the name has more weight than its section,
    /// because a known name in the wrong section is the most common mistake.
    fn nearest(&self, key: &str) -> Option<&str> {
        let (section, name) = split(key);
        let likeness = |candidate: &str| {
            let (its_section, its_name) = split(candidate);
            let same_name = if name == its_name { 0.2 } else { 0.0 };
            let sections = match (section, its_section) {
                ("", "") => alike(name, its_name),
                _ => strsim::normalized_damerau_levenshtein(section, its_section),
            };
            same_name + 0.7 * alike(name, its_name) + 0.3 * sections
        };
        let keys = self.keys.iter().chain(&self.sections).map(|it| (likeness(it), it.as_str()));
        // The first of several equally similar keys, so that the result follows the order of the schema.
        let best = keys.reduce(|best, it| if it.0 > best.0 { it } else { best });
        best.filter(|(likeness, _)| *likeness >= LIKENESS).map(|(_, key)| key)
    }

    fn names_in(&self, section: &str) -> Vec<&str> {
        self.keys.iter().map(|it| split(it)).filter(|it| it.0 == section).map(|it| it.1).collect()
    }
}

/// The choice that is most similar to `word`, from a short list of names.
pub(crate) fn nearest_name<'a>(word: &str, choices: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let best = choices.map(|it| (alike(word, it), it)).reduce(|best, it| if it.0 > best.0 { it } else { best });
    best.filter(|(likeness, _)| *likeness >= LIKENESS).map(|(_, it)| it)
}

/// From 0 to 1. A word that contains the other one (`alpha`, `lora_alpha`) is nearly the same.
fn alike(a: &str, b: &str) -> f64 {
    let edits = strsim::normalized_damerau_levenshtein(a, b);
    let contained = a.len() >= 4 && b.contains(a) || b.len() >= 4 && a.contains(b);
    if contained { edits.max(0.85) } else { edits }
}

fn split(key: &str) -> (&str, &str) {
    key.rsplit_once('.').unwrap_or(("", key))
}
