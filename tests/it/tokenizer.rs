//! A GGUF file's metadata gives the same tokenizer as `tokenizer.json`.

use std::path::Path;

use candle_core::quantized::gguf_file;
use rft::model::tokenizer::{GgufTokenizer, Tokenizer};
use serde_json::json;

use crate::require::{file, models};

/// Words in the small vocabulary, written in the byte-level alphabet.
const WORDS: [&str; 12] = ["the", "Ġthe", "Ġquestion", "12", "Ġ1", "123", "ĊĊ", "Ġsystem", "'s", "Ã©", "ĠĠ", "Ġ("];
const ADDED: [(&str, bool); 5] = [
    ("<|endoftext|>", true),
    ("<|im_start|>", true),
    ("<|im_end|>", true),
    ("<tool_call>", false),
    ("<|fim_prefix|>", false),
];

/// The byte-level alphabet, the words with the merges that form them, and the added tokens.
fn small_vocabulary() -> (Vec<String>, Vec<String>) {
    let mut alphabet: Vec<String> =
        tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().map(String::from).collect();
    alphabet.sort();
    let (mut tokens, mut merges) = (alphabet, Vec::new());
    for word in WORDS {
        let ends: Vec<usize> = word.char_indices().map(|(i, c)| i + c.len_utf8()).collect();
        for pair in ends.windows(2) {
            let (left, right) = (&word[..pair[0]], &word[pair[0]..pair[1]]);
            if !tokens.contains(&word[..pair[1]].to_owned()) {
                merges.push(format!("{left} {right}"));
                tokens.push(word[..pair[1]].to_owned());
            }
        }
    }
    (tokens, merges)
}

fn small_gguf(pre: &str) -> GgufTokenizer {
    let (mut tokens, merges) = small_vocabulary();
    let mut token_types = vec![1; tokens.len()];
    for (token, special) in ADDED {
        tokens.push(token.to_owned());
        token_types.push(if special || token.starts_with("<|") { 3 } else { 4 });
    }
    tokens.push("[PAD1]".to_owned());
    token_types.push(5);
    GgufTokenizer { tokens, merges, token_types, pre: pre.to_owned(), ..GgufTokenizer::default() }
}

/// A `tokenizer.json` of the same vocabulary, in the form that the models' authors publish.
fn small_json(normalizer: serde_json::Value, pre_tokenizer: serde_json::Value, ignore_merges: bool) -> Tokenizer {
    let (tokens, merges) = small_vocabulary();
    let vocabulary: serde_json::Map<_, _> = tokens.iter().enumerate().map(|(id, it)| (it.clone(), json!(id))).collect();
    let added: Vec<_> = ADDED
        .iter()
        .enumerate()
        .map(|(i, (content, special))| {
            json!({
                "id": tokens.len() + i, "content": content, "special": special,
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            })
        })
        .collect();
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
        "post_processor": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false },
        "decoder": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "", "end_of_word_suffix": "",
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": ignore_merges, "vocab": vocabulary, "merges": merges,
        },
    });
    Tokenizer::from_bytes(file.to_string().as_bytes()).unwrap()
}

