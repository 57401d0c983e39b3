"""Instructions to typed values: flags and arguments checked, nothing expanded yet.

Every check that needs no variable's value happens here, for all stages, so that a typo in the last line fails the
build before its first step. Forms follow the Dockerfile reference.
"""

from __future__ import annotations

import re

from builda.errors import ContainerfileError
from builda.frontend import heredoc
from builda.frontend.execform import NotStrings, exec_form
from builda.frontend.parse import Heredoc, Instruction, parse_line
from builda.frontend.words import BLANK, parts
from builda.oci.duration import nanoseconds
from builda.plan import COPY_FLAGS, Location
from builda.values import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, NoReturn, TypeAlias

Pairs: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class From:
    """FROM: begins a stage."""

    image: str
    name: str | None
    platform: str | None
    as_written: str | None  # AS as the user spelt it
    at: Location


@dataclass(frozen=True, slots=True, kw_only=True)
class Arg:
    """ARG: names with their defaults."""

    pairs: tuple[tuple[str, str | None], ...]
    at: Location


@dataclass(frozen=True, slots=True, kw_only=True)
class Assign:
    """ENV or LABEL."""

    keyword: Literal["ENV", "LABEL"]
    pairs: Pairs
    legacy: bool
    at: Location


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """RUN, CMD, ENTRYPOINT and SHELL: `args` of the exec form, or `text` of the shell form."""

    keyword: Literal["RUN", "CMD", "ENTRYPOINT", "SHELL"]
    args: tuple[str, ...] | None
    text: str
    heredocs: tuple[Heredoc, ...]
    flags: Pairs
    at: Location


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """COPY or ADD."""

    keyword: Literal["COPY", "ADD"]
    sources: tuple[str, ...]
    destination: str
    heredocs: tuple[Heredoc, ...]
    flags: Pairs
    at: Location


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """EXPOSE or VOLUME. `exact`: written as a JSON array."""

    keyword: Literal["EXPOSE", "VOLUME"]
    words: tuple[str, ...]
    at: Location


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """USER, WORKDIR, STOPSIGNAL, MAINTAINER: one word or line."""

    keyword: Literal["USER", "WORKDIR", "STOPSIGNAL", "MAINTAINER"]
    text: str
    at: Location


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """HEALTHCHECK; `command` is None for NONE."""

    command: Command | None
    interval: int
    timeout: int
    start_period: int
    start_interval: int
    retries: int
    flags: Pairs
    at: Location


@dataclass(frozen=True, slots=True, kw_only=True)
class Onbuild:
    """ONBUILD: a trigger, checked now and kept as text with its heredocs."""

    text: str
    at: Location


Typed: TypeAlias = From | Arg | Assign | Command | Transfer | Words | Text | Health | Onbuild

_FLAGS: dict[str, tuple[str, ...]] = {
    "FROM": ("platform",),
    "RUN": ("mount", "network", "security", "device"),
    "COPY": ("from", *(name for name, flag in COPY_FLAGS.items() if "COPY" in flag.of)),
    "ADD": tuple(name for name, flag in COPY_FLAGS.items() if "ADD" in flag.of),
    "HEALTHCHECK": ("interval", "timeout", "start-period", "start-interval", "retries"),
}
_REPEATABLE = frozenset({"mount", "device", *(name for name, flag in COPY_FLAGS.items() if flag.kind == "list")})
_BOOLEAN = frozenset(name for name, flag in COPY_FLAGS.items() if flag.kind == "switch")
_STAGE_NAME = r"[a-z][a-z0-9-_./]*"
_BLANKS = re.compile(f"[{BLANK}]+")


