"""Memory stays flat, whatever the size of a file: measured in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LIMIT_MIB = 100
SCRIPT = """
import os, re, sys
from builda.fs.layer import diff, unpack_blob, write_layer
source, blob, target, compression = sys.argv[1:]
with open(blob, "w+b") as file:
    root = os.open(source, os.O_RDONLY)
    layer = write_layer(lambda sink: diff(root, sink), file, compression=compression)
    file.seek(0)
    out = os.open(target, os.O_RDONLY)
    unpack_blob(file, compression, out, diff_id=layer.diff_id, whiteouts="plain")
# not ru_maxrss: execve(2) carries over what the parent, a whole test run, had
peak = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]
print(layer.uncompressed_size, int(peak) >> 10)
"""


@pytest.mark.parametrize("compression", ["gzip", pytest.param("zstd", marks=pytest.mark.long)])
@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("sparse", 1 << 30),
        ("random", 160 << 20),
        pytest.param("sparse", 4 << 30, marks=pytest.mark.long),
        pytest.param("random", 512 << 20, marks=pytest.mark.long),
    ],
)
def test_memory_stays_flat(tmp_path: Path, kind: str, size: int, compression: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    make(tmp_path / "in" / "file", kind, size)
    command: list[str | Path] = [
        sys.executable,
        "-c",
        SCRIPT,
        tmp_path / "in",
        tmp_path / "blob",
        tmp_path / "out",
        compression,
    ]
    made, peak = map(int, subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.split())
    assert made > size
    assert peak < LIMIT_MIB
    copy = (tmp_path / "out" / "file").stat()
    assert copy.st_size == size
    if kind == "sparse":
        assert copy.st_blocks * 512 < 1 << 20
    for path in (tmp_path / "in/file", tmp_path / "out/file", tmp_path / "blob"):
        path.unlink()


def make(path: Path, kind: str, size: int) -> None:
    with open(path, "wb") as file:
        if kind == "sparse":
            file.seek(size // 2)
            file.write(b"middle")
            file.truncate(size)
            return
        with open("/dev/urandom", "rb") as source:
            for _ in range(size >> 20):
                file.write(source.read(1 << 20))
