//! Adapters in the format of Python's PEFT: `adapter_config.json` and `adapter_model.safetensors`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::config::ModelConfig;
use super::lora::Adapter;
use super::safetensors::{Dtype, SafetensorsFile, Writer};
use crate::config::{ALL_LINEAR, LoraSection};
use crate::disk::{atomic, files};

const CONFIG: &str = "adapter_config.json";
pub const WEIGHTS: &str = "adapter_model.safetensors";

/// Tensors by name, each with its shape.
pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// The entries of `adapter_config.json` that are used here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeftConfig {
    pub base_model_name_or_path: Option<String>,
    pub r: usize,
    pub lora_alpha: f64,
    pub target_modules: Vec<String>,
    #[serde(default)]
    pub use_rslora: bool,
}

impl PeftConfig {
    pub fn new(base: &str, section: &LoraSection) -> Self {
        Self {
            base_model_name_or_path: Some(base.to_owned()),
            r: section.r,
            lora_alpha: section.lora_alpha,
            target_modules: section.target_modules.clone(),
            use_rslora: section.use_rslora,
        }
    }

    pub fn section(&self) -> LoraSection {
        LoraSection {
            r: self.r,
            lora_alpha: self.lora_alpha,
            target_modules: self.target_modules.clone(),
            use_rslora: self.use_rslora,
        }
    }

    /// The file's content, with PEFT's keys, and default values for unused features.
    fn to_json(&self) -> Value {
        let all = self.target_modules == [ALL_LINEAR];
        let whole = self.lora_alpha.fract() == 0.0; // PEFT writes and declares a whole number
        serde_json::json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": self.base_model_name_or_path,
            "revision": null,
            "r": self.r,
            "lora_alpha": if whole { Value::from(self.lora_alpha as i64) } else { Value::from(self.lora_alpha) },
            "lora_dropout": 0.0,
            "use_rslora": self.use_rslora,
            "use_dora": false,
            "target_modules": if all { Value::from(ALL_LINEAR) } else { Value::from(self.target_modules.clone()) },
            "modules_to_save": null,
            "layers_to_transform": null,
            "layers_pattern": null,
            "rank_pattern": {},
            "alpha_pattern": {},
            "bias": "none",
            "fan_in_fan_out": false,
            "init_lora_weights": true,
            "inference_mode": true,
        })
    }
}

/// Writes an adapter folder. Each of its two files appears complete or not at all.
pub fn save(folder: &Path, config: &PeftConfig, tensors: &[(String, [usize; 2], &[f32])]) -> Result<()> {
    files::create_dir_all(folder).map_err(|error| atomic::write_error(folder, &error))?;
    let shapes: Vec<_> = tensors.iter().map(|(name, shape, _)| (name.clone(), shape.to_vec())).collect();
    let mut file = Writer::create(&folder.join(WEIGHTS), &shapes, Dtype::F32)?;
    for (name, _, values) in tensors {
        file.write(name, values)?;
    }
    file.finish()?;
    let mut json = serde_json::to_vec_pretty(&config.to_json())?;
    json.push(b'\n');
    atomic::write(&folder.join(CONFIG), &json)
}

/// Reads the configuration of an adapter folder. Features beyond plain LoRA are an error, because they would silently
/// be omitted.
pub fn load_config(folder: &Path) -> Result<PeftConfig> {
    let path = folder.join(CONFIG);
    ensure!(
        path.is_file(),
        "`{}` is not an adapter: it has no `{CONFIG}`\nhint: pass the folder RUN/adapter for a run's adapter",
        folder.display()
    );
    let bytes = std::fs::read(&path).with_context(|| format!("read `{}`", path.display()))?;
    parse(&bytes).with_context(|| format!("read `{}`", path.display()))
}

/// Reads an adapter folder.
pub fn load(folder: &Path) -> Result<(PeftConfig, Tensors)> {
    let config = load_config(folder)?;
    let path = folder.join(WEIGHTS);
    if !path.exists() && folder.join("adapter_model.bin").exists() {
        bail!(super::checkpoint::pickle_refused("adapter_model.bin"));
    }
    let file = SafetensorsFile::open(&path)?;
    let mut tensors = Tensors::new();
    for (name, info) in file.tensors() {
        let values = file.read(name)?;
        let rank = match (&info.shape[..], name.rsplit('.').nth(1)) {
            (&[rank, _], Some("lora_A")) | (&[_, rank], Some("lora_B")) => rank,
            _ => bail!(
                "`{}`: tensor `{name}` of shape {:?} does not belong to a LoRA adapter",
                path.display(),
                info.shape
            ),
        };
        ensure!(
            rank == config.r,
            "`{}`: tensor `{name}` has rank {rank}, but `{CONFIG}` has {}",
            path.display(),
            config.r
        );
        ensure!(
            values.iter().all(|it| it.is_finite()),
            "`{}`: tensor `{name}` contains NaN or infinity",
            path.display()
        );
        tensors.insert(name.clone(), (info.shape.clone(), values));
    }
    Ok((config, tensors))
}

