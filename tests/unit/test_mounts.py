"""`--mount` texts: any text gives a mount or an error of builda's."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builda.errors import BuildaError, InvalidValue
from builda.mounts import parse_mount
from builda.permissions import parse_permissions
from builda.plan import FromImage

PARTS = (
    *("type=", "bind", "cache", "tmpfs", "secret", "ssh", "target=", "dst=", "source=", "src=", "from=", "id=", "env="),
    *(
        ",",
        ",",
        ",",
        "/",
        "/x",
        "..",
        "ro",
        "rw",
        "U",
        "z",
        "mode=",
        "0755",
        "uid=",
        "-1",
        "99999999999",
        "size=",
        "1g",
    ),
    *(
        '"',
        "'",
        "\\",
        "\n",
        "\0",
        "é",
        "=",
        " ",
        "sharing=",
        "locked",
        "required",
        "true",
        "bind-propagation=",
        "rshared",
    ),
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(PARTS), max_size=14).map("".join), st.booleans())
def test_any_text_is_a_mount_or_an_error(text: str, default_target: bool) -> None:
    with suppress(BuildaError):
        mount = parse_mount(text, FromImage, "/srv", default_target=default_target)
        assert mount.target.startswith("/") or not mount.target


@pytest.mark.parametrize(
    "text",
    [
        "type=secret",
        "type=bind,target=/",
        "type=tmpfs,target=..",
        "type=cache",
        "type=cache,target=/x,mode=8",
        "type=cache,target=/x,uid=-1",
        "type=cache,target=/x,uid=99999999999",
        "type=tmpfs,target=/x,uid=1",
        "type=tmpfs,target=/x,source=y",
        "type=bind,target=/x,required",
        "type=bind,target=/x,id",
    ],
)
def test_what_is_no_mount_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_mount(text, FromImage)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.lists(
        st.sampled_from(("device", "=", "/dev", "/x", "..", ",", "network.host", "security.insecure", " ")), max_size=8
    )
)
def test_any_text_is_a_permission_or_an_error(words: list[str]) -> None:
    with suppress(BuildaError):
        parse_permissions(("".join(words),), None)
