//! Text to token ids and back. Only this file uses the crate `tokenizers`.
//!
//! The difference from calling that crate directly: the string of a special token inside a text is text, unless the
//! caller states that it came from the chat template. So a question that quotes `<|im_end|>` cannot end its turn.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, anyhow, bail, ensure};
use serde_json::Value;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::normalizer::Range as Referential;
use tokenizers::{
    AddedToken, Model, ModelWrapper, NormalizedString, Normalizer, OffsetType, PreTokenizedString, PreTokenizer,
    SplitDelimiterBehavior, Token,
};

use super::tokenizer_file::{self, TokenizerFile};
use crate::disk::regular;

/// A byte-pair tokenizer with its special tokens.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// Tokens that are searched for in the text before it is split into words.
    added: Vec<(u32, AddedToken)>,
    /// The place of each in `added`, by its text.
    by_content: BTreeMap<String, usize>,
    /// The lengths of their texts in bytes, longest first, by the first byte.
    lengths: Vec<Vec<usize>>,
    /// Ids of the special ones among them, ascending.
    special: Vec<u32>,
    bos: Option<u32>,
    last_id: u32,
}

/// The metadata of a GGUF file about its tokenizer (`tokenizer.ggml.*`, model kind `gpt2`).
#[derive(Clone, Debug, Default)]
pub struct GgufTokenizer {
    /// The text of every id, in the byte-level alphabet.
    pub tokens: Vec<String>,
    /// `left right`, the most frequent pair first.
    pub merges: Vec<String>,
    /// For each id: 1 normal, 3 control, 4 user-defined, 5 unused. Empty: all normal.
    pub token_types: Vec<u32>,
    /// Name of the rule that splits a text into words (`tokenizer.ggml.pre`).
    pub pre: String,
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    /// The model expects `bos` before every text.
    pub add_bos: bool,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// If the file is not a tokenizer, or its kind is not byte-pair encoding.
    pub fn from_bytes(tokenizer_json: &[u8]) -> anyhow::Result<Self> {
        let TokenizerFile { json, added, leading } = tokenizer_file::check(tokenizer_json)?;
        let tokenizer = Self::new(caught(|| tokenizers::Tokenizer::from_bytes(json))?, leading)?;
        // The crate gives an added token the next free id if the vocabulary does not contain it. Where the file has another id,
        // the model was trained with that one.
        for (id, content) in added {
            let own = tokenizer.id_of(&content).filter(|own| *own != id);
            if let Some(own) = own {
                bail!(tokenizer_file::misplaced(id, &content, own));
            }
        }
        Ok(tokenizer)
    }

    /// Reads the `tokenizer.json` at `path`.
    ///
    /// # Errors
    /// As for [`Tokenizer::from_bytes`], or if the file cannot be read.
    pub fn from_file(path: &Path) -> anyhow::Result<Self> {
        let bytes =
            regular::read(path, tokenizer_file::LONGEST).with_context(|| format!("read `{}`", path.display()))?;
        Self::from_bytes(&bytes).with_context(|| format!("read `{}`", path.display()))
    }

    /// Builds the tokenizer that the metadata of a GGUF file describes: it gives the same ids as the model's
    /// `tokenizer.json`.
    ///
    /// # Errors
    /// If the word-splitting rule is unknown, merges contain tokens that are not in the vocabulary, or arrays differ in
    /// length.
    pub fn from_gguf(gguf: GgufTokenizer) -> anyhow::Result<Self> {
        let GgufTokenizer { tokens, merges, token_types, pre, bos, add_bos, .. } = gguf;
        ensure!(!merges.is_empty(), "the file has no merges; only byte-pair tokenizers are supported");
        ensure!(
            token_types.is_empty() || token_types.len() == tokens.len(),
            "{} tokens but {} token types",
            tokens.len(),
            token_types.len()
        );
        let words = WordRule::named(&pre)?;
        let merges = merges
            .iter()
            .map(|merge| match merge.split_once(' ') {
                Some((left, right)) => Ok((left.to_owned(), right.to_owned())),
                None => Err(anyhow!("`{merge}` is not a merge of two tokens")),
            })
            .collect::<anyhow::Result<Vec<_>>>()?;

        let kind = |id: usize| token_types.get(id).copied().unwrap_or(NORMAL);
        let added: Vec<AddedToken> = (0..tokens.len())
            .filter(|&id| matches!(kind(id), CONTROL | USER_DEFINED))
            .map(|id| AddedToken::from(tokens[id].as_str(), kind(id) == CONTROL).normalized(false))
            .collect();
        // Unused ids only round the size of the embedding up; `tokenizer.json` does not have them either.
        let vocabulary: Vocab = (0u32..)
            .zip(tokens)
            .filter(|&(id, _)| kind(id as usize) != UNUSED)
            .map(|(id, token)| (token, id))
            .collect();
        let model = BPE::builder().vocab_and_merges(vocabulary, merges).ignore_merges(words.ignore_merges);
        let model = caught(|| model.build())?;

        let mut inner = tokenizers::Tokenizer::new(model);
        if words.nfc {
            inner.with_normalizer(Some(NFC)).map_err(|error| anyhow!("{error}"))?;
        }
        inner.with_pre_tokenizer(Some(words.pre_tokenizer()?));
        inner.with_decoder(Some(ByteLevel::default()));
        caught(|| inner.add_tokens(added))?;
        let bos = bos.filter(|_| add_bos);
        if let Some(id) = bos {
            ensure!(inner.id_to_token(id).is_some(), "`tokenizer.ggml.bos_token_id` is {id}, which is not a token");
        }
        Self::new(inner, bos)
    }

