from __future__ import annotations

import pytest

from builda.errors import InvalidValue, Unsupported
from builda.oci import mediatype
from builda.oci.descriptor import Descriptor, Platform


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("linux/amd64", "linux/amd64"),
        ("amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/aarch64", "linux/arm64"),
        ("Linux/ARM64", "linux/arm64"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("linux/i686", "linux/386"),
        (" linux/ppc64el ", "linux/ppc64le"),
        ("windows/amd64", "windows/amd64"),
    ],
)
def test_platforms_are_read_as_users_write_them(text: str, meant: str) -> None:
    assert str(Platform.parse(text)) == meant


@pytest.mark.parametrize("text", ["", "/", "linux/", "/amd64", "linux//v7", "linux/arm/v7/x"])
def test_what_is_no_platform_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue, match="not a platform"):
        Platform.parse(text)


def test_a_processor_runs_what_was_made_for_its_predecessors() -> None:
    v7, v6 = Platform.parse("linux/arm/v7"), Platform.parse("linux/arm/v6")
    assert v7.runs(v6)
    assert not v6.runs(v7)
    assert Platform.parse("arm64").runs(Platform.parse("linux/arm64/v8"))
    assert not Platform.parse("arm64").runs(Platform.parse("linux/arm64/v9"))
    assert not Platform.parse("arm64").runs(v7)


def test_unknown_keys_of_a_platform_survive() -> None:
    value = {
        "mediaType": mediatype.MANIFEST,
        "digest": "sha256:" + "0" * 64,
        "size": 1,
        "platform": {"architecture": "amd64", "os": "linux", "features": ["sse4"]},
        "data": "e30=",
    }
    assert Descriptor.from_json(value, where="x").to_json() == value


@pytest.mark.parametrize(
    ("media_type", "reason"),
    [
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "foreign layers"),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", "foreign layers"),
        (mediatype.LAYER_GZIP + "+encrypted", "encrypted layers"),
        ("application/vnd.in-toto+json", "not a layer media type"),
        ("", "not a layer media type"),
    ],
)
def test_layers_that_cannot_be_had_are_refused_with_the_reason(media_type: str, reason: str) -> None:
    with pytest.raises(Unsupported, match=reason):
        mediatype.compression_of(media_type)


def test_every_layer_type_has_its_kin_in_the_other_format() -> None:
    for compression in ("none", "gzip", "zstd"):
        for image_format in ("oci", "docker"):
            media_type = mediatype.layer_media_type(image_format, compression)
            assert mediatype.compression_of(media_type) == compression
