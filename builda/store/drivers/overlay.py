"""Snapshots: unpacked layers and the working trees on top of them.

An *active* snapshot is a working container's; a *committed* one never changes again and lies under any number of
others. Freezing the first gives the second by rename. The store describes mounts and never makes one.

`snapshots/ID/info.json` is written last and makes a snapshot real; `chains/CHAIN` names the committed one of a ChainID.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Literal, TypeAlias

from builda.errors import CorruptContent, NotFound, StoreUnavailable
from builda.store import layout
from builda.store.layout import Layout
from builda.values import NamedTuple

if TYPE_CHECKING:
    from builda.events import Emit
    from builda.fs.layer import Applied, Clamp, Look, Marks, Whiteouts
    from builda.fs.tar import Writable
    from builda.linux.mount import Mount
    from builda.oci.descriptor import Descriptor
    from builda.oci.digest import Digest, Readable
    from builda.store.blobs import Blobs
    from builda.store.images import Image

Driver: TypeAlias = Literal["overlay", "memory", "fuse-overlayfs", "plain", "composed"]

OVERLAY_OPTIONS = ("redirect_dir=off", "metacopy=off", "index=off")
"""Whatever the machine's defaults: with one of these on, an upper directory is not the difference it seems to be."""

USERXATTR_OPTIONS = ("userxattr", "redirect_dir=nofollow", "metacopy=off", "index=off")
"""The same in a user namespace, where the marks are user.* attributes: the kernel takes no other redirect_dir there."""


ENTRY_SIZE = 1024
"""Bytes of a tar for an entry besides its content: its header, and half a block of zeros behind the content."""

LIST, FLAT, MARKED = ".list", ".flat", ".marked"
"""What the name of a ChainID ends with where it is that of a list of files, of one tree of all its layers, or of a tree
with files for what is deleted."""


class Info(NamedTuple):
    """What is known of a snapshot: the one below it, and whether it is frozen."""

    parent: str | None
    committed: bool
    chain: str | None = None
    boot: str | None = None
    entries: int = -1
    size: int = -1
    driver: str | None = None  # which made it; that of the store's trees where it is not said


class Cut(NamedTuple):
    """A working tree divided in two: the layer of what was changed, None without one, and where work goes on."""

    layer: str | None
    fresh: str
    empty: bool


