"""COPY and ADD: files and trees from source roots into a `Target`, a tree on disk or a list of rows.

Links in the target are followed inside its root, links in the sources are copied as links. Semantics are those of
BuildKit and Buildah (Dockerfile reference, "COPY"); where they differ a comment says which.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from builda.errors import AlreadyExists, InvalidValue
from builda.fs import owners, paths, xattrs
from builda.fs.sources import clean, resolve
from builda.fs.trees.target import Looks, make_directories, opened
from builda.fs.trees.walk import Walk, parents_of
from builda.values import Generic, NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

    from builda.fs.content import Moved
    from builda.fs.sources import Top
    from builda.fs.trees.target import D, Inode, Target
    from builda.fs.trees.walk import CopyRequest, FileKey
    from builda.oci.digest import Digest


class CopyResult(NamedTuple):
    """What was copied: the digest of what the sources hold, regular files and their bytes.

    `made` are directories that had to be made above the copies, `skipped` the sources' sockets, which no image
    holds, `left_out` the directories that the request says no copy may hold.
    """

    digest: Digest
    files: int
    bytes: int
    made: tuple[str, ...]
    skipped: tuple[str, ...]
    left_out: tuple[str, ...]


def copy_tree(
    request: CopyRequest,
    target: Target[D],
    *,
    remembered: MutableMapping[FileKey, bytes] | None = None,
    moved: Moved | None = None,
) -> CopyResult:
    """Copy the sources into the target. NotFound before anything is written when one names nothing.

    AlreadyExists when a file would replace a directory or a directory a file; what was copied until then stays.
    `remembered` gets the digests of the files, for `content_digest`; `moved` is told of bytes as they are copied.
    """
    tops = resolve(request.sources, request.rules)
    copying = _Copying(request, target, moved)
    placer = _Placer(request, copying, several=len(tops) > 1)
    walk = Walk(request, copying, remembered)
    for top in tops:
        place, name = placer.place(top)
        try:
            walk.top(top, place, name)
        finally:
            copying.close(place)
    placer.finish()
    return CopyResult(
        walk.digest(), walk.files, walk.bytes, tuple(placer.made), tuple(walk.skipped), tuple(walk.left_out)
    )


class _Place(NamedTuple, Generic["D"]):
    """A directory that copies go into, and the path that led to it."""

    directory: D
    path: bytes


class _Copying(Generic["D"]):
    """The visitor that copies what the walk meets."""

    reads_all = True

    def __init__(self, request: CopyRequest, target: Target[D], moved: Moved | None) -> None:
        self.target = target
        self.moved = moved
        self.owner = request.owner
        self.mode = request.mode
        self.link = request.link
        self.time = None if request.timestamp is None else request.timestamp * 10**9
        self.copies: dict[Inode, dict[tuple[Inode, bytes], bytes]] = {}
        """Of a source with several names: the copies, by directory and name, and the path of each."""
        self.copied: dict[tuple[Inode, bytes], Inode] = {}

    def enter(self, parent: _Place[D], name: bytes) -> _Place[D]:
        try:
            directory = self.target.make(parent.directory, name)
        except FileExistsError:
            directory = self.existing(parent, name)
        return _Place(directory, parent.path + b"/" + name)

    def existing(self, parent: _Place[D], name: bytes) -> D:
        """The directory that is there already, or that a link there leads to inside the root."""
        found = self.target.enter(parent.directory, name)
        if found is not None:
            return found
        if self.link:
            self.make_way(parent, name)
            return self.target.make(parent.directory, name)
        path = parent.path + b"/" + name
        try:
            return self.target.open(path)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ENOENT, errno.ELOOP):
                raise
            raise _in_the_way(path, "directory", "file") from error

    def leave(self, place: _Place[D], info: os.stat_result, values: Mapping[str, bytes]) -> None:
        self.dress(place.directory, info, values)

    def close(self, place: _Place[D]) -> None:
        self.target.close(place.directory)

    def identity(self, place: _Place[D]) -> Inode:
        return self.target.identity(place.directory)

    def dress(self, directory: D, info: os.stat_result, values: Mapping[str, bytes]) -> None:
        """Make the directory look like the one that it is a copy of."""
        looks = self.looks(info, values, is_directory=True)
        try:
            self.target.dress(directory, looks)
        except OSError as error:
            owners.explain(error, *looks.owner)
            raise

    def looks(self, info: os.stat_result, values: Mapping[str, bytes], *, is_directory: bool = False) -> Looks:
        """The metadata of a copy. With --chmod it has no access ACL, because an ACL contains a mode of its own."""
        owner, mode, values, time = self.target.original(info, values)
        if self.mode is not None:
            mode = self.mode(mode, is_directory)
            values = {name: values[name] for name in values if name not in xattrs.ACLS}
        return Looks(self.owner or owner, mode, values, time if self.time is None else self.time)

    def regular(
        self, source: int, parent: _Place[D], name: bytes, info: os.stat_result, values: Mapping[str, bytes]
    ) -> bytes:
        looks = self.looks(info, values)
        try:
            try:
                digest = self.target.copy(parent.directory, name, source, info, looks, self.moved)
            except FileExistsError:
                self.make_way(parent, name)
                digest = self.target.copy(parent.directory, name, source, info, looks, self.moved)
        except OSError as error:
            owners.explain(error, *looks.owner)
            raise
        if info.st_nlink > 1:
            self.copies[info.st_dev, info.st_ino] = {}
            self.note_copy(parent, name, (info.st_dev, info.st_ino))
        return digest

    def special(
        self, parent: _Place[D], name: bytes, info: os.stat_result, link: bytes, values: Mapping[str, bytes]
    ) -> None:
        kind, looks = stat.S_IFMT(info.st_mode), self.looks(info, values)
        try:
            try:
                self.target.special(parent.directory, name, kind, link, info.st_rdev, looks)
            except FileExistsError:
                self.make_way(parent, name)
                self.target.special(parent.directory, name, kind, link, info.st_rdev, looks)
        except OSError as error:
            owners.explain(error, *looks.owner)
            raise

    def linked(self, parent: _Place[D], name: bytes, inode: Inode) -> bool:
        copies = self.copies[inode]
        if (self.target.identity(parent.directory), name) in copies:
            return True
        with suppress(FileNotFoundError):
            self.make_way(parent, name)
        copies = self.copies[inode]
        if not copies:
            return False
        self.target.link(parent.directory, name, next(iter(copies.values())))
        self.note_copy(parent, name, inode)
        return True

    def note_copy(self, parent: _Place[D], name: bytes, inode: Inode) -> None:
        known = self.target.identity(parent.directory), name
        self.copies[inode][known] = parent.path + b"/" + name
        self.copied[known] = inode

    def forget_copies(self, prefix: bytes) -> None:
        """Those below a directory are gone; with --link, which goes through no link, there is one path to each."""
        for inode, copies in self.copies.items():
            self.copies[inode] = {known: path for known, path in copies.items() if not path.startswith(prefix)}
        self.copied = {known: inode for known, inode in self.copied.items() if known in self.copies[inode]}

    def make_way(self, parent: _Place[D], name: bytes) -> None:
        """Remove what a file replaces. Links are replaced, not written through: they may be the image's traps."""
        if self.copied:  # by the directory itself, to which several paths may lead
            known = self.target.identity(parent.directory), name
            inode = self.copied.pop(known, None)
            if inode is not None:
                self.copies[inode].pop(known, None)
        if self.target.holds_directory(parent.directory, name):
            if not self.link:
                raise _in_the_way(parent.path + b"/" + name, "file", "directory")
            self.forget_copies(parent.path + b"/" + name + b"/")
        self.target.remove(parent.directory, name)


