"""Foreign failures in our words: an HTTP answer or a broken connection becomes a RegistryError, once.

Whether it is worth another attempt is part of the translation: then it travels as `Transient` until attempts run out.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from builda.errors import RegistryError
from builda.registry.pace import TooSlow

if TYPE_CHECKING:
    from urllib3.exceptions import HTTPError

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers after which the same request may succeed."""

_MESSAGE_LIMIT = 500
_NOT_TLS = (
    "WRONG_VERSION_NUMBER",
    "HTTP_REQUEST",
    "UNKNOWN_PROTOCOL",
    "PACKET_LENGTH_TOO_LONG",
    "RECORD_LAYER_FAILURE",
)
_ERRNO_WORDS = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset",
    errno.EPIPE: "connection closed while sending",
    errno.EHOSTUNREACH: "no route to host",
    errno.ENETUNREACH: "network unreachable",
    errno.ETIMEDOUT: "connection timed out",
}


class Transient(Exception):
    """`error`, which another attempt may not meet, in `delay` seconds if the server said when."""

    def __init__(self, error: RegistryError, delay: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.delay = delay


def login_hint(host: str) -> str:
    """The way out of missing or wrong credentials."""
    return f"log in with `builda login {host}`, or give --creds or --authfile"


def other_login_hint(host: str) -> str:
    """The way out where credentials were sent and not taken."""
    return f"user name or password is wrong for {host}: `builda login {host}` or --creds says others"


def shown(url: str) -> str:
    """`url` without user, password and query, any of which may be a secret."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" + ("?…" if parts.query else "")


def address(url: str) -> str:
    """`host:port` of a URL, which is what a firewall or a name server has to do with."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{host}:{parts.port or {'https': 443}.get(parts.scheme, 80)}"


def refusal(status: int, body: bytes, *, what: str, host: str | None, logged_in: bool = False) -> RegistryError:
    """The error that an answer of 400 or more means; `what` says what was tried, `host` where one can log in.

    `logged_in`: a user name and a password were sent.
    """
    code, message = _diagnosis(body)
    reason = message or _reason(status)
    hint = None
    if host is not None and status == 401 and logged_in:
        hint = other_login_hint("docker.io" if host == "registry-1.docker.io" else host)
    elif host is not None and (status in (401, 403) or code in ("UNAUTHORIZED", "DENIED")):
        host = "docker.io" if host == "registry-1.docker.io" else host
        hint = f"{login_hint(host)}; registries also answer so when there is no such repository"
    elif host is not None and status == 429:
        hint = f"{host} limits how much it serves; wait, {login_hint(host)}, or use a mirror in registries.conf"
    elif status == 400 and b"HTTP request to an HTTPS server" in body:
        reason, hint = "the server speaks HTTPS, and was asked over HTTP", "leave out --tls-verify=false"
    return RegistryError(f"{what}: {status} {reason}", status=status, code=code, hint=hint)


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """The seconds that a Retry-After header asks to wait; None without a usable one."""
    value = headers.get("Retry-After", "").strip()
    if value.isdecimal() and len(value) < 10:
        return float(value)
    if not value:
        return None
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def connection_failure(error: HTTPError, url: str) -> Transient | RegistryError:
    """What went wrong between here and the server, named plainly with host and port."""
    import http.client

    from urllib3 import exceptions

    where = address(url)
    match error:
        case exceptions.ProxyError():
            inner = error.original_error
            return Transient(RegistryError(f"cannot reach {where} through the proxy: {_words(inner)}"))
        case exceptions.SSLError():
            return _tls_failure(error, where)
        case exceptions.NameResolutionError():
            return _name_failure(error, where, url)
        case exceptions.NewConnectionError():
            words = _words(error)
            hint = f"nothing listens at {where}; is the address right, and the server running?"
            refused = words == _ERRNO_WORDS[errno.ECONNREFUSED]
            return Transient(RegistryError(f"cannot connect ({words}): {where}", hint=hint if refused else None))
        case exceptions.ConnectTimeoutError():
            return Transient(RegistryError(f"no connection in time: {where}"))
        case exceptions.ReadTimeoutError() if slow := next((e for e in _chain(error) if isinstance(e, TooSlow)), None):
            return Transient(RegistryError(f"server sends too slowly, {slow}: {where}"))
        case exceptions.ReadTimeoutError():
            return Transient(RegistryError(f"no answer in time: {where}"))
        case exceptions.ProtocolError() if any(isinstance(e, http.client.IncompleteRead) for e in _chain(error)):
            return Transient(RegistryError(f"connection broke before the end of the content: {shown(url)}"))
        case exceptions.ProtocolError():
            return Transient(RegistryError(f"connection broke ({_words(error)}): {where}"))
        case exceptions.LocationValueError():
            return RegistryError(f"not a URL: {shown(url)}")
        case _:
            return RegistryError(f"request failed ({_words(error)}): {where}")


def _diagnosis(body: bytes) -> tuple[str | None, str | None]:
    """Code and message of the first error in a distribution-spec error document; None when it is something else."""
    try:
        errors = json.loads(body)["errors"]
        code, message = errors[0].get("code"), errors[0].get("message")
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return None, None
    return (code if isinstance(code, str) else None), (_printable(message) if isinstance(message, str) else None)


def _printable(text: str) -> str:
    """A server's own words, without control characters that could play tricks on a terminal."""
    return "".join(c if c.isprintable() else " " for c in text)[:_MESSAGE_LIMIT].strip()


def _reason(status: int) -> str:
    from http import HTTPStatus

    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "unknown status"


def _tls_failure(error: Exception, where: str) -> Transient | RegistryError:
    import ssl  # lazily, as urllib3: names are resolved without any connection

    inner = next((e for e in _chain(error) if isinstance(e, ssl.SSLError)), None)
    if isinstance(inner, ssl.SSLCertVerificationError):
        return RegistryError(
            f"certificate is not trusted ({inner.verify_message}): {where}",
            hint="name a directory that holds the authority's certificate (*.crt) with --cert-dir, put it into "
            f"/etc/containers/certs.d/{where}, or use --tls-verify=false",
        )
    if inner is not None and inner.reason in _NOT_TLS:
        return RegistryError(
            f"server gave HTTP response to HTTPS client: {where}",
            hint="use --tls-verify=false, or insecure = true for it in registries.conf",
        )
    if inner is not None and inner.reason and "ALERT" in inner.reason:
        return RegistryError(
            f"server refused the TLS connection ({inner.reason.replace('_', ' ').lower()}): {where}",
            hint="it may want a client certificate: NAME.cert and NAME.key in --cert-dir",
        )
    return Transient(RegistryError(f"TLS connection failed ({_words(error)}): {where}"))


def _name_failure(error: Exception, where: str, url: str) -> Transient | RegistryError:
    import socket

    inner = next((e for e in _chain(error) if isinstance(e, socket.gaierror)), None)
    result = RegistryError(
        f"cannot resolve host name: {urlsplit(url).hostname}",
        hint="check the registry's name, and name resolution on this machine (/etc/resolv.conf)",
    )
    passing = inner is not None and inner.errno == socket.EAI_AGAIN
    return Transient(result) if passing else result


def _words(error: BaseException) -> str:
    for inner in _chain(error):
        if isinstance(inner, OSError) and inner.errno in _ERRNO_WORDS:
            return _ERRNO_WORDS[inner.errno]
    for inner in _chain(error):
        if isinstance(inner, TimeoutError):
            return "timed out"
    innermost = list(_chain(error))[-1]
    return _printable(str(innermost)) or type(innermost).__name__


def _chain(error: BaseException | None) -> list[BaseException]:
    """`error` and what caused it, outermost first; urllib3 keeps causes in `__cause__`, `__context__` or `args`."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        nested = next((a for a in error.args if isinstance(a, BaseException)), None)
        error = nested or error.__cause__ or error.__context__
    return found
