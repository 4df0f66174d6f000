"""Trains Qwen2.5-Coder-0.5B-Instruct on two-digit sums in TRL, for comparison with `rft`'s reward curve.

    python tests/oracle/trl_sums.py questions                   writes tests/oracle/sums.jsonl
    python tests/oracle/trl_sums.py train MODEL SEED OUT.jsonl  one run; one line per step
    python tests/oracle/trl_sums.py collect OUT.jsonl...        writes tests/fixtures/trl_sums.json

MODEL is the folder that dequantise.py wrote. Both sides read the same questions in the same order (`sums.jsonl`), the
same prior prompt (`sums-prompt.toml`) and the settings in CONFIG, all in f32; only the random numbers differ.
"""

import json
import random
import re
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
QUESTIONS = HERE / "sums.jsonl"
PROMPT = tomllib.loads((HERE / "sums-prompt.toml").read_text())

CONFIG = {
    "steps": 50,
    "prompts_per_step": 1,
    "num_generations": 8,
    "max_completion_length": 64,
    "temperature": 1.0,
    "learning_rate": 2e-4,
    "lr_scheduler_type": "constant",
    "loss_type": "grpo",
    "scale_rewards": "group",
    "epsilon": 0.2,
    "beta": 0.0,
    "lora_r": 16,
    "lora_alpha": 32,
    "adam_beta1": 0.9,
    "adam_beta2": 0.95,
    "adam_epsilon": 1e-8,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "frozen_dtype": "float32",
    "reward": {"accuracy": 0.5, "format": 0.5},
}


def value(side: str) -> int | None:
    """The value of a sum such as `59 + 63`; `None` for anything else."""
    side = side.replace(",", "").replace("\\", "").strip(" $")
    if not re.fullmatch(r"[+-]?\s*\d+(\s*[+-]\s*\d+)*", side):
        return None
    return sum(int(sign + digits) for sign, digits in re.findall(r"([+-]?)\s*(\d+)", side))


def accuracy(text: str, gold: str) -> float:
    """1 if the last box contains the sum, also as `59 + 63` or `59 + 63 = 122`, as in `rft`'s checker."""
    boxes = re.findall(r"\\boxed\{([^{}]*)\}", text)
    return float(bool(boxes) and {value(side) for side in boxes[-1].split("=")} == {int(gold)})


def format_reward(text: str) -> float:
    """1 if the text contains exactly one thought followed by exactly one answer, with any text around them."""
    marks = ["<think>", "</think>", "<answer>", "</answer>"]
    places = [text.find(mark) for mark in marks]
    return float(all(text.count(mark) == 1 for mark in marks) and places == sorted(places))


def write_questions() -> None:
    draw = random.Random(0)
    rows = []
    for _ in range(CONFIG["steps"] * CONFIG["prompts_per_step"]):
        a, b = draw.randint(10, 99), draw.randint(10, 99)
        rows.append({"question": f"What is {a} + {b}?", "answer": str(a + b)})
    QUESTIONS.write_text("".join(json.dumps(row) + "\n" for row in rows))


def train(folder: str, seed: int, out: Path, rollout=None, begin=None, after_step=None) -> None:
    """`rollout` samples the completions instead of TRL, `begin` gets the model once, `after_step` runs after each written line."""
    import torch
    import trl.trainer.utils as trl_utils
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(1)
    # Makes TRL score only the completion's rows on a CPU, as it does on a GPU: the same values, less work.
    trl_utils._use_triton = lambda device: True

    rows = [json.loads(line) for line in QUESTIONS.read_text().splitlines()]
    data = Dataset.from_list([
        {
            "prompt": [{"role": "system", "content": PROMPT["text"]}, {"role": "user", "content": row["question"]}],
            "gold": row["answer"],
        }
        for row in rows
    ])
    texts: list[str] = []

    def accuracy_reward(completions, gold, **_):
        texts[:] = [completion[0]["content"] for completion in completions]
        return [accuracy(text, answer) for text, answer in zip(texts, gold)]

    def tags_reward(completions, **_):
        return [format_reward(completion[0]["content"]) for completion in completions]

    out.write_text("")

    class Record(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **_):
            if "reward" not in logs:
                return
            keys = {
                "reward": "reward",
                "accuracy": "rewards/accuracy_reward/mean",
                "format": "rewards/tags_reward/mean",
                "mean_length": "completions/mean_length",
                "clipped_ratio": "completions/clipped_ratio",
                "entropy": "entropy",
                "grad_norm": "grad_norm",
                "step_time": "step_time",
            }
            line = {"step": state.global_step, **{key: float(logs[name]) for key, name in keys.items()}}
            with out.open("a") as file:
                file.write(json.dumps({"seed": seed, **line, "texts": texts}) + "\n")
            if after_step:
                after_step()

    c = CONFIG
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, c["frozen_dtype"])),
        processing_class=AutoTokenizer.from_pretrained(folder),
        reward_funcs=[accuracy_reward, tags_reward],
        train_dataset=data,
        peft_config=LoraConfig(
            r=c["lora_r"], lora_alpha=c["lora_alpha"], lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
        args=GRPOConfig(
            output_dir=str(out.with_suffix("")),
            seed=seed,
            use_cpu=True,
            bf16=False,
            max_steps=c["steps"],
            per_device_train_batch_size=c["prompts_per_step"] * c["num_generations"],
            gradient_accumulation_steps=1,
            gradient_checkpointing=False,
            num_generations=c["num_generations"],
            max_completion_length=c["max_completion_length"],
            shuffle_dataset=False,
            temperature=c["temperature"],
            reward_weights=[c["reward"]["accuracy"], c["reward"]["format"]],
            loss_type=c["loss_type"],
            scale_rewards=c["scale_rewards"],
            epsilon=c["epsilon"],
            beta=c["beta"],
            learning_rate=c["learning_rate"],
            lr_scheduler_type=c["lr_scheduler_type"],
            adam_beta1=c["adam_beta1"],
            adam_beta2=c["adam_beta2"],
            adam_epsilon=c["adam_epsilon"],
            weight_decay=c["weight_decay"],
            max_grad_norm=c["max_grad_norm"],
            logging_steps=1,
            save_strategy="no",
            report_to="none",
        ),
        callbacks=[Record()],
        rollout_func=rollout,
    )
    if begin:
        begin(trainer.model)
    trainer.train()


def collect(files: list[Path]) -> None:
    import peft
    import torch
    import transformers
    import trl

    runs = []
    for file in files:
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        series = {key: [round(row[key], 6) for row in rows] for key in rows[0] if key not in ("seed", "step", "texts", "step_time")}
        runs.append({"seed": rows[0]["seed"], "steps": len(rows), **series})
    fixture = {
        "versions": {m.__name__: m.__version__ for m in (trl, peft, transformers, torch)},
        "model": "Qwen2.5-Coder-0.5B-Instruct, Q4_K_M weights dequantized to f32",
        "config": CONFIG,
        "system": PROMPT["text"],
        "questions": "tests/oracle/sums.jsonl",
        "runs": sorted(runs, key=lambda run: run["seed"]),
    }
    path = HERE.parent / "fixtures" / "trl_sums.json"
    path.write_text(json.dumps(fixture, indent=1) + "\n")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["questions"]:
            write_questions()
        case ["train", folder, seed, out]:
            train(folder, int(seed), Path(out))
        case ["collect", *files]:
            collect([Path(file) for file in files])
        case _:
            sys.exit(__doc__)
