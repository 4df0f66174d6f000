//! Training that starts from an adapter: the model at the start is the adapted one, and everything is trained from there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rft::config::LoraSection;
use rft::model::config::ModelConfig;
use rft::model::lora::Adapter;
use rft::model::peft::{load_adapter, save_adapter, start_from};
use rft::model::source::ModelSource;
use rft::rng::{Purpose, Stream, name_hash};
use rft::run::metrics;
use serde_json::json;
use tempfile::TempDir;

use crate::cli::{error, folder, rft};
use crate::tiny_model::{edit_json, tiny_folder};
use crate::train::Trace;

fn section(r: usize, lora_alpha: f64, use_rslora: bool) -> LoraSection {
    LoraSection { lora_alpha, use_rslora, ..LoraSection::all_linear(r) }
}

/// An adapter in which no value is zero.
fn trained(model: &ModelConfig, section: &LoraSection) -> Adapter {
    let mut adapter = Adapter::new(model, section, 3).unwrap();
    for (name, slot) in adapter.slots.iter().filter(|(name, _)| name.contains(".lora_B.")) {
        let stream = Stream::new(3, Purpose::Test, &[name_hash(name)]);
        let values = adapter.params[slot.range.clone()].iter_mut().enumerate();
        values.for_each(|(i, value)| *value = (0.02 * stream.f64(i as u64) - 0.01) as f32);
    }
    adapter
}

/// scale · B · A of every layer, (out, in) row by row.
fn products(adapter: &Adapter) -> BTreeMap<String, Vec<f64>> {
    let read = |name: &str| adapter.slots[name].read(&adapter.params);
    let layers = adapter.slots.iter().filter(|(name, _)| name.contains(".lora_A."));
    let product = |(name, slot): (&String, &rft::model::lora::Slot)| {
        let ([rank, inputs], b) = (slot.shape, read(&name.replace("lora_A", "lora_B")));
        let a = read(name);
        let rows = b.chunks_exact(rank).flat_map(|row| {
            let entry = |i: usize| (0..rank).map(|k| f64::from(row[k]) * f64::from(a[k * inputs + i])).sum::<f64>();
            (0..inputs).map(entry).collect::<Vec<_>>()
        });
        (name.clone(), rows.map(|value| value * adapter.section.scale()).collect())
    };
    layers.map(product).collect()
}

fn greatest(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, |most: f64, value| if value.is_nan() { f64::INFINITY } else { most.max(value.abs()) })
}

fn small() -> ModelConfig {
    ModelConfig {
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 8,
        ..ModelSource::open("tiny", "main").unwrap().config
    }
}

#[test]
fn the_product_of_every_layer_is_that_of_the_given_adapter() {
    let model = small();
    for given in [section(4, 8.0, false), section(4, 8.0, true), section(3, 0.5, false), section(1, 64.0, true)] {
        let folder = folder();
        let old = trained(&model, &given);
        save_adapter(&old, folder.path(), "small").unwrap();
        for new in [section(4, 8.0, false), section(8, 8.0, false), section(4, 100.0, false), section(9, 3.0, true)] {
            let fresh = Adapter::new(&model, &new, 7).unwrap();
            let mut adapter = fresh.clone();
            assert_eq!(start_from(&mut adapter, folder.path(), &model).unwrap(), given.r);
            let (expected, got) = (products(&old), products(&adapter));
            assert_eq!(expected.len(), 14);
            for (name, expected) in &expected {
                let size = greatest(expected.iter().copied());
                let error = greatest(expected.iter().zip(&got[name]).map(|(a, b)| a - b)) / size;
                assert!(size > 1e-4 && error < 1e-6, "{name}, {given:?} to {new:?}: {error:e} of {size:e}");
            }
            check_padding(&adapter, &fresh, given.r);
        }
    }
}

/// The rows of A beyond `rank` are those of a new adapter, and the columns of B are zero.
#[track_caller]
fn check_padding(adapter: &Adapter, fresh: &Adapter, rank: usize) {
    for (name, slot) in &adapter.slots {
        let (values, [rows, columns]) = (slot.read(&adapter.params), slot.shape);
        if name.contains(".lora_A.") {
            let fresh = slot.read(&fresh.params);
            let padded = rank * columns..rows * columns;
            assert_eq!(values[padded.clone()], fresh[padded.clone()], "{name}");
            assert!(values[padded].iter().all(|value| *value != 0.0), "{name}");
        } else {
            let mut padding = values.chunks_exact(columns).flat_map(|row| &row[rank..]);
            assert!(padding.all(|value| *value == 0.0), "{name}");
        }
    }
}

