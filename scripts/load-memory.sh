#!/usr/bin/env bash
# Measures the host memory used to load weights onto a GPU. Creates checkpoints of random bf16 weights in several shards, of
# about 1 and 4 GB, loads each on the emulated device (tests/device), and samples the anonymous memory of the process without
# that of the emulated device. The peak must be below 512 MB and equal within 10 % for both.
#
#   scripts/load-memory.sh BINARY DEVICE [SIZE ...]
#
# BINARY is `rft`, DEVICE the output folder of `tests/device/build.sh`, SIZE a number of GB (default: 1 4). Needs Python
# without packages, and space for the checkpoints in TMPDIR.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=${1:?usage: scripts/load-memory.sh BINARY DEVICE [SIZE ...]}
device=${2:?usage: scripts/load-memory.sh BINARY DEVICE [SIZE ...]}
shift 2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" - "$(realpath "$binary")" "$(realpath "$device")" "$folder" "${@:-1 4}" <<'PY'
import json, os, random, shutil, struct, subprocess, sys, time

binary, device, folder, *sizes = sys.argv[1:]
sizes = [float(size) for argument in sizes for size in argument.split()]
LIMIT_MB, WITHIN = 512, 0.10
# A small hidden size with a large model's vocabulary: the embedding alone is 0.6 GB.
HIDDEN, INNER, HEADS, KV, DIM, VOCAB = 2048, 8192, 16, 4, 128, 152_064
LAYER = [
    ("input_layernorm.weight", [HIDDEN]),
    ("self_attn.q_proj.weight", [HEADS * DIM, HIDDEN]), ("self_attn.q_proj.bias", [HEADS * DIM]),
    ("self_attn.k_proj.weight", [KV * DIM, HIDDEN]), ("self_attn.k_proj.bias", [KV * DIM]),
    ("self_attn.v_proj.weight", [KV * DIM, HIDDEN]), ("self_attn.v_proj.bias", [KV * DIM]),
    ("self_attn.o_proj.weight", [HIDDEN, HEADS * DIM]),
    ("post_attention_layernorm.weight", [HIDDEN]),
    ("mlp.gate_proj.weight", [INNER, HIDDEN]), ("mlp.up_proj.weight", [INNER, HIDDEN]),
    ("mlp.down_proj.weight", [HIDDEN, INNER]),
]
random.seed(1)
# Finite bf16 values: the upper halves of small f32 numbers.
BLOCK = b"".join(struct.pack("<f", random.gauss(0, 0.02))[2:] for _ in range(1 << 19))

def length(shape):
    count = 2
    for size in shape:
        count *= size
    return count

def write_shard(path, tensors):
    header, at = {}, 0
    for name, shape in tensors:
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + length(shape)]}
        at += length(shape)
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        while at > 0:
            start = random.randrange(0, 1 << 18) & ~1
            at -= file.write(BLOCK[start:start + min(at, len(BLOCK) - start)])

def make(path, size):
    layers = max(1, round((size * 1e9 - length([VOCAB, HIDDEN])) / sum(length(shape) for _, shape in LAYER)))
    os.makedirs(path)
    config = {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": HIDDEN, "intermediate_size": INNER,
        "num_attention_heads": HEADS, "num_key_value_heads": KV, "num_hidden_layers": layers, "vocab_size": VOCAB,
        "rms_norm_eps": 1e-6, "rope_theta": 1e6, "max_position_embeddings": 4096, "tie_word_embeddings": True,
        "eos_token_id": 0,
    }
    with open(f"{path}/config.json", "w") as file:
        json.dump(config, file)
    shutil.copy("assets/tiny/tokenizer.json", path)
    tensors = [("model.embed_tokens.weight", [VOCAB, HIDDEN]), ("model.norm.weight", [HIDDEN])]
    tensors += [(f"model.layers.{i}.{name}", shape) for i in range(layers) for name, shape in LAYER]
    places, shard, number = {}, [], 0
    while tensors:
        shard.append(tensors.pop(0))
        if not tensors or sum(length(shape) for _, shape in shard) > 8e8:
            name = f"model-{number:05}.safetensors"
            write_shard(f"{path}/{name}", shard)
            places.update((tensor, name) for tensor, _ in shard)
            shard, number = [], number + 1
    with open(f"{path}/model.safetensors.index.json", "w") as file:
        json.dump({"weight_map": places}, file)
    return number

def anonymous(pid):
    """Bytes of anonymous memory without the emulated device's, which is in mappings of a memory file named `poison`."""
    total, ours = 0, True
    with open(f"/proc/{pid}/smaps") as lines:
        for line in lines:
            word = line.split(None, 1)[0]
            if not word.endswith(":"):
                ours = "memfd:poison" not in line
            elif word == "Anonymous:" and ours:
                total += int(line.split()[1]) << 10
    return total

peaks = []
for size in sizes:
    path = f"{folder}/{size:g}gb"
    shards = make(path, size)
    # A prompt that is too long is refused after the weights are loaded.
    command = [binary, "generate", "--device", "cuda", "--model", path, "--ppe", "none", "--set",
               "rollout.max_prompt_length=1", "--set", "prompt.template=plain", "How many are 3 and 4?"]
    environment = {**os.environ, "LD_LIBRARY_PATH": device, "RFT_EMU_REPORT": f"{folder}/report.json"}
    started, peak, samples = time.time(), 0, 0
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while process.poll() is None:
        try:
            peak, samples = max(peak, anonymous(process.pid)), samples + 1
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            break
        time.sleep(0.01)
    output = process.communicate()[0]
    if "tokens, more than 1" not in output:
        sys.exit(f"the weights were not loaded: {output}")
    copied = json.load(open(f"{folder}/report.json"))["bytes_up"]
    shutil.rmtree(path)
    print(f"{size:g} GB in {shards} shards: {copied / 1e9:.2f} GB copied to the device in {time.time() - started:.1f} s, "
          f"peak {peak / 1e6:.0f} MB of anonymous memory ({samples} samples)", flush=True)
    peaks.append(peak)
if max(peaks) >= LIMIT_MB * 1e6:
    sys.exit(f"FAILED: {max(peaks) / 1e6:.0f} MB, above the limit of {LIMIT_MB} MB")
if max(peaks) > (1 + WITHIN) * min(peaks):
    sys.exit(f"FAILED: the peaks differ by {100 * (max(peaks) / min(peaks) - 1):.0f} %")
print("ok")
PY
