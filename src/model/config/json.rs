//! A decoder's shape from Hugging Face's `config.json`. An option that the decoder does not support is an error that
//! names it, because it would silently compute something else.

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Architecture, Llama3Scaling, ModelConfig};

impl ModelConfig {
    /// Reads `config.json` and, if the checkpoint has one, `generation_config.json`.
    pub fn from_json(config: &[u8], generation_config: Option<&[u8]>) -> Result<Self> {
        let raw: RawConfig = serde_json::from_slice(config).context("`config.json` is not a model configuration")?;
        let mut eos = raw.eos_token_id.ids();
        if let Some(bytes) = generation_config {
            let raw: RawGenerationConfig =
                serde_json::from_slice(bytes).context("`generation_config.json` is not a generation configuration")?;
            eos.extend(raw.eos_token_id.ids());
        }
        raw.resolve(eos)
    }

    /// `config.json` as transformers reads it; `dtype` is the type of the stored weights (`bfloat16`, `float32`).
    pub fn to_json(&self, dtype: &str) -> serde_json::Value {
        let (class, model_type) = match self.architecture {
            Architecture::Qwen2 => ("Qwen2ForCausalLM", "qwen2"),
            Architecture::Qwen3 => ("Qwen3ForCausalLM", "qwen3"),
            Architecture::Llama => ("LlamaForCausalLM", "llama"),
        };
        let rope_scaling = self.rope_scaling.map(|scaling| {
            json!({
                "rope_type": "llama3",
                "factor": scaling.factor,
                "low_freq_factor": scaling.low_freq_factor,
                "high_freq_factor": scaling.high_freq_factor,
                "original_max_position_embeddings": scaling.original_max_position_embeddings,
            })
        });
        json!({
            "architectures": [class],
            "model_type": model_type,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "rope_scaling": rope_scaling,
            "tie_word_embeddings": self.tie_word_embeddings,
            "max_position_embeddings": self.max_position_embeddings,
            "eos_token_id": self.eos_token_ids,
            "use_cache": true,
            "torch_dtype": dtype,
        })
    }
}

/// `config.json` as it is written; keys that are not read are omitted.
#[derive(Deserialize)]
struct RawConfig {
    #[serde(default)]
    architectures: Option<Vec<String>>,
    model_type: Option<String>,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    hidden_act: Option<String>,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    rope_scaling: Option<RawRope>,
    /// Where transformers 5 stores both of the above.
    rope_parameters: Option<Map<String, Value>>,
    partial_rotary_factor: Option<f64>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    tie_word_embeddings: Option<bool>,
    max_position_embeddings: Option<usize>,
    use_sliding_window: Option<bool>,
    sliding_window: Option<usize>,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
    #[serde(default)]
    eos_token_id: EosTokenId,
    quantization_config: Option<serde_json::Value>,
    auto_map: Option<serde_json::Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
struct RawRope {
    rope_type: Option<String>,
    /// The older name of `rope_type`.
    r#type: Option<String>,
    rope_theta: Option<f64>,
    partial_rotary_factor: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<usize>,
}

/// The rotary embedding of `rope_parameters`, which contain it once for all layers, or once for each type of layer.
fn shared_rope(parameters: &Map<String, Value>) -> Result<RawRope> {
    let read = |value: Value| serde_json::from_value(value).context("`rope_parameters` are not valid");
    if !parameters.values().any(Value::is_object) {
        return read(parameters.clone().into());
    }
    let mut shared: Option<(&str, RawRope)> = None;
    for (name, value) in parameters {
        ensure!(
            value.is_object(),
            "`rope_parameters` are neither for all layers nor for each type of layer: `{name}` is {value}"
        );
        let rope = read(value.clone())?;
        match &shared {
            Some((first, other)) => ensure!(
                rope == *other,
                "`rope_parameters` differ between layers of the types `{first}` and `{name}`; only one rotary embedding for all \
                 layers is supported"
            ),
            None => shared = Some((name, rope)),
        }
    }
    Ok(shared.map(|(_, rope)| rope).unwrap_or_default())
}

#[derive(Deserialize)]
struct RawGenerationConfig {
    #[serde(default)]
    eos_token_id: EosTokenId,
}

#[derive(Default, Deserialize)]
#[serde(untagged)]
enum EosTokenId {
    One(u32),
    Many(Vec<u32>),
    #[default]
    Unset,
}

impl EosTokenId {
    fn ids(&self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![*id],
            Self::Many(ids) => ids.clone(),
            Self::Unset => Vec::new(),
        }
    }
}

