#!/usr/bin/env bash
# Compiles every CUDA kernel and prints the registers, shared memory and spills of each, per architecture. Fails where
# nvcc warns and where a kernel spills registers to memory.
#
#   scripts/kernel-report.sh [sm_80 sm_90 ...]      NVCC names the compiler (default: nvcc, then $CUDA_HOME/bin/nvcc)
set -euo pipefail
cd "$(dirname "$0")/../src/device/cuda/kernels"
nvcc=${NVCC:-$(command -v nvcc || echo "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc")}
[ -x "$nvcc" ] || { echo "no nvcc: put it on PATH or name it in NVCC" >&2; exit 2; }
[ $# -gt 0 ] || set -- sm_80 sm_90
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

for file in *.cu; do
  for arch in "$@"; do
    "$nvcc" -cubin -O3 -std=c++17 -arch="$arch" -Werror all-warnings -Xptxas=-v "$file" -o "$out/cubin" 2>"$out/log" ||
      { cat "$out/log" >&2; exit 1; }
    awk -v arch="$arch" -v file="$file" '
      # Only what follows the name of a kernel is of that kernel.
      /Compiling entry function/ { split($0, quoted, "\x27"); kernel = quoted[2] }
      /Function properties for/ { mine = $NF == kernel }
      /spill stores/ && mine { stack = $1; stores = $5; loads = $9 }
      / Used [0-9]+ registers/ {
        shared = 0
        for (i = 1; i < NF; i++) { if ($i == "Used") registers = $(i + 1); if ($(i + 1) == "bytes" && $(i + 2) ~ /^smem/) shared = $i }
        print kernel, arch, registers, shared, stack, stores, loads, file
      }' "$out/log"
  done
done | sort -k8,8 -k1,1 -k2,2 >"$out/table"

# The shared memory is the static part: what a launch adds stands in the kernel's comment.
{ echo "kernel arch registers shared stack spill_stores spill_loads file"; cat "$out/table"; } | column -t
awk '$6 + $7 > 0 { print $1 " (" $2 ") spills registers" > "/dev/stderr"; bad = 1 } END { exit bad }' "$out/table"
