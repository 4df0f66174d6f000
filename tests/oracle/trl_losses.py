"""Writes tests/fixtures/trl/: TRL's loss and LoRA gradients on fixed rollouts, and TRL's advantages.

    python tests/oracle/trl_losses.py

The base model is tests/fixtures/decoder/qwen2 (decoder.py); the adapter, with nonzero B, is written in PEFT's format.
The losses come from GRPOTrainer's `_compute_loss` in f32, the gradients from a backward pass through it, and the advantages
from its `_generate_and_score_completions` with given rewards instead of generated ones.

`cases.json` contains the inputs and the loss; `gradients.safetensors` contains one tensor for every case and adapter
tensor, named `CASE/TENSOR`. Every case is one optimizer update in one micro-batch (gradient accumulation 1, one step per
generation), so the divisors are the ones that `normalizer` describes in each case.
"""

import json
import shutil
import tempfile
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

FIXTURES = Path(__file__).parent.parent / "fixtures"
BASE = FIXTURES / "decoder" / "qwen2"
OUT = FIXTURES / "trl"
GENERATIONS = 4
LONGEST = 10
PROMPT_LENGTHS = [9, 3, 6]
LENGTHS = [1, 7, 4, 10, 3, 10, 1, 6, 2, 10, 8, 5]
# Two of the three longest completions have no end token.
TRUNCATED = [3, 9]
ADVANTAGES = [1.25, -0.75, 0.5, -1.0, -0.25, 0.875, -1.5, 0.875, 0.0, 1.375, -0.625, -0.5]
EOS, PAD = 1, 0
NORMALIZERS = {
    "grpo": "each completion's mean over its own tokens, then the mean over all completions, masked ones counted",
    "bnpo": "unmasked completion tokens of the micro-batch",
    "dr_grpo": "completions, masked ones counted, times max_completion_length",
    "dapo": "num_items_in_batch: unmasked completion tokens of the generation batch, here the whole batch",
    "cispo": "num_items_in_batch: unmasked completion tokens of the generation batch, here the whole batch",
}
CASES = {
    "grpo": dict(loss_type="grpo"),
    "grpo-on-policy": dict(loss_type="grpo", old=False),
    "grpo-temperature": dict(loss_type="grpo", temperature=0.7),
    "grpo-masked": dict(loss_type="grpo", mask_truncated=True),
    "grpo-delta": dict(loss_type="grpo", delta=1.4, epsilon_high=0.28),
    "grpo-kl": dict(loss_type="grpo", beta=0.04),
    "grpo-kl-on-policy": dict(loss_type="grpo", beta=0.04, old=False),
    "grpo-entropy": dict(loss_type="grpo", entropy_coef=0.05),
    "dapo": dict(loss_type="dapo", epsilon_high=0.28),
    "dapo-masked": dict(loss_type="dapo", epsilon_high=0.28, mask_truncated=True),
    "dr_grpo": dict(loss_type="dr_grpo"),
    "bnpo": dict(loss_type="bnpo"),
    "gspo": dict(loss_type="grpo", level="sequence", epsilon=0.05),
    "gspo-kl": dict(loss_type="grpo", level="sequence", epsilon=0.05, beta=0.04),
    "cispo": dict(loss_type="cispo", epsilon_high=1.3),
}