impl RawConfig {
    fn resolve(self, mut eos_token_ids: Vec<u32>) -> Result<ModelConfig> {
        let architecture = self.architecture()?;
        if self.auto_map.is_some() {
            tracing::warn!("the model configuration names its own code in `auto_map`, which is not run");
        }
        if let Some(quantization) = &self.quantization_config {
            let method = quantization.get("quant_method").and_then(|it| it.as_str()).unwrap_or("unknown");
            bail!(
                "the checkpoint is quantized ({method})\nhint: use the unquantized checkpoint or a GGUF file of the same model"
            );
        }
        if let Some(act) = self.hidden_act.as_deref()
            && act != "silu"
        {
            bail!("`hidden_act` is `{act}`; only `silu` is supported");
        }
        ensure!(
            self.mlp_bias != Some(true),
            "`mlp_bias` is true; only feed-forward layers without biases are supported\n\
             hint: use a checkpoint without them, such as Meta's"
        );
        if architecture != Architecture::Qwen2 && self.attention_bias == Some(true) {
            bail!(
                "`attention_bias` is true; for Llama and Qwen3 only attention without biases is supported\n\
                 hint: use a checkpoint without them, such as Meta's or Qwen's"
            );
        }
        self.check_window()?;
        ensure!(
            self.num_attention_heads > 0 && self.num_hidden_layers > 0,
            "the model configuration has no layers or no attention heads"
        );

        let parameters = self.rope_parameters.as_ref().map(shared_rope).transpose()?;
        let scaling = |rope: Option<&RawRope>| anyhow::Ok(rope.map(RawRope::scaling).transpose()?.flatten());
        let rope_scaling = scaling(parameters.as_ref().or(self.rope_scaling.as_ref()))?;
        ensure!(
            self.rope_scaling.is_none() || scaling(self.rope_scaling.as_ref())? == rope_scaling,
            "`rope_scaling` and `rope_parameters` contradict each other\nhint: remove the one that is not the model's"
        );
        let rope = parameters.as_ref().or(self.rope_scaling.as_ref());
        let partial = rope.and_then(|it| it.partial_rotary_factor).or(self.partial_rotary_factor);
        ensure!(
            partial.is_none_or(|factor| factor == 1.0),
            "`partial_rotary_factor` is not 1; only rotary embedding of whole heads is supported\n\
             hint: use an original checkpoint of Qwen2, Qwen3 or Llama"
        );
        let rope_theta = rope.and_then(|it| it.rope_theta).or(self.rope_theta).unwrap_or(10_000.0);

        eos_token_ids.sort_unstable();
        eos_token_ids.dedup();
        let default_head_dim = match architecture {
            Architecture::Qwen3 => 128,
            Architecture::Qwen2 | Architecture::Llama => self.hidden_size / self.num_attention_heads,
        };
        ModelConfig {
            architecture,
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            num_key_value_heads: self.num_key_value_heads.unwrap_or(self.num_attention_heads),
            head_dim: self.head_dim.unwrap_or(default_head_dim),
            rms_norm_eps: self.rms_norm_eps.unwrap_or(1e-6),
            rope_theta,
            rope_scaling,
            qkv_bias: architecture == Architecture::Qwen2,
            qk_norm: architecture == Architecture::Qwen3,
            tie_word_embeddings: self.tie_word_embeddings.unwrap_or(false),
            max_position_embeddings: self.max_position_embeddings.unwrap_or(32_768),
            eos_token_ids,
        }
        .check()
    }

