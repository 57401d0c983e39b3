"""The layers of several images as one tree, and the biggest files of a layer in their directories, row by row.

Nothing here recurses: how deep paths are is up to the images.
"""

from __future__ import annotations

from itertools import pairwise

from builda.values import NamedTuple, dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from builda.builder.image.describe import Weight
    from builda.cli.report.recording import ImageLayers, LayerFiles


class Row(NamedTuple):
    """A row of the tree: a layer, an image whose layers are those above it, or where a branch begins or ends."""

    layer: LayerFiles | None = None
    image: ImageLayers | None = None
    begins: bool = False


@dataclass(slots=True)
class _Node:
    """A layer upon its parents, and what stands on it."""

    layer: LayerFiles | None
    images: list[ImageLayers] = field(default_factory=list)
    above: dict[str, _Node] = field(default_factory=dict)


def tree_of(images: Sequence[ImageLayers]) -> Iterator[Row]:
    """The rows of the tree, from the bases up. A branch begins wherever two things stand on one layer."""
    root = _Node(None)
    for image in images:
        node = root
        for layer in image.layers:
            node = node.above.setdefault(layer.digest, _Node(layer))
        node.images.append(image)
    pending: list[_Node | Row] = [root]
    while pending:
        item = pending.pop()
        if isinstance(item, Row):
            yield item
            continue
        if item.layer is not None:
            yield Row(layer=item.layer)
        yield from (Row(image=image) for image in item.images)
        forks = len(item.above) + len(item.images) > 1
        for child in reversed(list(item.above.values())):
            pending += [Row(), child, Row(begins=True)] if forks else [child]


def nested(files: Sequence[Weight], directories: Sequence[Weight]) -> Iterator[tuple[int, str, Weight | None]]:
    """Depth, name and weight of each row: the files, and the directories that hold several of them.

    Names are relative to the directory above. None for the weight of a directory that lies too deep to be known.
    """
    weights = {weight.path: weight for weight in directories}
    ordered = sorted(files, key=lambda file: file.path.split("/"))
    shared = {_shared(one.path, other.path) for one, other in pairwise(ordered)}
    rows = [(path.split("/"), path, weights.get(path or "/")) for path in shared]
    rows += [(file.path.split("/"), file.path, file) for file in ordered]
    above: list[str] = []
    for _, path, weight in sorted(rows, key=lambda row: row[0]):
        while above and not path.startswith(f"{above[-1]}/"):
            above.pop()
        name = path[len(above[-1]) + 1 :] if above else path
        is_directory = path in shared
        yield len(above), f"{name}/" if is_directory else name, weight
        if is_directory:
            above.append(path)


def _shared(one: str, other: str) -> str:
    """The directory that holds both paths, "" for the root."""
    parts = []
    for mine, theirs in zip(one.split("/")[:-1], other.split("/")[:-1], strict=False):
        if mine != theirs:
            break
        parts.append(mine)
    return "/".join(parts)
