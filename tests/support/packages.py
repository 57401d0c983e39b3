"""Package databases and layers made in code, for tests of what is in an image."""

from __future__ import annotations

import io
import sqlite3
import struct
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from builda.contents.facts import Fact, File
from builda.contents.scan import Contents, Layer, scan

APK = b"""C:Q1abc=
P:musl
V:1.2.4-r2
A:x86_64
S:383459
T:the musl c library
U:https://musl.libc.org/
L:MIT
o:musl
m:Timo <t@example.org>
D:scanelf
F:lib
R:ld-musl-x86_64.so.1

P:ssl_client
V:1.36.1-r5
A:x86_64
L:GPL-2.0-only
o:busybox

"""
RPM_TABLE = "CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)"
RPM_TAGS = {"name": 1000, "version": 1001, "release": 1002, "epoch": 1003, "license": 1014, "arch": 1022}


def file(data: bytes, path: str = "file") -> File:
    """A file whose content comes in one piece after the other."""
    stream = io.BytesIO(data)
    return File(path, len(data), stream.read)


def facts(read: Any, data: bytes, path: str = "file") -> list[Fact]:
    """What a reader finds."""
    return list(read(file(data, path)))


def go_program(modules: str, *, version: str = "go1.21.5", before: int = 4096, flags: int = 2) -> bytes:
    """What a program made by Go begins with, and its build information behind `before` bytes."""
    info = b"m" * 16 + modules.encode() + b"n" * 16
    blob = b"\xff Go buildinf:" + bytes([8, flags]) + bytes(16)
    blob += b"".join(_length(len(part)) + part for part in (version.encode(), info))
    return b"\x7fELF" + bytes(before - 4) + blob + bytes(2048)


def _length(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def rpm_header(**values: str | int) -> bytes:
    """A header of rpm with these tags."""
    index, data = b"", b""
    for name, value in values.items():
        kind = 4 if isinstance(value, int) else 6
        data += bytes(-len(data) % 4) if kind == 4 else b""
        index += struct.pack(">IIiI", RPM_TAGS[name], kind, len(data), 1)
        data += struct.pack(">I", value) if isinstance(value, int) else value.encode() + b"\0"
    return struct.pack(">II", len(values), len(data)) + index + data


def rpm_database(directory: Path, *statements: str, headers: Sequence[bytes] = ()) -> bytes:
    """An rpmdb.sqlite with these headers, or with what the statements make."""
    path = directory / "made.sqlite"
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path)
    for statement in statements or (RPM_TABLE,):
        connection.execute(statement)
    if headers:
        connection.executemany("INSERT INTO Packages (blob) VALUES (?)", [(header,) for header in headers])
    connection.commit()
    connection.close()
    return path.read_bytes()


class Link(str):
    """A hard link to this name."""


def tar(files: Mapping[str, bytes | str | Link | None], mode: int = 0o644) -> bytes:
    """A layer: files, symbolic links (text), hard links, and directories (None)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.mode = mode
            if isinstance(content, bytes):
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
                continue
            member.type = tarfile.DIRTYPE if content is None else tarfile.SYMTYPE
            if isinstance(content, Link):
                member.type = tarfile.LNKTYPE
            member.linkname = content or ""
            archive.addfile(member)
    return out.getvalue()


def scanned(*tars: bytes) -> Contents:
    """What these layers show together; they are called 1, 2 and so on."""

    def layer(number: int, data: bytes) -> Layer:
        @contextmanager
        def opened() -> Iterator[io.BytesIO]:
            yield io.BytesIO(data)

        return Layer(str(number), opened)

    return scan(layer(number, data) for number, data in enumerate(tars, 1))


def names(found: Contents) -> list[str]:
    """Names and versions."""
    return [f"{one.package.name} {one.package.version}" for one in found.packages]
