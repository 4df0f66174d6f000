//! GGUF files: one file with metadata, tokenizer and (mostly quantized) weights, as llama.cpp writes them.
//!
//! Weights are converted to f32 and returned under Hugging Face's names and in its layout. Two things differ in GGUF:
//! the names, and in the Llama architecture the rows of q and k, which llama.cpp reorders for its kind of rotary
//! embedding.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use candle_core::Device;
use candle_core::quantized::ggml_file::qtensor_from_ggml;
use candle_core::quantized::gguf_file::{Content, TensorInfo, Value};
use rayon::prelude::*;

use super::config::{Architecture, Llama3Scaling, ModelConfig};
use super::gguf_header;
use super::tokenizer::{GgufTokenizer, is_llama3};
use super::weights::{Weights, check_shape, check_unused};
use crate::disk::regular;

/// Number of rows that a thread dequantizes at a time.
const ROWS: usize = 256;

/// The divisors of the rotary frequencies.
pub(super) const ROPE_DIVISORS: &str = "rope_freqs.weight";

/// An open file: its metadata and the position of each tensor.
pub struct Gguf {
    path: PathBuf,
    content: Content,
    config: ModelConfig,
}

impl Gguf {
    pub fn open(path: &Path) -> Result<Self> {
        let read = || format!("read `{}`", path.display());
        let file = regular::open(path).with_context(read)?;
        let len = file.metadata().with_context(read)?.len();
        gguf_header::check(&file).with_context(read)?;
        let content = Content::read(&mut BufReader::new(file)).map_err(explained).with_context(read)?;
        check_tensors(&content, len).with_context(read)?;
        let config = model_config(&content, path).with_context(read)?;
        let mut gguf = Self { path: path.to_owned(), content, config };
        gguf.config.rope_scaling = gguf.rope_scaling().with_context(read)?;
        let read_names: BTreeSet<String> = gguf.config.tensors().iter().map(|(name, _)| gguf_name(name)).collect();
        let present = &gguf.content.tensor_infos;
        for name in &read_names {
            ensure!(present.contains_key(name), "`{}` does not contain tensor `{name}`", path.display());
        }
        // The file's tensors are sorted, so that the same one is named each time.
        let unused: BTreeSet<&str> = present.keys().map(String::as_str).collect();
        let unused = unused.into_iter().filter(|name| *name != ROPE_DIVISORS && !read_names.contains(*name));
        check_unused(&gguf.config, unused).with_context(read)?;
        Ok(gguf)
    }

    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Everything but the tensors.
    pub fn metadata(&self) -> BTreeMap<String, Value> {
        self.content.metadata.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// The model's name, if the file has one.
    pub fn model_name(&self) -> Option<&str> {
        self.text("general.name").map(str::trim).filter(|name| !name.is_empty())
    }

    /// The chat template, in Jinja.
    pub fn chat_template(&self) -> Option<&str> {
        self.text("tokenizer.chat_template")
    }

    pub fn tokenizer(&self) -> Result<GgufTokenizer> {
        let model = self.text("tokenizer.ggml.model").unwrap_or("(none)");
        ensure!(
            model == "gpt2",
            "`{}` has a tokenizer of kind `{model}`; only byte-pair tokenizers (`gpt2`) are supported\nhint: use the model as a Hugging Face folder",
            self.path.display()
        );
        let tokens = self.texts("tokenizer.ggml.tokens")?;
        ensure!(
            tokens.len() <= self.config.vocab_size,
            "{} tokens do not fit in an embedding of {} rows",
            tokens.len(),
            self.config.vocab_size
        );
        let token_types = match self.content.metadata.get("tokenizer.ggml.token_type") {
            None => Vec::new(),
            Some(Value::Array(types)) => types
                .iter()
                .map(|it| integer(it).context("`tokenizer.ggml.token_type` contains a value that is not a number"))
                .collect::<Result<_>>()?,
            Some(_) => bail!("`tokenizer.ggml.token_type` is not a list"),
        };
        let pre = self.text("tokenizer.ggml.pre").unwrap_or("default");
        Ok(GgufTokenizer {
            tokens,
            merges: self.texts("tokenizer.ggml.merges")?,
            token_types,
            pre: pre.to_owned(),
            bos: self.id("bos_token_id"),
            eos: self.id("eos_token_id"),
            add_bos: match self.content.metadata.get("tokenizer.ggml.add_bos_token") {
                Some(Value::Bool(add)) => *add,
                _ => is_llama3(pre),
            },
        })
    }

    fn id(&self, name: &str) -> Option<u32> {
        integer(self.content.metadata.get(&format!("tokenizer.ggml.{name}"))?)
    }

    fn text(&self, key: &str) -> Option<&str> {
        match self.content.metadata.get(key) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    fn texts(&self, key: &str) -> Result<Vec<String>> {
        let Some(Value::Array(values)) = self.content.metadata.get(key) else {
            bail!("`{}` has no list `{key}`", self.path.display())
        };
        let text = |value: &Value| match value {
            Value::String(text) => Ok(text.clone()),
            _ => Err(anyhow!("`{key}` contains a value that is not text")),
        };
        values.iter().map(text).collect()
    }

    /// Llama 3 scaling as llama.cpp stores it: not as parameters but as a tensor of the divisors of the frequencies.
    /// All published checkpoints share the parameters except `factor`, which is the largest divisor; others are an
    /// error.
    fn rope_scaling(&self) -> Result<Option<Llama3Scaling>> {
        let Some(info) = self.content.tensor_infos.get(ROPE_DIVISORS) else { return Ok(None) };
        let divisors = self.dequantize(info)?;
        let scaling = Llama3Scaling {
            factor: f64::from(divisors.iter().copied().fold(0.0, f32::max)),
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        };
        let expected = llama3_divisors(&scaling, self.config.rope_theta, self.config.head_dim);
        let close = |(&found, expected): (&f32, &f64)| (f64::from(found) / expected - 1.0).abs() < 1e-3;
        ensure!(
            divisors.len() == expected.len() && divisors.iter().zip(&expected).all(close),
            "the divisors in `{ROPE_DIVISORS}` are not those of Llama 3"
        );
        Ok(Some(scaling))
    }

    /// A tensor's values, row by row in the order of the file.
    fn dequantize(&self, info: &TensorInfo) -> Result<Vec<f32>> {
        let columns = *info.shape.dims().last().context("a tensor without dimensions")?;
        let mut bytes = vec![0; byte_len(info).context("the tensor's size overflows")? as usize];
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.content.tensor_data_offset + info.offset))?;
        file.read_exact(&mut bytes)?;

        let mut values = vec![0.0; info.shape.elem_count()];
        let row_bytes = columns / info.ggml_dtype.block_size() * info.ggml_dtype.type_size();
        let parts = values.par_chunks_mut(columns * ROWS).zip(bytes.par_chunks(row_bytes * ROWS));
        parts
            .try_for_each(|(values, bytes)| {
                let shape = vec![values.len() / columns, columns];
                let rows = qtensor_from_ggml(info.ggml_dtype, bytes, shape, &Device::Cpu)?.dequantize(&Device::Cpu)?;
                values.copy_from_slice(&rows.flatten_all()?.to_vec1::<f32>()?);
                Ok(())
            })
            .map_err(plain)?;
        Ok(values)
    }
}

