"""What is signed, and the files that signatures are: read strictly, as an unknown member could restrict its meaning."""

from __future__ import annotations

import json
from typing import Any

import pytest

from builda.errors import CorruptContent
from builda.oci.digest import Digest
from builda.trust.payload import SIGSTORE, SIMPLE, Claim, read, written
from builda.trust.signature import Signature, Sigstore, Simple, Unreadable, dump, parse

CLAIM = Claim(Digest.of(b"m"), "r.io/a:1")


def changed(path: str, value: object) -> bytes:
    whole: dict[str, Any] = json.loads(written(CLAIM, SIMPLE, creator="c", timestamp=1))
    *parents, last = path.split(".")
    place = whole
    for parent in parents:
        place = place[parent]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return json.dumps(whole).encode()


@pytest.mark.parametrize("kind", [SIMPLE, SIGSTORE])
def test_what_is_written_is_read(kind: str) -> None:
    assert read(written(CLAIM, kind, creator="c", timestamp=1), kind) == CLAIM


def test_cosign_may_leave_optional_empty() -> None:
    data = written(CLAIM, SIGSTORE, creator="c", timestamp=1)
    value = json.loads(data)
    value["optional"] = None
    assert read(json.dumps(value).encode(), SIGSTORE) == CLAIM
    value["critical"]["type"] = SIMPLE
    with pytest.raises(CorruptContent, match="optional"):
        read(json.dumps(value).encode(), SIMPLE)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("critical", None),
        ("optional", None),
        ("more", 1),
        ("critical.type", "other"),
        ("critical.type", None),
        ("critical.more", 1),
        ("critical.image", []),
        ("critical.image.more", 1),
        ("critical.image.docker-manifest-digest", 1),
        ("critical.image.docker-manifest-digest", "sha256:abc"),
        ("critical.image.docker-manifest-digest", "md5:" + "a" * 32),
        ("critical.identity.more", 1),
        ("critical.identity.docker-reference", 1),
        ("optional", []),
        ("optional.creator", 1),
        ("optional.timestamp", 1.5),
        ("optional.timestamp", "1"),
        ("optional.timestamp", True),
    ],
)
def test_other_payloads_are_refused(path: str, value: object) -> None:
    with pytest.raises(CorruptContent):
        read(changed(path, value), SIMPLE)


def test_unknown_optional_members_are_taken() -> None:
    assert read(changed("optional.more", {"a": 1}), SIMPLE) == CLAIM


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"a": 1, "a": 1}', bytes(5 << 20)])
def test_what_is_no_payload(data: bytes) -> None:
    with pytest.raises(CorruptContent):
        read(data, SIMPLE)


def test_a_member_that_is_there_twice_is_refused() -> None:
    data = written(CLAIM, SIMPLE, creator="c", timestamp=1).replace(
        b'"identity":{', b'"identity":{"docker-reference":"r.io/b:1",'
    )
    with pytest.raises(CorruptContent, match="twice"):
        read(data, SIMPLE)


@pytest.mark.parametrize("signature", [Simple(b"\xa3\x01"), Sigstore("t", b"\x00p", {"a": "b"})])
def test_files_of_signatures(signature: Simple | Sigstore) -> None:
    assert parse(dump(signature)) == signature
    assert parse(b"\0simple-signing\n\xa3\x01") == Simple(b"\xa3\x01")


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"-----BEGIN PGP SIGNED MESSAGE-----\n",
        b"\0",
        b"\0sigstore-json",
        b"\0other\nx",
        b"\0simple-signing\ntext",
        b"\0sigstore-json\n{",
        b'\0sigstore-json\n{"mimeType": "t", "payload": "#", "annotations": {}}',
        b'\0sigstore-json\n{"mimeType": "t", "payload": "", "annotations": {"a": 1}}',
        b'\0sigstore-json\n{"mimeType": "t", "payload": "", "annotations": []}',
    ],
)
def test_files_that_are_no_signatures(blob: bytes) -> None:
    found: Signature = parse(blob)
    assert isinstance(found, Unreadable)
