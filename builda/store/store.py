"""Store: the facade over everything that persists.

Opening is cheap: no lock, no scan. Readers take no locks at any time. What a process makes or reuses is safe from
garbage collection while its lease lives, which it takes with the first thing it changes.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property

from builda.errors import InUse, InvalidValue, NotFound
from builda.store import layout
from builda.store.blobs import Blobs
from builda.store.images import Image, Images, Removal
from builda.store.layout import Damaged, Layout
from builda.store.snapshots import AllSnapshots
from builda.store.waits import Waits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import TracebackType

    from builda.errors import BuildaError
    from builda.oci.descriptor import Descriptor
    from builda.oci.digest import Readable
    from builda.store.blobs import BlobWriter
    from builda.store.claims import Claim
    from builda.store.containers import Containers, WorkingContainer
    from builda.store.drivers import Driver
    from builda.store.imagemounts import ImageMounts
    from builda.store.sessions import Membership
    from builda.store.steps import Steps

__all__ = ["Image", "Removal", "Store"]


class Store:
    """One store. Use as a context manager: leaving it ends its lease."""

    def __init__(
        self,
        where: Layout,
        driver: str,
        trees: str,
        *,
        claim: Claim | None = None,
        no_overlay: str | None = None,
        is_first: bool = False,
        lists: bool = False,
        warn: Callable[[Damaged], None] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Use `open`. `driver` is the name of the store's, and `trees` of its trees' if that makes none."""
        self.layout = where
        self.now = now
        self.waits = Waits()
        """Receives the time that is spent waiting for locks."""
        self.blobs = Blobs(where, self.waits)
        self.images = Images(where, self.blobs, self.report)
        self.snapshots = AllSnapshots(where, self.blobs, self.lease, driver, trees, allows_lists=lists)
        self._claim = claim
        self._warn = warn
        self._containers: Containers | None = None
        self._steps: Steps | None = None
        self.session: Membership | None = None
        """The session that things are made in."""
        self._stack = ExitStack()
        self._leased = False
        self.no_overlay = no_overlay
        """Why the store's driver is not overlay, if that was found out when the store was opened."""
        self.is_first = is_first
        """Whether this is the first command that works with trees in this store."""
        self.damaged: set[str] = set()
        """The paths of records that cannot be read; what they describe counts as missing."""

    @classmethod
    def open(
        cls,
        root: Path | str,
        runroot: Path | str,
        *,
        driver: str | None = None,
        claim: Claim | None = None,
        lists: bool = False,
        warn: Callable[[Damaged], None] | None = None,
        now: Callable[[], float] = time.time,
    ) -> Store:
        """The store at `root`, made if missing. `driver` is a name of `drivers.NAMES`, by default what works there.

        `claim` is how this process sees the ids of trees, and what it can do with them; None if it works in none. With
        `lists` layers are lists of files as long as nothing needs a tree. `warn` is called once for each record that
        cannot be read. StoreUnavailable if the store cannot be made, was made by another version, or belongs to another
        user or mode.
        """
        asked = None if driver is None else _driver(driver)
        where = Layout(os.path.abspath(root), os.path.abspath(runroot))
        marker = layout.create(where)
        if claim is None:
            known = marker.get("driver")
            trees = known if isinstance(known, str) else "overlay"  # until it is known what its file system can do
            if asked is not None and asked.has_trees:
                trees = asked.name
            return cls(where, driver or trees, trees, lists=lists, warn=warn, now=now)
        from builda.linux.userns import in_user_namespace
        from builda.store import claims

        chosen = claims.take(where, marker, claim, driver, inside=in_user_namespace())
        return cls(
            where,
            chosen.driver.name,
            chosen.trees.name,
            claim=claim,
            no_overlay=chosen.reason,
            is_first=chosen.is_first,
            lists=lists,
            warn=warn,
            now=now,
        )

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End this process's lease."""
        self._stack.close()
        self._leased = False

    @property
    def root(self) -> str:
        """The root directory."""
        return self.layout.root

    def report(self, error: Damaged) -> None:
        """Remember that a record could not be read, and warn of it once."""
        if error.path not in self.damaged:
            self.damaged.add(error.path)
            if self._warn is not None:
                self._warn(error)

    @contextmanager
    def unwarned(self) -> Iterator[None]:
        """Warn of no damaged record during the block."""
        warn, self._warn = self._warn, None
        try:
            yield
        finally:
            self._warn = warn

    def lease(self) -> None:
        """Take a lease: until the store is closed, no sweep removes what this process makes or reuses."""
        if not self._leased:
            from builda.store import leases

            self._stack.enter_context(leases.lease(self.layout))
            self._leased = True

    def join(self, session: Membership) -> None:
        """Join a session: what this process makes from now on is removed when the session ends."""
        self._stack.callback(os.close, session.held)
        self.session = session
        self.images.session = session
        if session.is_transaction:
            from builda.store.names import Pending

            self.images.named.pending = Pending(self.layout, session.id)

    # Blobs

    def put_bytes(self, data: bytes, media_type: str) -> Descriptor:
        """Store `data`; returns its descriptor."""
        from builda.oci.descriptor import Descriptor

        self.lease()
        return Descriptor(media_type=media_type, digest=self.blobs.put_bytes(data), size=len(data))

    def put_blob(self, source: Readable, descriptor: Descriptor) -> None:
        """Store the content of `descriptor`, read from `source` and verified."""
        self.lease()
        self.blobs.ingest(descriptor, lambda offset: _skipped(source, offset), lambda _: None)

    def new_blob(self) -> BlobWriter:
        """A writer for a blob whose digest is not known yet."""
        self.lease()
        return self.blobs.new()

    # Images

    def put_image(
        self, descriptor: Descriptor, *, names: tuple[str, ...] = (), free_only: bool = False, at_once: bool = False
    ) -> Image:
        """Publish the image, which must be complete in the store, and give it these names.

        With `free_only` it gets only those names that no other image has. In a session other commands see the names
        when the session ends, or `at_once`.
        """
        self.lease()
        return self.images.put(descriptor, names, free_only=free_only, at_once=at_once)

    def find_image(self, text: str) -> Image | None:
        """The image a user means by `text`; None when there is none."""
        return self.images.find(text)

    def image(self, text: str) -> Image:
        """The image a user means by `text`; NotFound with a near miss."""
        return self.images.get(text)

    def remove_image(
        self, text: str, *, force: bool = False, detach: Callable[[str], None] | None = None, sweep: bool = True
    ) -> Removal:
        """Remove a name, or an image with its last one; with `force` its working containers too.

        Without `sweep` the content stays until the caller sweeps, after it has removed more images.
        """
        image = self.image(text)
        if force:
            for container in self.containers.iter():
                if container.image_digest == image.digest:
                    self.remove_container(container, detach=detach)
            self._unmount(image, detach)
        removal = self.images.remove(text, force=force, in_use=self._in_use)
        if removal.deleted and sweep:
            self.sweep()
        return removal

    def _in_use(self) -> dict[str, str]:
        mounted = {str(mount.image): f"mounted at {mount.place}" for mount in self.image_mounts.iter()}
        used = {str(one.image_digest): f"used by working container {one.name}" for one in self.containers.iter()}
        return mounted | used

    def _unmount(self, image: Image, detach: Callable[[str], None] | None) -> None:
        """Unmount an image that is removed although it is mounted, and forget its mounts."""
        with self.image_mounts.locked():
            for mount in tuple(self.image_mounts.iter()):
                if mount.image == image.digest:
                    if detach is not None and mount.namespace:
                        detach(mount.place)
                    self.image_mounts.remove(mount)

    # Rights

    @property
    def can_mount(self) -> bool:
        """Whether commands get their trees by mounts; otherwise all that they see is put into the tree itself."""
        return self._claim is None or self._claim.mounts

    @property
    def can_chroot(self) -> bool:
        """Whether the kernel gives commands a root directory; otherwise their calls are answered by tracing."""
        return self._claim is None or self._claim.chroots

    @property
    def no_run(self) -> BuildaError | None:
        """Why no command can be run here; None if one can, or if this process works in no trees."""
        return None if self._claim is None else self._claim.no_run

    @property
    def no_others(self) -> BuildaError | None:
        """Why commands have one id here, cannot become another user and cannot give files away; None if they can."""
        return None if self._claim is None else self._claim.no_others

    # Working containers

    @property
    def containers(self) -> Containers:
        """The working containers' records."""
        if self._containers is None:
            from builda.store.containers import Containers

            self._containers = Containers(self.layout, self.report, self.waits)
        return self._containers

    def create_container(self, container: WorkingContainer, *, name: str | None, prefix: str) -> WorkingContainer:
        """Record a container under `name`, or under a free name that begins with `prefix`."""
        self.lease()
        if self.session is not None:
            self.session.note("containers", container.id)
        return self.containers.create(container, name=name, prefix=prefix)

    def container(self, text: str) -> WorkingContainer:
        """The container of this name, ID or beginning of an ID; NotFound with a near miss."""
        return self.containers.get(text)

    def update(self, container: WorkingContainer) -> WorkingContainer:
        """Write the record."""
        return self.containers.update(container)

    def rename(self, container: WorkingContainer, name: str) -> WorkingContainer:
        """Rename the container."""
        self.lease()
        return self.containers.rename(container, name)

    def remove_container(self, container: WorkingContainer, *, detach: Callable[[str], None] | None = None) -> None:
        """Remove the container, its working tree and its `builda mount`; InUse while something runs in it.

        `detach` unmounts a path.
        """
        container = self.containers.load(container.id)  # as it is now: a primitive may have frozen its tree meanwhile
        if container.mount_point is not None:
            if (pids := self.containers.runners(container)) and os.getpid() not in pids:
                raise InUse(f"container is running, process {pids[0]}: {container.name}", hint="end it first")
            if detach is not None:
                detach(container.mount_point)
        self._remove_mount_point(container.mount_point or self.layout.mount_point(container.id), detach)
        self._remove_shown(container, detach)
        self.containers.delete(container)
        self.snapshots.remove(container.snapshot)

    def _remove_mount_point(self, place: str, detach: Callable[[str], None] | None) -> None:
        """Remove the directory of a mount, which may be there without a note of it if `mount` was killed."""
        if not os.path.lexists(place):
            return
        from builda.linux.mount import is_mounted

        if detach is not None and is_mounted(place):
            detach(place)
        with suppress(OSError):  # busy in a namespace of another process
            os.rmdir(place)

    def _remove_shown(self, container: WorkingContainer, detach: Callable[[str], None] | None) -> None:
        """Remove the containers that were kept because mounts of this one's failed step show them."""
        if not os.path.exists(self.containers.path(container.id, "failed.json")):  # as of most: spares the import
            return
        from builda.store import failedsteps

        with suppress(Damaged):
            failed = failedsteps.read(self.layout, container.id)
            for other in failed.others if failed is not None and failed.shown_in is None else ():
                shown = failedsteps.read(self.layout, other)
                if shown is not None and shown.shown_in == container.id:
                    with suppress(NotFound):
                        self.remove_container(self.containers.load(other), detach=detach)

    @cached_property
    def image_mounts(self) -> ImageMounts:
        """The mounts of images."""
        from builda.store.imagemounts import ImageMounts

        return ImageMounts(self.layout, self.report, session="" if self.session is None else self.session.id)

    # Steps, cache mounts, garbage

    @property
    def steps(self) -> Steps:
        """The remembered steps."""
        if self._steps is None:
            from builda.store.steps import Steps

            self._steps = Steps(
                self.layout, lambda snapshot: self.snapshots.kind_of(snapshot).is_trusted(snapshot), self.blobs.has
            )
        return self._steps

    @contextmanager
    def cache_mount(self, identity: str, sharing: str = "shared", *, what: str = "cache mount") -> Iterator[str]:
        """The directory of a `type=cache` mount. `locked` waits for other users, `private` takes another directory.

        `what` is how a wait calls it.
        """
        import hashlib

        from builda.store import locks

        name = hashlib.sha256(identity.encode()).hexdigest()[:32]
        with ExitStack() as stack:
            path = self.layout.path("cache", name)
            if sharing == "locked":
                stack.enter_context(locks.exclusive(f"{path}.lock", self.waits, what))
            elif sharing == "private":
                path = stack.enter_context(_first_free(path))
            stack.enter_context(locks.shared(f"{path}.users"))
            layout.touch(f"{path}.users")  # whose time says when the directory was used last
            if not self.can_mount and not os.path.exists(path):
                self.snapshots.new.bring_home(path)
            with layout.translated(self.root):
                os.makedirs(path, mode=0o755, exist_ok=True)
            yield path

    def sweep(self) -> int:
        """Remove what nothing refers to; returns its bytes as far as they are known."""
        from builda.store import gc

        return gc.sweep(self)

    def unpacked_size(self, image: Image) -> int | None:
        """The bytes of an image's files, if its layers are unpacked here; else None."""
        from builda.oci.config import chain_ids

        if image.is_index:
            return None
        sizes = [self.snapshots.size_of(chain) for chain in chain_ids(image.config.diff_ids)]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    def fsck(self) -> tuple[str, ...]:
        """Find damage in the store; the findings, in words. Changes nothing."""
        from builda.store.fsck import examine

        return examine(self).faults


def _driver(name: str) -> Driver:
    """The driver that a user may name so."""
    from builda.store.drivers import DRIVERS, NAMES

    if name not in NAMES:
        raise InvalidValue(f"unknown storage driver: {name}", hint=f"builda has {', '.join(NAMES)}")
    return DRIVERS[name]


@contextmanager
def _first_free(path: str) -> Iterator[str]:
    from filelock import Timeout

    from builda.store import locks

    for number in range(1000):
        candidate = path if number == 0 else f"{path}-{number}"
        lock = locks.file_lock(f"{candidate}.lock", 0)
        try:
            lock.acquire()
        except Timeout:
            continue
        try:
            yield candidate
        finally:
            lock.release()
        return


def _skipped(source: Readable, offset: int) -> Readable:
    while offset > 0 and (data := source.read(min(offset, 1 << 20))):
        offset -= len(data)
    return source
