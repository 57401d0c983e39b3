"""A layer to a tree on disk: what `unpack` does of an archive, and whiteouts.

Order within a layer does not matter for whiteouts: they hide what is below the layer, never what it holds itself.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from builda.errors import CorruptContent
from builda.fs import owners, paths, xattrs
from builda.fs.tar import CHARACTER, TarEntry, shown
from builda.fs.tarread import Content
from builda.fs.trees.directory import TreeTarget, is_whiteout, look_like, lstat
from builda.fs.trees.unpack import Unpacker
from builda.fs.whiteouts import OPAQUE, WHITEOUT, hidden_by
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal, TypeAlias

    from builda.oci.digest import Readable

Whiteouts: TypeAlias = "Literal['overlay', 'files', 'plain', 'merged']"

_DEFAULT_ACL = xattrs.ACLS[1]
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Applied(NamedTuple):
    """Result of unpacking: the number of entries and of bytes of content.

    `implied`: directories that the archive uses and does not list (see `inherit_directories`).
    `skipped`: names of extended attributes that could not be kept here.
    `hides_all`: the layer hides every layer below it. Overlayfs cannot express that, so the caller leaves those out.
    `hidden`: paths that whiteouts hide (see `drop_idle_whiteouts`).
    """

    entries: int
    bytes: int
    implied: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    hides_all: bool = False
    hidden: tuple[str, ...] = ()


def apply(source: Readable, root: int, *, whiteouts: Whiteouts, userxattr: bool = False) -> Applied:
    """Unpack an uncompressed layer into the directory `root`, reading `source` to its end.

    `overlay`: `root` is this layer's own directory, and deletions become overlay's; with `files` they stay the files
    that an archive has for them, as fuse-overlayfs wants it. `plain`: `root` holds the layers below, and deletions are
    done. `merged`: the same in a mounted overlay, where a directory that hides what is below is made anew, as by the
    commands that the layer records. CorruptContent, naming the entry, for what is malformed or leads out of the root;
    what was unpacked until then stays.
    """
    target = TreeTarget(root)
    if whiteouts == "plain":
        unpacker: _Applying = _Flat(target)
    elif whiteouts == "merged":
        unpacker = _Merged(target)
    elif whiteouts == "files":
        unpacker = _Files(target)
    else:
        unpacker = _Overlay(target, "user.overlay.opaque" if userxattr else "trusted.overlay.opaque")
    count, total = unpacker.run(source)
    implied = tuple(os.fsdecode(path) for path in sorted(unpacker.implied))
    hidden = tuple(os.fsdecode(path) for path in sorted(unpacker.hidden))
    return Applied(count, total, implied, tuple(sorted(target.skipped)), unpacker.hides_all, hidden)


def inherit_directories(root: int, lowers: Sequence[int], implied: Sequence[str]) -> None:
    """Make the directories that a layer did not list look as in the layers below, the topmost first in `lowers`.

    Without that a layer that holds only `root/x` would make /root readable by all. Needed once all lower layers are
    unpacked; for a flat tree never.
    """
    for path in sorted(map(os.fsencode, implied), reverse=True):
        model = _directory_below(lowers, path)
        if model is not None:
            try:
                _look_like(root, model, path)
            finally:
                os.close(model)


def inherit_noted_owners(root: int, lowers: Sequence[int]) -> None:
    """Note in the layer's directories the owners that the layers below, the topmost first, keep of links and FIFOs.

    They are in an attribute of the directory that holds them, and overlay shows that of the topmost directory. Needed
    once all lower layers are unpacked and have theirs.
    """
    pending = [b""]
    while pending:
        path = pending.pop()
        directory = _directory_in(root, path)
        if directory is None:
            continue
        try:
            model = None if xattrs.is_opaque(directory) else _directory_below(lowers, path)
            if model is None:
                continue
            try:
                with os.scandir(directory) as found:
                    names = {os.fsencode(entry.name): entry.is_dir(follow_symlinks=False) for entry in found}
                owners.inherit_noted(directory, model, names.keys())
            finally:
                os.close(model)
            pending += [path + b"/" + name if path else name for name, is_directory in names.items() if is_directory]
        finally:
            os.close(directory)


def _directory_below(lowers: Sequence[int], path: bytes) -> int | None:
    """A descriptor of the directory that the layers, the topmost first, show at `path`; None if they show none."""
    for lower in lowers:
        model = _directory_in(lower, path)
        if model is not None or _shows(lower, path) is not None:  # what is further below does not show
            return model
    return None


def drop_idle_whiteouts(root: int, lowers: Sequence[int], hidden: Sequence[str]) -> None:
    """Remove whiteouts of what no lower layer shows: in a directory of one layer alone overlay would list their names.

    Needed once all lower layers are unpacked, the topmost first in `lowers`.
    """
    for path in map(os.fsencode, hidden):
        head, _, name = path.rpartition(b"/")
        with suppress(OSError):  # links that lead in a circle by now
            head = paths.resolved(root, head)  # the layer's own links were followed
        directory = _directory_in(root, head)
        if directory is None:
            continue  # replaced later in the layer
        try:
            whiteout = lstat(directory, name)
            if whiteout is None or not is_whiteout(whiteout):
                continue
            if _is_cut_off(root, head) or not _is_shown(lowers, head + b"/" + name if head else name):
                time = os.fstat(directory).st_mtime_ns
                os.unlink(name, dir_fd=directory)
                os.utime(directory, ns=(time, time))
        finally:
            os.close(directory)


def _is_shown(lowers: Sequence[int], path: bytes) -> bool:
    return next((found for lower in lowers if (found := _shows(lower, path)) is not None), False)


def _shows(layer: int, path: bytes) -> bool | None:
    """Whether the layer has `path` (True), hides what lower layers have there (False), or says nothing of it (None)."""
    head, _, name = path.rpartition(b"/")
    cut_off = False
    fd = os.dup(layer)
    try:
        for part in head.split(b"/") if head else ():
            inner = _child(fd, part)
            if inner is None:
                return False if cut_off or lstat(fd, part) or lstat(fd, WHITEOUT + part) else None
            os.close(fd)
            fd = inner
            cut_off = cut_off or xattrs.is_opaque(fd)
        info = lstat(fd, name)
        if info is not None:
            return not is_whiteout(info)
        return False if cut_off or lstat(fd, WHITEOUT + name) else None
    finally:
        os.close(fd)


def _is_cut_off(layer: int, path: bytes) -> bool:
    """Whether nothing of lower layers shows in the layer's directory `path`, as it or one above it is opaque."""
    fd = os.dup(layer)
    try:
        for part in path.split(b"/") if path else ():
            inner = _child(fd, part)
            if inner is None:
                return False
            os.close(fd)
            fd = inner
            if xattrs.is_opaque(fd):
                return True
        return False
    finally:
        os.close(fd)


