//! The inputs of a run, compared between its start and a resume.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::manifest::{InputChange, Manifest, SourceRecord};

/// The key of the one hash that older versions recorded for all files of a source together.
pub const ALL: &str = "all";

impl fmt::Display for InputChange {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { input, before, after } = self;
        match (before.as_deref().map(short), after.as_deref().map(short)) {
            (Some(before), Some(after)) => write!(f, "{input} (SHA-256 {before}, now {after})"),
            (Some(before), None) => write!(f, "{input} (SHA-256 {before}, now missing)"),
            (None, after) => write!(f, "{input} (new, SHA-256 {})", after.unwrap_or_default()),
        }
    }
}

/// The first digits of a hash, without the name of its method.
pub fn short(hash: &str) -> &str {
    let digits = hash.rsplit(':').next().unwrap_or(hash);
    digits.get(..12).unwrap_or(digits)
}

/// The inputs in which `now` differs from `before`. Of a manifest from an older version only what it recorded is compared.
pub fn changes(before: &Manifest, now: &Manifest) -> Vec<InputChange> {
    let mut changes = differences(|name| format!("`{name}` of the run"), &before.files, &now.files);
    let prompt = |manifest: &Manifest| BTreeMap::from([(String::new(), manifest.learned_prompt().sha256.clone())]);
    if !changes.iter().any(|change| change.input.contains("prompt.toml")) {
        let text = |_: &str| format!("text of the prior prompt `{}`", before.learned_prompt().name);
        changes.extend(differences(text, &prompt(before), &prompt(now)));
    }
    changes.extend(differences(|name| named("model", name, before), &before.model.files, &now.model.files));
    changes.extend(differences(|name| named("data", name, before), &before.data.files, &now.data.files));
    let others = [
        ("chat template", &before.template, &now.template),
        ("file of the initial adapter", &before.init_adapter, &now.init_adapter),
        ("file of pass rates", &before.difficulty, &now.difficulty),
        ("file of held-out questions", &before.held_out, &now.held_out),
    ];
    for (what, before, now) in others {
        let files = |record: &Option<SourceRecord>| record.as_ref().map(|it| it.files.clone()).unwrap_or_default();
        changes.extend(differences(|name| format!("{what} `{name}`"), &files(before), &files(now)));
    }
    changes
}

/// Whether a manifest has no hashes of single files.
pub fn is_from_older_version(manifest: &Manifest) -> bool {
    manifest.files.is_empty()
}

/// What a user calls a file of the model or of the data.
fn named(source: &str, file: &str, manifest: &Manifest) -> String {
    match (source, file) {
        ("model", ALL) => format!("weights of `{}`", manifest.model.path),
        (_, ALL) => format!("questions of `{}`", manifest.data.path),
        ("data", file) => format!("data file `{file}`"),
        (_, file) if file.ends_with(".safetensors") => format!("weights `{file}` of the model"),
        (_, file) => format!("`{file}` of the model"),
    }
}

fn differences(
    name: impl Fn(&str) -> String,
    before: &BTreeMap<String, String>,
    now: &BTreeMap<String, String>,
) -> Vec<InputChange> {
    let files: BTreeSet<&String> = match before.keys().any(|file| file != ALL) {
        true => before.keys().chain(now.keys()).filter(|file| *file != ALL).collect(),
        false => before.keys().collect(),
    };
    let changed = files.into_iter().filter(|file| before.get(*file) != now.get(*file));
    changed
        .map(|file| InputChange { input: name(file), before: before.get(file).cloned(), after: now.get(file).cloned() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(name, hash)| ((*name).to_owned(), (*hash).to_owned())).collect()
    }

    fn shown(before: &[(&str, &str)], now: &[(&str, &str)]) -> Vec<String> {
        let changes = differences(|name| format!("`{name}`"), &files(before), &files(now));
        changes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn changed_missing_and_new_files_are_named() {
        let before = [("a", "0123456789abcdef"), ("all", "1"), ("b", "2")];
        assert!(shown(&before, &before).is_empty());
        assert_eq!(
            shown(&before, &[("a", "sha256:3123456789abcdef"), ("all", "4"), ("c", "5")]),
            ["`a` (SHA-256 0123456789ab, now 3123456789ab)", "`b` (SHA-256 2, now missing)", "`c` (new, SHA-256 5)"],
            "the hash of all files together adds nothing"
        );
    }

    #[test]
    fn only_what_an_older_version_recorded_is_compared() {
        assert!(shown(&[], &[("a", "1")]).is_empty());
        assert!(shown(&[("all", "1")], &[("a", "2"), ("all", "1")]).is_empty());
        assert_eq!(shown(&[("all", "1")], &[("a", "2"), ("all", "3")]), ["`all` (SHA-256 1, now 3)"]);
    }
}
