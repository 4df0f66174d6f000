"""Compares logits that `rft` wrote with those of an adapter in PEFT, or of a merged folder in transformers.

    python tests/oracle/same_logits.py LOGITS.json BASE ADAPTER    BASE: a folder, or a .gguf file
    python tests/oracle/same_logits.py LOGITS.json MERGED

LOGITS.json is a list of `{"ids": [...], "logits": [[...], ...]}`, one row of logits per token. Prints the largest
difference, and with an adapter how much it changes the base model's logits, which must be much more. Fails above 1e-3.
"""

import json
import sys
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

TOLERANCE = 1e-3
MOVED = 0.1


def load(path: Path):
    if path.suffix == ".gguf":
        return AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


@torch.no_grad()
def main(written: Path, base: Path, adapter: Path | None) -> bool:
    model = load(base).eval()
    if adapter:
        model = PeftModel.from_pretrained(model, adapter).eval()
    difference = moved = greatest = 0.0
    sequences = json.loads(written.read_text())
    for sequence in sequences:
        ids, ours = torch.tensor([sequence["ids"]]), torch.tensor(sequence["logits"])
        theirs = model(ids).logits[0]
        assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
        difference = max(difference, (ours - theirs).abs().max().item())
        greatest = max(greatest, theirs.abs().max().item())
        if adapter:
            with model.disable_adapter():
                moved = max(moved, (model(ids).logits[0] - theirs).abs().max().item())
    print(f"{len(sequences)} sequences, logits up to {greatest:.1f}: largest difference {difference:.2e}")
    if adapter:
        print(f"the adapter changes the base model's logits by up to {moved:.2f}")
    return difference <= TOLERANCE and (adapter is None or moved > MOVED)


if __name__ == "__main__":
    match [Path(argument) for argument in sys.argv[1:]]:
        case [written, base]:
            same = main(written, base, None)
        case [written, base, adapter]:
            same = main(written, base, adapter)
        case _:
            sys.exit(__doc__)
    sys.exit(not same)
