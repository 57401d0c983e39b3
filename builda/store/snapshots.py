"""AllSnapshots: the snapshots of a store, whichever driver made them.

A snapshot keeps the name of its driver, so that a store may hold trees of several: those that last, those that this
process keeps in memory, and lists of files.
"""

from __future__ import annotations

from functools import cached_property

from builda.errors import NotFound, StoreUnavailable
from builda.store.layout import Damaged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from builda.events import Emit, Event
    from builda.linux.mount import Mount
    from builda.oci.digest import Digest
    from builda.store.blobs import Blobs
    from builda.store.drivers import Cut, Driver
    from builda.store.drivers.lists import ListSnapshots
    from builda.store.drivers.memory import MemorySnapshots
    from builda.store.drivers.protocol import Snapshots
    from builda.store.images import Image
    from builda.store.layout import Layout


class AllSnapshots:
    """Makes snapshots by the store's driver, and finds the driver of each that exists."""

    def __init__(
        self, where: Layout, blobs: Blobs, lease: Callable[[], None], driver: str, trees: str, *, allows_lists: bool
    ) -> None:
        """`driver` is the name of the store's, and `trees` of its trees' if that makes none."""
        self._layout = where
        self._blobs = blobs
        self._lease = lease
        self._names = driver, trees
        self._allows_lists = allows_lists
        self._in_memory: MemorySnapshots | None = None
        self._made_by: dict[str, str | None] = {}  # names of drivers, which snapshots keep, by snapshot
        self.memory: int | None = None
        """How many bytes of trees are kept in memory at most, if they are."""

    @cached_property
    def lasting(self) -> Snapshots:
        """The driver of trees that outlive this process."""
        return self._by(self._names[1])

    @cached_property
    def new(self) -> Snapshots:
        """The driver of trees that are made from now on."""
        return self.lasting

    @cached_property
    def lists(self) -> ListSnapshots:
        """The driver of lists of files."""
        from builda.store.drivers.lists import ListSnapshots

        return ListSnapshots(self._layout, self._blobs, userxattr=False)

    @cached_property
    def driver(self) -> Driver:
        """The driver that was asked for, or that works here: of trees, or of lists where there can be no trees."""
        from builda.store.drivers import DRIVERS, OVERLAY

        return DRIVERS.get(self._names[0], OVERLAY)

    @property
    def composes(self) -> bool:
        """Whether layers are made as lists of files until a step needs a tree."""
        return self._allows_lists or not self.driver.has_trees

    @cached_property
    def _userxattr(self) -> bool:
        from builda.linux.userns import in_user_namespace

        return in_user_namespace()

    def keep_in_memory(self, place: str, limit: int) -> None:
        """Make new trees in `place`, a tmpfs of this process that takes `limit` bytes; they end with the process."""
        from builda.store.drivers.memory import MemorySnapshots

        self._in_memory = MemorySnapshots(self._layout, self._blobs, userxattr=self._userxattr, place=place)
        self.new = self._in_memory
        self.driver = self._in_memory.driver
        self.memory = limit

    def full_memory(self, *, did_not_fit: bool = False) -> StoreUnavailable | None:
        """The error to report if full memory caused another one; None if it did not."""
        if self._in_memory is None or not (did_not_fit or self._in_memory.is_full()):
            return None
        return StoreUnavailable(
            f"memory for the build's trees is full: {(self.memory or 0) >> 20} MiB",
            hint="give the store a volume (--root, BUILDA_ROOT), the build more memory, or --storage-driver plain",
        )

    def is_list(self, snapshot: str) -> bool:
        """Whether a snapshot is a list of files; False if it is gone."""
        return not self.kind_of(snapshot).driver.has_trees

    def kind_of(self, snapshot: str) -> Snapshots:
        """The driver that made a snapshot; that of new trees if the snapshot is gone."""
        if snapshot not in self._made_by:
            try:
                self._made_by[snapshot] = self.new.info(snapshot).driver
            except (NotFound, Damaged):
                return self.new
        name = self._made_by[snapshot]
        for known in (self.new, self.lasting):
            if name in (None, known.driver.name):
                return known
        if name == self.lists.driver.name:
            return self.lists
        return self._by(name or "")

    def _by(self, name: str) -> Snapshots:
        from builda.store.drivers import DRIVERS, OVERLAY

        driver = DRIVERS.get(name, OVERLAY)
        if not driver.lasts:  # in the memory of another process: only the record is here
            driver = OVERLAY
        module, kind = driver.where.split(":")
        made = getattr(__import__(f"builda.store.drivers.{module}", fromlist=[kind]), kind)
        snapshots: Snapshots = made(self._layout, self._blobs, userxattr=self._userxattr)
        return snapshots

    def unpack(self, image: Image, emit: Emit | None = None, *, as_list: bool = False) -> str | None:
        """The committed snapshot of the image's topmost layer, unpacked if missing, or read if it is to be a list."""
        self._lease()
        return (self.lists if as_list else self.new).unpack(image, emit or _unseen)

    def prepare(self, parent: str | None) -> str:
        """A new active snapshot on a committed one."""
        self._lease()
        return self.new.prepare(parent)

    def prepare_for(
        self, image: Image | None, emit: Emit | None = None, *, as_list: bool = False
    ) -> tuple[str | None, str]:
        """The committed snapshot of an image, None if the driver has none, and a new active one on it."""
        self._lease()
        return (self.lists if as_list else self.new).prepare_for(image, emit or _unseen)

    def prepare_on(self, image: Image | None, top: str | None, *, as_list: bool = False) -> str:
        """A new active snapshot on the topmost of the layers that were frozen on an image."""
        self._lease()
        return (self.lists if as_list else self.new).prepare_on(image, top)

    def moved(self, key: str, top: str) -> str:
        """An active snapshot on `top`, a frozen layer upon what the unchanged active snapshot `key` stands on."""
        self._lease()
        return self.kind_of(key).moved(key, top)

    def rootfs(self, key: str) -> tuple[Mount, ...]:
        """The mounts of an active snapshot."""
        return self.kind_of(key).rootfs(key)

    def view(self, snapshot: str | None) -> tuple[Mount, ...]:
        """The read-only mounts of a committed snapshot."""
        return self.new.view(snapshot)

    def take_out(self, key: str) -> None:
        """Take out of an active snapshot what was put there for a command that was killed."""
        self.kind_of(key).take_out(key)

    def cut(self, key: str, below: str | None, *, even_empty: bool = False) -> Cut:
        """Divide an active snapshot: its changes become a layer, to be recorded and then given to `freeze`."""
        self._lease()
        return self.kind_of(key).cut(key, below, even_empty=even_empty)

    def freeze(self, key: str) -> str:
        """Make the layer of a `cut` a committed snapshot; its ID stays."""
        self._lease()
        return self.kind_of(key).freeze(key)

    def bind_chain(self, chain: Digest, snapshot: str) -> str:
        """Record the snapshot of a ChainID; returns it, or the one that was recorded first."""
        return self.kind_of(snapshot).bind_chain(chain, snapshot)

    def size_of(self, chain: Digest) -> int | None:
        """The bytes of the files of a ChainID, if its layers are unpacked here; else None."""
        snapshot = self.lasting.find_chain(chain)
        size = -1 if snapshot is None else self.lasting.info(snapshot).size
        return size if size >= 0 else None

    def remove(self, snapshot: str) -> None:
        """Remove a snapshot."""
        self.kind_of(snapshot).remove(snapshot)


def _unseen(event: Event) -> None:
    """Same as events.ignore, without the import."""
