"""`session --trace-inputs`: warnings about files that the script reads by itself."""

from __future__ import annotations

import os
import re

from builda.errors import Unsupported
from builda.events import Warned
from builda.inputfile import read_input
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.cli.core.verbsession import Session

_SHELL = re.compile(rb"#!.*\b(ba|da|k|z)?sh\b")
_SHELLS = frozenset({"bash", "sh", "dash", "ksh", "zsh"})


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
    is_shell = bool(command) and os.path.basename(command[0]) in _SHELLS
    words = command[1:] if is_shell else command[:1]
    for number, word in enumerate(words):
        if is_shell and re.fullmatch("-[a-z]*c", word) and number + 1 < len(words):
            return _Text(word, words[number + 1].encode("utf-8", "surrogateescape"))
        if word.startswith("-") or not os.path.isfile(word):
            continue
        source = read_input(word, "script")
        if is_shell or _SHELL.match(source):
            return _Text(word, source)
    raise Unsupported(
        "--trace-inputs needs a shell script, whose text it reads", hint="as in: builda session ./build.sh"
    )
