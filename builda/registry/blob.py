"""A reader of one blob or file that reconnects after a failure and continues at the same offset."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from builda.errors import CorruptContent, RegistryError
from builda.registry.ending import Ending
from builda.registry.failures import Transient
from builda.registry.http import PIECE, Http, Reply
from builda.registry.message import number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_PROGRESS = 64 << 10  # bytes; a lower limit would let a server break off after each byte for ever


class ResumingReader:
    """The bytes from `offset` on, unverified. `size` is the size of the whole blob; None if unknown.

    `connect` asks for the bytes from an offset. A server that ignores the Range sends everything, and what was read
    before is skipped. Attempts are counted anew whenever _PROGRESS bytes have arrived.
    """

    def __init__(
        self,
        http: Http,
        connect: Callable[[int], Reply],
        *,
        what: str,
        offset: int = 0,
        size: int | None = None,
        ending: Ending | None = None,
    ) -> None:
        self._ending = ending
        self._http = http
        self._connect = connect
        self._what = what
        self._position = offset
        self.size = size
        self._attempt = 0
        self._arrived = 0  # since attempts were counted anew
        self._reply: Reply | None = None

    def __enter__(self) -> ResumingReader:
        if self.size is None or self._position < self.size:
            while self._reply is None:
                self._try(self._open)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._drop()

    @property
    def reply(self) -> Reply:
        """The answer that the bytes come from now."""
        assert self._reply is not None, "only a reader at its end has no answer"
        return self._reply

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, b"" at the end; RegistryError when the connection keeps breaking."""
        if size < 0:
            return b"".join(iter(lambda: self.read(PIECE), b""))
        while size:
            data = self._try(lambda: self._read(size))
            if data is not None:
                return data
        return b""

    def _try(self, action: Callable[[], bytes | None]) -> bytes | None:
        """The result of `action`; None, after a pause, if it failed and may be tried again."""
        try:
            data = action()
        except Transient as failure:
            self._drop()
            self._http.wait(self._attempt, failure, self._ending)
            self._attempt += 1
            return None
        if data:
            self._position += len(data)
            self._arrived += len(data)
        if self._arrived >= _PROGRESS:
            self._attempt = self._arrived = 0
        return data

    def _open(self) -> None:
        self._reply = self._positioned(self._connect(self._position))

    def _read(self, size: int) -> bytes:
        if self._reply is None:
            if self.size is not None and self._position >= self.size:
                return b""
            self._open()
        assert self._reply is not None, "it was opened above"
        data = self._reply.read(size)
        if not data and self.size is not None and self._position < self.size:
            raise Transient(RegistryError(f"{self._what}: content ends after {self._position} of {self.size} bytes"))
        if self.size is not None and self._position + len(data) > self.size:
            self._too_long()
        return data

    def _positioned(self, reply: Reply) -> Reply:
        """`reply` with its next byte the one at the position."""
        try:
            start, total = _range_of(reply)
            if start not in (0, self._position):
                raise CorruptContent(f"{self._what}: asked for bytes from {self._position}, and got those from {start}")
            if self.size is not None and total is not None and total != self.size:
                raise CorruptContent(f"{self._what}: has {total} bytes where {self.size} were promised")
            _skip(reply, self._position - start)
        except BaseException:
            reply.close()
            raise
        return reply

    def _too_long(self) -> NoReturn:
        self._drop()
        raise CorruptContent(f"{self._what}: longer than the {self.size} bytes that were promised")

    def _drop(self) -> None:
        if self._reply is not None:
            self._reply.close()
            self._reply = None


def _range_of(reply: Reply) -> tuple[int, int | None]:
    """Where the content of `reply` begins in the whole, and the size of the whole when the headers say it."""
    if reply.status != 206:
        return 0, reply.length
    unit, _, text = reply.headers.get("Content-Range", "").strip().partition(" ")
    span, _, total = text.partition("/")
    start = span.partition("-")[0].strip()
    begin = number(start)
    if unit != "bytes" or begin is None:
        said = reply.headers.get("Content-Range", "")[:100]
        raise CorruptContent(f"answer of 206 without a usable Content-Range: {said!r}")
    return begin, number(total)


def _skip(reply: Reply, count: int) -> None:
    while count:
        data = reply.read(min(count, PIECE))
        if not data:
            raise Transient(RegistryError(f"content ends {count} bytes before the place to go on from"))
        count -= len(data)
