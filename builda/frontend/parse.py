"""Text to instructions: heredocs are lifted out first, dockerfile-parse splits the rest, and heredocs are put back.

dockerfile-parse ends a continuation at a blank line, goes on behind two escapes and would read heredoc bodies as
instructions, so it only ever sees instructions, each on one line; no other module knows it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from io import BytesIO

from builda.errors import ContainerfileError
from builda.frontend import heredoc
from builda.frontend.sourcetext import SourceText
from builda.frontend.words import BLANK, first_part
from builda.plan import Location
from builda.values import NamedTuple

KEYWORDS = (
    "ADD ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL MAINTAINER ONBUILD RUN SHELL STOPSIGNAL USER "
    "VOLUME WORKDIR"
).split()

_LONGEST = 12
"""Lines of an instruction that an excerpt shows."""
_WIDEST = 200
_FIRST = rf"(?s)([^{BLANK}]+)(?:[{BLANK}]+(.*))?"
_ODD_ASCII = "\x1c\x1d\x1e\x1f\r"
_ODD_SPACE = rf"[{_ODD_ASCII}\x85\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"
_HIDING = 0xF0000  # such white space is private characters to dockerfile-parse
_HIDDEN = r"[\U000f0000-\U000f3fff]"
_END = "\ue00f"
_CONTROL = r"[\x00-\x1f\x7f-\x9f]"


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
    comments: Mapping[Location, tuple[str, ...]]  # above an instruction, each without its #; "" is a blank line


def parse(source: SourceText) -> Parsed:
    """The instructions of `source`; ContainerfileError with file and line for a line that is none."""
    _check_directives(source)
    escape = heredoc.escape_of(source.lines)
    scanned = tuple(heredoc.iter_logical(source.lines, escape))
    logical = tuple(item for item in scanned if item.joined is not None)
    if not logical:
        place = source.places[0] if source.places else Location("Containerfile", 1)
        raise ContainerfileError("Containerfile has no instructions", file=place.file, line=place.line)
    return Parsed(
        instructions=tuple(_instructions(source, logical, escape)),
        escape=escape,
        directives=tuple((key, value, source.places[i]) for key, value, i in heredoc.directives(source.lines)),
        empty_continuations=tuple(
            source.places[max(item.body[-1], item.skipped[-1])]
            for item in logical
            if any(not source.lines[i].strip(BLANK) for i in item.skipped)
        ),
        comments=_comments(source, scanned),
    )


def parse_line(text: str, at: Location, heredocs: tuple[Heredoc, ...] = (), escape: str = "\\") -> Instruction:
    """One instruction on one line: the argument of ONBUILD, a `--change`."""
    keyword, value = _halves(text)
    if not keyword:
        raise ContainerfileError("empty instruction", file=at.file, line=at.line)
    flags, value = _flags(value, escape)
    _check_keyword(keyword, at)
    return Instruction(keyword.upper(), flags, value, heredocs, at, keyword)


def _halves(text: str) -> tuple[str, str]:
    """The first word and what follows it."""
    found = re.match(_FIRST, text.strip(BLANK))
    return ("", "") if found is None else (found[1], found[2] or "")


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
    line = re.sub(_CONTROL, "\ufffd", source.lines[index].expandtabs(4))
    shown = line if len(line) <= _WIDEST else f"{line[:_WIDEST]}…"
    return f"{'>' if marked else ' '} {source.places[index].line:4} | {shown}".rstrip()


def _comments(source: SourceText, scanned: tuple[heredoc.Logical, ...]) -> dict[Location, tuple[str, ...]]:
    directives = {index for _, _, index in heredoc.directives(source.lines)}
    found: dict[Location, tuple[str, ...]] = {}
    comments: list[str] = []
    for item in scanned:
        text = source.lines[item.first].strip(BLANK)
        if item.joined is not None:
            if comments:
                found[source.places[item.first]] = tuple(comments)
            comments = []
        elif text == "#":
            comments = []
        elif comments or text:
            comments += [] if item.first in directives else [text[1:].strip()]
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
    for item, (written, value) in zip(logical, _split(logical), strict=True):
        at = source.places[item.first]
        _check_keyword(written, at)
        flags, rest = _flags(value, escape)
        heredocs = tuple(_heredoc(source, mark, body) for mark, body in item.heredocs)
        found.append(Instruction(written.upper(), flags, rest, heredocs, at, written))
    return found


def _split(logical: tuple[heredoc.Logical, ...]) -> list[tuple[str, str]]:
    """Keyword as written and value of each logical line, split by dockerfile-parse.

    It gets each on one line with a mark at the end, so that a last backslash continues nothing, and none of the white
    space that separates no words.
    """
    from builda.frontend.splitter import parser_class

    lines = [_hidden((item.joined or "").strip(BLANK)) for item in logical]
    with BytesIO("".join(f"{line}{_END}\n" for line in lines).encode()) as fileobj:
        structure = parser_class()(fileobj=fileobj, env_replace=False).structure
    entries = [(entry["content"].split(None, 1)[0], entry["value"] or "") for entry in structure]
    return [
        (_shown(keyword.removesuffix(_END)), _shown(value.removesuffix(_END).strip(BLANK)))
        for keyword, value in entries
    ]


def _hidden(text: str) -> str:
    if text.isascii() and not any(space in text for space in _ODD_ASCII):
        return text
    return re.sub(_ODD_SPACE, lambda match: chr(_HIDING + ord(match[0])), text)


def _shown(text: str) -> str:
    return text if text.isascii() else re.sub(_HIDDEN, lambda match: chr(ord(match[0]) - _HIDING), text)


def _heredoc(source: SourceText, mark: heredoc.Mark, body: tuple[int, ...]) -> Heredoc:
    lines = [source.lines[i].lstrip("\t") if mark.strip_tabs else source.lines[i] for i in body]
    return Heredoc(mark.name, "".join(f"{line}\n" for line in lines), mark.expand, mark.fd)


def _flags(value: str, escape: str) -> tuple[tuple[str, ...], str]:
    """`--name[=value]` words at the start of a value, quotes taken off them, and what follows."""
    flags: list[str] = []
    rest = value.strip(BLANK)
    while rest.startswith("--"):
        raw = first_part(rest, escape)
        rest = rest[len(raw) :].lstrip(BLANK)
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
    from difflib import get_close_matches  # which is for errors only

    near = get_close_matches(written.upper(), KEYWORDS, 1)
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
