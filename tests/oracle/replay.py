"""Makes a run's updates again in PyTorch, from its own completions, and compares the adapters after every step.

    rft train ... --name init --steps 1 --set train.learning_rate=1e-30     the adapter as it begins
    rft train ... --name five --steps 5 --set train.save_steps=1            the same seed, a checkpoint for every step
    python tests/oracle/replay.py MODEL runs/init runs/five

MODEL is the folder that dequantise.py wrote. The log holds texts, so tokens are found again by encoding them,
where tags may have been drawn in other pieces. The loss is GRPO's on-policy one: every importance ratio is 1 when its gradient
is taken. One update a step, as `sums.toml` has it; transformers, PEFT and torch.optim.AdamW do the rest, in f32.
"""

import json
import sys
import tomllib
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = Path(__file__).parent
PROMPT = tomllib.loads((HERE / "sums-prompt.toml").read_text())


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def groups(run: Path, tokenizer) -> list[tuple[list[int], list[list[int]], list[float]]]:
    """Prompt, completions and advantages of every step, up to the first whose tokens the log's text does not tell."""
    found = []
    for line in (run / "completions.jsonl").read_text().splitlines():
        row = json.loads(line)
        messages = [{"role": "system", "content": PROMPT["text"]}, {"role": "user", "content": row["question"]}]
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        completions = []
        for branch in row["branches"]:
            ids = tokenizer.encode(branch["text"], add_special_tokens=False)
            if branch["finish"] != "length":
                ids.append(tokenizer.convert_tokens_to_ids(branch["finish"]))
            if len(ids) != branch["tokens"]:  # drawn in other pieces than it would be encoded in
                print(f"step {row['step']} and later ones cannot be replayed: {branch['text']!r}")
                return found
            completions.append(ids)
        found.append((prompt, completions, [branch["advantage"] for branch in row["branches"]]))
    return found


def as_drawn(model, tokenizer, prompt: list[int], ids: list[int]) -> list[int]:
    """The likelier of two ways in which a tag may have been drawn: `<th` `ink`, as it is encoded, or `<` `think`."""
    with torch.no_grad():
        likelihood = lambda ids: logprobs_of(model, prompt, ids).sum()
        best = likelihood(ids)
        for at in range(len(ids) - 1):
            text = tokenizer.decode(ids[at : at + 2])
            for cut in range(1, len(text)):
                pieces = [tokenizer.encode(piece, add_special_tokens=False) for piece in (text[:cut], text[cut:])]
                if "<" not in text or any(len(piece) != 1 for piece in pieces):
                    continue
                other = ids[:at] + pieces[0] + pieces[1] + ids[at + 2 :]
                if other != ids and (value := likelihood(other)) > best:
                    ids, best = other, value
    return ids


def logprobs_of(model, prompt: list[int], ids: list[int]) -> torch.Tensor:
    logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1].float()
    return logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None])[:, 0]


def loss(model, prompt: list[int], completions: list[list[int]], advantages: list[float]) -> torch.Tensor:
    """- mean over completions of the mean over tokens of ratio · advantage, where ratio = exp(logp - logp.detach())."""
    total = 0.0
    for ids, advantage in zip(completions, advantages):
        logprobs = logprobs_of(model, prompt, ids)
        total = total - (torch.exp(logprobs - logprobs.detach()) * advantage).mean() / len(completions)
    return total


def main(folder: str, init: Path, run: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, init / "adapter", is_trainable=True)
    named = {name.replace(".default", ""): p for name, p in model.named_parameters() if p.requires_grad}
    start = adapter(init / "adapter")
    assert named.keys() == start.keys()
    optimizer = torch.optim.AdamW(named.values(), lr=2e-4, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0)
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for step, (group, row) in enumerate(zip(groups(run, tokenizer), metrics), 1):
        prompt, completions, advantages = group
        completions = [as_drawn(model, tokenizer, prompt, ids) for ids in completions]
        optimizer.zero_grad()
        value = loss(model, prompt, completions, advantages)
        value.backward()
        norm = torch.nn.utils.clip_grad_norm_(named.values(), 1.0)
        optimizer.step()
        ours = adapter(next(run.glob(f"checkpoints/*{step:06}/adapter")))
        apart = sum((ours[name] - p.detach()).square().sum() for name, p in named.items()).sqrt()
        moved = sum((p.detach() - start[name]).square().sum() for name, p in named.items()).sqrt()
        print(
            f"step {step}: gradient norm {norm:.4f}, ours {row['grad_norm']:.4f}; moved by {moved:.4f}, "
            f"apart by {apart:.5f} ({apart / moved:.2%})",
            flush=True,
        )


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
