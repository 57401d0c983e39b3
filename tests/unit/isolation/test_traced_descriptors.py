"""What mode `traced` finds out about the descriptors of a command."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builda.isolation.traced.outside import flags_of

NEITHER = 3  # open(2): a descriptor that can neither be read nor written, but serves ioctl(2) and fchmod(2)


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY | os.O_APPEND, os.O_RDWR, NEITHER, os.O_PATH])
def test_a_descriptor_has_the_flags_that_it_was_opened_with(flags: int, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    fd = os.open(tmp_path / "file", flags)
    try:
        assert flags_of(b"/proc/self/fd/%d" % fd) & (os.O_ACCMODE | os.O_APPEND | os.O_PATH) == flags
    finally:
        os.close(fd)


def test_a_descriptor_that_is_not_open_has_no_flags() -> None:
    with pytest.raises(FileNotFoundError):
        flags_of(b"/proc/self/fd/99999")
