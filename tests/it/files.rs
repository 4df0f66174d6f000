//! Models and adapters as files: merged folders compute what the adapter did, and damaged ones give one line and a hint.

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use rft::config::LoraSection;
use rft::device::cpu::decoder::CpuDecoder;
use rft::grpo::learner::Keep;
use rft::model::config::ModelConfig;
use rft::model::lora::Adapter;
use rft::model::merge::merge;
use rft::model::pack::Pack;
use rft::model::peft::save_adapter;
use rft::model::safetensors::{Dtype, Writer};
use rft::model::source::ModelSource;
use rft::model::weights::{RandomWeights, Weights};
use rft::rng::{Purpose, Stream};

fn config() -> ModelConfig {
    ModelConfig { max_position_embeddings: 64, eos_token_ids: vec![1], ..ModelConfig::qwen2(2, 32, (4, 2), 64, 64) }
}

/// A folder of random weights; its tokenizer is never read.
fn write_folder(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("config.json"), config().to_json("float32").to_string()).unwrap();
    fs::write(folder.join("tokenizer.json"), "{}").unwrap();
    let weights = RandomWeights::new(&config(), 1);
    let tensors = config().tensors();
    let mut writer = Writer::create(&folder.join("model.safetensors"), &tensors, Dtype::F32).unwrap();
    for (name, shape) in &tensors {
        writer.write(name, &weights.get(name, shape).unwrap()).unwrap();
    }
    writer.finish().unwrap();
}

/// A GGUF file of random weights in 8-bit blocks, with a tokenizer of 64 tokens.
fn write_gguf(path: &Path) {
    let text = |it: &str| Value::String(it.to_owned());
    let mut tokens: Vec<String> = (0..62u8).map(|byte| char::from(b'A' + byte).to_string()).collect();
    tokens.extend(["AB".to_owned(), "<|end|>".to_owned()]);
    let types = (0..64).map(|id| Value::I32(if id == 63 { 3 } else { 1 })).collect();
    let metadata = [
        ("general.architecture", text("qwen2")),
        ("general.alignment", Value::U32(32)),
        ("qwen2.context_length", Value::U32(64)),
        ("qwen2.embedding_length", Value::U32(32)),
        ("qwen2.feed_forward_length", Value::U32(64)),
        ("qwen2.block_count", Value::U32(2)),
        ("qwen2.attention.head_count", Value::U32(4)),
        ("qwen2.attention.head_count_kv", Value::U32(2)),
        ("qwen2.attention.layer_norm_rms_epsilon", Value::F32(1e-6)),
        ("qwen2.rope.freq_base", Value::F32(1e4)),
        ("tokenizer.ggml.model", text("gpt2")),
        ("tokenizer.ggml.pre", text("qwen2")),
        ("tokenizer.ggml.tokens", Value::Array(tokens.iter().map(|it| text(it)).collect())),
        ("tokenizer.ggml.merges", Value::Array(vec![text("A B")])),
        ("tokenizer.ggml.token_type", Value::Array(types)),
        ("tokenizer.ggml.eos_token_id", Value::U32(63)),
        ("tokenizer.chat_template", text("{{ messages[0].content }}<|end|>")),
    ];
    let weights = RandomWeights::new(&config(), 1);
    let quantized = |name: &str, shape: &[usize]| {
        let tensor = Tensor::from_vec(weights.get(name, shape).unwrap(), shape, &Device::Cpu).unwrap();
        let dtype = if shape.len() == 2 { GgmlDType::Q8_0 } else { GgmlDType::F32 };
        QTensor::quantize(&tensor, dtype).unwrap()
    };
    let mut tensors = vec![
        ("token_embd.weight".to_owned(), quantized("model.embed_tokens.weight", &[64, 32])),
        ("output_norm.weight".to_owned(), quantized("model.norm.weight", &[32])),
    ];
    for layer in 0..2 {
        for (theirs, ours, shape) in [
            ("attn_norm.weight", "input_layernorm.weight", &[32][..]),
            ("attn_q.weight", "self_attn.q_proj.weight", &[32, 32]),
            ("attn_q.bias", "self_attn.q_proj.bias", &[32]),
            ("attn_k.weight", "self_attn.k_proj.weight", &[16, 32]),
            ("attn_k.bias", "self_attn.k_proj.bias", &[16]),
            ("attn_v.weight", "self_attn.v_proj.weight", &[16, 32]),
            ("attn_v.bias", "self_attn.v_proj.bias", &[16]),
            ("attn_output.weight", "self_attn.o_proj.weight", &[32, 32]),
            ("ffn_norm.weight", "post_attention_layernorm.weight", &[32]),
            ("ffn_gate.weight", "mlp.gate_proj.weight", &[64, 32]),
            ("ffn_up.weight", "mlp.up_proj.weight", &[64, 32]),
            ("ffn_down.weight", "mlp.down_proj.weight", &[32, 64]),
        ] {
            tensors.push((format!("blk.{layer}.{theirs}"), quantized(&format!("model.layers.{layer}.{ours}"), shape)));
        }
    }
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    gguf_file::write(&mut fs::File::create(path).unwrap(), &metadata, &tensors).unwrap();
}

/// An adapter on every linear layer whose B is random with this `deviation`, as if it had been trained.
fn write_adapter(folder: &Path, config: &ModelConfig, deviation: f64) -> Adapter {
    let target_modules = vec!["all-linear".to_owned()];
    let section = LoraSection { lora_alpha: 12.0, target_modules, use_rslora: true, ..LoraSection::all_linear(4) };
    let mut adapter = Adapter::new(config, &section, 5).unwrap();
    let stream = Stream::new(6, Purpose::Test, &[]);
    for (i, value) in adapter.params.iter_mut().enumerate() {
        *value += (deviation * stream.normal(i as u64)) as f32;
    }
    save_adapter(&adapter, folder, "base").unwrap();
    adapter
}

