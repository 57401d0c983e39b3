"""Capabilities of files as values, and the disguise in which a process with one id sets those of other namespaces."""

from __future__ import annotations

import json
import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from builda.linux import filecaps
from tests.support import needs

V2, V3 = 0x02000000, 0x03000000


def _value(first: int, *words: int) -> bytes:
    return struct.pack(f"<{1 + len(words)}I", first, *words)


def test_a_disguise_hides_any_capabilities_and_is_never_effective() -> None:
    chance = random.Random(1)
    for _ in range(3000):
        root = chance.choice((1, 1000, 0x7FFFFF, 0x800000, 0xFFFFFFFE, chance.randrange(1, 0xFFFFFFFF)))
        sets = (chance.getrandbits(32), chance.getrandbits(32), chance.getrandbits(9), chance.getrandbits(9))
        value = _value(V3 | chance.randrange(2), *sets, root)
        assert filecaps.is_valid(value)
        assert filecaps.has_root(value)
        assert filecaps.shown(value) == value
        hidden = filecaps.disguised(value)
        assert filecaps.is_valid(hidden)
        assert hidden[:4] == _value(V2)
        assert filecaps.revealed(hidden) == value


@pytest.mark.parametrize(
    "value", [_value(V3, 0, 0, 1 << 9, 0, 5), _value(V3, 0, 0, 0, 1 << 31, 5), _value(V2, 1, 2, 3, 4)]
)
def test_what_needs_no_disguise_or_finds_no_place_has_none(value: bytes) -> None:
    assert filecaps.disguised(value) == b""


@pytest.mark.parametrize("value", [_value(V2, 1, 2, 3, 4), _value(V2 | 1, 1, 2, 511, 511), _value(V2, 0, 0, 0, 0), b""])
def test_capabilities_that_tools_set_are_no_disguise(value: bytes) -> None:
    assert filecaps.revealed(value) == value


def test_root_of_the_present_namespace_is_shown_as_version_2() -> None:
    assert filecaps.shown(_value(V3 | 1, 1, 2, 3, 4, 0)) == _value(V2 | 1, 1, 2, 3, 4)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"abcd",
        _value(V3, 1, 2, 3, 4),
        _value(V2, 1, 2, 3, 4, 5),
        _value(V2 | 2, 1, 2, 3, 4),
        _value(0x01000000, 1, 2),
        _value(V3, 1, 2, 3, 4, 0xFFFFFFFF),
    ],
)
def test_the_kernel_takes_no_other_values(value: bytes) -> None:
    assert not filecaps.is_valid(value)


@pytest.mark.root
@needs.program("unshare")
def test_a_process_with_one_id_writes_and_records_them(tmp_path: Path) -> None:
    script = """
import json, os, sys
from builda.fs import xattrs
from builda.linux import filecaps
fd, value = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT), bytes.fromhex(sys.argv[2])
skipped = xattrs.write(fd, {filecaps.NAME: value})
print(json.dumps([skipped, xattrs.recorded(fd)[filecaps.NAME].hex(), os.getxattr(fd, filecaps.NAME).hex()]))
"""
    value = _value(V3 | 1, 1 << 13, 0, 1 << 6, 0, 100000).hex()
    done = subprocess.run(
        ["unshare", "-U", "--map-root-user", sys.executable, "-c", script, tmp_path / "file", value],
        capture_output=True,
        text=True,
        check=True,
    )
    skipped, recorded, kept = json.loads(done.stdout)
    assert (skipped, recorded) == ([], value)
    assert kept != value
