"""Which proxy a URL goes through: HTTP_PROXY, HTTPS_PROXY and NO_PROXY as the Go tools read them."""

from __future__ import annotations

from collections.abc import Mapping

from builda.errors import InvalidValue
from builda.registry.message import number
from builda.registry.url import origin


def proxy_for(url: str, environ: Mapping[str, str]) -> str | None:
    """The proxy's URL, None for a direct connection; loopback addresses are always reached directly."""
    where = origin(url)
    proxy = _setting(f"{where.scheme}_proxy", environ)
    if not proxy or where.is_loopback or _excluded(where.host, where.port, _setting("no_proxy", environ)):
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    from urllib.parse import urlsplit

    if urlsplit(proxy).scheme not in ("http", "https"):
        raise InvalidValue(f"only http and https proxies are supported: {_without_password(proxy)}")
    return proxy


def _setting(name: str, environ: Mapping[str, str]) -> str:
    return environ.get(name.upper()) or environ.get(name) or ""


def _excluded(host: str, port: int, setting: str) -> bool:
    return any(_covers(entry, host.lower(), port) for entry in setting.lower().replace(",", " ").split())


def _covers(entry: str, host: str, port: int) -> bool:
    """Whether one entry of NO_PROXY names the host: `*`, a network, a name and all below it, perhaps with a port."""
    if entry == "*":
        return True
    if "/" in entry:
        return _in_network(entry, host)
    name, colon, suffix = entry.rpartition(":")
    if colon and suffix.isdigit() and (name.endswith("]") or ":" not in name):
        if number(suffix) != port:
            return False
        entry = name
    entry = entry.strip("[]").removeprefix("*")
    if entry.startswith("."):
        return host.endswith(entry)
    return host == entry or host.endswith(f".{entry}")


def _in_network(entry: str, host: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:  # a name is in no network
        return False


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
