#!/usr/bin/env bash
# Compiles the CUDA kernels to assets/kernels, which every build of rft embeds: machine code for compute capability 8.0 and 9.0,
# and PTX, which the driver compiles for later GPUs. Run it after each change of a kernel; otherwise tests/it/images.rs fails.
#
#   scripts/kernels.sh            write assets/kernels (about 15 seconds on 2 cores)
#   scripts/kernels.sh --check    compile and compare with assets/kernels, without writing; fails if they differ
#
# The compiler is NVRTC 11.8, the oldest version that supports compute capability 9.0, so that old drivers can load its output. It
# is downloaded from PyPI (25 MB, checked by hash) to target/nvrtc, or to the folder NVRTC_DIR. The script needs Python 3 with pip
# on x86-64 Linux, but no GPU, driver or toolkit. The images depend only on the kernels, this compiler and the options below.
set -euo pipefail
cd "$(dirname "$0")/.."
nvrtc=${NVRTC_DIR:-target/nvrtc}
if [ ! -e "$nvrtc/complete" ]; then
  mkdir -p "$nvrtc"
  cat >"$nvrtc/requirements.txt" <<'LOCK'
nvidia-cuda-nvrtc-cu11==11.8.89 --hash=sha256:a8d02f3cba345be56b1ffc3e74d8f61f02bb758dd31b0f20e12277a5a244f756
nvidia-cuda-runtime-cu11==11.8.89 --hash=sha256:92d04069a987e1fbc9213f8376d265df0f7bb42617d44f5eda1f496acea7f2d1
LOCK
  python3 -m pip install --quiet --no-deps --require-hashes --disable-pip-version-check --root-user-action=ignore \
    --target "$nvrtc" --upgrade --requirement "$nvrtc/requirements.txt"
  touch "$nvrtc/complete"
fi
exec python3 - "$nvrtc/nvidia" "$@" <<'PYTHON'
import ctypes, gzip, hashlib, multiprocessing, os, re, sys
from pathlib import Path

SOURCES, IMAGES = Path("src/device/cuda/kernels"), Path("assets/kernels")
TARGETS = ["sm_80", "sm_90", "compute_90"]
OPTIONS = ["-std=c++17", "--ptxas-options=-v"]
CUDA = Path(sys.argv[1]).resolve()
nvrtc = ctypes.CDLL(str(CUDA / "cuda_nvrtc/lib/libnvrtc.so.11.2"))


def call(function, *arguments):
    """Calls an NVRTC function and returns its status."""
    return getattr(nvrtc, "nvrtc" + function)(*arguments)


def text_of(program, what):
    size = ctypes.c_size_t()
    assert call(f"Get{what}Size", program, ctypes.byref(size)) == 0
    buffer = ctypes.create_string_buffer(size.value)
    assert call(f"Get{what}", program, buffer) == 0
    return buffer.raw


def compile_kernels(job):
    """Returns the name of an image, the image, and compiler output that needs attention."""
    source, target = job
    headers = sorted(SOURCES.glob("*.cuh"))
    strings = lambda values: (ctypes.c_char_p * len(values))(*values)
    program = ctypes.c_void_p()
    # All files are passed as text, so that images contain no paths of this machine.
    contents, names = strings([it.read_bytes() for it in headers]), strings([it.name.encode() for it in headers])
    arguments = [source.read_bytes(), source.name.encode(), len(headers), contents, names]
    assert call("CreateProgram", ctypes.byref(program), *arguments) == 0
    options = [*OPTIONS, f"-arch={target}", f"-I{CUDA}/cuda_runtime/include"]
    status = call("CompileProgram", program, len(options), strings([it.encode() for it in options]))
    log = text_of(program, "ProgramLog").rstrip(b"\0").decode()
    if status:
        return f"{source.name} for {target}", None, log
    remarks = [line for line in log.splitlines() if "warning" in line]
    for kernel, stores in re.findall(r"Function properties for (\w+)\n.* (\d+) bytes spill stores", log):
        remarks += [f"{source.name}: {kernel} spills registers on {target}"] if stores != "0" else []
    kind = "CUBIN" if target.startswith("sm") else "PTX"
    # PTX keeps its final zero byte, because the driver takes a pointer without a length.
    return f"{source.stem}.{target}.{kind.lower()}.gz", text_of(program, kind), "\n".join(remarks)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def manifest(images):
    major, minor = ctypes.c_int(), ctypes.c_int()
    assert call("Version", ctypes.byref(major), ctypes.byref(minor)) == 0
    [build] = set(re.findall(rb"V(\d+\.\d+\.\d+)", next(data for name, data in images if ".ptx." in name)))
    assert build.startswith(b"%d.%d." % (major.value, minor.value))
    sources = hashlib.sha256()
    for path in sorted(SOURCES.iterdir()):
        text = path.read_bytes()
        sources.update(b"%s %d\n" % (path.name.encode(), len(text)) + text)
    lines = [
        "# Written by scripts/kernels.sh. docs/kernels.md lists the drivers that can load these images.",
        f'toolkit = "CUDA {build.decode()} (NVRTC)"',
        f"options = {OPTIONS}".replace("'", '"'),
        f"targets = {TARGETS}".replace("'", '"'),
        "# The SHA-256 of the names, lengths and contents of all kernel sources.",
        f'sources = "{sources.hexdigest()}"',
        "",
        "# The SHA-256 of each image, uncompressed.",
        "[images]",
        *(f'"{name}" = "{sha256(data)}"' for name, data in images),
    ]
    return "\n".join(lines) + "\n"


jobs = [(source, target) for source in sorted(SOURCES.glob("*.cu")) for target in TARGETS]
jobs.sort(key=lambda job: -job[0].stat().st_size)  # the longest first
# One process per compilation, because NVRTC's numbering of function calls continues from one compilation to the next.
with multiprocessing.Pool(len(os.sched_getaffinity(0)), maxtasksperchild=1) as pool:
    results = sorted(pool.imap_unordered(compile_kernels, jobs, chunksize=1))
for name, data, remarks in results:
    if data is None:
        sys.exit(f"{name}:\n{remarks}")
    if remarks:
        print(remarks, file=sys.stderr)
images = [(name, data) for name, data, _ in results]

# Existing files with the right contents are kept, because another zlib version may compress to different bytes.
unpacked = {it.name: gzip.decompress(it.read_bytes()) for it in IMAGES.glob("*.gz")}
manifest_file, text = IMAGES / "manifest.toml", manifest(images)
if sys.argv[2:] == ["--check"]:
    names = {name for name, data in [*images, *unpacked.items()] if dict(images).get(name) != unpacked.get(name)}
    if not manifest_file.exists() or manifest_file.read_text() != text:
        names.add(manifest_file.name)
    if names:
        sys.exit("out of date: " + ", ".join(sorted(names)) + "\nhint: run scripts/kernels.sh")
    print(f"{len(images)} images in {IMAGES} are up to date")
else:
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name in unpacked.keys() - dict(images).keys():
        (IMAGES / name).unlink()
    for name, data in images:
        if unpacked.get(name) != data:
            (IMAGES / name).write_bytes(gzip.compress(data, 9, mtime=0))
    manifest_file.write_text(text)
    size = sum(it.stat().st_size for it in IMAGES.iterdir())
    print(f"{len(images)} images in {IMAGES}, {size:,} bytes")
PYTHON
