"""HTTP/1.1 messages (RFC 9112) as a client reads and writes them.

The standard library's http.client takes 20 ms to import, mostly for its parser of e-mail: longer than a push to a
registry that has everything already. An answer that can be understood in two ways is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from builda.errors import InvalidValue
from builda.registry.pace import Paced
from builda.values import Protocol

LINE_LIMIT = 64 << 10
HEADER_LIMIT = 256
"""Lines of one header."""

_INTERIM_LIMIT = 16  # answers of 1xx before the answer
_RECEIVE = 256 << 10
_NO_CONTENT = (204, 304)


class NotHttp(OSError):
    """The server's answer is not HTTP, or is ambiguous."""


class CutShort(OSError):
    """The connection ended within an answer."""


class NoAnswer(OSError):
    """The connection ended before the first byte of an answer."""


class Headers(Mapping[str, str]):
    """The fields of a header. Names are compared without case; repeated values are joined by commas."""

    def __init__(self, fields: tuple[tuple[str, str], ...]) -> None:
        self._fields = fields

    def __getitem__(self, name: str) -> str:
        values = self.all(name)
        if not values:
            raise KeyError(name)
        return ", ".join(values)

    def __iter__(self) -> Iterator[str]:
        return iter({name.lower(): name for name, _ in self._fields}.values())

    def __len__(self) -> int:
        return len({name.lower() for name, _ in self._fields})

    def all(self, name: str) -> tuple[str, ...]:
        """Each value of a field, in the server's order."""
        wanted = name.lower()
        return tuple(value for key, value in self._fields if key.lower() == wanted)


class Incoming:
    """Bytes from the server, by lines or by pieces; `buffered` bytes were received and not read yet."""

    def __init__(self, paced: Paced, has_more: Callable[[], bool] = lambda: False) -> None:
        self._paced = paced
        self._has_more = has_more
        self._data = b""
        self._read = 0  # of the data

    @property
    def buffered(self) -> int:
        """The number of bytes that were received and not read yet."""
        return len(self._data) - self._read

    @property
    def has_more(self) -> bool:
        """Whether `some` would return at once."""
        return bool(self.buffered) or self._has_more()

    def begin(self) -> None:
        """Expect a new answer."""
        self._paced.begin()

    def some(self, size: int) -> bytes:
        """At least one byte and at most `size`; b"" when the server has ended the connection."""
        if not self.buffered:
            return self._paced.recv(min(size, _RECEIVE))
        start, self._read = self._read, min(self._read + size, len(self._data))
        return self._data[start : self._read]

    def line(self) -> str:
        """The next line without its end; NotHttp when it is too long, CutShort when the server ends it early."""
        while (end := self._data.find(b"\n", self._read)) < 0:
            if self.buffered > LINE_LIMIT:
                raise NotHttp(f"a line of its header is longer than {LINE_LIMIT} bytes")
            data = self._paced.recv(LINE_LIMIT)
            if not data:
                raise CutShort("the server closed the connection")
            self._data, self._read = self._data[self._read :] + data, 0
        start, self._read = self._read, end + 1
        return _text(self._data[start:end].removesuffix(b"\r"))


class Framing(Protocol):
    """Reads the content of an answer up to its end."""

    def some(self, size: int) -> bytes:
        """The next bytes, at most `size`; b"" at the end of the content."""

    @property
    def left(self) -> int | None:
        """The number of bytes still to come; None if unknown."""


class Counted:
    """Content of a known length."""

    def __init__(self, incoming: Incoming, length: int) -> None:
        self._incoming = incoming
        self._left = length

    @property
    def left(self) -> int | None:
        """The number of bytes still to come."""
        return self._left

    def some(self, size: int) -> bytes:
        """The next bytes, at most `size`; b"" at the end of the content."""
        if not self._left:
            return b""
        data = self._incoming.some(min(size, self._left))
        if not data:
            raise CutShort(f"{self._left} bytes are missing")
        self._left -= len(data)
        return data


class Chunked:
    """Content in chunks, each with its length before it; a trailer is read and means nothing."""

    def __init__(self, incoming: Incoming) -> None:
        self._incoming = incoming
        self._chunk: Counted | None = None
        self._ended = False

    @property
    def left(self) -> int | None:
        """0 at the end."""
        return 0 if self._ended else None

    def some(self, size: int) -> bytes:
        """The next bytes, at most `size`; b"" at the end of the content."""
        if self._ended:
            return b""
        if self._chunk is None:
            self._chunk = Counted(self._incoming, self._length())
            if not self._chunk.left:
                _fields(self._incoming)
                self._ended = True
                return b""
        data = self._chunk.some(size)
        if not self._chunk.left:
            if self._incoming.line():
                raise NotHttp("a chunk is longer than announced")
            self._chunk = None
        return data

    def _length(self) -> int:
        text = self._incoming.line().partition(";")[0].strip(" \t")
        if not text or len(text) > 15 or text.strip("0123456789abcdefABCDEF"):
            raise NotHttp(f"a chunk has no usable length: {text[:40]!r}")
        return int(text, 16)


