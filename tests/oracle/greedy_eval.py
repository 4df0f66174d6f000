"""Compares a greedy evaluation with transformers and math-verify, question by question, on the same prompts.

    rft eval --bench gsm8k --limit 100 --samples 1 --temperature 0 --max-tokens 256 --ppe none --model MODEL --out EVAL
    python tests/oracle/greedy_eval.py EVAL/gsm8k MODEL

MODEL is a Hugging Face folder here (dequantise.py writes one from a GGUF file). Prints every question whose completion or
verdict differs: for a completion, the first different token and the gap between the two largest logits there, so that a
disagreement can be distinguished from a tie.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

sys.path.pop(0)  # this folder contains another math_verify
from math_verify import parse, verify  # noqa: E402

BATCH = 50


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@torch.no_grad()
def complete(model, tokenizer, prompts: list[str], longest: int) -> list[list[int]]:
    inputs = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
    output = model.generate(**inputs, do_sample=False, max_new_tokens=longest, repetition_penalty=1.0)
    return [ids.tolist() for ids in output[:, inputs["input_ids"].shape[1] :]]


@torch.no_grad()
def gap_at(model, tokenizer, prompt: str, ids: list[int], place: int) -> float:
    """The gap between the two largest logits for token `place` of the completion."""
    start = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"][0].tolist()
    logits = model(torch.tensor([start + ids[:place]])).logits[0, -1]
    first, second = logits.topk(2).values.tolist()
    return first - second


def main(bench: str, folder: str) -> None:
    bench = Path(bench)
    longest = json.loads((bench / "benchmark.json").read_text())["style"]["max_tokens"]
    questions = {it["id"]: it for it in lines(bench / "questions.jsonl")}
    samples, grades = lines(bench / "samples.jsonl"), lines(bench / "grades.jsonl")
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ends = model.generation_config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends])
    # Batching completions of similar length needs the least padding.
    order = sorted(range(len(samples)), key=lambda at: len(questions[samples[at]["question_id"]]["prompt_text"]))
    theirs: dict[int, list[int]] = {}
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        prompts = [questions[samples[at]["question_id"]]["prompt_text"] for at in batch]
        for at, ids in zip(batch, complete(model, tokenizer, prompts, longest)):
            end = next((place for place, token in enumerate(ids) if token in ends), len(ids))
            theirs[at] = ids[:end]
        print(f"{min(start + BATCH, len(order))} of {len(order)}", file=sys.stderr, flush=True)
    texts = verdicts = right_here = right_there = 0
    for at, (sample, grade) in enumerate(zip(samples, grades)):
        question = questions[sample["question_id"]]
        text = tokenizer.decode(theirs[at], skip_special_tokens=True)
        right = verify(parse(f"${question['gold']}$"), parse(text))
        ours = grade["verdict"] == "correct"
        right_here, right_there = right_here + ours, right_there + right
        if text != sample["text"]:
            texts += 1
            own = tokenizer(sample["text"], add_special_tokens=False)["input_ids"]
            place = next((i for i, (a, b) in enumerate(zip(own, theirs[at])) if a != b), min(len(own), len(theirs[at])))
            gap = gap_at(model, tokenizer, question["prompt_text"], theirs[at], place)
            print(f"{sample['question_id']}: the texts differ from token {place} on, gap {gap:.5f}")
        if right != ours:
            verdicts += 1
            print(f"{sample['question_id']}: gold {question['gold']}, ours {grade['verdict']} ({grade['answer']!r}), "
                  f"math-verify {right} ({parse(text)}): ...{text[-160:]!r}")
    print(f"{len(samples)} questions: {texts} texts differ, {verdicts} verdicts differ; correct: ours {right_here}, theirs {right_there}")


if __name__ == "__main__":
    main(*sys.argv[1:])
