//! Adapters in the format of Python's PEFT: `adapter_config.json` and `adapter_model.safetensors`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::config::ModelConfig;
use super::lora::{Adapter, targets};
use super::safetensors::{Dtype, SafetensorsFile, Writer};
use crate::config::{ALL_LINEAR, LINEAR_MODULES, LoraSection};
use crate::disk::{atomic, files, regular};

pub const CONFIG: &str = "adapter_config.json";
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
            init_adapter: None,
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
///
/// # Errors
/// Also if a value is NaN or infinite: such an adapter could not be loaded.
pub fn save(folder: &Path, config: &PeftConfig, tensors: &[(String, [usize; 2], &[f32])]) -> Result<()> {
    if let Some((name, ..)) = tensors.iter().find(|(_, _, values)| !values.iter().all(|it| it.is_finite())) {
        bail!(
            "the adapter was not written to `{}`: tensor `{name}` contains NaN or infinity\n\
             hint: lower `train.learning_rate` and resume from an earlier checkpoint",
            folder.display()
        );
    }
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
    let bytes = regular::read(&path, regular::JSON).with_context(|| format!("read `{}`", path.display()))?;
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
            "`{}`: tensor `{name}` contains NaN or infinity\n\
             hint: use an earlier checkpoint of the run; its training failed",
            path.display()
        );
        tensors.insert(name.clone(), (info.shape.clone(), values));
    }
    Ok((config, tensors))
}

/// Keys that do not change what an adapter computes: where it comes from, how it was trained, and options of features that
/// have a separate key. The first are read here.
const HARMLESS: [&str; 17] = [
    "r",
    "lora_alpha",
    "target_modules",
    "use_rslora",
    "peft_type",
    "base_model_name_or_path",
    "revision",
    "task_type",
    "auto_mapping",
    "peft_version",
    "inference_mode",
    "lora_dropout",
    "runtime_config",
    "megatron_core",
    "qalora_group_size",
    // Options for training of ms-swift.
    "lorap_emb_lr",
    "lora_dtype",
];

/// Keys of PEFT's `LoraConfig` (src/peft/tuners/lora/config.py) that change what an adapter computes, if they are set.
const REFUSED: [(&str, &str); 25] = [
    ("use_dora", "DoRA scales"),
    ("bias", "trained biases"),
    ("lora_bias", "biases in the adapter"),
    ("modules_to_save", "whole trained modules"),
    ("rank_pattern", "different ranks per module"),
    ("alpha_pattern", "different scales per module"),
    ("exclude_modules", "exceptions to `target_modules`"),
    ("layers_to_transform", "adapters of selected layers"),
    ("layers_pattern", "adapters of selected layers"),
    ("layer_replication", "repeated layers"),
    ("fan_in_fan_out", "transposed weights"),
    ("target_parameters", "adapted parameters outside linear layers"),
    ("trainable_token_indices", "trained token embeddings"),
    ("alora_invocation_tokens", "adapters that apply only after certain tokens (aLoRA)"),
    ("use_qalora", "QALoRA layers"),
    ("use_bdlora", "block-diagonal adapters"),
    ("velora_config", "VeLoRA layers"),
    ("monteclora_config", "MonteCLoRA layers"),
    ("kasa_config", "KaSA layers"),
    ("arrow_config", "routing between adapters"),
    ("megatron_config", "Megatron's parallel layers"),
    ("loftq_config", "LoftQ's changed base weights"),
    ("eva_config", "ranks that EVA distributes"),
    ("corda_config", "CorDA's changed base weights"),
    ("lora_ga_config", "LoRA-GA's changed base weights"),
];