    fn architecture(&self) -> Result<Architecture> {
        let class = self.architectures.as_ref().and_then(|it| it.first()).map(String::as_str);
        match (class, self.model_type.as_deref()) {
            (Some("Qwen2ForCausalLM"), _) | (None, Some("qwen2")) => Ok(Architecture::Qwen2),
            (Some("Qwen3ForCausalLM"), _) | (None, Some("qwen3")) => Ok(Architecture::Qwen3),
            (Some("LlamaForCausalLM"), _) | (None, Some("llama")) => Ok(Architecture::Llama),
            (class, model_type) => bail!(
                "the architecture `{}` is not supported\nhint: use Qwen2ForCausalLM (Qwen2 and 2.5), Qwen3ForCausalLM or LlamaForCausalLM",
                class.or(model_type).unwrap_or("(none named)")
            ),
        }
    }

    /// Attention here sees every earlier token, so a sliding window is accepted only if it never excludes a token.
    fn check_window(&self) -> Result<()> {
        let longest = self.max_position_embeddings.unwrap_or(usize::MAX);
        let never_cuts = self.sliding_window.is_none_or(|window| window >= longest);
        let slides = match &self.layer_types {
            Some(types) => {
                if let Some(other) =
                    types.iter().find(|it| !["full_attention", "sliding_attention"].contains(&it.as_str()))
                {
                    bail!("`layer_types` names `{other}`; only full attention is supported");
                }
                types.iter().any(|it| it == "sliding_attention")
            }
            // The first `max_window_layers` layers keep full attention.
            None => {
                self.use_sliding_window == Some(true)
                    && self.max_window_layers.is_none_or(|first| first < self.num_hidden_layers)
            }
        };
        if slides && !never_cuts {
            bail!(
                "`use_sliding_window` is true with a window of {} tokens; only full attention is supported",
                self.sliding_window.unwrap_or_default()
            );
        }
        Ok(())
    }
}

