//! Faults in the files of an adapter: each is one error that names it.

use std::fs;
use std::path::Path;

use rft::config::LoraSection;
use rft::model::lora::Adapter;
use rft::model::peft::save_adapter;
use rft::model::source::ModelSource;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cli::{error, rft};
use crate::tiny_model::{Tensors, edit_json, read, write};

const QUESTION: &str = "What is 2 + 3?";

const COMMANDS: [&[&str]; 2] = [
    &["generate", "--preset=tiny", "--adapter=a", "--ppe=none", "--max-tokens=4", QUESTION],
    &[
        "eval",
        "--bench=arithmetic",
        "--model=tiny",
        "--adapter=a",
        "--ppe=none",
        "--max-tokens=4",
        "--limit=2",
        "--out=o",
    ],
];

/// A folder with a new adapter of the embedded model in `a`.
fn with_adapter() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let model = ModelSource::open("tiny", "main").unwrap().config;
    save_adapter(&Adapter::new(&model, &LoraSection::all_linear(4), 1).unwrap(), &folder.path().join("a"), "tiny")
        .unwrap();
    folder
}

fn with_values(change: impl FnOnce(&mut Tensors)) -> TempDir {
    let folder = with_adapter();
    let path = folder.path().join("a/adapter_model.safetensors");
    let mut tensors = read(&path);
    change(&mut tensors);
    write(&path, &tensors);
    folder
}

fn configuration(folder: &Path, key: &str, value: Value) {
    edit_json(&folder.join("a/adapter_config.json"), |config| config[key] = value);
}

#[track_caller]
fn contains(error: &str, words: &[&str]) {
    for word in words {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
}

#[test]
fn values_that_are_not_finite_are_an_error_with_the_tensor() {
    let tensor = "base_model.model.model.layers.1.mlp.up_proj.lora_B.weight";
    for odd in [f32::NAN, f32::INFINITY] {
        let folder = with_values(|tensors| tensors.get_mut(tensor).unwrap().1[3] = odd);
        for command in COMMANDS {
            contains(&error(&folder, command), &[&format!("tensor `{tensor}` contains NaN or infinity\nhint: ")]);
        }
        contains(&error(&folder, &["merge", "a", "--model=tiny", "--out=merged"]), &[tensor]);
    }
}

/// Finite values whose products are not: the model alone is fine, so the adapter is named.
#[test]
fn an_adapter_that_makes_the_logits_infinite_is_named() {
    for size in [1e25f32, 3e38] {
        let folder = with_values(|tensors| tensors.values_mut().for_each(|(_, values)| values.fill(size)));
        for command in COMMANDS {
            let want = "with the adapter, the model's logits are NaN or infinite, and without it they are finite";
            contains(&error(&folder, command), &[want, "\nhint: use an earlier checkpoint of the adapter"]);
        }
        let error = error(&folder, &["merge", "a", "--model=tiny", "--dtype=f32", "--out=merged"]);
        contains(&error, &["with the adapter, tensor `model.layers.0.", "has values that are infinite in F32"]);
        assert!(!folder.path().join("merged").exists());
    }
}

#[cfg(target_os = "linux")]
#[test]
fn an_adapter_that_makes_the_logits_infinite_is_named_on_a_gpu() {
    let folder = with_values(|tensors| tensors.values_mut().for_each(|(_, values)| values.fill(1e25)));
    let Some(mut command) = crate::device::on_device(folder.path(), &[]) else { return };
    let said = crate::device::failed(command.args(COMMANDS[0]).arg("--device=cuda").output().unwrap());
    contains(
        &said,
        &["error: with the adapter, the model's logits are NaN or infinite, and without it they are finite"],
    );
}

#[test]
fn options_that_change_what_an_adapter_computes_are_an_error() {
    let convert = "path_initial_model_for_weight_conversion";
    for (key, value, hint) in [
        ("init_lora_weights", json!("pissa"), convert),
        ("init_lora_weights", json!("pissa_niter_4"), convert),
        ("init_lora_weights", json!("olora"), convert),
        ("init_lora_weights", json!("corda"), convert),
        ("init_lora_weights", json!("lora_ga"), convert),
        ("init_lora_weights", json!("loftq"), "merge_and_unload"),
        ("init_lora_weights", json!("eva"), "EVA keeps the base weights"),
        ("alora_invocation_tokens", json!([1, 2]), "aLoRA"),
        ("exclude_modules", json!(["q_proj"]), "`target_modules`"),
        ("layers_pattern", json!("x"), "selected layers"),
        ("layer_replication", json!([[0, 2], [1, 3]]), "repeated layers"),
        ("rank_pattern", json!({"q_proj": 8}), "different ranks"),
        ("loftq_config", json!({"a": 1}), "LoftQ"),
        ("megatron_config", json!({"a": 1}), "Megatron"),
        ("trainable_token_indices", json!([1, 2]), "token embeddings"),
        ("use_qalora", json!(true), "QALoRA"),
        ("an_option_of_tomorrow", json!("on"), "not known"),
        ("\u{1b}[31m", json!("\u{1b}[32m"), "`\\u{1b}[31m` is \"\\u001b[32m\""),
    ] {
        let folder = with_adapter();
        configuration(folder.path(), key, value);
        for args in [COMMANDS[0], &["merge", "a", "--model=tiny", "--out=merged"]] {
            let error = error(&folder, args);
            contains(&error, &["read `a/adapter_config.json`", hint]);
            assert!(!error.contains('\u{1b}'), "{error:?}");
        }
    }
    let folder = with_adapter();
    for (key, value) in [
        ("peft_version", json!("0.18.0")),
        ("init_lora_weights", json!("gaussian")),
        ("qalora_group_size", json!(16)),
        ("layer_replication", json!(null)),
        ("an_option_of_tomorrow", json!(false)),
    ] {
        configuration(folder.path(), key, value);
    }
    assert!(rft(folder.path()).args(COMMANDS[0]).output().unwrap().status.success());
}

#[cfg(unix)]
#[test]
fn pipes_in_place_of_an_adapters_files_are_refused_without_waiting() {
    for (name, reason) in [
        ("adapter_config.json", "is neither a run with an adapter nor an adapter folder"),
        ("adapter_model.safetensors", "not a regular file"),
    ] {
        let folder = with_adapter();
        let path = folder.path().join("a").join(name);
        fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        contains(&error(&folder, COMMANDS[0]), &[reason, "\nhint: "]);
    }
}
