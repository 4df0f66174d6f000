"""Writes tests/fixtures/greedy_qwen_coder_0.5b.json: greedy tokens of transformers, to compare the sampler with.

    python tests/oracle/greedy.py MODEL

MODEL is the folder that dequantise.py wrote from Qwen2.5-Coder-0.5B-Instruct. With the 64 tokens of each prompt,
it writes the gap between the two largest logits at every step, so that a disagreement can be distinguished from a tie.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

OUT = Path(__file__).parent.parent / "fixtures" / "greedy_qwen_coder_0.5b.json"
TOKENS = 64
QUESTIONS = [
    "What is 47 + 38?",
    "Natalia sold 48 clips in April and half as many in May. How many clips did she sell altogether?",
    "Write a Python function that reverses a list in place.",
    "Explain in one paragraph what a hash map is.",
    "A train travels 180 km in 2.5 hours. What is its mean speed?",
    "List the first ten prime numbers and say why 1 is not among them.",
    "Solve 3x - 7 = 2x + 5 step by step.",
    "Translate to French: the cat sleeps under the table.",
    "Write a haiku about compilers.",
    "What does `fn main() -> Result<(), Error>` mean in Rust?",
]


def main(folder: str) -> None:
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    cases = []
    for question in QUESTIONS:
        messages = [{"role": "user", "content": question}]
        inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        output = model.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=TOKENS,
            min_new_tokens=None,
            eos_token_id=-1,  # continues past the end token, so that every prompt has 64 tokens
            return_dict_in_generate=True,
            output_logits=True,
        )
        tokens = output.sequences[0, inputs["input_ids"].shape[1] :].tolist()
        gaps = []
        for logits in output.logits:
            first, second = logits[0].topk(2).values.tolist()
            gaps.append(round(first - second, 5))
        cases.append(dict(question=question, prompt=inputs["input_ids"][0].tolist(), tokens=tokens, gaps=gaps))
        print(f"{min(gaps):.5f} {tokenizer.decode(tokens)[:100]!r}", flush=True)
    lines = ",\n".join(json.dumps(case) for case in cases)
    OUT.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main(sys.argv[1])