fn split_by(pattern: &str) -> serde_json::Value {
    json!({ "type": "Sequence", "pretokenizers": [
        { "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false },
        { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false },
    ] })
}

/// A small tokenizer of Qwen2.5's kind.
pub fn qwen_like() -> Tokenizer {
    let words = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    small_json(json!({ "type": "NFC" }), split_by(words), false)
}

fn texts() -> Vec<serde_json::Value> {
    serde_json::from_str(include_str!("../fixtures/tokenizer_ids.json")).unwrap()
}

fn ids(tokenizer: &Tokenizer, text: &str) -> [Vec<u32>; 2] {
    [tokenizer.encode(text), tokenizer.encode_around(text, &[])]
}

#[test]
fn gguf_metadata_give_the_tokenizer_of_the_json_file() {
    let llama = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    let digits = json!({ "type": "Sequence", "pretokenizers": [
        { "type": "Digits", "individual_digits": true },
        { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
    ] });
    let kinds = [
        ("qwen2", qwen_like()),
        ("llama-bpe", small_json(json!(null), split_by(llama), true)),
        ("smollm", small_json(json!(null), digits, false)),
    ];
    for (pre, published) in &kinds {
        let built = Tokenizer::from_gguf(small_gguf(pre)).unwrap();
        assert_eq!(built.special_tokens(), published.special_tokens());
        assert_eq!(built.vocab_size(), published.vocab_size());
        for row in texts() {
            let text = row["text"].as_str().unwrap();
            assert_eq!(ids(&built, text), ids(published, text), "{pre} {text:?}");
            let saved = Tokenizer::from_bytes(built.to_json().unwrap().as_bytes()).unwrap();
            assert_eq!(ids(&saved, text), ids(published, text), "{pre} {text:?} after saving");
        }
    }
    // The kinds do differ: in the maximum number of digits of a word.
    let lengths = kinds.each_ref().map(|(_, tokenizer)| tokenizer.encode("the 123").len());
    assert_eq!(lengths, [5, 3, 5]);
}

#[test]
fn special_strings_in_a_text_are_text() {
    let tokenizer = qwen_like();
    let text = "the<|im_end|><tool_call><|fim_prefix|>the";
    assert!(tokenizer.encode(text).iter().all(|&id| !tokenizer.is_special(id)));
    assert_eq!(tokenizer.decode(&tokenizer.encode(text)), text);
    let parsed = tokenizer.encode_around(text, &[]);
    let id = |token| tokenizer.id_of(token).unwrap();
    assert_eq!(parsed, [id("the"), id("<|im_end|>"), id("<tool_call>"), id("<|fim_prefix|>"), id("the")]);
    assert_eq!(tokenizer.decode(&parsed), "the<tool_call>the");
    assert_eq!(tokenizer.decode_with_specials(&parsed), text);
}

#[test]
fn a_stream_gives_whole_characters_and_loses_nothing() {
    let tokenizer = qwen_like();
    let text = "Grüße 🙂👨‍👩‍👧 the 漢字 é.";
    let mut stream = tokenizer.stream();
    let mut seen = String::new();
    for id in tokenizer.encode(text) {
        let new = stream.push(id);
        assert!(!new.contains(char::REPLACEMENT_CHARACTER), "{new:?}");
        seen.push_str(&new);
    }
    assert_eq!(seen + &stream.finish(), text);

    // A completion truncated within a character ends in a replacement character.
    let smile = tokenizer.encode("the🙂");
    let mut stream = tokenizer.stream();
    let seen: String = smile[..smile.len() - 1].iter().map(|&id| stream.push(id)).collect();
    assert_eq!((seen.as_str(), stream.finish().as_str()), ("the", "\u{fffd}"));
}

#[test]
fn a_text_starts_with_bos_only_if_the_model_expects_it() {
    let gguf = |add_bos| GgufTokenizer { bos: Some(0), add_bos, ..small_gguf("qwen2") };
    assert_eq!(Tokenizer::from_gguf(gguf(true)).unwrap().bos(), Some(0));
    assert_eq!(Tokenizer::from_gguf(gguf(false)).unwrap().bos(), None);
    assert_eq!(qwen_like().bos(), None);
}

#[test]
fn tokenizers_that_cannot_be_built_are_an_error() {
    let message = |gguf| format!("{:#}", Tokenizer::from_gguf(gguf).err().unwrap());
    assert!(
        message(GgufTokenizer { pre: "mystery".to_owned(), ..small_gguf("") })
            .contains("unknown pre-tokenizer `mystery`")
    );
    assert!(message(GgufTokenizer { merges: Vec::new(), ..small_gguf("qwen2") }).contains("no merges"));
    assert!(message(GgufTokenizer { token_types: vec![1], ..small_gguf("qwen2") }).contains("token types"));
    assert!(message(GgufTokenizer { merges: vec!["zq x".to_owned()], ..small_gguf("qwen2") }).contains("zq"));
    assert!(Tokenizer::from_bytes(b"{}").is_err());
    assert!(format!("{:#}", Tokenizer::from_file(Path::new("no-such.json")).err().unwrap()).contains("no-such.json"));
}

/// The ids of tests/oracle/tokenizer_ids.py, on the real files. Needs RFT_MODELS_DIR.
#[test]
fn real_gguf_files_tokenize_as_in_transformers() {
    let Some(folder) = models() else { return };
    for model in ["qwen-0.5b", "smollm-135m"] {
        let Some(path) = file("models", folder.join(model).join("model.gguf")) else { continue };
        let tokenizer = Tokenizer::from_gguf(read_gguf(&path)).unwrap();
        for row in texts() {
            let text = row["text"].as_str().unwrap();
            let expected: Vec<u32> = serde_json::from_value(row[model].clone()).unwrap();
            assert_eq!(tokenizer.encode_around(text, &[]), expected, "{model} {text:?}");
            assert!(tokenizer.encode(text).iter().all(|&id| !tokenizer.is_special(id)), "{model} {text:?}");
        }
    }
}

fn read_gguf(path: &Path) -> GgufTokenizer {
    let content = gguf_file::Content::read(&mut std::fs::File::open(path).unwrap()).unwrap();
    let array = |key: &str| content.metadata[&format!("tokenizer.ggml.{key}")].to_vec().unwrap();
    let strings = |key| array(key).iter().map(|it| it.to_string().unwrap().clone()).collect();
    GgufTokenizer {
        tokens: strings("tokens"),
        merges: strings("merges"),
        token_types: array("token_type").iter().map(|it| it.to_i32().unwrap() as u32).collect(),
        pre: content.metadata["tokenizer.ggml.pre"].to_string().unwrap().clone(),
        ..GgufTokenizer::default()
    }
}
