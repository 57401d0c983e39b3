"""URLs that users and servers give: parsed, joined, and shown without secrets. A malformed one is a RegistryError."""

from __future__ import annotations

from builda.errors import RegistryError
from builda.values import NamedTuple

TYPE_CHECKING = False  # urllib.parse takes two milliseconds, which most pushes to registries need not pay
if TYPE_CHECKING:
    from urllib.parse import SplitResult

_PORTS = {"http": 80, "https": 443}
_IN_IPV4 = frozenset("0123456789.")  # 127.example.org is a host like any other
_IN_A_HOST = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-_")
_IN_A_PATH = _IN_A_HOST | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ~/:@")
_IN_A_TARGET = "%/:=&?~#+!$,;'@()*[]"  # what a server may have put into a path or query with a meaning of its own


class Origin(NamedTuple):
    """Scheme, host (lower case, an IPv6 address without brackets) and port of a URL."""

    scheme: str
    host: str
    port: int

    @property
    def address(self) -> str:
        """`host:port`, which a firewall or a name server needs to know."""
        return f"{_bracketed(self.host)}:{self.port}"

    @property
    def host_header(self) -> str:
        """The value of a Host header."""
        host = _bracketed(self.host)
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether the host is this machine."""
        return self.host in ("localhost", "::1") or (self.host.startswith("127.") and _IN_IPV4.issuperset(self.host))


def origin(url: str) -> Origin:
    """The origin of an http or https URL; RegistryError for anything else."""
    plain = _of_plain(url)
    if plain is not None:
        return plain[0]
    parts = _split(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    host = parts.hostname or ""
    if parts.scheme not in _PORTS or not host or port == -1 or not host.isprintable() or " " in host:
        raise RegistryError(f"not an http or https URL: {shown(url)}")
    return Origin(parts.scheme, host, _PORTS[parts.scheme] if port is None else port)


def same_origin(one: str, other: str) -> bool:
    """Whether two URLs have the same scheme, host and port: a secret for one may then be sent to the other."""
    return origin(one) == origin(other)


def netloc(url: str) -> str:
    """The host of a URL with its port if one is written: the name of a directory in certs.d."""
    plain = _of_plain(url)
    return _split(url).netloc.rpartition("@")[2] if plain is None else url.split("/", 3)[2]


def joined(base: str, location: str) -> str:
    """The URL that `location` means in an answer from `base`; RegistryError if it is malformed."""
    from urllib.parse import urljoin

    try:
        return urljoin(base, location)
    except ValueError:
        raise RegistryError(f"not a URL: {_plain(location)}") from None


def target(url: str) -> str:
    """Path and query for a request line, with everything percent-encoded that may not stand there."""
    plain = _of_plain(url)
    if plain is not None:
        return plain[1]
    from urllib.parse import quote

    parts = _split(url)
    path = quote(parts.path, safe=_IN_A_TARGET) or "/"
    return f"{path}?{quote(parts.query, safe=_IN_A_TARGET)}" if parts.query else path


def shown(url: str) -> str:
    """`url` without user, password and query, any of which may be a secret."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
    except ValueError:
        return _plain(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" + ("?…" if parts.query else "")


def _of_plain(url: str) -> tuple[Origin, str] | None:
    """Origin and path of a URL of nothing else, without escapes, as most are; None for any other one."""
    scheme, _, rest = url.partition("://")
    place, _, path = rest.partition("/")
    host, colon, port = place.partition(":")
    is_plain = scheme in _PORTS and _IN_A_HOST.issuperset(host) and _IN_A_PATH.issuperset(path) and host != ""
    if not is_plain or (colon and not (port.isdecimal() and port.isascii() and len(port) < 6 and int(port) < 1 << 16)):
        return None
    return Origin(scheme, host, int(port) if colon else _PORTS[scheme]), f"/{path}"


def _split(url: str) -> SplitResult:
    from urllib.parse import urlsplit

    try:
        return urlsplit(url)
    except ValueError:
        raise RegistryError(f"not a URL: {_plain(url)}") from None


def _plain(text: str) -> str:
    """A malformed URL, without what may be a password or a signature in it."""
    scheme, separator, rest = text.partition("://")
    bare = rest.partition("?")[0].rpartition("@")[2] if separator else text.partition("?")[0].rpartition("@")[2]
    return f"{scheme}{separator}{bare}"[:200] if separator else bare[:200]


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
