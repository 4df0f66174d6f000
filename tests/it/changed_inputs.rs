//! A run is resumed only with the inputs that it was started with, or with the user's consent.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::cli::{error, folder, rft};

/// A run of three steps with its own model, template, prompt, data and held-out questions, of which the checkpoint of step 1 is
/// left.
fn stopped() -> &'static Path {
    static STOPPED: OnceLock<TempDir> = OnceLock::new();
    STOPPED
        .get_or_init(|| {
            let folder = folder();
            let write = |name: &str, content: &[u8]| fs::write(folder.path().join(name), content).unwrap();
            fs::create_dir(folder.path().join("model")).unwrap();
            for (name, content) in rft::model::embedded::FILES {
                write(&format!("model/{name}"), content);
            }
            let config = fs::read_to_string(folder.path().join("model/tokenizer_config.json")).unwrap();
            let config: serde_json::Value = serde_json::from_str(&config).unwrap();
            let template = config["chat_template"].as_str().unwrap();
            write("model/chat_template.jinja", template.as_bytes());
            let dated = "{% if strftime_now('%Y') == '2001' %}{{ raise_exception('it is 2001') }}{% endif %}";
            write("own.jinja", format!("{dated}{template}").as_bytes());
            write("own.toml", b"name = \"own\"\ntext = \"Put the answer in a box.\"\n");
            for (name, first) in [("train.jsonl", 0), ("held.jsonl", 100)] {
                let row = |i: i32| format!("{{\"question\": \"What is {i} + 3?\", \"answer\": \"{}\"}}\n", i + 3);
                write(name, (first..first + 8).map(row).collect::<String>().as_bytes());
            }
            let args = [
                "--ppe=own.toml",
                "--model=model",
                "--preset=tiny",
                "--data=train.jsonl",
                "--steps=3",
                "--name=run",
                "--threads=1",
                "--set=prompt.template=own.jinja",
                "--set=eval.path=held.jsonl",
                "--set=eval.questions=2",
                "--set=rollout.prompts_per_step=2",
                "--set=rollout.num_generations=2",
                "--set=rollout.max_completion_length=8",
                "--set=train.save_steps=1",
            ];
            rft(folder.path()).arg("train").args(args).assert().success();
            let run = folder.path().join("runs/run");
            for later in ["adapter", "checkpoints/step-000002", "checkpoints/step-000003"] {
                fs::remove_dir_all(run.join(later)).unwrap();
            }
            folder
        })
        .path()
}

/// A copy of the stopped run and its inputs.
fn copy() -> TempDir {
    fn copy_tree(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
            if from.is_dir() { copy_tree(&from, &to) } else { fs::copy(&from, &to).map(drop).unwrap() }
        }
    }
    let folder = folder();
    copy_tree(stopped(), folder.path());
    folder
}

const RESUME: [&str; 3] = ["train", "--resume", "runs/run"];

/// Resumes with consent, and returns what the run wrote to stderr.
fn accept(folder: &Path) -> String {
    let output = rft(folder).args(RESUME).arg("--accept-changes").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    said
}

fn manifest(folder: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(folder.join("runs/run/manifest.json")).unwrap()).unwrap()
}

#[test]
fn unchanged_inputs_are_resumed_without_a_word() {
    let folder = copy();
    let output = rft(folder.path()).args(RESUME).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("step 3/3"), "{said}");
    assert!(!said.contains("note") && !said.contains("changed"), "{said}");
    let manifest = manifest(folder.path());
    assert_eq!(manifest["sessions"].as_array().unwrap().len(), 2);
    assert!(manifest["sessions"][1].get("changes").is_none());
    for file in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
        assert_eq!(manifest["model"]["files"][file].as_str().map(str::len), Some(64), "{file}: {manifest}");
    }
    for (source, file) in [("data", "train.jsonl"), ("held_out", "held.jsonl"), ("template", "own.jinja")] {
        assert_eq!(manifest[source]["files"][file].as_str().map(str::len), Some(64), "{file}: {manifest}");
    }
}

/// Some chat templates write the date. All prompts of a run have the date of its start.
#[test]
fn a_template_that_writes_the_date_writes_that_of_the_start() {
    let folder = copy();
    let mut manifest = manifest(folder.path());
    manifest["sessions"][0]["started"] = "2001-02-03T04:05:06Z".into();
    fs::write(folder.path().join("runs/run/manifest.json"), manifest.to_string()).unwrap();
    assert!(error(&folder, &RESUME).contains("it is 2001"));
}