def tokenizer() -> PreTrainedTokenizerFast:
    """The trainer requires one; there is no text here."""
    words = Tokenizer(WordLevel({f"w{i}": i for i in range(96)}, unk_token="w2"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0", eos_token="w1", unk_token="w2")


def adapted(generator: torch.Generator) -> None:
    """Writes the adapter: A as PEFT initializes it, B random."""
    torch.manual_seed(7)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32), config)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "lora_B" in name:
                tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
    model.save_pretrained(OUT / "adapter")
    (OUT / "adapter" / "README.md").unlink(missing_ok=True)
    # The test knows where the base model is, and a path would reveal the machine that ran this.
    path = OUT / "adapter" / "adapter_config.json"
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = "tests/fixtures/decoder/qwen2"
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def trainer(folder: str, *, loss_type="grpo", level="token", epsilon=0.2, epsilon_high=None, delta=None, beta=0.0,
            temperature=1.0, entropy_coef=0.0, scale_rewards="group", reward_funcs=None, generations=GENERATIONS,
            groups=len(PROMPT_LENGTHS), **_) -> GRPOTrainer:
    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32, attn_implementation="eager")
    made = GRPOTrainer(
        model=PeftModel.from_pretrained(model, OUT / "adapter", is_trainable=True),
        processing_class=tokenizer(),
        reward_funcs=reward_funcs or [lambda completions, **_: [0.0] * len(completions)],
        train_dataset=Dataset.from_list([{"prompt": "w3"}] * 8),
        args=GRPOConfig(
            output_dir=folder,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            per_device_train_batch_size=groups * generations,
            num_generations=generations,
            max_completion_length=LONGEST,
            temperature=temperature,
            loss_type=loss_type,
            importance_sampling_level=level,
            epsilon=epsilon,
            epsilon_high=epsilon_high,
            delta=delta,
            beta=beta,
            # By default TRL multiplies the KL divergence by the ratio (DeepSeek-V3.2); `rft` uses GRPO's plain term.
            use_bias_correction_kl=False,
            entropy_coef=entropy_coef,
            scale_rewards=scale_rewards,
        ),
    )
    made.model.train()
    made.current_gradient_accumulation_steps = 1  # the training loop sets it
    assert made.args.steps_per_generation == 1
    return made


def pad(rows: list[list[int]], left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows))
    blank = [[PAD] * (width - len(row)) for row in rows]
    ids = [space + row if left else row + space for row, space in zip(rows, blank)]
    ones = [[1] * len(row) for row in rows]
    zero = [[0] * len(space) for space in blank]
    mask = [off + on if left else on + off for on, off in zip(ones, zero)]
    return torch.tensor(ids), torch.tensor(mask)


def values(tensor: torch.Tensor) -> list[list[float]]:
    """The entries of the completions only; f32 numbers in decimals that parse to the same f32."""
    return [row[:length].tolist() for row, length in zip(tensor.detach(), LENGTHS)]


