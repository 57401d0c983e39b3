"""The Protocol of drivers of snapshots.

A snapshot is the files of a layer, or of a whole tree, under an ID of 32 hexadecimal digits. An *active* one belongs to
a working container and is written to. A *committed* one never changes again and lies under any number of others. `cut`
divides an active snapshot into a layer and a place where work goes on, the caller records both, and `freeze` makes the
layer a committed snapshot. A kill between these leaves a layer that is merely not marked as committed, and never a
working tree that is.

What `rootfs` and `view` return is data; `linux.mount` and the child of `run` mount it.
"""

from __future__ import annotations

from builda.values import Protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.events import Emit
    from builda.fs.layer import Clamp
    from builda.fs.tar import Writable
    from builda.linux.mount import Mount
    from builda.oci.descriptor import Descriptor
    from builda.oci.digest import Digest, Readable
    from builda.store.drivers import Cut, Driver, Info
    from builda.store.images import Image


class Snapshots(Protocol):
    """The snapshots of one store, by one driver. `bookkeeping.Records` has the half of it that is bookkeeping."""

    @property
    def driver(self) -> Driver:
        """Its row of the table, which says what it can do."""

    # Records

    def path(self, snapshot: str, *parts: str) -> str:
        """A path in a snapshot's directory."""

    def info(self, snapshot: str) -> Info:
        """The record of a snapshot; NotFound if it is missing or half made."""

    def exists(self, snapshot: str) -> bool:
        """Whether the snapshot exists. If so, no sweep removes it while this process holds a lease."""

    def is_trusted(self, snapshot: str) -> bool:
        """Whether the snapshot exists with the content that was committed."""

    def is_of_earlier_boot(self, key: str) -> bool:
        """Whether an active snapshot was last known to be whole in another boot of the machine."""

    def take_as_it_is(self, key: str) -> None:
        """Record that an active snapshot counts as whole in this boot."""

    def lineage(self, snapshot: str | None) -> tuple[str, ...]:
        """The snapshot and all below it, topmost first."""

    def find_chain(self, chain: Digest) -> str | None:
        """The committed snapshot of a ChainID; None if there is none that can be trusted."""

    def bind_chain(self, chain: Digest, snapshot: str) -> str:
        """Record `snapshot` for the ChainID `chain`; returns it, or one that another process recorded first."""

    def remove(self, snapshot: str) -> None:
        """Remove a snapshot. Its record goes first, so that a crash leaves nothing that looks whole."""

    # Images and the layers upon them

    def is_unpacked(self, image: Image) -> bool:
        """Whether a working tree on the image takes no unpacking."""

    def unpack(self, image: Image, emit: Emit) -> str | None:
        """The committed snapshot of the image's topmost layer, unpacking what is missing.

        None if the image has no layers, or if working trees stand on no snapshot. Of two processes that want the same
        layer the second waits for the first. CorruptContent if a layer is not what the configuration promises, also one
        that another image brought.
        """

    def unpack_layer(self, layer: Descriptor, diff_id: Digest, chain: Digest, parent: str | None, emit: Emit) -> str:
        """The committed snapshot of one layer on `parent`, which together are `chain`; unpacked if missing."""

    # Working trees

    def prepare(self, parent: str | None) -> str:
        """A new active snapshot on a committed one (None: on nothing)."""

    def prepare_for(self, image: Image | None, emit: Emit) -> tuple[str | None, str]:
        """The committed snapshot of an image, None if there is none, and a new active one on it."""

    def prepare_on(self, image: Image | None, top: str | None) -> str:
        """A new active snapshot on `top`, the topmost of the layers that were frozen on an image."""

    def moved(self, key: str, top: str) -> str:
        """Move the unchanged active snapshot `key` onto `top`, a layer that was frozen on the same parent; its new key.

        The caller records the new key, and then removes `key` if it is another one.
        """

    def rootfs(self, key: str) -> tuple[Mount, ...]:
        """The mounts of an active snapshot, to be written to. IsolationUnavailable without trees."""

    def view(self, snapshot: str | None) -> tuple[Mount, ...]:
        """The read-only mounts of a committed snapshot (None: of an empty one). IsolationUnavailable without trees."""

    def stacked(self, lower: tuple[str, ...], place: str) -> Mount:
        """A mount of directories on each other, topmost first, with writes going to `place`, a new directory."""

    def upper(self, key: str) -> str:
        """The directory that holds the changes of an active snapshot, or its whole tree if the driver copies."""

    def fill(self, key: str, archive: Readable) -> None:
        """Apply a layer's archive to an active snapshot without changes. The driver has trees."""

    def take_out(self, key: str) -> None:
        """Remove from an active snapshot the files that a killed command was given there."""

    def bring_home(self, cache: str) -> None:
        """Move the directory of a cache mount back from the tree of a killed command. The caller holds its lock."""

    # Layers of what was changed

    def is_changed(self, key: str, below: str | None) -> bool:
        """Whether an active snapshot was changed since `below` was frozen under it."""

    def changed_size(self, key: str) -> int | None:
        """About how many bytes `write_changes` writes; None if that is known only afterwards."""

    def write_changes(self, key: str, sink: Writable, *, clamp: Clamp, below: str | None = None) -> tuple[str, ...]:
        """Write a snapshot's layer as a tar; returns the paths of sockets, which no tar can hold.

        `below` is the topmost frozen layer under an active snapshot, for drivers that keep it elsewhere.
        """

    def cut(self, key: str, below: str | None, *, even_empty: bool = False) -> Cut:
        """Divide an active snapshot: what was changed since `below` was frozen, and a tree where work goes on."""

    def freeze(self, key: str) -> str:
        """Make the layer of a `cut` a committed snapshot, in place; returns its ID, which stays. Copies nothing."""
