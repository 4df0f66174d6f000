"""Serves a model folder like the Hub would serve `org/name`, but interrupts each file's first download halfway.

    python tests/oracle/hub_stub.py shard FOLDER OUT     splits model.safetensors into shards of 1 GB with an index
    python tests/oracle/hub_stub.py serve FOLDER PORT    then: HF_ENDPOINT=http://127.0.0.1:PORT rft ... --model org/name
"""

import hashlib
import json
import shutil
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SHARD = 1 << 30
CHUNK = 1 << 20


def shard(folder: Path, out: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    out.mkdir(parents=True)
    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            shutil.copy(file, out)
    with safe_open(folder / "model.safetensors", "pt") as tensors:
        shards, size = [[]], 0
        for name in tensors.keys():
            bytes_ = tensors.get_tensor(name).nbytes
            if shards[-1] and size + bytes_ > SHARD:
                shards.append([])
                size = 0
            shards[-1].append(name)
            size += bytes_
        files = [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
        for file, names in zip(files, shards):
            save_file({name: tensors.get_tensor(name) for name in names}, out / file, {"format": "pt"})
    index = {name: file for file, names in zip(files, shards) for name in names}
    (out / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def serve(folder: Path, port: int) -> None:
    files = {file.name: file for file in folder.iterdir()}
    listing = []
    for name, file in sorted(files.items()):
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        entry = {"rfilename": name, "size": file.stat().st_size, "blobId": digest[:40]}
        if file.suffix == ".safetensors":
            entry["lfs"] = {"sha256": digest, "size": file.stat().st_size, "pointerSize": 130}
        listing.append(entry)
    whole_next_time = set()

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.rpartition("/")[2]
            if self.path.startswith("/api/"):
                body = json.dumps({"sha": COMMIT, "siblings": listing}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            elif name not in files:
                self.send_error(404)
            else:
                self.send_file(name)

        def send_file(self, name: str):
            size = files[name].stat().st_size
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
            self.send_response(206 if "Range" in self.headers else 200)
            self.send_header("Content-Length", str(size - start))
            if "Range" in self.headers:
                self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
            self.end_headers()
            end = size if name in whole_next_time else start + (size - start) // 2
            whole_next_time.add(name)
            with files[name].open("rb") as file:
                file.seek(start)
                while start < end:
                    start += self.wfile.write(file.read(min(CHUNK, end - start)))
            self.close_connection = True

    ThreadingHTTPServer(("127.0.0.1", port), Hub).serve_forever()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["shard", folder, out]:
            shard(Path(folder), Path(out))
        case ["serve", folder, port]:
            serve(Path(folder), int(port))
        case _:
            sys.exit(__doc__)
