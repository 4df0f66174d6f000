//! Checks a `tokenizer.json` before the crate `tokenizers` reads it.
//!
//! That crate runs what the file describes: steps that change the text, patterns, numbers of tokens to add. Some of it panics,
//! takes all of the memory, or gives text that another program would not give. So only the steps that byte-pair tokenizers of
//! language models use are passed on, with numbers and lengths that are far above all in use.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::disk::budget::Budget;

/// Maximum number of bytes of a file. The largest in use have 35 MB.
pub(super) const LONGEST: u64 = 64 << 20;
/// Maximum number of bytes of a part that is not a list of tokens.
const LONGEST_PART: usize = 1 << 20;
/// Maximum number of tokens and of merges.
const VOCABULARY: (usize, usize) = (1 << 20, 1 << 22);
/// Maximum number of tokens to pad or truncate to.
const TOKENS: u64 = 1 << 32;
/// Maximum number of added tokens, and of their bytes.
const ADDED: (usize, usize) = (20_000, 1 << 20);
/// Maximum number of steps of one kind, counting those within a sequence.
const STEPS: usize = 16;
/// Maximum number of sequences within each other.
const DEEPEST: usize = 3;
/// Maximum number of bytes that one byte of a text may become.
const GROWTH: usize = 256;
/// Maximum number of bytes of a pattern, and of the sum of the numbers of repetitions in it.
const PATTERN: (usize, usize) = (8192, 64);

/// A checked file.
pub(super) struct TokenizerFile {
    /// The file without its options for batches and without unknown parts.
    pub json: Vec<u8>,
    /// Id and text of the added tokens.
    pub added: Vec<(u32, String)>,
    /// The token that is placed before every text.
    pub leading: Option<u32>,
}

#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow)]
    version: Option<&'a RawValue>,
    #[serde(borrow)]
    truncation: Option<&'a RawValue>,
    #[serde(borrow)]
    padding: Option<&'a RawValue>,
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(borrow)]
    normalizer: Option<&'a RawValue>,
    #[serde(borrow)]
    pre_tokenizer: Option<&'a RawValue>,
    #[serde(borrow)]
    post_processor: Option<&'a RawValue>,
    #[serde(borrow)]
    decoder: Option<&'a RawValue>,
    #[serde(borrow)]
    model: &'a RawValue,
}

#[derive(Deserialize, Serialize)]
struct Added {
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    special: bool,
}

/// The file as the crate receives it.
#[derive(Serialize)]
struct Checked<'a> {
    version: Value,
    truncation: (),
    padding: (),
    added_tokens: Vec<Added>,
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Value,
    decoder: Value,
    model: &'a RawValue,
}

#[derive(Deserialize)]
struct ModelPart<'a> {
    #[serde(rename = "type", borrow)]
    kind: Option<std::borrow::Cow<'a, str>>,
    continuing_subword_prefix: Option<std::borrow::Cow<'a, str>>,
    end_of_word_suffix: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow)]
    vocab: Option<&'a RawValue>,
    /// Without their texts, this takes no memory.
    #[serde(default)]
    merges: Vec<IgnoredAny>,
}

/// A vocabulary of limited size.
struct Vocabulary(BTreeMap<String, u32>);

impl<'de> Deserialize<'de> for Vocabulary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TokenizerMap;
        impl<'de> Visitor<'de> for TokenizerMap {
            type Value = Vocabulary;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("a table of tokens and ids")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocabulary, A::Error> {
                let mut tokens = BTreeMap::new();
                while let Some((token, id)) = map.next_entry::<String, u32>()? {
                    if tokens.contains_key(&token) {
                        return Err(A::Error::custom(format!("the token `{token}` is listed twice")));
                    }
                    tokens.insert(token, id);
                    if tokens.len() > VOCABULARY.0 {
                        return Err(A::Error::custom(format!("more than {} tokens", VOCABULARY.0)));
                    }
                }
                Ok(Vocabulary(tokens))
            }
        }
        deserializer.deserialize_map(TokenizerMap)
    }
}

