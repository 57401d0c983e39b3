"""Compressed streams: readable by everyone, the same whoever was faster, never bigger in memory than they must be."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import subprocess
import zlib
from collections.abc import Callable

import pytest
import zstandard

from builda.errors import CorruptContent, InvalidValue
from builda.fs.compress import BLOCK, ArchiveCompression, compressor, decompressing, sniff
from builda.fs.pipeline import WrittenLayer, write_layer
from builda.fs.tar import Writable
from builda.oci.digest import Digest
from builda.oci.mediatype import Compression
from tests.unit.fs.trees import fails

DATA = random.Random(1).randbytes(3 << 20) + b"text " * 700_000 + bytes(5 << 20)
TOOLS = {"gzip": ["gzip", "-dc"], "zstd": ["zstd", "-dcq"]}


def written(
    data: bytes, compression: Compression, steps: list[int], level: int | None = None
) -> tuple[bytes, WrittenLayer]:
    def produce(sink: Writable) -> None:
        at = turn = 0
        while at < len(data):
            step = steps[turn % len(steps)]
            sink.write(data[at : at + step])
            at, turn = at + step, turn + 1

    out = io.BytesIO()
    layer = write_layer(produce, out, compression=compression, level=level)
    return out.getvalue(), layer


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
@pytest.mark.parametrize("steps", [[BLOCK], [1 << 16], [BLOCK - 1, 3, 5 * BLOCK // 2], [len(DATA)]])
def test_a_layer_depends_on_its_bytes_alone(compression: Compression, steps: list[int]) -> None:
    expected, first = written(DATA, compression, [BLOCK])
    found, layer = written(DATA, compression, steps)
    assert layer == first
    assert found == expected


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_both_digests_are_those_of_the_bytes(compression: Compression) -> None:
    stored, layer = written(DATA, compression, [70_000])
    assert layer.digest == Digest.of(stored)
    assert layer.diff_id == Digest.of(DATA)
    assert (layer.size, layer.uncompressed_size) == (len(stored), len(DATA))


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
@pytest.mark.parametrize("data", [b"", b"x", DATA, bytes(BLOCK), bytes(3 * BLOCK)])
def test_the_usual_tools_read_layers(compression: Compression, data: bytes) -> None:
    stored, _ = written(data, compression, [BLOCK])
    assert subprocess.run(TOOLS[compression], input=stored, stdout=subprocess.PIPE, check=True).stdout == data
    if compression == "gzip":
        assert gzip.decompress(stored) == data


def test_a_gzip_layer_is_one_member_that_tells_nothing_of_its_maker() -> None:
    stored, _ = written(DATA, "gzip", [BLOCK])
    assert stored[:10] == b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    reader = zlib.decompressobj(wbits=31)
    reader.decompress(stored)
    assert reader.eof
    assert not reader.unused_data


@pytest.mark.parametrize("level", [1, 4, 9])
def test_levels_differ_and_are_readable(level: int) -> None:
    stored, _ = written(DATA, "gzip", [BLOCK], level)
    assert gzip.decompress(stored) == DATA


def test_levels_that_do_not_exist_are_refused() -> None:
    assert "gzip has levels 1 to 9: 10" in fails(lambda: compressor("gzip", 10), InvalidValue)
    assert "zstd has levels 1 to 22: 0" in fails(lambda: compressor("zstd", 0), InvalidValue)


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_an_error_of_the_output_comes_out(compression: Compression) -> None:
    class Full(io.RawIOBase):
        def write(self, data: object, /) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_layer(lambda sink: [sink.write(DATA) for _ in range(3)], Full(), compression=compression)  # type: ignore[arg-type]


def test_an_error_of_the_producer_comes_out() -> None:
    def produce(sink: Writable) -> None:
        sink.write(DATA)
        raise KeyError("mine")

    with pytest.raises(KeyError):
        write_layer(produce, io.BytesIO(), compression="gzip")


MAKERS: dict[ArchiveCompression, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.compress,
    "none": lambda data: data,
}


@pytest.mark.parametrize("name", MAKERS)
def test_streams_of_others_are_recognised_and_read(name: ArchiveCompression) -> None:
    stored = MAKERS[name](DATA[:2_000_000])
    assert sniff(stored[:8]) == name
    assert decompressing(io.BytesIO(stored), name).read() == DATA[:2_000_000]


@pytest.mark.parametrize("name", ["gzip", "bzip2", "xz", "zstd"])
def test_several_members_and_padding_are_one_stream(name: ArchiveCompression) -> None:
    stored = MAKERS[name](b"one ") + MAKERS[name](b"two ") + MAKERS[name](b"") + MAKERS[name](b"three") + bytes(600)
    assert decompressing(io.BytesIO(stored), name).read() == b"one two three"


@pytest.mark.parametrize("name", ["gzip", "bzip2", "xz", "zstd"])
def test_truncated_damaged_and_foreign_bytes_are_corrupt(name: ArchiveCompression) -> None:
    stored = MAKERS[name](DATA[: 1 << 20])
    for bad in (stored[:-9], stored[: len(stored) // 2], stored + b"garbage behind it", stored[:6] + b"\xff" * 500):
        fails(decompressing(io.BytesIO(bad), name).read, CorruptContent)


@pytest.mark.parametrize("name", ["gzip", "bzip2", "xz", "zstd"])
def test_a_few_bytes_that_mean_gigabytes_come_in_blocks(name: ArchiveCompression) -> None:
    reader = decompressing(io.BytesIO(MAKERS[name](bytes(48 << 20))), name)
    largest = count = 0
    while data := reader.read(BLOCK):
        largest = max(largest, len(data))
        count += len(data)
    assert count == 48 << 20
    assert largest <= BLOCK
