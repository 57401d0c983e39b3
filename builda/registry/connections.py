"""Connections to servers and proxies, kept open between requests. Every socket of builda is opened here.

Nothing of this is imported before the first request, and `ssl` only for the first https one. `socket` comes with `ssl`:
its tables of names take two milliseconds, and `_socket`, on which it stands, has all that plain HTTP needs.
"""

from __future__ import annotations

import _socket
import os
import select
import threading
from contextlib import suppress

from builda.registry.certificates import Tls, context_for
from builda.registry.message import Answer, Incoming, read_answer, request_head
from builda.registry.pace import Pace, Paced, TakenTooSlowly
from builda.registry.url import Origin, origin
from builda.values import NamedTuple, Protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Mapping

    from builda.oci.digest import Readable

CONNECT_TIMEOUT = 20.0
"""Seconds for each address of a name, and for a handshake."""

_IDLE = 8  # connections that wait for another request to the same server
_TOGETHER = 64 << 10  # a body up to this size is sent with its header
_PIECE = 1 << 20


class Route(NamedTuple):
    """The way to a server: with `tls` for https, and through a proxy if one has a URL here."""

    origin: Origin
    tls: Tls | None
    proxy: str | None

    @property
    def is_forwarded(self) -> bool:
        """Whether requests name the whole URL, as the proxy makes them."""
        return self.proxy is not None and self.tls is None


class ThroughProxy(OSError):
    """The proxy was not reached, or did not reach the server. `status` is its answer, None without one."""

    def __init__(self, status: int | None = None) -> None:
        super().__init__(f"the proxy answered {status}" if status is not None else "no answer")
        self.status = status


