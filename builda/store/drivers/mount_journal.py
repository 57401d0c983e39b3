"""The journal of what was put into a tree for the time of a command, and how it is taken out again.

A line is written before each step, and the lines are read backwards to undo the steps. Whether a step was undone shows
on the disk, so that undoing can be broken off anywhere, by a kill too, and begun again.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import MappingProxyType

from builda import jsontext
from builda.errors import CorruptContent
from builda.fs import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

Entry: TypeAlias = "dict[str, Any]"

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def take_out(
    tree: str, aside: str, *, held: Mapping[str, int] = MappingProxyType({}), cache: str | None = None
) -> None:
    """Take out of `tree` what a run, perhaps a killed one, put there, and put back what was there before.

    May be repeated after a crash at any point. Originals that are no directories get a line in the file `amended`
    beside `aside` with their ctimes before and after, unless the command changed them.
    `held` are open directories by the path that they had; the command may have moved them since.
    With `cache` nothing is done unless that cache mount was put there; the caller has its lock, so the run is dead.
    """
    try:
        here = os.open(aside, _OPEN)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(here, fcntl.LOCK_EX)  # a process that looks for a cache does not lock the tree
        entries = _entries(here)
        if cache is not None and not any(entry["do"] == "cache" and entry["home"] == cache for entry in entries):
            return
        with _opened(tree) as root:
            _Undoing(root, here, aside, entries, held).run()
        for name in os.listdir(here):
            if name != "journal":
                paths.remove_tree(here, name)
        paths.remove_tree(here, "journal")
        with suppress(FileNotFoundError):
            os.rmdir(aside)
    finally:
        os.close(here)


def note(aside: str, **entry: object) -> None:
    """Append one line to the journal."""
    _append(f"{aside}/journal", entry)


@contextmanager
def _opened(path: str) -> Iterator[int]:
    fd = os.open(path, _OPEN)
    try:
        yield fd
    finally:
        os.close(fd)


def _append(path: str, entry: dict[str, Any]) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    line = jsontext.dumps(entry).encode() + b"\n"
    try:
        size = os.fstat(fd).st_size
        if os.write(fd, line) != len(line):
            os.ftruncate(fd, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
    finally:
        os.close(fd)


class _Undoing:
    """One journal, read backwards. `here` is the directory of what was set aside."""

    def __init__(self, root: int, here: int, aside: str, entries: list[Entry], held: Mapping[str, int]) -> None:
        self.root = root
        self.here = here
        self.aside = aside
        self.entries = entries
        self.held = held
        self.moved: dict[int, int] = self.last("moved", "number", "ctime")
        self.back: dict[int, bool] = self.last("back", "number", "amend")

    def last(self, kind: str, key: str, value: str) -> dict[Any, Any]:
        return {entry[key]: entry[value] for entry in self.entries if entry["do"] == kind}

    def run(self) -> None:
        if not self.entries:
            return
        times = self.times()
        for entry in reversed(self.entries):
            match entry["do"]:
                case "time":
                    self.set_time(entry["path"], times)
                case "make":
                    self.remove_made(entry["path"])
                case "place":
                    self.take_back(entry)
                case "cache":
                    self.send_home(str(entry["number"]), entry["home"])
                case _:  # says how far the run had come
                    pass

    @contextmanager
    def directory(self, path: str) -> Iterator[int | None]:
        """`paths.directory_at`, or where the command moved it to."""
        if path not in self.held:
            with paths.directory_at(self.root, path) as fd:
                yield fd
        else:
            fd = self.held[path]
            yield fd if os.fstat(fd).st_nlink else None

    def times(self) -> dict[str, int]:
        """The mtimes that directories get at the end. Decided once, since undoing changes the times itself."""
        for entry in reversed(self.entries):
            if entry["do"] == "undo":
                decided: dict[str, int] = entry["times"]
                return decided
        times = {entry["path"]: entry["mtime"] for entry in self.entries if entry["do"] == "time"}
        if any(entry["do"] == "ready" for entry in self.entries):  # they looked as before when the command began
            inodes = {entry["path"]: entry["ino"] for entry in self.entries if entry["do"] == "time"}
            times = {path: self.time_of(path, inodes[path], before) for path, before in times.items()}
        note(self.aside, do="undo", times=times)
        return times

    def time_of(self, path: str, inode: int, before: int) -> int:
        """The mtime of a directory now; `before` if the path leads to another one."""
        with self.directory(path) as fd:
            info = None if fd is None else os.fstat(fd)
        return before if info is None or info.st_ino != inode else info.st_mtime_ns

    def set_time(self, path: str, times: dict[str, int]) -> None:
        with self.directory(path) as fd:
            if fd is not None and path in times:
                os.utime(fd, ns=(os.fstat(fd).st_atime_ns, times[path]))

    def remove_made(self, path: str) -> None:
        """Remove a directory that was made, unless the command put something into it."""
        above, _, name = path.rpartition("/")
        with self.directory(above) as parent:
            if parent is not None:
                with suppress(OSError):
                    os.rmdir(name, dir_fd=parent)

    def take_back(self, entry: Entry) -> None:
        """Remove what is at the place now, as a mount would have hidden it, and put the original back."""
        above, _, name = entry["path"].rpartition("/")
        number, original = entry["number"], entry["original"]
        with self.directory(above) as parent:
            if parent is None:  # the command removed the directory, and its original with it
                return
            if original is None:
                if not _exists(self.here, str(number)):
                    self.throw_away(parent, name, number)
                return
            if _exists(self.here, f"{number}-original"):
                self.throw_away(parent, name, number)
                self.put_back(parent, name, number, original)
            if self.back.get(number) and _inode(parent, name) == original["ino"]:
                self.amend(parent, entry)

    def throw_away(self, parent: int, name: str, number: int) -> None:
        if _exists(self.here, f"{number}-gone"):
            return
        with suppress(FileNotFoundError):
            try:
                os.rename(name, f"{number}-gone", src_dir_fd=parent, dst_dir_fd=self.here)
            except PermissionError:  # a directory that mode `traced` had closed when it was killed
                paths.open_up(parent, name)
                os.rename(name, f"{number}-gone", src_dir_fd=parent, dst_dir_fd=self.here)

    def put_back(self, parent: int, name: str, number: int, original: Entry) -> None:
        info = os.stat(f"{number}-original", dir_fd=self.here, follow_symlinks=False)
        same = info.st_ctime_ns == self.moved.get(number, info.st_ctime_ns)  # else changed by another name it has
        self.back[number] = same and not original["directory"]
        note(self.aside, do="back", number=number, amend=self.back[number])
        os.rename(f"{number}-original", name, src_dir_fd=self.here, dst_dir_fd=parent)

    def amend(self, parent: int, entry: Entry) -> None:
        path, original = entry["path"], entry["original"]
        after = os.stat(path.rpartition("/")[2], dir_fd=parent, follow_symlinks=False).st_ctime_ns
        row = {"path": path, "before": original["ctime"], "after": after}
        if original["linked"]:
            row["ino"] = original["ino"]
        _append(f"{os.path.dirname(self.aside)}/amended", row)

    def send_home(self, number: str, home: str) -> None:
        """Move a cache back to its place in the store; it is dropped if there is another one by now."""
        name = next((name for name in (f"{number}-gone", number) if _is_directory(self.here, name)), None)
        if name is None:  # it is there already, or the command made something else of it
            return
        try:
            os.rename(name, home, src_dir_fd=self.here)  # over an empty directory too
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise


def _entries(here: int) -> list[Entry]:
    """The journal's lines. A last line that a kill cut short is removed: its step was not begun."""
    try:
        fd = os.open("journal", os.O_RDWR | os.O_CLOEXEC, dir_fd=here)
    except FileNotFoundError:
        return []
    with open(fd, "r+b") as file:
        data = file.read()
        whole = data.rfind(b"\n") + 1
        if whole != len(data):
            file.truncate(whole)
    try:
        return [jsontext.loads(line) for line in data[:whole].splitlines()]
    except ValueError as error:
        raise CorruptContent("damaged journal of what a command was given", hint="remove the container") from error


def _inode(parent: int, name: str) -> int | None:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False).st_ino
    except FileNotFoundError:
        return None


def _exists(parent: int, name: str) -> bool:
    return _inode(parent, name) is not None


def _is_directory(parent: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False