/// The same adapter under the same configuration is the same to the bit.
#[test]
fn an_adapter_of_the_same_form_is_taken_as_it_is() {
    let (model, folder) = (small(), folder());
    let old = trained(&model, &section(4, 8.0, true));
    save_adapter(&old, folder.path(), "small").unwrap();
    let mut adapter = Adapter::new(&model, &section(4, 8.0, true), 7).unwrap();
    start_from(&mut adapter, folder.path(), &model).unwrap();
    assert_eq!(adapter.params, old.params);
}

/// A run of the embedded model that takes a second or two.
const RUN: [&str; 9] = [
    "train",
    "--ppe=null-example",
    "--model=tiny",
    "--threads=1",
    "--set=rollout.prompts_per_step=4",
    "--set=rollout.num_generations=4",
    "--set=eval.questions=8",
    "--set=grpo.beta=0.01",
    "--set=train.save_steps=1",
];

/// Trains and returns what the run wrote to stderr.
#[track_caller]
fn train(folder: &Path, args: &[&str]) -> String {
    let output = rft(folder).args(RUN).args(args).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    said
}

/// Two steps from a new adapter of rank 4, in `runs/first`.
fn first() -> TempDir {
    let folder = folder();
    train(folder.path(), &["--steps=2", "--name=first", "--set=lora.r=4", "--set=lora.lora_alpha=8"]);
    folder
}

fn metric(run: &Path, step: usize, name: &str) -> f64 {
    let lines = metrics::read(&run.join("metrics.jsonl")).unwrap();
    let found = lines.iter().filter(|line| line.step == step).find_map(|line| *line.values.get(name)?);
    found.unwrap_or_else(|| panic!("no {name} of step {step}"))
}

#[test]
fn training_continues_from_the_adapter_and_reaches_all_of_it() {
    let folder = first();
    let runs = folder.path().join("runs");
    let rank_8 = ["--init-adapter=runs/first", "--steps=2", "--set=lora.r=8", "--set=lora.lora_alpha=4"];
    let said = train(folder.path(), &[&rank_8[..], &["--name=second"]].concat());
    assert!(said.contains("note     the run starts from the adapter `runs/first` of rank 4\n"), "{said}");
    let (first, second) = (runs.join("first"), runs.join("second"));

    // The model before the first step is that of the first run after its last.
    let (before, after) = (metric(&second, 0, "eval/greedy/accuracy"), metric(&first, 2, "eval/greedy/accuracy"));
    assert_eq!(before, after);
    // The base model without any adapter is the reference: the divergence is zero only for a new adapter.
    assert_eq!(metric(&first, 1, "kl"), 0.0);
    assert!(metric(&second, 1, "kl") > 0.0, "{}", metric(&second, 1, "kl"));

    let model = ModelSource::open("tiny", "main").unwrap().config;
    let mut start = Adapter::new(&model, &section(8, 4.0, false), 42).unwrap();
    start_from(&mut start, &first.join("adapter"), &model).unwrap();
    let end = load_adapter(&second.join("adapter"), &model, None).unwrap();
    assert_eq!(end.section, start.section);
    for (name, slot) in &start.slots {
        let (from, to) = (slot.read(&start.params), slot.read(&end.params));
        assert!(from.iter().zip(&to).any(|(from, to)| from != to), "`{name}` was not trained");
        let columns = slot.shape[1];
        if name.contains(".lora_B.") {
            assert!(
                to.chunks_exact(columns).any(|row| row[4..].iter().any(|value| *value != 0.0)),
                "padding of `{name}`"
            );
        }
    }

    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(second.join("manifest.json")).unwrap()).unwrap();
    let record = &manifest["init_adapter"];
    assert_eq!(record["path"], "runs/first/adapter");
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        let hash = rft::disk::hash::sha256_file(&first.join("adapter").join(file)).unwrap();
        assert_eq!(record["files"][file].as_str(), Some(hash.as_str()));
    }
}

