"""Text to instructions: heredocs are lifted out first, dockerfile-parse splits the rest, and heredocs are put back.

dockerfile-parse ends a continuation at a blank line, would read heredoc bodies as instructions and gives comments that
stand inside an instruction before it, so it only ever sees the lines of instructions; no other module knows it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from io import BytesIO
from typing import NamedTuple

from builda.errors import ContainerfileError
from builda.frontend import heredoc
from builda.frontend.source import SourceText
from builda.plan import Location

KEYWORDS = (
    "ADD ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL MAINTAINER ONBUILD RUN SHELL STOPSIGNAL USER "
    "VOLUME WORKDIR"
).split()

_LONGEST = 12
"""Lines of an instruction that an excerpt shows."""
_WIDEST = 200
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Heredoc(NamedTuple):
    """The body of a `<<NAME`, tabs already stripped where `<<-` asks for it; ends with a line feed unless empty."""

    name: str
    body: str
    expand: bool
    fd: int = 0


class Instruction(NamedTuple):
    """One instruction as it stands: `flags` before the value, nothing expanded."""

    keyword: str  # upper case
    flags: tuple[str, ...]  # each without its dashes: "from=x", "link"
    value: str
    heredocs: tuple[Heredoc, ...]
    at: Location
    written: str  # keyword as the user spelt it


class Parsed(NamedTuple):
    """A Containerfile taken apart."""

    instructions: tuple[Instruction, ...]
    escape: str
    directives: tuple[tuple[str, str, Location], ...]
    empty_continuations: tuple[Location, ...]
    comments: Mapping[Location, str]  # the comment line right above an instruction, without its #


def parse(source: SourceText) -> Parsed:
    """The instructions of `source`; ContainerfileError with file and line for anything that is none."""
    _check_directives(source)
    escape = heredoc.escape_of(source.lines)
    logical = tuple(item for item in heredoc.iter_logical(source.lines, escape) if item.joined is not None)
    if not logical:
        place = source.places[0] if source.places else Location("Containerfile", 1)
        raise ContainerfileError("Containerfile has no instructions", file=place.file, line=place.line)
    return Parsed(
        instructions=tuple(_instructions(source, logical, escape)),
        escape=escape,
        directives=tuple((key, value, source.places[i]) for key, value, i in heredoc.directives(source.lines)),
        empty_continuations=tuple(
            source.places[i] for item in logical for i in item.skipped if not source.lines[i].strip()
        ),
        comments=_comments(source, logical),
    )


def parse_line(text: str, at: Location, heredocs: tuple[Heredoc, ...] = (), escape: str = "\\") -> Instruction:
    """One instruction on one line: the argument of ONBUILD, a `--change`."""
    words = text.strip().split(None, 1)
    if not words:
        raise ContainerfileError("empty instruction", file=at.file, line=at.line)
    flags, value = _flags(words[1] if len(words) > 1 else "", escape)
    _check_keyword(words[0], at)
    return Instruction(words[0].upper(), flags, value, heredocs, at, words[0])


def excerpt(source: SourceText, at: Location, around: int = 2) -> str | None:
    """The instruction at `at`, each line of it marked, with the lines around it, as a compiler shows them."""
    start = next((i for i, place in enumerate(source.places) if place == at), None)
    if start is None:
        return None
    logical = heredoc.iter_logical(source.lines, heredoc.escape_of(source.lines))
    end = next((item.end for item in logical if item.first <= start < item.end), start + 1)
    shown_end = min(end, start + _LONGEST)
    rows = range(max(0, start - around), min(len(source.lines), shown_end + around))
    texts = [_row(source, i, start <= i < shown_end) for i in rows if source.places[i].file == at.file]
    return "\n".join(texts)


def _row(source: SourceText, index: int, marked: bool) -> str:
    line = _CONTROL.sub("\ufffd", source.lines[index].expandtabs(4))
    shown = line if len(line) <= _WIDEST else f"{line[:_WIDEST]}…"
    return f"{'>' if marked else ' '} {source.places[index].line:4} | {shown}".rstrip()


def _comments(source: SourceText, logical: tuple[heredoc.Logical, ...]) -> dict[Location, str]:
    directives = {index for _, _, index in heredoc.directives(source.lines)}
    found: dict[Location, str] = {}
    ended = 0
    for item in logical:
        above = item.first - 1
        text = source.lines[above].strip() if above >= ended and above not in directives else ""
        if text.startswith("#"):
            found[source.places[item.first]] = text[1:].strip()
        ended = item.end
    return found


def _instructions(source: SourceText, logical: tuple[heredoc.Logical, ...], escape: str) -> list[Instruction]:
    for item in logical:
        if item.unterminated is not None:
            place = source.places[item.first]
            raise ContainerfileError(
                f"heredoc is not terminated: {item.unterminated.name}",
                file=place.file,
                line=place.line,
                hint=f"a line that holds only {item.unterminated.name} ends it",
            )
    found = []
    for item, (written, value) in zip(logical, _split(source, logical, escape), strict=True):
        at = source.places[item.first]
        _check_keyword(written, at)
        flags, rest = _flags(value, escape)
        heredocs = tuple(_heredoc(source, mark, body) for mark, body in item.heredocs)
        found.append(Instruction(written.upper(), flags, rest, heredocs, at, written))
    return found


def _split(source: SourceText, logical: tuple[heredoc.Logical, ...], escape: str) -> list[tuple[str, str]]:
    """Keyword as written and value of each logical line, split by dockerfile-parse."""
    from dockerfile_parse import DockerfileParser

    text = "" if escape == "\\" else f"# escape={escape}\n"
    text += "".join(f"{line}\n" for item in logical for line in item.text)
    with BytesIO(text.encode()) as fileobj:
        structure = DockerfileParser(fileobj=fileobj, env_replace=False).structure
    entries = [entry for entry in structure if entry["instruction"] != "COMMENT"]
    return [(entry["content"].split(None, 1)[0].rstrip(escape), entry["value"] or "") for entry in entries]


def _heredoc(source: SourceText, mark: heredoc.Mark, body: tuple[int, ...]) -> Heredoc:
    lines = [source.lines[i].lstrip("\t") if mark.strip_tabs else source.lines[i] for i in body]
    return Heredoc(mark.name, "".join(f"{line}\n" for line in lines), mark.expand, mark.fd)


def _flags(value: str, escape: str) -> tuple[tuple[str, ...], str]:
    """`--name[=value]` words at the start of a value, quotes taken off them, and what follows."""
    flags: list[str] = []
    rest = value.lstrip()
    while rest.startswith("--"):
        raw = heredoc.split_raw(rest, escape)[0]
        rest = rest[len(raw) :].lstrip()
        if raw == "--":
            break
        flags.append(_unquoted(raw[2:], escape))
    return tuple(flags), rest


def _unquoted(word: str, escape: str) -> str:
    result, quote, index = "", "", 0
    while index < len(word):
        char = word[index]
        if char == escape and quote != "'" and index + 1 < len(word):
            index += 1
            result += word[index]
        elif char == quote:
            quote = ""
        elif not quote and char in "\"'":
            quote = char
        else:
            result += char
        index += 1
    return result


def _check_keyword(written: str, at: Location) -> None:
    if written.upper() in KEYWORDS:
        return
    near = difflib.get_close_matches(written.upper(), KEYWORDS, 1)
    raise ContainerfileError(
        f"unknown instruction: {written}", file=at.file, line=at.line, hint=f"did you mean {near[0]}?" if near else None
    )


def _check_directives(source: SourceText) -> None:
    seen: set[str] = set()
    for key, value, index in heredoc.directives(source.lines):
        place = source.places[index]
        if key in seen:
            raise ContainerfileError(f"only one {key} parser directive can be used", file=place.file, line=place.line)
        if key == "escape" and value not in ("\\", "`"):
            raise ContainerfileError(
                f"invalid escape character: {value}", file=place.file, line=place.line, hint="it is \\ or `"
            )
        seen.add(key)
