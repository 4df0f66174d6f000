"""llama.cpp's server with a model and, if one is given, an adapter. Used by scripts/llama-cpp-rollouts.sh.

    python tests/oracle/llama_cpp_server.py MODEL.gguf PORT [ADAPTER.gguf]
"""
import signal
import sys

import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.port = int(sys.argv[2])
if len(sys.argv) > 3:
    adapter = xllamacpp.CommonAdapterLoraInfo()
    adapter.path = sys.argv[3]
    adapter.scale = 1.0
    params.lora_adapters = [adapter]
params.n_ctx = 4 * 512
params.n_parallel = 4
params.n_gpu_layers = 0
params.cpuparams.n_threads = 1
params.cpuparams_batch.n_threads = 1
params.cache_type_k = xllamacpp.ggml_type.GGML_TYPE_F32
params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
params.warmup = False
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
signal.pause()