def _child(parent: int, name: bytes) -> int | None:
    """A descriptor of the directory `name` in `parent`; None if it is missing or no directory."""
    try:
        return os.open(name, _OPEN_DIRECTORY, dir_fd=parent)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        return None


def _directory_in(layer: int, path: bytes) -> int | None:
    """A descriptor of the layer's own directory `path`, to which no link leads; None when it has none."""
    fd = os.dup(layer)
    for part in path.split(b"/") if path else ():
        try:
            inner = _child(fd, part)
        finally:
            os.close(fd)
        if inner is None:
            return None
        fd = inner
    return fd


def _look_like(root: int, model: int, path: bytes) -> None:
    fd = _directory_in(root, path)
    if fd is None:
        return  # replaced later in the layer
    try:
        look_like(fd, model)
    finally:
        os.close(fd)


class _Applying(Unpacker[int]):
    """A layer, wherever it goes."""

    def __init__(self, target: TreeTarget) -> None:
        super().__init__(target, b"")
        self.root = target.root
        self.hides_all = False
        self.hidden: set[bytes] = set()
        self.defaults: dict[bytes, bytes] = {}
        """Default ACLs of directories, which get them last: what the layer makes there does not inherit them."""

    def dress_directory(self, directory: int, entry: TarEntry, path: bytes) -> None:
        default = entry.xattrs.get(_DEFAULT_ACL)
        if default is None:
            self.defaults.pop(path, None)
        else:
            self.defaults[path] = default
            others = {name: value for name, value in entry.xattrs.items() if name != _DEFAULT_ACL}
            entry = entry._replace(xattrs=others)
        super().dress_directory(directory, entry, path)

    def finish(self) -> None:
        self.close()
        for path, default in self.defaults.items():
            directory = _directory_in(self.root, path)
            if directory is not None:  # not replaced later in the layer
                try:
                    self.target.skipped.update(xattrs.write(directory, {_DEFAULT_ACL: default}))
                finally:
                    os.close(directory)
        super().finish()