/// From the first checkpoint, and from none: then it starts from the adapter again.
#[test]
fn a_resumed_run_has_the_bytes_of_one_without_interruption() {
    let folder = first();
    let run = folder.path().join("runs/run");
    train(folder.path(), &["--init-adapter=runs/first/adapter", "--steps=3", "--name=run", "--set=lora.r=6"]);
    let whole = Trace::of(&run);
    let resume = ["train", "--resume=runs/run", "--threads=1"];
    for kept in [1, 0] {
        let lost = (kept + 1..=3).map(|step| format!("checkpoints/step-{step:06}"));
        let lost = lost.chain(["adapter".to_owned()]).filter(|it| run.join(it).exists());
        lost.for_each(|it| fs::remove_dir_all(run.join(it)).unwrap());
        rft(folder.path()).args(resume).assert().success();
        whole.assert_same(&Trace::of(&run));
    }

    // Another adapter is another input.
    fs::remove_dir_all(run.join("checkpoints/step-000003")).unwrap();
    let init = folder.path().join("runs/first/adapter");
    edit_json(&init.join("adapter_config.json"), |config| config["lora_alpha"] = json!(9));
    let said = error(&folder, &resume);
    assert!(
        said.contains("have changed since it was started: file of the initial adapter `adapter_config.json`"),
        "{said}"
    );
    fs::remove_file(init.join("adapter_model.safetensors")).unwrap();
    let said = error(&folder, &resume);
    assert!(said.contains("file of the initial adapter `adapter_model.safetensors` (SHA-256"), "{said}");
}

/// A folder with the adapter `a` of a model of the shape `model`, trained on `base` according to its configuration.
fn with_adapter(model: &ModelConfig, section: &LoraSection, base: &str) -> TempDir {
    let folder = tiny_folder();
    save_adapter(&trained(model, section), &folder.path().join("a"), base).unwrap();
    folder
}

#[test]
fn an_adapter_that_does_not_fit_is_an_error_with_the_reason() {
    let tiny = ModelSource::open("tiny", "main").unwrap().config;
    let queries = LoraSection { target_modules: vec!["q_proj".into(), "v_proj".into()], ..LoraSection::all_linear(4) };
    let deeper = ModelConfig { num_hidden_layers: tiny.num_hidden_layers + 1, ..tiny.clone() };
    let fits = LoraSection::all_linear(4);
    for (folder, set, expected) in [
        (
            with_adapter(&tiny, &LoraSection::all_linear(6), "tiny"),
            "lora.r=5",
            "error: start from the adapter `a`: its rank is 6, and `lora.r` is 5\nhint: set `lora.r` to 6 or more\n",
        ),
        (
            with_adapter(&tiny, &queries, "tiny"),
            "lora.r=4",
            "error: start from the adapter `a`: it adapts q_proj, v_proj, and `lora.target_modules` is all-linear\n\
             hint: set `lora.target_modules` to [\"q_proj\", \"v_proj\"]\n",
        ),
        (
            with_adapter(&tiny, &fits, "tiny"),
            "lora.target_modules=[\"q_proj\"]",
            "it adapts down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj, and `lora.target_modules` is q_proj\nhint: ",
        ),
        (
            with_adapter(&tiny, &fits, "org/another"),
            "lora.r=4",
            "error: the adapter `a` was trained on `org/another` according to its configuration, not on `tiny`\n\
             hint: use `org/another` as the model; if both are the same, write `tiny` as `base_model_name_or_path` in \
             `adapter_config.json`\n",
        ),
        (
            with_adapter(&deeper, &fits, "tiny"),
            "lora.r=4",
            "start from the adapter `a`: the adapter has a tensor that does not belong",
        ),
        (with_adapter(&small(), &fits, "tiny"), "lora.r=4", "expected shape ["),
        (
            tiny_folder(),
            "lora.r=4",
            "error: read `lora.init_adapter`: `a` is neither a run with an adapter nor an adapter folder\n",
        ),
    ] {
        let said = error(&folder, &["train", "--model=tiny", "--ppe=none", "--init-adapter=a", "--set", set]);
        assert!(said.contains(expected), "{said}");
        assert!(!folder.path().join("runs").exists(), "a run was started: {said}");
    }
}

/// The manifest of the run knows the weights, whatever the model's name is.
#[test]
fn an_adapter_of_a_run_on_other_weights_is_an_error() {
    let folder = first();
    let other = crate::tiny_model::with_weights(|tensors| {
        tensors.values_mut().next().unwrap().1[0] += 0.5;
    });
    let model = PathBuf::from(other.path()).join("m").display().to_string();
    let said =
        error(&folder, &["train", "--model", &model, "--preset=tiny", "--ppe=none", "--init-adapter=runs/first"]);
    assert!(
        said.contains("the adapter `runs/first/adapter` was trained on `tiny`, but the weights of `m` are different"),
        "{said}"
    );
    assert!(said.ends_with("hint: use `tiny` as the model\n"), "{said}");
}
