//! Layers, origins and checks of values. tests/it/config.rs tests the wording of errors.

use toml::Value;

use super::super::{PRESETS, RunConfig, to_json, to_toml};
use super::{ConfigLayers, Resolved, ValueOrigin, resolve};

/// Layers with a file that has this content.
fn file(text: &str) -> (tempfile::TempDir, ConfigLayers) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lab.toml");
    std::fs::write(&path, text).unwrap();
    (folder, ConfigLayers { files: vec![path], ..ConfigLayers::default() })
}

fn sets(arguments: &[&str]) -> ConfigLayers {
    ConfigLayers { sets: arguments.iter().map(|it| it.to_string()).collect(), ..ConfigLayers::default() }
}

fn variable(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

fn error(layers: &ConfigLayers) -> String {
    format!("{:#}", resolve(layers).expect_err("these layers are wrong"))
}

fn origin(resolved: &Resolved, key: &str) -> String {
    resolved.origins[key].to_string()
}

#[test]
fn every_preset_is_valid_and_sets_every_key() {
    for preset in PRESETS {
        let resolved = resolve(&ConfigLayers { preset: Some(preset.name.into()), ..ConfigLayers::default() }).unwrap();
        let written: toml::Table = preset.text.parse().unwrap();
        let complete: toml::Table = to_toml(&resolved.config, None).parse().unwrap();
        assert_eq!(written, complete, "{}", preset.name);
        assert!(preset.command().starts_with("rft train"), "{}", preset.name);
        assert!(!preset.description().is_empty());
    }
}

#[test]
fn the_study_has_156_steps_of_8_updates_of_64_completions() {
    let config =
        resolve(&ConfigLayers { preset: Some("qwen2.5-7b".into()), ..ConfigLayers::default() }).unwrap().config;
    assert_eq!(config.total_steps(10_000), 156);
    assert_eq!(config.total_steps(10_000) * config.grpo.updates_per_step(), 1248);
    assert_eq!(config.rollout.completions_per_step() / config.grpo.steps_per_generation, 64);
    assert_eq!(config.lora.scale(), 1.0);
    assert_eq!(config.reward.weights(true), (0.5, 0.5));
    assert_eq!(config.reward.weights(false), (1.0, 0.0));
}

#[test]
fn a_higher_layer_overrides_and_is_the_origin() {
    let key = "train.learning_rate";
    let (_folder, mut layers) = file("[train]\nseed = 7\nlearning_rate = 2e-4\n");
    let at = |layers: &ConfigLayers| {
        let resolved = resolve(layers).unwrap();
        (resolved.config.train.learning_rate, origin(&resolved, key))
    };
    assert_eq!(at(&ConfigLayers::default()), (1e-3, "preset tiny".into()));
    assert_eq!(at(&layers), (2e-4, format!("{}:3", layers.files[0].display())));
    layers.env = vec![variable("RFT_TRAIN__LEARNING_RATE", "3e-4")];
    assert_eq!(at(&layers), (3e-4, "RFT_TRAIN__LEARNING_RATE".into()));
    layers.sets = vec!["train.learning_rate=4e-4".into()];
    assert_eq!(at(&layers), (4e-4, "--set".into()));
    layers.flags = vec![(key.into(), Value::Float(5e-4), "--learning-rate".into())];
    assert_eq!(at(&layers), (5e-4, "--learning-rate".into()));
    // A value that only a lower layer sets is kept.
    assert_eq!(resolve(&layers).unwrap().config.train.seed, 7);
}

#[test]
fn a_later_file_overrides_an_earlier_one() {
    let (folder, mut layers) = file("[train]\nsteps = 5\nseed = 1\n");
    let second = folder.path().join("second.toml");
    std::fs::write(&second, "train.steps = 6").unwrap();
    layers.files.push(second);
    let train = resolve(&layers).unwrap().config.train;
    assert_eq!((train.steps, train.seed), (Some(6), 1));
}

#[test]
fn a_file_selects_a_preset_and_the_command_line_overrides_it() {
    let (_folder, mut layers) = file("preset = \"qwen2.5-7b\"\n[train]\nseed = 1\n");
    assert_eq!(resolve(&layers).unwrap().config.lora.r, 32);
    layers.preset = Some("tiny".into());
    let resolved = resolve(&layers).unwrap();
    assert_eq!((resolved.config.lora.r, resolved.config.train.seed), (16, 1));
}

#[test]
fn a_real_model_without_a_preset_starts_from_the_laptop_preset() {
    let mut layers = ConfigLayers::default();
    assert_eq!(resolve(&layers).unwrap().config.model.path, "tiny");
    layers.flags = vec![("model.path".into(), "models/some.gguf".into(), "--model".into())];
    let resolved = resolve(&layers).unwrap();
    assert_eq!(resolved.config.train.learning_rate, 5e-5);
    assert_eq!(origin(&resolved, "train.learning_rate"), "preset qwen2.5-0.5b");
}

#[test]
fn only_variables_with_a_section_are_configuration() {
    let env = vec![
        variable("RFT_DATA_DIR", "x"),
        variable("RFT_LOG", "debug"),
        variable("PATH", "x"),
        variable("RFT_EVAL__QUESTIONS", "3"),
    ];
    let resolved = resolve(&ConfigLayers { env, ..ConfigLayers::default() }).unwrap();
    assert_eq!(resolved.config.eval.questions, 3);
    assert_eq!(resolved.origins.values().filter(|it| matches!(it, ValueOrigin::Environment(_))).count(), 1);
    let env = vec![variable("RFT_REWARD__ACCURACY__WEIGHT", "0.7")];
    assert_eq!(
        resolve(&ConfigLayers { env, ..ConfigLayers::default() }).unwrap().config.reward.accuracy.weight,
        Some(0.7)
    );
}

#[test]
fn values_of_set_are_toml_or_bare_words() {
    let config = resolve(&sets(&[
        "prompt.ppe=null-example",
        "grpo.loss_type = dapo",
        "rollout.stop=[\"\\n\\n\"]",
        "data.revision=1234567",
        "train={seed=3, steps=\"unset\"}",
        "rollout.temperature=1",
    ]))
    .unwrap()
    .config;
    assert_eq!(config.prompt.ppe.as_deref(), Some("null-example"));
    assert_eq!(to_json(&config)["grpo"]["loss_type"], "dapo");
    assert_eq!(config.rollout.stop, ["\n\n"]);
    assert_eq!(config.data.revision, "1234567");
    assert_eq!((config.train.seed, config.train.steps), (3, None));
    assert_eq!(config.rollout.temperature, 1.0);
}

#[test]
fn a_written_configuration_reads_back_unchanged() {
    let layers = sets(&["train.steps=unset", "run.name=first", "grpo.epsilon_high=0.28", "train.learning_rate=3e-7"]);
    let config = resolve(&layers).unwrap().config;
    assert_eq!(toml::from_str::<RunConfig>(&to_toml(&config, None)).unwrap(), config);
    // Also as a layer over a preset that sets a value which it leaves unset.
    let (_folder, layers) = file(&to_toml(&config, None));
    assert_eq!(resolve(&layers).unwrap().config, config);
    assert_eq!(to_json(&config)["train"]["steps"], serde_json::Value::Null);
}

#[test]
fn each_check_names_its_key() {
    for (argument, key) in [
        ("rollout.temperature=0", "rollout.temperature"),
        ("rollout.top_p=0", "rollout.top_p"),
        ("rollout.top_p=1.5", "rollout.top_p"),
        ("rollout.min_p=1", "rollout.min_p"),
        ("rollout.stop=[\"\"]", "rollout.stop"),
        ("data.pass_rate=[0.1, 0.9]", "data.difficulty"),
        ("data.difficulty=rates.jsonl", "data.pass_rate"),
        ("lora.r=0", "lora.r"),
        ("lora.init_adapter=\"\"", "lora.init_adapter"),
        ("lora.lora_alpha=nan", "lora.lora_alpha"),
        ("lora.target_modules=[]", "lora.target_modules"),
        ("lora.target_modules=[\"lm_head\"]", "lora.target_modules"),
        ("lora.target_modules=[\"q_proj\", \"q_proj\"]", "lora.target_modules"),
        ("reward.format.weight=-0.5", "reward.format.weight"),
        ("reward.tag_count.weight=inf", "reward.tag_count.weight"),
        ("reward.length.max_length=0", "reward.length.max_length"),
        ("reward.length.soft_punish_cache=0", "reward.length.soft_punish_cache"),
        ("reward.length.max_value_correct=nan", "reward.length.min_value_correct"),
        ("reward.repetition.ngram_size=0", "reward.repetition.ngram_size"),
        ("reward.repetition.max_penalty=0.5", "reward.repetition.max_penalty"),
        ("reward.code.timeout=0", "reward.code.timeout"),
        ("reward.code.column=\"\"", "reward.code.column"),
        ("reward.custom=[{name=\"length\", command=[\"x\"], weight=1}]", "reward.custom"),
        ("reward.custom=[{name=\"a/b\", command=[\"x\"], weight=1}]", "reward.custom"),
        ("reward.custom=[{name=\"x\", command=[\"x\"], weight=-1}]", "reward.custom"),
        ("train.learning_rate=0", "train.learning_rate"),
        ("train.learning_rate=inf", "train.learning_rate"),
        ("train.adam_beta2=1", "train.adam_beta2"),
        ("train.warmup_ratio=2", "train.warmup_ratio"),
        ("train.steps=0", "train.steps"),
        ("train.threads=0", "train.threads"),
        ("train.max_tokens_per_micro_batch=100", "train.max_tokens_per_micro_batch"),
        ("grpo.epsilon=0", "grpo.epsilon"),
        ("grpo.delta=1.1", "grpo.delta"),
        ("grpo.loss_type=cispo", "grpo.epsilon_high"),
        ("grpo.steps_per_generation=6", "grpo.steps_per_generation"),
        ("rollout.num_generations=1", "rollout.num_generations"),
        ("grpo.beta=-1", "grpo.beta"),
        ("data.levels=[15]", "data.levels"),
        ("data.max_questions=0", "data.max_questions"),
        ("run.name=a/b", "run.name"),
        ("model.path=\"\"", "model.path"),
    ] {
        let text = error(&sets(&[argument]));
        assert!(text.contains(&format!(": `{key}`: ")), "{text}");
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("\nhint: "), "{text}");
    }
}
