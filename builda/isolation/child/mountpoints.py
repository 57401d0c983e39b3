"""Mount points in a root file system that is not trusted: the kernel resolves paths inside it (openat2(2)).

Missing ones are made, and recorded for `isolation.made_mountpoints`, which removes them after the run.
"""

from __future__ import annotations

import errno
import os

from builda.isolation.child.failure import Failure
from builda.linux import syscalls as sys_

_MISSING = (errno.ENOENT, errno.ENOTDIR)


class Mountpoints:
    """Mount points below the directory descriptor `root`; those that have to be made are recorded in `record_path`."""

    def __init__(self, root: int, record_path: str | None, record: int = -1) -> None:
        self.root = root
        self._record_path = record_path
        self._record = record

    def find(self, path: str) -> int | None:
        """An O_PATH descriptor of `path`; None if it does not exist or cannot be reached."""
        try:
            return sys_.openat2(self.root, _relative(path), os.O_PATH)
        except OSError as error:
            if error.errno in (*_MISSING, errno.EACCES, errno.ELOOP):
                return None
            raise

    def make(self, path: str, *, directory: bool) -> int:
        """An O_PATH descriptor of the directory or file at `path`, which is made with its parents if it is missing."""
        fd = self.find(path)
        if fd is None:
            fd = self._create(path, directory)
        elif directory != (os.fstat(fd).st_mode & 0o170000 == 0o040000):
            os.close(fd)
            kinds = ("a directory", "a file") if directory else ("a file", "a directory")
            raise Failure("InvalidValue", f"cannot mount {kinds[0]} over {kinds[1]} in the container: {path}")
        return fd

    def _create(self, path: str, directory: bool) -> int:
        """Walk down the path, following links inside the root, and make every part that is missing."""
        links = 40
        done = ""  # the path so far, without links
        rest = names(path)
        while rest:
            name = rest.pop(0)
            if name == "..":
                done = done.rpartition("/")[0]
                continue
            here = f"{done}/{name}" if done else name
            link = self._readlink(here)
            if link is not None:
                links -= 1
                if not links:
                    raise Failure("InvalidValue", f"too many levels of symbolic links in the container: {path}")
                rest = names(link) + rest
                done = "" if link.startswith("/") else done
                continue
            self._make_one(done, name, directory or bool(rest))
            done = here
        return sys_.openat2(self.root, done or ".", os.O_PATH)

    def _readlink(self, path: str) -> str | None:
        try:
            fd = sys_.openat2(self.root, path, os.O_PATH | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        try:
            if os.fstat(fd).st_mode & 0o170000 != 0o120000:
                return None
            return os.readlink("", dir_fd=fd)
        finally:
            os.close(fd)

    def _make_one(self, parent: str, name: str, directory: bool) -> None:
        path = f"{parent}/{name}" if parent else name
        fd = sys_.openat2(self.root, parent or ".", os.O_PATH | os.O_DIRECTORY)
        try:
            if _exists(fd, name):
                return
            if self._record_path is not None and self._in_rootfs(parent):
                self._make_recorded(fd, path, name, directory)
            else:
                _make(fd, name, directory)
        except OSError as error:
            raise Failure(
                "BuildaError", f"cannot make a mount point in the container: /{path}: {error.strerror}"
            ) from error
        finally:
            os.close(fd)

    def _make_recorded(self, parent: int, path: str, name: str, directory: bool) -> None:
        """Make it under a lock: of two runs in one container, exactly one makes and records each mount point."""
        if self._record < 0:
            assert self._record_path is not None
            self._record = open_record(self._record_path)
        _lock(self._record, os.F_LOCK)
        try:
            if not _exists(parent, name):
                self._note(path, directory, parent)
                _make(parent, name, directory)
                self._note(path, directory, parent, made=True)
        finally:
            _lock(self._record, os.F_ULOCK)

    def _in_rootfs(self, parent: str) -> bool:
        """Whether `parent` is on the root's own mount: what is made in a volume stays there, and is not recorded."""
        try:
            resolve = sys_.RESOLVE_INSIDE | sys_.RESOLVE_NO_XDEV
            os.close(sys_.openat2(self.root, parent or ".", os.O_PATH, resolve=resolve))
        except OSError as error:
            if error.errno == errno.EXDEV:
                return False
            raise
        return True

    def _note(self, path: str, directory: bool, parent: int, made: bool = False) -> None:
        """Append one JSON line, before the mount point is made and after it, each with its parent's time."""
        mtime = os.fstat(parent).st_mtime_ns
        words = (
            f'"path":{quote(path)}',
            f'"directory":{_json(directory)}',
            f'"made":{_json(made)}',
            f'"mtime_ns":{mtime}',
        )
        os.write(self._record, ("{" + ",".join(words) + "}\n").encode())


def names(path: str) -> list[str]:
    """The components of a path, without empty ones and dots."""
    return [name for name in path.split("/") if name not in ("", ".")]


def quote(text: str) -> str:
    """A JSON string; the json module takes 4 ms to import."""
    parts = []
    for character in text:
        if character in '"\\' or not " " <= character <= "~":
            code = ord(character)
            if code > 0xFFFF:
                code -= 0x10000
                parts.append(f"\\u{0xD800 | code >> 10:04x}")
                code = 0xDC00 | code & 0x3FF
            parts.append(f"\\u{code:04x}")
        else:
            parts.append(character)
    return '"' + "".join(parts) + '"'


def _json(value: bool) -> str:
    return "true" if value else "false"


def _make(parent: int, name: str, directory: bool) -> None:
    """Make a file or directory, unless another process has made it meanwhile."""
    try:
        if directory:
            os.mkdir(name, 0o755, dir_fd=parent)
        else:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644, dir_fd=parent))
    except FileExistsError:
        return


def _lock(fd: int, command: int) -> None:
    """lockf(3) of the whole file, which counts from the file offset. fcntl(2) would need one more import."""
    os.lseek(fd, 0, os.SEEK_SET)
    os.lockf(fd, command, 0)


def _exists(parent: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def open_record(record_path: str) -> int:
    """A descriptor for appending to the record of mount points."""
    return os.open(record_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def _relative(path: str) -> str:
    return path.lstrip("/") or "."