/// # Errors
/// The file is not JSON of this form, or has a part that is not supported; the message names the part.
pub(super) fn check(bytes: &[u8]) -> Result<TokenizerFile> {
    Budget::new(LONGEST).take(bytes.len() as u64)?;
    let text = std::str::from_utf8(bytes).context("not UTF-8 text")?;
    let file: File = serde_json::from_str(text.trim_start_matches('\u{feff}')).context("not a tokenizer")?;
    let [version, truncation, padding] = [file.version, file.truncation, file.padding].map(part);
    let [normalizer, pre_tokenizer] = [file.normalizer, file.pre_tokenizer].map(part);
    let [post_processor, decoder] = [file.post_processor, file.decoder].map(part);
    let (version, truncation, padding) = (version?, truncation?, padding?);
    let (normalizer, pre_tokenizer, post_processor, decoder) = (normalizer?, pre_tokenizer?, post_processor?, decoder?);
    let File { added_tokens, model, .. } = file;
    check_batches(&truncation, &padding)?;
    let vocabulary = check_model(model)?;
    check_added(&added_tokens, &vocabulary)?;
    ComponentRules::NORMALIZER.check(&normalizer)?;
    ComponentRules::PRE_TOKENIZER.check(&pre_tokenizer)?;
    ComponentRules::DECODER.check(&decoder)?;
    let known = |id: u32| vocabulary.values().any(|it| *it == id) || added_tokens.iter().any(|it| it.id == id);
    let leading = leading_token(&post_processor)?;
    if let Some(id) = leading {
        ensure!(
            known(id),
            "the token that `post_processor` places before a text has the id {id}, which is not a token"
        );
    }
    let added = added_tokens.iter().map(|it| (it.id, it.content.clone())).collect();
    let (truncation, padding) = ((), ());
    let checked = Checked {
        version,
        truncation,
        padding,
        added_tokens,
        normalizer,
        pre_tokenizer,
        post_processor,
        decoder,
        model,
    };
    Ok(TokenizerFile { json: serde_json::to_vec(&checked)?, added, leading })
}

/// A small part of the file.
fn part(text: Option<&RawValue>) -> Result<Value> {
    let Some(text) = text else { return Ok(Value::Null) };
    let length = text.get().len();
    ensure!(length <= LONGEST_PART, "a part of the tokenizer has {length} bytes, expected at most {LONGEST_PART}");
    Ok(serde_json::from_str(text.get())?)
}

/// Options for batches, which are not used, but an absurd number means that the file is damaged.
fn check_batches(truncation: &Value, padding: &Value) -> Result<()> {
    let numbers = [
        ("truncation.max_length", truncation.pointer("/max_length")),
        ("truncation.stride", truncation.pointer("/stride")),
        ("padding.strategy.Fixed", padding.pointer("/strategy/Fixed")),
        ("padding.pad_to_multiple_of", padding.pointer("/pad_to_multiple_of")),
    ];
    for (name, value) in numbers {
        if let Some(value) = value.filter(|it| !it.is_null()) {
            let is_usual = value.as_u64().is_some_and(|it| it <= TOKENS);
            ensure!(is_usual, "`{name}` is {value}, expected at most {TOKENS} tokens");
        }
    }
    Ok(())
}

/// The vocabulary, with ids that are all different.
fn check_model(model: &RawValue) -> Result<BTreeMap<String, u32>> {
    let part: ModelPart = serde_json::from_str(model.get()).context("read the part `model`")?;
    let kind = part.kind.as_deref().unwrap_or("BPE");
    ensure!(kind == "BPE", "the tokenizer is of kind {kind}; only byte-pair tokenizers are supported");
    for (name, value) in [
        ("continuing_subword_prefix", &part.continuing_subword_prefix),
        ("end_of_word_suffix", &part.end_of_word_suffix),
    ] {
        let value = value.as_deref().unwrap_or_default();
        ensure!(value.is_empty(), "`model.{name}` is `{value}`, which is not supported, expected an empty string");
    }
    let (merges, most) = (part.merges.len(), VOCABULARY.1);
    ensure!(merges <= most, "{merges} merges, expected at most {most}");
    let vocabulary = part.vocab.context("the part `model` has no `vocab`")?;
    let Vocabulary(vocabulary) = serde_json::from_str(vocabulary.get()).context("read the part `model.vocab`")?;
    let mut ids: Vec<u32> = vocabulary.values().copied().collect();
    ids.sort_unstable();
    if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
        bail!("two tokens of the vocabulary have the id {}", pair[0]);
    }
    Ok(vocabulary)
}

fn check_added(tokens: &[Added], vocabulary: &BTreeMap<String, u32>) -> Result<()> {
    let (most, bytes) = ADDED;
    ensure!(tokens.len() <= most, "{} added tokens, expected at most {most}", tokens.len());
    let length: usize = tokens.iter().map(|it| it.content.len()).sum();
    ensure!(length <= bytes, "the added tokens have {length} bytes, expected at most {bytes}");
    let (mut ids, mut contents) = (BTreeSet::new(), BTreeSet::new());
    for Added { id, content, .. } in tokens {
        ensure!(ids.insert(id), "two added tokens have the id {id}, the second is `{content}`");
        ensure!(contents.insert(content), "the added token `{content}` is listed twice");
        if let Some(own) = vocabulary.get(content).filter(|own| *own != id) {
            bail!(misplaced(*id, content, *own));
        }
    }
    Ok(())
}

