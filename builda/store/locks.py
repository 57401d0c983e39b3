"""Locks between processes: one per object that can be written twice. Readers take none."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from filelock import FileLock

    from builda.store.waits import Waits

MODE = 0o644
"""Mode of lock files, whatever the umask: a user who can open one can hold it, so only the store's owner may."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
BUCKETS = 256
"""Lock files of objects that come and go; two objects that share one merely wait for each other."""


@contextmanager
def exclusive(path: str, waits: Waits | None = None, what: str = "") -> Iterator[None]:
    """Hold a lock during the block; waits for other processes and threads, and tells `waits` of it as `what`."""
    lock = file_lock(path)
    if waits is not None:
        from filelock import Timeout

        try:
            lock.acquire(timeout=0)
        except Timeout:
            with waits.waiting(what, path):
                lock.acquire()
    else:
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def file_lock(path: str, timeout: float = -1) -> FileLock:
    """The lock to be acquired; Timeout after `timeout` seconds if another process has it."""
    from filelock import FileLock

    return FileLock(path, timeout, MODE, thread_local=False)


@contextmanager
def brief(path: str, kind: int = fcntl.LOCK_EX, waits: Waits | None = None, what: str = "") -> Iterator[None]:
    """Same as `exclusive`, by flock(2), which filelock uses too.

    For the light verbs: importing filelock (0.03 s) takes longer than they run. `kind` is the operation of flock.
    """
    fd = _opened(path)
    try:
        if waits is None:
            fcntl.flock(fd, kind)
        else:
            try:
                fcntl.flock(fd, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                with waits.waiting(what, path):
                    fcntl.flock(fd, kind)
        yield
    finally:
        os.close(fd)


class Notes:
    """Whether what a lock guards was left half changed: the lock file is not empty from `dirty` to `clean`."""

    def __init__(self, fd: int) -> None:
        info = os.fstat(fd)
        self._fd = fd
        self._is_file = stat.S_ISREG(info.st_mode)
        self.is_dirty = not self._is_file or info.st_size > 0

    def dirty(self) -> None:
        """A change begins."""
        if self._is_file:
            with suppress(OSError):  # a full disk: a kill at this moment leaves what `prune` mends
                os.pwrite(self._fd, b"changing\n", 0)

    def clean(self) -> None:
        """The change is done."""
        if self._is_file:
            os.ftruncate(self._fd, 0)


@contextmanager
def noted(path: str) -> Iterator[Notes]:
    """Same as `brief`, with a note in the lock file of whether the last holder finished."""
    fd = _opened(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield Notes(fd)
    finally:
        os.close(fd)


def _opened(path: str) -> int:
    """Open the lock file, made if missing; its directory if inodes are lacking.

    No process holds a lock file that does not exist, and those that remove things then exclude each other.
    """
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, MODE)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return os.open(os.path.dirname(path), _DIRECTORY)


def shared(path: str) -> AbstractContextManager[None]:
    """Hold the lock together with other processes, while none has it `alone`."""
    return brief(path, fcntl.LOCK_SH)


def alone(path: str) -> AbstractContextManager[None]:
    """Hold the lock while no process has it `shared`; BlockingIOError at once if one has."""
    return brief(path, fcntl.LOCK_EX | fcntl.LOCK_NB)


def hold(path: str) -> int:
    """Make a file that `is_held` for as long as this process lives and keeps the descriptor open.

    Unlike a process ID this also tells processes of another pid namespace: another pod that has the same volume.
    """
    while True:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, MODE)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink:  # else a sweep found it before it was held, and removed it
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def hold_directory(path: str) -> int:
    """Same as `hold`, for a new directory of mode 0700."""
    while True:
        with suppress(FileExistsError):
            os.mkdir(path, 0o700)
        with suppress(FileNotFoundError):  # a sweep found it before it was held
            fd = os.open(path, _DIRECTORY)
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink:  # else a sweep removed it before it was held
                return fd
            os.close(fd)


@contextmanager
def directory_alone(path: str) -> Iterator[None]:
    """Hold a directory; BlockingIOError at once if a living process holds it."""
    fd = os.open(path, _DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(fd)


def is_held(path: str) -> bool:
    """Whether a living process holds this file; False when it is not there."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def bucket(directory: str, name: str, kind: str = "") -> str:
    """The lock file of an object called `name`, a hexadecimal digest; those of each `kind` are for themselves."""
    return f"{directory}/{kind}{int(name[:8], 16) % BUCKETS:02x}.lock"
