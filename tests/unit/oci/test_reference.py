from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builda.errors import InvalidReference
from builda.oci.digest import Digest
from builda.oci.reference import Reference, _is_component, _is_registry, is_tag, parse_short

HEX = "ab" * 32


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("alpine", "docker.io/library/alpine:latest"),
        ("alpine:3.19", "docker.io/library/alpine:3.19"),
        ("user/app", "docker.io/user/app:latest"),
        ("docker.io/alpine", "docker.io/library/alpine:latest"),
        ("index.docker.io/alpine", "docker.io/library/alpine:latest"),
        ("quay.io/a/b/c:1", "quay.io/a/b/c:1"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
        ("[::1]:5000/app:1", "[::1]:5000/app:1"),
        ("Host/app", "Host/app:latest"),
        (f"alpine@sha256:{HEX}", f"docker.io/library/alpine@sha256:{HEX}"),
        (f"alpine:1@sha256:{HEX}", f"docker.io/library/alpine:1@sha256:{HEX}"),
        ("a__b/c--d/e.f", "docker.io/a__b/c--d/e.f:latest"),
    ],
)
def test_names_mean_what_docker_means_by_them(text: str, full: str) -> None:
    assert str(Reference.parse(text)) == full


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "/",
        "@",
        "a/",
        "/a",
        "a//b",
        "a:",
        "a:b:c",
        "a:-x",
        "a:" + "x" * 129,
        "a" * 256,
        "Alpine",
        "a b",
        "a\n",
        "a..b",
        "a._b",
        "-a",
        "a_",
        "../a",
        "a/../b",
        "alpine@sha256:xyz",
        "alpine@md5:" + "a" * 32,
        "a@" + HEX,
        "exa mple.com/a",
        "-x.com/a",
        "x.com:port/a",
        "http://x.com/a",
        "ä",
    ],
)
def test_names_that_no_registry_takes_are_refused(text: str) -> None:
    with pytest.raises(InvalidReference):
        Reference.parse(text)


def test_an_upper_case_name_gets_a_hint() -> None:
    with pytest.raises(InvalidReference) as caught:
        Reference.parse("user/Alpine")
    assert caught.value.hint == "image names are lower case: user/alpine"


components = st.from_regex(r"[a-z0-9]{1,5}((\.|_|__|-{1,3})[a-z0-9]{1,5}){0,2}", fullmatch=True)
references = st.builds(
    Reference,
    st.sampled_from(["docker.io", "quay.io", "localhost", "localhost:5000", "r.example.com:443"]),
    st.lists(components, min_size=2, max_size=3).map("/".join),
    st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,9}", fullmatch=True),
    st.none() | st.binary(max_size=2).map(Digest.of),
)


@settings(deadline=None)
@given(references)
def test_a_reference_survives_its_text(reference: Reference) -> None:
    assert Reference.parse(str(reference)) == reference


@settings(deadline=None)
@given(st.text(max_size=20))
def test_any_text_is_a_name_or_refused_in_our_own_words(text: str) -> None:
    try:
        short = parse_short(text)
    except InvalidReference:
        return
    assert not {"..", ".", ""} & set(short.repository.split("/"))


COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
HOST = (
    r"(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
    r"(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*|\[[0-9a-fA-F:.]+\])(?::[0-9]+)?"
)
TAG = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"


@settings(max_examples=1500)
@given(st.text(alphabet="a0Z._-:[]\n é", max_size=7) | st.text(alphabet="az", min_size=126, max_size=130))
def test_names_are_those_of_dockers_regular_expressions(text: str) -> None:
    assert is_tag(text) == (re.fullmatch(TAG, text) is not None)
    assert _is_component(text) == (re.fullmatch(COMPONENT, text) is not None)
    assert _is_registry(text) == (re.fullmatch(HOST, text) is not None)
