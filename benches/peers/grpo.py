"""Measures steps of TRL's GRPOTrainer, for comparison with `rft perf step`: the same shape, random weights, LoRA of rank
32 on all linear layers, bf16, 64 prompts of 102 tokens with 5 completions each, rewarded by a hash of their tokens.

    python benches/peers/grpo.py [--shape 7b] [--length 269] [--steps 2]

Prints one line of JSON. Random weights never produce an end token, and TRL can force only a single length: all completions
have the mean length of benches/step_lengths.txt. The number of tokens is therefore the same as in `rft perf step`, and no row
waits for a longer one, which favors TRL. Needs neither the Hub nor files: the tokenizer is created here, and prompts are text
that it can encode.
"""

import argparse
import json
import sys
import tempfile
import time

from train import SHAPES, model_of

PEER = "TRL GRPO step"
PROMPTS, GENERATIONS, PROMPT = 64, 5, 102


def tokenizer_of(vocab):
    """A tokenizer with one word for each of the first 10,000 tokens."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    words = {f"t{i}": i for i in range(min(vocab, 10_000))}
    tokenizer = Tokenizer(WordLevel(words, unk_token="t0"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="t0", pad_token="t1", eos_token="t2", padding_side="left")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", choices=SHAPES, default="7b")
    parser.add_argument("--length", type=int, default=269)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--prompts", type=int, default=PROMPTS)
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    try:
        import random

        import torch
        import trl
        from datasets import Dataset
        from peft import LoraConfig
        from transformers import TrainerCallback
        from trl import GRPOConfig, GRPOTrainer
    except ImportError as error:
        print(json.dumps({"peer": PEER, "skipped": str(error)}))
        return 0

    vocab = SHAPES[args.shape][5]
    draw = random.Random(0)
    prompts = [" ".join(f"t{draw.randrange(3, 10_000)}" for _ in range(PROMPT)) for _ in range(args.prompts)]
    lengths, times = [], []

    def reward(completion_ids, **_):
        lengths.append(sum(len(ids) for ids in completion_ids))
        return [hash(tuple(int(i) for i in ids)) % 1_000 / 1_000 for ids in completion_ids]

    class Clock(TrainerCallback):
        def on_step_begin(self, *_, **__):
            self.started = time.perf_counter()

        def on_step_end(self, *_, **__):
            if args.device == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - self.started)

    batch = args.prompts * GENERATIONS
    rows = batch
    while True:
        lengths.clear(), times.clear()
        model = model_of(args.shape, args.device)
        with tempfile.TemporaryDirectory() as folder:
            config = GRPOConfig(
                output_dir=folder,
                per_device_train_batch_size=rows,
                gradient_accumulation_steps=batch // rows,
                num_generations=GENERATIONS,
                max_completion_length=args.length,
                generation_kwargs={"min_new_tokens": args.length},
                max_steps=args.steps,
                learning_rate=1e-5,
                beta=0.0,
                temperature=1.0,
                bf16=True,
                use_cpu=args.device == "cpu",
                gradient_checkpointing=True,
                report_to="none",
                logging_strategy="no",
                save_strategy="no",
                disable_tqdm=True,
            )
            try:
                trainer = GRPOTrainer(
                    model=model,
                    reward_funcs=reward,
                    args=config,
                    train_dataset=Dataset.from_dict({"prompt": prompts}),
                    processing_class=tokenizer_of(vocab),
                    peft_config=LoraConfig(r=32, lora_alpha=64, target_modules="all-linear", task_type="CAUSAL_LM"),
                    callbacks=[Clock()],
                )
                trainer.train()
                break
            except torch.cuda.OutOfMemoryError:
                if rows == GENERATIONS:
                    print(json.dumps({"peer": PEER, "skipped": "one group does not fit"}))
                    return 0
                rows //= 2
            finally:
                model = trainer = None
                if args.device == "cuda":
                    torch.cuda.empty_cache()
    # The first step is a warm-up, as in ours.
    completions = lengths[-1]
    print(
        json.dumps(
            {
                "peer": f"TRL {trl.__version__} GRPO step",
                "batch": rows,
                "completion_tokens": completions,
                "milliseconds": 1e3 * times[-1],
                "tokens_per_second": (completions + batch * PROMPT) / times[-1],
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
