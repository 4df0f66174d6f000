#!/bin/sh
# Builds the emulated CUDA device. `build.sh KERNELS OUT` compiles the kernels in the folder KERNELS and the driver into the folder
# OUT; a program finds them with LD_LIBRARY_PATH=OUT. `build.sh KERNELS OUT BUILT` reuses the driver from BUILT, the OUT of an
# earlier build. Needs g++ (or CXX), but not CUDA. EXTRA adds compiler flags.
set -eu
kernels=$(cd "$1" && pwd)
mkdir -p "$2/kernels" "$2/build/names"
out=$(cd "$2" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
cxx=${CXX:-g++}

common="-std=c++17 -O2 -march=native -w -fno-strict-aliasing -fPIC -fvisibility=hidden -DEMULATED_DEVICE_LIBRARY -I$here"
# No contraction to fused operations: kernels request them explicitly where they need them. Thread-local variables are shared
# memory, found through their library: see __shared__. The index and alignment checks take a seventh of the run time.
kernel_flags="$common -ffp-contract=off -fno-gnu-unique -fno-semantic-interposition -fno-plt -ftls-model=local-dynamic
-fsanitize=alignment,bounds,shift,signed-integer-overflow -fsanitize-undefined-trap-on-error"
kernel_flags=$(echo $kernel_flags)
driver_flags="$common -pthread"

# Find the kernels' names in the preprocessed text, with empty files instead of the device's headers.
: >"$out/build/names/device.h"
: >"$out/build/names/tensor.h"
for file in "$kernels"/*.cu; do
    stem=$(basename "$file" .cu)
    {
        echo "#include \"kernel.h\""
        echo "#include \"$file\""
        echo "KERNEL_LIBRARY(\"$stem.cu\""
        $cxx -E -P -x c++ -std=c++17 -I"$out/build/names" -I"$kernels" ${EXTRA:-} "$file" | tr '\n' ' ' |
            grep -oE 'extern "C" __global__ void *(__launch_bounds__ *\([^()]*\))? *[A-Za-z_0-9]+ *\(' |
            sed -E 's/.*void *(__launch_bounds__ *\(([^()]*)\))? *([A-Za-z_0-9]+) *\(/, KERNEL(\3, \2)/; s/, \)/)/'
        echo ")"
    } >"$out/build/$stem.cpp"
    echo "$cxx $kernel_flags -I$kernels ${EXTRA:-} -shared $out/build/$stem.cpp -o $out/kernels/$stem.so"
done >"$out/build/commands"
if [ $# -lt 3 ]; then
    # The slowest files to compile first.
    for part in driver blas report device memory workers; do
        echo "$cxx $driver_flags ${EXTRA:-} -c $here/$part.cpp -o $out/build/$part.o"
    done >>"$out/build/commands"
fi
xargs -P "${JOBS:-$(nproc)}" -I{} sh -c "{}" <"$out/build/commands"
if [ $# -lt 3 ]; then
    $cxx -shared -pthread ${EXTRA:-} -o "$out/libcuda.so.1" "$out"/build/*.o -Wl,-soname,libcuda.so.1 -ldl
else
    # A copy, because the library loads the kernels next to it.
    cp "$3/libcuda.so.1" "$out"
fi
for name in libcublasLt.so.12 libcublasLt.so.13; do ln -sf libcuda.so.1 "$out/$name"; done
