"""URLs of users and servers."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builda.errors import RegistryError
from builda.registry.url import joined, netloc, origin, shown, target

MALFORMED = [
    "http://[::1",
    "http://h:99999/",
    "http://h:x/",
    "http://",
    "//h/",
    "file:///x",
    "",
    "http://:80/",
    "http://a b/",
]


@pytest.mark.parametrize(
    ("url", "address", "host_header"),
    [
        ("http://H.io/x", "h.io:80", "h.io"),
        ("https://h.io:443/x", "h.io:443", "h.io"),
        ("https://u:p@h.io:5000", "h.io:5000", "h.io:5000"),
        ("http://[::1]:5000/", "[::1]:5000", "[::1]:5000"),
        ("http://[FE80::1]/", "[fe80::1]:80", "[fe80::1]"),
    ],
)
def test_where_a_url_leads(url: str, address: str, host_header: str) -> None:
    assert (origin(url).address, origin(url).host_header) == (address, host_header)


@pytest.mark.parametrize("url", MALFORMED)
def test_a_malformed_url_is_an_error_with_a_message(url: str) -> None:
    with pytest.raises(RegistryError, match="URL"):
        origin(url)


@pytest.mark.parametrize("location", ["http://[bad", "//[bad/x", "http://[bad?token=secret", "http://me:secret@[bad/"])
def test_a_malformed_location_is_an_error_without_secrets(location: str) -> None:
    with pytest.raises(RegistryError, match="not a URL") as caught:
        joined("https://h.io/v2/", location)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://h", "/"),
        ("http://h?x=1", "/?x=1"),
        ("http://h/a%2Fb/c+d?q=a+b&c=%41;d", "/a%2Fb/c+d?q=a+b&c=%41;d"),
        ("http://h/naïve file?q=ü", "/na%C3%AFve%20file?q=%C3%BC"),
        ('http://h/"<>\\^`{|}', "/%22%3C%3E%5C%5E%60%7B%7C%7D"),
        ("http://h/a\r\nHost: x", "/aHost:%20x"),
    ],
)
def test_what_a_request_line_says(url: str, expected: str) -> None:
    assert target(url) == expected


def test_urls_are_shown_without_secrets() -> None:
    assert shown("https://me:pw@h.io:1/a/b?token=x#y") == "https://h.io:1/a/b?…"
    assert "pw" not in shown("http://me:pw@[bad/?pw")


@settings(deadline=None, max_examples=300)
@given(st.text("aB0.-:/@_~%?[", max_size=12), st.sampled_from(["http", "https", "HTTP", "ftp"]))
def test_a_url_means_what_the_standard_library_says(rest: str, scheme: str) -> None:
    url = f"{scheme}://{rest}"
    try:
        parts = urlsplit(url)
        port = {"http": 80, "https": 443}[parts.scheme] if parts.port is None else parts.port
    except (ValueError, KeyError):
        return
    if not parts.hostname or parts.scheme == "ftp":
        return
    assert origin(url) == (parts.scheme, parts.hostname, port)
    assert netloc(url) == parts.netloc.rpartition("@")[2]
    path = quote(parts.path, safe="%/:@[?") or "/"
    assert target(url) == (f"{path}?{quote(parts.query, safe='%/:@[?')}" if parts.query else path)


@pytest.mark.parametrize(
    ("host", "is_here"),
    [
        ("localhost", True),
        ("[::1]", True),
        ("127.0.0.1", True),
        ("127.1", True),
        ("127.example.org", False),
        ("1.2", False),
    ],
)
def test_only_an_address_of_this_machine_is_loopback(host: str, is_here: bool) -> None:
    assert origin(f"http://{host}:5000/v2/").is_loopback is is_here