def typed(instruction: Instruction, escape: str = "\\") -> Typed:
    """The typed value of `instruction`; ContainerfileError for unknown flags and forms."""
    flags = _checked_flags(instruction)
    match instruction.keyword:
        case "FROM":
            return _from(instruction, flags)
        case "ARG":
            return _arg(instruction, escape)
        case "ENV" | "LABEL" as keyword:
            pairs, legacy = _pairs(instruction, escape)
            return Assign(keyword=keyword, pairs=pairs, legacy=legacy, at=instruction.at)
        case "RUN" | "CMD" | "ENTRYPOINT" | "SHELL" as keyword:
            return _command(instruction, keyword, flags)
        case "COPY" | "ADD" as keyword:
            return _transfer(instruction, keyword, flags)
        case "EXPOSE" | "VOLUME" as keyword:
            listed = _json(instruction) if keyword == "VOLUME" else None
            if listed == ():
                fail(instruction.at, f"{keyword} needs an argument")
            return Words(keyword=keyword, words=listed or _required(instruction), at=instruction.at)
        case "USER" | "WORKDIR" | "STOPSIGNAL" | "MAINTAINER" as keyword:
            _required(instruction)
            return Text(keyword=keyword, text=instruction.value.strip(BLANK), at=instruction.at)
        case "HEALTHCHECK":
            return _health(instruction, flags)
        case "ONBUILD":
            return _onbuild(instruction, escape)
        case other:  # pragma: no cover  # parse() has refused it
            raise AssertionError(other)


def flag_true(value: str, name: str, at: Location) -> bool:
    """The value of a boolean flag; bare means true."""
    if value.lower() in ("", "true", "1", "t"):
        return True
    if value.lower() in ("false", "0", "f"):
        return False
    return fail(at, f"invalid value of --{name}: {value}", "it is true or false")


def fail(at: Location, message: str, hint: str | None = None) -> NoReturn:
    """Raise the error of this place."""
    raise ContainerfileError(message, file=at.file, line=at.line, hint=hint)


def _checked_flags(instruction: Instruction) -> Pairs:
    known = _FLAGS.get(instruction.keyword, ())
    flags: list[tuple[str, str]] = []
    for flag in instruction.flags:
        name, equals, value = flag.partition("=")
        if name not in known:
            from difflib import get_close_matches  # which is for errors only

            near = get_close_matches(name, known, 1)
            hint = f"did you mean --{near[0]}?" if near else f"{instruction.keyword} takes {_listed(known)}"
            fail(instruction.at, f"unknown flag of {instruction.keyword}: --{name}", hint)
        if name not in _REPEATABLE and any(other == name for other, _ in flags):
            fail(instruction.at, f"flag is given twice: --{name}")
        if not equals and name not in _BOOLEAN:
            fail(instruction.at, f"flag needs a value: --{name}")
        if name in _BOOLEAN:
            flag_true(value, name, instruction.at)
        flags.append((name, value))
    return tuple(flags)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"--{name}" for name in names) or "no flags"


def _required(instruction: Instruction) -> tuple[str, ...]:
    words = tuple(word for word in _BLANKS.split(instruction.value) if word)
    if not words:
        fail(instruction.at, f"{instruction.keyword} needs an argument")
    return words


def _from(instruction: Instruction, flags: Pairs) -> From:
    words = _required(instruction)
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].upper() != "AS"):
        fail(instruction.at, f"FROM takes an image, or an image AS a name: {instruction.value}")
    name = words[2].lower() if len(words) == 3 else None
    if name is not None and not re.fullmatch(_STAGE_NAME, name):
        fail(
            instruction.at, f"invalid stage name: {words[2]}", "it begins with a letter; then letters, digits, - _ . /"
        )
    return From(
        image=words[0],
        name=name,
        platform=dict(flags).get("platform"),
        as_written=words[1] if name else None,
        at=instruction.at,
    )


def _arg(instruction: Instruction, escape: str) -> Arg:
    _required(instruction)
    pairs: list[tuple[str, str | None]] = []
    for word in parts(instruction.value, escape):
        name, equals, value = word.partition("=")
        if "$" not in name:  # else the compiler asks, when it knows the name
            check_arg_name(name, instruction.at)
        pairs.append((name, value if equals else None))
    return Arg(pairs=tuple(pairs), at=instruction.at)


