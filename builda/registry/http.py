"""HTTP: connections, TLS, redirects and retries. The only sockets in builda are opened here.

One `Http` serves one command and all its threads. urllib3 is imported on the first request: it takes longer to load
than most verbs take to run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar, cast
from urllib.parse import urljoin, urlsplit

from builda.errors import CorruptContent, RegistryError
from builda.events import Emit, Warned, ignore
from builda.oci.digest import Readable
from builda.registry import failures
from builda.registry.certificates import Tls, context_for
from builda.registry.failures import Transient
from builda.registry.pace import Pace, keep_pace
from builda.registry.proxies import proxy_for

if TYPE_CHECKING:
    from urllib3 import HTTPResponse, PoolManager
    from urllib3.exceptions import HTTPError

T = TypeVar("T")
Trust: TypeAlias = Callable[[str], Tls]
"""How to speak TLS with a `host[:port]`; redirects may lead to other hosts than the registry's."""

PIECE = 1 << 20
"""Bytes that are read or sent at a time: large enough that Python's share of a transfer does not count."""

REDIRECT_LIMIT = 10
PATIENCE = 300.0
"""The longest Retry-After that is waited for, in seconds."""

_CONNECT_TIMEOUT = 20.0
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


class Body:
    """Exactly `length` bytes of a stream, to be sent once; `progress` hears how many went, as they go."""

    def __init__(self, source: Readable, length: int, progress: Callable[[int], None]) -> None:
        self.length = length
        self.failure: Exception | None = None
        self._source = source
        self._remaining = length
        self._progress = progress

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
            self.failure = error  # urllib3 would call it a broken connection
            raise
        self._remaining -= len(data)
        self._progress(len(data))
        return data


class Reply:
    """An answer whose content is read as it arrives. Close it, or leave its `with` block, in any case."""

    def __init__(self, response: HTTPResponse, request: Request) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self.url = request.url
        self.had_password = (request.authorization or "").startswith("Basic ")
        """Whether a user name and a password were sent."""
        self._response = response

    def __enter__(self) -> Reply:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    @property
    def length(self) -> int | None:
        """The size that the header promises; None when it promises none."""
        text = self.headers.get("Content-Length", "")
        return int(text) if text.isdecimal() and len(text) < 20 else None

    def all(self, name: str) -> tuple[str, ...]:
        """Every value of a header that may be repeated."""
        return tuple(self._response.headers.getlist(name))

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, b"" at the end; Transient when the connection breaks."""
        from urllib3.exceptions import HTTPError

        try:
            return self._response.read(size if size >= 0 else None, decode_content=False) or b""
        except HTTPError as error:
            raise failures.connection_failure(error, self.url) from error

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
        """The beginning of the content, as far as it can be had: for messages."""
        try:
            return self.read(_SMALL)
        except (Transient, RegistryError):
            return b""

    def close(self) -> None:
        """The connection serves the next request when all, or nearly all, was read; else it is closed."""
        remaining = self._response.length_remaining
        if remaining is not None and remaining <= _SMALL:
            self.excerpt()
        if not self._response.closed:
            self._response.close()
        self._response.release_conn()


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
    ) -> None:
        self.emit = emit
        self._pace = pace
        self._environ = environ
        self._retry = retry
        self._retry_delay = retry_delay
        self._sleep = sleep
        self._now = now
        self._lock = threading.Lock()
        self._pools: dict[tuple[Tls | None, str | None], PoolManager] = {}

    def close(self) -> None:
        """No connection stays open."""
        with self._lock:
            pools = list(self._pools.values())
            self._pools.clear()
        for pool in pools:
            pool.clear()

    def retrying(self, action: Callable[[int], T]) -> T:
        """What `action` returns, which is given the attempt's number and tried again after each Transient failure."""
        attempt = 0
        while True:
            try:
                return action(attempt)
            except Transient as failure:
                self.wait(attempt, failure)
            attempt += 1

    def wait(self, attempt: int, failure: Transient) -> None:
        """The time to wait after failed attempt number `attempt` is over; raises its error when it was the last."""
        if attempt >= self._retry:
            raise failure.error from failure
        delay = self._delay(attempt, failure)
        if delay > PATIENCE:
            failure.error.hint = (
                f"the server asks for {delay:.0f} seconds of patience; builda waits {PATIENCE:.0f} at most"
            )
            raise failure.error from failure
        self.emit(Warned(message=f"{failure.error}; trying again in {delay:.1f} s"))
        self._sleep(delay)

    def call(self, request: Request, *, limit: int) -> tuple[Reply, bytes]:
        """The answer with its whole content of at most `limit` bytes, after as many attempts as needed."""

        def attempt(_: int) -> tuple[Reply, bytes]:
            with self.open(request) as reply:
                return reply, reply.data(limit, request.what)

        return self.retrying(attempt)

    def open(self, request: Request) -> Reply:
        """The answer to one attempt, redirects followed; Transient when another attempt may go better."""
        for _ in range(REDIRECT_LIMIT + 1):
            reply = self._send(request)
            if reply.status in failures.PASSING:
                with reply:
                    raise self._passing(reply, request)
            target = _redirected(request, reply)
            if target is None:
                return reply
            reply.close()
            request = target
        raise RegistryError(f"{request.what}: more than {REDIRECT_LIMIT} redirects: {failures.shown(request.url)}")

    def _passing(self, reply: Reply, request: Request) -> Transient:
        error = refused(reply, reply.excerpt(), request)
        return Transient(error, failures.retry_after(reply.headers, self._now()))

    def _delay(self, attempt: int, failure: Transient) -> float:
        if failure.delay is not None:
            return failure.delay
        if self._retry_delay is not None:
            return self._retry_delay
        import random

        first = 2.0 if failure.error.status == 429 else 0.5
        return first * 2.0**attempt * random.uniform(0.8, 1.2)  # so that parallel jobs do not come back together

    def _send(self, request: Request) -> Reply:
        from urllib3 import Timeout
        from urllib3.exceptions import HTTPError

        body = request.body
        headers = {"User-Agent": "builda", "Accept-Encoding": "identity", **request.headers}
        if request.authorization is not None:
            headers["Authorization"] = request.authorization
        if isinstance(body, Body):
            headers["Content-Length"] = str(body.length)
        try:
            response = self._pool(request).urlopen(
                request.method,
                request.url,
                body=body,
                headers=headers,
                timeout=Timeout(connect=_CONNECT_TIMEOUT, read=request.timeout),
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
            )
        except HTTPError as error:
            raise _failure(error, request) from error
        return Reply(cast("HTTPResponse", response), request)

    def _pool(self, request: Request) -> PoolManager:
        parts = urlsplit(request.url)
        tls = request.trust(parts.netloc.rpartition("@")[2]) if parts.scheme == "https" else None
        key = tls, proxy_for(request.url, self._environ)
        with self._lock:
            if key not in self._pools:
                self._pools[key] = _new_pool(*key)
                keep_pace(self._pools[key], self._pace)
            return self._pools[key]