impl Weights for Gguf {
    fn get(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let info = self.content.tensor_infos.get(&gguf_name(name));
        check_shape(name, info.map(|it| it.shape.dims()), shape)?;
        let info = info.expect("a tensor whose shape was checked");
        let values =
            self.dequantize(info).with_context(|| format!("read tensor `{name}` of `{}`", self.path.display()))?;
        Ok(match self.config.architecture {
            architecture if is_reordered(architecture, name) => unpermute(&values, shape[1], self.config.head_dim),
            _ => values,
        })
    }

    fn contains(&self, name: &str) -> bool {
        self.content.tensor_infos.contains_key(&gguf_name(name))
    }
}

/// llama.cpp's name of a tensor.
pub(super) fn gguf_name(name: &str) -> String {
    const BLOCK: [(&str, &str); 11] = [
        ("input_layernorm", "attn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    match name {
        "model.embed_tokens.weight" => return "token_embd.weight".into(),
        "model.norm.weight" => return "output_norm.weight".into(),
        "lm_head.weight" => return "output.weight".into(),
        _ => {}
    }
    let in_block = || {
        let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
        let (module, kind) = rest.rsplit_once('.')?;
        let (_, theirs) = BLOCK.iter().find(|(ours, _)| *ours == module)?;
        Some(format!("blk.{layer}.{theirs}.{kind}"))
    };
    in_block().unwrap_or_else(|| name.to_owned())
}

/// llama.cpp's name of an architecture.
pub(super) fn architecture_name(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::Qwen2 => "qwen2",
        Architecture::Qwen3 => "qwen3",
        Architecture::Llama => "llama",
    }
}

