//! GGUF files that `rft` writes: a merged model computes what model and adapter do, an adapter has what llama.cpp reads, and a
//! model keeps its metadata. `llama_cpp.rs` tests the same with llama.cpp.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::Device;
use candle_core::quantized::gguf_file::{Content, Value};
use rft::config::LoraSection;
use rft::model::config::{Architecture, Llama3Scaling, ModelConfig};
use rft::model::embedded;
use rft::model::lora::Adapter;
use rft::model::peft::{PeftConfig, save, save_adapter};
use rft::model::safetensors::{Dtype, Writer};
use rft::model::source::ModelSource;
use rft::model::weights::{RandomWeights, Weights};
use rft::rng::{Purpose, Stream};

use crate::cli;
use crate::files::{gap, logits};
use crate::tiny_model;

/// Two texts with special tokens, digits, contractions and other characters than letters.
const TEXTS: [&str; 2] =
    ["<|im_start|>user\nIt's 12 + 345?<|im_end|>\n", "  caf\u{e9} \u{1f600}\n\n x = \\frac{1}{2}\t"];

fn rft(arguments: &[&str]) -> (bool, String, String) {
    let output = cli::rft(Path::new(".")).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

/// Runs `rft` and returns what it prints on stdout.
fn run(arguments: &[&str]) -> String {
    let (done, stdout, stderr) = rft(arguments);
    assert!(done, "{stderr}");
    stdout.trim().to_owned()
}

fn failed(arguments: &[&str]) -> String {
    let (done, _, stderr) = rft(arguments);
    assert!(!done, "{arguments:?} succeeded");
    stderr
}

/// An adapter on every linear layer, as if it had been trained, with rank-stabilized scale.
fn write_adapter(folder: &Path, config: &ModelConfig) -> Adapter {
    let section = LoraSection { lora_alpha: 12.0, use_rslora: true, ..LoraSection::all_linear(4) };
    let mut adapter = Adapter::new(config, &section, 5).unwrap();
    let stream = Stream::new(6, Purpose::Test, &[]);
    for (i, value) in adapter.params.iter_mut().enumerate() {
        *value += (0.05 * stream.normal(i as u64)) as f32;
    }
    save_adapter(&adapter, folder, "base").unwrap();
    adapter
}

/// A folder with random weights and the tokenizer of the embedded model, which has fewer tokens than the embedding rows.
fn write_folder(folder: &Path, config: &ModelConfig) {
    fs::create_dir_all(folder).unwrap();
    for (name, bytes) in embedded::FILES {
        if name.starts_with("tokenizer") {
            fs::write(folder.join(name), bytes).unwrap();
        }
    }
    fs::write(folder.join("config.json"), config.to_json("float32").to_string()).unwrap();
    let weights = RandomWeights::new(config, 1);
    let tensors = config.tensors();
    let mut writer = Writer::create(&folder.join("model.safetensors"), &tensors, Dtype::F32).unwrap();
    for (name, shape) in &tensors {
        writer.write(name, &weights.get(name, shape).unwrap()).unwrap();
    }
    writer.finish().unwrap();
}

/// A decoder of every architecture: tied and not, with biases, norms of q and k, and scaled rotary frequencies.
fn architectures() -> [(&'static str, ModelConfig); 3] {
    let qwen2 = ModelConfig {
        max_position_embeddings: 64,
        eos_token_ids: vec![0, 2],
        ..ModelConfig::qwen2(2, 64, (4, 2), 96, 800)
    };
    let scaling = Llama3Scaling {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192,
    };
    let llama = ModelConfig {
        architecture: Architecture::Llama,
        qkv_bias: false,
        rope_theta: 5e5,
        rope_scaling: Some(scaling),
        tie_word_embeddings: false,
        ..qwen2.clone()
    };
    let qwen3 = ModelConfig {
        architecture: Architecture::Qwen3,
        qkv_bias: false,
        qk_norm: true,
        head_dim: 32,
        rope_theta: 1e6,
        ..qwen2.clone()
    };
    [("qwen2", qwen2), ("llama", llama), ("qwen3", qwen3)]
}

/// A GGUF file as candle reads it.
struct File {
    content: Content,
    file: fs::File,
}

impl File {
    fn open(path: &Path) -> Self {
        let mut file = fs::File::open(path).unwrap();
        Self { content: Content::read(&mut file).unwrap(), file }
    }

    fn get(&self, key: &str) -> String {
        self.content.metadata.get(key).map_or_else(|| "nothing".to_owned(), |value| format!("{value:?}"))
    }

    /// Metadata in the form that can be compared.
    fn metadata(&self) -> BTreeMap<String, String> {
        self.content.metadata.iter().map(|(key, value)| (key.clone(), format!("{value:?}"))).collect()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.content.tensor_infos.keys().cloned().collect();
        names.sort();
        names
    }

    /// Shape and values.
    fn tensor(&mut self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let tensor = self.content.tensor(&mut self.file, name, &Device::Cpu).unwrap();
        let tensor = tensor.dequantize(&Device::Cpu).unwrap();
        (tensor.dims().to_vec(), tensor.flatten_all().unwrap().to_vec1().unwrap())
    }
}

fn folder() -> (tempfile::TempDir, impl Fn(&str) -> String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    (folder, move |name: &str| path.join(name).to_str().unwrap().to_owned())
}

#[test]
fn a_merged_file_computes_what_model_and_adapter_do() {
    let (_folder, path) = folder();
    let mut bases: Vec<(String, String)> = vec![("tiny".to_owned(), "tiny".to_owned())];
    for (name, config) in architectures() {
        write_folder(Path::new(&path(name)), &config);
        bases.push((name.to_owned(), path(name)));
    }
    tiny_model::write_gguf(Path::new(&path("base.gguf")), &[]);
    bases.push(("gguf".to_owned(), path("base.gguf")));
    for (name, base) in bases {
        let source = ModelSource::open(&base, "main").unwrap();
        let adapter = write_adapter(Path::new(&path("adapter")), &source.config);
        let (plain, adapted) = (logits(&source, None), logits(&source, Some(&adapter)));
        assert!(gap(&plain, &adapted) > 0.1, "{name}: the adapter changes little: {}", gap(&plain, &adapted));
        let largest = adapted.iter().fold(0.0, |most: f32, it| most.max(it.abs()));
        // Relative to the largest logit. A step of q8_0 is the largest of 32 weights divided by 127, so rounding changes a weight by
        // about 0.5 % of the usual ones, in every layer.
        // Ten times the relative rounding of a weight, because a logit sums over many weights and blocks.
        for (kind, most) in [("f32", 1e-5), ("f16", 5e-3), ("bf16", 4e-2), ("q8_0", 4e-2)] {
            let out = path(&format!("{name}-{kind}.gguf"));
            let printed = run(&["merge", &path("adapter"), "--model", &base, "--gguf", "--dtype", kind, "--out", &out]);
            assert_eq!(printed, out);
            let merged = ModelSource::open(&out, "main").unwrap();
            assert_eq!(merged.config, source.config, "{name} {kind}");
            let gap = gap(&adapted, &logits(&merged, None)) / largest;
            assert!(gap < most, "{name} {kind}: {gap}");
            assert!(gap > 0.0 || kind == "f32", "{name} {kind} is not rounded");
            let (ours, theirs) = (merged.tokenizer().unwrap(), source.tokenizer().unwrap());
            for text in TEXTS {
                assert_eq!(ours.encode_around(text, &[]), theirs.encode_around(text, &[]), "{name} {kind}: {text}");
            }
            assert_eq!(ours.special_tokens(), theirs.special_tokens());
        }
    }
}

#[test]
fn a_file_of_the_embedded_model_has_the_metadata_that_llama_cpp_reads() {
    let (_folder, path) = folder();
    let tiny = ModelSource::open("tiny", "main").unwrap();
    write_adapter(Path::new(&path("adapter")), &tiny.config);
    run(&["merge", &path("adapter"), "--model=tiny", "--gguf", "--dtype=q8_0", "--out", &path("m.gguf")]);
    let mut file = File::open(Path::new(&path("m.gguf")));
    for (key, value) in [
        ("general.architecture", "String(\"qwen2\")"),
        ("general.type", "String(\"model\")"),
        ("general.name", "String(\"tiny with adapter\")"),
        ("general.file_type", "U32(7)"),
        ("general.quantization_version", "U32(2)"),
        ("qwen2.context_length", "U32(512)"),
        ("qwen2.attention.head_count_kv", "U32(2)"),
        ("qwen2.rope.freq_base", "F32(10000.0)"),
        ("qwen2.attention.layer_norm_rms_epsilon", "F32(1e-6)"),
        ("tokenizer.ggml.model", "String(\"gpt2\")"),
        ("tokenizer.ggml.pre", "String(\"qwen2\")"),
        ("tokenizer.ggml.add_bos_token", "Bool(false)"),
        ("tokenizer.ggml.eos_token_id", "U32(2)"),
        ("tokenizer.ggml.eot_token_id", "U32(0)"),
        ("tokenizer.ggml.padding_token_id", "U32(0)"),
        ("tokenizer.ggml.bos_token_id", "U32(0)"),
    ] {
        assert_eq!(file.get(key), value, "{key}");
    }
    assert!(file.get("tokenizer.chat_template").contains("<|im_start|>"));
    // Norms and biases are f32; the head is the embedding.
    assert_eq!(file.names().len(), 2 + 4 * 12);
    assert!(!file.names().contains(&"output.weight".to_owned()));
    let kind = |name: &str| format!("{:?}", file.content.tensor_infos[name].ggml_dtype);
    assert_eq!(["blk.0.attn_norm.weight", "blk.1.attn_q.bias", "output_norm.weight"].map(kind), ["F32"; 3]);
    assert_eq!(["token_embd.weight", "blk.3.ffn_down.weight", "blk.0.attn_k.weight"].map(kind), ["Q8_0"; 3]);
    assert_eq!(file.tensor("blk.0.attn_k.weight").0, [64, 128]);

    // If the embedding has more rows than there are tokens, the rest of the ids are unused.
    let (name, config) = &architectures()[1];
    write_folder(Path::new(&path(name)), config);
    write_adapter(Path::new(&path("adapter")), config);
    run(&["merge", &path("adapter"), "--model", &path(name), "--gguf", "--out", &path("l.gguf")]);
    let mut file = File::open(Path::new(&path("l.gguf")));
    let list = |key: &str| match &file.content.metadata[key] {
        Value::Array(values) => values.iter().map(|it| format!("{it:?}")).collect::<Vec<_>>(),
        other => panic!("{key}: {other:?}"),
    };
    assert_eq!((list("tokenizer.ggml.tokens").len(), list("tokenizer.ggml.token_type").len()), (800, 800));
    assert_eq!(list("tokenizer.ggml.tokens")[799], "String(\"[PAD799]\")");
    let types = list("tokenizer.ggml.token_type");
    assert_eq!(
        [0, 2, 3, 769, 770, 799].map(|id| types[id].as_str()),
        ["I32(3)", "I32(3)", "I32(1)", "I32(1)", "I32(5)", "I32(5)"]
    );
    assert_eq!(file.get("general.quantization_version"), "nothing");
    assert_eq!(file.get("llama.rope.scaling.type"), "nothing");
    let (shape, divisors) = file.tensor("rope_freqs.weight");
    assert_eq!((shape, divisors[0], divisors[7]), (vec![8], 1.0, 8.0));
}

/// What llama.cpp computes from the adapter's file, base + alpha / rank · B A with the tensors as they are in the files, is the
/// merged file: for q and k of Llama, whose rows have another order there, too.
#[test]
fn an_exported_adapter_and_the_base_are_the_merged_file() {
    let (_folder, path) = folder();
    for (name, config) in architectures() {
        write_folder(Path::new(&path(name)), &config);
        let adapter = write_adapter(Path::new(&path("adapter")), &config);
        save_adapter(&Adapter::new(&config, &adapter.section, 1).unwrap(), Path::new(&path("none")), "base").unwrap();
        let [base, merged, out] = ["base", "merged", "lora"].map(|it| path(&format!("{name}-{it}.gguf")));
        run(&["merge", &path("none"), "--model", &path(name), "--gguf", "--out", &base]);
        run(&["merge", &path("adapter"), "--model", &path(name), "--gguf", "--out", &merged]);
        assert_eq!(run(&["export", &path("adapter"), "--model", &path(name), "--gguf", "--out", &out]), out);

        let [mut base, mut merged, mut lora] = [base, merged, out].map(|it| File::open(Path::new(&it)));
        let alpha = 12.0 * 4f32.sqrt(); // rank-stabilized: 12 / √4 is alpha / 4
        for (key, value) in [
            ("general.type", Value::String("adapter".into())),
            ("general.architecture", Value::String(name.into())),
            ("general.name", Value::String("adapter".into())),
            ("general.file_type", Value::U32(0)),
            ("adapter.type", Value::String("lora".into())),
            ("adapter.lora.alpha", Value::F32(alpha)),
        ] {
            assert_eq!(lora.get(key), format!("{value:?}"), "{key}");
        }
        let adapted: Vec<String> =
            lora.names().iter().filter_map(|it| it.strip_suffix(".lora_a").map(str::to_owned)).collect();
        assert_eq!((adapted.len(), lora.names().len()), (14, 28));
        for weight in adapted {
            let (shape, before) = base.tensor(&weight);
            let (_, after) = merged.tensor(&weight);
            let (a_shape, a) = lora.tensor(&format!("{weight}.lora_a"));
            let (b_shape, b) = lora.tensor(&format!("{weight}.lora_b"));
            let [rows, columns] = shape[..] else { panic!("{shape:?}") };
            assert_eq!((a_shape, b_shape), (vec![4, columns], vec![rows, 4]), "{weight}");
            let sum = |i: usize| {
                let (row, column) = (i / columns, i % columns);
                before[i] + alpha / 4.0 * (0..4).map(|k| b[4 * row + k] * a[k * columns + column]).sum::<f32>()
            };
            let expected: Vec<f32> = (0..rows * columns).map(sum).collect();
            assert!(gap(&before, &after) > 0.01, "{name} {weight} is not adapted");
            assert!(gap(&expected, &after) < 1e-5, "{name} {weight}: {}", gap(&expected, &after));
        }
    }
}

#[test]
fn an_adapter_is_written_into_its_folder_and_rounded_on_request() {
    let (_folder, path) = folder();
    let tiny = ModelSource::open("tiny", "main").unwrap();
    write_adapter(Path::new(&path("adapter")), &tiny.config);
    assert_eq!(run(&["export", &path("adapter"), "--gguf", "--model=tiny"]), path("adapter/adapter.gguf"));
    run(&["export", &path("adapter"), "--gguf", "--model=tiny", "--type=f16", "--out", &path("new/half.gguf")]);
    let [mut whole, mut half] = ["adapter/adapter.gguf", "new/half.gguf"].map(|it| File::open(Path::new(&path(it))));
    assert_eq!(half.get("general.file_type"), "U32(1)");
    let name = "blk.2.ffn_down.weight.lora_b";
    let gap = gap(&whole.tensor(name).1, &half.tensor(name).1);
    assert!(gap > 0.0 && gap < 2e-4, "{gap}");
    assert_eq!(format!("{:?}", half.content.tensor_infos[name].ggml_dtype), "F16");
}

#[test]
fn a_file_of_a_gguf_model_keeps_its_metadata() {
    let (_folder, path) = folder();
    let own = [
        ("general.name", Value::String("base".into())),
        ("general.file_type", Value::U32(15)),
        ("general.quantization_version", Value::U32(2)),
        ("general.alignment", Value::U32(32)),
        ("quantize.imatrix.entries_count", Value::I32(3)),
        ("general.languages", Value::Array(vec![Value::String("en".into())])),
        ("tokenizer.ggml.add_space_prefix", Value::Bool(false)),
        ("another.key", Value::F64(0.5)),
    ];
    tiny_model::write_gguf(Path::new(&path("base.gguf")), &own);
    let source = ModelSource::open(&path("base.gguf"), "main").unwrap();
    write_adapter(Path::new(&path("adapter")), &source.config);
    let base = path("base.gguf");
    run(&["merge", &path("adapter"), "--model", &base, "--gguf", "--dtype=f16", "--out", &path("m.gguf")]);
    let mut expected = File::open(Path::new(&base)).metadata();
    for key in ["general.alignment", "general.quantization_version", "quantize.imatrix.entries_count"] {
        assert!(expected.remove(key).is_some());
    }
    expected.insert("general.name".into(), "String(\"base with adapter\")".into());
    expected.insert("general.file_type".into(), "U32(1)".into());
    assert_eq!(File::open(Path::new(&path("m.gguf"))).metadata(), expected);
}

#[test]
fn what_cannot_be_written_is_an_error_and_leaves_no_file() {
    let (folder, path) = folder();
    let tiny = ModelSource::open("tiny", "main").unwrap();
    write_adapter(Path::new(&path("adapter")), &tiny.config);
    let adapter = path("adapter");
    let merge = ["merge", &adapter, "--model=tiny", "--out", &path("m.gguf")];
    let error = failed(&[&merge[..], &["--dtype=f16"]].concat());
    assert!(error.contains("data types f32 and bf16") && error.contains("add --gguf"), "{error}");
    let error = failed(&["merge", &adapter, "--model=tiny", "--gguf", "--out", &path("m")]);
    assert!(error.contains("is not the name of a GGUF file") && error.contains("ends in .gguf"), "{error}");
    let error = failed(&["export", &adapter, "--model=tiny"]);
    assert!(error.contains("--gguf"), "{error}");

    // An adapter of another model, of the embedding, of nothing, and one that llama.cpp would apply with another scale.
    let module = |name: &str, half: &str| format!("base_model.model.{name}.{half}.weight");
    let write = |alpha: f64, name: &str, rows: usize| {
        let section = LoraSection { lora_alpha: alpha, ..LoraSection::all_linear(2) };
        let (a, b) = (vec![0.1; 2 * 128], vec![0.1; rows * 2]);
        let tensors = [(module(name, "lora_A"), [2, 128], &a[..]), (module(name, "lora_B"), [rows, 2], &b[..])];
        let some = if name.is_empty() { &tensors[..0] } else { &tensors[..] };
        save(Path::new(&path("odd")), &PeftConfig::new("tiny", &section), some).unwrap();
    };
    let q = "model.layers.0.self_attn.q_proj";
    for (alpha, name, rows, reason) in [
        (4.0, "lm_head", 770, "changes `lm_head.weight`, which `tiny` does not have"),
        (4.0, q, 96, "the adapter of `model.layers.0.self_attn.q_proj.weight`"),
        (4.0, "model.embed_tokens", 770, "it adapts the embedding"),
        (4.0, "model.layers.0.self_attn.rotary", 128, "does not have"),
        (4.0, "", 0, "it has no tensors"),
        (0.0, q, 128, "`lora_alpha` is 0"),
    ] {
        write(alpha, name, rows);
        let error = failed(&["export", &path("odd"), "--gguf", "--model=tiny"]);
        assert!(error.contains(reason) && error.contains("hint: "), "{name}: {error}");
    }

    // Tokenizers whose rules llama.cpp does not have under a name.
    for (change, reason) in [
        (("/pre_tokenizer/pretokenizers/0/pattern/Regex", "[a-z]+".into()), "does not split words as Qwen2"),
        (("/model/ignore_merges", true.into()), "does not split words as Qwen2"),
        (("/normalizer", serde_json::json!({"type": "Lowercase"})), "the step `Lowercase`"),
        (("/added_tokens/1/rstrip", true.into()), "removes spaces"),
    ] {
        let odd = tiny_model::with_json("tokenizer.json", |json| *json.pointer_mut(change.0).unwrap() = change.1);
        let model = odd.path().join("m").to_str().unwrap().to_owned();
        let error = failed(&["merge", &adapter, "--model", &model, "--gguf", "--out", &path("m.gguf")]);
        assert!(error.contains(reason) && error.contains("convert_hf_to_gguf.py"), "{}: {error}", change.0);
    }

    // A value that f16 does not have.
    let big = tiny_model::with_weights(|tensors| {
        tensors.get_mut("model.layers.0.mlp.up_proj.weight").unwrap().1[5] = 1e5;
    });
    let model = big.path().join("m").to_str().unwrap().to_owned();
    let error = failed(&["merge", &adapter, "--model", &model, "--gguf", "--dtype=f16", "--out", &path("m.gguf")]);
    assert!(error.contains("`model.layers.0.mlp.up_proj.weight` has values that are infinite in f16"), "{error}");

    let mut names: Vec<PathBuf> = fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().path()).collect();
    names.sort();
    assert_eq!(names, ["adapter", "odd"].map(|it| PathBuf::from(path(it))));

    // Nothing is overwritten.
    run(&[&merge[..], &["--gguf"]].concat());
    let before = fs::read(path("m.gguf")).unwrap();
    let error = failed(&[&merge[..], &["--gguf", "--dtype=f16"]].concat());
    assert!(error.contains("exists already") && error.contains("hint: "), "{error}");
    assert_eq!(fs::read(path("m.gguf")).unwrap(), before);
    run(&["export", &adapter, "--gguf", "--model=tiny"]);
    assert!(failed(&["export", &adapter, "--gguf", "--model=tiny"]).contains("exists already"));
}
