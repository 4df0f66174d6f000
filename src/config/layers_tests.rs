//! Layering, origins and the wording of errors.

use std::path::PathBuf;

use toml::Value;

use super::super::{PRESETS, RunConfig, to_json, to_toml};
use super::{Layers, Origin, Resolved, resolve};

/// Layers over a file with this content.
fn file(text: &str) -> (tempfile::TempDir, Layers) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lab.toml");
    std::fs::write(&path, text).unwrap();
    (folder, Layers { files: vec![path], ..Layers::default() })
}

fn sets(arguments: &[&str]) -> Layers {
    Layers { sets: arguments.iter().map(|it| it.to_string()).collect(), ..Layers::default() }
}

fn env(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// The error of these layers, without the folder of a temporary file.
fn error(layers: &Layers) -> String {
    let text = format!("{:#}", resolve(layers).expect_err("these layers are wrong"));
    let folder = layers.files.first().and_then(|it| it.parent()).map(|it| format!("{}/", it.display()));
    folder.map_or(text.clone(), |it| text.replace(&it, ""))
}

fn origin(resolved: &Resolved, key: &str) -> String {
    resolved.origins[key].to_string()
}

#[test]
fn every_preset_is_valid_and_names_every_key() {
    for preset in PRESETS {
        let resolved = resolve(&Layers { preset: Some(preset.name.into()), ..Layers::default() }).unwrap();
        let written: toml::Table = preset.text.parse().unwrap();
        let complete: toml::Table = to_toml(&resolved.config, None).parse().unwrap();
        assert_eq!(written, complete, "{}", preset.name);
        assert!(preset.command().starts_with("rft train"), "{}", preset.name);
        assert!(!preset.description().is_empty());
    }
}

#[test]
fn the_study_has_156_steps_of_8_updates_of_64_completions() {
    let config = resolve(&Layers { preset: Some("qwen2.5-7b".into()), ..Layers::default() }).unwrap().config;
    assert_eq!(config.total_steps(10_000), 156);
    assert_eq!(config.total_updates(10_000), 1248);
    assert_eq!(config.completions_per_update(), 64);
    assert_eq!(config.lora.scale(), 1.0);
    assert_eq!(config.lora.modules().len(), 7);
    assert_eq!(config.reward.weights(true), (0.5, 0.5));
    assert_eq!(config.reward.weights(false), (1.0, 0.0));
}

#[test]
fn a_higher_layer_wins_and_is_named_as_the_origin() {
    let key = "train.learning_rate";
    let (_folder, mut layers) = file("[train]\nseed = 7\nlearning_rate = 2e-4\n");
    let at = |layers: &Layers| {
        let resolved = resolve(layers).unwrap();
        (resolved.config.train.learning_rate, origin(&resolved, key))
    };
    assert_eq!(at(&Layers::default()), (1e-3, "preset tiny".into()));
    assert_eq!(at(&layers), (2e-4, format!("{}:3", layers.files[0].display())));
    layers.env = vec![env("RFT_TRAIN__LEARNING_RATE", "3e-4")];
    assert_eq!(at(&layers), (3e-4, "RFT_TRAIN__LEARNING_RATE".into()));
    layers.sets = vec!["train.learning_rate=4e-4".into()];
    assert_eq!(at(&layers), (4e-4, "--set".into()));
    layers.flags = vec![(key.into(), Value::Float(5e-4), "--learning-rate".into())];
    assert_eq!(at(&layers), (5e-4, "--learning-rate".into()));
    // What only a lower layer sets stands.
    assert_eq!(resolve(&layers).unwrap().config.train.seed, 7);
}

#[test]
fn a_later_file_wins_over_an_earlier_one() {
    let (folder, mut layers) = file("[train]\nsteps = 5\nseed = 1\n");
    let second = folder.path().join("second.toml");
    std::fs::write(&second, "train.steps = 6").unwrap();
    layers.files.push(second);
    let train = resolve(&layers).unwrap().config.train;
    assert_eq!((train.steps, train.seed), (Some(6), 1));
}

#[test]
fn a_file_may_start_from_a_preset_and_the_command_line_from_another() {
    let (_folder, mut layers) = file("preset = \"qwen2.5-7b\"\n[train]\nseed = 1\n");
    assert_eq!(resolve(&layers).unwrap().config.lora.r, 32);
    layers.preset = Some("tiny".into());
    let resolved = resolve(&layers).unwrap();
    assert_eq!((resolved.config.lora.r, resolved.config.train.seed), (16, 1));
}

#[test]
fn a_real_model_without_a_preset_starts_from_the_laptops() {
    let mut layers = Layers::default();
    assert_eq!(resolve(&layers).unwrap().config.model.path, "tiny");
    layers.flags = vec![("model.path".into(), "models/some.gguf".into(), "--model".into())];
    let resolved = resolve(&layers).unwrap();
    assert_eq!(resolved.config.train.learning_rate, 5e-5);
    assert_eq!(origin(&resolved, "train.learning_rate"), "preset qwen2.5-0.5b");
}

#[test]
fn only_variables_with_a_section_are_configuration() {
    let env =
        vec![env("RFT_DATA_DIR", "x"), env("RFT_LOG", "debug"), env("PATH", "x"), env("RFT_EVAL__QUESTIONS", "3")];
    let resolved = resolve(&Layers { env, ..Layers::default() }).unwrap();
    assert_eq!(resolved.config.eval.questions, 3);
    assert_eq!(resolved.origins.values().filter(|it| matches!(it, Origin::Environment(_))).count(), 1);
    let env = vec![env_of_nested()];
    assert_eq!(resolve(&Layers { env, ..Layers::default() }).unwrap().config.reward.accuracy.weight, Some(0.7));
}

fn env_of_nested() -> (String, String) {
    env("RFT_REWARD__ACCURACY__WEIGHT", "0.7")
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
    assert_eq!(config.prompt.ppe, "null-example");
    assert_eq!(to_json(&config)["grpo"]["loss_type"], "dapo");
    assert_eq!(config.rollout.stop, ["\n\n"]);
    assert_eq!(config.data.revision, "1234567");
    assert_eq!((config.train.seed, config.train.steps), (3, None));
    assert_eq!(config.rollout.temperature, 1.0);
}

#[test]
fn a_written_configuration_reads_back_the_same() {
    let layers = sets(&["train.steps=unset", "run.name=first", "grpo.epsilon_high=0.28", "train.learning_rate=3e-7"]);
    let config = resolve(&layers).unwrap().config;
    assert_eq!(toml::from_str::<RunConfig>(&to_toml(&config, None)).unwrap(), config);
    // Also as a layer over a preset that sets what it leaves unset.
    let (_folder, layers) = file(&to_toml(&config, None));
    assert_eq!(resolve(&layers).unwrap().config, config);
    assert_eq!(to_json(&config)["train"]["steps"], serde_json::Value::Null);
}

#[test]
fn unknown_keys_name_the_place_and_the_nearest_key() {
    let unknown = |text: &str| error(&file(text).1);
    assert_eq!(
        unknown("[train]\nsteps = 3\n  learning_rat = 1\n"),
        "lab.toml:3:3: unknown key `train.learning_rat`\nhint: did you mean `train.learning_rate`?"
    );
    assert_eq!(
        unknown("[trian]\nsteps = 3\n"),
        "lab.toml:1:2: unknown section `trian`\nhint: did you mean `train.steps`?"
    );
    assert_eq!(unknown("[roll]\n"), "lab.toml:1:2: unknown section `roll`\nhint: did you mean `rollout`?");
    assert_eq!(
        unknown("grpo.num_generations = 8"),
        "lab.toml:1:6: unknown key `grpo.num_generations`\nhint: did you mean `rollout.num_generations`?"
    );
    assert_eq!(
        unknown("learning_rate = 1"),
        "lab.toml:1:1: unknown key `learning_rate`\nhint: did you mean `train.learning_rate`?"
    );
    assert_eq!(
        error(&sets(&["lora.dropout=0.1"])),
        "--set lora.dropout=0.1: unknown key `lora.dropout`\nhint: [lora] has r, lora_alpha, target_modules, use_rslora"
    );
    let env = vec![env("RFT_LORA__ALPHA", "1")];
    assert_eq!(
        error(&Layers { env, ..Layers::default() }),
        "RFT_LORA__ALPHA: unknown key `lora.alpha`\nhint: did you mean `lora.lora_alpha`?"
    );
}

#[test]
fn wrong_types_name_both_types() {
    let wrong = |text: &str| error(&file(text).1);
    assert_eq!(
        wrong("[train]\nsteps = \"many\"\n"),
        "lab.toml:2:9: `train.steps`: expected integer, found string \"many\""
    );
    assert_eq!(wrong("train.steps = 4.5"), "lab.toml:1:15: `train.steps`: expected integer, found float 4.5");
    assert_eq!(
        wrong("train.seed = -1"),
        "lab.toml:1:14: `train.seed`: expected an integer of at least 0, found integer -1"
    );
    assert_eq!(wrong("eval.greedy = 1"), "lab.toml:1:15: `eval.greedy`: expected boolean, found integer 1");
    assert_eq!(
        error(&sets(&["lora.target_modules=q_proj"])),
        "--set lora.target_modules=q_proj: `lora.target_modules`: expected array, found string \"q_proj\"\n\
         hint: a list is written [\"one\", \"two\"]"
    );
    assert_eq!(
        error(&sets(&["grpo.loss_type=drgrpo"])),
        "--set grpo.loss_type=drgrpo: `grpo.loss_type`: unknown value `drgrpo`\n\
         hint: did you mean `dr_grpo`? one of grpo, dapo, dr_grpo, bnpo, gspo, cispo"
    );
    assert_eq!(
        error(&sets(&["train=3"])),
        "--set train=3: `train` is a section, not a value\nhint: write it as [train] and set its keys"
    );
    assert_eq!(
        wrong("[train.steps]\nx = 1"),
        "lab.toml:1:8: `train.steps` is a value, not a section\nhint: write it as train.steps = ..."
    );
}

#[test]
fn what_is_no_toml_names_the_place() {
    assert_eq!(
        error(&file("[train]\nsteps = \n").1),
        "lab.toml:2:9: not TOML: string values must be quoted, expected literal string"
    );
    assert!(error(&sets(&["train.steps"])).contains("no `=` in it\nhint: "));
    let missing = Layers { files: vec![PathBuf::from("no-such.toml")], ..Layers::default() };
    assert!(error(&missing).starts_with("read `no-such.toml`: "));
    assert_eq!(
        error(&file("preset = \"qwen2.5-7\"").1),
        "lab.toml:1:10: unknown preset `qwen2.5-7`\n\
         hint: did you mean `qwen2.5-7b`? there are tiny, qwen2.5-0.5b, qwen2.5-7b"
    );
}

#[test]
fn values_that_cannot_be_run_name_their_origin_and_the_remedy() {
    let (_folder, layers) = file("[rollout]\nnum_generations = 1\n");
    assert_eq!(
        error(&layers),
        "lab.toml:2:19: `rollout.num_generations`: 1 completions of a question leave nothing to compare\n\
         hint: 2 or more; the study takes 8"
    );
    assert_eq!(
        error(&sets(&["grpo.steps_per_generation=6"])),
        "--set grpo.steps_per_generation=6: `grpo.steps_per_generation`: 16 prompts x 8 completions = 128 cannot be cut \
         into 6 equal mini-batches\nhint: it must divide 128: 2, 4, 8, 16"
    );
    // A flaw that only shows in two values together.
    let both = error(&sets(&["reward.accuracy.weight=0", "prompt.ppe=none"]));
    assert!(both.contains("all weights are 0"), "{both}");
}

#[test]
fn each_check_fails_on_its_own_key() {
    for (argument, key) in [
        ("rollout.temperature=0", "rollout.temperature"),
        ("rollout.top_p=0", "rollout.top_p"),
        ("rollout.top_p=1.5", "rollout.top_p"),
        ("rollout.min_p=1", "rollout.min_p"),
        ("rollout.stop=[\"\"]", "rollout.stop"),
        ("lora.r=0", "lora.r"),
        ("lora.lora_alpha=nan", "lora.lora_alpha"),
        ("lora.target_modules=[]", "lora.target_modules"),
        ("lora.target_modules=[\"lm_head\"]", "lora.target_modules"),
        ("lora.target_modules=[\"q_proj\", \"q_proj\"]", "lora.target_modules"),
        ("reward.format.weight=-0.5", "reward.format.weight"),
        ("train.learning_rate=0", "train.learning_rate"),
        ("train.learning_rate=inf", "train.learning_rate"),
        ("train.adam_beta2=1", "train.adam_beta2"),
        ("train.warmup_ratio=2", "train.warmup_ratio"),
        ("train.steps=0", "train.steps"),
        ("train.threads=0", "train.threads"),
        ("train.max_tokens_per_micro_batch=100", "train.max_tokens_per_micro_batch"),
        ("grpo.epsilon=0", "grpo.epsilon"),
        ("grpo.delta=1.1", "grpo.delta"),
        ("grpo.beta=-1", "grpo.beta"),
        ("data.levels=[4]", "data.levels"),
        ("data.max_questions=0", "data.max_questions"),
        ("run.name=a/b", "run.name"),
        ("model.path=\"\"", "model.path"),
    ] {
        let text = error(&sets(&[argument]));
        assert!(text.starts_with(&format!("--set {argument}: `{key}`: ")), "{text}");
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("\nhint: "), "{text}");
    }
}
