"""The `builda` that the PATH of a session's script begins with: it starts in less time than the installed one."""

from __future__ import annotations

import os
import sys

import builda
from builda.session import client

LONGEST = 200
"""Bytes of an interpreter's path that the first line of a script may have on every kernel."""


def code_name() -> str:
    """The identity of this builda, as a script may start another one: the directory of its modules, and its version."""
    return f"{os.path.dirname(os.path.realpath(builda.__file__))} {builda.__version__}"


def install(place: str, path: str | None) -> str | None:
    """Write the program into a directory of `place`; that directory, None if no program can be executed there.

    It is there as `buildah`, too, if that leads to builda on `path`.
    """
    if len(sys.executable) > LONGEST or " " in sys.executable or not sys.executable:
        return None
    directory = f"{place}/bin"
    os.mkdir(directory, 0o700)
    made = f"{directory}/builda"
    fd = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o700)
    with open(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
        os.fchmod(fd, 0o700)
        file.write(_text())
    if _is_called_buildah(path):
        os.symlink("builda", f"{directory}/buildah")
    return directory if os.access(made, os.X_OK) else None  # not on a file system that is mounted noexec


def _is_called_buildah(path: str | None) -> bool:
    """Whether the first `buildah` on `path` is a link to the first `builda`."""
    found = [_first(name, path or os.defpath) for name in ("builda", "buildah")]
    return found[0] == found[1] is not None


def _first(name: str, path: str) -> str | None:
    """The real path of the first program of this name on `path`; None if there is none."""
    programs = (f"{place}/{name}" for place in path.split(":"))
    return next((os.path.realpath(program) for program in programs if os.access(program, os.X_OK)), None)


def _text() -> str:
    package = os.path.dirname(os.path.realpath(builda.__file__))
    start = f"import sys; sys.path.insert(0, {os.path.dirname(package)!r}); from builda.cli.main import main; main()"
    return f"""\
#!{sys.executable} -IS
import sys

sys.path.insert(0, {os.path.dirname(client.__file__)!r})
import client

client.serve(sys.argv[1:], {code_name()!r})
import posix

posix.execv({sys.executable!r}, [{sys.executable!r}, "-c", {start!r}, *sys.argv[1:]])
"""
