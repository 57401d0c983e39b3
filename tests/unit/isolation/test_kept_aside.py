"""What mode `traced` remembers of files that keep nothing aside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builda.isolation.emulated.credentials import started
from builda.isolation.emulated.ownership import ATTRIBUTE
from builda.isolation.traced.kept_aside import CAPABILITIES, Owners

ROOT = started(0, 0, (), (1 << 41) - 1, (1 << 41) - 1)


@pytest.fixture
def owners() -> Owners:
    return Owners((os.getuid(), os.getgid()))


@pytest.fixture
def file(tmp_path: Path) -> bytes:
    (tmp_path / "file").write_bytes(b"")
    try:
        os.setxattr(tmp_path / "file", "user.test", b"")
    except OSError:
        pytest.skip("the file system has no user attributes")
    return bytes(tmp_path / "file")


def test_capabilities_are_seen_however_soon_they_are_set_after_a_look(owners: Owners, file: bytes) -> None:
    """Of two changes within a tick of the clock the file shows one ctime."""
    info = os.stat(file)
    assert owners.capabilities(file, info) == b""
    owners.forget(info)
    os.setxattr(file, CAPABILITIES, b"bits")
    assert owners.capabilities(file, info) == b"bits"


def test_chown_takes_capabilities(owners: Owners, file: bytes) -> None:
    owners.change_owner(ROOT, file, os.stat(file), 0, 0)
    owners.forget(os.stat(file))
    os.setxattr(file, CAPABILITIES, b"bits")
    owners.change_owner(ROOT, file, os.stat(file), 0, 0)
    assert CAPABILITIES not in os.listxattr(file)


def test_an_owner_is_kept_until_it_is_root_again(owners: Owners, file: bytes) -> None:
    for owner in ((0, 0), (5, 6), (7, 6), (0, 0), (0, 6)):
        owners.change_owner(ROOT, file, os.stat(file), *owner)
        assert owners.seen(file).owner == owner
        assert (ATTRIBUTE in os.listxattr(file)) == (owner != (0, 0))


def test_a_link_that_had_no_owner_gets_one(owners: Owners, file: bytes, tmp_path: Path) -> None:
    owners.remember_nameless((1, 2, 3))
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        owners.name((directory, b"link"), (5, 6))
        assert (1, 2, 3) not in owners.nameless
        assert owners.named((directory, b"link")) == (5, 6)
    finally:
        os.close(directory)
