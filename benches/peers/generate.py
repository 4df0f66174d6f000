"""Measures decoding with transformers' generate, for comparison with `rft perf decode`: the same shape, random weights, bf16, a
prompt of 960 tokens and 128 sampled tokens.

    python benches/peers/generate.py [--shape 7b] [--batch 8 64 256]

Prints one line of JSON per batch. The time for the prompts is measured separately and subtracted.
"""

import argparse
import json
import sys
import time

from train import SHAPES, model_of


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", choices=SHAPES, default="7b")
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 64, 256])
    parser.add_argument("--new", type=int, default=128)
    args = parser.parse_args()
    try:
        import torch
        import transformers
    except ImportError as error:
        print(json.dumps({"peer": "transformers generate", "skipped": str(error)}))
        return 0
    model = model_of(args.shape).eval()
    for batch in args.batch:
        try:
            ids = torch.randint(SHAPES[args.shape][5], (batch, 960), device="cuda")
            options = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}

            def seconds(new):
                torch.cuda.synchronize()
                start = time.perf_counter()
                mask = torch.ones_like(ids)
                model.generate(ids, attention_mask=mask, max_new_tokens=new, min_new_tokens=new, pad_token_id=0, **options)
                torch.cuda.synchronize()
                return time.perf_counter() - start

            with torch.inference_mode():
                seconds(2)
                prompt = seconds(1)
                taken = seconds(args.new) - prompt
            print(
                json.dumps(
                    {
                        "peer": f"transformers {transformers.__version__} generate",
                        "batch": batch,
                        "milliseconds": 1e3 * taken / (args.new - 1),
                        "tokens_per_second": batch * (args.new - 1) / taken,
                    }
                ),
                flush=True,
            )
        except torch.cuda.OutOfMemoryError:
            print(json.dumps({"peer": "transformers generate", "batch": batch, "skipped": "does not fit"}), flush=True)
            torch.cuda.empty_cache()
    return 0


if __name__ == "__main__":
    sys.exit(main())
