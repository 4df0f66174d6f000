//! The keys there are, read off a complete configuration, and the one that was probably meant.

use toml::{Table, Value};

/// Below this likeness a suggestion would mislead.
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

    /// What to write instead of an unknown `key`, as the sentence of a hint.
    pub fn hint(&self, key: &str) -> String {
        if let Some(meant) = self.nearest(key) {
            return format!("did you mean `{meant}`?");
        }
        match key.rsplit_once('.') {
            Some((section, _)) if self.has_section(section) => {
                format!("[{section}] has {}", self.names_in(section).join(", "))
            }
            _ => "`rft config show` lists every key".to_owned(),
        }
    }

    /// The key or section most like `key`. The last part of the name weighs more than its section, since a known name in
    /// the wrong section is the commonest slip.
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
        // The first of equals, so that the answer follows the order of the schema.
        let best = keys.reduce(|best, it| if it.0 > best.0 { it } else { best });
        best.filter(|(likeness, _)| *likeness >= LIKENESS).map(|(_, key)| key)
    }

    fn names_in(&self, section: &str) -> Vec<&str> {
        self.keys.iter().map(|it| split(it)).filter(|it| it.0 == section).map(|it| it.1).collect()
    }
}

/// The choice most like `word`, for a short list of names.
pub(crate) fn nearest_name<'a>(word: &str, choices: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let best = choices.map(|it| (alike(word, it), it)).reduce(|best, it| if it.0 > best.0 { it } else { best });
    best.filter(|(likeness, _)| *likeness >= LIKENESS).map(|(_, it)| it)
}

/// From 0 to 1; a word that stands inside the other (`alpha`, `lora_alpha`) is nearly the same.
fn alike(a: &str, b: &str) -> f64 {
    let edits = strsim::normalized_damerau_levenshtein(a, b);
    let contained = a.len() >= 4 && b.contains(a) || b.len() >= 4 && a.contains(b);
    if contained { edits.max(0.85) } else { edits }
}

fn split(key: &str) -> (&str, &str) {
    key.rsplit_once('.').unwrap_or(("", key))
}
