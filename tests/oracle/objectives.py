"""Loss, gradients and metrics of TRL's GRPOTrainer on fixed log-probabilities, for tests/it/objectives.rs.

    pip install torch trl==1.16.* peft
    python tests/oracle/objectives.py > tests/fixtures/objectives.json

The trainer's `_compute_loss` runs on a substitute for `self`, whose model call returns leaf tensors instead of a model's
log-probabilities and entropies. Each case is one optimizer update in one micro-batch.
"""

import json
from collections import defaultdict
from types import MethodType, SimpleNamespace

import torch
from trl import GRPOTrainer

LENGTHS = [5, 2, 7, 1, 4, 3]
LONGEST = 8
TRUNCATED = [False, False, True, False, False, False]
ADVANTAGES = [1.3, -0.8, 0.6, -1.1, 0.0, 0.45]


class Accelerator:
    num_processes = 1
    sync_gradients = True

    def gather(self, tensor):
        return tensor

    def reduce(self, tensor, reduction):
        return tensor

    gather_for_metrics = gather


def trainer(loss_type, level, *, epsilon, epsilon_high, delta, beta, entropy_coef, updates, forward):
    stand_in = SimpleNamespace(
        accelerator=Accelerator(),
        args=SimpleNamespace(delta=delta, use_bias_correction_kl=False, steps_per_generation=updates),
        model=SimpleNamespace(training=True),
        aux_loss_enabled=False,
        beta=beta,
        current_gradient_accumulation_steps=1,
        entropy_coef=entropy_coef,
        epsilon_high=epsilon_high,
        epsilon_low=epsilon,
        importance_sampling_level=level,
        loss_type=loss_type,
        max_completion_length=LONGEST,
        off_policy_mask_threshold=None,
        top_entropy_quantile=1.0,
        use_adaptive_entropy=False,
        use_vllm=False,
        _entropy_bonus_enabled=entropy_coef != 0.0,
        _metrics={"train": defaultdict(list)},
    )
    stand_in._get_per_token_logps_and_entropies = lambda *_, **__: (*forward, None)
    stand_in._compute_loss = MethodType(GRPOTrainer._compute_loss, stand_in)
    return stand_in


def numbers(seed, low, high):
    """(completions, longest) of f32 values, so that JSON contains the exact values that both sides use."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(len(LENGTHS), max(LENGTHS), generator=generator) * (high - low) + low


def rows(tensor):
    return [row[:length].tolist() for row, length in zip(tensor, LENGTHS)]


def main():
    logprobs, entropy = numbers(0, -3.0, -0.05), numbers(1, 0.0, 2.5)
    # Shifts of whole completions, so that the ratios of whole completions are clipped too, on both sides.
    shift = torch.tensor([-0.4, 0.35, 0.1, -0.5, 0.0, -0.1]).unsqueeze(1)
    old, reference = logprobs + shift + numbers(2, -0.4, 0.4), logprobs + numbers(3, -0.5, 0.5)
    mask = torch.tensor([[t < length for t in range(max(LENGTHS))] for length in LENGTHS]).int()
    kept = mask * ~torch.tensor(TRUNCATED).unsqueeze(1)

    cases = []
    for name in ["grpo", "dapo", "dr_grpo", "bnpo", "gspo", "cispo"]:
        loss_type, level = ("grpo", "sequence") if name == "gspo" else (name, "token")
        for variant in [
            {},
            {"old": True},
            {"old": True, "masked": True},
            {"old": True, "delta": 1.4},
            {"old": True, "beta": 0.04},
            {"old": True, "entropy_coef": 0.02, "masked": True},
            {"old": True, "beta": 0.1, "entropy_coef": 0.01, "delta": 1.5, "updates": 4, "rollout_tokens": 70},
        ]:
            options = dict(
                epsilon=0.2,
                epsilon_high=1.3 if name == "cispo" else 0.28,
                delta=variant.get("delta"),
                beta=variant.get("beta", 0.0),
                entropy_coef=variant.get("entropy_coef", 0.0),
                updates=variant.get("updates", 1),
            )
            leaves = [logprobs.clone().requires_grad_(), entropy.clone().requires_grad_()]
            used = kept if variant.get("masked") else mask
            stand_in = trainer(loss_type, level, forward=leaves, **options)
            nothing = torch.zeros(len(LENGTHS), 0, dtype=torch.int)
            inputs = dict(
                prompt_ids=nothing,
                prompt_mask=nothing,
                completion_ids=torch.zeros_like(mask),
                completion_mask=used,
                advantages=torch.tensor(ADVANTAGES),
                num_items_in_batch=torch.tensor(float(variant.get("rollout_tokens", used.sum()))),
                ref_per_token_logps=reference,
            )
            if variant.get("old"):
                inputs["old_per_token_logps"] = old
            loss = stand_in._compute_loss(None, inputs)
            loss.backward()
            entropy_grad = leaves[1].grad if leaves[1].grad is not None else torch.zeros_like(entropy)
            cases.append(
                dict(
                    loss_type=name,
                    **options,
                    old=bool(variant.get("old")),
                    masked=TRUNCATED if variant.get("masked") else [False] * len(LENGTHS),
                    rollout_tokens=variant.get("rollout_tokens"),
                    loss=loss.item(),
                    grad=rows(leaves[0].grad),
                    entropy_grad=rows(entropy_grad),
                    metrics={key: values[0] for key, values in stand_in._metrics["train"].items()},
                )
            )
    batch = dict(
        longest=LONGEST,
        advantages=ADVANTAGES,
        logprobs=rows(logprobs),
        old=rows(old),
        reference=rows(reference),
        entropy=rows(entropy),
    )
    lines = ",\n".join(json.dumps(case) for case in cases)
    print(f'{{"batch": {json.dumps(batch)},\n"cases": [\n{lines}\n]}}')


main()
