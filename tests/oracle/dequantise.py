"""Writes the weights of a GGUF file, dequantized by transformers, as a plain f32 Hugging Face folder.

    python tests/oracle/dequantise.py FOLDER/model.gguf OUT
"""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main(gguf: Path, out: Path) -> None:
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = loaded.config
    # transformers refuses to save a model that came from GGUF, so the tensors are copied to a model built from the config.
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.tie_word_embeddings = torch.equal(loaded.lm_head.weight, loaded.model.embed_tokens.weight)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    missing, unexpected = model.load_state_dict(loaded.state_dict(), strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
