//! Everything that reads bytes from outside, as functions that return for every input: without a panic, soon, and with bounded
//! memory. The targets of `fuzz/` call the same functions.

use std::fs;
use std::path::PathBuf;

use rft::config::{ConfigLayers, resolve};
use rft::data::read;
use rft::eval::endpoint;
use rft::math;
use rft::model::gguf::Gguf;
use rft::model::safetensors::SafetensorsFile;
use rft::model::tokenizer::Tokenizer;
use rft::prompt::template::{ChatTemplate, SpecialStrings};
use serde_json::json;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// A name, and a function that reads.
pub type EntryPoint = (&'static str, fn(&[u8]));

pub const ENTRY_POINTS: [EntryPoint; 8] = [
    ("safetensors", safetensors),
    ("gguf", gguf),
    ("tokenizer", tokenizer),
    ("template", template),
    ("config", config),
    ("data", data),
    ("answer", answer),
    ("reply", reply),
];

/// The bytes as a file with this name.
fn file(name: &str, bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

/// Reads every tensor of a safetensors file.
pub fn safetensors(bytes: &[u8]) {
    let (_folder, path) = file("model.safetensors", bytes);
    if let Ok(file) = SafetensorsFile::open(&path) {
        file.tensors().keys().for_each(|name| _ = file.read(name));
    }
}

/// Reads the metadata of a GGUF file, and its tokenizer.
pub fn gguf(bytes: &[u8]) {
    let (_folder, path) = file("model.gguf", bytes);
    if let Ok(gguf) = Gguf::open(&path) {
        gguf.chat_template();
        _ = gguf.tokenizer().map(Tokenizer::from_gguf);
    }
}

/// Loads a `tokenizer.json`, and encodes and decodes a text.
pub fn tokenizer(bytes: &[u8]) {
    if let Ok(tokenizer) = Tokenizer::from_bytes(bytes) {
        let ids = tokenizer.encode("Let x = 12.5, é 漢 👩\u{200d}💻 <|im_end|>\n\n  done");
        tokenizer.decode(&ids);
        tokenizer.decode_with_specials(&[0, 1, tokenizer.last_id(), u32::MAX]);
    }
}

/// Compiles a chat template, and renders a conversation.
pub fn template(bytes: &[u8]) {
    let source = String::from_utf8_lossy(bytes);
    let tokens = SpecialStrings { bos: Some("<s>".into()), eos: Some("</s>".into()), ..SpecialStrings::default() };
    if let Ok(template) = ChatTemplate::new(&source, tokens) {
        let messages = json!([
            {"role": "system", "content": "You are helpful."},
            {"role": "user", "content": "What is 2 + 2?"},
        ]);
        _ = template.conversation(&messages, true);
    }
}

/// Resolves a configuration file.
pub fn config(bytes: &[u8]) {
    let (_folder, path) = file("run.toml", bytes);
    _ = resolve(&ConfigLayers { files: vec![path], ..ConfigLayers::default() });
}

/// Reads the rows of a data file; the first byte selects its format.
pub fn data(bytes: &[u8]) {
    const NAMES: [&str; 6] = ["d.jsonl", "d.json", "d.csv", "d.parquet", "d.jsonl.gz", "d.csv.gz"];
    let Some((first, rest)) = bytes.split_first() else { return };
    let (_folder, path) = file(NAMES[*first as usize % NAMES.len()], rest);
    _ = read::read(&path, &mut Sha256::new());
}

/// Grades an answer; its first line is the gold answer.
pub fn answer(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (gold, response) = text.split_once('\n').unwrap_or((&text, ""));
    math::check(gold, response);
    math::grade_lenient(response, gold);
    math::explain(gold, response);
}

/// Reads a server's replies.
pub fn reply(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    _ = endpoint::reply(&text, &["</s>".to_owned(), "é".to_owned()]);
    _ = endpoint::models(&text);
}
