"""in-toto statements (in-toto attestation framework, Statement v1): a predicate about images that digests name."""

from __future__ import annotations

import json

from builda.oci.document import decode, encode
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from builda.oci.digest import Digest

MEDIA_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
SPDX = "https://spdx.dev/Document"
CYCLONEDX = "https://cyclonedx.org/bom"
PROVENANCE = "https://slsa.dev/provenance/v1"
OF_FORMAT: Mapping[str, str] = {"spdx-json": SPDX, "cyclonedx-json": CYCLONEDX}
"""The type of the predicate that is a document of each format."""


class Predicate(NamedTuple):
    """The predicate of a statement (in-toto), and the URI of its type."""

    type: str
    value: Mapping[str, Any]


def statement(predicate: Predicate, image: Digest) -> bytes:
    """The statement about the image of this digest. BuildKit's readers expect the name `_`."""
    return encode(
        {
            "_type": STATEMENT,
            "subject": [{"name": "_", "digest": {image.algorithm: image.encoded}}],
            "predicateType": predicate.type,
            "predicate": predicate.value,
        }
    )


def predicate_of(document: bytes, kind: str) -> Predicate:
    """A JSON document as a predicate."""
    return Predicate(kind, json.loads(document))


def is_about(statement: bytes, image: Digest) -> bool:
    """Whether a statement of in-toto is about this image and no other; CorruptContent for what is none."""
    subjects = decode(statement, "statement", len(statement)).get("subject")
    if not isinstance(subjects, list) or not subjects:
        return False
    digests = [subject.get("digest") if isinstance(subject, dict) else None for subject in subjects]
    return all(isinstance(one, dict) and one.get(image.algorithm) == image.encoded for one in digests)
