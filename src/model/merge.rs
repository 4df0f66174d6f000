//! A model folder with an adapter merged into its weights: W + scale · B A, in f32, tensor by tensor.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::checkpoint::{INDEX, SINGLE};
use super::delta::AdapterDeltas;
use super::embedded;
use super::safetensors::{Dtype, Writer};
use super::source::{ModelOrigin, ModelSource};
use crate::disk::{atomic, files};

/// Maximum bytes of one file, as in transformers; a single larger tensor gets a separate file.
const SHARD: u64 = 5_000_000_000;

/// Files of a model folder that are copied unchanged.
const COPIED: [&str; 8] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
];

/// The result of a merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MergedModel {
    pub tensors: usize,
    /// Number of tensors that the adapter changed.
    pub adapted: usize,
    /// Size of the weights.
    pub bytes: u64,
}

/// Writes `source` with the adapter in `adapter` merged into it to the new folder `out`. `dtype` is F32 or BF16.
/// `progress` receives the number of tensors written and the total.
pub fn merge(
    source: &ModelSource,
    adapter: &Path,
    out: &Path,
    dtype: Dtype,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<MergedModel> {
    merge_in_shards(source, adapter, out, dtype, SHARD, progress)
}

fn merge_in_shards(
    source: &ModelSource,
    adapter: &Path,
    out: &Path,
    dtype: Dtype,
    shard: u64,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<MergedModel> {
    ensure!(!out.exists(), "`{}` exists already\nhint: choose a new folder", out.display());
    let mut deltas = AdapterDeltas::load(source, adapter)?;
    let names = source.config.tensors();

    // Everything is written under another name first, so that a folder named `out` is always complete.
    let partial = atomic::with_suffix(out, ".partial");
    if partial.exists() {
        files::remove_dir_all(&partial).map_err(|error| atomic::write_error(&partial, &error))?;
    }
    files::create_dir_all(&partial).map_err(|error| atomic::write_error(&partial, &error))?;
    write_texts(source, &partial, dtype)?;

    let bytes_of = |shape: &[usize]| dtype.bitsize() as u64 / 8 * shape.iter().product::<usize>() as u64;
    let mut merged = MergedModel { tensors: 0, adapted: 0, bytes: 0 };
    let parts = parts(&names, shard, bytes_of);
    let mut weight_map = serde_json::Map::new();
    for (number, part) in parts.iter().enumerate() {
        let file = match parts.len() {
            1 => SINGLE.to_owned(),
            of => format!("model-{:05}-of-{of:05}.safetensors", number + 1),
        };
        let mut writer = Writer::create(&partial.join(&file), part, dtype)?;
        for (name, shape) in *part {
            let kind = dtype.to_string();
            let (values, adapted) = deltas.merged(source, name, shape, &kind, |value| fits(value, dtype))?;
            merged.adapted += usize::from(adapted);
            writer.write(name, &values)?;
            weight_map.insert(name.clone(), file.clone().into());
            merged.tensors += 1;
            merged.bytes += bytes_of(shape);
            progress(merged.tensors, names.len());
        }
        writer.finish()?;
    }
    if parts.len() > 1 {
        write_json(&partial.join(INDEX), &json!({"metadata": {"total_size": merged.bytes}, "weight_map": weight_map}))?;
    }
    atomic::move_in(&partial, out)?;
    Ok(merged)
}

/// Whether a value is finite in `dtype`.
fn fits(value: f32, dtype: Dtype) -> bool {
    match dtype {
        Dtype::BF16 => half::bf16::from_f32(value).is_finite(),
        _ => value.is_finite(),
    }
}

/// Splits the list of tensors where a file would exceed `limit` bytes.
fn parts(
    tensors: &[(String, Vec<usize>)],
    limit: u64,
    bytes_of: impl Fn(&[usize]) -> u64,
) -> Vec<&[(String, Vec<usize>)]> {
    let (mut parts, mut start, mut size) = (Vec::new(), 0, 0);
    for (index, (_, shape)) in tensors.iter().enumerate() {
        let bytes = bytes_of(shape);
        if index > start && size + bytes > limit {
            parts.push(&tensors[start..index]);
            (start, size) = (index, 0);
        }
        size += bytes;
    }
    parts.push(&tensors[start..]);
    parts
}

/// Writes the configuration and all files of the tokenizer.
fn write_texts(source: &ModelSource, out: &Path, dtype: Dtype) -> Result<()> {
    let dtype = if dtype == Dtype::F32 { "float32" } else { "bfloat16" };
    let write = |name: &str, bytes: &[u8]| atomic::write(&out.join(name), bytes);
    let own_config = |bytes: &[u8]| -> Result<()> {
        let mut config: Value = serde_json::from_slice(bytes)?;
        let entries = config.as_object_mut().context("`config.json` is not an object")?;
        entries.remove("auto_map"); // the code that it names is not copied
        let key = if entries.contains_key("dtype") { "dtype" } else { "torch_dtype" };
        entries.insert(key.to_owned(), dtype.into());
        write_json(&out.join("config.json"), &config)
    };
    match &source.origin {
        ModelOrigin::Folder(folder) => {
            own_config(&fs::read(folder.join("config.json"))?)?;
            for name in COPIED {
                let from = folder.join(name);
                if from.is_file() {
                    write(name, &fs::read(&from).with_context(|| format!("read `{}`", from.display()))?)?;
                }
            }
        }
        ModelOrigin::Embedded => {
            for (name, bytes) in embedded::FILES {
                match name {
                    "config.json" => own_config(bytes)?,
                    name if COPIED.contains(&name) => write(name, bytes)?,
                    _ => {}
                }
            }
        }
        ModelOrigin::Gguf(_) => {
            write_json(&out.join("config.json"), &source.config.to_json(dtype))?;
            write_json(&out.join("generation_config.json"), &json!({"eos_token_id": source.config.eos_token_ids}))?;
            write("tokenizer.json", source.tokenizer()?.to_json()?.as_bytes())?;
            write("tokenizer_config.json", source.tokenizer_config.as_deref().unwrap_or("{}").as_bytes())?;
        }
    }
    Ok(())
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    atomic::write(path, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::config::ModelConfig;
    use super::super::config::tests::tiny;
    use super::super::peft;
    use super::super::weights::{RandomWeights, Weights};
    use super::*;
    use crate::config::LoraSection;

    const Q: &str = "model.layers.1.self_attn.q_proj.weight";

    /// A model folder of random weights.
    fn model(folder: &Path) -> ModelSource {
        let config = tiny();
        let weights = RandomWeights::new(&config, 3);
        let mut json = config.to_json("bfloat16");
        json["auto_map"] = json!({"AutoModel": "code.Model"});
        write_json(&folder.join("config.json"), &json).unwrap();
        fs::write(folder.join("tokenizer.json"), "{}").unwrap();
        fs::write(folder.join("chat_template.jinja"), "{{ x }}").unwrap();
        fs::write(folder.join("README.md"), "not copied").unwrap();
        let tensors = config.tensors();
        let mut writer = Writer::create(&folder.join(SINGLE), &tensors, Dtype::F32).unwrap();
        for (name, shape) in &tensors {
            writer.write(name, &weights.get(name, shape).unwrap()).unwrap();
        }
        writer.finish().unwrap();
        ModelSource::open_folder(folder).unwrap()
    }

    /// An adapter of rank 2 on one q_proj whose A is (1, 2, ..) / 10 and whose B is (1, -1, 2, -2, ..).
    fn adapter(folder: &Path, config: &ModelConfig, weight: &str) -> (Vec<f32>, Vec<f32>) {
        let hidden = config.hidden_size;
        let a: Vec<f32> = (1..=2 * hidden).map(|it| it as f32 / 10.0).collect();
        let b: Vec<f32> = (0..2 * hidden).map(|it| (it / 2 + 1) as f32 * [1.0, -1.0][it % 2]).collect();
        let section =
            LoraSection { lora_alpha: 8.0, target_modules: vec!["q_proj".into()], ..LoraSection::all_linear(2) };
        let name = |half: &str| format!("base_model.model.{}.{half}.weight", weight.strip_suffix(".weight").unwrap());
        let tensors = [(name("lora_A"), [2, hidden], &a[..]), (name("lora_B"), [hidden, 2], &b[..])];
        peft::save(folder, &peft::PeftConfig::new("base", &section), &tensors).unwrap();
        (a, b)
    }

    #[test]
    fn the_adapter_changes_only_its_own_weight() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("base")).unwrap();
        let source = model(&path("base"));
        let (a, b) = adapter(&path("adapter"), &source.config, Q);
        let limit = 4000; // bytes: several files
        let merged =
            merge_in_shards(&source, &path("adapter"), &path("out"), Dtype::F32, limit, &mut |_, _| {}).unwrap();
        assert_eq!((merged.tensors, merged.adapted), (source.config.tensors().len(), 1));

        let result = ModelSource::open_folder(&path("out")).unwrap();
        assert_eq!(result.config, source.config);
        for (name, shape) in source.config.tensors() {
            let mut expected = source.weights.get(&name, &shape).unwrap();
            if name == Q {
                for (i, value) in expected.iter_mut().enumerate() {
                    let (row, column) = (i / 16, i % 16);
                    *value += 4.0 * (b[2 * row] * a[column] + b[2 * row + 1] * a[16 + column]);
                }
            }
            let found = result.weights.get(&name, &shape).unwrap();
            let gap = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(gap < 1e-4, "{name}: {gap}");
        }
        assert!(path("out").join(INDEX).is_file() && path("out").join("chat_template.jinja").is_file());
        assert!(!path("out").join("README.md").exists());
        let config: Value = serde_json::from_slice(&fs::read(path("out").join("config.json")).unwrap()).unwrap();
        assert_eq!((config.get("auto_map"), &config["torch_dtype"]), (None, &json!("float32")));
        for file in fs::read_dir(path("out")).unwrap().flatten() {
            let name = file.file_name().into_string().unwrap();
            if name.starts_with("model-") {
                assert!(file.metadata().unwrap().len() < limit + 4000, "{name}");
            }
        }
    }

    #[test]
    fn bf16_halves_the_weights() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("base")).unwrap();
        let source = model(&path("base"));
        adapter(&path("adapter"), &source.config, Q);
        let f32 = merge(&source, &path("adapter"), &path("f32"), Dtype::F32, &mut |_, _| {}).unwrap();
        let bf16 = merge(&source, &path("adapter"), &path("bf16"), Dtype::BF16, &mut |_, _| {}).unwrap();
        assert_eq!(f32.bytes, 2 * bf16.bytes);
        let (f32, bf16) =
            (ModelSource::open_folder(&path("f32")).unwrap(), ModelSource::open_folder(&path("bf16")).unwrap());
        let (f32, bf16) = (f32.weights.get(Q, &[16, 16]).unwrap(), bf16.weights.get(Q, &[16, 16]).unwrap());
        assert!(f32.iter().zip(&bf16).all(|(a, b)| (a - b).abs() <= a.abs() / 256.0));
        assert_ne!(f32, bf16);
    }

    #[test]
    fn nothing_is_overwritten_and_adapters_of_other_models_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("base")).unwrap();
        let source = model(&path("base"));
        let try_merge = || {
            merge(&source, &path("adapter"), &path("out"), Dtype::F32, &mut |_, _| {}).map_err(|it| format!("{it:#}"))
        };
        adapter(&path("adapter"), &source.config, "model.layers.7.self_attn.q_proj.weight");
        assert!(try_merge().unwrap_err().contains("that the adapter was trained on"));
        adapter(&path("adapter"), &source.config, "model.layers.0.self_attn.k_proj.weight");
        assert!(try_merge().unwrap_err().contains("does not have the weight's shape"));
        assert!(!path("out").exists());
        adapter(&path("adapter"), &source.config, Q);
        try_merge().unwrap();
        assert!(try_merge().unwrap_err().contains("exists already"));
    }
}