def losses(folder: str) -> None:
    generator = torch.Generator().manual_seed(0)
    adapted(generator)

    def draw(length: int) -> list[int]:
        return torch.randint(2, 96, (length,), generator=generator).tolist()

    prompts = [draw(length) for length in PROMPT_LENGTHS]
    completions = [draw(length) for length in LENGTHS]
    for i, completion in enumerate(completions):
        if i not in TRUNCATED:
            completion[-1] = EOS
    prompt_ids, prompt_mask = pad([prompt for prompt in prompts for _ in range(GENERATIONS)], left=True)
    completion_ids, completion_mask = pad(completions, left=False)
    noise = torch.rand(completion_ids.shape, generator=generator) - 0.5

    gradients, written = {}, []
    for name, options in CASES.items():
        made = trainer(folder, **options)
        input_ids = torch.cat([prompt_ids, completion_ids], dim=1)
        attention_mask = torch.cat([prompt_mask, completion_mask], dim=1)

        def logprobs():
            with torch.no_grad():
                return made._get_per_token_logps_and_entropies(
                    made.model, input_ids, attention_mask, LONGEST, compute_entropy=True
                )[:2]

        current, entropy = logprobs()
        with made.model.disable_adapter():
            reference, _ = logprobs()
        mask = completion_mask.clone()
        if options.get("mask_truncated"):
            mask[TRUNCATED] = 0
        inputs = dict(
            prompt_ids=prompt_ids,
            prompt_mask=prompt_mask,
            completion_ids=completion_ids,
            completion_mask=mask,
            advantages=torch.tensor(ADVANTAGES),
            num_items_in_batch=mask.sum(),
        )
        if options.get("old", True):
            inputs["old_per_token_logps"] = (current + noise) * completion_mask
        if options.get("beta"):
            inputs["ref_per_token_logps"] = reference * completion_mask
        loss = made._compute_loss(made.model, inputs)
        loss.backward()
        for tensor, parameter in made.model.named_parameters():
            if parameter.requires_grad:
                gradients[f"{name}/{tensor.replace('.default', '')}"] = parameter.grad.clone()
        old, metrics = inputs.get("old_per_token_logps"), made._metrics["train"]
        written.append(
            dict(
                name=name,
                loss_type="gspo" if options.get("level") == "sequence" else options["loss_type"],
                epsilon=options.get("epsilon", 0.2),
                epsilon_high=options.get("epsilon_high"),
                delta=options.get("delta"),
                beta=options.get("beta", 0.0),
                entropy_coef=options.get("entropy_coef", 0.0),
                temperature=options.get("temperature", 1.0),
                masked=[bool(options.get("mask_truncated")) and i in TRUNCATED for i in range(len(LENGTHS))],
                normalizer=NORMALIZERS[options["loss_type"]],
                num_items_in_batch=int(mask.sum()),
                old=None if old is None else values(old),
                logprobs=values(current),
                reference=values(reference) if options.get("beta") else None,
                entropy=values(entropy),
                loss=loss.item(),
                metrics={key: list_[0] for key, list_ in metrics.items()},
            )
        )
        clipped = {key: round(list_[0], 3) for key, list_ in metrics.items() if "clip" in key}
        print(name, loss.item(), clipped)
    batch = dict(
        base="tests/fixtures/decoder/qwen2",
        adapter="tests/fixtures/trl/adapter",
        max_completion_length=LONGEST,
        groups=[
            dict(prompt=prompt, completions=completions[g * GENERATIONS : (g + 1) * GENERATIONS])
            for g, prompt in enumerate(prompts)
        ],
        advantages=ADVANTAGES,
    )
    lines = ",\n".join(json.dumps(case) for case in written)
    (OUT / "cases.json").write_text(f'{{"batch": {json.dumps(batch)},\n"cases": [\n{lines}\n]}}\n')
    save_file(gradients, OUT / "gradients.safetensors")


REWARDS = {
    "binary": [[0, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 1]],
    "halves": [[0, 0.5, 1, 0.5], [0.5, 0.5, 0.5, 0.5], [1, 0.5, 0.5, 0.5]],
    # Powers of two, so that f32 means are exact and only the small deviation matters.
    "nearly flat": [[0.5, 0.5 + 2**-13, 0.5, 0.5], [0.25, 0.25, 0.25 + 2**-13, 0.25 - 2**-13]],
    "any": [[0.3, -1.7, 2.25, 0.1, 0.05, -0.6], [10, 10.5, 9, 11.25, 10, 10]],
    "all flat": [[1, 1], [0, 0]],
}


def advantages(folder: str) -> None:
    cases = []
    for name, rewards in REWARDS.items():
        flat = [float(reward) for group in rewards for reward in group]
        for scale in ("group", "batch", "none"):
            made = trainer(folder, scale_rewards=scale, generations=len(rewards[0]), groups=len(rewards))
            made._calculate_rewards = lambda *_: torch.tensor(flat).unsqueeze(1)
            count = len(flat)
            made._generate = lambda prompts: ([[3]] * count, [[EOS]] * count, None, [""] * count, None, {}, None, None)
            output = made._generate_and_score_completions([{"prompt": "w3"} for _ in flat])
            metrics = made._metrics["train"]
            width = len(rewards[0])
            rows = output["advantages"].view(-1, width).tolist()
            keep = {key: metrics[key][0] for key in ("reward", "reward_std", "frac_reward_zero_std")}
            cases.append(dict(name=name, scale_rewards=scale, rewards=rewards, advantages=rows, metrics=keep))
    lines = ",\n".join(json.dumps(case) for case in cases)
    (OUT / "advantages.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        losses(folder)
        advantages(folder)
