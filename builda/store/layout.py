"""The on-disk format: where things are, and the one way to publish them (docs/store-format.md).

Whatever is written goes to a temporary file in `ingest/` first and appears by rename. A temporary's name holds the
identity of the process that made it, so that the sweep can tell live ones from dead ones.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from builda import jsontext
from builda.errors import StoreUnavailable
from builda.linux import private
from builda.linux.process import is_alive, process_identity
from builda.oci.digest import sha256
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    T = TypeVar("T")

FORMAT = 1
_CLOCK_REALTIME_COARSE = 5  # linux/time.h
OCI_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
DIRECTORIES = (
    "blobs/sha256",
    "images",
    "refs",
    "chains",
    "diffs",
    "origins",
    "snapshots",
    "containers",
    "names",
    "steps",
    "ingest",
    "leases",
    "locks",
    "cache",
    "sessions",
    "digests",
    "empty",
)
_NAMES = frozenset(
    {
        *(name.partition("/")[0] for name in DIRECTORIES),
        "builda.json",
        "oci-layout",
        "index.json",
        "journal.json",
        "memory",
        "mounts",
    }
)
"""All that builda makes at the top of a store."""
NAME_LIMIT = 180
"""Bytes of a quoted name that still serves as a file name; longer ones are called by their digest."""


class Layout(NamedTuple):
    """Paths below the store's root and its volatile companion."""

    root: str
    runroot: str

    def path(self, *parts: str) -> str:
        """A path below the root."""
        return "/".join((self.root, *parts))

    def blob(self, encoded: str) -> str:
        """The path of the sha256 blob with these hexadecimal digits."""
        return f"{self.root}/blobs/sha256/{encoded}"

    def mount_point(self, name: str) -> str:
        """The path where `builda mount` mounts the container of this ID, and `builda image mount` images."""
        return f"{self.runroot}/mounts/{name}"

    def inodes(self) -> frozenset[tuple[int, int]]:
        """The device and inode of the root and of the run root, as far as they are there."""
        found = []
        for path in (self.root, self.runroot):
            with suppress(FileNotFoundError):
                info = os.stat(path)
                found.append((info.st_dev, info.st_ino))
        return frozenset(found)

    def volatile(self, name: str) -> str:
        """A private directory of the run root, made if missing."""
        private.make(self.runroot)
        private.narrow(self.runroot, _is_volatile)
        private.make(f"{self.runroot}/{name}")
        private.narrow(f"{self.runroot}/{name}", lambda _: True)
        return f"{self.runroot}/{name}"


def default_places(environ: Mapping[str, str], uid: int) -> tuple[str, str]:
    """The store's root and its volatile companion when the caller names none: root's, or the user's own."""
    root, runroot = environ.get("BUILDA_ROOT"), environ.get("BUILDA_RUNROOT")
    if uid == 0:
        return root or "/var/lib/builda", runroot or "/run/builda"
    return root or f"{_data_directory(environ, uid)}/builda", runroot or f"{_runtime_directory(environ, uid)}/builda"


def _data_directory(environ: Mapping[str, str], uid: int) -> str:
    """XDG_DATA_HOME or HOME's, else one in /tmp that only this user can have made."""
    if named := environ.get("XDG_DATA_HOME"):
        return named
    if home := environ.get("HOME"):
        return f"{home.rstrip('/')}/.local/share"
    return f"{_private_directory(f'/tmp/builda-{uid}', uid, 'HOME', '--root')}/.local/share"


def _runtime_directory(environ: Mapping[str, str], uid: int) -> str:
    """XDG_RUNTIME_DIR if it is this user's (after `su` it is not), else a directory of this user in /tmp."""
    named = environ.get("XDG_RUNTIME_DIR")
    if named and (uid != os.geteuid() or private.is_ours(named, uid)):
        return named
    return _private_directory(f"/tmp/builda-run-{uid}", uid, "XDG_RUNTIME_DIR", "--runroot")


def _private_directory(path: str, uid: int, variable: str, option: str) -> str:
    """`path`, made now if missing; StoreUnavailable if another user made it or can write to it."""
    if uid != os.geteuid():  # of another user nothing can be checked
        return path
    with suppress(OSError):  # it is there, or whatever needs it says that it cannot be
        os.mkdir(path, 0o700)
    if os.path.lexists(path) and not private.is_ours(path, uid):
        raise StoreUnavailable(
            f"directory of another user, or one that others can write to: {path}",
            hint=f"remove it, set {variable}, or name another place with {option}",
        )
    return path


