"""How a program starts through the loader of its own image: from the first bytes of a file to an argument vector.

The kernel would take the loader that an ELF file names, and the interpreter of a script, from the pod's root directory.
"""

from __future__ import annotations

import errno
import struct

from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

HEAD = 4096
"""Bytes of a file that `parse` needs."""
_SCRIPT_LINE = 256  # BINPRM_BUF_SIZE
_PT_INTERP = 3
_PATH_MAX = 4096
_NAME = b"--argv0"
_MACHINES = {"x86_64": 62, "aarch64": 183}  # e_machine


class Static(NamedTuple):
    """A program that needs no loader."""


class Dynamic(NamedTuple):
    """A program that the loader at this path starts."""

    loader: bytes


class Script(NamedTuple):
    """A script: its interpreter, and the argument that its first line gives to it."""

    interpreter: bytes
    argument: bytes | None


class Foreign(NamedTuple):
    """A program for another architecture, such as a 32-bit one."""


def parse(
    head: bytes, machine: str, more: Callable[[int, int], bytes] | None = None
) -> Static | Dynamic | Script | Foreign:
    """What the first HEAD bytes of an executable say; ENOEXEC if the kernel could not execute it.

    `more` reads (size, offset) of the file, for what lies behind them: patchelf puts the loader's name at the end.
    """

    def part(size: int, at: int) -> bytes:
        return head[at : at + size] if at + size <= len(head) or more is None else more(size, at)

    if head[:2] == b"#!":
        return _script(head)
    if head[:4] != b"\x7fELF" or len(head) < 64:
        raise OSError(errno.ENOEXEC, "execve")
    if head[4] != 2 or head[5] != 1 or struct.unpack_from("<H", head, 18)[0] != _MACHINES[machine]:
        return Foreign()
    (offset,) = struct.unpack_from("<Q", head, 32)
    size, count = struct.unpack_from("<HH", head, 54)
    for at in range(offset, offset + size * count, size or 1):
        row = part(56, at)
        if len(row) < 56:
            break
        (kind,) = struct.unpack_from("<I", row)
        if kind == _PT_INTERP:
            start, length = struct.unpack_from("<Q16xQ", row, 8)
            if not 2 <= length <= _PATH_MAX:
                raise OSError(errno.ENOEXEC, "execve")
            name = part(length, start)
            path = name.rstrip(b"\0")
            if not path or len(name) < length:
                raise OSError(errno.ENOEXEC, "execve")
            return Dynamic(path)
    return Static()


def _script(head: bytes) -> Script:
    """The first line of a script. Blanks and tabs, and nothing else, end its words; a null byte ends it as well."""
    line, newline, _ = head[2:_SCRIPT_LINE].partition(b"\n")
    line = line.strip(b" \t")
    ends = [at for at in map(line.find, (b" ", b"\t", b"\0")) if at >= 0]
    if not newline and len(head) >= _SCRIPT_LINE and not ends:  # the name may be longer
        raise OSError(errno.ENOEXEC, "execve")
    end = min(ends, default=len(line))
    if not end:
        raise OSError(errno.ENOEXEC, "execve")
    argument = line[end:].lstrip(b" \t").partition(b"\0")[0]
    return Script(line[:end], argument or None)


class Vector(NamedTuple):
    """An argument vector: new words, and then the caller's own from number `rest` on."""

    first: tuple[bytes, ...]
    rest: int


def through_script(vector: Vector, script: Script, path: bytes) -> Vector:
    """The vector for the interpreter of the script at `path`."""
    argument = () if script.argument is None else (script.argument,)
    return Vector((script.interpreter, *argument, path, *vector.first[1:]), max(vector.rest, 1))


def through_loader(vector: Vector, loader: bytes, path: bytes, *, name: bytes | None) -> Vector:
    """The vector for a loader that starts the program at `path`; `name` is what the program sees as argv[0].

    None for `name` if the loader cannot be told (glibc before 2.33): then the program sees `path`.
    """
    words = (loader, path) if name is None else (loader, _NAME, name, path)
    return Vector((*words, *vector.first[1:]), max(vector.rest, 1))


def own_arguments(arguments: bytes, loader: bytes) -> bytes:
    """What /proc/PID/cmdline says without the words by which `through_loader` had the program started."""
    words = arguments.split(b"\0")
    if not loader or words[0] != loader:
        return arguments
    return b"\0".join([words[2], *words[4:]] if words[1:2] == [_NAME] and len(words) > 4 else words[1:])
