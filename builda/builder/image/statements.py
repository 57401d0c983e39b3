"""Reads the attestations of an image: statements in the index that it was chosen from."""

from __future__ import annotations

import json

from builda.attestations import attached as attestations
from builda.attestations.statement import PROVENANCE
from builda.errors import CorruptContent, NotFound
from builda.oci.document import decode
from builda.oci.manifest import Index, Manifest, parse
from builda.transfer.converting import Chosen
from builda.transfer.copyimage import child_of, read_blob

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from builda.builder.image.describe import Seen
    from builda.oci.descriptor import Descriptor

_LIMIT = 64 << 20
"""Bytes of a statement that is read."""
_ANY_PROVENANCE = "https://slsa.dev/provenance/"


def statements(image: Seen) -> Iterator[tuple[str, Descriptor]]:
    """The types and blobs of the statements about an image that the index has from which it was chosen."""
    source = image.source.source if isinstance(image.source, Chosen) else image.source
    top, data = source.manifest()
    document = parse(data, top.media_type)
    if not isinstance(document, Index):
        return
    for entry in attestations.entries_about(document, image.descriptor.digest):
        manifest = parse(child_of(source, entry), entry.media_type)
        if isinstance(manifest, Manifest):
            yield from attestations.statements_in(manifest)


def types_of(image: Seen) -> frozenset[str]:
    """The types of the statements about an image."""
    return frozenset(kind for kind, _ in statements(image))


def provenance_of(image: Seen, name: str) -> bytes:
    """The provenance that is attached to an image, as its predicate; NotFound if none is attached."""
    there = types_of(image)
    kinds = (PROVENANCE, *(kind for kind in sorted(there) if kind.startswith(_ANY_PROVENANCE)))
    kind = next((kind for kind in kinds if kind in there), PROVENANCE)
    return predicate_in(statement_of(image, kind, name), name)


def statement_of(image: Seen, kind: str, name: str) -> bytes:
    """The first statement of this type about the image; NotFound naming the types that there are."""
    found = dict(reversed(tuple(statements(image))))
    if kind not in found:
        there = " ".join(sorted(found))
        raise NotFound(
            f"nothing of type {kind} is attached to the image: {name}",
            hint=f"there is: {there}" if there else "nothing is attached to it",
        )
    source = image.source.source if isinstance(image.source, Chosen) else image.source
    return read_blob(source, found[kind], _LIMIT)


def predicate_in(statement: bytes, name: str) -> bytes:
    """The predicate of a statement as JSON for people; CorruptContent if the statement has none."""
    found = decode(statement, f"statement about {name}", _LIMIT).get("predicate")
    if not isinstance(found, dict):
        raise CorruptContent(f"statement has no predicate: {name}")
    try:
        return json.dumps(found, indent=2, ensure_ascii=False).encode(errors="replace") + b"\n"
    except RecursionError as error:
        raise CorruptContent(f"predicate is nested too deep: {name}") from error
