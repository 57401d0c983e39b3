"""Logical lines and heredocs: the scanner that the parser works on.

Continuations and the `<<` rule are BuildKit's: a heredoc is a whole shell word `[fd]<<[-]NAME`, so `cat<<EOF` is none;
white space may stand behind the `<<` where a plain name follows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from builda.errors import InvalidValue
from builda.frontend import words
from builda.frontend.execform import NotStrings, exec_form
from builda.values import NamedTuple

_MARK = r"(?s)([0-9]{0,9})<<(-?)([^<]*)"
_MARK_ALONE = r"[0-9]{0,9}<<"
_PLAIN_NAME = r"\\?[A-Za-z_][\w.-]*"
_HEREDOC_INSTRUCTION = r"(?is)\s*(?:ONBUILD\s+)?(?:RUN|COPY|ADD)\s+(.*)"
_DIRECTIVE = r"(?s)#\s*([A-Za-z][A-Za-z0-9]*)\s*=(.*)"


class Mark(NamedTuple):
    """One `<<NAME` in an instruction."""

    name: str
    expand: bool
    strip_tabs: bool
    fd: int


class Logical(NamedTuple):
    """One instruction's physical lines by index, or one comment or blank line (`joined` is None)."""

    first: int
    body: tuple[int, ...]  # lines that belong to the instruction, without comments and blank lines between them
    skipped: tuple[int, ...]  # those comments and blank lines
    joined: str | None
    heredocs: tuple[tuple[Mark, tuple[int, ...]], ...]  # with the indexes of each heredoc's lines, terminator excluded
    end: int  # index after the last line
    unterminated: Mark | None = None


def directives(lines: tuple[str, ...]) -> tuple[tuple[str, str, int], ...]:
    """Parser directives at the top (`# key=value`): lower-case key, value, line index; any other line ends them."""
    found: list[tuple[str, str, int]] = []
    for index, line in enumerate(lines):
        if index == 0 and line.startswith("#!"):
            continue
        match = re.match(_DIRECTIVE, line.lstrip())
        if match is None or match[1].lower() not in ("syntax", "escape", "check"):
            break
        found.append((match[1].lower(), match[2].strip(), index))
    return tuple(found)


def escape_of(lines: tuple[str, ...]) -> str:
    """The escape character: a backslash unless `# escape=` says a backtick."""
    return next((value for key, value, _ in directives(lines) if key == "escape" and value in ("\\", "`")), "\\")


def iter_logical(lines: tuple[str, ...], escape: str = "\\") -> Iterator[Logical]:
    """The logical lines of a Containerfile, in order."""
    index = 0
    while index < len(lines):
        if is_skipped(lines[index]):
            yield Logical(index, (index,), (), None, (), index + 1)
            index += 1
            continue
        logical = _instruction(lines, index, escape)
        yield logical
        index = logical.end


def is_skipped(line: str) -> bool:
    """Whether a line is blank or a comment, between instructions or inside a continued one."""
    text = line.strip(words.BLANK)
    return not text or text.startswith("#")


def _continued(line: str, escape: str) -> str | None:
    """The line without the escape at its end; None if no escape ends it, or two of them."""
    text = line.rstrip(" \t")
    if not text.endswith(escape) or text.endswith(escape * 2):
        return None
    return text[:-1]


def _instruction(lines: tuple[str, ...], first: int, escape: str) -> Logical:
    body, skipped, parts = [first], [], []
    index = first
    while True:
        part = _continued(lines[index], escape)
        parts.append(lines[index] if part is None else part)
        index += 1
        while part is not None and index < len(lines) and is_skipped(lines[index]):
            skipped.append(index)
            index += 1
        if part is None or index == len(lines):
            break
        body.append(index)
    joined = "".join(parts)
    heredocs, index, unterminated = _heredocs(lines, index, marks_of(joined))
    return Logical(first, tuple(body), tuple(skipped), joined, heredocs, index, unterminated)


def _heredocs(
    lines: tuple[str, ...], index: int, marks: tuple[Mark, ...]
) -> tuple[tuple[tuple[Mark, tuple[int, ...]], ...], int, Mark | None]:
    found: list[tuple[Mark, tuple[int, ...]]] = []
    for mark in marks:
        content: list[int] = []
        while index < len(lines) and (lines[index].lstrip("\t") if mark.strip_tabs else lines[index]) != mark.name:
            content.append(index)
            index += 1
        if index == len(lines):
            return tuple(found), index, mark
        found.append((mark, tuple(content)))
        index += 1
    return tuple(found), index, None


def marks_of(joined: str) -> tuple[Mark, ...]:
    """The heredocs that an instruction opens; none unless it is RUN, COPY or ADD (or those under ONBUILD)."""
    if "<<" not in joined or not (match := re.match(_HEREDOC_INSTRUCTION, joined)):
        return ()
    if words.has_open_quote(match[1]) or _is_exec_form(match[1]):
        return ()
    return tuple(mark for mark, _ in marks_in(words.parts(match[1])) if mark is not None)


def _is_exec_form(value: str) -> bool:
    """Whether a value, behind its flags, is a JSON array, which has no heredocs."""
    while value.startswith("--"):
        value = value[len(words.first_part(value)) :].lstrip(words.BLANK)
    try:
        return exec_form(value) is not None
    except NotStrings:
        return True


def marks_in(parts: tuple[str, ...]) -> Iterator[tuple[Mark | None, str]]:
    """Each word with the heredoc that it opens, if any. `<<` and a plain name after it count as one word."""
    index = 0
    while index < len(parts):
        word = parts[index]
        index += 1
        if re.fullmatch(_MARK_ALONE, word) and index < len(parts) and re.fullmatch(_PLAIN_NAME, _bare(parts[index])):
            word = word + parts[index]
            index += 1
        yield mark_of(word), word


def mark_of(word: str) -> Mark | None:
    """The heredoc that one word opens."""
    match = re.fullmatch(_MARK, word)
    if match is None or not match[3]:
        return None
    try:
        names = words.split(match[3], lambda name: None)
    except InvalidValue:
        return None
    if len(names) != 1 or not names[0]:
        return None
    quoted = any(char in match[3] for char in "\"'")
    return Mark(names[0], not quoted, match[2] == "-", int(match[1] or 0))


def _bare(word: str) -> str:
    return re.sub(r"""["']""", "", word)
