"""`exec` of the stand-in for a Kubernetes API: a WebSocket whose messages go to and from a command in a pod (RFC 6455).

The first byte of a message is its channel: 0 standard input, 1 output, 2 errors, 3 how the command ended.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import IO

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_BINARY, _CLOSE = 2, 8


def accept(handler: BaseHTTPRequestHandler) -> None:
    """Answer the request for an upgrade."""
    offered = [one.strip() for one in handler.headers.get("Sec-WebSocket-Protocol", "").split(",")]
    key = hashlib.sha1((handler.headers["Sec-WebSocket-Key"] + _MAGIC).encode()).digest()
    handler.send_response(101)
    handler.send_header("Upgrade", "websocket")
    handler.send_header("Connection", "Upgrade")
    handler.send_header("Sec-WebSocket-Accept", base64.b64encode(key).decode())
    handler.send_header("Sec-WebSocket-Protocol", next(one for one in PROTOCOLS if one in offered))
    handler.end_headers()
    handler.close_connection = True


def serve(handler: BaseHTTPRequestHandler, command: Sequence[str], *, cut_after: int | None = None) -> None:
    """Run `command` with what the client sends as its input; after `cut_after` bytes of it the connection breaks."""
    accept(handler)
    lock = threading.Lock()

    def send(channel: int, data: bytes) -> None:
        with lock:
            _write(handler.wfile, _BINARY, bytes([channel]) + data)

    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    feeding = threading.Thread(target=_feed, args=(handler, process, cut_after), daemon=True)
    feeding.start()
    readers = [
        threading.Thread(target=_relay, args=(stream, channel, send), daemon=True)
        for channel, stream in ((1, process.stdout), (2, process.stderr))
    ]
    for thread in readers:
        thread.start()
    status = process.wait()
    for thread in readers:
        thread.join()
    with suppress(OSError):
        send(3, json.dumps(_ended(status)).encode())
        with lock:
            _write(handler.wfile, _CLOSE, struct.pack(">H", 1000))
    with suppress(OSError):
        handler.connection.shutdown(socket.SHUT_RDWR)
    feeding.join()


def in_container(podsim: int, state: Path, command: Sequence[str]) -> list[str]:
    """The command line that runs `command` in the container of the podsim process with this id."""
    place = Path(f"/proc/{podsim}/root{state}")
    (directory,) = (one for one in place.glob("pod-*/m/state") if any(one.iterdir()))
    (identity,) = (one.name for one in directory.iterdir())
    inside = f"/{directory.relative_to(f'/proc/{podsim}/root')}"
    runtime = shutil.which("runc") or shutil.which("crun") or "runc"
    return ["nsenter", "-t", str(podsim), "-m", "--", runtime, "--root", inside, "exec", identity, *command]


def _ended(status: int) -> dict[str, object]:
    if status == 0:
        return {"metadata": {}, "status": "Success"}
    cause = {"reason": "ExitCode", "message": str(status)}
    message = f"command terminated with non-zero exit code: exit status {status}"
    return {"status": "Failure", "reason": "NonZeroExitCode", "message": message, "details": {"causes": [cause]}}


def _relay(stream: IO[bytes], channel: int, send: object) -> None:
    assert callable(send)
    with stream, suppress(OSError):
        while data := os.read(stream.fileno(), 1 << 15):
            send(channel, data)


def _feed(handler: BaseHTTPRequestHandler, process: subprocess.Popen[bytes], cut_after: int | None) -> None:
    assert process.stdin is not None
    taken = 0
    with suppress(OSError, EOFError), process.stdin:
        while True:
            opcode, data = _read(handler.rfile)  # type: ignore[arg-type]  # a socket's file
            if opcode == _CLOSE:
                break
            taken += len(data)
            if cut_after is not None and taken > cut_after:
                handler.connection.shutdown(socket.SHUT_RDWR)
                break
            if data[:1] == b"\0":
                process.stdin.write(data[1:])
                process.stdin.flush()


def _write(stream: object, opcode: int, data: bytes) -> None:
    size = len(data)
    length = (
        bytes([size])
        if size < 126
        else struct.pack(">BH", 126, size)
        if size < 1 << 16
        else struct.pack(">BQ", 127, size)
    )
    stream.write(bytes([0x80 | opcode]) + length + data)  # type: ignore[attr-defined]  # a socket's file
    stream.flush()  # type: ignore[attr-defined]


def _read(stream: IO[bytes]) -> tuple[int, bytes]:
    first, second = _exactly(stream, 2)
    size = second & 0x7F
    if size == 126:
        (size,) = struct.unpack(">H", _exactly(stream, 2))
    elif size == 127:
        (size,) = struct.unpack(">Q", _exactly(stream, 8))
    mask = _exactly(stream, 4)
    data = _exactly(stream, size)
    full = (mask * (size // 4 + 1))[:size]
    clear = int.from_bytes(data, "big") ^ int.from_bytes(full, "big")
    return first & 0x0F, clear.to_bytes(size, "big")


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError
    return data
