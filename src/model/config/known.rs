//! Shapes of well-known checkpoints, for planning and for random weights if the checkpoint itself is not available.
//! Source: the `config.json` of each on the Hugging Face Hub.

use super::ModelConfig;

/// The shape of the checkpoint with this Hub id, or its last part, ignoring case: `Qwen/Qwen2.5-7B`, `qwen2.5-7b`.
pub fn known_shape(id: &str) -> Option<ModelConfig> {
    let name = id.strip_prefix("Qwen/").unwrap_or(id).to_lowercase();
    let size = name.strip_prefix("qwen2.5-")?;
    let size = size.strip_suffix("-instruct").unwrap_or(size);
    let (layers, hidden, heads, inner, vocab) = match size {
        "0.5b" => (24, 896, (14, 2), 4864, 151_936),
        "1.5b" => (28, 1536, (12, 2), 8960, 151_936),
        "3b" => (36, 2048, (16, 2), 11_008, 151_936),
        "7b" => (28, 3584, (28, 4), 18_944, 152_064),
        "14b" => (48, 5120, (40, 8), 13_824, 152_064),
        _ => return None,
    };
    Some(ModelConfig {
        rope_theta: 1e6,
        tie_word_embeddings: !["7b", "14b"].contains(&size),
        max_position_embeddings: 32_768,
        eos_token_ids: vec![151_643],
        ..ModelConfig::qwen2(layers, hidden, heads, inner, vocab)
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
