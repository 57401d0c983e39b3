from __future__ import annotations

import pytest

from builda.errors import InvalidReference, Unsupported
from builda.transfer.locate import Location, parse_location


@pytest.mark.parametrize(
    ("text", "location"),
    [
        ("docker://quay.io/a/b:1", Location("registry", "quay.io/a/b:1")),
        ("oci:dir", Location("oci", "dir")),
        ("oci:/a/dir:name", Location("oci", "/a/dir", "name")),
        ("oci:/a/dir:example.com/a:1", Location("oci", "/a/dir", "example.com/a:1")),
        ("oci-archive:x.tar", Location("oci-archive", "x.tar")),
        ("oci-archive:x.tar:@1", Location("oci-archive", "x.tar", "@1")),
        ("docker-archive:x.tar:busybox:latest", Location("docker-archive", "x.tar", "busybox:latest")),
        ("dir:/a:b", Location("dir", "/a:b")),
        ("containers-storage:localhost/a:1", Location("store", "localhost/a:1")),
        ("containers-storage:@abc", Location("store", "abc")),
        ("containers-storage:[overlay@/a+/b]c", Location("containers-storage", "[overlay@/a+/b]c")),
        ("containers-storage:[]quay.io/a:1", Location("containers-storage", "[]quay.io/a:1")),
        ("docker-daemon:quay.io/a:1", Location("docker-daemon", "quay.io/a:1")),
        ("docker-daemon:sha256:abc", Location("docker-daemon", "sha256:abc")),
    ],
)
def test_transports_are_read_as_skopeo_reads_them(text: str, location: Location) -> None:
    assert parse_location(text) == location


@pytest.mark.parametrize("text", ["alpine", "alpine:3", "docker:dind", "quay.io/a/b:1", "localhost:5000/a", "oci", ""])
def test_names_without_a_transport_are_not_touched(text: str) -> None:
    assert parse_location(text) is None


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("sif:a.sif", "Singularity"),
        ("ostree:a", "OSTree"),
        ("tarball:a.tar", "from scratch"),
    ],
)
def test_transports_that_builda_has_not_are_refused_with_a_reason(text: str, hint: str) -> None:
    with pytest.raises(Unsupported) as caught:
        parse_location(text)
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize(
    "text",
    [
        "docker://",
        "oci:",
        "oci::name",
        "oci-archive:",
        "docker-archive::x",
        "dir:",
        "containers-storage:",
        "docker-daemon:",
    ],
)
def test_a_transport_needs_its_argument(text: str) -> None:
    with pytest.raises(InvalidReference, match="transport needs an argument"):
        parse_location(text)


@pytest.mark.parametrize(
    "text",
    [
        "docker://quay.io/a:1",
        "oci:/a:b",
        "dir:/a",
        "containers-storage:a",
        "docker-daemon:a:1",
        "containers-storage:[]a",
    ],
)
def test_a_location_is_shown_as_it_is_written(text: str) -> None:
    assert str(parse_location(text)) == text


@pytest.mark.parametrize("text", ["foo://bar", "http://host/x", "ftp://a:b@host/x"])
def test_a_scheme_that_is_no_transport_is_named(text: str) -> None:
    with pytest.raises(InvalidReference, match="unknown transport") as caught:
        parse_location(text)
    assert str(caught.value) == f"unknown transport: {text.partition(':')[0]}://"
    assert "oci-archive:" in (caught.value.hint or "")