/// The error for an added token that has another id than its text in the vocabulary.
pub(super) fn misplaced(id: u32, content: &str, own: u32) -> String {
    format!(
        "the added token `{content}` has the id {id}, expected {own}, its place in the vocabulary\n\
         hint: write the tokenizer again with transformers' `save_pretrained`"
    )
}

/// A part of the file with one step or a sequence of steps.
struct ComponentRules {
    name: &'static str,
    /// The key of the steps in a sequence.
    steps: &'static str,
    kinds: &'static [&'static str],
}

/// The counts over all steps of a part.
#[derive(Default)]
struct Repetition {
    steps: usize,
    growth: usize,
}

impl ComponentRules {
    const NORMALIZER: ComponentRules = ComponentRules {
        name: "normalizer",
        steps: "normalizers",
        kinds: &["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "StripAccents", "Prepend", "Replace", "ByteLevel"],
    };
    const PRE_TOKENIZER: ComponentRules = ComponentRules {
        name: "pre_tokenizer",
        steps: "pretokenizers",
        kinds: &[
            "ByteLevel",
            "CharDelimiterSplit",
            "Digits",
            "Metaspace",
            "Punctuation",
            "Split",
            "UnicodeScripts",
            "Whitespace",
            "WhitespaceSplit",
        ],
    };
    const DECODER: ComponentRules = ComponentRules {
        name: "decoder",
        steps: "decoders",
        kinds: &["ByteFallback", "ByteLevel", "Fuse", "Metaspace", "Replace", "Strip"],
    };

    fn check(&self, part: &Value) -> Result<()> {
        let mut sum = Repetition { steps: 0, growth: 1 };
        if part.is_null() {
            return Ok(());
        }
        self.step(part, 0, &mut sum).with_context(|| format!("the part `{}` of the tokenizer", self.name))
    }

    fn step(&self, step: &Value, depth: usize, sum: &mut Repetition) -> Result<()> {
        let kind = step.get("type").and_then(Value::as_str).context("a step without a `type`")?;
        if kind == "Sequence" {
            ensure!(depth < DEEPEST, "more than {DEEPEST} sequences within each other");
            let steps = step.get(self.steps).and_then(Value::as_array);
            let steps = steps.with_context(|| format!("a sequence without `{}`", self.steps))?;
            return steps.iter().try_for_each(|step| self.step(step, depth + 1, sum));
        }
        ensure!(
            self.kinds.contains(&kind),
            "`{kind}` is not supported, expected {}\nhint: use the tokenizer of a model that this program supports",
            self.kinds.join(", ")
        );
        sum.steps += 1;
        ensure!(sum.steps <= STEPS, "more than {STEPS} steps");
        let growth = match kind {
            "Replace" => {
                let content = text(step, "content")?;
                let pattern = step.get("pattern").context("`Replace` has no `pattern`")?;
                // A pattern may match single bytes.
                let shortest = pattern.get("String").and_then(Value::as_str).map_or(1, str::len);
                check_pattern(pattern)?;
                if let Some(pattern) = pattern.get("Regex").and_then(Value::as_str) {
                    // The library fails to replace an empty match.
                    ensure!(
                        never_empty(pattern),
                        "`Replace` with the pattern `{pattern}`, which may match an empty text"
                    );
                }
                content.len().div_ceil(shortest.max(1))
            }
            "Split" => {
                check_pattern(step.get("pattern").context("`Split` has no `pattern`")?)?;
                1
            }
            "Prepend" => {
                let prepended = text(step, "prepend")?;
                ensure!(prepended.len() <= GROWTH, "`prepend` has {} bytes", prepended.len());
                1
            }
            "Strip" if self.name == "decoder" => {
                let number = |name: &str| step.get(name).and_then(Value::as_u64);
                // The library's code for the end of a text fails for empty ones.
                ensure!(
                    number("start").is_some_and(|it| it <= 64) && number("stop") == Some(0),
                    "`Strip` with start {} and stop {} is not supported, expected start up to 64 and stop 0",
                    step.get("start").unwrap_or(&Value::Null),
                    step.get("stop").unwrap_or(&Value::Null)
                );
                1
            }
            // A space becomes a character of three bytes; a compatibility character several others.
            "Metaspace" => 4,
            "ByteLevel" => 2,
            "NFKC" | "NFKD" | "NFD" => 2,
            _ => 1,
        };
        sum.growth = sum.growth.saturating_mul(growth.max(1));
        ensure!(sum.growth <= GROWTH, "the steps can make a text more than {GROWTH} times as long");
        Ok(())
    }
}

fn text<'a>(step: &'a Value, name: &str) -> Result<&'a str> {
    step.get(name).and_then(Value::as_str).with_context(|| format!("a step without the text `{name}`"))
}

