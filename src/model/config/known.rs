//! Shapes of well-known checkpoints, for planning and for random weights where the checkpoint itself is not at hand.
//! Source: the `config.json` of each on the Hugging Face hub.

use super::{Architecture, ModelConfig};

/// The shape of the checkpoint with this hub id, or its last part, in any case: `Qwen/Qwen2.5-7B`, `qwen2.5-7b`.
pub fn known_shape(id: &str) -> Option<ModelConfig> {
    let name = id.strip_prefix("Qwen/").unwrap_or(id).to_lowercase();
    let size = name.strip_prefix("qwen2.5-")?;
    let size = size.strip_suffix("-instruct").unwrap_or(size);
    // hidden, ffn, layers, query heads, KV heads, head dim, vocabulary, tied
    let (hidden, ffn, layers, heads, kv_heads, head_dim, vocab, tied) = match size {
        "0.5b" => (896, 4864, 24, 14, 2, 64, 151_936, true),
        "1.5b" => (1536, 8960, 28, 12, 2, 128, 151_936, true),
        "3b" => (2048, 11_008, 36, 16, 2, 128, 151_936, true),
        "7b" => (3584, 18_944, 28, 28, 4, 128, 152_064, false),
        "14b" => (5120, 13_824, 48, 40, 8, 128, 152_064, false),
        _ => return None,
    };
    Some(ModelConfig {
        architecture: Architecture::Qwen2,
        vocab_size: vocab,
        hidden_size: hidden,
        intermediate_size: ffn,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        num_key_value_heads: kv_heads,
        head_dim,
        rms_norm_eps: 1e-6,
        rope_theta: 1e6,
        rope_scaling: None,
        qkv_bias: true,
        qk_norm: false,
        tie_word_embeddings: tied,
        max_position_embeddings: 32_768,
        eos_token_ids: vec![151_643],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_have_the_published_numbers_of_parameters() {
        for (id, millions) in [
            ("Qwen/Qwen2.5-0.5B", 494),
            ("qwen2.5-1.5b", 1_544),
            ("Qwen/Qwen2.5-3B", 3_086),
            ("Qwen/Qwen2.5-7B-Instruct", 7_616),
            ("Qwen/Qwen2.5-14B", 14_770),
        ] {
            let parameters = known_shape(id).unwrap().parameters() as f64 / 1e6;
            assert_eq!(parameters.round() as usize, millions, "{id}");
        }
        assert!(known_shape("Qwen/Qwen2.5-8B").is_none() && known_shape("meta/llama").is_none());
    }
}
