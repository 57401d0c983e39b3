"""Which URLs go through a proxy."""

from __future__ import annotations

import pytest

from builda.errors import InvalidValue
from builda.registry.proxies import proxy_for

PROXY = {"HTTPS_PROXY": "http://p:3128", "http_proxy": "q:8080"}


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("https://r.io/v2/", "http://p:3128"),
        ("http://r.io/v2/", "http://q:8080"),
        ("https://localhost:5000/", None),
        ("https://127.0.0.2/", None),
        ("http://[::1]:80/", None),
    ],
)
def test_the_scheme_chooses_the_proxy_and_loopback_needs_none(url: str, proxy: str | None) -> None:
    assert proxy_for(url, PROXY) == proxy


@pytest.mark.parametrize(
    ("no_proxy", "host", "direct"),
    [
        ("*", "r.io", True),
        ("r.io", "r.io", True),
        ("r.io", "a.r.io", True),
        ("r.io", "bar.io", False),
        (".r.io", "a.r.io", True),
        (".r.io", "r.io", False),
        ("*.r.io", "a.r.io", True),
        ("other.io, r.io", "r.io", True),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.0.0.0/8", "r.io", False),
        ("r.io:443", "r.io", True),
        ("r.io:8443", "r.io", False),
        ("R.IO", "r.io", True),
    ],
)
def test_no_proxy_names_hosts_networks_and_ports(no_proxy: str, host: str, direct: bool) -> None:
    assert (proxy_for(f"https://{host}/", {**PROXY, "NO_PROXY": no_proxy}) is None) == direct


def test_other_proxies_are_refused_without_showing_the_password() -> None:
    with pytest.raises(InvalidValue) as caught:
        proxy_for("https://r.io/", {"https_proxy": "socks5://user:secret@p:1"})
    assert "secret" not in str(caught.value)