class _Layer(_Applying):
    """A layer in a directory of its own: what is there, is this layer's."""

    def hide(self, parent: int, name: bytes) -> None:
        """Delete `name` of lower layers."""
        raise NotImplementedError

    def is_hidden(self, parent: int, name: bytes) -> bool:
        """Whether `hide` was called for it."""
        raise NotImplementedError

    def make_opaque(self, fd: int) -> None:
        """The directory hides what is below it."""
        raise NotImplementedError

    def marker(self, parent: int, head: bytes, name: bytes) -> bool:
        hidden = hidden_by(head, name)
        if hidden is None:
            return False
        if hidden == OPAQUE:
            if head:
                self.make_opaque(parent)
            else:
                self.hides_all = True
        elif hidden and not self.made_opaque(parent, hidden):
            self.hide(parent, hidden)
            self.hidden.add(head + b"/" + hidden if head else hidden)
        return True

    def made_opaque(self, parent: int, name: bytes) -> bool:
        """Whether the layer holds `name` itself: as a directory it then hides the one below, a file does anyhow."""
        info = lstat(parent, name)
        if info is None:
            return False
        if stat.S_ISDIR(info.st_mode):
            self.make_opaque_at(parent, name)
        return True

    def make_opaque_at(self, parent: int, name: bytes) -> None:
        fd = os.open(name, _OPEN_DIRECTORY, dir_fd=parent)
        try:
            self.make_opaque(fd)
        finally:
            os.close(fd)

    def make_parents(self, head: bytes) -> None:
        hidden = self.whiteouts_above(head)
        super().make_parents(head)
        for path in hidden:
            with paths.parent_of(self.root, path) as (parent, name):
                self.make_opaque_at(parent, name)

    def whiteouts_above(self, head: bytes) -> list[bytes]:
        parts = paths.resolved(self.root, head).split(b"/")
        found = []
        for step in (b"/".join(parts[: count + 1]) for count in range(len(parts))):
            try:
                with paths.parent_of(self.root, step) as (parent, name):
                    if self.is_hidden(parent, name):
                        found.append(step)
            except (FileNotFoundError, NotADirectoryError):
                break
        return found

    def special(self, parent: int, name: bytes, entry: TarEntry) -> None:
        if entry.type == CHARACTER and entry.major == entry.minor == 0:
            raise CorruptContent(f"character device 0:0, which is overlay's whiteout: {shown(entry.name)}")
        super().special(parent, name, entry)


class _Overlay(_Layer):
    """A layer for the kernel's overlay."""

    def __init__(self, target: TreeTarget, opaque: str) -> None:
        super().__init__(target)
        self.opaque = opaque

    def hide(self, parent: int, name: bytes) -> None:
        os.mknod(name, stat.S_IFCHR, 0, dir_fd=parent)

    def is_hidden(self, parent: int, name: bytes) -> bool:
        info = lstat(parent, name)
        return info is not None and is_whiteout(info)

    def make_opaque(self, fd: int) -> None:
        os.setxattr(fd, self.opaque, b"y")

    def existing_directory(self, parent: int, name: bytes, path: bytes) -> int:
        hidden = self.is_hidden(parent, name)
        fd = super().existing_directory(parent, name, path)
        if hidden:
            self.make_opaque(fd)
        return fd


