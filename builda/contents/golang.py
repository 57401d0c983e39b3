"""Programs made by Go: the build information that Go 1.18 and later put into them (Go's package debug/buildinfo).

It begins with a magic text at a multiple of 16 bytes, with a byte of flags at 15 and two strings, each behind its
length, at 32: the version of Go, and the lines about modules between two marks of 16 bytes. It is looked for in the
bytes as they stream by. Programs of an older Go have addresses there instead, which lead to what streamed by before.
"""

from __future__ import annotations

from collections.abc import Iterator

from builda.contents.facts import Fact, File, Flaw, Package, text

ELF = b"\x7fELF"
MAGIC = b"\xff Go buildinf:"
_ALIGNED, _START = 16, 32
_INLINE = 2
_LIMIT = 4 << 20
"""Bytes of the information about modules."""
_MARK = 16
_MOST = 20_000


def program(file: File) -> Iterator[Fact]:
    """The modules in a program, and Go's standard library; nothing for what is no program of Go."""
    pieces = file.pieces()
    window = b""
    while len(window) < len(ELF) and (piece := next(pieces, b"")):
        window += piece
    if not window.startswith(ELF):
        return
    start, searched = 0, 0  # the place of the window in the file; of what was searched in the window
    while True:
        at = _magic(window, start, searched)
        if at is not None:
            window, start, searched = window[at:], start + at, 1
            while len(window) < _START + _LIMIT and (piece := next(pieces, b"")):
                window += piece
                if _complete(window):
                    break
            facts = tuple(_facts(window))
            if facts:
                yield from facts
                return
            continue
        keep = len(MAGIC) - 1
        piece = next(pieces, b"")
        if not piece:
            return
        cut = max(len(window) - keep, 0)
        window, start, searched = window[cut:] + piece, start + cut, 0


def _magic(window: bytes, start: int, searched: int) -> int | None:
    """The offset of the magic in the window, at a multiple of 16 in the file."""
    at = window.find(MAGIC, searched)
    while at >= 0 and (start + at) % _ALIGNED:
        at = window.find(MAGIC, at + 1)
    return at if at >= 0 else None


def _complete(data: bytes) -> bool:
    """Whether both strings are there, or cannot be."""
    if len(data) < _START or not data[15] & _INLINE:
        return len(data) >= _START
    first = _string(data, _START)
    return first is not None and _string(data, first[1]) is not None


def _string(data: bytes, at: int) -> tuple[bytes, int] | None:
    """The string behind its length in base 128, and where it ends; None if it is cut off or too long."""
    length = shift = 0
    while at < len(data) and shift < 35:
        byte = data[at]
        length |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return (data[at : at + length], at + length) if length <= _LIMIT and at + length <= len(data) else None
        shift += 7
    return None


def _facts(data: bytes) -> Iterator[Fact]:
    """The facts in the build information that `data` begins with; none if it does not."""
    if len(data) < _START:
        return
    if not data[15] & _INLINE:
        if data[14] in (4, 8) and data[15] < 2:
            yield Flaw("is a program of a Go before 1.18; its modules are not known")
        return
    version = _string(data, _START)
    modules = None if version is None else _string(data, version[1])
    if version is None or modules is None or not version[0].startswith((b"go", b"devel")):
        return
    yield Package("golang", "stdlib", text(version[0].split()[0]).removeprefix("go"), licences=("BSD-3-Clause",))
    yield from _modules(modules[0][_MARK:-_MARK])


def _modules(data: bytes) -> Iterator[Fact]:
    found: list[tuple[str, str]] = []
    for line in data.split(b"\n")[:_MOST]:
        words = line.split(b"\t")
        if words[0] in (b"mod", b"dep") and len(words) >= 3:
            found.append((text(words[1]), text(words[2])))
        elif words[0] == b"=>" and len(words) >= 3 and found:
            found[-1] = (text(words[1]), text(words[2]))  # what the module before was replaced by
    for path, version in found:
        namespace, _, name = path.rpartition("/")
        if name:
            yield Package("golang", name, version, namespace)
