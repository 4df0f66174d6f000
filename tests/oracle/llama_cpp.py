"""Runs a GGUF model and an adapter in llama.cpp, for tests/it/llama_cpp.rs.

    python tests/oracle/llama_cpp.py JOB.json

JOB.json has `model`, `lora` (a path or null), `prompts` (lists of ids), `tokens` (how many greedy tokens to generate), `compared`
(before which of these tokens the log-probabilities of the whole vocabulary are written), `texts` to tokenize and `out`, the
file to write. Keys and values of attention are f32. Needs the package xllamacpp.
"""

import json
import sys
import urllib.request
from pathlib import Path

import xllamacpp as llama


def start(model: str, lora: str | None) -> llama.Server:
    params = llama.CommonParams()
    params.model.path = model
    if lora:
        params.lora_adapters = [llama.CommonAdapterLoraInfo(lora, 1.0)]
    params.n_parallel, params.n_ctx, params.n_gpu_layers = 1, 512, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
    params.cache_type_k = params.cache_type_v = llama.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = llama.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.warmup, params.verbosity = False, -1
    return llama.Server(params)


def main(job: dict) -> None:
    server = start(job["model"], job["lora"])

    def post(path: str, body: dict) -> dict:
        request = urllib.request.Request(server.listening_address + path, json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        return json.load(urllib.request.urlopen(request))

    def next_token(ids: list[int], shown: int) -> dict:
        """The most probable tokens after `ids`. One request per token, so that a token that ends a text is like any other."""
        body = {"prompt": ids, "n_predict": 1, "temperature": 0, "n_probs": shown, "cache_prompt": True}
        return post("/completion", body)["completion_probabilities"][0]["top_logprobs"]

    meta = json.load(urllib.request.urlopen(server.listening_address + "/v1/models"))["data"][0]["meta"]
    vocabulary = meta["n_vocab"]
    tokens, log_probs = [], []
    for prompt in job["prompts"]:
        own, rows = [], []
        for position in range(job["tokens"]):
            compared = position in job["compared"]
            found = next_token(prompt + own, vocabulary if compared else 1)
            if compared:
                row = [0.0] * vocabulary
                for token in found:
                    row[token["id"]] = token["logprob"]
                rows.append(row)
            own.append(found[0]["id"])
        tokens.append(own)
        log_probs.append(rows)
    ids = [post("/tokenize", {"content": text, "add_special": False})["tokens"] for text in job["texts"]]
    Path(job["out"]).write_text(json.dumps({"tokens": tokens, "log_probs": log_probs, "ids": ids}))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
