"""Where a command is written in the script that called it: FILE:LINE, as far as that can be known.

The shell that waits for the command is found in /proc, with the script that it has open. Bash has read its script up to
the end of what it performs, so the nearest line before that with the command's words is the one. Of other shells only
the text is known: a line counts if it is the only one with these words.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress

from builda.session.client import CALLER
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SHELLS = frozenset({"bash", "sh", "dash", "ash", "busybox", "ksh", "zsh"})
_MOST_BYTES = 4 << 20
_MOST_LINES = 20
"""Lines of one command that are joined, where a backslash ends a line."""
_MOST_PARENTS = 20
_WORD = re.compile(r"[^\s()`\"';|&<>]+")
_END = re.compile(r"[|;&]|\d*[<>]")
_CALLED = re.compile(r"\s*([A-Za-z_][\w.-]*|\.)(?=\s|$)")
_NOT_CALLED = frozenset(
    {"builda", "buildah", "done", "fi", "esac", "wait", "if", "for", "while", "until", "case", "time"}
)
_LITERAL = re.compile(r"[\w./:=@%+,-]+", re.ASCII)


class Script(NamedTuple):
    """A shell script: what the command line calls it, its bytes as text, and how many were read, if that is known."""

    name: str
    text: str
    read: int | None


def place_of(environ: Mapping[str, str], arguments: Sequence[str]) -> str | None:
    """FILE:LINE of the script's line with this process's command; None if that cannot be known.

    `arguments` are its words without the program.
    """
    for pid in _parents(_caller(environ)):
        with suppress(OSError, ValueError):
            script = _script_of(pid)
            if script is not None:
                line = line_of(script, arguments)
                return None if line is None else f"{script.name}:{line}"
    return None


def script_word(words: Sequence[str]) -> tuple[str, str | None] | None:
    """The script among the words of a command: its name, and its text if it is the word behind -c."""
    if not words:
        return None
    is_shell = os.path.basename(words[0]).lstrip("-") in SHELLS
    for number, word in enumerate(words[1:] if is_shell else words[:1], int(is_shell)):
        if is_shell and re.fullmatch("-[a-z]*c", word) and number + 1 < len(words):
            return word, words[number + 1]
        if not word.startswith(("-", "+")):
            return word, None
    return None


def line_of(script: Script, arguments: Sequence[str]) -> int | None:
    """The number of the line with the command; None if several lines may have it, or none."""
    lines = script.text.rstrip("\n").split("\n")
    if script.read is None or script.read >= len(script.text):  # bash reads ahead while a job runs in the background
        found = list(_alike(lines, arguments))
        most = max((one.literals for one in found), default=0)
        best = [one.number for one in found if one.literals == most]
        is_last = script.read is not None and len(lines) in best
        return len(lines) if is_last else best[0] if len(best) == 1 else None
    last = script.text[: script.read].rstrip("\n").count("\n") + 1
    numbers = [one.number for one in _alike(lines[:last], arguments)]
    is_here = bool(numbers) and (numbers[-1] == last or not _is_foreign(lines[:last]))
    return numbers[-1] if is_here else last


class _Alike(NamedTuple):
    """A line that may have the command, and how many of its words that follow the verb are the command's for sure."""

    number: int
    literals: int


def _alike(lines: Sequence[str], arguments: Sequence[str]) -> Iterator[_Alike]:
    """The lines that may have the command: the verb, and no word that the command does not have."""
    verb = next((word for word in arguments if not word.startswith("-")), "")
    sought = re.compile(rf"(?<![\w./-]){re.escape(verb)}(?![\w./-])")
    given = {word for argument in arguments for word in _WORD.findall(argument)}
    for number, line in enumerate(lines, 1):
        if line.lstrip().startswith("#"):
            continue
        for at in sought.finditer(line):
            words = _WORD.findall(_joined(lines, number, line[at.end() :]))
            literals = [word for word in words if _LITERAL.fullmatch(word)]
            if given.issuperset(literals):
                yield _Alike(number, len(literals))
                break


def _is_foreign(lines: Sequence[str]) -> bool:
    """Whether the last line calls something that another file defines, so that the command is in none of these lines.

    It does not if it ends a command of several lines: by a closing word, a quote, a line that a backslash continues.
    """
    name = _CALLED.match(lines[-1])
    if name is None or name[1] in _NOT_CALLED or lines[-1].count("'") % 2 or lines[-1].count('"') % 2:
        return False
    if len(lines) > 1 and lines[-2].endswith(("\\", "|", "&&")):
        return False
    word = re.escape(name[1])
    is_defined = rf"^\s*(function\s+{word}\b|{word}\s*\(\s*\))"
    ends_heredoc = rf"<<-?\s*['\"\\]?{word}\b"
    return re.search(f"{is_defined}|{ends_heredoc}", "\n".join(lines), re.MULTILINE) is None


def _joined(lines: Sequence[str], number: int, rest: str) -> str:
    """The rest of the command that begins in line `number`."""
    for following in lines[number : number + _MOST_LINES]:
        if not rest.endswith("\\"):
            break
        rest = f"{rest[:-1]} {following}"
    ended = _END.search(rest)
    return rest[: ended.start()] if ended else rest


def _caller(environ: Mapping[str, str]) -> int:
    """The process that the script started for this command."""
    own, _, client = environ.get(CALLER, "").partition(" ")
    return int(client) if own == str(os.getpid()) and client.isdecimal() else os.getpid()


def _parents(pid: int) -> Iterator[int]:
    for _ in range(_MOST_PARENTS):
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                pid = int(file.read().rpartition(b")")[2].split()[1])
        except OSError:
            return
        if pid <= 1:
            return
        yield pid


def _script_of(pid: int) -> Script | None:
    """The script that a shell performs; None for another process, and for a shell that a person types to."""
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        words = [os.fsdecode(word) for word in file.read().split(b"\0")[:-1]]
    if not words or os.path.basename(words[0]).lstrip("-") not in SHELLS:
        return None
    named = script_word(words)
    if named is None:
        return None
    name, text = named
    if text is not None:
        return Script(name, os.fsencode(text).decode("latin-1"), None)
    return _open_script(pid, name)


def _open_script(pid: int, name: str) -> Script | None:
    """The script of this name, which a shell has open by a number of its own choice."""
    for number in sorted(os.listdir(f"/proc/{pid}/fd"), key=int, reverse=True):
        path = f"/proc/{pid}/fd/{number}"
        info = os.stat(path)
        is_named = os.path.basename(os.readlink(path)) == os.path.basename(os.path.realpath(name))
        if int(number) < 3 or not stat.S_ISREG(info.st_mode) or not is_named:
            continue
        with open(path, encoding="latin-1", newline="") as file:
            text = file.read(_MOST_BYTES)
        return Script(name, text, _offset(pid, number) if number == "255" else None)
    return None


def _offset(pid: int, number: str) -> int | None:
    """The offset up to which bash has read its script."""
    with open(f"/proc/{pid}/fdinfo/{number}", encoding="ascii") as file:
        position = next((int(line.split()[1]) for line in file if line.startswith("pos:")), 0)
    return position or None
