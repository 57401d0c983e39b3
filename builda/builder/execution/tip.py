"""The state of a stage between two steps: its configuration, its layers, and the key of the last step."""

from __future__ import annotations

from builda.store.steps import Blob, Empty, Remote, Tree, snapshot_of
from builda.values import NamedTuple, dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from builda.oci.config import History, ImageConfig
    from builda.oci.digest import Digest
    from builda.oci.edits import Edited
    from builda.store.containers import FrozenLayer
    from builda.store.steps import Content, StepResult
    from builda.store.store import Image


class LayerLost(Exception):
    """A layer that a cache promised cannot be had: the build is begun again without that cache."""


class Layer(NamedTuple):
    """What one step added to a stage: an entry of the history and, unless it is empty, a layer.

    `found` is the remembered result that it comes from. It is remembered anew once the layer is unpacked.
    """

    history: History
    content: Content
    found: tuple[Digest, StepResult] | None = None


@dataclass(slots=True)
class Tip:
    """A stage as far as it has come."""

    image: Image | None  # the base; None for scratch
    key: Digest
    edited: Edited
    layers: tuple[Layer, ...] = ()
    history: tuple[History, ...] = ()  # entries since the last layer
    annotations: Mapping[str, str] = field(default_factory=dict)
    base: str | None = None  # the snapshot of the base; None until a container is made
    name: str = ""  # of the base image

    @property
    def config(self) -> ImageConfig:
        """The configuration so far."""
        return self.edited.read()

    @property
    def top(self) -> str | None:
        """The snapshot that the next layer stands on; None if that is no snapshot of this store, or an empty one."""
        return snapshot_of(self.layers[-1].content) if self.layers else self.base

    @property
    def above(self) -> Content | None:
        """The topmost layer that is not empty; None if there is none above the base."""
        return next((layer.content for layer in reversed(self.layers) if not isinstance(layer.content, Empty)), None)

    @property
    def base_diff_ids(self) -> tuple[Digest, ...]:
        """The DiffIDs of the base image's layers."""
        return () if self.image is None else self.image.config.diff_ids

    @property
    def diff_ids(self) -> tuple[Digest, ...] | None:
        """The DiffIDs of all layers; None if one is not computed yet."""
        found = list(self.base_diff_ids)
        for layer in self.layers:
            if isinstance(layer.content, Empty):
                continue
            if layer.content.diff_id is None:
                return None
            found.append(layer.content.diff_id)
        return tuple(found)

    @property
    def is_here(self) -> bool:
        """Whether every layer has its snapshot in this store."""
        return all(snapshot_of(layer.content) is not None for layer in self.layers)

    def pending(self, snapshot: str | None = None) -> tuple[Layer, ...]:
        """The history since the last layer, as entries among the layers; `snapshot` has their files, default `top`."""
        return tuple(Layer(entry, Empty(snapshot or self.top)) for entry in self.history)

    def frozen(self) -> tuple[FrozenLayer, ...]:
        """The layers as a working container records them."""
        return tuple(frozen(layer) for layer in self.layers)


def frozen(layer: Layer) -> FrozenLayer:
    """A layer as a working container records it. It has a snapshot: layers that are elsewhere were fetched before."""
    from builda.store.containers import FrozenLayer

    match layer.content:
        case Tree(snapshot, diff_id, blob):
            return FrozenLayer(snapshot=snapshot, history=layer.history, diff_id=diff_id, blob=blob)
        case Empty(snapshot):
            return FrozenLayer(snapshot=snapshot or "", history=layer.history, empty=True)
        case Blob() | Remote():
            raise AssertionError("a layer without a snapshot is in no working container")
