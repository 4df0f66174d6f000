"""Compares an adapter's gradient that `rft` wrote with PyTorch's, tensor by tensor, on a real model.

    python tests/oracle/same_gradient.py GRADIENT BASE ADAPTER      BASE: a folder, or a .gguf file

GRADIENT is a folder written by `examples/logits.rs --gradient`: the gradient under PEFT's names, and `pack.json` with a prompt
and two completions. Prints the relative error (norm of the difference over the norm) of the worst tensor.
"""

import json
import sys
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file
from same_logits import load

TOLERANCE = 1e-3


def main(written: Path, base: Path, adapter: Path) -> bool:
    model = PeftModel.from_pretrained(load(base), adapter, is_trainable=True).eval()
    pack = json.loads((written / "pack.json").read_text())
    prompt, total = pack["prompt"], 0.0
    for completion, sign in zip(pack["completions"], (1, -1)):
        logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        total = total + sign * logits.log_softmax(-1).gather(1, torch.tensor(completion)[:, None]).sum()
    total.backward()
    ours = load_file(written / "adapter_model.safetensors")
    theirs = {name.replace(".default", ""): p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert ours.keys() == theirs.keys()
    error = {name: ((ours[name] - grad).norm() / grad.norm()).item() for name, grad in theirs.items()}
    worst = max(error, key=error.get)
    whole = lambda tensors: torch.cat([tensors[name].flatten() for name in sorted(tensors)])
    ours, theirs = whole(ours), whole(theirs)
    apart = ((ours - theirs).norm() / theirs.norm()).item()
    print(f"prompt of {len(prompt)} tokens, {len(error)} tensors, norm {theirs.norm():.4f}: error {apart:.2e}")
    print(f"worst tensor {worst}: {error[worst]:.2e}")
    return error[worst] <= TOLERANCE


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    sys.exit(not main(*map(Path, sys.argv[1:])))
