//! Applies the rules to a completion and returns spans. Deterministic, and linear in the length of the completion.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use regex::{Captures, Regex};
use serde::{Deserialize, Serialize};

use super::passages::{self, Passages};
use super::text::{Sentence, Text};
use super::{BehaviorSpan, Class};

/// The supported format version of rule files.
const FORMAT: u32 = 1;
/// The minimum agreement of the rules with the labels, without which their figures are marked.
const ENOUGH_PRECISION: f64 = 0.8;
const ENOUGH_F1: f64 = 0.75;

/// Rules for all classes, compiled.
pub struct Classifier {
    /// The version of the rules. It is increased whenever their results may change.
    pub version: u32,
    /// The agreement of each class with the labels, if it was measured.
    pub measured: BTreeMap<Class, RuleAgreement>,
    rules: Vec<BehaviorRule>,
    negation: Regex,
    passages: Passages,
}

/// Agreement of the rules and the labels on whether a completion shows the class, on completions not used to develop the rules.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleAgreement {
    pub precision: f64,
    pub recall: f64,
    pub f1: f64,
}

impl RuleAgreement {
    pub fn is_enough(&self) -> bool {
        self.precision >= ENOUGH_PRECISION && self.f1 >= ENOUGH_F1
    }
}

/// A rule file. rules.toml explains its fields.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFile {
    format: u32,
    version: u32,
    negation: String,
    passages: passages::Patterns,
    rule: Vec<BehaviorRule>,
    #[serde(default)]
    measured: BTreeMap<Class, RuleAgreement>,
}

/// A rule that finds one class in a sentence.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BehaviorRule {
    name: String,
    class: Class,
    #[serde(with = "pattern")]
    find: Regex,
    /// Must also match in the sentence or in the next one.
    #[serde(default, with = "optional_pattern")]
    with: Option<Regex>,
    /// Must not match in the sentence.
    #[serde(default, with = "optional_pattern")]
    unless: Option<Regex>,
    /// True: only in list items and headings. False: only outside them.
    item: Option<bool>,
    /// Only inside elements with this tag.
    within: Option<String>,
    /// The text of the group `goal`, or else the clause after the match, must not be what the question asks for.
    #[serde(default)]
    intermediate: bool,
    /// The text after the match, or else the next sentence, must contain something that is not in the prompt.
    #[serde(default)]
    new: bool,
}