/// Each kind of input is changed in two ways.
#[test]
fn a_changed_input_is_refused_by_name_unless_it_is_accepted() {
    let append = |text: &'static str| move |bytes: &mut Vec<u8>| bytes.extend(text.as_bytes());
    let replace = |from: &'static str, to: &'static str| {
        move |bytes: &mut Vec<u8>| {
            let text = String::from_utf8(bytes.clone()).unwrap();
            assert!(text.contains(from), "{from}");
            *bytes = text.replace(from, to).into_bytes();
        }
    };
    let flip = |from_end: usize| {
        move |bytes: &mut Vec<u8>| {
            let at = bytes.len() - from_end;
            bytes[at] ^= 1;
        }
    };
    type Change = Box<dyn Fn(&mut Vec<u8>)>;
    let changes: Vec<(&str, Change)> = vec![
        ("train.jsonl", Box::new(replace("\"answer\": \"5\"", "\"answer\": \"6\""))),
        ("train.jsonl", Box::new(append("{\"question\": \"What is 9 + 9?\", \"answer\": \"18\"}\n"))),
        ("held.jsonl", Box::new(replace("\"answer\": \"103\"", "\"answer\": \"104\""))),
        ("held.jsonl", Box::new(append("\n"))),
        ("model/model.safetensors", Box::new(flip(1000))),
        ("model/model.safetensors", Box::new(flip(100_000))),
        ("model/tokenizer.json", Box::new(append("\n"))),
        ("model/tokenizer.json", Box::new(append(" "))),
        ("model/tokenizer_config.json", Box::new(append("\n"))),
        ("model/tokenizer_config.json", Box::new(append(" "))),
        ("model/chat_template.jinja", Box::new(append("\n"))),
        ("model/chat_template.jinja", Box::new(append("!"))),
        ("own.jinja", Box::new(append("!"))),
        ("own.jinja", Box::new(append("{# changed #}"))),
        ("model/config.json", Box::new(append("\n"))),
        ("model/generation_config.json", Box::new(append("\n"))),
        ("runs/run/prompt.toml", Box::new(replace("in a box", "in a BOX"))),
        ("runs/run/prompt.toml", Box::new(append("# changed\n"))),
        ("runs/run/config.toml", Box::new(replace("steps = 3", "steps = 4"))),
        ("runs/run/config.toml", Box::new(replace("learning_rate = 0.001", "learning_rate = 0.002"))),
    ];
    for (file, change) in changes {
        let folder = copy();
        let path = folder.path().join(file);
        let before = fs::read(&path).unwrap();
        let mut bytes = before.clone();
        change(&mut bytes);
        fs::write(&path, &bytes).unwrap();

        let refused = error(&folder, &RESUME);
        let name = PathBuf::from(file).file_name().unwrap().to_str().unwrap().to_owned();
        assert!(refused.contains("the inputs of `runs/run` have changed") && refused.contains(&name), "{refused}");
        assert_eq!(refused.matches("SHA-256").count(), 1, "one input differs: {refused}");
        assert!(refused.contains("--accept-changes"), "{refused}");
        assert_eq!(manifest(folder.path())["sessions"].as_array().unwrap().len(), 1, "nothing was started");

        assert!(accept(folder.path()).contains(&name));
        let manifest = manifest(folder.path());
        let changes = manifest["sessions"][1]["changes"].as_array().unwrap();
        assert_eq!(changes.len(), 1, "{changes:?}");
        let hash = |bytes: &[u8]| rft::disk::hash::sha256(bytes);
        assert_eq!(changes[0]["before"].as_str(), Some(hash(&before).as_str()));
        assert_eq!(changes[0]["after"].as_str(), Some(hash(&bytes).as_str()));
    }
}

/// A change that is noticed before the hashes are compared, because the run can no longer be loaded.
#[test]
fn a_change_that_prevents_loading_is_named_too() {
    type Change = fn(&str) -> String;
    let changes: [(&str, Change); 5] = [
        ("train.jsonl", |_| "{".to_owned()),
        ("model/config.json", |text| text.replace("\"num_hidden_layers\": ", "\"num_hidden_layers\": 1")),
        ("model/tokenizer.json", |_| "{}".to_owned()),
        ("own.jinja", |_| "{% if %}".to_owned()),
        ("runs/run/config.toml", |text| text.replace("r = 16", "r = 8")),
    ];
    for (file, change) in changes {
        let folder = copy();
        let path = folder.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert_ne!(change(&text), text, "{file}");
        fs::write(&path, change(&text)).unwrap();
        let refused = error(&folder, &RESUME);
        let name = PathBuf::from(file).file_name().unwrap().to_str().unwrap().to_owned();
        assert!(refused.contains("the inputs of `runs/run` have changed") && refused.contains(&name), "{refused}");
    }
}

#[test]
fn accepted_changes_are_the_inputs_of_the_next_resume() {
    let folder = copy();
    let data = folder.path().join("train.jsonl");
    let text = fs::read_to_string(&data).unwrap();
    fs::write(&data, text.replace("\"5\"", "\"6\"")).unwrap();
    accept(folder.path());
    let run = folder.path().join("runs/run");
    for later in ["adapter", "checkpoints/step-000002", "checkpoints/step-000003"] {
        fs::remove_dir_all(run.join(later)).unwrap();
    }
    rft(folder.path()).args(RESUME).assert().success();
    fs::remove_dir_all(run.join("adapter")).unwrap();
    fs::remove_dir_all(run.join("checkpoints/step-000003")).unwrap();
    fs::write(&data, text).unwrap();
    assert!(error(&folder, &RESUME).contains("train.jsonl"), "the first data is a change now");
}

