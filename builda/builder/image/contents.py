"""The packages of an image, wherever it is, and documents about them.

The layers go through `contents.scan` once; of the image nothing is written or run.
"""

from __future__ import annotations

from functools import partial

from builda.builder.image.describe import layer_tar
from builda.contents.sbomdocument import document, purl_list
from builda.contents.scan import Layer, scan
from builda.contents.subject import Subject
from builda.errors import InvalidReference
from builda.oci.reference import Reference
from builda.transfer.locate import parse_location

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from builda.builder.context import Context
    from builda.builder.image.describe import Seen
    from builda.contents.scan import Contents
    from builda.oci.descriptor import Descriptor
    from builda.transfer.copyimage import ImageSource


def contents_of(source: ImageSource, layers: Iterable[Descriptor]) -> Contents:
    """The merged tree of the layers of an image, the lowest first; CorruptContent for a damaged layer."""
    return scan(Layer(str(layer.digest), partial(layer_tar, source, layer)) for layer in layers)


def subject_of(ctx: Context, text: str, seen: Seen, epoch: int | None) -> Subject:
    """The image that a user wrote so, as the subject of a document; `epoch` None: the document is of now."""
    return Subject(
        name=name_of(text, seen.names),
        digest=str(seen.descriptor.digest),
        architecture=seen.config.platform.architecture,
        created=ctx.now() if epoch is None else epoch,
        version=ctx.version,
    )


def made(form: str, subject: Subject, found: Contents) -> bytes:
    """The contents as an `spdx-json` or `cyclonedx-json` document, or as a list of package URLs (`purl`)."""
    return purl_list(found) if form == "purl" else document(form, subject, found)


def name_of(text: str, names: tuple[str, ...] = ()) -> str:
    """The full name without a tag of an image that has these names, or that a user writes so."""
    location = parse_location(text)
    if location is not None and location.row is not None:
        said = location.name or "image"
    else:
        said = names[0] if names else text if location is None else location.where
    try:
        known = Reference.parse(said) if location is not None else Reference.parse(said, default_registry="localhost")
        return known.name
    except InvalidReference:
        return "image"
