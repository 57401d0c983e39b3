"""RPM packages: the SQLite database of rpm 4.16 and later, whose rows are headers (rpm's docs, "Package format").

SQLite reads the file from a copy in a temporary directory, which it cannot change. The file may lie about everything:
no view, trigger or function of it is used, the steps of SQLite are counted, and each length is checked.
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

from builda.contents.facts import Fact, File, Flaw, Package, text
from builda.errors import CorruptContent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


NAME, VERSION, RELEASE, EPOCH, VENDOR, LICENSE, URL, ARCH, SOURCE_RPM = (
    1000,
    1001,
    1002,
    1003,
    1011,
    1014,
    1020,
    1022,
    1044,
)
_WANTED = frozenset({NAME, VERSION, RELEASE, EPOCH, VENDOR, LICENSE, URL, ARCH, SOURCE_RPM})
_INT32, _STRING, _STRING_ARRAY, _I18N = 4, 6, 8, 9
_DATABASE = 512 << 20
"""Bytes of a database; that of a whole desktop has a third of it."""
_ENTRIES = 1 << 16
_HEADER = 64 << 20
"""Bytes of one package's header."""
_ROWS = 200_000
_STEPS = 2_000
"""How often SQLite may have done a hundred thousand steps of its machine."""
_BERKELEY = (b"\x61\x15\x06\x00", b"\x00\x06\x15\x61", b"\x62\x31\x05\x00", b"\x00\x05\x31\x62")
"""Magic numbers of hash and B-tree files, at byte 12, in both orders."""


def database(file: File) -> Iterator[Fact]:
    """The packages of an rpmdb.sqlite."""
    if file.size > _DATABASE:
        raise CorruptContent(f"has {file.size} bytes, more than the limit of {_DATABASE}")
    with tempfile.TemporaryDirectory(prefix="builda-") as directory:
        copy = Path(directory, "rpmdb.sqlite")
        with copy.open("wb") as out:
            for piece in file.pieces():
                out.write(piece)
        yield from _packages(copy)


def log(file: File) -> Iterator[Fact]:
    """The write-ahead log of a database: what is in it only is not read."""
    if file.size:
        yield Flaw("is a log of changes to the rpm database; packages that only it has are missing")


def other(file: File) -> Iterator[Fact]:
    """A database of a kind that is not read."""
    head = next(file.pieces(), b"")
    if head[12:16] in _BERKELEY:
        kind = "a Berkeley DB"
    elif head[:4] == b"RpmP":
        kind = "an ndb"
    else:
        return
    yield Flaw(f"is {kind} file, and only SQLite databases of rpm are read; its packages are missing")


def _packages(path: Path) -> Iterator[Fact]:
    import sqlite3

    uri = f"file:{os.fspath(path)}?mode=ro&immutable=1"
    try:
        connection = sqlite3.connect(uri, uri=True)
        try:
            _fence(connection)
            tables = connection.execute("SELECT type FROM sqlite_master WHERE name = 'Packages'").fetchall()
            if tables != [("table",)]:
                raise CorruptContent("has no table of packages")
            rows = connection.execute("SELECT hnum, blob FROM Packages ORDER BY hnum")
            for count, (number, blob) in enumerate(rows):
                if count == _ROWS:
                    raise CorruptContent(f"has more than {_ROWS} packages; the others were not read")
                yield from _package(number, blob)
        finally:
            connection.close()
    except (sqlite3.Error, OverflowError, MemoryError) as error:
        raise CorruptContent(f"is not a database that SQLite can read: {text(str(error))}") from error


def _fence(connection: Any) -> None:
    """Allow the two queries and nothing else, for so many steps."""
    import sqlite3

    left = _STEPS

    def count() -> int:
        nonlocal left
        left -= 1
        return left < 0

    def authorize(action: int, one: str | None, *_: object) -> int:
        reads = action == sqlite3.SQLITE_READ and str(one).lower() in ("packages", "sqlite_master")
        return sqlite3.SQLITE_OK if reads or action == sqlite3.SQLITE_SELECT else sqlite3.SQLITE_DENY

    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _HEADER)
    connection.set_progress_handler(count, 100_000)
    connection.set_authorizer(authorize)


def _package(number: object, blob: object) -> Iterator[Fact]:
    try:
        values = header(blob if isinstance(blob, bytes) else b"")
    except CorruptContent as error:
        yield Flaw(f"has a row that is not a header, {error}: row {text(str(number))}")
        return
    name, version = values.get(NAME, ""), values.get(VERSION, "")
    if not name or not version:
        yield Flaw(f"has a package without a name or version: row {text(str(number))}")
        return
    if name == "gpg-pubkey":  # a key for signatures of packages, kept among them
        return
    release = values.get(RELEASE, "")
    said = (("arch", ARCH), ("epoch", EPOCH), ("upstream", SOURCE_RPM))
    yield Package(
        "rpm",
        name,
        f"{version}-{release}" if release else version,
        qualifiers=tuple((key, values[tag]) for key, tag in said if values.get(tag)),
        licences=(values[LICENSE],) if values.get(LICENSE) else (),
        supplier=values.get(VENDOR, ""),
        homepage=values.get(URL, ""),
    )


def header(data: bytes) -> dict[int, str]:
    """The values of the tags that are wanted in a header; CorruptContent for lengths that do not fit."""
    if len(data) < 8:
        raise CorruptContent("it is cut off")
    entries, size = struct.unpack_from(">II", data)
    start = 8 + 16 * entries
    if entries > _ENTRIES or start + size > len(data):
        raise CorruptContent("it is shorter than its header says")
    found: dict[int, str] = {}
    for index in range(entries):
        tag, kind, offset, count = struct.unpack_from(">IIiI", data, 8 + 16 * index)
        if tag not in _WANTED or not count:
            continue
        if not 0 <= offset < size:
            raise CorruptContent(f"its tag {tag} lies outside")
        if kind == _INT32 and offset + 4 <= size:
            found[tag] = str(struct.unpack_from(">I", data, start + offset)[0])
        elif kind in (_STRING, _STRING_ARRAY, _I18N):
            end = data.find(b"\0", start + offset, start + size)
            if end < 0:
                raise CorruptContent(f"its tag {tag} does not end")
            found[tag] = text(data[start + offset : end])
    return {tag: value for tag, value in found.items() if value != "(none)"}
