"""Attestations as cosign stores them: a statement of in-toto in an envelope (DSSE v1) that holds its signatures.

The signed bytes and the members of an envelope are those of the DSSE specification (protocol.md, envelope.md).
"""

from __future__ import annotations

import base64
import binascii

from builda.attestations.statement import MEDIA_TYPE
from builda.errors import CorruptContent
from builda.oci.document import decode, encode
from builda.trust.attachments import ENVELOPE_LIMIT
from builda.trust.signature import ENVELOPE_TYPE, SIGNATURE, Sigstore
from builda.values import NamedTuple

PREDICATE_TYPE = "predicateType"
"""Annotation by which cosign tells what an attestation says."""


class Envelope(NamedTuple):
    """A statement and its signatures."""

    statement: bytes
    signatures: tuple[bytes, ...]

    def attached(self, predicate_type: str) -> Sigstore:
        """The envelope as an attachment of an image; the signature is inside, so that the annotation is empty."""
        value = {
            "payloadType": MEDIA_TYPE,
            "payload": base64.b64encode(self.statement).decode(),
            "signatures": [{"sig": base64.b64encode(signature).decode()} for signature in self.signatures],
        }
        return Sigstore(ENVELOPE_TYPE, encode(value), {SIGNATURE: "", PREDICATE_TYPE: predicate_type})


def signed_bytes(statement: bytes) -> bytes:
    """The bytes that a signature of the statement signs: DSSE's pre-authentication encoding."""
    kind = MEDIA_TYPE.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(statement), statement)


def read(data: bytes) -> Envelope:
    """The envelope in an attachment; CorruptContent for anything else. Its signatures are not verified."""
    value = decode(data, "attestation", ENVELOPE_LIMIT)
    payload, signatures = value.get("payload"), value.get("signatures")
    if value.get("payloadType") != MEDIA_TYPE or not isinstance(payload, str) or not isinstance(signatures, list):
        raise CorruptContent("attestation is not an envelope of an in-toto statement")
    texts = [one.get("sig") if isinstance(one, dict) else None for one in signatures]
    if not all(isinstance(text, str) for text in texts):
        raise CorruptContent("attestation has a signature that is not text")
    try:
        return Envelope(base64.b64decode(payload), tuple(base64.b64decode(str(text)) for text in texts))
    except (binascii.Error, ValueError) as error:
        raise CorruptContent(f"attestation is not base64: {error}") from error