class _Files(_Layer):
    """A layer for fuse-overlayfs, where no whiteout of overlay's can be made, as on an overlay."""

    def __init__(self, target: TreeTarget) -> None:
        super().__init__(target)
        self.hides = False

    def hide(self, parent: int, name: bytes) -> None:
        _make_mark(parent, WHITEOUT + name)
        self.hides = True

    def is_hidden(self, parent: int, name: bytes) -> bool:
        return self.hides and lstat(parent, WHITEOUT + name) is not None

    def make_opaque(self, fd: int) -> None:
        _make_mark(fd, OPAQUE)

    def make(self, parent: int, name: bytes, path: bytes, entry: TarEntry, content: Content) -> None:
        super().make(parent, name, path, entry, content)
        if self.is_hidden(parent, name):
            self.reveal(parent, name)

    def make_parents(self, head: bytes) -> None:
        hidden = self.whiteouts_above(head)
        super().make_parents(head)
        for path in hidden:
            with paths.parent_of(self.root, path) as (parent, name):
                os.unlink(WHITEOUT + name, dir_fd=parent)

    def reveal(self, parent: int, name: bytes) -> None:
        """The layer holds `name` after all, in place of what it deletes."""
        os.unlink(WHITEOUT + name, dir_fd=parent)
        self.made_opaque(parent, name)


def _make_mark(parent: int, name: bytes) -> None:
    with suppress(FileExistsError):
        os.close(os.open(name, _CREATE, 0o600, dir_fd=parent))


class _Flat(_Applying):
    """A layer over the layers below it in one tree."""

    def __init__(self, target: TreeTarget) -> None:
        super().__init__(target)
        self.own: dict[bytes, set[bytes]] = {}  # by directory, the names that the layer holds, listed or implied

    def made(self, path: bytes) -> None:
        while path:
            head, _, name = path.rpartition(b"/")
            names = self.own.setdefault(head, set())
            if name in names:
                return
            names.add(name)
            path = head

    def parent_opened(self, head: bytes, parent: int) -> None:
        """A directory that the layer does not list keeps its time, as it would under overlay."""
        if head not in self.times:
            self.times[head] = os.fstat(parent).st_mtime_ns
        default = xattrs.take_default_acl(parent)
        if default:
            self.defaults.setdefault(paths.resolved(self.root, head), default)

    def marker(self, parent: int, head: bytes, name: bytes) -> bool:
        hidden = hidden_by(head, name)
        if hidden is None:
            return False
        if hidden == OPAQUE:
            self.purge(parent, head)
        elif hidden:
            self.remove(parent, head + b"/" + hidden if head else hidden, hidden)
        return True

    def remove(self, parent: int, path: bytes, name: bytes) -> None:
        """Remove `name` as far as it comes from the layers below."""
        if name not in self.own.get(path.rpartition(b"/")[0], ()):
            paths.remove_tree(parent, name)
            return
        fd = _child(parent, name)
        if fd is not None:
            try:
                self.purge(fd, path)
            finally:
                os.close(fd)

    def purge(self, directory: int, path: bytes) -> None:
        """The same of all that the directory at `path` holds."""
        with paths.Descent(directory) as at:
            stack = [(path, os.listdir(at.fd))]
            while stack:
                here, names = stack[-1]
                if not names:
                    stack.pop()
                    if stack:
                        at.leave()
                    continue
                name = os.fsencode(names.pop())
                if name not in self.own.get(here, ()):
                    paths.remove_tree(at.fd, name)
                elif (info := lstat(at.fd, name)) is not None and stat.S_ISDIR(info.st_mode):
                    at.enter(name)
                    stack.append((here + b"/" + name if here else name, os.listdir(at.fd)))


class _Merged(_Flat):
    """A layer over the layers below it in a mounted overlay."""

    last: tuple[bytes, TarEntry] | None = None
    """The directory that was listed last."""

    def directory(self, parent: int, name: bytes, path: bytes, entry: TarEntry) -> None:
        super().directory(parent, name, path, entry)
        self.last = path, entry

    def marker(self, parent: int, head: bytes, name: bytes) -> bool:
        is_opaque = hidden_by(head, name) == OPAQUE
        if not is_opaque or self.last is None or self.last[0] != head or self.own.get(head):
            return super().marker(parent, head, name)
        with paths.parent_of(self.root, head) as (above, last):
            paths.remove_tree(above, last)
            self.close()
            super().directory(above, last, head, self.last[1])
        return True