def _in_the_way(path: bytes, new: str, old: str) -> AlreadyExists:
    return AlreadyExists(f"cannot replace a {old} with a {new}: /{os.fsdecode(path).lstrip('/')}")


class _Placer(Generic["D"]):
    """Finds where tops go, and makes the directories they need.

    BuildKit's rules: what has to be made above a copy belongs to --chown's owner; a directory made to take another's
    contents looks like that one; one that was there keeps its looks.
    """

    def __init__(self, request: CopyRequest, copying: _Copying[D], *, several: bool) -> None:
        if not request.destination:
            raise InvalidValue("copy needs a destination")
        self.request = request
        self.copying = copying
        self.target = copying.target
        self.destination = clean(request.destination)
        ends = request.destination.endswith(("/", "/.")) or request.destination == "."
        self.is_directory = ends or several or request.parents or self.is_there()
        self.made: list[str] = []
        self.times: dict[str, int] = {}  # of directories that were there, by path
        self.like: dict[str, tuple[int, str]] = {}  # directories made here, and the source's that they shall look like

    def is_there(self) -> bool:
        return self.target.is_directory(os.fsencode(self.destination), follow=not self.request.link)

    def place(self, top: Top) -> tuple[_Place[D], bytes]:
        """The directory that `top` goes to, which the caller closes, and its name there ("" for contents only)."""
        directory, name = self.split(top)
        new = {path.lstrip("/") for path in self.make(directory)}
        self.made += sorted(new)
        pairs = [(source, f"{self.destination}/{kept}".lstrip("/")) for source, kept in parents_of(top)]
        if top.is_directory:
            pairs.append((top.path, directory))
        self.like.update({path: (top.source.root, source) for source, path in pairs if path in new})
        path = os.fsencode(directory)
        return _Place(self.target.open(path), path), os.fsencode(name)

    def split(self, top: Top) -> tuple[str, str]:
        """The directory and the name in it, "" for a directory's contents."""
        if self.request.parents:
            path = clean(f"{self.destination}/{top.kept}")
            return (path, "") if top.is_directory else _split(path)
        if top.is_directory:
            return self.destination, ""
        if not self.is_directory:
            return _split(self.destination)
        if "/" in top.name or top.name in ("", ".", ".."):
            raise InvalidValue(f"not a file name: {top.name!r}")
        return self.destination, top.name

    def make(self, directory: str) -> list[str]:
        looks = Looks(self.request.owner or (0, 0), self.request.made_mode, {}, self.made_time)
        self.keep_time(directory)
        try:
            made = make_directories(self.target, directory, looks, replace=self.request.link)
        except NotADirectoryError as error:
            raise AlreadyExists(
                f"cannot make a directory where a file is: /{directory}",
                hint="a destination that ends in / is a directory",
            ) from error
        return [os.fsdecode(path) for path in made]

    @property
    def made_time(self) -> int | None:
        """The time of directories that are made; None for now. A layer of --link is the same whenever it is made."""
        return 0 if self.copying.time is None and self.request.link else self.copying.time

    def keep_time(self, directory: str) -> None:
        """With --link, remember the time of the deepest directory on the way that is there: no layer holds it then."""
        if not self.request.link:
            return
        path = directory
        while not self.target.is_directory(os.fsencode(path), follow=False):
            path = _split(path)[0]
        if path not in self.made:
            with opened(self.target, os.fsencode(path)) as there:
                self.times.setdefault(path, self.target.time_of(there))

    def finish(self) -> None:
        """The looks of the directories that were made, deepest first, as their entries changed their times."""
        for path in sorted(self.made, reverse=True):
            with opened(self.target, os.fsencode(path)) as directory:
                if path in self.like:
                    self.look_like(directory, *self.like[path])
                elif self.made_time is not None:
                    self.target.set_time(directory, self.made_time)
        for path, time in self.times.items():
            with suppress(FileNotFoundError, NotADirectoryError):  # replaced by a later source
                self.set_back(path, time)

    def set_back(self, path: str, time: int) -> None:
        with opened(self.target, os.fsencode(path)) as directory:
            if self.target.time_of(directory) != time:  # to set it anyhow would be a change to the layer
                self.target.set_time(directory, time)

    def look_like(self, directory: D, root: int, source: str) -> None:
        model = paths.open_in_root(root, source, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.copying.dress(directory, os.fstat(model), xattrs.recorded(model))
        finally:
            os.close(model)


def _split(path: str) -> tuple[str, str]:
    head, _, tail = path.rpartition("/")
    return head, tail
