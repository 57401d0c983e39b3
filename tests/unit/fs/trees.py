"""Trees and archives for the tests of fs: made, pictured, compared."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from builda.fs.layer import Applied, Clamp, apply, diff
from builda.fs.tar import DIRECTORY, REGULAR, TarEntry, TarWriter
from builda.fs.tarread import Member, iter_members

UID, GID = os.getuid(), os.getgid()


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A descriptor of a directory."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def picture(root: Path) -> dict[str, tuple[Any, ...]]:
    """Everything about a tree that a layer promises to keep, by path."""
    found: dict[str, tuple[Any, ...]] = {}
    first: dict[tuple[int, int], str] = {}
    for path in sorted(walk(root), key=os.fsencode):
        name = os.path.relpath(path, root)
        info = os.lstat(path)
        link = first.setdefault((info.st_dev, info.st_ino), name) if not stat.S_ISDIR(info.st_mode) else name
        attributes = {key: os.getxattr(path, key, follow_symlinks=False) for key in xattr_names(path)}
        looks = (oct(info.st_mode), info.st_uid, info.st_gid, info.st_mtime_ns // 10**9)
        found[name] = (*looks, content(path, info), link, attributes)
    return found


def xattr_names(path: str) -> list[str]:
    names = os.listxattr(path, follow_symlinks=False)
    return sorted(name for name in names if name != "security.selinux")


def content(path: str, info: os.stat_result) -> object:
    if stat.S_ISREG(info.st_mode):
        with open(path, "rb") as file:
            return info.st_size, hashlib.file_digest(file, "sha256").hexdigest()
    return os.readlink(path) if stat.S_ISLNK(info.st_mode) else info.st_rdev


def walk(root: Path) -> Iterator[str]:
    for directory, directories, files in os.walk(root):
        for name in (*directories, *files):
            yield os.path.join(directory, name)


def layer_of(root: Path, clamp: Clamp = Clamp(), **options: Any) -> bytes:  # noqa: B008
    """The layer that the tree, taken as an overlay's upper directory, holds."""
    out = io.BytesIO()
    with opened(root) as fd:
        diff(fd, out, clamp=clamp, **options)
    return out.getvalue()


def applied(layer: bytes, root: Path, whiteouts: Any = "plain", **options: Any) -> Applied:
    """The layer unpacked into the directory."""
    root.mkdir(exist_ok=True)
    with opened(root) as fd:
        return apply(io.BytesIO(layer), fd, whiteouts=whiteouts, **options)


def names_of(layer: bytes) -> list[str]:
    return [member.entry.name.decode("utf-8", "surrogateescape") for member in members(layer)]


def members(archive: bytes) -> list[Member]:
    """The members of an archive; their contents are gone."""
    return list(iter_members(io.BytesIO(archive)))


def read_archive(archive: bytes) -> dict[bytes, tuple[TarEntry, bytes]]:
    """Entries and whole contents, holes filled, by name."""
    found = {}
    for entry, data in iter_members(io.BytesIO(archive)):
        pieces = data.sparse if data.sparse is not None else ((0, entry.size),)
        whole = bytearray(entry.size)
        for offset, length in pieces:
            while length:
                part = data.read(length)
                whole[offset : offset + len(part)] = part
                offset += len(part)
                length -= len(part)
        found[entry.name] = (entry, bytes(whole))
    return found


Written: TypeAlias = TarEntry | tuple[TarEntry, bytes]


def archive(*entries: Written) -> bytes:
    """An archive of these, written as they are, however hostile."""
    out = io.BytesIO()
    tar = TarWriter(out)
    for item in entries:
        entry, data = item if len(item) == 2 else (item, b"")
        assert isinstance(entry, TarEntry)
        tar.add(entry)
        if entry.type == REGULAR:
            tar.data(data)
            tar.pad(len(data))
    tar.close()
    return out.getvalue()


def file(name: str, data: bytes = b"", **changes: Any) -> tuple[TarEntry, bytes]:
    """A regular file owned by whoever runs the tests."""
    return entry(name, REGULAR, size=len(data), **changes), data


def directory(name: str, **changes: Any) -> TarEntry:
    return entry(name, DIRECTORY, **{"mode": 0o755, **changes})


def entry(name: str, kind: bytes, **changes: Any) -> TarEntry:
    return TarEntry(os.fsencode(name), kind, **{"uid": UID, "gid": GID, **changes})


def fails(action: Callable[[], object], kind: type[Exception]) -> str:
    """The message of the error that the action ends with."""
    try:
        action()
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__}")
