from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builda.errors import BuildaError, CorruptContent, NotFound, Unsupported
from builda.oci import mediatype
from builda.oci.descriptor import Descriptor, Platform
from builda.oci.digest import Digest
from builda.oci.manifest import ENTRY_LIMIT, MANIFEST_LIMIT, Index, Manifest, choose, parse

DIGEST = str(Digest.of(b""))
PART: dict[str, Any] = {"mediaType": mediatype.CONFIG, "digest": DIGEST, "size": 0}

text = st.text(max_size=12)
maps = st.dictionaries(text, text, max_size=3)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)
unknown = st.dictionaries(st.text("xyz", min_size=1, max_size=4).map("org.example.".__add__), json_values, max_size=3)
digests = st.binary(max_size=4).map(Digest.of)
platforms = st.builds(
    Platform,
    os=text,
    architecture=text,
    variant=st.none() | st.text(min_size=1, max_size=3),
    os_version=st.none() | st.text(min_size=1, max_size=3),
    os_features=st.lists(text, max_size=2).map(tuple),
    extra=unknown,
)
descriptors = st.builds(
    Descriptor,
    media_type=st.sampled_from([mediatype.CONFIG, mediatype.LAYER_GZIP, "application/x"]),
    digest=digests,
    size=st.integers(0, 1 << 60),
    platform=st.none() | platforms,
    annotations=maps,
    urls=st.lists(text, max_size=2).map(tuple),
    artifact_type=st.none() | text,
    extra=unknown,
)
common: dict[str, Any] = {"annotations": maps, "subject": st.none() | descriptors, "artifact_type": st.none() | text}
manifests = st.builds(
    Manifest,
    config=descriptors,
    layers=st.lists(descriptors, max_size=3).map(tuple),
    media_type=st.sampled_from([mediatype.MANIFEST, mediatype.DOCKER_MANIFEST]),
    extra=unknown,
    **common,
)
indexes = st.builds(
    Index,
    manifests=st.lists(descriptors, max_size=3).map(tuple),
    media_type=st.sampled_from([mediatype.INDEX, mediatype.DOCKER_LIST]),
    extra=unknown,
    **common,
)


@settings(deadline=None)
@given(manifests | indexes)
def test_a_document_survives_its_bytes(document: Manifest | Index) -> None:
    data = document.dump()
    assert parse(data) == document
    assert parse(data).dump() == data
    assert parse(data, document.media_type) == document


@settings(deadline=None)
@given(st.dictionaries(text, json_values, max_size=4) | json_values)
def test_anything_is_a_document_or_refused_in_our_own_words(value: Any) -> None:
    is_parsed(json.dumps(value).encode())


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes_are_a_document_or_refused_in_our_own_words(data: bytes) -> None:
    is_parsed(data)


def is_parsed(data: bytes) -> bool:
    try:
        return bool(parse(data))
    except BuildaError:
        return False


def manifest(**changes: Any) -> bytes:
    value = {"schemaVersion": 2, "mediaType": mediatype.MANIFEST, "config": PART, "layers": [PART], **changes}
    return json.dumps({key: item for key, item in value.items() if item is not ...}).encode()


def index(**changes: Any) -> bytes:
    value = {"schemaVersion": 2, "mediaType": mediatype.INDEX, "manifests": [PART], **changes}
    return json.dumps({key: item for key, item in value.items() if item is not ...}).encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (manifest(layers={}), "no layers"),
        (manifest(layers=...), "no layers"),
        (manifest(layers=[PART] * (ENTRY_LIMIT + 1)), f"{ENTRY_LIMIT + 1} layers, more than the limit"),
        (manifest(layers=[1]), r"layers\[0\] is not a descriptor"),
        (manifest(layers=[{**PART, "size": -1}]), "no valid size: -1"),
        (manifest(layers=[{**PART, "size": True}]), "no valid size: True"),
        (manifest(layers=[{**PART, "size": "1"}]), "no valid size: '1'"),
        (manifest(layers=[{**PART, "digest": "sha256:../../x"}]), "hexadecimal"),
        (manifest(layers=[{**PART, "digest": 1}]), "no digest"),
        (manifest(layers=[{**PART, "mediaType": ""}]), "no mediaType"),
        (manifest(layers=[{**PART, "urls": "http://x"}]), "urls is not an array"),
        (manifest(layers=[{**PART, "annotations": {"a": 1}}]), "annotations is not an object of strings"),
        (manifest(layers=[{**PART, "platform": []}]), "platform is not an object"),
        (manifest(layers=[{**PART, "platform": {"os": 1}}]), "platform holds something other than text"),
        (manifest(config=...), "config is not a descriptor"),
        (manifest(config=None), "config is not a descriptor"),
        (manifest(mediaType=1), "mediaType of the manifest is not text"),
        (manifest(artifactType=1), "artifactType of the manifest is not text"),
        (manifest(annotations=[]), "annotations is not an object"),
        (manifest(subject=1), "subject is not a descriptor"),
        (manifest(schemaVersion=3), "no schemaVersion 2: 3"),
        (manifest(schemaVersion=...), "no schemaVersion 2: None"),
        (manifest(manifests=[]), "both layers and manifests"),
        (manifest(mediaType=mediatype.INDEX), "has no manifests"),
        (index(mediaType=mediatype.MANIFEST), "has no layers"),
        (b"[]", "is not a JSON object"),
        (b"", "is not JSON"),
        (b"{" * 100_000, "is not JSON"),
        (manifest().decode().encode("utf-16"), "is not JSON"),
        (b"\xef\xbb\xbf" + manifest(), "is not JSON"),
        (manifest()[:-1] + b',"x":NaN}', "no JSON number"),
        (manifest()[:-1] + b',"x":1e999}', "number is too large"),
        (manifest() + b" " * MANIFEST_LIMIT, "more than the limit"),
    ],
)
def test_hostile_documents_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(CorruptContent, match=message):
        parse(data)