class UntilClosed:
    """Content that ends with the connection."""

    def __init__(self, incoming: Incoming) -> None:
        self._incoming = incoming

    @property
    def left(self) -> int | None:
        """None, as the length is unknown."""
        return None

    def some(self, size: int) -> bytes:
        """The next bytes, at most `size`; b"" at the end of the content."""
        return self._incoming.some(size)


class Answer:
    """The header of an answer, and its content as it arrives."""

    def __init__(self, status: int, headers: Headers, framing: Framing, incoming: Incoming, *, keeps: bool) -> None:
        self.status = status
        self.headers = headers
        self.keeps = keeps
        """Whether the connection may carry another request after this answer."""
        self._framing = framing
        self._incoming = incoming
        self._failure: OSError | None = None

    @property
    def left(self) -> int | None:
        """The number of bytes of content still to come; None if unknown."""
        return self._framing.left

    def read(self, size: int) -> bytes:
        """The next bytes, b"" at the end: what is there by now, at least one byte, at most `size`.

        What arrived before a failure is returned before the failure is raised.
        """
        if self._failure is not None:
            raise self._failure
        data = self._framing.some(size)
        if not data or len(data) == size:
            return data
        pieces, count = [data], len(data)
        while count < size and self._incoming.has_more:
            try:
                data = self._framing.some(size - count)
            except OSError as error:
                self._failure = error
                break
            if not data:
                break
            pieces.append(data)
            count += len(data)
        return b"".join(pieces)


def number(text: str) -> int | None:
    """The number in a header; None if it is not decimal or has more than 18 digits."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None


def request_head(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    """The beginning of a request; InvalidValue if a value would become a header of its own."""
    for name, value in headers.items():
        if any(c in value for c in "\r\n\0"):
            raise InvalidValue(f"header has a line break in its value: {name}")
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode()


def read_answer(incoming: Incoming, method: str) -> Answer:
    """The answer to a request. NoAnswer, NotHttp, CutShort or TimeoutError if no valid answer arrives."""
    incoming.begin()
    for _ in range(_INTERIM_LIMIT):
        version, status = _status_line(incoming)
        headers = Headers(_fields(incoming))
        if status >= 200:
            break
    else:
        raise NotHttp(f"more than {_INTERIM_LIMIT} interim answers")
    framing, known = _framing(incoming, method, status, headers)
    options = [option.strip().lower() for option in headers.get("Connection", "").split(",")]
    keeps = known and "close" not in options and (version != "HTTP/1.0" or "keep-alive" in options)
    return Answer(status, headers, framing, incoming, keeps=keeps)


def _status_line(incoming: Incoming) -> tuple[str, int]:
    first = not incoming.buffered
    try:
        line = incoming.line()
    except CutShort:
        if first and not incoming.buffered:
            raise NoAnswer("the server closed the connection without an answer") from None
        raise
    version, _, rest = line.partition(" ")
    code = rest[:3]
    if (
        not version.startswith("HTTP/1.")
        or len(code) != 3
        or not (code.isascii() and code.isdecimal())
        or rest[3:4].strip(" ")
    ):
        raise NotHttp(f"it begins with {line[:60]!r}")
    return version, int(code)


def _fields(incoming: Incoming) -> tuple[tuple[str, str], ...]:
    """The fields up to the empty line; a line that begins with a blank goes on with the one before."""
    fields: list[tuple[str, str]] = []
    count = 0
    while line := incoming.line():
        count += 1
        if count > HEADER_LIMIT:
            raise NotHttp(f"its header has more than {HEADER_LIMIT} lines")
        if line[0] in " \t" and fields:
            fields[-1] = fields[-1][0], f"{fields[-1][1]} {line.strip()}"
            continue
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise NotHttp(f"its header has a line that is no field: {line[:60]!r}")
        fields.append((name, value.strip(" \t")))
    return tuple(fields)


def _framing(incoming: Incoming, method: str, status: int, headers: Headers) -> tuple[Framing, bool]:
    """The framing of the content, and whether the connection can be used after it (RFC 9112, 6.3)."""
    coding = headers.get("Transfer-Encoding")
    lengths = {text.strip() for text in headers.get("Content-Length", "").split(",")} - {""}
    if method == "HEAD" or status in _NO_CONTENT or (method == "CONNECT" and status < 300):
        return Counted(incoming, 0), True
    if coding is not None:
        if coding.strip().lower() != "chunked":
            raise NotHttp(f"its transfer coding is unknown: {coding[:60]!r}")
        return Chunked(incoming), not lengths  # both: some server on the way may have taken the other one
    if not lengths:
        return UntilClosed(incoming), False
    length = number(lengths.pop())
    if lengths or length is None:
        raise NotHttp(f"its length is not a number: {headers['Content-Length'][:60]!r}")
    return Counted(incoming, length), True


def _text(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("latin-1")
