"""The reverse KL divergence of a head's distributions from a teacher's, and its gradients by PyTorch, for tests/it/distill.rs.

    pip install torch
    python tests/oracle/distill.py > tests/fixtures/distill.json

Everything is computed in f64 from values that f32 can represent.
"""

import json

import torch
from torch.nn.functional import kl_div, log_softmax

HIDDEN, VOCAB, ROWS = 6, 37, 5
# Pairs share a row, as the first tokens of a group's completions do.
PAIRS = [(0, 3), (0, 11), (1, 0), (2, 36), (4, 20), (4, 20), (3, 1)]
TEMPERATURES = [1.0, 0.6, 1.7]


def numbers(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator)


def case(temperature):
    weight, hidden = numbers(0, HIDDEN, VOCAB), numbers(1, ROWS, HIDDEN)
    teacher, weights = numbers(2, len(PAIRS), HIDDEN), numbers(3, len(PAIRS)).abs()
    leaf = hidden.double().requires_grad_()
    logits = (leaf @ weight.double())[[row for row, _ in PAIRS]]
    logits.retain_grad()
    own = log_softmax(logits / temperature, 1)
    other = log_softmax(teacher.double() @ weight.double() / temperature, 1)
    # kl_div(a, b) is the divergence of b from a.
    kl = kl_div(other, own, reduction="none", log_target=True).sum(1)
    (weights.double() * kl).sum().backward()
    targets = torch.tensor([target for _, target in PAIRS]).unsqueeze(1)
    return dict(
        temperature=temperature,
        head=weight.flatten().tolist(),
        hidden=hidden.flatten().tolist(),
        teacher=teacher.flatten().tolist(),
        weights=weights.tolist(),
        pairs=PAIRS,
        kl=kl.tolist(),
        logprob=own.gather(1, targets).squeeze(1).tolist(),
        entropy=(-own.exp() * own).sum(1).tolist(),
        d_logits=logits.grad.flatten().tolist(),
        d_hidden=leaf.grad.flatten().tolist(),
    )


def rounded(value):
    """Nine digits determine an f32, and are more than its results need."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    return [rounded(it) for it in value] if isinstance(value, list) else value


lines = ",\n".join(json.dumps({key: rounded(value) for key, value in case(t).items()}) for t in TEMPERATURES)
print(f"[{lines}]")