fn parse(bytes: &[u8]) -> Result<PeftConfig> {
    let mut raw: Value = serde_json::from_slice(bytes)?;
    let empty = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text == "none",
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        _ => false,
    };
    let kind = raw["peft_type"].as_str().unwrap_or("(none)");
    ensure!(kind == "LORA", "`peft_type` is `{kind}`; only LORA adapters are supported");
    for (key, meaning) in [
        ("use_dora", "DoRA scales"),
        ("bias", "trained biases"),
        ("lora_bias", "biases in the adapter"),
        ("modules_to_save", "whole trained modules"),
        ("rank_pattern", "different ranks per module"),
        ("alpha_pattern", "different scales per module"),
        ("layers_to_transform", "adapters of selected layers"),
        ("fan_in_fan_out", "transposed weights"),
        ("target_parameters", "adapted parameters outside linear layers"),
    ] {
        ensure!(empty(&raw[key]), "`{key}` is {}; {meaning} are not supported", raw[key]);
    }
    match raw["target_modules"].as_str() {
        Some(ALL_LINEAR) => raw["target_modules"] = serde_json::json!([ALL_LINEAR]),
        Some(pattern) => {
            bail!("`target_modules` is the pattern `{pattern}`\nhint: list the names of the modules instead")
        }
        None => {}
    }
    let config: PeftConfig = serde_json::from_value(raw)?;
    ensure!(config.r > 0 && config.lora_alpha.is_finite(), "`r` is {}, `lora_alpha` {}", config.r, config.lora_alpha);
    Ok(config)
}

/// Writes an adapter in PEFT's format.
pub fn save_adapter(adapter: &Adapter, folder: &Path, base: &str) -> Result<()> {
    let tensors = adapter.tensors(&adapter.params);
    let tensors: Vec<(String, [usize; 2], &[f32])> =
        tensors.iter().map(|(name, shape, values)| (name.clone(), *shape, &values[..])).collect();
    save(folder, &PeftConfig::new(base, &adapter.section), &tensors)
}

/// Reads an adapter in PEFT's format. If `expected` is given, its rank and modules must match.
pub fn load_adapter(folder: &Path, config: &ModelConfig, expected: Option<&LoraSection>) -> Result<Adapter> {
    let (peft, tensors) = load(folder)?;
    let section = expected.cloned().unwrap_or_else(|| peft.section());
    Adapter::from_tensors(config, &section, &tensors)
        .with_context(|| format!("load the adapter `{}`", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const A: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
    const B: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight";

    fn config() -> PeftConfig {
        PeftConfig {
            base_model_name_or_path: Some("Qwen/Qwen2.5-0.5B".into()),
            r: 2,
            lora_alpha: 32.0,
            target_modules: vec!["q_proj".into()],
            use_rslora: true,
        }
    }

    fn saved(r: usize) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (vec![0.5; r * 3], vec![-1.0; 4 * r]);
        let tensors = [(A.to_owned(), [r, 3], &a[..]), (B.to_owned(), [4, r], &b[..])];
        save(folder.path(), &config(), &tensors).unwrap();
        folder
    }

    #[test]
    fn a_saved_adapter_can_be_loaded() {
        let folder = saved(2);
        let (loaded, tensors) = load(folder.path()).unwrap();
        assert_eq!(loaded, config());
        assert_eq!(tensors[A], (vec![2, 3], vec![0.5; 6]));
        assert_eq!(tensors[B], (vec![4, 2], vec![-1.0; 8]));
        let json: Value = serde_json::from_slice(&std::fs::read(folder.path().join(CONFIG)).unwrap()).unwrap();
        assert_eq!((&json["lora_alpha"], &json["target_modules"]), (&json!(32), &json!(["q_proj"])));
    }

    #[test]
    fn all_linear_keeps_its_name() {
        let mut all = config();
        all.target_modules = vec!["all-linear".into()];
        assert_eq!(all.to_json()["target_modules"], "all-linear");
        assert_eq!(parse(all.to_json().to_string().as_bytes()).unwrap(), all);
    }

    #[test]
    fn features_beyond_plain_lora_are_named_in_the_error() {
        for (key, value) in [
            ("use_dora", json!(true)),
            ("bias", json!("all")),
            ("modules_to_save", json!(["lm_head"])),
            ("rank_pattern", json!({"q_proj": 4})),
            ("layers_to_transform", json!([1, 2])),
            ("peft_type", json!("IA3")),
            ("target_modules", json!(".*_proj")),
        ] {
            let mut json = config().to_json();
            json[key] = value;
            let error = parse(json.to_string().as_bytes()).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
        let mut json = config().to_json();
        json["a_field_of_tomorrow"] = json!({"x": 1});
        assert_eq!(parse(json.to_string().as_bytes()).unwrap(), config());
    }

    #[test]
    fn errors_of_damaged_folders_name_the_problem() {
        let folder = saved(3); // the configuration has 2
        assert!(load(folder.path()).unwrap_err().to_string().contains("has rank 3"));
        std::fs::remove_file(folder.path().join(WEIGHTS)).unwrap();
        assert!(format!("{:#}", load(folder.path()).unwrap_err()).contains(WEIGHTS));
        std::fs::write(folder.path().join("adapter_model.bin"), "x").unwrap();
        assert!(load(folder.path()).unwrap_err().to_string().contains("pickle"));
        assert!(load(&folder.path().join("nothing")).unwrap_err().to_string().contains("not an adapter"));
    }
}
