"""Files that the user names: options, variables and configuration. Each is read through `read_input`, up to a limit.

A name may lead anywhere: `/dev/zero` never ends, and opening a pipe that nobody writes to never returns. A pipe
with a writer is read like a file: `--secret id=a,src=<(command)`.
"""

from __future__ import annotations

import os
import stat

from builda.errors import InvalidValue, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LIMIT = 16 << 20
"""Bytes that a file may have that is kept in memory."""
_PATIENCE = 10
"""Seconds to wait for the first process that opens a named pipe for writing."""
_PIECE = 1 << 20


def read_input(path: str | os.PathLike[str], what: str, limit: int = LIMIT) -> bytes:
    """The content of a file, device or pipe; `what` it is goes into errors, as in "source policy".

    InvalidValue for more than `limit` bytes and for a pipe that nobody writes to; OSError as the kernel refuses.
    """
    fd = open_input(path, what)
    try:
        found = bytearray()
        while len(found) <= limit and (piece := os.read(fd, min(_PIECE, limit + 1 - len(found)))):
            found += piece
    except OSError as error:
        error.filename = os.fspath(path)
        raise
    finally:
        os.close(fd)
    if len(found) > limit:
        raise InvalidValue(f"{what} has more bytes than the limit, {limit}: {os.fspath(path)}")
    return bytes(found)


def read_yaml(path: str | os.PathLike[str], what: str, limit: int = LIMIT) -> Any:
    """The value in a YAML file, whose plain values are all texts: the tag 1.10 is not 1.1. None for an empty file.

    InvalidValue for what is no YAML, and for aliases, by which a small file can mean a huge one; Unsupported without
    the package PyYAML.
    """
    try:
        import yaml
    except ImportError as error:
        raise Unsupported("reading YAML needs the package PyYAML", hint="pip install PyYAML") from error

    class Loader(yaml.BaseLoader):  # type: ignore[misc]  # the package ships no types
        """Texts, lists and mappings."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.events.AliasEvent):
                raise InvalidValue(f"YAML aliases are not taken: {path}")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            names: set[str] = set()
            for key, _ in node.value:
                if isinstance(key.value, str) and key.value in names:
                    raise InvalidValue(f"two keys are {key.value!r}: {path}")
                names.add(str(key.value))
            return super().construct_mapping(node, deep)

    data = read_input(path, what, limit)
    try:
        return yaml.load(data, Loader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise InvalidValue(f"file cannot be read as YAML: {path}: {' '.join(str(error).split())}") from error


def rereadable(path: str, what: str) -> str:
    """A path whose file can be read several times: `path`, or for a pipe that of a file in memory with its content.

    The file lasts as long as this process.
    """
    try:
        if not stat.S_ISFIFO(os.stat(path).st_mode):
            return path
    except OSError:  # the caller's open(2) reports it
        return path
    content = read_input(path, what)
    fd = os.memfd_create("builda-input")
    with open(fd, "wb", closefd=False) as file:
        file.write(content)
    return f"/proc/self/fd/{fd}"


def open_input(path: str | os.PathLike[str], what: str) -> int:
    """A descriptor for reading. InvalidValue for a named pipe that nobody opens for writing within 10 seconds."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if stat.S_ISFIFO(os.fstat(fd).st_mode) and not _is_written(fd):
            raise InvalidValue(f"{what} is a pipe that nobody writes to: {os.fspath(path)}")
        os.set_blocking(fd, True)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _is_written(pipe: int) -> bool:
    """Whether a process writes to the pipe, or did: one without a name has had its writer."""
    import select

    if os.readlink(f"/proc/self/fd/{pipe}").startswith("pipe:"):
        return True
    waiting = select.poll()
    waiting.register(pipe, select.POLLIN)
    if waiting.poll(_PATIENCE * 1000):  # data, or the end of what a writer wrote
        return True
    try:
        os.read(pipe, 1)
    except BlockingIOError:  # a writer that has written nothing yet
        return True
    return False