fn check_pattern(pattern: &Value) -> Result<()> {
    let (longest, repetitions) = PATTERN;
    let (is_regex, text) = match (pattern.get("String"), pattern.get("Regex")) {
        (Some(Value::String(text)), None) => (false, text),
        (None, Some(Value::String(text))) => (true, text),
        _ => bail!("expected a pattern with `String` or `Regex`, found {pattern}"),
    };
    ensure!(!text.is_empty(), "an empty pattern");
    ensure!(text.len() <= longest, "a pattern of {} bytes, expected at most {longest}", text.len());
    if is_regex {
        // Each repetition is a copy in the compiled pattern.
        let bounds = text.split('{').skip(1).filter_map(|it| it.split_once('}'));
        let numbers = bounds.flat_map(|(bounds, _)| bounds.split(',')).filter_map(|it| it.trim().parse::<usize>().ok());
        let sum = numbers.fold(0, usize::saturating_add);
        ensure!(sum <= repetitions, "a pattern with {sum} repetitions, expected at most {repetitions}");
    }
    Ok(())
}

/// Whether a pattern surely has no empty match: it is a sequence of characters and classes, which occur at least once.
fn never_empty(pattern: &str) -> bool {
    let mut before = ' ';
    let is_plain = |char: char| {
        let is_class = char == '^' && before == '[';
        let is_assertion = before == '\\' && matches!(char, 'b' | 'B' | 'A' | 'Z' | 'z' | 'G' | 'K');
        let is_none = before == '{' && matches!(char, '0' | ',');
        let is_option = matches!(char, '*' | '?' | '|' | '(' | '$') || (char == '^' && !is_class);
        before = char;
        !is_assertion && !is_none && !is_option
    };
    pattern.chars().all(is_plain)
}

/// The token that a post-processor places before every text. What it places after a text is not part of a prompt.
fn leading_token(part: &Value) -> Result<Option<u32>> {
    let leading = leading_of(part, 0).context("the part `post_processor` of the tokenizer")?;
    ensure!(
        leading.len() <= 1,
        "the part `post_processor` of the tokenizer places the ids {leading:?} before a text, expected at most one"
    );
    Ok(leading.first().copied())
}

fn leading_of(part: &Value, depth: usize) -> Result<Vec<u32>> {
    if part.is_null() {
        return Ok(Vec::new());
    }
    match part.get("type").and_then(Value::as_str).context("a step without a `type`")? {
        "ByteLevel" => Ok(Vec::new()),
        "Sequence" => {
            ensure!(depth < DEEPEST, "more than {DEEPEST} sequences within each other");
            let steps = part.get("processors").and_then(Value::as_array).context("a sequence without `processors`")?;
            ensure!(steps.len() <= STEPS, "more than {STEPS} steps");
            // A later step places its tokens before those of earlier ones.
            let mut leading = Vec::new();
            for step in steps {
                leading.splice(0..0, leading_of(step, depth + 1)?);
            }
            Ok(leading)
        }
        "TemplateProcessing" => leading_of_template(part),
        "BertProcessing" | "RobertaProcessing" => {
            let id = part.pointer("/cls/1").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
            Ok(vec![id.context("`cls` has no id")?])
        }
        kind => bail!("`{kind}` is not supported, expected ByteLevel, Sequence or TemplateProcessing"),
    }
}

/// A template is a list of pieces: the text, or a token of the table `special_tokens`.
fn leading_of_template(part: &Value) -> Result<Vec<u32>> {
    #[derive(Deserialize)]
    enum Piece {
        SpecialToken { id: String },
        Sequence { id: char },
    }
    #[derive(Deserialize)]
    struct Special {
        ids: Vec<u32>,
    }
    #[derive(Deserialize)]
    struct Template {
        single: Vec<Piece>,
        special_tokens: BTreeMap<String, Special>,
    }
    let Template { single, special_tokens } = Template::deserialize(part)?;
    let mut leading = Vec::new();
    let mut texts = 0;
    for piece in single {
        match piece {
            Piece::Sequence { id } => {
                ensure!(id == 'A', "a template for one text that contains the text {id}");
                texts += 1;
            }
            Piece::SpecialToken { id } => {
                let special = special_tokens.get(&id);
                let special = special.with_context(|| format!("the table `special_tokens` does not have `{id}`"))?;
                ensure!(special.ids.len() <= STEPS, "`{id}` has {} ids", special.ids.len());
                if texts == 0 {
                    leading.extend_from_slice(&special.ids);
                }
            }
        }
    }
    ensure!(texts == 1, "a template for one text that contains the text {texts} times");
    Ok(leading)
}
