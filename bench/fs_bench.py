"""Throughput of trees and layers: tar, commit, unpack and copy, on whatever file system the given directory is on.

    python bench/fs_bench.py [DIRECTORY]        default: /dev/shm

Each line is the best of three, with the budget that the design sets on a 2-core machine.
"""

from __future__ import annotations

import hashlib
import os
import random
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from builda.fs.layer import diff, unpack_blob, write_layer
from builda.fs.pipeline import WrittenLayer
from builda.fs.sources import Source
from builda.fs.trees.copytree import copy_tree
from builda.fs.trees.directory import TreeTarget
from builda.fs.trees.walk import CopyRequest, FileKey, content_digest
from builda.oci.mediatype import Compression

FILES = 20_000
SMALL_BYTES = 96_000_000
LARGE_MIB = 512


def main() -> None:
    base = Path(tempfile.mkdtemp(prefix="fs-bench-", dir=sys.argv[1] if len(sys.argv) > 1 else "/dev/shm"))
    try:
        small, large, sparse = base / "small", base / "large", base / "sparse"
        make_small(small)
        make_large(large)
        make_sparse(sparse)
        bench(base, small, large, sparse)
    finally:
        shutil.rmtree(base)


def bench(base: Path, small: Path, large: Path, sparse: Path) -> None:
    report("tar + sha256 of 20,000 files (96 MB)", 0.36, lambda: tar_and_hash(small))
    report("layer of 20,000 files, gzip, both digests", 0.90, lambda: commit(small, base / "small.gz"))
    report("layer of 20,000 files, zstd, both digests", None, lambda: commit(small, base / "small.zst", "zstd"))
    report("layer of one random 512 MB file, gzip", 1.60, lambda: commit(large, base / "large.gz"))
    report("layer of one sparse 4 GB file, gzip", None, lambda: commit(sparse, base / "sparse.gz"))
    out = base / "out"
    for name, budget in (("small", 1.0), ("large", None), ("sparse", None)):
        layer = commit(base / name, base / f"{name}.gz")
        size = f"{layer.uncompressed_size >> 20} MiB from {layer.size >> 20} MiB gzip"
        report(
            f"unpack {name}: {size}", budget, partial(unpack, base / f"{name}.gz", layer, base / "out"), base / "out"
        )
    report("copy_tree of 20,000 files, hashed", 0.45, partial(copy, small, out), out)
    remembered: dict[FileKey, bytes] = {}
    report("content digest of 20,000 files", None, lambda: digest(small, {}))
    digest(small, remembered)
    report("content digest, files remembered", 0.10, lambda: digest(small, remembered))
    report("copy_tree of one 512 MB file, hashed", None, partial(copy, large, out), out)
    print(f"peak resident memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB")


def report(name: str, budget: float | None, work: Callable[[], object], out: Path | None = None) -> None:
    best = min(timed(work, out) for _ in range(3))
    print(f"{name:64} {best:6.3f} s" + (f"   budget {budget:.2f}" if budget else ""), flush=True)


def timed(work: Callable[[], object], out: Path | None) -> float:
    if out is not None:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def make_small(path: Path) -> None:
    source = random.Random(1)
    words = [
        bytes(source.choices(b"abcdefghijklmnopqrstuvwxyz_ (){};=\n", k=source.randint(3, 9))) for _ in range(3000)
    ]
    for number in range(FILES):
        directory = path / f"d{number // 100:03}"
        if number % 100 == 0:
            directory.mkdir(parents=True)
        size = int(SMALL_BYTES / FILES * source.uniform(0.2, 1.8))
        (directory / f"file{number % 100:03}.c").write_bytes(b" ".join(source.choices(words, k=size // 6 + 1))[:size])


def make_large(path: Path) -> None:
    path.mkdir()
    source = random.Random(2)
    with open(path / "random", "wb") as file:
        for _ in range(LARGE_MIB):
            file.write(source.randbytes(1 << 20))


def make_sparse(path: Path) -> None:
    path.mkdir()
    with open(path / "disk", "wb") as file:
        file.truncate(4 << 30)
        file.seek(1 << 30)
        file.write(b"middle")


class Hash:
    def __init__(self) -> None:
        self.hash = hashlib.sha256()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.hash.update(data)


def tar_and_hash(path: Path) -> None:
    with opened(path) as root:
        diff(root, Hash())


def commit(path: Path, out: Path, compression: Compression = "gzip") -> WrittenLayer:
    with opened(path) as root, open(out, "wb") as file:
        return write_layer(lambda sink: diff(root, sink), file, compression=compression)


def unpack(blob: Path, layer: WrittenLayer, out: Path) -> None:
    with opened(out) as root, open(blob, "rb") as file:
        unpack_blob(file, layer.compression, root, diff_id=layer.diff_id, whiteouts="overlay")


def copy(source: Path, out: Path) -> None:
    with opened(source) as root, opened(out) as target:
        copy_tree(CopyRequest((Source(root, "."),), "/app", owner=(0, 0)), TreeTarget(target))


def digest(source: Path, remembered: dict[FileKey, bytes]) -> None:
    with opened(source) as root:
        content_digest(CopyRequest((Source(root, "."),), "/app", owner=(0, 0)), remembered=remembered)


class opened:  # reads as a verb
    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def __enter__(self) -> int:
        return self.fd

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


if __name__ == "__main__":
    main()
