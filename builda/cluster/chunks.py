"""A build context as blobs of many files each: which files it has, how they are grouped, and their archives.

A group is the same as long as its files are, whatever changes elsewhere. So a build sends the groups with changes only,
and reads no file of a group whose files have the inode, size and times that they had when it was sent.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress

from builda.errors import CorruptContent, InvalidValue, NotFound
from builda.fs import tar, xattrs
from builda.fs.ignore import Matcher
from builda.linux.directories import opened
from builda.oci.descriptor import Descriptor
from builda.oci.digest import Digest, Hasher, Readable, VerifyingReader
from builda.oci.manifest import Document, Manifest
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any, BinaryIO

    from builda.transfer.copyimage import ImageSource

ARTIFACT = "application/vnd.builda.context.v1+json"
CHUNK = "application/vnd.builda.context.chunk.v1.tar+zstd"
KEY = "io.builda.context.key"
"""Annotation of a chunk: a digest of names, inodes, sizes and times of its files on the machine that sent it."""
SETTLED = 2.0
"""A file that changed less than so many seconds ago may change again without a difference in its times."""
ARRIVING = ".arriving-"
"""What the name of a context has behind it while it is received."""
_PIECE = 32 << 10  # bytes of a message to the API server; kubectl's have as many
_FILES, _MANY_FILES = 64, 1024
_BYTES, _MANY_BYTES = 256 << 10, 8 << 20
_CUT = 64  # one in so many files may end a group
_KINDS = {
    stat.S_IFREG: tar.REGULAR,
    stat.S_IFLNK: tar.SYMBOLIC_LINK,
    stat.S_IFDIR: tar.DIRECTORY,
    stat.S_IFIFO: tar.FIFO,
}


class File(NamedTuple):
    """A path below the context, as the file system has it."""

    path: str
    info: os.stat_result
    link: str = ""
    """The target of a symbolic link; of a further name of a file, the first path with this inode."""
    attributes: Mapping[str, bytes] = {}
    """The extended attributes of a directory. Those of a file are read with it."""


class Chunk(NamedTuple):
    """Files whose archive is one blob."""

    files: tuple[File, ...]
    key: str
    settled: bool


def listing(
    top: str,
    ignore: Matcher,
    never: frozenset[tuple[int, int]] = frozenset(),
    tell: Callable[[str], None] = lambda text: None,
) -> Iterator[File]:
    """All that the ignore file leaves of a context, sorted; a directory stands before what is in it.

    Directories that only lead to a file that is taken back are there, too. Sockets and devices are not, which `tell`
    is told, nor are the directories `never`, by device and inode: the store's own. InvalidValue if the context is one
    of them.
    """
    if _inode(os.stat(top)) in never:
        raise InvalidValue(f"a directory of the store cannot be copied: {top}")
    waiting, first = [""], dict[tuple[int, int], str]()
    while waiting:
        below = waiting.pop()
        with os.scandir(os.path.join(top, below)) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        inner = []
        for entry in found:
            path = f"{below}/{entry.name}" if below else entry.name
            is_directory = entry.is_dir(follow_symlinks=False)
            if ignore and ignore.excludes(path) and not (is_directory and ignore.reaches_into(path)):
                continue
            info = entry.stat(follow_symlinks=False)
            if is_directory and _inode(info) in never:
                continue
            if is_directory:
                yield File(path, info, attributes=xattrs.recorded(entry.path))
            elif stat.S_IFMT(info.st_mode) in _KINDS:
                yield File(path, info, _link(entry, path, info, first))
            else:
                kind = "socket is not copied" if stat.S_ISSOCK(info.st_mode) else "device is not sent to the pod"
                tell(f"{kind}: {path}")
            if is_directory:
                inner.append(path)
        waiting.extend(reversed(inner))


def _link(entry: os.DirEntry[str], path: str, info: os.stat_result, first: dict[tuple[int, int], str]) -> str:
    """What `File.link` is; `first` has the first paths of files with several names."""
    if entry.is_symlink():
        return os.readlink(entry.path)
    if info.st_nlink < 2 or not stat.S_ISREG(info.st_mode):
        return ""
    found = first.setdefault(_inode(info), path)
    return "" if found == path else found


def _inode(info: os.stat_result) -> tuple[int, int]:
    return info.st_dev, info.st_ino


def grouped(files: Iterable[File], now: float) -> tuple[Chunk, ...]:
    """The files in groups; all directories are in the last one, whose looks are thus final."""
    directories, group, groups, size = [], list[File](), [], 0
    for file in files:
        if stat.S_ISDIR(file.info.st_mode):
            directories.append(file)
            continue
        group.append(file)
        size += 0 if file.link else file.info.st_size
        full = len(group) >= _MANY_FILES or size >= _MANY_BYTES
        if full or ((len(group) >= _FILES or size >= _BYTES) and _ends_group(file.path)):
            groups.append(tuple(group))
            group, size = [], 0
    return tuple(_chunk(one, now) for one in (*groups, tuple(group), tuple(directories)) if one)


def known(document: Document) -> dict[str, Descriptor]:
    """The chunks of a context that was sent before, by their keys."""
    if not isinstance(document, Manifest) or document.artifact_type != ARTIFACT:
        return {}
    return {layer.annotations[KEY]: layer for layer in document.layers if KEY in layer.annotations}


def manifest_of(layers: Iterable[Descriptor]) -> tuple[Manifest, bytes]:
    """The manifest of a context and the bytes of its empty configuration."""
    config = Descriptor(media_type="application/vnd.oci.empty.v1+json", digest=Digest.of(b"{}"), size=2)
    return Manifest(config=config, layers=tuple(layers), artifact_type=ARTIFACT), b"{}"


@contextmanager
def packed(top: str, chunk: Chunk) -> Iterator[tuple[Descriptor, BinaryIO]]:
    """The chunk's blob in a temporary file. NotFound if a file changed its size or went meanwhile."""
    import zstandard

    with tempfile.TemporaryFile() as file:
        with zstandard.ZstdCompressor(level=3).stream_writer(file, closefd=False) as stream:
            writer = tar.TarWriter(stream)
            for one in chunk.files:
                _add(writer, top, one)
            writer.close()
        size = file.tell()
        file.seek(0)
        hasher = Hasher()
        while data := file.read(1 << 20):
            hasher.update(data)
        file.seek(0)
        annotations = {KEY: chunk.key} if chunk.settled else {}
        yield Descriptor(media_type=CHUNK, digest=hasher.digest(), size=size, annotations=annotations), file