def refused(reply: Reply, data: bytes, request: Request) -> RegistryError:
    """The error that an answer of 400 or more to `request` means."""
    host = urlsplit(request.url).netloc.rpartition("@")[2] if request.login else None
    return failures.refusal(reply.status, data, what=request.what, host=host, logged_in=reply.had_password)


def same_origin(one: str, other: str) -> bool:
    """Whether two URLs have the same scheme, host and port: what may be told to one may be told to the other."""
    return _origin(one) == _origin(other)


def _origin(url: str) -> tuple[str, str]:
    return urlsplit(url).scheme, failures.address(url)


def _failure(error: HTTPError, request: Request) -> Exception:
    if isinstance(request.body, Body) and request.body.failure is not None:
        return request.body.failure
    return failures.connection_failure(error, request.url)


def _redirected(request: Request, reply: Reply) -> Request | None:
    """The request that a redirect asks for; None when `reply` is none that may be followed."""
    location = reply.headers.get("Location")
    if reply.status not in _REDIRECTS or not location:
        return None
    if request.method not in ("GET", "HEAD") and (reply.status not in (307, 308) or isinstance(request.body, Body)):
        return None
    url = urljoin(request.url, location)
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise RegistryError(f"{request.what}: redirected to something other than HTTP: {failures.shown(url)}")
    if request.url.startswith("https:") and url.startswith("http:") and not _allows_downgrade(request):
        raise RegistryError(
            f"{request.what}: redirected from HTTPS to plain HTTP: {failures.shown(url)}",
            hint="--tls-verify=false allows it",
        )
    authorization = request.authorization if same_origin(request.url, url) else None
    return request._replace(url=url, authorization=authorization)


def _allows_downgrade(request: Request) -> bool:
    return request.may_downgrade or not request.trust(urlsplit(request.url).netloc).verify


def _new_pool(tls: Tls | None, proxy: str | None) -> PoolManager:
    import urllib3

    context = context_for(tls) if tls is not None else None
    if proxy is None:
        pool = urllib3.PoolManager(num_pools=16, maxsize=8, blocksize=PIECE, ssl_context=context)
    else:
        pool = _proxy_pool(proxy, context)
    if tls is not None and not tls.verify:
        pool.pool_classes_by_scheme = {**pool.pool_classes_by_scheme, "https": _unverified_pool_class()}
    return pool


def _proxy_pool(proxy: str, context: object) -> PoolManager:
    from urllib.parse import unquote

    import urllib3

    parts = urlsplit(proxy)
    headers = None
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers = urllib3.make_headers(proxy_basic_auth=pair)
    url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return urllib3.ProxyManager(
        url, num_pools=16, maxsize=8, proxy_headers=headers, blocksize=PIECE, ssl_context=context
    )


def _unverified_pool_class() -> type:
    """Pools whose connections count as verified: the user asked for none of it, and urllib3 would warn each time."""
    from urllib3.connection import HTTPSConnection
    from urllib3.connectionpool import HTTPSConnectionPool

    class Unverified(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            self.is_verified = True

    class UnverifiedPool(HTTPSConnectionPool):
        ConnectionCls = Unverified

    return UnverifiedPool