def create(layout: Layout) -> Mapping[str, Any]:
    """Make the store's directories and marker files; a store that is already there is checked, and made private.

    The result is what builda.json says. StoreUnavailable also for root in another user's store.
    """
    with translated(layout.root):
        try:
            marker = read_json(layout.path("builda.json"))
        except (FileNotFoundError, NotADirectoryError):
            _make(layout)
            marker = {"format": FORMAT}
        except Damaged as error:
            raise StoreUnavailable(str(error), hint="use another --root; this file says what the store is") from error
        else:
            _make_private(layout)
        _check_owner(layout)
    if marker.get("format") != FORMAT:
        raise StoreUnavailable(
            f"store has format {marker.get('format')}, this builda reads {FORMAT}: {layout.root}",
            hint="use another --root, or the builda that made it",
        )
    return marker


def _check_owner(layout: Layout) -> None:
    """StoreUnavailable for root in another user's store: what root writes, that user cannot use."""
    if os.geteuid() != 0:
        return
    owner = os.stat(layout.path("builda.json")).st_uid
    if owner != 0:
        raise StoreUnavailable(
            f"store belongs to another user: {layout.root}", hint=f"work as user {owner}, or use another --root"
        )


def _make(layout: Layout) -> None:
    try:
        private.make(layout.root)
    except (FileNotFoundError, NotADirectoryError) as error:  # in /proc, below a file
        words = os.strerror(error.errno or errno.ENOENT).lower()
        hint = "choose another place with --root"
        raise StoreUnavailable(f"store cannot be made, {words}: {layout.root}", hint=hint) from error
    for name in DIRECTORIES:
        private.make(layout.path(name))
    _make_private(layout)
    publish(layout, layout.path("oci-layout"), OCI_LAYOUT)
    if not os.path.exists(layout.path("index.json")):
        publish(layout, layout.path("index.json"), b'{"schemaVersion":2,"manifests":[]}')
    for name in ("gc.lock", "images.lock", "names.lock"):  # so that what removes things need make nothing
        os.close(private.opener(layout.path("locks", name), os.O_WRONLY | os.O_CREAT))
    publish(layout, layout.path("builda.json"), jsontext.dumps({"format": FORMAT}).encode())


def _make_private(layout: Layout) -> None:
    """Close the store to other users: it holds layers with setuid programs, private images, locks.

    If the top cannot be narrowed, as the mount point of a volume, every directory in it is.
    """
    if private.narrow(layout.root, _NAMES.__contains__):
        return
    for name in {name.partition("/")[0] for name in DIRECTORIES}:
        with suppress(FileNotFoundError):
            private.narrow(layout.path(name), lambda _: True)


def _is_volatile(name: str) -> bool:
    """Whether builda makes a file of this name at the top of the run root."""
    return name in ("mounts", "scratch", "s", "cache", "network.lock") or name.startswith("abilities-")


@contextmanager
def translated(path: str) -> Iterator[None]:
    """Turn errors of the file system that concern the whole store into StoreUnavailable."""
    try:
        yield
    except OSError as error:
        said = unavailable(error, path)
        if said is error:
            raise
        raise said from error


def is_full(error: BaseException | None) -> bool:
    """Whether this is an error of a file system that has no bytes or inodes left."""
    if isinstance(error, StoreUnavailable):
        error = error.__cause__
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def unavailable(error: OSError, path: str) -> StoreUnavailable | OSError:
    """The StoreUnavailable that an OSError in the store stands for; the error itself if it stands for none."""
    named = error.filename
    if isinstance(named, str) and os.path.isabs(named) and not named.startswith(path) and not _is_above(named, path):
        return error  # of a file that came from, or goes, elsewhere
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return StoreUnavailable(
                f"no space left on device, in the store: {path}", hint="free some with: builda prune --all"
            )
        case errno.EROFS:
            return StoreUnavailable(f"store is on a read-only file system: {path}", hint="choose another with --root")
        case errno.EACCES | errno.EPERM if _is_anothers(path):
            return StoreUnavailable(f"store belongs to another user: {path}", hint="choose another with --root")
        case errno.EACCES | errno.EPERM:
            return StoreUnavailable(f"no permission in the store: {path}", hint="choose another with --root")
        case _:
            return error


def _is_anothers(path: str) -> bool:
    try:
        return os.stat(path).st_uid != os.geteuid()
    except OSError:
        return False


def _is_above(directory: str, path: str) -> bool:
    return path.startswith(f"{directory.rstrip('/')}/")


