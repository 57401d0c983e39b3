"""HTTP: requests with redirects and retries. Connections and their sockets are in `builda.registry.connections`.

One `Http` serves one command and all its threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType, TracebackType

from builda.errors import CorruptContent, RegistryError
from builda.events import Decided, Emit, Warned, ignore
from builda.oci.digest import Readable
from builda.registry import failures
from builda.registry.certificates import Tls
from builda.registry.ending import Ending
from builda.registry.failures import Transient
from builda.registry.message import number
from builda.registry.pace import Pace
from builda.registry.proxies import proxy_for
from builda.registry.url import Origin, joined, netloc, origin, same_origin, shown, target
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias, TypeVar

    from builda.registry.connections import Connection, Connections, Route
    from builda.registry.message import Answer

    T = TypeVar("T")

Trust: TypeAlias = Callable[[str], Tls]
"""How to speak TLS with a `host[:port]`; redirects may lead to other hosts than the registry's."""

PIECE = 1 << 20
"""Bytes that are read or sent at a time: large enough that Python's share of a transfer does not count."""

REDIRECT_LIMIT = 10
PATIENCE = 300.0
"""The longest Retry-After that is waited for, in seconds."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SMALL = 64 << 10


class Request(NamedTuple):
    """One request; `what` begins the message of its failure, and `authorization` goes to this origin only."""

    method: str
    url: str
    trust: Trust
    what: str
    headers: Mapping[str, str] = MappingProxyType({})
    authorization: str | None = None
    body: bytes | Body | None = None
    timeout: float = 60.0
    may_downgrade: bool = False  # whether a redirect may lead from HTTPS to HTTP
    login: bool = True  # whether `builda login` is a way out of a refusal
    ending: Ending | None = None


class Body:
    """Exactly `length` bytes of a stream, to be sent once. `progress` is called with each count of bytes sent."""

    def __init__(self, source: Readable, length: int, progress: Callable[[int], None]) -> None:
        self._length = length
        self.failure: Exception | None = None
        self._source = source
        self._remaining = length
        self._progress = progress

    def __len__(self) -> int:
        return self._length

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes; CorruptContent when the stream ends early."""
        wanted = self._remaining if size < 0 else min(size, self._remaining)
        if not wanted:
            return b""
        try:
            data = self._source.read(wanted)
            if not data:
                raise CorruptContent(
                    f"content ends {self._remaining} bytes before the size that its descriptor promises"
                )
        except Exception as error:
            self.failure = error  # of the source, not of the connection
            raise
        self._remaining -= len(data)
        self._progress(len(data))
        return data


