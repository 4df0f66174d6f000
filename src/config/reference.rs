//! The reference of all keys: type, default, meaning, allowed values, and TRL's name. Meanings are the comments of the schema.

use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde_json::Value;

use super::known::nearest_name;
use super::layers::{ConfigLayers, resolve};
use super::optional::UNSET;
use super::place::ValueOrigin;
use super::render::{Remarks, to_json, to_toml_with};
use super::schema::RunConfig;

/// One key of a configuration.
#[derive(Serialize)]
pub struct KeyReference {
    /// `section.key`.
    pub key: String,
    /// In one word: `integer`, `number`, `text`, `true or false`, `list`, `one of` the allowed values, or `tables`.
    pub kind: &'static str,
    /// In the preset `tiny`, as TOML.
    pub default: String,
    pub meaning: String,
    /// The allowed values, or the range of a number.
    pub allowed: Option<String>,
    /// The option of TRL or PEFT with this meaning.
    pub trl: Option<&'static str>,
}

/// Options of TRL's `GRPOConfig` and `ScriptArguments` and of PEFT's `LoraConfig` whose names differ from ours.
const RENAMED: [(&str, &str); 14] = [
    ("model.path", "model_name_or_path"),
    ("model.revision", "model_revision"),
    ("data.path", "dataset_name"),
    ("data.split", "dataset_train_split"),
    ("data.shuffle", "shuffle_dataset"),
    ("rollout.prompts_per_step", "generation_batch_size / num_generations"),
    ("rollout.endpoints", "vllm_server_base_url"),
    ("rollout.importance_sampling_mode", "vllm_importance_sampling_mode"),
    ("rollout.importance_sampling_cap", "vllm_importance_sampling_cap"),
    ("reward.custom", "reward_funcs"),
    ("train.steps", "max_steps"),
    ("train.epochs", "num_train_epochs"),
    ("eval.every", "eval_steps"),
    ("run.dir", "output_dir"),
];

/// Keys whose last part is the name of the option of TRL or PEFT.
const SAME: [&str; 36] = [
    "r",
    "lora_alpha",
    "target_modules",
    "use_rslora",
    "num_generations",
    "max_prompt_length",
    "max_completion_length",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "loss_type",
    "scale_rewards",
    "epsilon",
    "epsilon_high",
    "delta",
    "beta",
    "mask_truncated_completions",
    "num_iterations",
    "steps_per_generation",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_ratio",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "weight_decay",
    "max_grad_norm",
    "gradient_checkpointing",
    "seed",
    "save_steps",
    "save_total_limit",
    "soft_punish_cache",
    "ngram_size",
    "max_penalty",
    "min_lr_rate",
];

/// The JSON schema of a configuration. Files need only some of the keys.
pub fn schema() -> Value {
    let generator = SchemaSettings::draft2020_12().with(|it| it.inline_subschemas = true).into_generator();
    generator.into_root_schema_for::<RunConfig>().to_value()
}

/// All keys, in the order of the schema.
pub fn reference() -> Vec<KeyReference> {
    let tiny = resolve(&ConfigLayers { preset: Some("tiny".into()), ..ConfigLayers::default() });
    let tiny = tiny.expect("the preset is valid").config;
    let mut keys = Vec::new();
    collect(&schema(), &to_json(&tiny), "", &tiny, &mut keys);
    keys
}

/// The configuration as [`super::to_toml`] writes it, with the meaning of each key in a comment above it.
pub fn to_explained_toml(config: &RunConfig, origins: Option<&BTreeMap<String, ValueOrigin>>) -> String {
    let meanings: BTreeMap<String, String> = reference().into_iter().map(|it| (it.key, it.meaning)).collect();
    to_toml_with(config, &Remarks { origins, meanings: Some(&meanings) })
}

/// The key, or the most similar one as an error.
pub fn find(key: &str) -> Result<KeyReference, Option<String>> {
    let mut keys = reference();
    // The last part is enough if it is unique.
    let last = |it: &KeyReference| it.key.rsplit('.').next() == Some(key);
    let exact = keys.iter().position(|it| it.key == key);
    let alone = (keys.iter().filter(|it| last(it)).count() == 1).then(|| keys.iter().position(last)).flatten();
    match exact.or(alone) {
        Some(at) => Ok(keys.swap_remove(at)),
        None => {
            let names: Vec<&str> = keys.iter().map(|it| it.key.as_str()).collect();
            let parts = names.iter().map(|it| it.rsplit('.').next().unwrap_or(it));
            let by_part = nearest_name(key.rsplit('.').next().unwrap_or(key), parts)
                .and_then(|part| names.iter().find(|it| it.rsplit('.').next() == Some(part)).copied());
            Err(nearest_name(key, names.iter().copied()).or(by_part).map(str::to_owned))
        }
    }
}

fn collect(schema: &Value, values: &Value, prefix: &str, config: &RunConfig, keys: &mut Vec<KeyReference>) {
    let Some(properties) = schema["properties"].as_object() else { return };
    for (name, property) in properties {
        let key = format!("{prefix}{name}");
        if property["properties"].is_object() {
            collect(property, &values[name], &format!("{key}."), config, keys);
            continue;
        }
        let kinds = property["anyOf"].as_array().and_then(|any| any.first()).unwrap_or(property);
        let choices = choices(kinds);
        let range = config.range_of(&key).map(|(low, high)| format!("{low} to {high}"));
        keys.push(KeyReference {
            kind: kind(kinds, !choices.is_empty()),
            default: default(&values[name]),
            meaning: property["description"].as_str().map(plain).unwrap_or_default(),
            allowed: if choices.is_empty() { range } else { Some(choices.join(", ")) },
            trl: trl(&key),
            key,
        });
    }
}

fn trl(key: &str) -> Option<&'static str> {
    if key.starts_with("reward.") && key.ends_with(".weight") {
        return Some("reward_weights");
    }
    let renamed = RENAMED.iter().find(|(ours, _)| *ours == key).map(|(_, name)| *name);
    let part = key.rsplit('.').next().unwrap_or(key);
    renamed.or_else(|| SAME.iter().find(|name| **name == part).copied())
}

/// The allowed values of a text.
fn choices(schema: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let listed = schema["enum"].as_array().map(|values| values.iter().filter_map(text).collect());
    let described = || {
        let each = schema["oneOf"].as_array()?;
        Some(
            each.iter()
                .flat_map(|it| it["enum"].as_array().into_iter().flatten().chain(it.get("const")))
                .filter_map(text)
                .collect(),
        )
    };
    listed.or_else(described).unwrap_or_default()
}

fn kind(schema: &Value, has_choices: bool) -> &'static str {
    match schema["type"].as_str() {
        _ if has_choices => "one of",
        Some("integer") => "integer",
        Some("number") => "number",
        Some("boolean") => "true or false",
        Some("array") if schema["items"]["properties"].is_object() => "tables",
        Some("array") => "list",
        _ => "text",
    }
}

/// A value as TOML.
fn default(value: &Value) -> String {
    match value {
        Value::Null => UNSET.to_owned(),
        Value::String(text) => format!("\"{text}\""),
        value => value.to_string().replace(",", ", "),
    }
}

/// A comment of the schema without links to code.
fn plain(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.split("; see [").next().unwrap_or(&text).trim_end_matches('.').to_owned() + "."
}
