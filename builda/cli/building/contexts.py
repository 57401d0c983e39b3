"""Opens the context arguments of `build`: directories, repositories, URLs, standard input, images."""

from __future__ import annotations

import os
import sys

from builda.errors import InvalidValue, NotFound
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import ExitStack
    from pathlib import Path

    from builda.builder.builder import Builder
    from builda.builder.copy.buildcontexts import Fetched
    from builda.builder.imageoptions import RegistryAccess
    from builda.builder.locking import Pins

STDIN = "<stdin>"
_IMAGES = ("docker://", "docker-image://", "container-image://")
LAYOUT = "oci-layout://"


class ContextAt(NamedTuple):
    """A context that is fetched for a caller on another machine, and files of that machine by the names of -f."""

    where: str
    files: Mapping[str, bytes]


class BuildContext(NamedTuple):
    """A context, the Containerfiles with the names that errors give them, and its ignore file.

    `fetched`: it is not this machine's own, and errors name places relative to it.
    """

    directory: Path | str
    files: tuple[tuple[str, bytes], ...]
    ignore_file: str | None
    fetched: bool = False


def open_context(
    builder: Builder,
    where: str | None,
    files: tuple[str, ...],
    ignore_file: str | None,
    access: RegistryAccess,
    stack: ExitStack,
    pins: Pins | None = None,
    callers: Mapping[str, bytes] | None = None,
) -> BuildContext:
    """The context that `where` means (default: the current directory); what is fetched is gone when `stack` ends.

    A context behind a URL or in a repository is the one that `pins` name. Files that it lacks are taken from
    `callers` (None: from this machine).
    """
    where = where or "."
    if where == "-":
        if "-" in files:
            raise InvalidValue("standard input cannot be the context and the Containerfile", hint="name one of them")
        from builda.builder.copy.buildcontexts import read_context

        return _of_fetched(read_context(builder.context, sys.stdin.buffer, stack, _limit()), STDIN, files, ignore_file)
    if is_fetched(where):
        from builda.builder.copy.buildcontexts import fetch_context

        fetched = fetch_context(builder.context, where, access, stack, _limit(), pins)
        return _of_fetched(fetched, where, files, ignore_file, callers)
    return _of_directory(where, files, ignore_file)


def is_fetched(where: str | None) -> bool:
    """Whether a context is no directory of this machine: behind a URL, in a repository, or on standard input."""
    if where is None or not _may_be_remote(where):
        return where == "-"
    from builda.builder.copy.buildcontexts import is_remote

    return is_remote(where)


def named_context(item: str) -> tuple[str, str]:
    """Name and value of one --build-context; InvalidValue if it lacks either."""
    name, equals, value = item.partition("=")
    if not equals or not name or not value:
        raise InvalidValue(f"build context is written NAME=DIR: {item}")
    return name, value


class NamedContexts(NamedTuple):
    """The named contexts that are directories, and those that stand for images."""

    directories: dict[str, Path | str]
    images: dict[str, str]


def open_named(
    builder: Builder, items: tuple[str, ...], access: RegistryAccess, stack: ExitStack, pins: Pins | None = None
) -> NamedContexts:
    """Open the contexts of `NAME=VALUE` items. Fetches what `pins` name; it is removed when `stack` ends."""
    named: dict[str, Path | str] = {}
    images: dict[str, str] = {}
    for item in items:
        name, value = named_context(item)
        prefix = next((prefix for prefix in _IMAGES if value.startswith(prefix)), None)
        if prefix is not None:
            images[name] = value.removeprefix(prefix)
        elif value.startswith(LAYOUT):
            check_directory(name, value.removeprefix(LAYOUT).partition(":")[0])
            images[name] = _layout_image(value.removeprefix(LAYOUT))
        else:
            named[name] = _named_directory(builder, name, value, access, stack, pins)
    return NamedContexts(named, images)


def _named_directory(
    builder: Builder, name: str, value: str, access: RegistryAccess, stack: ExitStack, pins: Pins | None
) -> Path | str:
    if _may_be_remote(value):
        from builda.builder.copy.buildcontexts import fetch_context, is_remote

        if is_remote(value):
            return fetch_context(builder.context, value, access, stack, _limit(), pins).directory
    check_directory(name, value)
    return value