def streamed(
    top: str,
    ignore: str,
    ignore_file: str,
    never: frozenset[tuple[int, int]],
    tell: Callable[[str], None] = lambda text: None,
) -> Iterator[bytes]:
    """The context, as `listing` has it with the text `ignore` of its ignore file, as the stream that `receive` reads.

    Each archive stands behind a line with its length; a length of 0 is the end.
    """
    for chunk in grouped(listing(top, Matcher.parse(ignore, ignore_file), never, tell), now()):
        with packed(top, chunk) as (layer, file):
            yield b"%d\n" % layer.size
            while data := file.read(_PIECE):
                yield data
    yield b"0\n"


def receive(source: BinaryIO, into: Path) -> None:
    """Make the context `into` anew from such a stream. CorruptContent if it breaks off; nothing is `into` then."""
    from builda.fs.trees.directory import TreeTarget

    into.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{into.name}{ARRIVING}", dir=into.parent) as place:
        whole = f"{place}/context"
        os.mkdir(whole)
        with opened(whole) as root:
            while size := _length(source):
                part = _Part(source, size, place)
                _extract(part, TreeTarget(root))
                if part.left:
                    raise CorruptContent("context broke off while it was received")
        if not into.exists():  # else another attempt was faster
            os.rename(whole, into)