class Reply:
    """An answer whose content is read as it arrives. Close it, or leave its `with` block, in any case."""

    def __init__(self, answer: Answer, request: Request, give_back: Callable[[bool], None]) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self.url = request.url
        self.had_password = (request.authorization or "").startswith("Basic ")
        """Whether a user name and a password were sent."""
        self._answer = answer
        self._give_back: Callable[[bool], None] | None = give_back

    def __enter__(self) -> Reply:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    @property
    def length(self) -> int | None:
        """The size that the header promises; None when it promises none."""
        return number(self.headers.get("Content-Length", "").partition(",")[0])

    def all(self, name: str) -> tuple[str, ...]:
        """Every value of a header that may be repeated."""
        return self.headers.all(name)

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, b"" at the end; Transient when the connection breaks."""
        if size < 0:
            return b"".join(iter(lambda: self.read(PIECE), b""))
        try:
            return self._answer.read(size)
        except BaseException as error:
            self._answer.keeps = False
            if isinstance(error, OSError):
                raise failures.broken(error, self.url) from error
            raise

    def data(self, limit: int, what: str) -> bytes:
        """The whole content; RegistryError when it has more than `limit` bytes. Of a refusal, the beginning."""
        if self.status >= 400:
            return self.excerpt()
        pieces, count = [], 0
        while count <= limit and (piece := self.read(min(PIECE, limit + 1 - count))):
            pieces.append(piece)
            count += len(piece)
        if count > limit:
            raise RegistryError(f"{what}: answer is larger than the limit of {limit} bytes", status=self.status)
        return b"".join(pieces)

    def excerpt(self) -> bytes:
        """Up to 64 KiB of the content, for messages; less if the connection breaks."""
        data = b""
        try:
            while len(data) < _SMALL and (piece := self.read(_SMALL - len(data))):
                data += piece
        except (Transient, RegistryError):
            pass
        return data

    def close(self) -> None:
        """The connection serves the next request when all, or nearly all, was read; else it is closed."""
        if self._give_back is None:
            return
        give_back, self._give_back = self._give_back, None
        left = self._answer.left
        if self._answer.keeps and left is not None and 0 < left <= _SMALL:
            self.excerpt()
        give_back(self._answer.keeps and self._answer.left == 0)


class Http:
    """Connections for one command: thread-safe, kept open between requests, closed at the end of its `with`."""

    def __init__(
        self,
        *,
        environ: Mapping[str, str],
        retry: int = 3,
        retry_delay: float | None = None,
        emit: Emit = ignore,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.time,
        pace: Pace = Pace(),  # noqa: B008  # an immutable value
        tracing: bool = False,
    ) -> None:
        self.emit = emit
        self._tracing = tracing
        self._pace = pace
        self._environ = environ
        self._retry = retry
        self._retry_delay = retry_delay
        self._sleep = sleep
        self._now = now
        self._lock = threading.Lock()
        self._made: Connections | None = None
        self._pauses: dict[Origin, tuple[float, int]] = {}  # until when, and the thread that was told so

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            made, self._made = self._made, None
        if made is not None:
            made.close()

    def retrying(self, action: Callable[[int], T], ending: Ending | None = None) -> T:
        """Call `action` with the number of the attempt, and again after each Transient failure; its result."""
        attempt = 0
        while True:
            try:
                return action(attempt)
            except Transient as failure:
                self.wait(attempt, failure, ending)
            attempt += 1

    def wait(self, attempt: int, failure: Transient, ending: Ending | None = None) -> None:
        """Wait before the attempt that follows number `attempt`; raises the error if that was the last."""
        if attempt >= self._retry or (ending is not None and ending.has_come):
            raise failure.error from failure
        delay = self._delay(attempt, failure)
        if delay > PATIENCE:
            failure.error.hint = (
                f"the server asks for {delay:.0f} seconds of patience; builda waits {PATIENCE:.0f} at most"
            )
            raise failure.error from failure
        self.emit(Warned(message=f"{failure.error}; trying again in {delay:.1f} s"))
        self._rest(delay, ending)

    def call(self, request: Request, *, limit: int) -> tuple[Reply, bytes]:
        """The answer with its whole content of at most `limit` bytes, after as many attempts as needed."""

        def attempt(_: int) -> tuple[Reply, bytes]:
            with self.open(request) as reply:
                return reply, reply.data(limit, request.what)

        return self.retrying(attempt, request.ending)

    def open(self, request: Request) -> Reply:
        """The answer to one attempt, after redirects; Transient if another attempt may succeed."""
        for _ in range(REDIRECT_LIMIT + 1):
            self._pause(origin(request.url), request.ending)
            reply = self._send(request)
            if reply.status in failures.PASSING:
                with reply:
                    raise self._passing(reply, request)
            try:
                redirected = _redirected(request, reply)
            except BaseException:
                reply.close()
                raise
            if redirected is None:
                return reply
            reply.close()
            request = redirected
        raise RegistryError(f"{request.what}: more than {REDIRECT_LIMIT} redirects: {shown(request.url)}")

    def _passing(self, reply: Reply, request: Request) -> Transient:
        error = refused(reply, reply.excerpt(), request)
        delay = failures.retry_after(reply.headers, self._now())
        if delay:
            with self._lock:
                until = self._now() + min(delay, PATIENCE)
                self._pauses[origin(reply.url)] = until, threading.get_ident()
        return Transient(error, delay)

    def _rest(self, seconds: float, ending: Ending | None) -> None:
        if ending is not None and self._sleep is time.sleep:
            ending.rest(seconds)
        else:
            self._sleep(seconds)

    def _pause(self, where: Origin, ending: Ending | None) -> None:
        """Wait as long as the server has asked another thread to wait; this thread has waited if it was asked."""
        with self._lock:
            until, asked = self._pauses.get(where, (0.0, 0))
        if asked != threading.get_ident() and (left := until - self._now()) > 0:
            self._rest(left, ending)

    def _delay(self, attempt: int, failure: Transient) -> float:
        if failure.delay is not None:
            return failure.delay
        if self._retry_delay is not None:
            return self._retry_delay
        import random

        first = 2.0 if failure.error.status == 429 else 0.5
        return first * 2.0**attempt * random.uniform(0.8, 1.2)  # so that parallel jobs do not come back together

    def _send(self, request: Request) -> Reply:
        route = self._route(request)
        connections = self._connections()
        connection, answer = self._answered(connections, route, request)

        def give_back(usable: bool) -> None:
            if request.ending is not None:
                request.ending.done(connection)
            if usable:
                connections.give(route, connection)
            else:
                connection.close()

        return Reply(answer, request, give_back)

    def _answered(self, connections: Connections, route: Route, request: Request) -> tuple[Connection, Answer]:
        """The answer, and the connection it comes over: another one if an idle one had just been ended."""
        while True:
            connection = self._taken(connections, route, request)
            can_be_stale = not connection.is_new and not isinstance(request.body, Body)
            if request.ending is not None:
                request.ending.begin(connection)
            try:
                return connection, self._exchange(connection, route, request)
            except BaseException as error:
                if request.ending is not None:
                    request.ending.done(connection)
                connection.close()
                if isinstance(request.body, Body) and request.body.failure is not None:
                    raise request.body.failure from None
                if not isinstance(error, OSError):
                    raise
                ended = request.ending is not None and request.ending.has_come
                if ended or not (can_be_stale and failures.was_idle_too_long(error)):
                    raise failures.broken(error, request.url) from error

    def _exchange(self, connection: Connection, route: Route, request: Request) -> Answer:
        from builda.registry.message import request_head

        path = target(request.url)
        headers = self._headers(route, request)
        place = f"http://{headers['Host']}{path}" if route.is_forwarded else path
        head = request_head(request.method, place, headers)
        answer = connection.exchange(request.method, head, request.body, timeout=request.timeout)
        if self._tracing:
            what = f'{route.origin.address} "{request.method} {path.partition("?")[0]} HTTP/1.1" {answer.status}'
            self.emit(Decided(subject="request", message=what))
        return answer

    def _headers(self, route: Route, request: Request) -> dict[str, str]:
        headers = {"Host": route.origin.host_header, "User-Agent": "builda", "Accept-Encoding": "identity"}
        if route.is_forwarded and route.proxy is not None:
            from builda.registry.connections import proxy_authorization

            headers |= proxy_authorization(route.proxy)
        headers |= request.headers
        if request.authorization is not None:
            headers["Authorization"] = request.authorization
        if request.body is not None:
            headers["Content-Length"] = str(len(request.body))
        return headers

    def _taken(self, connections: Connections, route: Route, request: Request) -> Connection:
        try:
            return connections.take(route)
        except OSError as error:
            raise failures.unreachable(error, request.url) from error

    def _route(self, request: Request) -> Route:
        from builda.registry.connections import Route

        where = origin(request.url)
        tls = request.trust(netloc(request.url)) if where.scheme == "https" else None
        return Route(where, tls, proxy_for(request.url, self._environ))

    def _connections(self) -> Connections:
        from builda.registry.connections import Connections

        with self._lock:
            if self._made is None:
                self._made = Connections(self._pace)
            return self._made


def refused(reply: Reply, data: bytes, request: Request) -> RegistryError:
    """The error for an answer with a status of 400 or more to `request`."""
    host = netloc(request.url) if request.login else None
    return failures.refusal(reply.status, data, what=request.what, host=host, logged_in=reply.had_password)


def _redirected(request: Request, reply: Reply) -> Request | None:
    """The request that a redirect asks for; None if `reply` is no redirect or may not be followed."""
    location = reply.headers.get("Location")
    if reply.status not in _REDIRECTS or not location:
        return None
    if request.method not in ("GET", "HEAD") and (reply.status not in (307, 308) or isinstance(request.body, Body)):
        return None
    url = joined(request.url, location)
    if not url.startswith(("http://", "https://")):
        raise RegistryError(f"{request.what}: redirected to something other than HTTP: {shown(url)}")
    if request.url.startswith("https:") and url.startswith("http:") and not _allows_downgrade(request):
        raise RegistryError(
            f"{request.what}: redirected from HTTPS to plain HTTP: {shown(url)}",
            hint="--tls-verify=false allows it",
        )
    authorization = request.authorization if same_origin(request.url, url) else None
    return request._replace(url=url, authorization=authorization)


def _allows_downgrade(request: Request) -> bool:
    return request.may_downgrade or not request.trust(netloc(request.url)).verify
