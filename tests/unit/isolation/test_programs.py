"""What an executable says of its loader, wherever in the file it says it."""

from __future__ import annotations

import errno
import struct

import pytest

from builda.isolation.traced.programs import HEAD, Dynamic, Static, parse

LOADER = b"/opt/ld.so\0"


def program(rows_at: int, name_at: int) -> bytes:
    """A 64-bit program for x86-64 with one program header, PT_INTERP, and its loader's name at these places."""
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack("<HHIQQQIHHH", 2, 62, 1, 0, rows_at, 0, 0, 64, 56, 1)
    row = struct.pack("<IIQQQQQQ", 3, 4, name_at, 0, 0, len(LOADER), len(LOADER), 1)
    data = bytearray(max(rows_at + 56, name_at + len(LOADER)))
    for at, part in ((0, head), (rows_at, row), (name_at, LOADER)):
        data[at : at + len(part)] = part
    return bytes(data)


@pytest.mark.parametrize(
    ("rows_at", "name_at"), [(64, 200), (64, 9000), (9000, 200), (9000, 9100), (HEAD - 8, HEAD - 80)]
)
def test_a_loader_is_found_wherever_its_name_is(rows_at: int, name_at: int) -> None:
    data = program(rows_at, name_at)
    found = parse(data[:HEAD], "x86_64", lambda size, at: data[at : at + size])
    assert found == Dynamic(LOADER.rstrip(b"\0"))


def test_a_name_behind_the_end_of_the_file_is_no_loader() -> None:
    data = program(64, 9000)[:5000]
    with pytest.raises(OSError, match=f"Errno {errno.ENOEXEC}"):
        parse(data[:HEAD], "x86_64", lambda size, at: data[at : at + size])


def test_headers_behind_the_end_of_the_file_are_none() -> None:
    data = program(9000, 200)[:5000]
    assert parse(data[:HEAD], "x86_64", lambda size, at: data[at : at + size]) == Static()
