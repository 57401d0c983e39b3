"""Build contexts that are not directories of this machine: repositories, archives behind URLs or on standard input.

Each becomes a directory of its own in the store's `ingest/`, where `prune` finds what a killed build left.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from builda.builder.copy.git import fetch_repository, parse_repository
from builda.builder.copy.temporary import TemporaryDirectory
from builda.errors import CorruptContent, InvalidValue, NotFound
from builda.events import SourceUsed
from builda.fs import paths
from builda.oci.digest import Hasher
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import ExitStack
    from typing import BinaryIO

    from builda.builder.context import Context
    from builda.builder.copy.git import Repository
    from builda.builder.imageoptions import RegistryAccess
    from builda.builder.locking import Pins
    from builda.oci.digest import Readable

_URL = re.compile(r"https?://", re.IGNORECASE)
_HUB = "github.com/"  # Docker takes it for a repository without a scheme


class Fetched(NamedTuple):
    """A context that was fetched: where it is, or the Containerfile that was in its place, with no files."""

    directory: Path
    containerfile: bytes | None = None


def is_remote(text: str) -> bool:
    """Whether `text` names a context to be fetched, rather than a directory or file of this machine."""
    hub = text.startswith(_HUB) and not os.path.exists(text)
    return hub or _URL.match(text) is not None or parse_repository(text) is not None


def fetch_context(
    ctx: Context, text: str, access: RegistryAccess, stack: ExitStack, limit: int, pins: Pins | None = None
) -> Fetched:
    """The context behind a URL or in a repository; its directory is gone when `stack` ends.

    Of a Containerfile in its place, `limit` bytes and one are read. It is the content that `pins` name.

    NotFound, RegistryError or CorruptContent when it cannot be had; InvalidValue for a subdirectory that leads nowhere.
    """
    where = f"https://{text}.git" if text.startswith(_HUB) and ".git" not in text else _url(text)
    where, checksum = (where, None) if pins is None else pins.remote(where)
    repository = parse_repository(where)
    if repository is not None:
        return Fetched(_checked_out(ctx, repository, stack))
    temporary = TemporaryDirectory(ctx.store)
    stack.enter_context(temporary)
    with open(os.path.join(temporary.path, "download"), "w+b") as file:
        with ctx.remote.fetch(text, access) as response:
            _spool(response, file, limit)
        if checksum is not None:
            _check(file, checksum, text)
        return _unpacked(file, text, temporary.path, limit)


def read_context(ctx: Context, stdin: BinaryIO, stack: ExitStack, limit: int) -> Fetched:
    """The context on standard input: an archive of it, or a Containerfile that needs none."""
    temporary = TemporaryDirectory(ctx.store)
    stack.enter_context(temporary)
    with open(os.path.join(temporary.path, "download"), "w+b") as file:
        _spool(stdin, file, limit)
        return _unpacked(file, "standard input", temporary.path, limit)


def _url(text: str) -> str:
    return f"https://{text}" if text.startswith(_HUB) else text


def _checked_out(ctx: Context, repository: Repository, stack: ExitStack) -> Path:
    temporary = TemporaryDirectory(ctx.store)
    root = stack.enter_context(temporary)
    commit = fetch_repository(repository, temporary.path)
    ctx.emit(SourceUsed(kind="git", name=repository.url, algorithm="gitCommit", digest=commit))
    return inside(root, repository.subdirectory, repository.url)


def inside(root: int, path: str, what: str) -> Path:
    """The directory that `path` means inside `root`, links followed there; InvalidValue when there is none."""
    try:
        fd = paths.open_in_root(root, path, os.O_PATH | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InvalidValue(f"no such file or directory in {what}: {path}") from error
    try:
        return Path(os.readlink(f"/proc/self/fd/{fd}"))
    finally:
        os.close(fd)


def read_inside(directory: Path, path: str, limit: int) -> bytes | None:
    """The first `limit` bytes of a file inside a fetched context, which links do not leave; None when there is none.

    InvalidValue for what is not a regular file, which is never opened for reading.
    """
    root = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = paths.open_in_root(root, path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    finally:
        os.close(root)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise InvalidValue(f"Containerfile is not a regular file: {path}")
        with open(f"/proc/self/fd/{fd}", "rb") as file:
            return file.read(limit)
    finally:
        os.close(fd)


def _spool(source: Readable, file: BinaryIO, limit: int) -> None:
    """Copy `source` into `file`; of what is no archive little more than `limit` bytes, as it may never end."""
    from builda.fs.archivekinds import archive_compression

    is_archive = False
    while data := source.read(1 << 20):
        file.write(data)
        if not is_archive and file.tell() > limit:
            is_archive = archive_compression(file) is not None
            file.seek(0, os.SEEK_END)
            if not is_archive:
                return


def _check(file: BinaryIO, checksum: str, what: str) -> None:
    """Raise CorruptContent if the file does not have this digest."""
    file.seek(0)
    hasher = Hasher()
    while data := file.read(1 << 20):
        hasher.update(data)
    if str(hasher.digest()) != checksum:
        raise CorruptContent(f"context is not the locked one, {checksum}; {what} has: {hasher.digest()}")


def _unpacked(file: BinaryIO, what: str, place: str, limit: int) -> Fetched:
    """An archive's content; what is no archive is a Containerfile."""
    from builda.fs.archivekinds import archive_compression
    from builda.fs.compress import decompressing
    from builda.fs.trees.directory import TreeTarget
    from builda.fs.trees.unpack import extract

    file.flush()
    directory = Path(place) / "context"
    directory.mkdir()
    size = file.tell()
    compression = archive_compression(file)
    if compression is None:
        file.seek(0)
        text = file.read(limit + 1)
        if not size:
            raise NotFound(f"context is empty: {what}")
        if b"\0" in text[:8192]:
            raise InvalidValue(f"context is neither an archive nor a Containerfile: {what}")
        return Fetched(directory, text)
    file.seek(0)
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        extract(decompressing(file, compression), TreeTarget(root), owner=(os.geteuid(), os.getegid()))
    finally:
        os.close(root)
    os.unlink(file.name)
    return Fetched(directory)
