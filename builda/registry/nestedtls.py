"""TLS inside a TLS connection: a tunnel through a proxy that is itself spoken to over TLS.

`SSLContext.wrap_socket` encrypts only what goes over a plain socket.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_PIECE = 64 << 10


class NestedTls:
    """The methods of a socket that HTTP needs. The constructor does the handshake; `close` closes `outer`."""

    def __init__(self, outer: ssl.SSLSocket, context: ssl.SSLContext, host: str) -> None:
        self._outer = outer
        self._received = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._received, self._outgoing, server_hostname=host)
        self._run(self._tls.do_handshake)

    def recv(self, size: int, /) -> bytes:
        """The next bytes, at most `size`; b"" at the end."""
        try:
            return self._run(lambda: self._tls.read(size))
        except ssl.SSLZeroReturnError:
            return b""

    def sendall(self, data: bytes, /) -> None:
        """Send all of `data`."""
        with memoryview(data) as view:
            for start in range(0, len(view), _PIECE):
                piece = view[start : start + _PIECE]
                self._run(lambda piece=piece: self._tls.write(piece))  # type: ignore[misc]  # a default of a lambda

    def settimeout(self, seconds: float, /) -> None:
        """Set the timeout in seconds of later calls."""
        self._outer.settimeout(seconds)

    def pending(self) -> int:
        """The number of bytes that were received and not read yet."""
        return self._tls.pending() or self._received.pending or self._outer.pending()

    def fileno(self) -> int:
        """The outer socket's descriptor."""
        return self._outer.fileno()

    def close(self) -> None:
        """Close the outer socket."""
        self._outer.close()

    def _run(self, action: Callable[[], T]) -> T:
        """Do `action`, and move between the two connections what it needs."""
        while True:
            try:
                result = action()
            except ssl.SSLWantReadError:
                self._flush()
                data = self._outer.recv(_PIECE)
                if data:
                    self._received.write(data)
                else:
                    self._received.write_eof()
            else:
                self._flush()
                return result

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._outer.sendall(self._outgoing.read())