/// Logits of every row of one text.
pub fn logits(source: &ModelSource, adapter: Option<&Adapter>) -> Vec<f32> {
    let decoder = CpuDecoder::load(source.config.clone(), source.weights.as_ref(), 64).unwrap();
    let mut pack = Pack::default();
    let tokens: Vec<u32> = (0..24).map(|i| i * 7 % 61).collect();
    pack.push(&tokens, &[]);
    decoder.head().logits(&decoder.forward(adapter, &pack, Keep::Nothing).hidden)
}

pub fn gap(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn a_merged_folder_computes_what_model_and_adapter_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    write_folder(&path("base"));
    write_gguf(&path("base.gguf"));
    for base in ["base", "base.gguf"] {
        let source = ModelSource::open(path(base).to_str().unwrap(), "main").unwrap();
        let adapter = write_adapter(&path("adapter"), &source.config, 0.2);
        let out = path(&format!("{base}-merged"));
        merge(&source, &path("adapter"), &out, Dtype::F32, &mut |_, _| {}).unwrap();
        let merged = ModelSource::open(out.to_str().unwrap(), "main").unwrap();
        assert_eq!(merged.config, source.config);
        let (plain, adapted) = (logits(&source, None), logits(&source, Some(&adapter)));
        assert!(gap(&plain, &adapted) > 0.1, "the adapter changes little: {}", gap(&plain, &adapted));
        let merged = logits(&merged, None);
        assert!(gap(&adapted, &merged) < 1e-4, "{base}: {}", gap(&adapted, &merged));
    }
}

#[test]
fn a_merged_gguf_keeps_its_tokenizer_and_template() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    write_gguf(&path("base.gguf"));
    let source = ModelSource::open(path("base.gguf").to_str().unwrap(), "main").unwrap();
    write_adapter(&path("adapter"), &source.config, 0.1);
    merge(&source, &path("adapter"), &path("out"), Dtype::BF16, &mut |_, _| {}).unwrap();
    let merged = ModelSource::open(path("out").to_str().unwrap(), "main").unwrap();
    for text in ["ABBA", "<|end|>A<|end|>", "A[B]"] {
        let expected = source.tokenizer().unwrap().encode(text);
        assert_eq!(merged.tokenizer().unwrap().encode(text), expected, "{text}");
        assert!(!expected.is_empty());
    }
    assert_eq!(merged.tokenizer_config, source.tokenizer_config);
    assert!(merged.tokenizer_config.unwrap().contains("<|end|>\""));
    assert_eq!(merged.config.eos_token_ids, [63]);
}

fn rft(arguments: &[&str]) -> (bool, String, String) {
    let output = Command::cargo_bin("rft").unwrap().args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_embedded_model_is_merged_from_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let tiny = ModelSource::open("tiny", "main").unwrap();
    let adapter = write_adapter(&folder.path().join("adapter"), &tiny.config, 0.1);
    let (adapter_path, out) = (path("adapter"), path("out"));
    let command = ["merge", &adapter_path, "--model", "tiny", "--out", &out];
    let (done, stdout, stderr) = rft(&command);
    assert!(done, "{stderr}");
    assert_eq!(stdout.trim(), out);
    let merged = ModelSource::open(&out, "main").unwrap();
    assert!(gap(&logits(&tiny, Some(&adapter)), &logits(&merged, None)) < 2e-4);
    assert_eq!(merged.tokenizer().unwrap().encode("12 + 5"), tiny.tokenizer().unwrap().encode("12 + 5"));
    let (done, _, stderr) = rft(&command);
    assert!(!done && stderr.contains("exists already") && stderr.contains("hint: "), "{stderr}");
}

#[test]
fn damaged_and_foreign_models_are_errors_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    write_folder(&folder.path().join("cut"));
    let weights = folder.path().join("cut/model.safetensors");
    let whole = fs::read(&weights).unwrap();
    fs::write(&weights, &whole[..whole.len() - 100]).unwrap();
    fs::create_dir(path("pickle")).unwrap();
    fs::write(path("pickle/pytorch_model.bin"), "x").unwrap();
    write_gguf(&folder.path().join("cut.gguf"));
    let whole = fs::read(path("cut.gguf")).unwrap();
    fs::write(path("cut.gguf"), &whole[..whole.len() - 100]).unwrap();
    let key = b"general.alignment";
    let alignment = whole.windows(key.len()).position(|it| it == key).unwrap() + key.len() + 4;
    let mut zero = whole;
    assert_eq!(zero[alignment..alignment + 4], 32u32.to_le_bytes());
    zero[alignment] = 0;
    fs::write(path("zero.gguf"), zero).unwrap();
    for (model, reason) in [
        (path("cut"), "the file is truncated: 100 of"),
        (path("cut.gguf"), "the file is truncated"),
        (path("zero.gguf"), "`general.alignment` is 0"),
        (path("pickle"), "is a pickle file"),
        (path("pickle/pytorch_model.bin"), "is a pickle file"),
        (path("absent"), "there is no model"),
    ] {
        let (done, stdout, stderr) = rft(&["generate", "--model", &model, "What is 1 + 1?"]);
        let lines: Vec<&str> = stderr.lines().collect();
        assert!(!done && stdout.is_empty(), "{model}");
        assert!(lines.len() == 2 && lines[0].contains(reason) && lines[1].starts_with("hint: "), "{model}: {stderr}");
    }
}
