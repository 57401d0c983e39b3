"""What is made without rights in directories whose default ACLs deny their owner, and ACLs that archives bring."""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from builda.fs import paths, standin, xattrs
from builda.fs.tarread import Content
from builda.fs.trees.directory import TreeTarget
from builda.fs.trees.target import Looks
from builda.linux import acl

pytestmark = pytest.mark.root
ACCESS, DEFAULT = acl.NAMES
NOBODY = 54321


def acl_of(owner: int, *, mask: bool = True) -> bytes:
    """An ACL with a name and a mask, or one that says no more than a mode."""
    named = [(2, 7, 33), (4, 5, -1), (16, 7, -1)] if mask else [(4, 5, -1)]
    return struct.pack("=I", 2) + b"".join(struct.pack("=HHi", *row) for row in ((1, owner, -1), *named, (32, 1, -1)))


def looks(mode: int, values: dict[str, bytes] | None = None) -> Looks:
    return Looks((0, 0), mode, values or {}, 0)


def nothing() -> Content:
    return Content(cast(Any, None), 0)


def without_rights(directory: Path, work: Callable[[TreeTarget, int], None]) -> None:
    """Do it in a process without capabilities, in a directory of its own. AssertionError if it fails there."""
    directory.mkdir()
    os.chown(directory, NOBODY, NOBODY)
    pid = os.fork()
    if not pid:
        status = 1
        try:
            root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            work(TreeTarget(root), root)
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("owner", range(8))
def test_what_is_made_is_whole_whatever_a_default_acl_denies(owner: int, tmp_path: Path) -> None:
    def make(target: TreeTarget, root: int) -> None:
        os.setxattr(root, DEFAULT, acl.disguised(acl_of(owner), NOBODY))
        directory = target.make(root, b"directory")
        target.write(directory, b"file", nothing(), 0, looks(0o640))
        target.special(directory, b"device", stat.S_IFCHR, b"", os.makedev(1, 3), looks(0o600))
        target.close(target.make(directory, b"inner", 0o755))
        target.dress(directory, looks(0o510))
        paths.make_directory(root, b"made", 0o710)
        for name, mode in ((b"directory", 0o510), (b"made", 0o710), (b"directory/file", 0o640)):
            fd = os.open(name, os.O_RDONLY, dir_fd=root)
            kept = standin.mode_of(xattrs.recorded(fd))
            assert (kept if kept is not None else os.fstat(fd).st_mode & 0o7777) == mode
            assert acl.mode_of(xattrs.recorded(fd)[ACCESS]) == mode

    without_rights(tmp_path / "tree", make)


@pytest.mark.parametrize("inherits", [True, False])
def test_an_acl_of_an_archive_counts_as_the_kernel_takes_it(inherits: bool, tmp_path: Path) -> None:
    def make(target: TreeTarget, root: int) -> None:
        if inherits:
            os.setxattr(root, DEFAULT, acl.disguised(acl_of(7), NOBODY))
        for name, value in ((b"named", acl_of(0)), (b"plain", acl_of(6, mask=False)), (b"none", struct.pack("=I", 2))):
            target.write(root, name, nothing(), 0, looks(0o4640, {ACCESS: value}))
        found = {}
        for name in (b"named", b"plain", b"none"):
            fd = os.open(name, os.O_RDONLY, dir_fd=root)
            values = xattrs.recorded(fd)
            kept = standin.mode_of(values)
            found[name] = (kept if kept is not None else os.fstat(fd).st_mode & 0o7777), values.get(ACCESS)
        assert found == {b"named": (0o4071, acl_of(0)), b"plain": (0o4651, None), b"none": (0o4640, None)}
        with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
            target.write(root, b"wrong", nothing(), 0, looks(0o640, {ACCESS: acl_of(0)[:-3]}))

    without_rights(tmp_path / "tree", make)
