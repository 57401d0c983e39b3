"""Translates HTTP answers and broken connections into RegistryError; nothing else does.

Whether another attempt may succeed is part of the translation: then it is raised as `Transient` until the attempts run
out.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Mapping

from builda import jsontext
from builda.errors import RegistryError
from builda.registry.message import CutShort, NoAnswer, NotHttp, number
from builda.registry.pace import TakenTooSlowly, TooSlow
from builda.registry.url import origin, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.registry.connections import ThroughProxy

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
    """`error` may not occur at another attempt. `delay`: seconds to wait, if the server said them."""

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
    seconds = number(value)
    if seconds is not None:
        return float(seconds)
    if not value:
        return None
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def unreachable(error: OSError, url: str) -> Transient | RegistryError:
    """The error that `error` means if no connection to the server of `url` could be made."""
    import socket

    from builda.registry.connections import ThroughProxy

    where = origin(url).address
    if isinstance(error, ThroughProxy):
        return _proxy_failure(error, where)
    if _is_tls(error):
        return _tls_failure(error, where)
    if isinstance(error, socket.gaierror):
        return _name_failure(error, url)
    if isinstance(error, TimeoutError):
        return Transient(RegistryError(f"no connection in time: {where}"))
    words = _words(error)
    hint = f"nothing listens at {where}; is the address right, and the server running?"
    refused = isinstance(error, ConnectionRefusedError)
    return Transient(RegistryError(f"cannot connect ({words}): {where}", hint=hint if refused else None))


def broken(error: OSError, url: str) -> Transient | RegistryError:
    """The error that `error` means if it ended a request to `url`, or its answer, on the way."""
    where = origin(url).address
    if _is_tls(error):
        return _tls_failure(error, where)
    match error:
        case TooSlow():
            return Transient(RegistryError(f"server sends too slowly, {error}: {where}"))
        case TakenTooSlowly():
            return Transient(RegistryError(f"server takes data too slowly, {error}: {where}"))
        case TimeoutError():
            return Transient(RegistryError(f"no answer in time: {where}"))
        case NotHttp():
            return Transient(RegistryError(f"the server's answer is not HTTP ({_printable(str(error))}): {where}"))
        case CutShort():
            return Transient(RegistryError(f"connection broke before the end of the content: {shown(url)}"))
        case _:
            return Transient(RegistryError(f"connection broke ({_words(error)}): {where}"))


def was_idle_too_long(error: OSError) -> bool:
    """Whether the server may have ended an idle connection just before it was used again."""
    return isinstance(error, NoAnswer | ConnectionResetError | BrokenPipeError)


def _diagnosis(body: bytes) -> tuple[str | None, str | None]:
    """Code and message of the first error in a distribution-spec error document; None when it is something else."""
    try:
        errors = jsontext.loads(body)["errors"]
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


def _proxy_failure(error: ThroughProxy, where: str) -> Transient | RegistryError:
    what = f"cannot reach {where} through the proxy"
    if error.status is None:
        return Transient(RegistryError(f"{what}: {_words(error.__cause__ or error)}"))
    result = RegistryError(f"{what}: {error.status} {_reason(error.status)}", status=error.status)
    if error.status == 407:
        result.hint = "write user and password into its URL (HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT)"
    return result if 400 <= error.status < 500 and error.status not in PASSING else Transient(result)


def _is_tls(error: BaseException) -> bool:
    ssl = sys.modules.get("ssl")  # as nothing else can have raised its errors
    return ssl is not None and isinstance(error, ssl.SSLError)


def _tls_failure(error: Exception, where: str) -> Transient | RegistryError:
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        return RegistryError(
            f"certificate is not trusted ({error.verify_message}): {where}",
            hint="name a directory that holds the authority's certificate (*.crt) with --cert-dir, put it into "
            f"/etc/containers/certs.d/{where}, or use --tls-verify=false",
        )
    reason = error.reason if isinstance(error, ssl.SSLError) else None
    if reason in _NOT_TLS:
        return RegistryError(
            f"server gave HTTP response to HTTPS client: {where}",
            hint="use --tls-verify=false, or insecure = true for it in registries.conf",
        )
    if reason and "ALERT" in reason:
        return RegistryError(
            f"server refused the TLS connection ({reason.replace('_', ' ').lower()}): {where}",
            hint="it may want a client certificate: NAME.cert and NAME.key in --cert-dir",
        )
    return Transient(RegistryError(f"TLS connection failed ({_words(error)}): {where}"))


def _name_failure(error: OSError, url: str) -> Transient | RegistryError:
    import socket

    result = RegistryError(
        f"cannot resolve host name: {origin(url).host}",
        hint="check the registry's name, and name resolution on this machine (/etc/resolv.conf)",
    )
    return Transient(result) if error.errno == socket.EAI_AGAIN else result


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno in _ERRNO_WORDS:
        return _ERRNO_WORDS[error.errno]
    if isinstance(error, TimeoutError):
        return "timed out"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return _printable(text) or type(error).__name__
