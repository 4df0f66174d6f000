"""Repeats a run of `rft` in TRL with `rft`'s random numbers: its initial adapter and the noise used to sample every token.

    rft train --preset qwen2.5-0.5b --config tests/oracle/sums.toml --model MODEL.gguf --seed SEED
    python tests/oracle/trl_twin.py MODEL RUN OUT.jsonl [STEPS]

MODEL is the folder that dequantise.py wrote, RUN the folder of the run. Prompt, completions, rewards, advantages, loss, gradient,
clipping and optimizer are computed by TRL and PEFT; only the seed of the run and, for comparison, its log are read. As long as
both sides learn the same, all completions are identical. A rounding error can change a sampled token if two tokens are almost
tied; from then on the two runs differ.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import LogitsProcessor, LogitsProcessorList

import rft_random
import trl_sums


class Draws(LogitsProcessor):
    """Makes the token that `rft` samples the largest logit, at temperature 1."""

    def __init__(self, seed: int, step: int, question: str, prompt: int):
        path = lambda completion: [step, rft_random.name_hash(question), completion]
        self.key = lambda completion: rft_random.key(seed, rft_random.SAMPLING, path(completion))
        self.prompt = prompt
        self.margins: list[float] = []

    def __call__(self, ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        position = ids.shape[1] - self.prompt
        noise = [rft_random.exponential(self.key(completion), position, logits.shape[1]) for completion in range(len(ids))]
        scores = logits.double() - torch.from_numpy(np.log(np.stack(noise)))
        best = scores.topk(2).values
        self.margins.append((best[:, 0] - best[:, 1]).min().item())
        return scores


def rollout(seed: int, margins: list[float]):
    def draw(prompts, trainer):
        tokenizer = trainer.processing_class
        ids = tokenizer.apply_chat_template(prompts[0], add_generation_prompt=True, return_dict=False)
        # One question per step, repeated once for each completion.
        assert all(prompt == prompts[0] for prompt in prompts)
        step = trainer.state.global_step + 1
        draws = Draws(seed, step, str(step), len(ids))
        model, ends = trainer.accelerator.unwrap_model(trainer.model), tokenizer.eos_token_id
        with torch.no_grad():
            drawn = model.generate(
                torch.tensor([ids] * len(prompts)),
                attention_mask=torch.ones(len(prompts), len(ids), dtype=torch.long),
                do_sample=False,
                max_new_tokens=trainer.max_completion_length,
                eos_token_id=ends,
                pad_token_id=tokenizer.pad_token_id,
                logits_processor=LogitsProcessorList([draws]),
            )[:, len(ids) :].tolist()
        margins[:] = [min(draws.margins)]
        completions = [row[: row.index(ends) + 1] if ends in row else row for row in drawn]
        return {"prompt_ids": [ids] * len(prompts), "completion_ids": completions, "logprobs": None}

    return draw


def begin(model, seed: int) -> None:
    """The initial adapter of `rft`: A uniform in ±1/√in, B zero."""
    for name, parameter in model.named_parameters():
        if "lora_A" in name:
            key = rft_random.key(seed, rft_random.ADAPTER_INIT, [rft_random.name_hash(name.replace(".default", ""))])
            values = (2.0 * rft_random.uniform(key, parameter.numel()) - 1.0) / parameter.shape[1] ** 0.5
            parameter.data.copy_(torch.from_numpy(values.reshape(parameter.shape)))


def compare(run: Path, out: Path, margins: list[float]) -> bool:
    """Prints the differences in the last step of both; returns whether all texts are the same."""
    theirs = json.loads(out.read_text().splitlines()[-1])
    step = theirs["step"]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    ours = next(row for row in rows if row["step"] == step and "reward" in row)
    groups = [json.loads(line) for line in (run / "completions.jsonl").read_text().splitlines()]
    texts = [it["text"] for it in next(group for group in groups if group["step"] == step)["completions"]]
    same = sum(a == b for a, b in zip(texts, theirs["texts"], strict=True))
    print(
        f"step {step}: {same} of {len(texts)} completions are the same; reward {theirs['reward']:.4f}, ours {ours['reward']:.4f}; "
        f"gradient norm {theirs['grad_norm']:.5f}, ours {ours['grad_norm']:.5f}; closest draw {margins[0]:.1e}",
        flush=True,
    )
    return same == len(texts)


def main(folder: str, run: Path, out: Path, steps: int) -> None:
    seed = json.loads((run / "manifest.json").read_text())["seed"]
    trl_sums.CONFIG["steps"] = steps
    margins: list[float] = []
    trl_sums.train(
        folder,
        seed,
        out,
        rollout=rollout(seed, margins),
        begin=lambda model: begin(model, seed),
        after_step=lambda: compare(run, out, margins),
    )


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    steps = int(sys.argv[4]) if len(sys.argv) == 5 else trl_sums.CONFIG["steps"]
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), steps)
