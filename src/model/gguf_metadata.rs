//! The metadata of a GGUF file for a whole model: that of the file that the model comes from, or what llama.cpp needs to know
//! about a Hugging Face folder.

use anyhow::{Context, Result};
use candle_core::quantized::gguf_file::Value;
use serde_json::Value as Json;

use super::gguf::{Gguf, architecture_name};
use super::gguf_writer::{GgufType, Metadata};
use super::source::{ModelOrigin, ModelSource};
use super::tokenizer::{GgufTokenizer, Tokenizer};

/// Keys about the file that a model comes from and not about the model.
const OF_THE_FILE: [&str; 3] = ["general.alignment", "quantize.", "split."];

/// The metadata of `source` as a file with weights of the type `kind`, under the name `name`.
pub fn of_model(source: &ModelSource, name: &str, kind: GgufType) -> Result<Metadata> {
    let mut metadata = match &source.origin {
        ModelOrigin::Gguf(path) => Gguf::open(path)?.metadata(),
        ModelOrigin::Folder(_) | ModelOrigin::Embedded => described(source)?,
    };
    metadata.retain(|key, _| !OF_THE_FILE.iter().any(|it| key.starts_with(it)));
    set_file(&mut metadata, name, kind);
    Ok(metadata)
}

/// Sets the entries about a file itself.
pub fn set_file(metadata: &mut Metadata, name: &str, kind: GgufType) {
    metadata.insert("general.name".to_owned(), Value::String(name.to_owned()));
    metadata.insert("general.file_type".to_owned(), Value::U32(kind.file_type()));
    metadata.remove("general.quantization_version");
    if kind == GgufType::Q8_0 {
        // The version of the blocks (GGML_QNT_VERSION).
        metadata.insert("general.quantization_version".to_owned(), Value::U32(2));
    }
}

fn described(source: &ModelSource) -> Result<Metadata> {
    let config = &source.config;
    let architecture = architecture_name(config.architecture);
    let mut metadata = Metadata::new();
    let mut set = |key: String, value: Value| _ = metadata.insert(key, value);
    set("general.architecture".to_owned(), Value::String(architecture.to_owned()));
    set("general.type".to_owned(), Value::String("model".to_owned()));
    for (key, value) in [
        ("vocab_size", config.vocab_size),
        ("context_length", config.max_position_embeddings),
        ("embedding_length", config.hidden_size),
        ("feed_forward_length", config.intermediate_size),
        ("block_count", config.num_hidden_layers),
        ("attention.head_count", config.num_attention_heads),
        ("attention.head_count_kv", config.num_key_value_heads),
        ("attention.key_length", config.head_dim),
        ("attention.value_length", config.head_dim),
        ("rope.dimension_count", config.head_dim),
    ] {
        let value = u32::try_from(value).with_context(|| format!("`{key}` is {value}"))?;
        set(format!("{architecture}.{key}"), Value::U32(value));
    }
    set(format!("{architecture}.attention.layer_norm_rms_epsilon"), Value::F32(config.rms_norm_eps as f32));
    set(format!("{architecture}.rope.freq_base"), Value::F32(config.rope_theta as f32));

    let tokenizer = source.tokenizer()?;
    let written = tokenizer
        .to_gguf(config.vocab_size)
        .with_context(|| format!("write the tokenizer of `{}` to a GGUF file", source.name))?;
    set_tokenizer(&mut metadata, written);
    let texts: Json = match &source.tokenizer_config {
        Some(text) => serde_json::from_str(text.trim_start_matches('\u{feff}')).context("`tokenizer_config.json`")?,
        None => Json::Null,
    };
    for (key, id) in special_ids(&texts, &tokenizer, &config.eos_token_ids) {
        metadata.insert(format!("tokenizer.ggml.{key}_token_id"), Value::U32(id));
    }
    if let Some(template) = source.chat_template.clone().or_else(|| chat_template(&texts)) {
        metadata.insert("tokenizer.chat_template".to_owned(), Value::String(template));
    }
    Ok(metadata)
}

fn set_tokenizer(metadata: &mut Metadata, tokenizer: GgufTokenizer) {
    let texts = |texts: Vec<String>| Value::Array(texts.into_iter().map(Value::String).collect());
    let types = tokenizer.token_types.into_iter().map(|it| Value::I32(it as i32)).collect();
    for (key, value) in [
        ("model", Value::String("gpt2".to_owned())),
        ("pre", Value::String(tokenizer.pre)),
        ("tokens", texts(tokenizer.tokens)),
        ("token_type", Value::Array(types)),
        ("merges", texts(tokenizer.merges)),
        ("add_bos_token", Value::Bool(tokenizer.add_bos)),
    ] {
        metadata.insert(format!("tokenizer.ggml.{key}"), value);
    }
}

/// The ids of special tokens by their names in GGUF. `ends` are the tokens that end a completion.
fn special_ids(config: &Json, tokenizer: &Tokenizer, ends: &[u32]) -> Vec<(&'static str, u32)> {
    // A token is a string, or an object with options.
    let of = |key: &str| {
        let token = config.get(key)?;
        tokenizer.id_of(token.as_str().or_else(|| token.get("content")?.as_str())?)
    };
    let (padding, unknown) = (of("pad_token"), of("unk_token"));
    let end = of("eos_token").or_else(|| ends.first().copied());
    let other_end = ends.iter().copied().find(|id| Some(*id) != end);
    // Without an entry, llama.cpp uses the token 11 here. Nothing is placed before a text unless `add_bos_token` is true.
    let begin = tokenizer.bos().or_else(|| of("bos_token")).or(padding).or(end);
    let all =
        [("bos", begin), ("eos", end), ("eot", other_end), ("padding", padding), ("unknown", unknown)].into_iter();
    all.filter_map(|(name, id)| Some((name, id?))).collect()
}

/// A chat template in `tokenizer_config.json` is a string, or a list of named templates.
fn chat_template(config: &Json) -> Option<String> {
    let template = match config.get("chat_template")? {
        Json::Array(named) => named.iter().find(|it| it["name"] == "default")?.get("template")?,
        template => template,
    };
    template.as_str().map(str::to_owned)
}
