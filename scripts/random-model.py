#!/usr/bin/env python3
"""Writes a Hugging Face folder with random bf16 weights and the embedded model's tokenizer. Needs no packages.

    scripts/random-model.py SHAPE LAYERS FOLDER

SHAPE is qwen2.5-7b (with its full layer sizes), qwen3 or llama (small). Weights have a normal distribution with standard
deviation 0.02 and are copied from one block of half a million values at random offsets; norms are 1 and biases small.
"""
import json
import os
import random
import shutil
import struct
import sys

SHAPES = {
    # architecture, model_type, hidden, inner, heads, KV heads, head width, vocabulary, bias, q/k norm, tied head
    "qwen2.5-7b": ("Qwen2ForCausalLM", "qwen2", 3584, 18944, 28, 4, 128, 152064, True, False, False),
    "qwen3": ("Qwen3ForCausalLM", "qwen3", 128, 384, 4, 2, 64, 770, False, True, True),
    "llama": ("LlamaForCausalLM", "llama", 192, 448, 6, 2, 32, 770, False, False, False),
}


def tensors(shape, layers):
    _, _, hidden, inner, heads, kv, dim, vocab, bias, norms, tied = SHAPES[shape]
    yield "model.embed_tokens.weight", [vocab, hidden]
    for layer in range(layers):
        at = f"model.layers.{layer}."
        yield at + "input_layernorm.weight", [hidden]
        for name, rows in [("q", heads * dim), ("k", kv * dim), ("v", kv * dim)]:
            yield f"{at}self_attn.{name}_proj.weight", [rows, hidden]
            if bias:
                yield f"{at}self_attn.{name}_proj.bias", [rows]
        if norms:
            yield at + "self_attn.q_norm.weight", [dim]
            yield at + "self_attn.k_norm.weight", [dim]
        yield at + "self_attn.o_proj.weight", [hidden, heads * dim]
        yield at + "post_attention_layernorm.weight", [hidden]
        yield at + "mlp.gate_proj.weight", [inner, hidden]
        yield at + "mlp.up_proj.weight", [inner, hidden]
        yield at + "mlp.down_proj.weight", [hidden, inner]
    yield "model.norm.weight", [hidden]
    if not tied:
        yield "lm_head.weight", [vocab, hidden]


def config(shape, layers):
    name, kind, hidden, inner, heads, kv, dim, vocab, _, _, tied = SHAPES[shape]
    return {
        "architectures": [name], "model_type": kind, "vocab_size": vocab, "hidden_size": hidden,
        "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv, "head_dim": dim, "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
        "max_position_embeddings": 4096, "tie_word_embeddings": tied, "eos_token_id": 2, "bos_token_id": None,
        "torch_dtype": "bfloat16",
    }  # fmt: skip


def main():
    if len(sys.argv) != 4 or sys.argv[1] not in SHAPES:
        sys.exit(__doc__)
    shape, layers, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    random.seed(1)
    block = b"".join(struct.pack("<f", random.gauss(0, 0.02))[2:] for _ in range(1 << 19))
    os.makedirs(folder, exist_ok=True)
    header, at = {}, 0
    for name, size in tensors(shape, layers):
        count = size[0] * (size[1] if len(size) == 2 else 1)
        header[name] = {"dtype": "BF16", "shape": size, "data_offsets": [at, at + 2 * count]}
        at += 2 * count
    text = json.dumps(header).encode()
    with open(os.path.join(folder, "model.safetensors"), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, entry in header.items():
            left = entry["data_offsets"][1] - entry["data_offsets"][0]
            if "norm" in name:
                file.write(b"\x80\x3f" * (left // 2))
                continue
            while left:
                start = 2 * random.randrange(1 << 17)
                left -= file.write(block[start : start + min(left, len(block) - start)])
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(config(shape, layers), file, indent=2)
    tiny = os.path.join(os.path.dirname(__file__), "../assets/tiny")
    for name in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"]:
        shutil.copy(os.path.join(tiny, name), folder)


main()
