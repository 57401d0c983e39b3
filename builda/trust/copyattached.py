"""Copies what is attached to an image in a registry: what cosign keeps under tags, and what refers to the image.

Nothing of it is verified; it stays about the digest that it was made for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from builda.errors import CorruptContent, RegistryError
from builda.events import Warned
from builda.oci.manifest import parse
from builda.transfer.copyimage import ImageSink, ImageSource, copy_image
from builda.trust import attachments
from builda.values import NamedTuple, Protocol, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.events import Emit
    from builda.oci.descriptor import Descriptor
    from builda.oci.digest import Digest
    from builda.oci.reference import Reference
    from builda.trust.attachments import Ending

LIMIT = 1000
"""Attachments of one image, with theirs."""
_JOINED: tuple[Ending, ...] = ("sig", "att")
_ALONE: tuple[Ending, ...] = ("sbom",)


class RegistrySource(ImageSource, Protocol):
    """An image in a registry."""

    def referrers(self, digest: Digest) -> tuple[Descriptor, ...]:
        """The descriptors of manifests that refer to this digest."""


class RegistrySink(ImageSink, Protocol):
    """A repository that takes one image."""

    def refer(self, digest: Digest, entries: tuple[Descriptor, ...]) -> None:
        """Have the repository list these manifests, which it has, as referrers of this digest."""


class Side(NamedTuple):
    """A repository, and how its images are read and written."""

    repository: Reference
    source: Callable[[Reference], RegistrySource]
    sink: Callable[[Reference], RegistrySink]

    def tagged(self, digest: Digest, ending: Ending) -> Reference:
        """The tag under which cosign attaches something to this manifest."""
        return self.repository._replace(tag=attachments.tag_of(digest, ending), digest=None)

    def named(self, digest: Digest) -> Reference:
        """The name of the manifest with this digest."""
        return self.repository._replace(tag=None, digest=digest)


def copy_attached(digest: Digest, source: Side, destination: Side, emit: Emit) -> int:
    """The destination has all that is attached to the manifest at the source, and what is attached to that.

    The number of manifests that were found. What the destination has already under cosign's tags for signatures and
    attestations stays; another SBOM is replaced. CorruptContent for more than LIMIT.
    """
    seen, pending = {digest}, [digest]
    while pending:
        about = pending.pop()
        for found in (*_tagged(about, source, destination, emit), *_referring(about, source, destination, emit)):
            if found not in seen:
                seen.add(found)
                pending.append(found)
        if len(seen) > LIMIT:
            raise CorruptContent(f"image has more than {LIMIT} attachments: {source.named(digest)}")
    return len(seen) - 1


def _tagged(about: Digest, source: Side, destination: Side, emit: Emit) -> Iterator[Digest]:
    """Copy what cosign attached; the digests of the manifests at the source."""
    for ending in (*_JOINED, *_ALONE):
        place, end = source.tagged(about, ending), destination.tagged(about, ending)
        found = attachments.found_at(source.source(place))
        if found is None:
            continue
        there = attachments.found_at(destination.source(end)) if ending in _JOINED else None
        if there is None:
            copy_image(source.source(place), destination.sink(end), select="all", action="push", emit=emit)
        elif there[0].digest != found[0].digest:
            attachments.join(source.source(place), destination.source, destination.sink, end)
        yield found[0].digest


def _referring(about: Digest, source: Side, destination: Side, emit: Emit) -> Iterator[Digest]:
    """Copy what refers to a manifest, each once; the digests of what does."""
    entries = []
    for digest, entry in {entry.digest: entry for entry in source.source(source.named(about)).referrers(about)}.items():
        found = source.source(source.named(digest))
        descriptor = _referrer(found, about, emit)
        if descriptor is None:
            continue
        copy_image(found, destination.sink(destination.named(digest)), select="all", action="push", emit=emit)
        entries.append(replace(entry, media_type=descriptor.media_type, size=descriptor.size))
        yield digest
    if entries:
        destination.sink(destination.named(about)).refer(about, tuple(entries))


def _referrer(source: ImageSource, about: Digest, emit: Emit) -> Descriptor | None:
    """The manifest's descriptor if it confirms what the registry says; a list under a tag may be old, or lie."""
    try:
        descriptor, data = source.manifest()
    except RegistryError as error:
        if error.status != 404:
            raise
        emit(Warned(message=f"attachment is not copied: {error}", hint=error.hint))
        return None
    subject = parse(data, descriptor.media_type).subject
    return descriptor if subject is not None and subject.digest == about else None