/// Reads `adapter_config.json`. A key that is set and not known could mean anything, so it is an error too.
fn parse(bytes: &[u8]) -> Result<PeftConfig> {
    let mut raw: Map<String, Value> = serde_json::from_slice(bytes)?;
    let unset = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text == "none",
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        Value::Number(_) | Value::Bool(true) => false,
    };
    let kind = raw.get("peft_type").and_then(Value::as_str).unwrap_or("(none)");
    ensure!(kind == "LORA", "`peft_type` is `{kind}`; only LORA adapters are supported");
    check_initialization(raw.get("init_lora_weights"))?;
    for (key, value) in raw.iter().filter(|(_, value)| !unset(value)) {
        if let Some((_, meaning)) = REFUSED.iter().find(|(refused, _)| refused == key) {
            bail!("`{key}` is {value}; {meaning} are not supported");
        }
        ensure!(
            key == "init_lora_weights" || HARMLESS.contains(&key.as_str()),
            "`{key}` is {value}; this option of an adapter is not known\n\
             hint: if it does not change what the adapter computes, remove it from `{CONFIG}`"
        );
    }
    match raw.get("target_modules").and_then(Value::as_str) {
        Some(ALL_LINEAR) => _ = raw.insert("target_modules".to_owned(), serde_json::json!([ALL_LINEAR])),
        Some(pattern) => {
            bail!("`target_modules` is the pattern `{pattern}`\nhint: list the names of the modules instead")
        }
        None => {}
    }
    let config: PeftConfig = serde_json::from_value(raw.into())?;
    let scale = config.section().scale() as f32;
    ensure!(
        config.r > 0 && scale.is_finite(),
        "`r` is {}, `lora_alpha` {}; expected a positive rank and a finite scale",
        config.r,
        config.lora_alpha
    );
    Ok(config)
}