def is_arriving(into: Path, seconds: float) -> bool:
    """Whether a part of the context came within the last so many seconds."""
    for place in into.parent.glob(f"{into.name}{ARRIVING}*"):
        with suppress(FileNotFoundError):  # the context is whole, or its sender gave up
            if time.time() - place.stat().st_mtime < seconds:
                return True
    return False


def unpack(source: ImageSource, into: Path) -> None:
    """Make the context anew in the empty directory `into`. CorruptContent if it is none, or is damaged."""
    from builda.fs.trees.directory import TreeTarget
    from builda.oci.manifest import parse

    descriptor, data = source.manifest()
    document = parse(data, descriptor.media_type)
    if not isinstance(document, Manifest) or document.artifact_type != ARTIFACT:
        raise CorruptContent(f"not a build context: {descriptor.digest}")
    with opened(into) as root:
        for layer in document.layers:
            with source.open_blob(layer) as blob:
                _extract(VerifyingReader(blob, layer.digest, layer.size), TreeTarget(root))


class _Part:
    """So many bytes of a stream. Each read sets the time of the directory `place`, at which `is_arriving` looks."""

    def __init__(self, source: BinaryIO, size: int, place: str) -> None:
        self._source = source
        self._place = place
        self.left = size

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(self.left if size < 0 else min(size, self.left))
        self.left -= len(data)
        os.utime(self._place, follow_symlinks=False)
        return data


def _length(source: BinaryIO) -> int:
    line = source.readline(32)
    if not line.endswith(b"\n") or not line.strip().isdigit():
        raise CorruptContent("context broke off while it was received")
    return int(line)


def _extract(source: Readable, target: Any) -> None:
    from builda.fs.compress import decompressing
    from builda.fs.trees.unpack import extract

    extract(decompressing(source, "zstd"), target, owner=(os.geteuid(), os.getegid()))
    while source.read(1 << 16):  # what follows the archive counts for its digest
        pass


def _ends_group(path: str) -> bool:
    return hashlib.sha256(os.fsencode(path)).digest()[0] % _CUT == 0


def _chunk(files: tuple[File, ...], now: float) -> Chunk:
    hasher = hashlib.sha256()
    latest = 0
    for path, info, link, attributes in files:
        row: tuple[object, ...] = (
            info.st_mode,
            info.st_size,
            info.st_mtime_ns,
            info.st_ctime_ns,
            info.st_ino,
            info.st_dev,
            link,
        )
        if stat.S_ISDIR(info.st_mode):  # its size and change time are of no account
            row = (info.st_mode, info.st_mtime_ns, info.st_ino, info.st_dev, *attributes.items())
        hasher.update(f"{path!r}{row!r}\0".encode("utf-8", "surrogateescape"))
        latest = max(latest, info.st_ctime_ns)
    return Chunk(files, hasher.hexdigest(), latest < (now - SETTLED) * 1e9)


def _add(writer: tar.TarWriter, top: str, file: File) -> None:
    info, path = file.info, os.path.join(top, file.path)
    kind = tar.HARD_LINK if stat.S_ISREG(info.st_mode) and file.link else _KINDS[stat.S_IFMT(info.st_mode)]
    size = info.st_size if kind == tar.REGULAR else 0
    entry = tar.TarEntry(
        os.fsencode(file.path),
        kind,
        size=size,
        mode=stat.S_IMODE(info.st_mode),
        mtime=int(info.st_mtime),
        link=os.fsencode(file.link),
        xattrs=file.attributes,
    )
    if kind != tar.REGULAR:
        writer.add(entry)
        return
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise NotFound(f"file of the context went while it was read: {file.path}") from error
    try:
        writer.add(entry._replace(xattrs=xattrs.recorded(fd)))
        if writer.read_from(fd, size) != size or os.read(fd, 1):
            raise NotFound(f"file of the context changed while it was read: {file.path}")
        writer.pad(size)
    finally:
        os.close(fd)


def now() -> float:
    """Seconds since the epoch."""
    return time.time()
