"""Logical lines and heredocs: the one scanner that the preprocessor and the parser share.

Word splitting and the `<<` rule are those of the Dockerfile reference ("Here-Documents"): a heredoc is a whole shell
word `[fd]<<[-]NAME`, so `cat<<EOF` and `<< EOF` are none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_MARK = re.compile(r"(\d*)<<(-?)([^<]+)")
_HEREDOC_INSTRUCTION = re.compile(r"\s*(?:ONBUILD\s+)?(?:RUN|COPY|ADD)\s", re.IGNORECASE)
_DIRECTIVE = re.compile(r"#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.*?)\s*$")
_KEYWORD_ALONE = re.compile(r"\s*\S+$")


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
    text: tuple[str, ...]  # the lines of `body`, without a continuation that leads nowhere
    heredocs: tuple[tuple[Mark, tuple[int, ...]], ...]  # with the indexes of each heredoc's lines, terminator excluded
    end: int  # index after the last line
    unterminated: Mark | None = None


def directives(lines: tuple[str, ...]) -> tuple[tuple[str, str, int], ...]:
    """Parser directives at the top (`# key=value`): lower-case key, value, line index; any other line ends them."""
    found: list[tuple[str, str, int]] = []
    for index, line in enumerate(lines):
        if index == 0 and line.startswith("#!"):
            continue
        match = _DIRECTIVE.match(line.lstrip())
        if match is None or match[1].lower() not in ("syntax", "escape", "check"):
            break
        found.append((match[1].lower(), match[2], index))
    return tuple(found)


def escape_of(lines: tuple[str, ...]) -> str:
    """The escape character: a backslash unless `# escape=` says a backtick."""
    return next((value for key, value, _ in directives(lines) if key == "escape" and value in ("\\", "`")), "\\")


def iter_logical(lines: tuple[str, ...], escape: str = "\\") -> Iterator[Logical]:
    """The logical lines of a Containerfile, in order."""
    continued = re.compile(rf"{re.escape(escape)}[ \t]*$")
    index = 0
    while index < len(lines):
        line = lines[index]
        if not line.strip() or line.lstrip().startswith("#"):
            yield Logical(index, (index,), (), None, (), (), index + 1)
            index += 1
            continue
        logical = _instruction(lines, index, continued, escape)
        yield logical
        index = logical.end


def _instruction(lines: tuple[str, ...], first: int, continued: re.Pattern[str], escape: str) -> Logical:
    body, skipped, parts = [first], [], []
    index = first
    while True:
        line = lines[index]
        goes_on = continued.search(line)
        parts.append(line[: goes_on.start()] if goes_on else line)
        index += 1
        while goes_on and index < len(lines) and (not lines[index].strip() or lines[index].lstrip().startswith("#")):
            skipped.append(index)
            index += 1
        if not goes_on or index == len(lines):
            break
        body.append(index)
    text = [lines[i] for i in body]
    if goes_on:
        text[-1] = parts[-1]
    if len(text) > 1 and _KEYWORD_ALONE.match(parts[0]):  # `RUN\\` and its value on the next line
        text[0] = f"{parts[0]} {escape}"
    joined = "".join(parts)
    heredocs, index, unterminated = _heredocs(lines, index, marks_of(joined, escape))
    return Logical(first, tuple(body), tuple(skipped), joined, tuple(text), heredocs, index, unterminated)


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


def marks_of(joined: str, escape: str = "\\") -> tuple[Mark, ...]:
    """The heredocs that an instruction opens; none unless it is RUN, COPY or ADD (or those under ONBUILD)."""
    if "<<" not in joined or not _HEREDOC_INSTRUCTION.match(joined):
        return ()
    marks = []
    for word in split_raw(joined, escape):
        match = _MARK.fullmatch(word)
        if match is None:
            continue
        name = re.sub(r"""["']""", "", match[3])
        if name:
            marks.append(Mark(name, name == match[3], match[2] == "-", int(match[1] or 0)))
    return tuple(marks)


def split_raw(text: str, escape: str = "\\") -> tuple[str, ...]:
    """`text` at white space outside quotes; quotes and escapes stay in the words."""
    words: list[str] = []
    word, quote, index = "", "", 0
    while index < len(text):
        char = text[index]
        if char == escape and quote != "'" and index + 1 < len(text):
            word += text[index : index + 2]
            index += 2
            continue
        if not quote and char.isspace():
            if word:
                words.append(word)
            word = ""
        else:
            if char == quote:
                quote = ""
            elif not quote and char in "\"'":
                quote = char
            word += char
        index += 1
    return (*words, word) if word else tuple(words)