class Snapshots:
    """The snapshots of one store, by the overlay driver."""

    driver: Driver = "overlay"
    stacks = True
    """Whether a snapshot is one layer's own files, to be put on others by a mount (`stacked` puts any directories)."""
    lasts = True
    """Whether its trees outlive this process."""
    kind = "overlay"
    """The type of that mount."""
    marks: Marks = "overlay"
    """How a snapshot says what is deleted."""
    whiteouts: Whiteouts = "overlay"
    """How what a layer deletes is unpacked."""
    chain_suffix = ""
    """What the names of its ChainIDs end with: the tree and the list of one layer may lie side by side."""

    def __init__(self, where: Layout, blobs: Blobs, *, userxattr: bool) -> None:
        self._layout = where
        self._blobs = blobs
        self._userxattr = userxattr

    def path(self, snapshot: str, *parts: str) -> str:
        """A path in a snapshot's directory."""
        return self._layout.path("snapshots", snapshot, *parts)

    def info(self, snapshot: str) -> Info:
        """What is known of a snapshot; NotFound when it is not (wholly) there."""
        path = self._layout.path("snapshots", snapshot, "info.json")
        try:
            return Info(**layout.read_json(path))
        except FileNotFoundError as error:
            raise NotFound(f"no such snapshot: {snapshot}") from error
        except TypeError as error:
            raise layout.Damaged(path) from error

    def exists(self, snapshot: str) -> bool:
        """Whether it is there; then no sweep takes it while this process holds a lease."""
        return layout.touch(self.path(snapshot)) and os.path.exists(self.path(snapshot, "info.json"))

    def prepare(self, parent: str | None) -> str:
        """A new active snapshot on `parent` (None: on nothing); its key."""
        if parent is not None and not self.exists(parent):
            raise NotFound(f"no such snapshot: {parent}")
        key = os.urandom(16).hex()
        with layout.translated(self._layout.root):
            os.mkdir(self.path(key), 0o700)
            try:
                self._make(key, parent)
                self._write_info(key, Info(parent, committed=False))
            except BaseException:
                self.remove(key)
                raise
        return key

    def prepare_for(self, image: Image | None, emit: Emit) -> tuple[str | None, str]:
        """The committed snapshot of an image's layers, None where there is none, and a new active one on it."""
        base = None if image is None else self.unpack(image, emit)
        return base, self.prepare(base)

    def prepare_on(self, image: Image | None, top: str | None) -> str:
        """A new active snapshot on `top`, the topmost of the layers that were frozen on an image; its key."""
        return self.prepare(top)

    def _make(self, key: str, parent: str | None) -> None:
        os.mkdir(self.path(key, "work"), 0o700)
        os.mkdir(self.path(key, "fs"))
        os.chmod(self.path(key, "fs"), 0o755)
        if parent is not None:  # the root directory's own attributes are the upper's
            below = os.stat(self.path(parent, "fs"))
            os.chown(self.path(key, "fs"), below.st_uid, below.st_gid)
            os.chmod(self.path(key, "fs"), below.st_mode & 0o7777)
            os.utime(self.path(key, "fs"), ns=(below.st_atime_ns, below.st_mtime_ns))

    def _write_info(self, snapshot: str, info: Info) -> None:
        value = json.dumps(info._replace(driver=self.driver)._asdict())
        layout.publish(self._layout, self._layout.path("snapshots", snapshot, "info.json"), value.encode())

    def lineage(self, snapshot: str | None) -> tuple[str, ...]:
        """The snapshot and all below it, topmost first."""
        found: list[str] = []
        while snapshot is not None:
            found.append(snapshot)
            snapshot = self.info(snapshot).parent
        return tuple(found)

    def rootfs(self, key: str) -> tuple[Mount, ...]:
        """How to mount an active snapshot, to be written to."""
        from builda.linux.mount import Mount  # which brings ctypes

        lower = tuple(self.path(below, "fs") for below in self.lineage(self.info(key).parent))
        options = (f"upperdir={self.path(key, 'fs')}", f"workdir={self.path(key, 'work')}", *self._options())
        return (Mount(self.kind, self.kind, "/", options, lower or (self._layout.path("empty"),)),)

    def view(self, snapshot: str | None) -> tuple[Mount, ...]:
        """How to mount a committed snapshot (None: the empty one), read-only."""
        from builda.linux.mount import Mount  # which brings ctypes

        lower = tuple(self.path(below, "fs") for below in self.lineage(snapshot))
        if not lower:
            return (Mount("bind", self._layout.path("empty"), "/", ("ro",)),)
        if len(lower) == 1 and self.kind == "overlay":  # which without an upper directory wants two lower ones
            return (Mount("bind", lower[0], "/", ("ro",)),)
        return (Mount(self.kind, self.kind, "/", (*self._options(), "ro"), lower),)

    def stacked(self, lower: tuple[str, ...], place: str) -> Mount:
        """How to mount directories on each other, topmost first, with writes going to `place`, a new directory."""
        from builda.linux.mount import Mount  # which brings ctypes

        for name in ("upper", "work"):
            os.mkdir(f"{place}/{name}")
        options = (f"upperdir={place}/upper", f"workdir={place}/work", *self._options())
        return Mount(self.kind, self.kind, "/", options, lower)

    def _options(self) -> tuple[str, ...]:
        return USERXATTR_OPTIONS if self._userxattr else OVERLAY_OPTIONS

    def upper(self, key: str) -> str:
        """The directory that holds what was changed in an active snapshot."""
        return self.path(key, "fs")

    def write_changes(self, key: str, sink: Writable, *, clamp: Clamp, below: str | None = None) -> tuple[str, ...]:
        """Write the layer tar of what a snapshot changed; paths of sockets, which it cannot hold.

        `below` is the topmost frozen layer under an active one, for drivers to which that is not where it stands.
        """
        from builda.fs.layer import diff

        root = os.open(self.upper(key), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return diff(root, sink, clamp=clamp, marks=self.marks, below=self._root_below(key))
        finally:
            os.close(root)

    def changed_size(self, key: str) -> int | None:
        """About how many bytes `write_changes` writes; None where that is not known without doing it."""
        try:
            entries, size = count(self.upper(key))
        except OSError:  # something is removed meanwhile
            return None
        return size + entries * ENTRY_SIZE

    def is_changed(self, key: str, below: str | None) -> bool:
        """Whether anything was changed in an active snapshot since `below` was frozen under it."""
        if os.listdir(self.upper(key)):
            return True
        from builda.fs.layer import Look

        return self._root_below(key) not in (None, Look.of(os.stat(self.upper(key))))

    def _root_below(self, key: str) -> Look | None:
        """How the root directory looked when a snapshot was made; None for a committed one that stands on nothing."""
        from builda.fs.layer import Look

        parent = self.info(key).parent
        if parent is not None:
            return Look.of(os.stat(self.path(parent, "fs")))
        try:  # which has the owner that the root directory was made with
            return Look.of(os.stat(self.path(key, "work")))._replace(mode=Look().mode)
        except FileNotFoundError:
            return None

    def cut(self, key: str, below: str | None, *, even_empty: bool = False) -> Cut:
        """What was changed in an active snapshot since `below` was frozen under it, as a layer of its own.

        The caller records what comes back, and calls `freeze` with the layer after that: a kill between leaves a layer
        that is merely not marked as committed, and never a working tree that is.
        """
        empty = not self.is_changed(key, below)
        if empty and not even_empty:
            return Cut(None, key, empty)
        return Cut(key, self.prepare(key), empty)

    def freeze(self, key: str) -> str:
        """The active snapshot becomes a committed one, in place; the same ID. Nothing is copied."""
        info = self.info(key)
        self._write_info(key, info._replace(committed=True, boot=boot_id()))
        from builda.fs.paths import remove_tree

        place = os.path.dirname(self.path(key, "work"))
        directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            remove_tree(directory, "work")
        finally:
            os.close(directory)
        return key

    def remove(self, snapshot: str) -> None:
        """It is gone. Its record goes first, so that a crash leaves nothing that looks whole."""
        from builda.fs.paths import remove_tree

        try:
            directory = os.open(self._layout.path("snapshots"), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            _unlink(self.path(snapshot, "info.json"))
            remove_tree(directory, snapshot)
        finally:
            os.close(directory)

    def fill(self, key: str, archive: Readable) -> None:
        """An active snapshot that nothing was changed in has the changes that a layer's archive records."""
        from builda.fs.layer import apply

        root = os.open(self.upper(key), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            apply(archive, root, whiteouts=self.whiteouts, userxattr=self._userxattr)
        finally:
            os.close(root)

    def take_out(self, key: str) -> None:
        """What a command that was killed was given is not in an active snapshot; where mounts are made it never is."""

    def bring_home(self, cache: str) -> None:
        """The directory of a cache mount is not in the tree of a command that was killed. The caller has its lock."""

    def find_chain(self, chain: Digest) -> str | None:
        """The committed snapshot of this ChainID; None when there is none, or none to be trusted."""
        try:
            snapshot = os.readlink(self._chain(chain))
        except FileNotFoundError:
            return None
        return snapshot if self.is_trusted(snapshot) else None

    def is_trusted(self, snapshot: str) -> bool:
        """Whether it is there and whole; then no sweep takes it while this process holds a lease.

        Snapshots are not synced: one of an earlier boot must still hold what it did, else it is made anew.
        """
        if not self.exists(snapshot):
            return False
        try:
            info = self.info(snapshot)
        except (StoreUnavailable, NotFound):  # emptied by a power cut; or removed just now
            return False
        if info.boot == boot_id():
            return True
        if info.entries < 0 or self._measure(snapshot) != (info.entries, info.size):
            return False
        self._write_info(snapshot, info._replace(boot=boot_id()))
        return True

    def _measure(self, snapshot: str) -> tuple[int, int]:
        """Entries and bytes of what a committed snapshot holds."""
        return count(self.path(snapshot, "fs"))

    def bind_chain(self, chain: Digest, snapshot: str) -> str:
        """The committed snapshot of `chain` is `snapshot`, or the one that another process was faster to give it."""
        info = self.info(snapshot)
        entries, size = self._measure(snapshot)
        self._write_info(
            snapshot, info._replace(committed=True, chain=str(chain), boot=boot_id(), entries=entries, size=size)
        )
        return self._link_chain(chain, snapshot)

    def _link_chain(self, chain: Digest, snapshot: str) -> str:
        known = self.find_chain(chain)
        if known is not None:
            return known
        temp = layout.temporary(self._layout)
        os.symlink(snapshot, temp)
        os.rename(temp, self._chain(chain))
        return snapshot

    def _chain(self, chain: Digest) -> str:
        return self._layout.path("chains", f"{chain.encoded}{self.chain_suffix}")

    def is_unpacked(self, image: Image) -> bool:
        """Whether a working tree on the image takes no unpacking."""
        from builda.oci.config import chain_ids

        chains = chain_ids(image.config.diff_ids)
        return not chains or ((top := self.find_chain(chains[-1])) is not None and self._is_whole(top))

    def unpack(self, image: Image, emit: Emit) -> str | None:
        """The committed snapshot of the image's topmost layer, unpacking what is missing; None when it has no layers.

        Missing layers are unpacked side by side, each into its own directory. Of two processes that want the same layer
        the second waits for the first.
        """
        from builda.oci.config import chain_ids

        chains = chain_ids(image.config.diff_ids)
        known = [self.find_chain(chain) for chain in chains]
        self._check_claims(image, known)
        if None not in known and (not known or self._is_whole(known[-1])):
            return known[-1] if known else None
        from builda.store import locks

        lock = locks.exclusive(locks.bucket(self._layout.path("locks"), chains[-1].encoded, "unpack-"))
        with layout.translated(self._layout.root), lock:
            return self._complete(image, chains, emit)

    def _check_claims(self, image: Image, known: Sequence[str | None]) -> None:
        """CorruptContent if a layer that need not be unpacked is not the one that the configuration says it is.

        Else an image could have another one's files by their DiffID, and its own blob would never be looked at. Each
        blob is read once for this.
        """
        layers, diff_ids = image.manifest.layers, image.config.diff_ids
        if len(diff_ids) != len(layers):
            raise CorruptContent(f"image has {len(layers)} layers and {len(diff_ids)} diff_ids: {image.digest}")
        for layer, diff_id, snapshot in zip(layers, diff_ids, known, strict=True):
            if snapshot is not None and not self._blobs.unpacks_to(layer.digest, diff_id):
                from builda.fs.layer import check_diff_id
                from builda.oci.digest import VerifyingReader
                from builda.oci.mediatype import compression_of

                with self._blobs.open(layer.digest) as file:
                    reader = VerifyingReader(file, layer.digest, layer.size)
                    check_diff_id(reader, compression_of(layer.media_type), diff_id)
                self._blobs.note(layer.digest, diff_id)

    def unpack_layer(self, layer: Descriptor, diff_id: Digest, chain: Digest, parent: str | None, emit: Emit) -> str:
        """The committed snapshot of one layer on `parent`, which together are `chain`; unpacked when missing."""
        with layout.translated(self._layout.root):
            found = self._adopt(chain, self._unpack_layer(layer, diff_id, chain, emit), parent)
            self._set_on(found, parent, is_new=False)
        return found

    def _complete(self, image: Image, chains: tuple[Digest, ...], emit: Emit) -> str | None:
        """Unpack what is missing now, and set each layer on the one below it."""
        known = [self.find_chain(chain) for chain in chains]
        fresh = self._unpack_all(
            image, chains, [index for index, snapshot in enumerate(known) if snapshot is None], emit
        )
        parent: str | None = None
        for index, chain in enumerate(chains):
            here = known[index]
            if here is None:
                parent = self._adopt(chain, fresh[index], parent)
            else:
                self._set_on(here, parent, is_new=index - 1 in fresh)
                parent = here
        return parent

    def _set_on(self, snapshot: str, parent: str | None, *, is_new: bool) -> None:
        """A layer whose lower neighbour was damaged or gone stands on the new one, which holds the same."""
        info = self.info(snapshot)
        if info.parent not in (None, parent) and (is_new or not self._is_whole(info.parent)):
            self._write_info(snapshot, info._replace(parent=parent))

    def _is_whole(self, snapshot: str | None) -> bool:
        """Whether it and all below it are there."""
        try:
            self.lineage(snapshot)
        except NotFound:
            return False
        return True

    def _unpack_all(
        self, image: Image, chains: tuple[Digest, ...], missing: list[int], emit: Emit
    ) -> dict[int, tuple[str, Applied | None]]:
        """Unpack these layers; by index the directory of each, a snapshot already if another process made it."""
        from concurrent.futures import ThreadPoolExecutor

        def one(index: int) -> tuple[int, tuple[str, Applied | None]]:
            layer, diff_id = image.manifest.layers[index], image.config.diff_ids[index]
            return index, self._unpack_layer(layer, diff_id, chains[index], emit)

        if len(missing) < 2:
            return dict(one(index) for index in missing)
        with ThreadPoolExecutor(2) as pool:
            futures = [pool.submit(one, index) for index in missing]
        failed = [error for future in futures if (error := future.exception())]
        unpacked = dict(future.result() for future in futures if not future.exception())
        if failed:
            for key, applied in unpacked.values():
                if applied is not None:
                    self.remove(key)
            raise failed[0]
        return unpacked

    def _unpack_layer(
        self, layer: Descriptor, diff_id: Digest, chain: Digest, emit: Emit
    ) -> tuple[str, Applied | None]:
        """The directory with the layer's own files, and what unpacking met; None when it is a snapshot already."""
        from builda.fs.layer import unpack_blob
        from builda.oci.digest import VerifyingReader
        from builda.oci.mediatype import compression_of
        from builda.store import locks

        compression = compression_of(layer.media_type)
        lock = locks.exclusive(locks.bucket(self._layout.path("locks"), chain.encoded))
        with lock, layout.translated(self._layout.root):
            if (known := self.find_chain(chain)) is not None:
                return known, None
            key = os.urandom(16).hex()
            os.mkdir(self.path(key), 0o700)
            os.mkdir(self.path(key, "fs"))
            os.chmod(self.path(key, "fs"), 0o755)
            root = os.open(self.path(key, "fs"), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                with self._blobs.open(layer.digest) as file:
                    reader = VerifyingReader(file, layer.digest, layer.size)
                    applied = unpack_blob(
                        reader, compression, root, diff_id=diff_id, whiteouts=self.whiteouts, userxattr=self._userxattr
                    )
            except BaseException:
                self.remove(key)
                raise
            finally:
                os.close(root)
        self._blobs.note(layer.digest, diff_id)
        from builda.events import BlobProgress, Warned

        emit(BlobProgress(action="unpack", digest=layer.digest, offset=layer.size, total=layer.size, done=True))
        if applied.skipped:
            names = ", ".join(sorted(set(applied.skipped)))
            emit(Warned(message=f"attributes that the store's file system cannot keep: {names}"))
        return key, applied

    def _adopt(self, chain: Digest, unpacked: tuple[str, Applied | None], parent: str | None) -> str:
        """Make a directory that was unpacked a committed snapshot, unless another process was faster."""
        key, applied = unpacked
        if applied is None:
            return key
        if applied.hides_all:
            parent = None
        self._fit(key, parent, applied)
        entries, size = self._measure(key)
        self._write_info(key, Info(parent, True, str(chain), boot_id(), entries, size))
        found = self._link_chain(chain, key)
        if found != key:
            self.remove(key)
        return found

    def _fit(self, key: str, parent: str | None, applied: Applied) -> None:
        """Directories that the layer uses and does not list look as they do below it; idle whiteouts go."""
        from builda.fs.layer import drop_idle_whiteouts, inherit_directories

        if not (applied.hidden or applied.implied):
            return
        with ExitStack() as stack:
            fds = []
            for snapshot in (key, *(() if parent is None else self.lineage(parent))):
                fds.append(os.open(self.path(snapshot, "fs"), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
                stack.callback(os.close, fds[-1])
            drop_idle_whiteouts(fds[0], fds[1:], applied.hidden)
            inherit_directories(fds[0], fds[1:], applied.implied)


def boot_id() -> str:
    """What the kernel calls this boot of the machine."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def count(path: str) -> tuple[int, int]:
    """Entries of a tree and bytes of its regular files."""
    entries = size = 0
    pending = [path]
    while pending:
        with os.scandir(pending.pop()) as found:
            for entry in found:
                entries += 1
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    size += entry.stat(follow_symlinks=False).st_size
    return entries, size


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        return


Detach: TypeAlias = Callable[[str], None]