/// Whether llama.cpp stores the rows of a weight in another order.
fn is_reordered(architecture: Architecture, name: &str) -> bool {
    architecture == Architecture::Llama && (name.ends_with("q_proj.weight") || name.ends_with("k_proj.weight"))
}

/// The rows of the weight `name`, or of the B of its adapter, in llama.cpp's order.
pub(super) fn in_file_order(config: &ModelConfig, name: &str, values: Vec<f32>, columns: usize) -> Vec<f32> {
    if is_reordered(config.architecture, name) { permute(&values, columns, config.head_dim) } else { values }
}

/// The inverse of [`unpermute`].
fn permute(values: &[f32], columns: usize, head_dim: usize) -> Vec<f32> {
    let rows = 0..values.len() / columns;
    rows.flat_map(|row| {
        let (head, i) = (row / head_dim, row % head_dim);
        let ours = head * head_dim + i / 2 + i % 2 * (head_dim / 2);
        &values[ours * columns..][..columns]
    })
    .copied()
    .collect()
}

/// Restores Hugging Face's order of the rows of a Llama q or k weight. Within a head, llama.cpp interleaves the two
/// halves that rotary embedding pairs: its row 2i is our row i, its row 2i + 1 our row i + `head_dim` / 2.
fn unpermute(values: &[f32], columns: usize, head_dim: usize) -> Vec<f32> {
    let half = head_dim / 2;
    let rows = 0..values.len() / columns;
    rows.flat_map(|row| {
        let (head, i) = (row / head_dim, row % head_dim);
        let theirs = head * head_dim + if i < half { 2 * i } else { 2 * (i - half) + 1 };
        &values[theirs * columns..][..columns]
    })
    .copied()
    .collect()
}

