"""Search for secrets in an image: in a new one before it gets its name, or in any image on demand."""

from __future__ import annotations

from builda.builder.image.describe import layer_tar
from builda.errors import BuildaError
from builda.events import Warned
from builda.scan.imagescan import LIMIT, Layers, in_documents
from builda.transfer.stored import StoreSource
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.builder.context import Context
    from builda.oci.config import ImageConfig
    from builda.oci.manifest import Manifest
    from builda.scan.imagescan import Finding, Ignored
    from builda.store.store import Image
    from builda.transfer.copyimage import ImageSource


class Scan(NamedTuple):
    """The reaction to secrets in new images: a warning, or also an error if `fails`."""

    fails: bool = False
    ignored: tuple[Ignored, ...] = ()

    def check(self, ctx: Context, image: Image) -> None:
        """Warn of each secret in a stored image, which needs no name yet; BuildaError if secrets are to fail."""
        found = secrets_of(StoreSource(ctx.store, image), image.manifest, image.config, self.ignored)
        for finding in found:
            ctx.emit(Warned(message=f"secret in the image: {finding}"))
        if found and self.fails:
            hint = "what was copied into a layer stays in it: leave it out, or mount it with RUN --mount=type=secret"
            raise BuildaError(f"image has {counted(len(found))}, and gets no name: {image.id}", hint=hint)


def secrets_of(
    source: ImageSource, manifest: Manifest, config: ImageConfig, ignored: tuple[Ignored, ...]
) -> tuple[Finding, ...]:
    """The secrets in an image, but for those that lines of an allow file cover."""
    layers = Layers()
    for layer in manifest.layers:
        with layer_tar(source, layer) as plain:
            layers.read(plain, str(layer.digest))
    found = (*layers.findings, *in_documents(config, manifest.annotations))
    return tuple(finding for finding in found if not any(line.covers(finding) for line in ignored))


def counted(number: int) -> str:
    """The number of secrets in words."""
    return f"{number} secret{'s' * (number != 1)}" if number < LIMIT else f"{LIMIT} secrets or more"