    /// `bos` is placed before every text.
    fn new(inner: tokenizers::Tokenizer, bos: Option<u32>) -> anyhow::Result<Self> {
        let ModelWrapper::BPE(model) = inner.get_model() else {
            bail!("only byte-pair tokenizers are supported");
        };
        // With these conditions, encoding cannot fail and always gives the same ids.
        ensure!(model.dropout.is_none_or(|share| share == 0.0), "the tokenizer drops merges at random (`dropout`)");
        if let Some(unknown) = model.get_unk_token() {
            ensure!(inner.token_to_id(unknown).is_some(), "the unknown token `{unknown}` has no id");
        }

        let mut added: Vec<(u32, AddedToken)> = inner.get_added_tokens_decoder().into_iter().collect();
        added.retain(|(_, token)| !token.content.is_empty());
        added.sort_by(|(a, x), (b, y)| y.content.len().cmp(&x.content.len()).then(a.cmp(b)));
        let mut by_content = BTreeMap::new();
        let mut lengths = vec![Vec::new(); 256];
        for (place, (_, token)) in added.iter().enumerate() {
            by_content.entry(token.content.clone()).or_insert(place);
            let lengths = &mut lengths[usize::from(token.content.as_bytes()[0])];
            if lengths.last() != Some(&token.content.len()) {
                lengths.push(token.content.len());
            }
        }
        let mut special: Vec<u32> =
            added.iter().filter(|(_, token)| token.special || is_control(&token.content)).map(|(id, _)| *id).collect();
        special.sort_unstable();
        let mut ids: Vec<u32> = model.get_vocab().into_values().collect();
        ids.sort_unstable();
        if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            bail!("two tokens of the vocabulary have the id {}", pair[0]);
        }
        let last_of = |ids: &[u32]| ids.iter().copied().max();
        let added_ids: Vec<u32> = added.iter().map(|(id, _)| *id).collect();
        let last_id = [last_of(&ids), last_of(&added_ids), bos].into_iter().flatten().max();
        let last_id = last_id.context("the vocabulary is empty")?;
        Ok(Self { inner, added, by_content, lengths, special, bos, last_id })
    }

    /// Ids of a text. Strings of special tokens in it are treated as text.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        self.encode_around(text, std::slice::from_ref(&(0..text.len())))
    }

    /// Ids of a text in which strings of special tokens represent these tokens, except inside the ranges `literal`
    /// (bytes, ascending), if they are text.
    pub fn encode_around(&self, text: &str, literal: &[Range<usize>]) -> Vec<u32> {
        self.try_encode(text, &self.find_added(text, literal)).expect("a byte-pair tokenizer encodes every text")
    }

    fn try_encode(&self, text: &str, found: &[(Range<usize>, u32)]) -> tokenizers::Result<Vec<u32>> {
        let mut pieces = PreTokenizedString::from(text);
        pieces.split(|_, whole| Ok(split_at(&whole, found)))?;
        if let Some(normalizer) = self.inner.get_normalizer() {
            pieces.normalize(|piece| normalizer.normalize(piece))?;
        }
        if let Some(words) = self.inner.get_pre_tokenizer() {
            words.pre_tokenize(&mut pieces)?;
        }
        pieces.tokenize(|piece| self.inner.get_model().tokenize(piece.get()))?;
        Ok(pieces.into_encoding(None, 0, OffsetType::None)?.get_ids().to_vec())
    }

    /// The added tokens in a text, leftmost first; of two at the same position, the longer one.
    fn find_added(&self, text: &str, literal: &[Range<usize>]) -> Vec<(Range<usize>, u32)> {
        let is_literal = |range: &Range<usize>| {
            let after = literal.partition_point(|it| it.end <= range.start);
            literal.get(after).is_some_and(|it| it.start < range.end)
        };

        let mut found: Vec<(Range<usize>, u32)> = Vec::new();
        let mut position = 0;
        while position < text.len() {
            let matched = self.lengths[usize::from(text.as_bytes()[position])].iter().find_map(|length| {
                let range = position..position + length;
                let (id, token) = &self.added[*self.by_content.get(text.get(range.clone())?)?];
                (!(self.is_special(*id) && is_literal(&range))).then_some((*id, token))
            });
            let Some((id, token)) = matched else {
                position += 1;
                continue;
            };
            let (mut start, mut end) = (position, position + token.content.len());
            if token.lstrip {
                let from = found.last().map_or(0, |(range, _)| range.end);
                start = from + text[from..start].trim_end().len();
            }
            if token.rstrip {
                end = text.len() - text[end..].trim_start().len();
            }
            found.push((start..end, id));
            position = end;
        }
        found
    }

    /// The text of `ids`, without special tokens. Bytes that are not UTF-8 become U+FFFD; unknown ids are ignored.
    pub fn decode(&self, ids: &[u32]) -> String {
        let ids: Vec<u32> = ids.iter().copied().filter(|&id| !self.is_special(id)).collect();
        self.decode_with_specials(&ids)
    }

    /// The text of `ids`, with special tokens as their strings.
    pub fn decode_with_specials(&self, ids: &[u32]) -> String {
        self.inner.decode(ids, false).expect("a byte-pair tokenizer decodes all ids")
    }

    /// Decodes ids that arrive one by one.
    pub fn stream(&self) -> TextStream<'_> {
        TextStream { tokenizer: self, ids: Vec::new(), shown_ids: 0, shown: String::new() }
    }

    /// Id and string of every special token, by id.
    pub fn special_tokens(&self) -> Vec<(u32, &str)> {
        let mut tokens: Vec<(u32, &str)> = self
            .added
            .iter()
            .filter(|(id, _)| self.is_special(*id))
            .map(|(id, token)| (*id, token.content.as_str()))
            .collect();
        tokens.sort_unstable();
        tokens
    }

    /// Whether a token is searched for in a text before the text is split into words.
    pub fn is_added(&self, id: u32) -> bool {
        self.added.iter().any(|(added, _)| *added == id)
    }

    pub fn is_special(&self, id: u32) -> bool {
        self.special.binary_search(&id).is_ok()
    }

    /// The id of a token as it is written in the vocabulary.
    pub fn id_of(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token of an id as it is written in the vocabulary.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The token that the model expects before every text, if the chat template does not write it.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The largest id.
    pub fn last_id(&self) -> u32 {
        self.last_id
    }

    /// Number of tokens; the model's embedding may have more rows.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The tokenizer as a `tokenizer.json`.
    ///
    /// # Errors
    /// If a part cannot be written as JSON (no such part is known).
    pub fn to_json(&self) -> anyhow::Result<String> {
        self.inner.to_string(false).map_err(|error| anyhow!("{error}"))
    }

    /// The tokenizer as metadata of a GGUF file. Ids without a token, up to `rows`, are unused ones. `eos` is not set.
    ///
    /// # Errors
    /// llama.cpp would give other ids: it knows the rule that splits words only by name, and no other steps. Unicode composition
    /// (NFC) is not an error: llama.cpp leaves it out for all models.
    pub fn to_gguf(&self, rows: usize) -> anyhow::Result<GgufTokenizer> {
        const HINT: &str = "hint: merge without --gguf, and convert the folder with llama.cpp's convert_hf_to_gguf.py";
        let json: Value = serde_json::from_str(&self.to_json()?)?;
        let normalizer = json["normalizer"]["type"].as_str();
        if let Some(kind) = normalizer.filter(|kind| *kind != "NFC") {
            bail!("the step `{kind}` of its normalizer cannot be written to a GGUF file\n{HINT}");
        }
        let pre = WordRule::name_like(&json).with_context(|| {
            format!(
                "it does not split words as Qwen2, Llama 3, SmolLM or GPT-2, and llama.cpp has only these rules\n{HINT}"
            )
        })?;
        if let Some((_, token)) = self.added.iter().find(|(_, token)| token.lstrip || token.rstrip) {
            bail!("its token `{}` removes spaces around it, which llama.cpp does not do\n{HINT}", token.content);
        }
        let kind = |id: u32| match (self.token(id), self.is_special(id)) {
            (None, _) => UNUSED,
            (_, true) => CONTROL,
            _ if self.is_added(id) => USER_DEFINED,
            _ => NORMAL,
        };
        let ids = 0..u32::try_from(rows)?;
        let gguf = GgufTokenizer {
            tokens: ids.clone().map(|id| self.token(id).unwrap_or_else(|| format!("[PAD{id}]"))).collect(),
            merges: merges_of(&json).context("the merges of the tokenizer cannot be read")?,
            token_types: ids.map(kind).collect(),
            pre: pre.to_owned(),
            bos: self.bos,
            eos: None,
            add_bos: self.bos.is_some(),
        };
        let specials: String = self.special_tokens().iter().map(|(_, token)| *token).collect();
        let text = format!("{PROBE}{specials}{PROBE}");
        let again = Self::from_gguf(gguf.clone())?;
        ensure!(
            again.encode_around(&text, &[]) == self.encode_around(&text, &[]),
            "from a GGUF file, it would give other ids\n{HINT}"
        );
        Ok(gguf)
    }
}

