//! The embedded model as files that a test can damage: a folder, or a GGUF file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use rft::model::embedded;
use rft::model::safetensors::{Dtype, SafetensorsFile, Writer};
use tempfile::TempDir;

/// Tensors by name, each with its shape.
pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// A folder with the embedded model in `m`.
pub fn tiny_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("m")).unwrap();
    for (name, bytes) in embedded::FILES {
        fs::write(folder.path().join("m").join(name), bytes).unwrap();
    }
    folder
}

/// The same with other weights, in f32.
pub fn with_weights(change: impl FnOnce(&mut Tensors)) -> TempDir {
    let folder = tiny_folder();
    let mut tensors = read(&folder.path().join("m/model.safetensors"));
    change(&mut tensors);
    write(&folder.path().join("m/model.safetensors"), &tensors);
    folder
}

/// The same with one JSON file changed.
pub fn with_json(name: &str, change: impl FnOnce(&mut serde_json::Value)) -> TempDir {
    let folder = tiny_folder();
    edit_json(&folder.path().join("m").join(name), change);
    folder
}

pub fn edit_json(path: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let mut value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

pub fn read(path: &Path) -> Tensors {
    let file = SafetensorsFile::open(path).unwrap();
    let tensors = file.tensors().iter();
    tensors.map(|(name, info)| (name.clone(), (info.shape.clone(), file.read(name).unwrap()))).collect()
}

pub fn write(path: &Path, tensors: &Tensors) {
    let shapes: Vec<_> = tensors.iter().map(|(name, (shape, _))| (name.clone(), shape.clone())).collect();
    let mut file = Writer::create(path, &shapes, Dtype::F32).unwrap();
    for (name, (_, values)) in tensors {
        file.write(name, values).unwrap();
    }
    file.finish().unwrap();
}

/// Writes the embedded model as a GGUF file, with these changes to the metadata.
pub fn write_gguf(path: &Path, changes: &[(&str, Value)]) {
    let folder = tiny_folder();
    let json = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&fs::read(folder.path().join("m").join(name)).unwrap()).unwrap()
    };
    let (tokenizer, tokenizer_config) = (json("tokenizer.json"), json("tokenizer_config.json"));
    let text = |it: &serde_json::Value| it.as_str().unwrap().to_owned();
    let mut vocabulary: Vec<(u64, String)> = tokenizer["model"]["vocab"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(token, id)| (id.as_u64().unwrap(), token.clone()))
        .collect();
    vocabulary.sort_unstable();
    let merges = tokenizer["model"]["merges"].as_array().unwrap();
    let merges = merges.iter().map(|pair| Value::String(format!("{} {}", text(&pair[0]), text(&pair[1])))).collect();
    let kinds = vocabulary.iter().map(|(id, _)| Value::I32(if *id < 3 { 3 } else { 1 })).collect();

    let mut metadata: BTreeMap<String, Value> = BTreeMap::new();
    let mut set = |key: &str, value: Value| metadata.insert(key.to_owned(), value);
    set("general.architecture", Value::String("qwen2".to_owned()));
    let config = json("config.json");
    for (theirs, ours) in [
        ("context_length", "max_position_embeddings"),
        ("embedding_length", "hidden_size"),
        ("feed_forward_length", "intermediate_size"),
        ("block_count", "num_hidden_layers"),
        ("attention.head_count", "num_attention_heads"),
        ("attention.head_count_kv", "num_key_value_heads"),
    ] {
        set(&format!("qwen2.{theirs}"), Value::U32(config[ours].as_u64().unwrap() as u32));
    }
    set("qwen2.attention.layer_norm_rms_epsilon", Value::F32(1e-6));
    set("qwen2.rope.freq_base", Value::F32(1e4));
    set("tokenizer.ggml.model", Value::String("gpt2".to_owned()));
    set("tokenizer.ggml.pre", Value::String("qwen2".to_owned()));
    set("tokenizer.ggml.tokens", Value::Array(vocabulary.into_iter().map(|(_, it)| Value::String(it)).collect()));
    set("tokenizer.ggml.merges", Value::Array(merges));
    set("tokenizer.ggml.token_type", Value::Array(kinds));
    set("tokenizer.ggml.eos_token_id", Value::U32(2));
    set("tokenizer.chat_template", Value::String(text(&tokenizer_config["chat_template"])));
    for (key, value) in changes {
        set(key, value.clone());
    }

    let tensors: Vec<(String, QTensor)> = read(&folder.path().join("m/model.safetensors"))
        .into_iter()
        .map(|(name, (shape, values))| {
            let tensor = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
            (gguf_name(&name), QTensor::quantize(&tensor, GgmlDType::F32).unwrap())
        })
        .collect();
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    gguf_file::write(&mut File::create(path).unwrap(), &metadata, &tensors).unwrap();
}

/// llama.cpp's name of a tensor.
fn gguf_name(name: &str) -> String {
    [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("model.layers", "blk"),
        ("post_attention_layernorm", "ffn_norm"),
        ("input_layernorm", "attn_norm"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ]
    .iter()
    .fold(name.to_owned(), |name, (ours, theirs)| name.replace(ours, theirs))
}