class _SendingEnded(Exception):
    """The server ended the connection while a request was sent; not that the reading of the body failed."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class Socket(Protocol):
    """The methods of a socket that HTTP needs."""

    def recv(self, size: int, /) -> bytes: ...

    def sendall(self, data: bytes, /) -> None: ...

    def settimeout(self, seconds: float, /) -> None: ...

    def fileno(self) -> int: ...

    def close(self) -> None: ...


class Connection:
    """One connection, with at most one request on its way."""

    def __init__(self, raw: Socket, pace: Pace) -> None:
        self._raw = raw
        self._decrypted: Callable[[], int] = getattr(raw, "pending", lambda: 0)  # which poll does not see
        self._incoming = Incoming(Paced(raw, pace), self._has_more)
        self._timeout = CONNECT_TIMEOUT
        self.is_new = True
        """Whether it has not carried a request yet."""

    def exchange(self, method: str, head: bytes, body: Readable | bytes | None, *, timeout: float) -> Answer:
        """Send a request and read the answer's header; OSError if that fails."""
        self._raw.settimeout(timeout)
        self._timeout = timeout
        try:
            self._send(head, body)
        except _SendingEnded as ended:
            return self._early(method, ended.error)
        answer = read_answer(self._incoming, method)
        self.is_new = False
        return answer

    def _send(self, head: bytes, body: Readable | bytes | None) -> None:
        if isinstance(body, bytes) and len(body) <= _TOGETHER:
            head, body = head + body, None
        self._put(head)
        if isinstance(body, bytes):
            for start in range(0, len(body), _PIECE):
                self._put(body[start : start + _PIECE])
        elif body is not None:
            while data := body.read(_PIECE):
                self._put(data)

    def _put(self, data: bytes) -> None:
        try:
            self._raw.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise _SendingEnded(error) from error
        except TimeoutError as error:
            raise TakenTooSlowly(f"less than {len(data)} bytes in {self._timeout:g} seconds") from error

    def _early(self, method: str, error: OSError) -> Answer:
        """The answer of a server that refused the request before it had all of it."""
        try:
            answer = read_answer(self._incoming, method)
        except OSError:
            raise error from None
        answer.keeps = False
        return answer

    def is_idle(self) -> bool:
        """Whether another request can be sent: the server has neither ended the connection nor sent anything more."""
        return not self._incoming.has_more

    def _has_more(self) -> bool:
        """Whether something can be received at once, if only that the connection has ended."""
        if self._decrypted():
            return True
        poll = select.poll()
        poll.register(self._raw.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
        return bool(poll.poll(0))

    def interrupt(self) -> None:
        """End it for a thread that waits for the server now; that thread closes it."""
        with suppress(OSError):  # the server was faster
            descriptor = _socket.socket(fileno=os.dup(self._raw.fileno()))
            try:  # a socket of its own, as one with TLS would forget its keys
                descriptor.shutdown(_socket.SHUT_RDWR)
            finally:
                descriptor.close()

    def close(self) -> None:
        """End the connection."""
        self._raw.close()


class Connections:
    """Idle connections by route, and new ones. Threads may share it."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._lock = threading.Lock()
        self._idle: dict[Route, list[Connection]] = {}
        self._contexts: dict[Tls, ssl.SSLContext] = {}
        self._closed = False

    def take(self, route: Route) -> Connection:
        """An idle or new connection for the caller alone; OSError if the server cannot be reached."""
        while True:
            with self._lock:
                idle = self._idle.get(route)
                connection = idle.pop() if idle else None
            if connection is None:
                return Connection(self._open(route), self._pace)
            if connection.is_idle():
                return connection
            connection.close()

    def give(self, route: Route, connection: Connection) -> None:
        """Take back a connection whose answer was read to the end."""
        with self._lock:
            idle = self._idle.setdefault(route, [])
            if not self._closed and len(idle) < _IDLE:
                idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """End all idle connections now, and the others when they are given back."""
        with self._lock:
            found = [connection for idle in self._idle.values() for connection in idle]
            self._idle.clear()
            self._closed = True
        for connection in found:
            connection.close()

    def _open(self, route: Route) -> Socket:
        raw: Socket
        if route.proxy is None:
            raw = _connected(route.origin)
            return raw if route.tls is None else self._encrypted(raw, route.tls, route.origin.host)
        raw = self._proxy(route.proxy)
        if route.tls is None:
            return raw
        try:
            _tunnel(raw, route, self._pace)
        except BaseException:
            raw.close()
            raise
        return self._encrypted(raw, route.tls, route.origin.host)

    def _proxy(self, url: str) -> Socket:
        where = origin(url)
        try:
            raw = _connected(where)
            return raw if where.scheme == "http" else self._encrypted(raw, Tls(), where.host)
        except OSError as error:
            raise ThroughProxy from error

    def _encrypted(self, raw: Socket, tls: Tls, host: str) -> Socket:
        try:
            with self._lock:
                if tls not in self._contexts:
                    self._contexts[tls] = context_for(tls)
                context = self._contexts[tls]
            if type(raw) is _socket.socket:
                return context.wrap_socket(_whole(raw), server_hostname=host)
            from builda.registry.nestedtls import NestedTls

            return NestedTls(raw, context, host)  # type: ignore[arg-type]  # what is no plain socket is one with TLS
        except BaseException:
            raw.close()
            raise


def proxy_authorization(proxy: str) -> dict[str, str]:
    """The header for the user and password in a proxy's URL; empty without them."""
    from urllib.parse import unquote, urlsplit

    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    from builda.registry.keyring import Credentials

    return {"Proxy-Authorization": Credentials(unquote(parts.username), unquote(parts.password or "")).basic()}


def _connected(where: Origin) -> _socket.socket:
    """A socket that is connected to the first address that answers; the last address's error if none does."""
    try:  # a text would load tables of Unicode even where it has only letters of ASCII
        host = where.host.encode("ascii" if where.host.isascii() else "idna")
    except UnicodeError:
        raise _socket.gaierror(_socket.EAI_NONAME, "not a host name") from None
    failure: OSError | None = None
    for family, kind, protocol, _, address in _socket.getaddrinfo(host, where.port, 0, _socket.SOCK_STREAM):
        raw = None
        try:
            raw = _socket.socket(family, kind, protocol)
            raw.settimeout(CONNECT_TIMEOUT)
            raw.connect(address)
            raw.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
            return raw
        except OSError as error:
            failure = error
            if raw is not None:
                raw.close()
    raise failure or OSError("the name has no address")


def _whole(raw: _socket.socket) -> socket.socket:
    """The same connection as a socket that `ssl` takes; `raw` is closed."""
    import socket

    timeout = raw.gettimeout()
    found = socket.socket(fileno=raw.detach())
    found.settimeout(timeout)
    return found


def _tunnel(raw: Socket, route: Route, pace: Pace) -> None:
    """Have the proxy connect `raw` to the server."""
    assert route.proxy is not None, "only a proxy has tunnels"
    address = route.origin.address
    headers: Mapping[str, str] = {"Host": address, "User-Agent": "builda", **proxy_authorization(route.proxy)}
    incoming = Incoming(Paced(raw, pace))
    try:
        raw.sendall(request_head("CONNECT", address, headers))
        status = read_answer(incoming, "CONNECT").status
    except OSError as error:
        raise ThroughProxy from error
    if not 200 <= status < 300 or incoming.buffered:
        raise ThroughProxy(status)