/// A text with what tokenizers split in different ways.
const PROBE: &str = "Hello, world! It's 12,345.678 apples; they'll cost 3\u{2009}\u{20ac} or so.\n\n  \tdef f(x):\r\n        return x**2  # 10 %\n\
    \u{4f60}\u{597d}\u{ff0c}\u{4e16}\u{754c} caf\u{e9} na\u{ef}ve \u{43f}\u{440}\u{438}\u{432}\u{435}\u{442} \u{1f600}\u{1f44d}\u{1f3fd} \
    \\boxed{\\frac{1}{2}} <think> </think> 2024-01-31 A.B.C.   ";

/// `left right` for each merge of a `tokenizer.json`, in its order.
fn merges_of(json: &Value) -> Option<Vec<String>> {
    let merge = |merge: &Value| match merge {
        Value::String(pair) => Some(pair.clone()),
        pair => Some(format!("{} {}", pair.get(0)?.as_str()?, pair.get(1)?.as_str()?)),
    };
    json["model"]["merges"].as_array()?.iter().map(merge).collect()
}

/// The decoder of a completion that is shown while it is generated.
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    /// The ids shown last (some decoders treat the first id of a text differently), then those not shown yet.
    ids: Vec<u32>,
    shown_ids: usize,
    /// Text of the ids shown last.
    shown: String,
}