impl Classifier {
    /// The built-in rules.
    pub fn built_in() -> &'static Self {
        static BUILT_IN: OnceLock<Classifier> = OnceLock::new();
        BUILT_IN.get_or_init(|| Self::parse(include_str!("rules.toml")).expect("the built-in rules are valid"))
    }

    /// The rules in a user's file, which replace the built-in ones.
    pub fn load(path: &Path) -> Result<Self> {
        let context = || format!("read the rules `{}`", path.display());
        Self::parse(&std::fs::read_to_string(path).with_context(context)?).with_context(context)
    }

    fn parse(toml: &str) -> Result<Self> {
        let file: RuleFile = toml::from_str(toml)?;
        ensure!(
            file.format == FORMAT,
            "`format`: expected {FORMAT}, found {}\nhint: update the file to format {FORMAT}",
            file.format
        );
        Ok(Self {
            version: file.version,
            measured: file.measured,
            rules: file.rule,
            negation: Regex::new(&file.negation).context("`negation`")?,
            passages: file.passages.compile()?,
        })
    }

    /// Whether the figures of `class` are marked, because the agreement with the labels is low or was not measured.
    pub fn is_doubtful(&self, class: Class) -> bool {
        self.measured.get(&class).is_none_or(|measured| !measured.is_enough())
    }

    /// The spans of `response`, by class and position. `prompt` is the complete input of the model; text copied from it does
    /// not count.
    pub fn classify(&self, prompt: &str, response: &str) -> Vec<BehaviorSpan> {
        let text = Text::new(prompt, response);
        let code = self.passages.code(&text);
        let in_code = |sentence: &Sentence| {
            let next = code.partition_point(|span| span.end <= sentence.range.start);
            code.get(next).is_some_and(|span| span.start < sentence.range.end)
        };
        let usable: Vec<&Sentence> =
            text.sentences.iter().filter(|sentence| !in_code(sentence) && !text.is_copied(&sentence.range)).collect();
        let mut spans: Vec<BehaviorSpan> = Vec::new();
        // Sentences that already have a class: a formula that is recalled, checked or withdrawn is not a reasoning step too.
        let mut taken = vec![false; usable.len()];
        for class in Class::ALL {
            // Adjacent sentences of a check, or of examples, are merged into one span.
            let reach = match class {
                Class::Verification => 1,
                Class::ExampleUse => 3,
                _ => 0,
            };
            let mut last: Option<usize> = None;
            for (index, sentence) in usable.iter().enumerate() {
                let next = usable.get(index + 1).map_or("", |next| text.of(next));
                let Some(rule) = self.rule_for(class, &text, sentence, next) else { continue };
                taken[index] |= class != Class::SubgoalSetting && class != Class::BackwardChaining;
                let Range { start, end } = sentence.range;
                match spans.last_mut() {
                    Some(span) if last.is_some_and(|last| index <= last + reach) => span.end = end,
                    _ => spans.push(BehaviorSpan { class, start, end, rule: rule.to_owned() }),
                }
                last = Some(index);
            }
        }
        let free: Vec<&Sentence> = usable.iter().zip(&taken).filter(|(_, taken)| !**taken).map(|(it, _)| *it).collect();
        spans.extend(self.passages.planning(&text, &usable));
        spans.extend(self.passages.reasoning(&text, &free));
        spans.extend(code);
        spans.sort_by_key(|span| (span.class, span.start, span.end));
        spans
    }

    /// The first rule of `class` that matches a sentence.
    fn rule_for(&self, class: Class, text: &Text, sentence: &Sentence, next: &str) -> Option<&str> {
        let words = text.of(sentence);
        let mut rules = self.rules.iter().filter(|rule| rule.class == class);
        let rule = rules.find(|rule| {
            rule.item.is_none_or(|item| item == sentence.item)
                && rule.within.as_ref().is_none_or(|tag| text.is_within(&sentence.range, tag))
                && rule.find.captures_iter(words).any(|found| self.holds(rule, text, sentence, &found, next))
                && rule.with.as_ref().is_none_or(|with| with.is_match(words) || with.is_match(next))
                && rule.unless.as_ref().is_none_or(|unless| !unless.is_match(words))
        });
        rule.map(|rule| rule.name.as_str())
    }

    /// Whether a match counts: it is not negated or copied, and its text meets the conditions of the rule.
    fn holds(&self, rule: &BehaviorRule, text: &Text, sentence: &Sentence, found: &Captures, next: &str) -> bool {
        let words = text.of(sentence);
        let all = found.get_match();
        let place = sentence.range.start + all.start()..sentence.range.start + all.end();
        let rest = &words[all.end()..];
        let goal = || found.name("goal").map_or_else(|| clause(rest), |goal| goal.as_str());
        let instance = || if rest.chars().any(char::is_alphanumeric) { rest } else { next };
        let denied = self.negation.is_match(&words[..all.start()]) || text.is_copied(&place);
        let asked = rule.intermediate && text.is_asked(goal());
        let old = rule.new && !text.is_new(instance());
        !(denied || asked || old)
    }
}

/// A passage up to the end of its first clause.
fn clause(passage: &str) -> &str {
    let end = passage
        .char_indices()
        .find(|(at, c)| matches!(c, ',' | ';' | ':') && passage[at + 1..].starts_with([' ', '\n']));
    &passage[..end.map_or(passage.len(), |(at, _)| at)]
}

/// A regular expression in a rule file.
pub(super) mod pattern {
    use super::*;

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(source: D) -> Result<Regex, D::Error> {
        Regex::new(&String::deserialize(source)?).map_err(serde::de::Error::custom)
    }
}

mod optional_pattern {
    use super::*;

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(source: D) -> Result<Option<Regex>, D::Error> {
        pattern::deserialize(source).map(Some)
    }
}
