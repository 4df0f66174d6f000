"""Measures a training step of transformers + PEFT, for comparison with `rft perf train`: the same shape, random weights, LoRA
of rank 32 on all linear layers, bf16, forward and backward without an optimizer step.

    python benches/peers/train.py [--shape 7b] [--length 1024] [--rows 16384] [--checkpointing]

Prints one line of JSON. Micro-batches are halved until they fit; the line contains the final size.
"""

import argparse
import json
import sys
import time

SHAPES = {  # hidden, ffn, layers, heads, KV heads, vocabulary, tied
    "test": (64, 128, 2, 4, 2, 12000, True),  # runs on a CPU in seconds, to check that the script works
    "0.5b": (896, 4864, 24, 14, 2, 151936, True),
    "1.5b": (1536, 8960, 28, 12, 2, 151936, True),
    "7b": (3584, 18944, 28, 28, 4, 152064, False),
}


def model_of(shape, device="cuda"):
    import torch
    from transformers import AutoModelForCausalLM, Qwen2Config

    hidden, ffn, layers, heads, kv_heads, vocab, tied = SHAPES[shape]
    config = Qwen2Config(
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=vocab,
        tie_word_embeddings=tied,
        max_position_embeddings=32768,
        rope_theta=1e6,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    finally:
        torch.set_default_dtype(before)
    return model


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", choices=SHAPES, default="7b")
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--rows", type=int, default=16384)
    parser.add_argument("--checkpointing", action="store_true")
    args = parser.parse_args()
    try:
        import torch
        from peft import LoraConfig, get_peft_model
        import transformers
    except ImportError as error:
        print(json.dumps({"peer": "transformers + PEFT training", "skipped": str(error)}))
        return 0

    model = model_of(args.shape)
    lora = LoraConfig(r=32, lora_alpha=64, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, lora)
    model.config.use_cache = False
    if args.checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    vocab = SHAPES[args.shape][5]
    sequences = max(1, args.rows // args.length)
    batch = sequences
    seconds = None
    while seconds is None:
        try:
            ids = torch.randint(vocab, (sequences, args.length), device="cuda")

            def step():
                for part in ids.split(batch):
                    model(input_ids=part, labels=part).loss.backward()
                model.zero_grad(set_to_none=True)

            step()
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(3):
                step()
            torch.cuda.synchronize()
            seconds = (time.perf_counter() - start) / 3
        except torch.cuda.OutOfMemoryError:
            if batch == 1:
                print(json.dumps({"peer": "transformers + PEFT training", "skipped": "one sequence does not fit"}))
                return 0
            batch = max(1, batch // 2)
            model.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
    tokens = sequences * args.length
    print(
        json.dumps(
            {
                "peer": f"transformers {transformers.__version__} + PEFT training",
                "length": args.length,
                "batch": batch,
                "checkpointing": args.checkpointing,
                "milliseconds": 1e3 * seconds,
                "tokens_per_second": tokens / seconds,
                "peak_bytes": torch.cuda.max_memory_allocated(),
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
