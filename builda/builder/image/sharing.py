"""Which layers the stored images share."""

from __future__ import annotations

from builda.errors import CorruptContent, NotFound
from builda.oci import mediatype
from builda.oci.config import chain_ids
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.oci.descriptor import Descriptor
    from builda.oci.digest import Digest
    from builda.store.store import Image, Store


class Layer(NamedTuple):
    """A layer of a stored image, in the stack that it ends."""

    chain: Digest
    descriptor: Descriptor
    tops: tuple[str, ...]
    """The names of images that end here."""
    sharers: tuple[str, ...]
    """The names of other images that have the stack up to here."""


def layers_of(store: Store, image: Image) -> tuple[Layer, ...]:
    """The layers of a stored image, lowest first."""
    tops, holders = _stacks(store)
    own = set(image.names)
    return tuple(
        Layer(chain, layer, tops.get(chain, ()), tuple(name for name in holders[chain] if name not in own))
        for chain, layer in zip(chain_ids(image.config.diff_ids), image.manifest.layers, strict=True)
    )


def built_on(store: Store, image: Image) -> tuple[tuple[Image, int], ...]:
    """The stored images whose layers begin with all of this one's; how many more layers each has, fewest first."""
    own = image.config.diff_ids
    found = []
    for other in store.images.iter():
        if other.digest == image.digest or not _is_image(other):
            continue
        if other.config.diff_ids[: len(own)] == own:
            found.append((other, len(other.config.diff_ids) - len(own)))
    return tuple(sorted(found, key=lambda pair: (pair[1], pair[0].names)))


def _stacks(store: Store) -> tuple[dict[Digest, tuple[str, ...]], dict[Digest, tuple[str, ...]]]:
    """The names of the images that end in a stack of layers, and of those that have it, by its ChainID."""
    tops: dict[Digest, tuple[str, ...]] = {}
    holders: dict[Digest, tuple[str, ...]] = {}
    for image in store.images.iter():
        if not _is_image(image):
            continue
        chains = chain_ids(image.config.diff_ids)
        names = image.names or (image.id.encoded[:12],)
        for chain in chains:
            holders[chain] = (*holders.get(chain, ()), *names)
        if chains:
            tops[chains[-1]] = (*tops.get(chains[-1], ()), *names)
    return tops, holders


def _is_image(image: Image) -> bool:
    """Whether it has layers that can be read; fsck tells of those that are damaged."""
    try:
        return not image.is_index and bool(image.manifest.config.media_type in mediatype.CONFIGS and image.config)
    except (NotFound, CorruptContent):
        return False