/// The shape of the decoder, from the metadata under the architecture's name.
fn model_config(content: &Content, path: &Path) -> Result<ModelConfig> {
    let metadata = &content.metadata;
    let Some(Value::String(name)) = metadata.get("general.architecture") else {
        bail!("the metadata does not name an architecture")
    };
    let architecture = match name.as_str() {
        "qwen2" => Architecture::Qwen2,
        "qwen3" => Architecture::Qwen3,
        "llama" => Architecture::Llama,
        other => bail!("the architecture `{other}` is not supported\nhint: use qwen2 (Qwen2 and 2.5), qwen3 or llama"),
    };
    if metadata.get("split.count").and_then(integer::<u64>).is_some_and(|count| count > 1) {
        bail!(
            "the file is one part of several\nhint: join them with `llama-gguf-split --merge {} OUT`",
            path.display()
        );
    }
    let optional = |key: &str| metadata.get(&format!("{name}.{key}"));
    let size = |key: &str| -> Result<usize> {
        let value = optional(key).with_context(|| format!("the metadata does not contain `{name}.{key}`"))?;
        integer(value).with_context(|| format!("`{name}.{key}` is not a number"))
    };
    if let Some(Value::String(kind)) = optional("rope.scaling.type")
        && kind != "none"
    {
        bail!("rotary embedding with `{kind}` scaling is not supported");
    }
    ensure!(!content.tensor_infos.contains_key("blk.0.ffn_gate_inp.weight"), "mixtures of experts are not supported");

    let hidden_size = size("embedding_length")?;
    let num_attention_heads = size("attention.head_count")?;
    ensure!(num_attention_heads > 0, "`{name}.attention.head_count` is 0");
    let head_dim = match optional("attention.key_length") {
        Some(_) => size("attention.key_length")?,
        None => hidden_size / num_attention_heads,
    };
    if let Some(rotated) = optional("rope.dimension_count").and_then(integer::<usize>) {
        ensure!(rotated == head_dim, "rotary embedding of {rotated} of {head_dim} dimensions is not supported");
    }
    let embedding = content.tensor_infos.get("token_embd.weight").context("there is no tensor `token_embd.weight`")?;
    let mut eos_token_ids: Vec<u32> = ["eos_token_id", "eot_token_id"]
        .iter()
        .filter_map(|key| metadata.get(&format!("tokenizer.ggml.{key}")).and_then(integer))
        .collect();
    eos_token_ids.sort_unstable();
    eos_token_ids.dedup();
    ModelConfig {
        architecture,
        vocab_size: embedding.shape.dims()[0],
        hidden_size,
        intermediate_size: size("feed_forward_length")?,
        num_hidden_layers: size("block_count")?,
        num_attention_heads,
        num_key_value_heads: optional("attention.head_count_kv")
            .map_or(Ok(num_attention_heads), |_| size("attention.head_count_kv"))?,
        head_dim,
        rms_norm_eps: optional("attention.layer_norm_rms_epsilon").and_then(real).unwrap_or(1e-6),
        rope_theta: optional("rope.freq_base").and_then(real).unwrap_or(10_000.0),
        rope_scaling: None,
        qkv_bias: architecture == Architecture::Qwen2,
        qk_norm: architecture == Architecture::Qwen3,
        tie_word_embeddings: !content.tensor_infos.contains_key("output.weight"),
        max_position_embeddings: size("context_length")?,
        eos_token_ids,
    }
    .check()
}

/// The divisors of the rotary frequencies in Llama 3.1: 1 for short wavelengths, `factor` for long ones, and a smooth
/// transition in between.
pub(super) fn llama3_divisors(scaling: &Llama3Scaling, theta: f64, head_dim: usize) -> Vec<f64> {
    let divisor = |i: usize| {
        let wavelength = 2.0 * std::f64::consts::PI * theta.powf(2.0 * i as f64 / head_dim as f64);
        let turns = scaling.original_max_position_embeddings as f64 / wavelength;
        let smooth = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
        let smooth = smooth.clamp(0.0, 1.0);
        1.0 / ((1.0 - smooth) / scaling.factor + smooth)
    };
    (0..head_dim / 2).map(divisor).collect()
}

/// Checks that the file contains every tensor that it lists, before any is read.
fn check_tensors(content: &Content, len: u64) -> Result<()> {
    let mut in_order: Vec<_> = content.tensor_infos.iter().collect();
    in_order.sort_by_key(|(_, info)| info.offset);
    for (name, info) in in_order {
        let columns = info.shape.dims().last().copied().unwrap_or(0);
        ensure!(
            columns > 0 && columns.is_multiple_of(info.ggml_dtype.block_size()),
            "tensor `{name}`: rows of {columns} values do not fill blocks of {:?}",
            info.ggml_dtype
        );
        let start = content.tensor_data_offset.checked_add(info.offset);
        let end = byte_len(info).zip(start).and_then(|(bytes, start)| start.checked_add(bytes));
        let end = end.with_context(|| format!("the size of tensor `{name}` overflows"))?;
        ensure!(
            end <= len,
            "the file is truncated: tensor `{name}` ends at byte {end}, the file at {len}\nhint: download or copy it again"
        );
    }
    Ok(())
}

/// Bytes of a tensor in the file; `None` if they exceed a u64.
fn byte_len(info: &TensorInfo) -> Option<u64> {
    let elements = info.shape.dims().iter().try_fold(1u64, |product, &dim| product.checked_mul(dim as u64))?;
    (elements / info.ggml_dtype.block_size() as u64).checked_mul(info.ggml_dtype.type_size() as u64)
}