impl TextStream<'_> {
    /// Adds the next id and returns the new text: whole characters only, so it is often empty.
    pub fn push(&mut self, id: u32) -> String {
        self.ids.push(id);
        let text = self.tokenizer.decode(&self.ids);
        // The bytes of an incomplete character decode to the replacement character.
        if text.ends_with(char::REPLACEMENT_CHARACTER) { String::new() } else { self.show(&text) }
    }

    /// The rest of the text at the end, with incomplete characters as U+FFFD.
    pub fn finish(mut self) -> String {
        let text = self.tokenizer.decode(&self.ids);
        self.show(&text)
    }

    fn show(&mut self, text: &str) -> String {
        let new = text.get(self.shown.len()..).unwrap_or_default().to_owned();
        self.ids.drain(..self.shown_ids);
        self.shown_ids = self.ids.len();
        self.shown = self.tokenizer.decode(&self.ids);
        new
    }
}

/// Runs code of the crate `tokenizers`, which panics at some damaged files instead of returning an error.
fn caught<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> anyhow::Result<T> {
    /// The hook that prints panics belongs to the whole process, so only one thread at a time replaces it.
    static HOOK: Mutex<()> = Mutex::new(());
    let one = HOOK.lock().unwrap_or_else(PoisonError::into_inner);
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    panic::set_hook(hook);
    drop(one);
    match result {
        Ok(result) => result.map_err(|error| anyhow!("{error}")),
        Err(payload) => {
            let message = payload.downcast_ref::<String>().map(String::as_str);
            let message = message.or(payload.downcast_ref::<&str>().copied()).unwrap_or("unknown error");
            bail!("the tokenizer is damaged: {message}\nhint: download or copy its file again")
        }
    }
}

/// Token types of GGUF.
const NORMAL: u32 = 1;
const CONTROL: u32 = 3;
const USER_DEFINED: u32 = 4;
const UNUSED: u32 = 5;

