"""Signatures as files: bare for GPG's, and with a zero byte and the name of the format before the others.

This is the form of lookaside storage and of `dir:`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import TypeAlias

from builda.errors import CorruptContent
from builda.oci.document import decode, encode
from builda.values import NamedTuple

LIMIT = 4 << 20
"""Bytes that a signature may have."""
COUNT = 128
"""Signatures of one image that are looked at."""
COSIGN_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
ENVELOPE_TYPE = "application/vnd.dsse.envelope.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"
BUNDLE = "dev.sigstore.cosign/bundle"
_SIMPLE, _SIGSTORE = "simple-signing", "sigstore-json"


class Simple(NamedTuple):
    """A message that GPG signed, as it is."""

    data: bytes


class Sigstore(NamedTuple):
    """A payload whose signature is one of the annotations."""

    media_type: str
    payload: bytes
    annotations: Mapping[str, str]


class Unreadable(NamedTuple):
    """Something at the place of a signature that is none."""

    reason: str


Signature: TypeAlias = Simple | Sigstore | Unreadable


def parse(blob: bytes) -> Signature:
    """The signature in a file."""
    if blob[:1] != b"\0":
        # A binary OpenPGP packet begins with a set bit (RFC 4880, 4.2); armor and clear text do not.
        return Simple(blob) if blob[:1] >= b"\x80" else Unreadable("is no binary OpenPGP message")
    name, newline, rest = blob[1:].partition(b"\n")
    if newline and name == _SIMPLE.encode():
        return Simple(rest) if rest[:1] >= b"\x80" else Unreadable("is no binary OpenPGP message")
    if not newline or name != _SIGSTORE.encode():
        return Unreadable(f"has an unknown format: {name[:40].decode(errors='replace')!r}")
    try:
        return _sigstore(rest)
    except CorruptContent as error:
        return Unreadable(str(error))


def dump(signature: Simple | Sigstore) -> bytes:
    """The file that holds the signature."""
    if isinstance(signature, Simple):
        return signature.data
    value = {
        "mimeType": signature.media_type,
        "payload": base64.b64encode(signature.payload).decode(),
        "annotations": dict(signature.annotations),
    }
    return b"\0" + _SIGSTORE.encode() + b"\n" + encode(value)


def _sigstore(data: bytes) -> Sigstore:
    value = decode(data, "signature", LIMIT)
    media_type, payload, annotations = (value.get(key) for key in ("mimeType", "payload", "annotations"))
    if not isinstance(media_type, str) or not isinstance(payload, str) or not isinstance(annotations, dict):
        raise CorruptContent("signature lacks its type, payload or annotations")
    if not all(isinstance(text, str) for text in annotations.values()):
        raise CorruptContent("signature has annotations that are no texts")
    try:
        return Sigstore(media_type, base64.b64decode(payload, validate=True), annotations)
    except (binascii.Error, ValueError) as error:
        raise CorruptContent(f"payload of the signature is not base64: {error}") from error
