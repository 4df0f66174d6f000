#!/usr/bin/env bash
# Compiles every CUDA kernel and prints its registers, shared memory, stack and spills for each architecture. Fails if nvcc
# prints a warning or a kernel spills registers to memory.
#
#   scripts/kernel-report.sh [sm_80 sm_90 ...]      NVCC is the compiler (default: nvcc, then $CUDA_HOME/bin/nvcc)
#
# Default: compute capability 8.0, 9.0, 10.0 and 12.0, which need nvcc 12.8 or later. Takes half a minute on 2 cores.
set -euo pipefail
cd "$(dirname "$0")/../src/device/cuda/kernels"
nvcc=${NVCC:-$(command -v nvcc || echo "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc")}
[ -x "$nvcc" ] || { echo "nvcc not found: add it to PATH or set NVCC" >&2; exit 2; }
[ $# -gt 0 ] || set -- sm_80 sm_90 sm_100 sm_120
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
export nvcc out

# Writes the table rows of a file for one architecture.
report() {
  local file=$1 arch=$2 log=$out/$1.$2
  "$nvcc" -cubin -O3 -std=c++17 -arch="$arch" -Werror all-warnings -Xptxas=-v "$file" -o "$log.cubin" 2>"$log" ||
    { cat "$log" >&2; return 1; }
  awk -v arch="$arch" -v file="$file" '
    # Lines belong to a kernel only if they follow its name.
    /Compiling entry function/ { split($0, quoted, "\x27"); kernel = quoted[2] }
    /Function properties for/ { mine = $NF == kernel }
    /spill stores/ && mine { stack = $1; stores = $5; loads = $9 }
    / Used [0-9]+ registers/ {
      shared = 0
      for (i = 1; i < NF; i++) { if ($i == "Used") registers = $(i + 1); if ($(i + 1) == "bytes" && $(i + 2) ~ /^smem/) shared = $i }
      print kernel, arch, registers, shared, stack, stores, loads, file
    }' "$log" >"$log.table"
}
export -f report

for file in *.cu; do for arch in "$@"; do echo "$file" "$arch"; done; done |
  xargs -P "$(nproc)" -L 1 bash -euc 'report "$0" "$1"' || { echo "some kernels do not compile without warnings" >&2; exit 1; }
sort -k8,8 -k1,1 -k2,2 "$out"/*.table >"$out/table"

# Shared memory is the static part; the dynamic part is in the kernel's comment.
{ echo "kernel arch registers shared stack spill_stores spill_loads file"; cat "$out/table"; } | column -t
awk '$6 + $7 > 0 { print $1 " (" $2 ") spills registers" > "/dev/stderr"; bad = 1 } END { exit bad }' "$out/table"
