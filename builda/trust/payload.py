"""The payload of a signature: the JSON of container-signature(5), which cosign uses with another type.

It is read strictly: an unknown member could restrict what the signature means.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from builda.errors import CorruptContent, InvalidValue
from builda.oci.digest import Digest
from builda.oci.document import decode_any, encode
from builda.values import NamedTuple

SIMPLE = "atomic container signature"
SIGSTORE = "cosign container image signature"
LIMIT = 4 << 20
"""Bytes that a payload may have."""


class Claim(NamedTuple):
    """The manifest that a signature is about, and the image name that the signer gives it."""

    digest: Digest
    identity: str


def written(claim: Claim, kind: str, *, creator: str, timestamp: int) -> bytes:
    """The payload of a signature; `timestamp` is in seconds since the epoch."""
    return encode(
        {
            "critical": {
                "identity": {"docker-reference": claim.identity},
                "image": {"docker-manifest-digest": str(claim.digest)},
                "type": kind,
            },
            "optional": {"creator": creator, "timestamp": timestamp},
        }
    )


def read(data: bytes, kind: str) -> Claim:
    """Parse a verified payload of that kind; CorruptContent if it is malformed."""
    if len(data) > LIMIT:
        raise CorruptContent(f"payload has more than {LIMIT} bytes")
    _refuse_duplicates(data)
    whole = _exactly(decode_any(data, "payload"), "payload", {"critical", "optional"})
    _check_optional(whole["optional"], kind)
    critical = _exactly(whole["critical"], "critical", {"type", "image", "identity"})
    if critical["type"] != kind:
        raise CorruptContent(f"payload has another type: {critical['type']!r}")
    image = _exactly(critical["image"], "image", {"docker-manifest-digest"})
    identity = _exactly(critical["identity"], "identity", {"docker-reference"})["docker-reference"]
    digest = image["docker-manifest-digest"]
    if not isinstance(identity, str) or not isinstance(digest, str):
        raise CorruptContent("payload has no text for the image's name or digest")
    try:
        return Claim(Digest.parse(digest), identity)
    except InvalidValue as error:
        raise CorruptContent(f"payload has no digest of an image: {error}") from error


def _refuse_duplicates(data: bytes) -> None:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise CorruptContent("payload has a member twice")
        return found

    try:
        json.loads(data, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise CorruptContent(f"payload is not JSON: {error}") from error


def _exactly(value: object, what: str, members: set[str]) -> Mapping[str, Any]:
    if not isinstance(value, dict) or value.keys() != members:
        raise CorruptContent(f"{what} of the signature is not an object of {', '.join(sorted(members))}")
    return value


def _check_optional(value: object, kind: str) -> None:
    if value is None and kind == SIGSTORE:  # as cosign writes it
        return
    if not isinstance(value, dict):
        raise CorruptContent("optional of the signature is not an object")
    if not isinstance(value.get("creator", ""), str):
        raise CorruptContent("creator of the signature is not text")
    timestamp = value.get("timestamp", 0)
    if isinstance(timestamp, bool) or not isinstance(timestamp, int | float) or timestamp != int(timestamp):
        raise CorruptContent("timestamp of the signature is not a whole number")
