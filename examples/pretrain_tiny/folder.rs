//! The model as a Hugging Face folder: configuration, tokenizer, f16 weights.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use candle_core::{DType, Tensor, safetensors};
use rft::model::config::{Architecture, ModelConfig};
use serde_json::{Value, json};
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer};

use crate::text;

/// Qwen2.5's way to split text: words with the space before them, every digit separately, sequences of signs.
const WORDS: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// End of text (also the padding), start and end of a turn: the first three ids.
const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
pub const PAD: u32 = 0;
pub const END: u32 = 2;

const CHAT_TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + \
    message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// A byte-level BPE of at most `size` tokens, learned from the same text as the model. Any text can be encoded.
pub fn train_tokenizer(seed: u64, size: usize) -> Result<Tokenizer> {
    let corpus = (0..3000).flat_map(|i| {
        let group = text::group(seed, i, i, 4);
        let documents = group.documents.iter().map(|(question, response)| format!("<|im_start|>{question}{response}"));
        let text = group.prefix + &documents.collect::<String>();
        // Special tokens are removed before merges are learned, as they are when a text is encoded.
        let pieces = text.split("<|").map(|piece| piece.split_once("|>").map_or(piece, |(_, rest)| rest).to_owned());
        pieces.collect::<Vec<_>>()
    });
    let words = Split::new(SplitPattern::Regex(WORDS.to_owned()), SplitDelimiterBehavior::Isolated, false);
    let mut tokenizer = Tokenizer::new(BPE::default());
    tokenizer
        .with_pre_tokenizer(Some(Sequence::new(vec![
            words.map_err(|e| anyhow!("{e}"))?.into(),
            ByteLevel::new(false, false, false).into(),
        ])))
        .with_decoder(Some(ByteLevel::new(false, false, false)));
    let trainer = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(size)
        .special_tokens(SPECIAL.iter().map(|token| AddedToken::from(*token, true)).collect())
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    tokenizer.train(&mut TrainerWrapper::from(trainer), corpus).map_err(|e| anyhow!("train the tokenizer: {e}"))?;
    Ok(tokenizer)
}

pub fn config(vocab_size: usize) -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Qwen2,
        vocab_size,
        hidden_size: 128,
        intermediate_size: 384,
        num_hidden_layers: 4,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 32,
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        rope_scaling: None,
        qkv_bias: true,
        qk_norm: false,
        tie_word_embeddings: true,
        max_position_embeddings: 512,
        eos_token_ids: vec![PAD, END],
    }
}

/// Everything except the weights.
pub fn write_static(folder: &Path, tokenizer: &Tokenizer, config: &ModelConfig) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("create `{}`", folder.display()))?;
    tokenizer.save(folder.join("tokenizer.json"), true).map_err(|e| anyhow!("write the tokenizer: {e}"))?;
    let special = |id: u32| {
        json!({"content": SPECIAL[id as usize], "lstrip": false, "normalized": false, "rstrip": false,
               "single_word": false, "special": true})
    };
    write_json(
        &folder.join("tokenizer_config.json"),
        &json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "added_tokens_decoder": {"0": special(0), "1": special(1), "2": special(2)},
            "additional_special_tokens": [SPECIAL[1], SPECIAL[2]],
            "bos_token": null,
            "eos_token": SPECIAL[END as usize],
            "pad_token": SPECIAL[PAD as usize],
            "clean_up_tokenization_spaces": false,
            "model_max_length": config.max_position_embeddings,
            "chat_template": CHAT_TEMPLATE,
        }),
    )?;
    write_json(
        &folder.join("generation_config.json"),
        &json!({
            "do_sample": true, "temperature": 1.0, "eos_token_id": [END, PAD], "pad_token_id": PAD,
        }),
    )?;
    write_json(
        &folder.join("config.json"),
        &json!({
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "vocab_size": config.vocab_size,
            "hidden_size": config.hidden_size,
            "intermediate_size": config.intermediate_size,
            "num_hidden_layers": config.num_hidden_layers,
            "num_attention_heads": config.num_attention_heads,
            "num_key_value_heads": config.num_key_value_heads,
            "hidden_act": "silu",
            "rms_norm_eps": config.rms_norm_eps,
            "rope_theta": config.rope_theta,
            "max_position_embeddings": config.max_position_embeddings,
            "attention_dropout": 0.0,
            "initializer_range": 0.02,
            "use_sliding_window": false,
            "sliding_window": null,
            "tie_word_embeddings": true,
            "bos_token_id": null,
            "eos_token_id": END,
            "torch_dtype": "float16",
            "use_cache": true,
        }),
    )
}

pub fn write_weights(path: &Path, weights: &BTreeMap<String, Tensor>) -> Result<()> {
    let half: std::collections::HashMap<_, _> =
        weights.iter().map(|(name, weight)| Ok((name.clone(), weight.to_dtype(DType::F16)?))).collect::<Result<_>>()?;
    safetensors::save(&half, path).with_context(|| format!("write `{}`", path.display()))
}

/// Weights of a file written by [`write_weights`], as f32.
pub fn read_weights(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let tensors =
        safetensors::load(path, &candle_core::Device::Cpu).with_context(|| format!("read `{}`", path.display()))?;
    tensors.into_iter().map(|(name, tensor)| Ok((name, tensor.to_dtype(DType::F32)?))).collect()
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value)? + "\n";
    fs::write(path, text).with_context(|| format!("write `{}`", path.display()))
}