impl RawRope {
    fn scaling(&self) -> Result<Option<Llama3Scaling>> {
        let needed = |value: Option<f64>, name: &str| value.with_context(|| format!("`rope_scaling` has no `{name}`"));
        match self.rope_type.as_deref().or(self.r#type.as_deref()) {
            None | Some("default") => Ok(None),
            Some("llama3") => {
                let scaling = Llama3Scaling {
                    factor: needed(self.factor, "factor")?,
                    low_freq_factor: needed(self.low_freq_factor, "low_freq_factor")?,
                    high_freq_factor: needed(self.high_freq_factor, "high_freq_factor")?,
                    original_max_position_embeddings: self
                        .original_max_position_embeddings
                        .context("`rope_scaling` has no `original_max_position_embeddings`")?,
                };
                Ok(Some(scaling))
            }
            Some(other) => bail!(
                "`rope_scaling` of type `{other}` is not supported\nhint: use `default` or `llama3`; if yarn is optional for the checkpoint, remove the entry to use its original context"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::tiny;
    use super::*;

    /// A valid configuration with `changes` applied; null removes a key.
    fn parse(changes: serde_json::Value) -> Result<ModelConfig> {
        let mut config = json!({
            "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu",
            "vocab_size": 151_936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
            "num_attention_heads": 14, "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "rope_theta": 1_000_000.0,
            "max_position_embeddings": 32_768, "tie_word_embeddings": true, "eos_token_id": 151_643,
            "use_sliding_window": false, "sliding_window": 32_768, "max_window_layers": 24, "torch_dtype": "bfloat16",
        });
        for (key, value) in changes.as_object().unwrap() {
            match value.is_null() {
                true => config.as_object_mut().unwrap().remove(key),
                false => config.as_object_mut().unwrap().insert(key.clone(), value.clone()),
            };
        }
        ModelConfig::from_json(config.to_string().as_bytes(), None)
    }

    fn refused(changes: serde_json::Value) -> String {
        parse(changes).unwrap_err().to_string()
    }

    #[test]
    fn reads_qwen2() {
        let config = parse(json!({})).unwrap();
        assert_eq!((config.architecture, config.head_dim, config.rope_theta), (Architecture::Qwen2, 64, 1e6));
        assert!(config.qkv_bias && !config.qk_norm && config.tie_word_embeddings);
        assert_eq!(config.eos_token_ids, [151_643]);
    }

    #[test]
    fn end_of_sequence_ids_are_joined() {
        let config = parse(json!({})).unwrap().to_json("float32").to_string();
        let joined = ModelConfig::from_json(config.as_bytes(), Some(br#"{"eos_token_id": [151645, 151643]}"#)).unwrap();
        assert_eq!(joined.eos_token_ids, [151_643, 151_645]);
    }

    #[test]
    fn reads_qwen3_and_llama() {
        let qwen3 =
            parse(json!({"architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "head_dim": 128})).unwrap();
        assert!(qwen3.qk_norm && !qwen3.qkv_bias);
        assert_eq!(qwen3.head_dim, 128);
        let scaling = json!({"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192});
        let llama =
            parse(json!({"architectures": ["LlamaForCausalLM"], "rope_theta": 500_000.0, "rope_scaling": scaling,
            "num_key_value_heads": null, "eos_token_id": [128_001, 128_008, 128_009]}))
            .unwrap();
        assert_eq!(llama.num_key_value_heads, 14);
        assert_eq!(llama.rope_scaling.unwrap().factor, 32.0);
        assert_eq!(llama.eos_token_ids.len(), 3);
    }

    #[test]
    fn reads_rope_parameters_of_transformers_5() {
        let rope = json!({"rope_theta": 500_000.0, "rope_type": "default"});
        let config = parse(json!({"rope_theta": null, "rope_parameters": rope})).unwrap();
        assert_eq!((config.rope_theta, config.rope_scaling), (5e5, None));
    }

    #[test]
    fn a_written_configuration_can_be_read() {
        let config = ModelConfig {
            rope_scaling: Some(Llama3Scaling {
                factor: 8.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_position_embeddings: 8192,
            }),
            ..tiny()
        };
        assert_eq!(ModelConfig::from_json(config.to_json("float32").to_string().as_bytes(), None).unwrap(), config);
    }

    #[test]
    fn unsupported_options_are_named_in_the_error() {
        for (changes, word) in [
            (json!({"architectures": ["MixtralForCausalLM"]}), "MixtralForCausalLM"),
            (json!({"hidden_act": "gelu"}), "gelu"),
            (json!({"rope_scaling": {"type": "yarn", "factor": 4.0}}), "yarn"),
            (json!({"quantization_config": {"quant_method": "awq"}}), "awq"),
            (json!({"use_sliding_window": true, "sliding_window": 4096, "max_window_layers": 12}), "4096"),
            (json!({"layer_types": ["sliding_attention"], "sliding_window": 4096}), "4096"),
            (json!({"architectures": ["LlamaForCausalLM"], "attention_bias": true}), "attention_bias"),
            (json!({"num_key_value_heads": 3}), "3 key-value heads"),
            (json!({"num_hidden_layers": 0}), "no layers"),
            (json!({"vocab_size": u64::MAX}), "vocab_size"),
        ] {
            assert!(refused(changes.clone()).contains(word), "{changes}: {}", refused(changes.clone()));
        }
    }

    #[test]
    fn a_window_that_excludes_no_token_is_accepted() {
        assert!(parse(json!({"use_sliding_window": true, "max_window_layers": 24, "sliding_window": 4096})).is_ok());
        assert!(parse(json!({"use_sliding_window": true, "max_window_layers": 0})).is_ok());
    }
}