def test_schema_1_is_refused_with_a_way_out() -> None:
    data = json.dumps({"schemaVersion": 1, "fsLayers": [], "history": []}).encode()
    with pytest.raises(Unsupported, match="schema 1") as caught:
        parse(data)
    assert "push the image again" in str(caught.value.hint)
    with pytest.raises(Unsupported, match="schema 1"):
        parse(manifest(), mediatype.DOCKER_SCHEMA1_SIGNED)


def test_other_kinds_of_documents_are_refused() -> None:
    with pytest.raises(Unsupported, match="not an image manifest: application/vnd"):
        parse(manifest(mediaType="application/vnd.cncf.helm"))


def test_a_document_must_be_what_was_announced() -> None:
    with pytest.raises(CorruptContent, match="calls itself"):
        parse(manifest(), mediatype.DOCKER_MANIFEST)
    assert parse(manifest(mediaType=...), mediatype.DOCKER_MANIFEST).media_type == mediatype.DOCKER_MANIFEST
    assert parse(manifest(mediaType=...), "text/plain").media_type == mediatype.MANIFEST
    with pytest.raises(CorruptContent, match="has no manifests"):
        parse(manifest(mediaType=...), mediatype.INDEX)


def test_a_null_list_is_empty_as_go_writes_it() -> None:
    document = parse(manifest(layers=None))
    assert isinstance(document, Manifest)
    assert document.layers == ()


def entry(platform: str | None, name: bytes = b"", **more: Any) -> Descriptor:
    digest = Digest.of(name or (platform or "none").encode())
    parsed = Platform.parse(platform) if platform else None
    return Descriptor(**{"media_type": mediatype.MANIFEST, "digest": digest, "size": 1, "platform": parsed, **more})


@pytest.mark.parametrize(
    ("there", "asked", "found"),
    [
        (["linux/arm64", "linux/amd64"], "linux/amd64", "linux/amd64"),
        (["linux/amd64/v3", "linux/amd64"], "linux/amd64", "linux/amd64"),
        (["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], "linux/amd64/v3", "linux/amd64/v2"),
        (["linux/amd64/v3"], "linux/amd64", "linux/amd64/v3"),
        (["linux/arm/v5", "linux/arm/v6", "linux/arm64"], "linux/arm/v7", "linux/arm/v6"),
        (["linux/arm/v5", "linux/arm/v7"], "linux/arm", "linux/arm/v7"),
        (["linux/arm64/v8"], "linux/arm64", "linux/arm64/v8"),
        (["linux/arm64"], "linux/arm64/v8", "linux/arm64"),
        (["windows/amd64", "linux/amd64"], "linux/amd64", "linux/amd64"),
        (["linux/riscv64"], "linux/riscv64", "linux/riscv64"),
        ([None], "linux/amd64", None),
        ([None, "linux/amd64"], "linux/amd64", "linux/amd64"),
    ],
)
def test_the_best_image_for_a_platform_is_chosen(there: list[str | None], asked: str, found: str | None) -> None:
    index = Index(manifests=tuple(map(entry, there)))
    assert choose(index, Platform.parse(asked)) == entry(found)


@pytest.mark.parametrize(
    ("there", "asked"),
    [
        (["linux/arm64", "windows/amd64"], "linux/amd64"),
        (["linux/arm/v7"], "linux/arm/v6"),
        (["linux/amd64/v3"], "linux/amd64/v2"),
        ([], "linux/amd64"),
    ],
)
def test_where_no_image_fits_the_platforms_there_are_named(there: list[str], asked: str) -> None:
    with pytest.raises(NotFound, match=f"no image for platform {asked}") as caught:
        choose(Index(manifests=tuple(map(entry, there))), Platform.parse(asked))
    assert all(name in str(caught.value.hint) for name in there)


def test_entries_that_are_no_images_are_never_chosen() -> None:
    attestation = entry("unknown/unknown")
    artifact = entry("linux/amd64", b"artifact", media_type="application/vnd.example")
    image = entry("linux/amd64", b"image")
    assert choose(Index(manifests=(attestation, artifact, image)), Platform.parse("linux/amd64")) == image
    with pytest.raises(NotFound) as caught:
        choose(Index(manifests=(attestation, artifact)), Platform.parse("linux/amd64"))
    assert caught.value.hint is None
