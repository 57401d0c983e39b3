"""The layers of an image as a page shows them."""

from __future__ import annotations

from builda.cli.report.recording import LayerFiles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.builder.context import Context
    from builda.builder.image import describe
    from builda.oci.descriptor import Descriptor

_BIGGEST = 10
"""Files of each layer that a page names."""


def layers_of(ctx: Context, image: str) -> tuple[LayerFiles, ...]:
    """The layers of an image of the store, which has this name or ID, with their biggest files."""
    from builda.builder.image import describe
    from builda.builder.image.pull import machine_platform
    from builda.builder.imageoptions import RegistryAccess

    seen = describe.seen(ctx, image, RegistryAccess(), machine_platform())
    return tuple(
        _layer(seen, step.layer, step.history.created_by or "")
        for step in describe.history_of(seen)
        if step.layer is not None
    )


def _layer(seen: describe.Seen, layer: Descriptor, created_by: str) -> LayerFiles:
    from builda.builder.image import describe

    files, directories = describe.biggest(seen, layer, _BIGGEST)
    return LayerFiles(created_by, str(layer.digest), layer.size, files, directories)
