"""A verb: the rows of its command line, and the function that they are read for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from builda.cli.core.line import Given, Line, read
from builda.cli.core.options import Argument, Option, Params, Row, answer, listed, refused, switch, text
from builda.errors import InvalidValue
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builda.cli.core.verbsession import Session
    from builda.cli.core.verbtrace import VerbTrace

ENTERING = frozenset(
    "add build commit copy debug from fsck image-df image-rm prune rm rmi run script-trace session "
    "umount unshare workdir".split(),
)
"""The verbs that work in trees and therefore enter a mode; the others only read and write records and blobs."""
COMPOSING = ENTERING - frozenset("debug run unshare".split())
"""The verbs of ENTERING that also work where no trees can be made, with lists of files."""

GLOBAL_OPTIONS: Params = (
    text("--root", metavar="DIR", help="Keep images and working containers here.  [env: BUILDA_ROOT]"),
    text("--runroot", metavar="DIR", help="Keep what need not survive a reboot here.  [env: BUILDA_RUNROOT]"),
    text(
        "--storage-driver",
        metavar="DRIVER",
        help="overlay (default), fuse-overlayfs, plain (or vfs) or composed.  "
        "[env: BUILDA_STORAGE_DRIVER, STORAGE_DRIVER]",
    ),
    listed(
        "--storage-opt",
        metavar="OPTION,…",
        help="Taken for scripts; one that asks for something else than builda does is warned of.  "
        "[env: BUILDA_STORAGE_OPTS, STORAGE_OPTS]",
    ),
    text(
        "--log-level",
        metavar="LEVEL",
        help="trace, debug, info, warn (default), error, fatal or panic; debug tells what is decided, and why.",
    ),
    switch("--debug", hidden=True),
    text(
        "--registries-conf",
        metavar="FILE",
        help="Use this registries.conf.  [env: BUILDA_REGISTRIES_CONF, CONTAINERS_REGISTRIES_CONF]",
    ),
    text(
        "--events",
        metavar="FD",
        help="Write what happens as lines of JSON to this file descriptor.  [env: BUILDA_EVENTS]",
    ),
    text(
        "--mode",
        metavar="MODE",
        help="Work in this mode: auto (default), direct, userns, subid, single, chroot or traced.  [env: BUILDA_MODE]",
    ),
    listed(
        "--userns-uid-map",
        metavar="CONTAINER:HOST:SIZE,…",
        help="Map uids this way in from and build, unless they have such options of their own.",
    ),
    listed("--userns-gid-map", metavar="CONTAINER:HOST:SIZE,…", help="The same for gids; it needs a map of uids."),
    refused("--imagestore", reason="images and working containers share one store"),
    refused("--transient-store", reason="--runroot is the only volatile directory", takes_value=False),
    text("--registries-conf-dir", metavar="DIR", help="Read the drop-ins of registries.conf from here alone."),
    text(
        "--short-name-alias-conf", metavar="FILE", help="Read the short names that tools have learned from this file."
    ),
    text("--cgroup-manager", metavar="NAME", hidden=True, help="cgroupfs; builda asks no systemd for cgroups."),
    text("--default-mounts-file", metavar="FILE", hidden=True, help="Use this mounts.conf."),
    refused("--cpu-profile", reason="builda is no Go program"),
    refused("--memory-profile", reason="builda is no Go program"),
)


HELP = answer("--help", "-h", "_help", help="Show this message and exit.")
"""The option that every verb has."""


class Verb(NamedTuple):
    """A subcommand. `interspersed`: options may follow arguments; `checks_order`: an argument may not look like one;
    `has_command`: what follows `--` is a command, so `--` is an argument too."""

    name: str
    rows: Sequence[Row]
    function: Callable[..., None]
    example: str
    interspersed: bool = False
    checks_order: bool = True
    has_command: bool = False

    @property
    def help(self) -> str:
        """The text of its help page."""
        return self.function.__doc__ or ""

    def read(self, args: Iterable[str], given: Given, *, path: str) -> Line:
        """Take the words behind the verb apart; global options go into `given`."""
        line = read(
            args,
            (*self.rows, HELP),
            GLOBAL_OPTIONS,
            given,
            path=path,
            interspersed=self.interspersed,
            keeps_dashes=self.has_command,
        )
        if self.checks_order and not self.interspersed:
            _check_order(line.arguments)
        return line

    def __call__(self, session: Session, values: dict[str, Any]) -> None:
        """Run the verb, after entering the mode that it works in."""
        if self.name in ENTERING and not _is_elsewhere(self.name, session, values):
            session.enter(composing=self.name in COMPOSING)
        self.function(session, **values)


def verb(
    *rows: Row | Params,
    example: str,
    name: str | None = None,
    interspersed: bool = False,
    checks_order: bool = True,
    has_command: bool = False,
) -> Callable[[Callable[..., None]], Verb]:
    """Make a function a verb: its docstring is the help, its first argument the Session of the command line.

    The values of `rows` are its keyword arguments.
    """
    flat: list[Row] = []
    for row in rows:
        if isinstance(row, Option | Argument):
            flat.append(row)
        else:
            flat.extend(row)

    def decorated(function: Callable[..., None]) -> Verb:
        return Verb(
            name or function.__name__.rstrip("_"), flat, function, example, interspersed, checks_order, has_command
        )

    return decorated


def _is_elsewhere(name: str, session: Session, values: Mapping[str, Any]) -> bool:
    """Whether a build or session runs in a cluster, so that no mode is entered on this machine."""
    if name not in ("build", "session") or (name == "session" and session.environ.get("BUILDA_SESSION")):
        return False
    return bool(values.get("matrix") or values["on"] or (values["on"] is None and session.environ.get("BUILDA_ON")))


def session_for(given: Given, trace: VerbTrace | None = None) -> Session:
    """A session with the settings that global options and the environment make; `trace` gets its events."""
    import os

    from builda.cli.core.settings import caller, settings
    from builda.cli.core.verbsession import Session

    return Session(settings(given, os.environ, caller(os.environ, os.geteuid())), os.environ, trace)


def _check_order(positional: Sequence[str]) -> None:
    for arg in positional:
        if arg.startswith("-") and len(arg) > 1:
            raise InvalidValue(
                f"no options ({arg}) can be specified after the image or container name",
                hint="options stand before it; -- before the first argument ends them",
            )
