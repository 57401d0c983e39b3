"""The rules: each takes a script and gives its findings. A rule is a function of this module and a line of RULES."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from builda.frontend.secretnames import names_a_secret
from builda.scriptlint.calls import Call, Place, Script, Word
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

_HOLDERS = frozenset({"from", "mount"})
"""The verbs whose output a script keeps in a variable, and which fails in strange ways where it is split."""
_WITH_PASSWORD = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s:@]+:[^/\s@]+@", re.IGNORECASE)
_SETTING = frozenset({"--env", "-e", "--build-arg", "--label", "-l", "--annotation", "--unsetenv"})
_PASSWORDS = frozenset({"--password", "-p", "--creds"})
_UNKNOWN = "x"
"""Stands for a word that only the shell knows."""


class Finding(NamedTuple):
    """A fault: its name, where it is, what is wrong, and the way out."""

    name: str
    at: Place
    message: str
    hint: str | None = None


class Complaint(NamedTuple):
    """Why builda would refuse a command line."""

    name: str
    message: str
    hint: str | None = None


Check: TypeAlias = Callable[[Sequence[str]], Complaint | None]
"""What is wrong with the words behind `builda`, if anything."""


def find(script: Script, check: Check) -> list[Finding]:
    """All findings, in the order of the script."""
    found = [finding for rule in RULES for finding in rule(script)]
    found += _command_lines(script, check)
    if script.broken is not None:
        found.append(Finding("NotUnderstood", script.broken, "not a bash script, or too complex for the grammar"))
    return sorted(found, key=lambda finding: (finding.at, finding.name))


def _unquoted(script: Script) -> Iterator[Finding]:
    kept = {call.assigned for call in script.calls if call.is_builda and call.verb in _HOLDERS}
    for call in script.calls:
        for word in call.words:
            for name in word.unquoted:
                if name in kept:
                    yield Finding(
                        "UnquotedVariable",
                        word.at,
                        f"{word.source} is not quoted: if ${name} is empty, the command gets a word less",
                        f'write "{word.source}"',
                    )


def _left_containers(script: Script) -> Iterator[Finding]:
    if _is_session(script) or _cleans(script, "rm", "delete", "prune"):
        return
    for call in script.calls:
        if call.is_builda and call.verb == "from" and not call.in_trap:
            yield Finding(
                "ContainerIsLeft",
                call.at,
                "when the script fails, this working container stays",
                "run the script by `builda session`, or remove it by trap 'builda rm …' EXIT",
            )
            return


def _left_mounts(script: Script) -> Iterator[Finding]:
    verbs = {call.verb for call in script.calls if call.is_builda}
    if _is_session(script) or verbs & {"umount", "unmount"} or _cleans(script, "rm", "delete"):
        return
    for call in script.calls:
        if call.is_builda and call.verb == "mount" and _operands(call):
            yield Finding("MountIsLeft", call.at, "nothing unmounts this container", "call `builda umount` when done")


def _secrets(script: Script) -> Iterator[Finding]:
    for call in script.calls:
        if not call.is_builda:
            continue
        for option, value in _options(call):
            name, equals, content = value.source.strip("'\"").partition("=")
            if option in _SETTING and equals and content.strip("'\"") and names_a_secret(name):
                yield Finding(
                    "SecretInArgument",
                    value.at,
                    f"everybody on the machine can read {name} in the list of processes, and the image may keep it",
                    "give it by --secret, and RUN --mount=type=secret or run --mount type=secret",
                )
            elif option in _PASSWORDS and call.verb in ("login", "pull", "push", "from", "build", "bud", "commit"):
                yield Finding(
                    "SecretInArgument",
                    value.at,
                    f"every user of the machine can read the value of {option} in the list of processes",
                    "log in once by --password-stdin",
                )
        for word in call.words:
            if _WITH_PASSWORD.search(word.source):
                yield Finding("SecretInArgument", word.at, "a URL holds a password", "keep it in a credential helper")


def _command_lines(script: Script, check: Check) -> Iterator[Finding]:
    """Verbs and options that builda does not have. A word that may be any number of words ends what can be told."""
    for call in script.calls:
        if not call.is_builda or (len(call.words) > 1 and call.verb is None and call.words[1].text is None):
            continue
        told: list[str] = []
        for word in call.words[1:]:
            if word.is_many:
                break
            told.append(_UNKNOWN if word.text is None else word.text)
        else:
            yield from _complaints(call, check(told))
            continue
        yield from _complaints(call, check([*told, _UNKNOWN]) if told else None)


def _complaints(call: Call, complaint: Complaint | None) -> Iterator[Finding]:
    if complaint is not None:
        yield Finding(complaint.name, call.at, complaint.message, complaint.hint)


def _options(call: Call) -> Iterator[tuple[str, Word]]:
    """Options with the words that hold their values: `--a=b` is one word, `--a b` two."""
    words = call.words[1:]
    for number, word in enumerate(words):
        source = word.source
        option, equals, value = source.partition("=")
        if source == "--":
            return
        if not option.startswith("-"):
            continue
        if equals and option.startswith("--"):
            yield option, word._replace(source=value)
        elif number + 1 < len(words):
            yield option, words[number + 1]


def _operands(call: Call) -> bool:
    return any(not word.source.startswith("-") for word in call.words[2:])


def _is_session(script: Script) -> bool:
    """Whether the script runs by `builda session`: its first line says so, or the script starts a session."""
    return script.first_line.startswith("#!") and "session" in script.first_line.split()


def _cleans(script: Script, *verbs: str) -> bool:
    """Whether a trap calls one of these verbs, itself or by a function. A trap that cannot be parsed counts as one."""
    functions = {call.function for call in script.calls if call.is_builda and call.verb in verbs}
    for call in script.calls:
        if call.name == "trap" and len(call.words) > 2 and call.words[1].text is None:
            return True
        if call.in_trap and ((call.is_builda and call.verb in verbs) or call.name in functions - {None}):
            return True
    return False


RULES: tuple[Callable[[Script], Iterator[Finding]], ...] = (_unquoted, _left_containers, _left_mounts, _secrets)
