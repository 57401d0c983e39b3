"""The Protocol that copies and archives are written through: to a tree on disk, or to a list of rows.

`copytree` and `unpack` decide by these calls alone, so that their rules are the same for both.
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager

from builda.fs import owners
from builda.values import NamedTuple, Protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import TypeAlias, TypeVar

    from builda.fs.content import Moved
    from builda.fs.tarread import Content

    D = TypeVar("D")
    Inode: TypeAlias = tuple[int, int]
    """Device and inode."""
    Original: TypeAlias = tuple[tuple[int, int], int, Mapping[str, bytes], int]
    """Owner, permission bits, attributes, and the time in nanoseconds that a source has."""

LINKS = 40
"""How many links a path may lead through, as with Linux."""


class Looks(NamedTuple):
    """The metadata to give to a file: owner, permission bits, attributes, and mtime in nanoseconds.

    For a directory `time_ns` may be None: its mtime is set later, or stays that of its last change.
    """

    owner: tuple[int, int]
    mode: int = 0o755
    values: Mapping[str, bytes] = {}
    time_ns: int | None = None


class Target(Protocol["D"]):
    """A tree that can be written to; `D` is a directory of it that is open, until `close`.

    Links in paths are followed inside the root; a name in a directory is never followed. Errors are the kernel's:
    FileExistsError for a name that is taken, FileNotFoundError, NotADirectoryError, ELOOP.
    """

    skipped: set[str]
    """Names of attributes that could not be kept."""

    def open(self, path: bytes, *, follow: bool = True) -> D:
        """The directory at `path`; without `follow`, its last name must not be a link."""

    def close(self, directory: D) -> None: ...

    def is_directory(self, path: bytes, *, follow: bool = True) -> bool: ...

    def resolved(self, path: bytes) -> bytes:
        """The path without links and dots; missing parts are kept."""

    def identity(self, directory: D) -> Inode:
        """The same for the same directory only, whatever path led to it; on disk its device and inode."""

    def time_of(self, directory: D) -> int: ...

    def set_time(self, directory: D, time_ns: int) -> None: ...

    def dress(self, directory: D, looks: Looks) -> None: ...

    def enter(self, parent: D, name: bytes) -> D | None:
        """The directory that is there; None if it is a link or no directory."""

    def holds_directory(self, parent: D, name: bytes) -> bool: ...

    def link_at(self, parent: D, name: bytes) -> bytes | None:
        """The target of the symbolic link `name`; None if it is missing or no link."""

    def make(self, parent: D, name: bytes, mode: int = 0o700) -> D:
        """A new directory, with this mode exactly."""

    def remove(self, parent: D, name: bytes) -> None:
        """Remove it with all below it; a missing one is no error."""

    def link(self, parent: D, name: bytes, path: bytes) -> None:
        """Another name of the file at `path`, which may have it already. FileNotFoundError if no file is there."""

    def original(self, info: os.stat_result, values: Mapping[str, bytes]) -> Original:
        """What a source looks like."""

    def copy(
        self, parent: D, name: bytes, source: int, info: os.stat_result, looks: Looks, moved: Moved | None
    ) -> bytes:
        """Copy the file `source`; returns the sha256 of its content. `moved` gets numbers of copied bytes."""

    def write(self, parent: D, name: bytes, content: Content, size: int, looks: Looks) -> None:
        """A file of an archive."""

    def special(self, parent: D, name: bytes, kind: int, link: bytes, device: int, looks: Looks) -> None:
        """A symbolic link, FIFO or device of `kind` (S_IFLNK …)."""


@contextmanager
def opened(target: Target[D], path: bytes, *, follow: bool = True) -> Iterator[D]:
    """The directory at `path` for the time of the block."""
    directory = target.open(path, follow=follow)
    try:
        yield directory
    finally:
        target.close(directory)


def make_directories(
    target: Target[D], path: str | bytes, looks: Looks, *, replace: bool = False, links: int = 0
) -> list[bytes]:
    """Make `path` and what is missing above it; those made, topmost first.

    Links on the way are followed, and where they lead is made too; a file in the way raises NotADirectoryError. With
    `replace`, links and files on the way give way to directories instead.
    """
    if links > LINKS:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fsdecode(path))
    made: list[bytes] = []
    done = b""
    for part in os.fsencode(path).split(b"/"):
        if part in (b"", b"."):
            continue
        above, done = done, done + b"/" + part
        if target.is_directory(done, follow=not replace):
            continue
        with opened(target, above) as parent:
            if replace:
                target.remove(parent, part)
            elif (link := target.link_at(parent, part)) is not None:  # /var/run -> /run, and no /run yet
                there = link if link.startswith(b"/") else above + b"/" + link
                made += make_directories(target, there, looks, links=links + 1)
                continue
            if _make_one(target, parent, part, looks):
                made.append(done)
    return made


def _make_one(target: Target[D], parent: D, name: bytes, looks: Looks) -> bool:
    """Whether this call made it, not another process."""
    try:
        directory = target.make(parent, name)
    except FileExistsError:
        if target.holds_directory(parent, name):
            return False
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), os.fsdecode(name)) from None
    try:
        target.dress(directory, looks)
    except OSError as error:
        owners.explain(error, *looks.owner)
        raise
    finally:
        target.close(directory)
    return True