#[test]
fn a_missing_and_a_new_file_are_changes() {
    let folder = copy();
    fs::remove_file(folder.path().join("model/generation_config.json")).unwrap();
    let refused = error(&folder, &RESUME);
    assert!(refused.contains("`generation_config.json` of the model") && refused.contains("now missing"), "{refused}");
    let folder = copy();
    fs::remove_file(folder.path().join("runs/run/prompt.toml")).unwrap();
    assert!(error(&folder, &RESUME).contains("prompt.toml"));
}

/// A manifest as older versions wrote it, with one hash of all weights and one of the data.
#[test]
fn a_run_of_an_older_version_is_resumed_with_a_note() {
    let old = |folder: &Path| {
        let mut manifest = manifest(folder);
        for source in ["model", "data"] {
            let all = manifest[source]["files"]["all"].clone();
            manifest[source]["files"] = serde_json::json!({ "all": all });
        }
        for key in ["files", "template", "held_out"] {
            manifest.as_object_mut().unwrap().remove(key);
        }
        fs::write(folder.join("runs/run/manifest.json"), manifest.to_string()).unwrap();
    };
    let folder = copy();
    old(folder.path());
    let output = rft(folder.path()).args(RESUME).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("from an older version of rft"), "{said}");
    assert!(manifest(folder.path())["files"]["config.toml"].is_string(), "the next resume compares every file");

    for (file, name) in
        [("train.jsonl", "questions of `train.jsonl`"), ("model/model.safetensors", "weights of `model`")]
    {
        let folder = copy();
        old(folder.path());
        let mut bytes = fs::read(folder.path().join(file)).unwrap();
        let at = bytes.len() - 5;
        bytes[at] = if bytes[at] == b'1' { b'2' } else { b'1' };
        fs::write(folder.path().join(file), bytes).unwrap();
        let refused = error(&folder, &RESUME);
        assert!(refused.contains(name), "{refused}");
    }
}

#[test]
fn a_run_killed_before_its_manifest_was_written_starts_again() {
    let folder = copy();
    let run = folder.path().join("runs/run");
    fs::remove_file(run.join("manifest.json")).unwrap();
    assert!(error(&folder, &RESUME).contains("has checkpoints but no manifest.json"));
    for file in ["metrics.jsonl", "completions.jsonl"] {
        fs::remove_file(run.join(file)).unwrap();
    }
    fs::remove_dir_all(run.join("checkpoints")).unwrap();
    fs::remove_dir_all(run.join("eval")).unwrap();
    let output = rft(folder.path()).args(RESUME).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("step 1/3"), "{said}");
    assert_eq!(manifest(folder.path())["sessions"].as_array().unwrap().len(), 1);

    // Before its configuration was written, it can only be started again, under the same name.
    fs::remove_dir_all(&run).unwrap();
    fs::create_dir_all(&run).unwrap();
    fs::write(run.join(".lock"), "").unwrap();
    fs::write(run.join("contamination.json"), "{").unwrap();
    let small = ["--steps=1", "--set=rollout.prompts_per_step=1", "--set=eval.questions=0", "--name=run"];
    rft(folder.path()).args(["train", "--ppe=none"]).args(small).assert().success();
    assert!(error(&folder, &["train", "--ppe=none", "--name=run"]).contains("already exists"));
}

#[test]
fn an_adapter_on_another_base_model_is_warned_about() {
    let folder = copy();
    accept(folder.path());
    let generate = |adapter: &str, model: &str| {
        let args =
            ["generate", "--preset=tiny", "--ppe=none", "--max-tokens=2", "--adapter", adapter, "--model", model];
        let output = rft(folder.path()).args(args).arg("What is 2 + 2?").output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        said
    };
    assert!(!generate("runs/run", "model").contains("warning"));
    let weights = folder.path().join("model/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let at = bytes.len() - 1000;
    bytes[at] ^= 1;
    fs::write(&weights, bytes).unwrap();
    let warning =
        "warning: the adapter `runs/run/adapter` was trained on `model`, but the weights of `model` are different";
    assert!(generate("runs/run", "model").contains(warning));
    let checkpoint = "runs/run/checkpoints/step-000002/adapter";
    assert!(generate(checkpoint, "model").contains("was trained on `model`"));
    fs::rename(folder.path().join("runs/run/adapter"), folder.path().join("alone")).unwrap();
    assert!(!generate("alone", "model").contains("warning"), "without a manifest, the name is all there is");
    assert!(generate("alone", "tiny").contains("was trained on `model`"));

    let data = folder.path().join("train.jsonl");
    let bench = format!("--bench={}", data.display());
    let args = ["eval", &bench, "--preset=tiny", "--ppe=none", "--max-tokens=2", "--adapter=alone", "--model=tiny"];
    let output = rft(folder.path()).args(args).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("warning: the adapter `alone` was trained on `model`"), "{said}");
}