/// Whether a token looks like a control token. Some vocabularies (Qwen2.5's `<|fim_prefix|>`) do not mark all of theirs as
/// special; in a question they are text anyway.
fn is_control(token: &str) -> bool {
    (token.starts_with("<|") && token.ends_with("|>")) || (token.starts_with("<｜") && token.ends_with("｜>"))
}

/// Splits a text at the tokens found in it.
fn split_at(whole: &NormalizedString, found: &[(Range<usize>, u32)]) -> Vec<(NormalizedString, Option<Vec<Token>>)> {
    // Before normalization, both strings are the same, but a range of the original one is found by searching the whole text.
    let slice = |range: Range<usize>| {
        whole.slice(Referential::Normalized(range)).expect("tokens start and end at character boundaries")
    };
    let mut pieces = Vec::with_capacity(2 * found.len() + 1);
    let mut position = 0;
    for (range, id) in found {
        pieces.push((slice(position..range.start), None));
        let token = Token::new(*id, String::new(), (0, range.len()));
        pieces.push((slice(range.clone()), Some(vec![token])));
        position = range.end;
    }
    pieces.push((slice(position..whole.get_original().len()), None));
    pieces.retain(|(piece, _)| !piece.is_empty());
    pieces
}

/// Whether `tokenizer.ggml.pre` names the rule of Llama 3, as in llama.cpp (llama-vocab.cpp). A file with this rule expects the
/// beginning-of-sequence token before every text, unless it contains `tokenizer.ggml.add_bos_token`.
pub(super) fn is_llama3(pre: &str) -> bool {
    ["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"].contains(&pre)
}

/// How a text is split into words before merging; GGUF files only contain its name.
struct WordRule {
    /// Unicode composition is done first.
    nfc: bool,
    /// A word that is itself a token is not merged from its bytes.
    ignore_merges: bool,
    cut: Cut,
}

enum Cut {
    /// The words are the matches of this pattern.
    Pattern(&'static str),
    /// GPT-2's words, with every digit as a separate word.
    DigitsAlone,
    /// GPT-2's words.
    Gpt2,
}

impl WordRule {
    fn named(name: &str) -> anyhow::Result<Self> {
        // The two patterns differ in the maximum number of digits of a word.
        const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
        const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
        Ok(match name {
            "qwen2" => Self { nfc: true, ignore_merges: false, cut: Cut::Pattern(QWEN2) },
            name if is_llama3(name) => Self { nfc: false, ignore_merges: true, cut: Cut::Pattern(LLAMA3) },
            "smollm" => Self { nfc: false, ignore_merges: false, cut: Cut::DigitsAlone },
            "gpt-2" => Self { nfc: false, ignore_merges: false, cut: Cut::Gpt2 },
            _ => bail!(
                "unknown pre-tokenizer `{name}`; expected qwen2, llama-bpe, smollm or gpt-2\n\
                 hint: use the model's safetensors folder, whose tokenizer.json defines how words are split"
            ),
        })
    }

    /// The name of the rule that a `tokenizer.json` contains.
    fn name_like(json: &Value) -> Option<&'static str> {
        const NAMES: [&str; 4] = ["qwen2", "llama-bpe", "smollm", "gpt-2"];
        let own = word_steps(&json["pre_tokenizer"]);
        let ignore_merges = json["model"]["ignore_merges"].as_bool().unwrap_or(false);
        NAMES.into_iter().find(|name| {
            let rule = Self::named(name).expect("a name of a rule");
            let steps = rule.pre_tokenizer().ok().and_then(|it| serde_json::to_value(it).ok());
            rule.ignore_merges == ignore_merges && steps.is_some_and(|steps| word_steps(&steps) == own)
        })
    }

    fn pre_tokenizer(&self) -> anyhow::Result<Sequence> {
        let bytes = |use_regex| ByteLevel::new(false, true, use_regex).into();
        Ok(Sequence::new(match self.cut {
            Cut::Pattern(pattern) => {
                let pattern = SplitPattern::Regex(pattern.to_owned());
                let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false);
                vec![split.map_err(|error| anyhow!("{error}"))?.into(), bytes(false)]
            }
            Cut::DigitsAlone => vec![Digits::new(true).into(), bytes(true)],
            Cut::Gpt2 => vec![bytes(true)],
        }))
    }
}

/// The steps of a part `pre_tokenizer`, without the options that do not change ids.
fn word_steps(part: &Value) -> Vec<Value> {
    if let Some(steps) = part["pretokenizers"].as_array() {
        return steps.iter().flat_map(word_steps).collect();
    }
    let mut step = part.clone();
    if let Some(options) = step.as_object_mut() {
        options.remove("trim_offsets");
    }
    vec![step]
}
