"""The Protocol of a store for `gc` and `fsck`: its parts, and the damage that was found."""

from __future__ import annotations

from builda.values import Protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from builda.store.blobs import Blobs
    from builda.store.containers import Containers
    from builda.store.imagemounts import ImageMounts
    from builda.store.images import Images
    from builda.store.layout import Damaged, Layout
    from builda.store.snapshots import AllSnapshots
    from builda.store.steps import Steps


class Parts(Protocol):
    """A store, as far as the sweep and the check need it."""

    layout: Layout
    blobs: Blobs
    images: Images
    snapshots: AllSnapshots
    damaged: set[str]

    @property
    def containers(self) -> Containers:
        """The working containers' records."""

    @property
    def image_mounts(self) -> ImageMounts:
        """The mounts of images."""

    @property
    def steps(self) -> Steps:
        """The remembered steps."""

    def report(self, error: Damaged) -> None:
        """Remember that a record could not be read, and warn of it once."""

    def unwarned(self) -> AbstractContextManager[None]:
        """No warning of damaged records during the block."""

    def lease(self) -> None:
        """Take a lease: from now on no sweep removes what this process makes or reuses."""
