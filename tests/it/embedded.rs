//! The embedded model has its promised properties: small, complete, and able to read any text.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor, safetensors};
use rft::prompt::shipped;
use tokenizers::Tokenizer;

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/tiny"))
}

fn tokenizer() -> Tokenizer {
    Tokenizer::from_file(folder().join("tokenizer.json")).unwrap()
}

fn tokens(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
    tokenizer.encode(text, false).unwrap().get_tokens().to_vec()
}

#[test]
fn weights_are_half_precision_and_small() {
    let path = folder().join("model.safetensors");
    assert!(std::fs::metadata(&path).unwrap().len() <= 6_000_000);
    let weights: BTreeMap<String, Tensor> = safetensors::load(&path, &Device::Cpu).unwrap().into_iter().collect();
    assert!(weights.values().all(|weight| weight.dtype() == DType::F16));
    assert!(weights.values().map(Tensor::elem_count).sum::<usize>() <= 3_000_000);
    let rows = weights["model.embed_tokens.weight"].dim(0).unwrap();
    assert_eq!(rows, tokenizer().get_vocab_size(true));
}

#[test]
fn any_text_is_tokenized_and_decoded_unchanged() {
    let tokenizer = tokenizer();
    for text in ["What is 12 + 5?", "Größe: ½ – 漢字 🦀\t\r\n  x", r"\frac{1}{2}", "\u{0}\u{7f}", ""] {
        let ids = tokenizer.encode(text, false).unwrap().get_ids().to_vec();
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
    }
}

#[test]
fn every_digit_is_a_token_of_its_own() {
    let tokenizer = tokenizer();
    for token in tokens(&tokenizer, "1234 + 5 = x12, 3.50 or (17)") {
        assert!(token.len() == 1 || !token.contains(|c: char| c.is_ascii_digit()), "{token}");
    }
    let vocabulary = tokenizer.get_vocab(true);
    assert!(vocabulary.keys().all(|token| token.chars().count() == 1 || !token.contains(|c: char| c.is_numeric())));
}

#[test]
fn turns_are_marked_by_special_tokens_and_tags_by_ordinary_text() {
    let tokenizer = tokenizer();
    assert_eq!(tokens(&tokenizer, "<|im_start|>user\n"), ["<|im_start|>", "user", "Ċ"]);
    let added: Vec<_> = tokenizer.get_added_vocabulary().get_vocab().keys().cloned().collect();
    assert_eq!(added.len(), 3, "{added:?}");
    for tag in shipped().iter().filter_map(|prompt| prompt.tag.as_ref()) {
        assert!(tokens(&tokenizer, &format!("<{tag}> x </{tag}>")).len() > 3, "{tag}");
    }
}