def is_image(value: str) -> bool:
    """Whether the value of a named context means an image."""
    return value.startswith(_IMAGES)


def check_directory(name: str, value: str) -> None:
    """NotFound if the directory of a named context is not there, InvalidValue if it is a URL."""
    if "://" in value:
        raise InvalidValue(
            f"unknown kind of build context {name}: {value}",
            hint=f"there are directories, git and http URLs, {LAYOUT}, {', '.join(_IMAGES)}",
        )
    if not os.path.isdir(value):
        raise NotFound(f"no such file or directory for the build context {name}: {value}")


def _layout_image(text: str) -> str:
    """An image of a layout by the transport that `from` knows: `oci:PATH[:tag|@digest]`."""
    return f"oci:{text}"


def _may_be_remote(text: str) -> bool:
    """Whether it is worth the import that tells."""
    return ":" in text or text.startswith("github.com/")


def _limit() -> int:
    from builda.containerfile import SIZE_LIMIT

    return SIZE_LIMIT


def own_file(name: str) -> bytes | None:
    """The Containerfile of this machine that -f means, `-` being standard input; None if there is none."""
    if name == "-" or os.path.isfile(name):
        return _read(os.path.dirname(name) or ".", name)
    return None


def _of_fetched(
    fetched: Fetched,
    what: str,
    files: tuple[str, ...],
    ignore_file: str | None,
    callers: Mapping[str, bytes] | None = None,
) -> BuildContext:
    from builda.containerfile import find_ignore_file

    directory = fetched.directory
    if fetched.containerfile is not None:
        if files:
            raise InvalidValue(f"context is a Containerfile itself, and -f names another: {what}")
        return BuildContext(directory, ((what, fetched.containerfile),), ignore_file)
    own = own_file if callers is None else callers.get
    found = tuple(_file_inside(directory, name, what, own) for name in files) or (_default_inside(directory, what),)
    ignored = ignore_file or find_ignore_file(directory, found[0][0])
    return BuildContext(directory, found, ignored, fetched=True)


def _file_inside(directory: Path, name: str, what: str, own: Callable[[str], bytes | None]) -> tuple[str, bytes]:
    """A Containerfile of a fetched context; one of the caller's where the context has none of this name."""
    from builda.builder.copy.buildcontexts import read_inside

    data = None if name == "-" else read_inside(directory, name, _limit() + 1)
    if data is not None:
        return str(directory / name.lstrip("/")), data
    data = own(name)
    if data is None:
        raise NotFound(f"no such file or directory for the Containerfile in {what}: {name}")
    return STDIN if name == "-" else name, data


def _default_inside(directory: Path, what: str) -> tuple[str, bytes]:
    from builda.builder.copy.buildcontexts import read_inside
    from builda.containerfile import CONTAINERFILES

    for name in CONTAINERFILES:
        if (data := read_inside(directory, name, _limit() + 1)) is not None:
            return str(directory / name), data
    raise NotFound(
        f"no Containerfile or Dockerfile in the context, no such file or directory: {what}", hint="name one with -f"
    )


def _of_directory(where: str, files: tuple[str, ...], ignore_file: str | None) -> BuildContext:
    """A context of this machine; a file in its place is the Containerfile, and its directory the context."""
    from builda.containerfile import find_containerfile, find_ignore_file

    directory = where
    if not os.path.exists(directory):
        raise NotFound(f"no such file or directory for the context: {where}")
    if os.path.isfile(directory):
        directory, names = os.path.dirname(where) or ".", (*files, where)
    else:
        names = tuple(_beside(directory, name) for name in files) or (find_containerfile(directory),)
    found = tuple((STDIN if name == "-" else name, _read(directory, name)) for name in names)
    return BuildContext(directory, found, ignore_file or find_ignore_file(directory, found[0][0]))


def _beside(context: str, name: str) -> str:
    """As given, else inside the context."""
    inside = os.path.join(context, name)
    if name != "-" and not os.path.exists(name) and os.path.exists(inside):
        return inside
    return name


def _read(directory: Path | str, name: str) -> bytes:
    """The bytes of a Containerfile; `-` is standard input."""
    if name == "-":
        return sys.stdin.buffer.read(_limit() + 1)
    from builda.containerfile import read_containerfile

    return read_containerfile(directory, name)