/// A metadata value as a non-negative integer of the requested type.
fn integer<T: TryFrom<i128>>(value: &Value) -> Option<T> {
    let value = match *value {
        Value::U8(it) => it.into(),
        Value::I8(it) => it.into(),
        Value::U16(it) => it.into(),
        Value::I16(it) => it.into(),
        Value::U32(it) => it.into(),
        Value::I32(it) => it.into(),
        Value::U64(it) => it.into(),
        Value::I64(it) => it.into(),
        _ => return None,
    };
    T::try_from(value).ok()
}

/// A metadata value as f64. An f32 becomes the shortest decimal that represents it: 1e-6, not 9.999999974752427e-7.
fn real(value: &Value) -> Option<f64> {
    match *value {
        Value::F32(it) => it.to_string().parse().ok(),
        Value::F64(it) => Some(it),
        _ => None,
    }
}

/// Why candle cannot read a file, whose header has been checked.
fn explained(error: candle_core::Error) -> anyhow::Error {
    anyhow!("{:#}\nhint: download or copy it again; it is damaged", plain(error))
}

/// candle's errors print a backtrace after their first line.
fn plain(error: candle_core::Error) -> anyhow::Error {
    let text = error.to_string();
    anyhow!("{}", text.lines().next().unwrap_or("unknown error").to_owned())
}

#[cfg(test)]
mod tests {
    use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
    use candle_core::{Device, Tensor};

    use super::super::config::tests::tiny;
    use super::super::weights::RandomWeights;
    use super::*;

    /// Writes `weights` as llama.cpp would, in 8-bit blocks if the rows allow it.
    fn write(path: &Path, config: &ModelConfig, weights: &dyn Weights, changes: &[(&str, Value)]) {
        let arch = architecture_name(config.architecture);
        let texts = |items: &[&str]| Value::Array(items.iter().map(|it| Value::String((*it).into())).collect());
        let mut metadata = vec![("general.architecture".to_owned(), Value::String(arch.into()))];
        for (key, value) in [
            ("context_length", config.max_position_embeddings),
            ("embedding_length", config.hidden_size),
            ("feed_forward_length", config.intermediate_size),
            ("block_count", config.num_hidden_layers),
            ("attention.head_count", config.num_attention_heads),
            ("attention.head_count_kv", config.num_key_value_heads),
            ("attention.key_length", config.head_dim),
        ] {
            metadata.push((format!("{arch}.{key}"), Value::U32(value as u32)));
        }
        metadata.push((format!("{arch}.attention.layer_norm_rms_epsilon"), Value::F32(config.rms_norm_eps as f32)));
        metadata.push((format!("{arch}.rope.freq_base"), Value::F32(config.rope_theta as f32)));
        metadata.push(("tokenizer.ggml.model".into(), Value::String("gpt2".into())));
        metadata.push(("tokenizer.ggml.pre".into(), Value::String("qwen2".into())));
        metadata.push(("tokenizer.ggml.tokens".into(), texts(&["a", "b", "ab"])));
        metadata.push(("tokenizer.ggml.merges".into(), texts(&["a b"])));
        metadata.push((
            "tokenizer.ggml.token_type".into(),
            Value::Array(vec![Value::I32(1), Value::I32(1), Value::I32(3)]),
        ));
        metadata.push(("tokenizer.ggml.eos_token_id".into(), Value::U32(2)));
        metadata.push(("tokenizer.ggml.eot_token_id".into(), Value::U32(1)));
        metadata.push(("tokenizer.chat_template".into(), Value::String("{{ messages }}".into())));
        for (key, value) in changes {
            metadata.retain(|it| it.0 != *key);
            metadata.push(((*key).to_owned(), value.clone()));
        }
        let tensors: Vec<(String, QTensor)> = config
            .tensors()
            .into_iter()
            .map(|(name, shape)| {
                let mut values = weights.get(&name, &shape).unwrap();
                if config.architecture == Architecture::Llama && (name.contains("q_proj") || name.contains("k_proj")) {
                    values = permuted(&values, shape[1], config.head_dim);
                    assert_eq!(values, permute(&weights.get(&name, &shape).unwrap(), shape[1], config.head_dim));
                }
                let dtype = if shape[shape.len() - 1].is_multiple_of(32) { GgmlDType::Q8_0 } else { GgmlDType::F32 };
                let tensor = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
                (gguf_name(&name), QTensor::quantize(&tensor, dtype).unwrap())
            })
            .collect();
        let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
        let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        gguf_file::write(&mut File::create(path).unwrap(), &metadata, &tensors).unwrap();
    }

