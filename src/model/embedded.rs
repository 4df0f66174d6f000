//! The small model that is part of the program, made by `examples/pretrain_tiny.rs`.

use anyhow::Result;

use super::config::ModelConfig;
use super::safetensors::SafetensorsFile;
use super::source::{Origin, Source, TokenizerSource};
use crate::disk::hash;

/// The name under which `--model` knows it.
pub const NAME: &str = "tiny";

/// The files of the model folder.
pub const FILES: [(&str, &[u8]); 5] = [
    ("config.json", include_bytes!("../../assets/tiny/config.json")),
    ("generation_config.json", include_bytes!("../../assets/tiny/generation_config.json")),
    ("model.safetensors", WEIGHTS),
    ("tokenizer.json", include_bytes!("../../assets/tiny/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../../assets/tiny/tokenizer_config.json")),
];
pub const WEIGHTS: &[u8] = include_bytes!("../../assets/tiny/model.safetensors");

fn file(name: &str) -> &'static [u8] {
    FILES.iter().find(|it| it.0 == name).expect("a file of the embedded model").1
}

pub fn open() -> Result<Source> {
    Ok(Source {
        name: NAME.to_owned(),
        config: ModelConfig::from_json(file("config.json"), Some(file("generation_config.json")))?,
        weights: Box::new(SafetensorsFile::from_bytes(WEIGHTS)?),
        tokenizer: TokenizerSource::Json(file("tokenizer.json").to_vec()),
        tokenizer_config: Some(String::from_utf8(file("tokenizer_config.json").to_vec())?),
        chat_template: None,
        hash: format!("sha256:{}", hash::sha256(WEIGHTS)),
        origin: Origin::Embedded,
    })
}
