"""Pushes of a session: noted when the script asks for them, performed in that order when it has succeeded."""

from __future__ import annotations

import json
import os
import signal
import sys
import time

from builda.linux import fork, private
from builda.linux import syscalls as sys_
from builda.session import served
from builda.store import layout
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

VARIABLE = "BUILDA_SESSION_PUSH"
"""Set for a push that is performed now: the digest of its image, and where it goes."""
_DIRECTORY = "pushes"


class Push(NamedTuple):
    """A push that was asked for: the command, what it means, and what its process had."""

    arguments: Sequence[str]
    image: str  # the digest of its manifest
    destination: str
    environ: Mapping[str, str]
    directory: str
    umask: int


def note(place: str, push: Push) -> None:
    """Note a push in the session's directory, which only its user can read: options may hold passwords."""
    private.make(f"{place}/{_DIRECTORY}")
    path = f"{place}/{_DIRECTORY}/{time.time_ns():020}-{os.getpid()}"
    temporary = f"{place}/{os.path.basename(path)}"
    with open(temporary, "x", encoding="utf-8", errors="surrogateescape", opener=private.opener) as file:
        json.dump(push._asdict(), file)
    os.rename(temporary, path)


def noted(place: str) -> tuple[Push, ...]:
    """The pushes that were asked for, in their order."""
    found = []
    for name in layout.iter_names(f"{place}/{_DIRECTORY}"):
        with open(f"{place}/{_DIRECTORY}/{name}", encoding="utf-8", errors="surrogateescape") as file:
            found.append(Push(**json.load(file)))
    return tuple(found)


def start(push: Push, main: Callable[[], int]) -> int:
    """Start a noted push in a process of its own; its process ID."""
    parent = os.getpid()
    return fork.start(lambda: _perform(push, main, parent))


def _perform(push: Push, main: Callable[[], int], parent: int) -> int:
    try:
        sys_.prctl(sys_.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            return 125
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.umask(push.umask)
        os.environ.clear()
        os.environ.update(push.environ, **{VARIABLE: f"{push.image} {push.destination}"})
        sys.argv = ["builda", *push.arguments]
        os.chdir(push.directory)
        return served.status_of(main)
    except OSError as error:
        os.write(2, f"Error: cannot push from the directory that push was called in: {error}\n".encode())
    return 125