    /// llama.cpp's conversion, as in its script: (heads, 2, half, columns) with the middle axes swapped.
    fn permuted(values: &[f32], columns: usize, head_dim: usize) -> Vec<f32> {
        let heads = values.len() / columns / head_dim;
        let tensor = Tensor::from_slice(values, (heads, 2, head_dim / 2, columns), &Device::Cpu).unwrap();
        tensor.transpose(1, 2).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn reads_what_llama_cpp_writes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gguf");
        for (architecture, qkv_bias, qk_norm, tied) in [
            (Architecture::Qwen2, true, false, true),
            (Architecture::Qwen3, false, true, false),
            (Architecture::Llama, false, false, false),
        ] {
            let config = ModelConfig {
                architecture,
                qkv_bias,
                qk_norm,
                tie_word_embeddings: tied,
                hidden_size: 32, // a whole block of Q8_0
                head_dim: 8,
                vocab_size: 600, // more than one part
                ..tiny()
            };
            let random = RandomWeights::new(&config, 9);
            write(&path, &config, &random, &[]);
            let gguf = Gguf::open(&path).unwrap();
            assert_eq!(*gguf.config(), config);
            for (name, shape) in config.tensors() {
                let ours = gguf.get(&name, &shape).unwrap();
                let expected = random.get(&name, &shape).unwrap();
                let gap = ours.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(gap < 6e-4, "{architecture:?} {name}: {gap}"); // half a step of 8 bits at 4 deviations
            }
            let tokenizer = gguf.tokenizer().unwrap();
            assert_eq!(tokenizer.tokens, ["a", "b", "ab"]);
            assert_eq!((tokenizer.token_types, tokenizer.eos, tokenizer.bos), (vec![1, 1, 3], Some(2), None));
            assert_eq!(gguf.chat_template(), Some("{{ messages }}"));
        }
    }

    #[test]
    fn unsupported_options_are_named_in_the_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gguf");
        let random = RandomWeights::new(&tiny(), 9);
        for (key, value, reason) in [
            ("general.architecture", Value::String("gemma3".into()), "gemma3"),
            ("qwen2.rope.scaling.type", Value::String("yarn".into()), "yarn"),
            ("qwen2.attention.head_count", Value::Array(vec![Value::U32(4)]), "head_count"),
            ("qwen2.attention.head_count_kv", Value::U32(3), "3 key-value heads"),
            ("split.count", Value::U16(3), "--merge"),
        ] {
            write(&path, &tiny(), &random, &[(key, value)]);
            let error = format!("{:#}", Gguf::open(&path).err().unwrap());
            assert!(error.contains(reason), "{key}: {error}");
        }
        write(&path, &tiny(), &random, &[("tokenizer.ggml.model", Value::String("llama".into()))]);
        assert!(Gguf::open(&path).unwrap().tokenizer().unwrap_err().to_string().contains("kind `llama`"));
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 1000]).unwrap();
        assert!(format!("{:#}", Gguf::open(&path).err().unwrap()).contains("truncated"));
        std::fs::write(&path, &whole[..100]).unwrap();
        assert!(Gguf::open(&path).is_err());
    }

    #[test]
    fn llama3_divisors_are_those_of_its_authors() {
        // Llama 3.1: wavelengths below 2048 are kept, above 8192 divided by 8.
        let scaling = Llama3Scaling {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        };
        let divisors = llama3_divisors(&scaling, 500_000.0, 128);
        let wavelength = |i: usize| 2.0 * std::f64::consts::PI * 500_000f64.powf(i as f64 / 64.0);
        for (i, divisor) in divisors.into_iter().enumerate() {
            match wavelength(i) {
                short if short < 2048.0 => assert_eq!(divisor, 1.0),
                long if long > 8192.0 => assert_eq!(divisor, 8.0),
                _ => assert!(divisor > 1.0 && divisor < 8.0),
            }
        }
    }
}