def check_arg_name(name: str, at: Location) -> None:
    """Raise ContainerfileError unless `name` can be the name of an ARG."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", name):
        fail(at, f"invalid ARG name: {name!r}")


def _pairs(instruction: Instruction, escape: str) -> tuple[Pairs, bool]:
    _required(instruction)
    words = parts(instruction.value, escape)
    if not words or "=" not in words[0]:
        name, _, value = _partition(instruction.value)
        if not value:
            fail(instruction.at, f"{instruction.keyword} needs a value: {name}", f"write {name}=VALUE")
        return ((name, value),), True
    pairs = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            fail(instruction.at, f"{instruction.keyword} word has no '=': {word}", "quote values that hold white space")
        if not name:
            fail(instruction.at, f"{instruction.keyword} name is blank: {word}")
        pairs.append((name, value))
    return tuple(pairs), False


def _json(instruction: Instruction) -> tuple[str, ...] | None:
    """The exec form, or None: what is not a JSON array of strings is the shell form."""
    try:
        return exec_form(instruction.value)
    except NotStrings:
        fail(instruction.at, f"only strings may stand in the JSON array of {instruction.keyword}")


def _partition(text: str) -> tuple[str, str, str]:
    """The first word, the white space behind it and the rest."""
    found = re.match(f"([^{BLANK}]*)([{BLANK}]*)(.*)", text.strip(BLANK), re.DOTALL)
    assert found is not None
    return found[1], found[2], found[3]


def _command(instruction: Instruction, keyword: Literal["RUN", "CMD", "ENTRYPOINT", "SHELL"], flags: Pairs) -> Command:
    args = _json(instruction)
    if keyword == "SHELL" and not args:
        fail(instruction.at, f"SHELL takes a JSON array: {instruction.value}", 'for example SHELL ["/bin/bash", "-c"]')
    if keyword == "RUN" and not args:
        _required(instruction)
        if args is not None:
            fail(instruction.at, "RUN needs a command")
    return Command(
        keyword=keyword,
        args=args,
        text=instruction.value.strip(BLANK),
        heredocs=instruction.heredocs,
        flags=flags,
        at=instruction.at,
    )


def _transfer(instruction: Instruction, keyword: Literal["COPY", "ADD"], flags: Pairs) -> Transfer:
    listed = _json(instruction)
    found: list[tuple[heredoc.Mark | None, str]] = [(None, word) for word in listed or _required(instruction)]
    if listed is None and instruction.heredocs:
        found = list(heredoc.marks_in(_required(instruction)))
    if len(found) < 2:
        fail(instruction.at, f"{keyword} needs at least one source and a destination: {instruction.value}")
    if found[-1][0] is not None:
        fail(instruction.at, f"{keyword} cannot have a heredoc as its destination: {found[-1][1]}")
    return Transfer(
        keyword=keyword,
        sources=tuple(word for mark, word in found[:-1] if mark is None),
        destination=found[-1][1],
        heredocs=instruction.heredocs,
        flags=flags,
        at=instruction.at,
    )


def _health(instruction: Instruction, flags: Pairs) -> Health:
    words = _required(instruction)
    if words[0].upper() == "NONE":
        flags = ()
        if len(words) > 1:
            fail(instruction.at, "HEALTHCHECK NONE takes no arguments")
        command = None
    elif words[0].upper() == "CMD":
        inner = instruction._replace(keyword="CMD", flags=(), value=_partition(instruction.value)[2])
        command = _command(inner, "CMD", ())
        if not command.text or command.args == ():
            fail(instruction.at, "HEALTHCHECK CMD needs a command")
    else:
        fail(instruction.at, f"HEALTHCHECK takes CMD or NONE: {words[0]}")
    given = dict(flags)
    times = {
        name: _time(given, name, instruction.at) for name in ("interval", "timeout", "start-period", "start-interval")
    }
    retries = given.get("retries", "0")
    if not retries.isascii() or not retries.isdigit() or len(retries) > 9:
        fail(instruction.at, f"invalid --retries: {retries}")
    return Health(
        command=command,
        interval=times["interval"],
        timeout=times["timeout"],
        start_period=times["start-period"],
        start_interval=times["start-interval"],
        retries=int(retries),
        flags=flags,
        at=instruction.at,
    )


def _time(flags: dict[str, str], name: str, at: Location) -> int:
    if name not in flags:
        return 0
    value = nanoseconds(flags[name])
    if value is None or 0 < value < 10**6:
        fail(at, f"invalid --{name}: {flags[name]}", "it is a duration of at least 1ms, such as 30s or 1m30s")
    return value


def _onbuild(instruction: Instruction, escape: str) -> Onbuild:
    _required(instruction)
    inner = parse_line(instruction.value, instruction.at, instruction.heredocs, escape)
    if inner.keyword in ("ONBUILD", "FROM", "MAINTAINER"):
        fail(instruction.at, f"{inner.keyword} is not allowed as an ONBUILD trigger")
    typed(inner, escape)
    bodies = "".join(f"\n{h.body}{h.name}" for h in instruction.heredocs)
    return Onbuild(text=instruction.value.strip(BLANK) + bodies, at=instruction.at)
