#!/bin/sh
# Writes a GGUF model as a Hugging Face folder, with the weights as they come out of their blocks.
#
#   scripts/gguf-to-folder.sh MODEL.gguf FOLDER [TYPE]     TYPE is f32 (default) or bf16
#
# `rft merge` writes such folders; the adapter that it merges here has no tensors. RFT names the binary (default: rft).
# `rft selftest --model FOLDER` then compares our decoder with candle's on it.
set -eu
[ $# -ge 2 ] || { sed -n '2,7p' "$0" >&2; exit 2; }
adapter=$(mktemp -d)
trap 'rm -r "$adapter"' EXIT
echo '{"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["q_proj"]}' > "$adapter/adapter_config.json"
# A safetensors file of the empty header {}, whose length comes first.
printf '\002\000\000\000\000\000\000\000{}' > "$adapter/adapter_model.safetensors"
"${RFT:-rft}" merge "$adapter" --model "$1" --out "$2" --dtype "${3:-f32}"
