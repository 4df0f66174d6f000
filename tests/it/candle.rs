//! Our decoder equals candle's on the same weights, and `rft selftest --model` fails if it does not.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rft::config::LoraSection;
use rft::device::Device;
use rft::device::candle::{Comparison, compare};
use rft::model::embedded;
use rft::model::lora::Adapter;
use rft::model::peft::save_adapter;
use rft::model::source::ModelSource;
use rft::rng::{Purpose, Stream};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

use crate::cli::{folder, rft};

const PROMPT: [u32; 9] = [3, 11, 7, 30, 5, 2, 19, 23, 4];

fn errors(ours: &ModelSource, theirs: &ModelSource, adapter: Option<&Path>) -> [f32; 3] {
    let Comparison { prefill, decoded, rollout, f32 } = compare(Device::Cpu, ours, theirs, adapter, &PROMPT).unwrap();
    assert!(f32);
    [prefill, decoded, rollout]
}

/// The embedded model as a folder.
fn write_tiny(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    for (name, bytes) in embedded::FILES {
        fs::write(folder.join(name), bytes).unwrap();
    }
}

fn open(folder: &Path) -> ModelSource {
    ModelSource::open_folder(folder).unwrap()
}

#[test]
fn every_family_agrees() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/decoder");
    for name in ["qwen2", "qwen2-tied", "qwen3", "llama"] {
        let folder = folder();
        for file in ["config.json", "model.safetensors"] {
            fs::copy(fixtures.join(name).join(file), folder.path().join(file)).unwrap();
        }
        fs::write(folder.path().join("tokenizer.json"), "{}").unwrap(); // never read
        let source = open(folder.path());
        let errors = errors(&source, &source, None);
        assert!(errors.iter().all(|error| *error < 1e-4), "{name}: {errors:?}");
    }
}

#[test]
fn an_adapter_is_applied_on_both_sides() {
    let folder = folder();
    let tiny = ModelSource::open("tiny", "main").unwrap();
    for use_rslora in [false, true] {
        let section = LoraSection { use_rslora, ..LoraSection::all_linear(4) };
        let mut adapter = Adapter::new(&tiny.config, &section, 5).unwrap();
        let stream = Stream::new(6, Purpose::Test, &[]);
        adapter.params.iter_mut().enumerate().for_each(|(i, value)| *value += (0.05 * stream.normal(i as u64)) as f32);
        let path = folder.path().join(format!("adapter-{use_rslora}"));
        save_adapter(&adapter, &path, "tiny").unwrap();
        // On one side alone it would be a difference like the second.
        let both = errors(&tiny, &tiny, Some(&path));
        assert!(both.iter().all(|error| *error < 1e-3), "rsLoRA {use_rslora}: {both:?}");
        let merged = folder.path().join(format!("merged-{use_rslora}"));
        let command = rft(folder.path()).args(["merge", "--model=tiny", "--out"]).arg(&merged).arg(&path).output();
        assert!(command.unwrap().status.success());
        let one = errors(&tiny, &open(&merged), None);
        assert!(one.iter().all(|error| *error > 0.1), "the adapter changes little: {one:?}");
    }
}

/// Adds 1 to one value of a tensor of a model folder, whatever its type.
fn change_one_value(folder: &Path, tensor: &str, index: usize) {
    let path = folder.join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let (header, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let info = metadata.info(tensor).unwrap();
    assert_eq!(info.dtype, safetensors::Dtype::F16);
    let at = 8 + header + info.data_offsets.0 + 2 * index;
    let value = half::f16::from_le_bytes([bytes[at], bytes[at + 1]]);
    bytes[at..at + 2].copy_from_slice(&half::f16::from_f32(value.to_f32() + 1.0).to_le_bytes());
    fs::write(&path, bytes).unwrap();
}

#[test]
fn one_changed_weight_on_one_side_is_found() {
    let (original, changed) = (folder(), folder());
    write_tiny(original.path());
    let same = errors(&open(original.path()), &open(original.path()), None);
    assert!(same.iter().all(|error| *error < 1e-3), "{same:?}");
    for tensor in ["model.layers.2.mlp.down_proj.weight", "model.layers.0.self_attn.k_proj.bias", "model.norm.weight"] {
        write_tiny(changed.path());
        change_one_value(changed.path(), tensor, 5);
        let [ours, theirs] = [[&changed, &original], [&original, &changed]]
            .map(|[ours, theirs]| errors(&open(ours.path()), &open(theirs.path()), None));
        for found in [ours, theirs] {
            assert!(found.iter().all(|error| *error > 1e-3), "{tensor}: {found:?}");
        }
    }
}

#[test]
fn the_command_prints_three_errors_and_passes() {
    let folder = folder();
    write_tiny(&folder.path().join("model"));
    for model in ["tiny", "model"] {
        let output = rft(folder.path()).args(["selftest", "--model", model]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() == 3 && lines.iter().all(|line| line.starts_with("ok ") && line.contains(" <= 1.0e-3")));
    }
}

/// A folder whose configuration ties the head to the embedding, but which has its own head too: candle takes
/// that one, and we what the configuration says, as transformers does.
#[test]
fn a_model_on_which_candle_and_we_disagree_fails() {
    let folder = folder();
    write_tiny(folder.path());
    let path = folder.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let embedding = tensors.tensor("model.embed_tokens.weight").unwrap();
    let zeros = vec![0; embedding.data().len()];
    let head = TensorView::new(embedding.dtype(), embedding.shape().to_vec(), &zeros).unwrap();
    let all: BTreeMap<String, TensorView> =
        tensors.tensors().into_iter().chain([("lm_head.weight".to_owned(), head)]).collect();
    let whole = safetensors::serialize(all, None).unwrap();
    fs::write(&path, whole).unwrap();
    let output = rft(folder.path()).args(["selftest", "--output-format=json", "--model", "."]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().filter(|line| line.contains("\"ok\":false")).count(), 3, "{text}");
}

/// In bf16 on an emulated GPU: near, and without a verdict.
#[cfg(target_os = "linux")]
#[test]
fn the_gpu_is_near() {
    let folder = folder();
    let Some(mut command) = crate::device::on_device(folder.path(), &[]) else { return };
    let output = command.args(["selftest", "--output-format=json", "--model=tiny", "--device=cuda"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for line in text.lines() {
        let check: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(check["bar"].is_null());
        let error = check["error"].as_f64().unwrap();
        assert!(error > 1e-5 && error < 0.5, "{line}");
    }
}
