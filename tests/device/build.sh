#!/bin/sh
# Builds the emulated CUDA device: `build.sh KERNELS OUT` compiles the kernels in the folder KERNELS and the driver into
# the folder OUT, where a program finds them with LD_LIBRARY_PATH=OUT. It needs g++ (or CXX) and nothing of CUDA.
# `build.sh KERNELS OUT FILE.cu ...` compiles only these files again into an OUT that is there. EXTRA adds compiler flags.
set -eu
kernels=$(cd "$1" && pwd)
mkdir -p "$2/kernels" "$2/build/names"
out=$(cd "$2" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
cxx=${CXX:-g++}
shift 2
[ $# -gt 0 ] && only=yes || only=

# No contraction to fused operations: where a kernel needs one it says so. Casts between vector types are common in
# kernels. Thread-local variables are shared memory, found by their library: see __shared__.
common="-std=c++17 -O2 -march=native -w -fno-strict-aliasing -fPIC -fvisibility=hidden -DEMULATED_DEVICE_LIBRARY -I$here"
kernel_flags="$common -ffp-contract=off -fno-gnu-unique -fno-semantic-interposition -fno-plt -ftls-model=local-dynamic"
driver_flags="$common -pthread"

# The kernels' names are found in the preprocessed text, with nothing in place of the device's headers.
: >"$out/build/names/device.h"
: >"$out/build/names/tensor.h"
[ $only ] || set -- "$kernels"/*.cu
for file in "$@"; do
    file=$kernels/$(basename "$file")
    stem=$(basename "$file" .cu)
    {
        echo "#include \"kernel.h\""
        echo "#include \"$file\""
        echo "KERNEL_LIBRARY(\"$stem.cu\""
        $cxx -E -P -x c++ -std=c++17 -I"$out/build/names" -I"$kernels" "$file" | tr '\n' ' ' |
            grep -oE 'extern "C" __global__ void *(__launch_bounds__ *\([^()]*\))? *[A-Za-z_0-9]+ *\(' |
            sed -E 's/.*void *(__launch_bounds__ *\(([^()]*)\))? *([A-Za-z_0-9]+) *\(/, KERNEL(\3, \2)/; s/, \)/)/'
        echo ")"
    } >"$out/build/$stem.cpp"
    echo "$cxx $kernel_flags -I$kernels -shared $out/build/$stem.cpp -o $out/kernels/$stem.so ${EXTRA:-}"
done >"$out/build/commands"
# The slowest to compile first.
for part in driver blas memory device workers report; do
    [ -e "$here/$part.cpp" ] && [ ! $only ] || continue
    flags=$driver_flags
    [ $part = device ] && flags="$driver_flags -ffp-contract=off"
    echo "$cxx $flags -c $here/$part.cpp -o $out/build/$part.o ${EXTRA:-}"
done >>"$out/build/commands"
xargs -P "${JOBS:-$(nproc)}" -I{} sh -c "{}" <"$out/build/commands"
[ ! $only ] || exit 0
$cxx -shared -pthread -o "$out/libcuda.so.1" "$out"/build/*.o -Wl,-soname,libcuda.so.1 -ldl ${EXTRA:-}
for name in libcublasLt.so.12 libcublasLt.so.13; do ln -sf libcuda.so.1 "$out/$name"; done
