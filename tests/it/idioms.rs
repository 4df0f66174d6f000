//! Everything a person reads is plain English: no phrase of banned_idioms.txt.

use regex::{Regex, RegexBuilder};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// A phrase and what to write instead.
struct Idiom {
    phrase: Regex,
    better: String,
}

fn idioms() -> Vec<Idiom> {
    let lines = include_str!("banned_idioms.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (phrase, better) = line.split_once(" -> ").unwrap_or_else(|| panic!("no ` -> ` in `{line}`"));
            let phrase = RegexBuilder::new(phrase).case_insensitive(true).build().unwrap();
            Idiom { phrase, better: better.to_owned() }
        })
        .collect()
}

/// Files that quote what models, other programs or stories say.
const QUOTES: [&str; 11] = [
    "benches/reward.rs",
    "examples/pretrain_tiny/text.rs",
    "src/behavior/judge.rs",
    "src/behavior/judge.toml",
    "src/behavior/rules.toml",
    "src/data/arithmetic.rs",
    "src/reward/bench/rewrite.rs",
    "tests/it/banned_idioms.txt",
    "tests/it/behaviors.rs",
    "tests/it/idioms.rs",
    "tests/oracle/greedy.py",
];

/// The files with text: sources, documentation, configurations and scripts.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !["target", "assets", "fixtures", "prompts", "runs", "models"].contains(&&*name)
                && !name.starts_with('.')
            {
                files(&path, found);
            }
        } else if ["rs", "md", "toml", "sh", "py"].iter().any(|end| path.extension().is_some_and(|it| it == *end)) {
            found.push(path);
        }
    }
}

/// The comments and string literals of a Rust source, line by line; code is blank.
fn text_of_rust(source: &str) -> String {
    let bytes: Vec<char> = source.chars().collect();
    let at = |i: usize| bytes.get(i).copied().unwrap_or('\0');
    let (mut text, mut i) = (String::new(), 0);
    while i < bytes.len() {
        let word = i > 0 && (at(i - 1).is_alphanumeric() || at(i - 1) == '_');
        let hashes = (i + 1..).take_while(|&j| at(j) == '#').count();
        let end = if at(i) == '/' && at(i + 1) == '/' {
            (i..bytes.len()).find(|&j| at(j) == '\n').unwrap_or(bytes.len())
        } else if at(i) == 'r' && !word && at(i + 1 + hashes) == '"' {
            let closes = |&j: &usize| at(j) == '"' && (1..=hashes).all(|k| at(j + k) == '#');
            (i + 2 + hashes..bytes.len()).find(closes).map_or(bytes.len(), |j| j + 1 + hashes)
        } else if at(i) == '"' {
            let mut j = i + 1;
            while j < bytes.len() && at(j) != '"' {
                j += if at(j) == '\\' { 2 } else { 1 };
            }
            j + 1
        } else if at(i) == '\'' && (at(i + 2) == '\'' || at(i + 1) == '\\') {
            // A character, which may be a quote; a lifetime has no second quote.
            i = (i + 2..).find(|&j| at(j) == '\'' && (j > i + 2 || at(j - 1) != '\\')).unwrap() + 1;
            continue;
        } else {
            text.push(if at(i) == '\n' { '\n' } else { ' ' });
            i += 1;
            continue;
        };
        text.extend(&bytes[i..end.min(bytes.len())]);
        i = end;
    }
    text
}

#[test]
fn no_banned_idiom_is_used() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    files(root, &mut paths);
    assert!(paths.len() > 300, "{}", paths.len());
    let (idioms, mut found) = (idioms(), String::new());
    for path in paths {
        let name = path.strip_prefix(root).unwrap().display().to_string();
        if QUOTES.contains(&&*name) {
            continue;
        }
        let source = fs::read_to_string(&path).unwrap();
        let text = if name.ends_with(".rs") { text_of_rust(&source) } else { source };
        for (number, line) in text.lines().enumerate() {
            for Idiom { phrase, better } in &idioms {
                if let Some(hit) = phrase.find(line) {
                    writeln!(found, "{name}:{}: `{}`; better: {better}", number + 1, hit.as_str().trim()).unwrap();
                }
            }
        }
    }
    assert!(found.is_empty(), "{} banned idioms\n{found}", found.lines().count());
}

#[test]
fn the_text_of_a_source_is_its_comments_and_strings() {
    let source = "fn f<'a>(x: &'a str) { g('\"', '\\'', \"a \\\" b\"); } // c\nlet r = r#\"d \"e\" f\"#;";
    let text = text_of_rust(source);
    assert_eq!(text.split_whitespace().collect::<Vec<_>>().join(" "), "\"a \\\" b\" // c r#\"d \"e\" f\"#");
    assert_eq!(text.lines().count(), 2);
}