def temporary(layout: Layout) -> str:
    """A new path in `ingest/` that this process may make something at."""
    pid, start = process_identity()
    return layout.path("ingest", f"tmp-{pid}-{start}-{os.urandom(8).hex()}")


def publish(layout: Layout, path: str, data: bytes, *, durable: bool = False, exclusive: bool = False) -> None:
    """Make `data` the content of `path` in one step; `durable` also survives a power cut.

    `exclusive` raises FileExistsError when `path` is there already.
    """
    with translated(layout.root):
        _publish(layout, path, data, durable=durable, exclusive=exclusive)


def _publish(layout: Layout, path: str, data: bytes, *, durable: bool, exclusive: bool) -> None:
    temp = _written(layout, data, durable=durable)
    try:
        if exclusive:
            os.link(temp, path)  # unlike rename(2) it fails if the name is taken
            os.unlink(temp)
        else:
            os.rename(temp, path)
    except OSError:
        os.unlink(temp)
        raise
    if durable:  # the content was synced before the name appeared, and the name is synced now
        sync_directory(os.path.dirname(path))


def _written(layout: Layout, data: bytes, *, durable: bool) -> str:
    """Write `data` to a new temporary file; none is left on failure."""
    temp = temporary(layout)
    try:
        fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileNotFoundError:  # the store is being made
        private.make(layout.path("ingest"))
        fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        if durable:
            os.fsync(fd)
    except OSError:
        os.unlink(temp)
        raise
    finally:
        os.close(fd)
    return temp


def sync_directory(path: str) -> None:
    """Make the names in a directory survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Damaged(StoreUnavailable):
    """A file of the store holds something that builda never wrote; `path` is the file."""

    def __init__(self, path: str) -> None:
        super().__init__(f"damaged file in the store: {path}", hint="builda fsck --repair removes it")
        self.path = path


def read_json(path: str) -> dict[str, Any]:
    """The JSON object in a file of the store; FileNotFoundError, or Damaged.

    An empty file counts as missing: only a power cut makes one, of a file that was not synced.
    """
    return parse_json(read_bytes(path), path)


def read_bytes(path: str) -> bytes:
    """The content of a file of the store; FileNotFoundError if it is missing or empty.

    A buffered file would take three times as long, and a verb reads a dozen.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = b"".join(iter(lambda: os.read(descriptor, 1 << 20), b""))
    finally:
        os.close(descriptor)
    if not data:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return data


def if_whole(read: Callable[[], T], report: Callable[[Damaged], None]) -> T | None:
    """The result of `read`; None if its file is missing, or damaged, which `report` is called with."""
    try:
        return read()
    except FileNotFoundError:
        return None
    except Damaged as error:
        report(error)
        return None


def parse_json(data: bytes, path: str) -> dict[str, Any]:
    """The JSON object in `data`, which is what `path` holds; Damaged if it is none."""
    try:
        value = jsontext.loads(data)
    except (ValueError, RecursionError) as error:
        raise Damaged(path) from error
    if not isinstance(value, dict):
        raise Damaged(path)
    return value


def quote(name: str) -> str:
    """`name` as a file name: `%`, `/` and leading dots escaped; long names by their digest."""
    quoted = name.replace("%", "%25").replace("/", "%2F")
    if quoted.startswith("."):
        quoted = "%2E" + quoted[1:]
    if len(os.fsencode(quoted)) > NAME_LIMIT:
        return "sha256-" + sha256(name.encode()).hex()
    return quoted


def file_clock_ns() -> int:
    """The time in nanoseconds that a new file would get: the kernel's clock for files advances every 4 to 10 ms."""
    return time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)


def owner_is_alive(file_name: str) -> bool | None:
    """Whether the process named in a temporary's or lease's file name lives; None when it names none."""
    parts = file_name.split("-")
    if len(parts) < 4 or not parts[1].isdigit() or not parts[2].isdigit():
        return None
    return is_alive(int(parts[1]), int(parts[2]))


def touch(path: str) -> bool:
    """Mark an object as used now, so that no sweep that began earlier takes it; False if it is missing.

    In a store that can only be read there are no sweeps either.
    """
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EACCES, errno.EROFS):
            raise
        return os.path.exists(path)
    return True


def unlink(layout: Layout, path: str) -> bool:
    """Remove the file at `path`; returns whether there was one."""
    with translated(layout.root):
        try:
            os.unlink(path)
        except FileNotFoundError:
            return False
    return True


def iter_names(path: str) -> Iterator[str]:
    """The names in a directory of the store, sorted; none when it is not there."""
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        return
    yield from sorted(names)
