"""`session --trace-inputs`: warnings about files that the script reads by itself."""

from __future__ import annotations

import os
import re

from builda.errors import Unsupported
from builda.events import Warned
from builda.inputfile import read_input
from builda.session.scriptplace import SHELLS, script_word
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.cli.core.verbsession import Session

_SHELL = re.compile(rb"#!.*\b(ba|da|k|z)?sh\b")


class _Text(NamedTuple):
    """A script that a session runs, and what it is called."""

    name: str
    source: bytes


def warn(session: Session, command: tuple[str, ...]) -> None:
    """Warn of each file below the current directory that the script reads. Unsupported if the text cannot be had."""
    from builda.scriptlint.inputs import inputs_of

    script = _script(command[1:] if command[:1] == ("--",) else command)
    for found in inputs_of(script.source, _is_here):
        session.emit(
            Warned(
                message=f"{script.name}:{found.at.line}: the script itself reads {found.path}, by {found.by}",
                hint="no step is performed again when that changes, unless it gets into an argument; "
                f'--cache-key "$(sha256sum {found.path})" at a run makes it count',
            )
        )


def _is_here(path: str) -> bool:
    """Whether a word names a file below the current directory."""
    here = os.path.realpath(".")
    return "\0" not in path and os.path.isfile(path) and os.path.realpath(path).startswith(f"{here}/")


def _script(command: tuple[str, ...]) -> _Text:
    """The shell script that a command runs: a file of its words, or the text behind -c."""
    named = script_word(command)
    if named is not None:
        name, text = named
        if text is not None:
            return _Text(name, text.encode("utf-8", "surrogateescape"))
        if os.path.isfile(name):
            source = read_input(name, "script")
            if os.path.basename(command[0]) in SHELLS or _SHELL.match(source):
                return _Text(name, source)
    raise Unsupported(
        "--trace-inputs needs a shell script, whose text it reads", hint="as in: builda session ./build.sh"
    )