/// Some initializations change the base weights too, and the adapter is relative to the changed ones.
fn check_initialization(value: Option<&Value>) -> Result<()> {
    let name = match value {
        None | Some(Value::Null | Value::Bool(_)) => return Ok(()),
        Some(Value::String(name)) => name.to_lowercase(),
        Some(other) => bail!("`init_lora_weights` is {other}; expected true, false or a name"),
    };
    let hint = match name.as_str() {
        "gaussian" | "orthogonal" => return Ok(()),
        "eva" => {
            "if `rank_pattern` is empty, set `init_lora_weights` to true and `eva_config` to null: EVA keeps the base weights"
        }
        "loftq" => {
            "merge it into the base that LoftQ quantized with PEFT's `merge_and_unload()`, and use the merged model"
        }
        name if name.starts_with("pissa") || ["olora", "corda", "lora_ga"].contains(&name) => {
            "convert it to a plain adapter with PEFT: \
             `model.save_pretrained(OUT, path_initial_model_for_weight_conversion=INITIAL_ADAPTER)`"
        }
        _ => "set it to true if this initialization does not change the base weights",
    };
    bail!("`init_lora_weights` is `{name}`; only adapters of the unchanged base weights are supported\nhint: {hint}")
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

/// Makes `adapter`, a new one for a model of the shape `config`, start from the one in `folder`; see [`Adapter::start_from`].
/// Returns the rank of the latter.
///
/// # Errors
/// The rank, the modules or the shapes do not fit.
pub fn start_from(adapter: &mut Adapter, folder: &Path, config: &ModelConfig) -> Result<usize> {
    let (peft, tensors) = load(folder)?;
    let section = &adapter.section;
    ensure!(
        peft.r <= section.r,
        "its rank is {}, and `lora.r` is {}\nhint: set `lora.r` to {} or more",
        peft.r,
        section.r,
        peft.r
    );
    check_modules(&tensors, section)?;
    // The names in the file of weights count: `target_modules` of the folder may list whole paths.
    let given = LoraSection { target_modules: section.target_modules.clone(), ..peft.section() };
    let given = Adapter::from_tensors(config, &given, &tensors)?;
    adapter.start_from(&given);
    ensure!(
        adapter.params.iter().all(|value| value.is_finite()),
        "its values are too large for `lora.lora_alpha` = {}\nhint: raise `lora.lora_alpha`",
        adapter.section.lora_alpha
    );
    Ok(peft.r)
}

/// Checks that the tensors belong to the modules of `section`.
fn check_modules(tensors: &Tensors, section: &LoraSection) -> Result<()> {
    let found: BTreeSet<&str> = tensors.keys().filter_map(|name| name.rsplit('.').nth(2)).collect();
    let expected = targets(&section.target_modules)?;
    if expected.iter().map(|target| target.name()).collect::<BTreeSet<_>>() == found {
        return Ok(());
    }
    let known: Vec<&str> = LINEAR_MODULES.into_iter().filter(|module| found.contains(module)).collect();
    let hint = match known.len() {
        count if count < found.len() => format!("only {} can be adapted", LINEAR_MODULES.join(", ")),
        0 => "use an adapter with at least one module".to_owned(),
        _ => format!("set `lora.target_modules` to {known:?}"),
    };
    let found: Vec<&str> = found.into_iter().collect();
    bail!(
        "it adapts {}, and `lora.target_modules` is {}\nhint: {hint}",
        if found.is_empty() { "nothing".to_owned() } else { found.join(", ") },
        section.target_modules.join(", ")
    )
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
            ("layer_replication", json!([[0, 4], [2, 5]])),
            ("use_qalora", json!(true)),
            ("alora_invocation_tokens", json!([1, 2])),
            ("trainable_token_indices", json!({"embed_tokens": [1]})),
            ("exclude_modules", json!("q_proj")),
            ("loftq_config", json!({"loftq_bits": 4})),
            ("init_lora_weights", json!("pissa_niter_16")),
            ("init_lora_weights", json!("olora")),
            ("init_lora_weights", json!("loftq")),
            ("init_lora_weights", json!("corda")),
            ("init_lora_weights", json!("lora_ga")),
            ("init_lora_weights", json!("eva")),
            ("init_lora_weights", json!("a_method_of_tomorrow")),
            ("init_lora_weights", json!(3)),
            ("a_field_of_tomorrow", json!({"x": 1})),
            ("another_field", json!(0)),
            ("lora_alpha", json!(1e300)),
            ("target_modules", json!(".*_proj")),
        ] {
            let mut json = config().to_json();
            json[key] = value;
            let error = parse(json.to_string().as_bytes()).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
    }

    /// The keys that PEFT 0.18 and its development version write, with their default values, and unknown ones that are not set.
    #[test]
    fn what_peft_writes_by_default_is_accepted() {
        let mut json = config().to_json();
        for (key, value) in [
            ("alora_invocation_tokens", json!(null)),
            ("arrow_config", json!(null)),
            ("auto_mapping", json!({"base_model_class": "Qwen2ForCausalLM", "parent_library": "transformers"})),
            ("corda_config", json!(null)),
            ("ensure_weight_tying", json!(false)),
            ("eva_config", json!(null)),
            ("exclude_modules", json!(null)),
            ("init_lora_weights", json!("gaussian")),
            ("kasa_config", json!(null)),
            ("layer_replication", json!(null)),
            ("loftq_config", json!({})),
            ("lora_bias", json!(false)),
            ("lora_dropout", json!(0.05)),
            ("lora_ga_config", json!(null)),
            ("megatron_config", json!(null)),
            ("megatron_core", json!("megatron.core")),
            ("monteclora_config", json!(null)),
            ("peft_version", json!("0.18.0")),
            ("qalora_group_size", json!(16)),
            ("target_parameters", json!([])),
            ("trainable_token_indices", json!(null)),
            ("use_bdlora", json!(null)),
            ("use_qalora", json!(false)),
            ("velora_config", json!(null)),
            ("a_field_of_tomorrow", json!(null)),
            ("another_field", json!({})),
        ] {
            json[key] = value;
        }
        assert_eq!(parse(json.to_string().as_bytes()).unwrap(), config());
    }

    #[test]
    fn an_adapter_that_is_not_finite_is_neither_written_nor_read() {
        for odd in [f32::NAN, f32::INFINITY] {
            let folder = tempfile::tempdir().unwrap();
            let (a, b) = (vec![0.5; 6], vec![1.0, 2.0, odd, 3.0, 4.0, 5.0, 6.0, 7.0]);
            let tensors = [(A.to_owned(), [2, 3], &a[..]), (B.to_owned(), [4, 2], &b[..])];
            let error = save(folder.path(), &config(), &tensors).unwrap_err().to_string();
            assert!(error.contains("was not written") && error.contains(B), "{error}");
            assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none());

            let shapes = [(A.to_owned(), vec![2, 3]), (B.to_owned(), vec![4, 2])];
            let mut file = Writer::create(&folder.path().join(WEIGHTS), &shapes, Dtype::F32).unwrap();
            file.write(A, &a).unwrap();
            file.write(B, &b).unwrap();
            file.finish().unwrap();
            std::fs::write(folder.path().join(CONFIG), config().to_json().to_string()).unwrap();
            let error = load(folder.path()).unwrap_err().to_string();
            assert!(error.contains(&format!("tensor `{B}` contains NaN or infinity")), "{error}");
        }
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
