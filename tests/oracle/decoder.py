"""Writes tests/fixtures/decoder/: small random decoders, and their logits computed by transformers.

    python tests/oracle/decoder.py

Weights are sampled in f32; the matrix products run in f64 (transformers keeps norms and the rotary table in f32), so that a
test sees almost only the error of one side. Weights are far larger than a trained model's, and norms and biases are random
too: a decoder that leaves one out, or rotates the wrong half of a head, is wrong by far more than any tolerance.
"""

import json
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

OUT = Path(__file__).parent.parent / "fixtures" / "decoder"
SHAPE = dict(
    vocab_size=96,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=2,
    num_attention_heads=6,
    num_key_value_heads=2,
    max_position_embeddings=256,
    bos_token_id=0,
    eos_token_id=1,
    attn_implementation="eager",
)
LLAMA3 = dict(
    rope_type="llama3",
    rope_theta=10000.0,
    factor=4.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=32,
)
MODELS = {
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, dict(tie_word_embeddings=False, rms_norm_eps=1e-6)),
    "qwen2-tied": (Qwen2ForCausalLM, Qwen2Config, dict(tie_word_embeddings=True, rms_norm_eps=1e-6)),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, dict(head_dim=16, tie_word_embeddings=True, rms_norm_eps=1e-6)),
    "llama": (
        LlamaForCausalLM,
        LlamaConfig,
        dict(tie_word_embeddings=False, rms_norm_eps=1e-5, rope_parameters=LLAMA3),
    ),
}


def randomise(model, generator: torch.Generator) -> None:
    """Matrices of std 0.15, biases of 0.3, norms around 1: each changes the logits by much more than the tolerance."""
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            noise = torch.randn(tensor.shape, generator=generator)
            tensor.copy_(1 + 0.3 * noise if "norm" in name else (0.3 if name.endswith("bias") else 0.15) * noise)


def main() -> None:
    for seed, (name, (model_class, config_class, options)) in enumerate(MODELS.items()):
        generator = torch.Generator().manual_seed(seed)
        model = model_class(config_class(**SHAPE, **options)).float().eval()
        randomise(model, generator)
        model.save_pretrained(OUT / name)
        (OUT / name / "generation_config.json").unlink(missing_ok=True)

        model = model.double()
        sequences = []
        for length in (24, 40):
            ids = torch.randint(2, SHAPE["vocab_size"], (1, length), generator=generator)
            with torch.no_grad():
                logits = model(ids).logits[0]
            sequences.append({"ids": ids[0].tolist(), "logits": [[float(f"{x:.8g}") for x in row] for row in logits.tolist()]})
        (OUT / name / "logits.json").write_text(json.dumps(sequences) + "\n")


if __name__ == "__main__":
    main()
