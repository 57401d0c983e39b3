"""`from`: a new working container."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builda.builder.pull import container_prefix, machine_platform, pull
from builda.events import Warned
from builda.oci.config import ImageConfig
from builda.oci.docker import without_bookkeeping

if TYPE_CHECKING:
    from builda.builder.builder import Builder
    from builda.builder.options import FromOptions
    from builda.store.store import Image, WorkingContainer

SCRATCH = "scratch"


def from_image(builder: Builder, name: str, options: FromOptions) -> WorkingContainer:
    """A new working container; nothing of it is left when it cannot be made."""
    builder.store.lease()
    image = None if name == SCRATCH else pull(builder, name, options.pull)
    if image is not None and image.config.onbuild:
        count = len(image.config.onbuild)
        builder.emit(Warned(message=f"{count} ONBUILD instruction{'s' * (count > 1)} of the image only act in a build"))
    base, key = builder.store.prepare_for(image, builder.emit)
    try:
        prefix = options.suffix if image is None else f"{container_prefix(name, image)}-{options.suffix}"
        container = _record(builder, name, image, options, base, key)
        return builder.store.create_container(container, name=options.name, prefix=prefix)
    except BaseException:
        builder.store.remove_snapshot(key)
        raise


def _record(
    builder: Builder, name: str, image: Image | None, options: FromOptions, base: str | None, key: str
) -> WorkingContainer:
    from builda.store.containers import WorkingContainer, new_id

    return WorkingContainer(
        id=new_id(),
        name="",
        image=_image_name(name, image),
        image_id=None if image is None else image.id,
        image_digest=None if image is None else image.digest,
        base=base,
        snapshot=key,
        config=_config(image, options),
        annotations={} if image is None else image.manifest.annotations,
        options=options.run,
        format=options.format,
        created=builder.now(),
    )


def _image_name(name: str, image: Image | None) -> str:
    """As Buildah records it: the image's full name when it has one, what the user wrote otherwise."""
    if image is None:
        return ""
    if name in image.names:
        return name
    return image.names[0] if image.names else name


def _config(image: Image | None, options: FromOptions) -> ImageConfig:
    if image is None:
        return ImageConfig(platform=options.pull.platform or machine_platform())
    return without_bookkeeping(image.config)
