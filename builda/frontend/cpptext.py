"""The text of a `.in` file as pcpp shall see it, and back.

Only real directives reach pcpp as such (`#if`; `# if the` is a comment). Comments, shebangs and parser directives
travel as placeholders. `//`, `/*` and line ends are guarded, so that URLs, globs and continuations survive.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

# Private-use characters: no identifier, no operator, no white space to pcpp.
LINE_END = "\ue00a"  # the end of a line of text: keeps a trailing backslash from joining lines
_GUARD = "\ue003"  # between two characters that would begin a comment
_OPEN, _CLOSE = "\ue001", "\ue002"  # a placeholder's number stands between them
RESERVED = re.compile("[\ue000-\ue00f]")
_DIRECTIVE = re.compile(
    r"[ \t]*#([ \t]*)(include|define|undef|ifdef|ifndef|if|elif|else|endif|error|warning)\b(.*)", re.S
)
_COMMENT = re.compile(r"/\*.*?\*/|//.*")
_NAME = r"[A-Za-z_]\w*"
_OPERAND = rf"(?:[!~(+-]\s*)*(?:defined\s*(?:\(\s*{_NAME}\s*\)|{_NAME})|{_NAME}(?:\s*\([^()]*\))?|\d\w*)(?:\s*\))*"
_EXPRESSION = rf"{_OPERAND}(?:\s*(?:[&|=!<>]=|&&|\|\||<<|>>|[-+*/%<>&|^?:])\s*{_OPERAND})*\s*\\?"
_FORM = {
    "include": re.compile(r"\"[^\"]+\"|<[^>]+>"),
    "define": re.compile(rf"{_NAME}(\(.*|\s.*|)", re.S),
    "undef": re.compile(_NAME),
    "ifdef": re.compile(_NAME),
    "ifndef": re.compile(_NAME),
    "if": re.compile(_EXPRESSION),
    "elif": re.compile(_EXPRESSION),
    "else": re.compile(""),
    "endif": re.compile(""),
    "error": re.compile(".*", re.S),
    "warning": re.compile(".*", re.S),
}
"""What stands behind each directive's word."""
_CODE = re.compile(rf"{_NAME}\(|[^a-z]*$|.*(defined|[=!<>]=|&&|\|\||[<>!])|[A-Z_][A-Z0-9_]*\b")
_ANY_NAME = re.compile(r"[A-Za-z_]\w*")
_SEEN_BY_PCPP = re.compile(r"\d[A-Za-z_]|[(),]")  # a number with a name behind it; the arguments of a macro's call
_OPENING = re.compile(r"[ \t]*/\*")
_BLOCK = re.compile(r"[\s*!]|$|\w+( |$)")  # what stands behind the /* of a comment of several lines
_TOKEN = re.compile(r"""\\.|"(?:\\.|[^"\\])*"|'[^']*'|(?<=\s)/\*(?=\s)""")
_LONGEST = 10_000  # characters of a line that is looked at closely for being a directive
_SPECIAL = re.compile(r"/[/*]|\?\?")  # comments, and what trigraphs begin with
_HASHED = re.compile(r"[ \t]*#([A-Za-z_]+)(.*)", re.S)
_LIKE = {
    "elseif": "elif",
    "elsif": "elif",
    "import": "include",
    "include_next": "include",
    "ifdefined": "ifdef",
    "end": "endif",
}
"""Directives of others, and what they are here."""
_PLACEHOLDER = re.compile(f"{_OPEN}([0-9]+){_CLOSE}")


def untouched_by(macros: Iterable[str], lines: tuple[str, ...]) -> Callable[[str], bool]:
    """Whether no macro can be in a line of text: pcpp, which is slow, need not see it then.

    Known only where `lines` include no file that may define others.
    """
    directives = [match for line in lines if "#" in line and (match := _DIRECTIVE.match(line))]
    if any(match[2] == "include" for match in directives):
        return lambda line: False
    names = {*macros, "__LINE__", *(name for match in directives for name in _ANY_NAME.findall(match[3]))}
    return lambda line: names.isdisjoint(_ANY_NAME.findall(line)) and _SEEN_BY_PCPP.search(line) is None


def encoded(
    lines: tuple[str, ...], kept: list[str], plain: Callable[[str], bool], doubtful: Callable[[int, str], None]
) -> list[str]:
    """`lines` as pcpp shall see them; what must survive untouched goes to `kept` and leaves a placeholder.

    So does what is `plain`. `doubtful` is told the index of each comment that could be meant as a directive, and of
    which.
    """
    result = list(_without_comments(lines))
    index = 0
    while index < len(lines):
        line = result[index]
        if line is None:
            result[index] = ""  # without LINE_END: the line goes
        elif (kind := _directive(line)) == "directive":
            while lines[index].endswith("\\") and index + 1 < len(lines):  # a directive's own continuation
                index += 1
                result[index] = lines[index]
        elif line.lstrip().startswith("#") or (line and plain(line)):
            if (word := _meant(line, kind)) is not None:
                doubtful(index, word)
            kept.append(line)
            result[index] = f"{_OPEN}{len(kept) - 1}{_CLOSE}{LINE_END}"
        elif index + 1 < len(lines) or line:
            result[index] = _SPECIAL.sub(_guarded, line) + LINE_END
        index += 1
    return [line or "" for line in result]


def _guarded(match: re.Match[str]) -> str:
    return match[0][0] + _GUARD + match[0][1]


def _directive(line: str) -> Literal["directive", "doubtful", "text"]:
    """What a line is to the preprocessor.

    With white space behind the `#` it is a directive only where its rest is that of one and no prose (a name in
    capitals, an operator): `# if the base is old` is prose, `# define V 1` a directive, `# define it` doubtful.
    """
    match = _DIRECTIVE.match(line)
    if match is None:
        return "text"
    blanks, word = match[1], match[2]
    if not blanks:
        return "directive"
    if len(line) > _LONGEST:
        return "text"
    rest = _COMMENT.sub("", match[3]).strip()
    if _FORM[word].fullmatch(rest) is None:
        return "text"
    if word in ("define", "undef", "if", "elif"):
        return "directive" if _CODE.match(rest) else "doubtful"
    return "doubtful" if word in ("error", "warning") else "directive"


def _meant(line: str, kind: Literal["doubtful", "text"]) -> str | None:
    """The directive that a comment may be meant as: one with white space, a capital or a wrong letter in its word."""
    if kind == "doubtful":
        match = _DIRECTIVE.match(line)
        return None if match is None else match[2]
    hashed = None if len(line) > _LONGEST else _HASHED.match(line)
    word = None if hashed is None else _nearest_directive(hashed[1].lower())
    if hashed is None or word is None:
        return None
    rest = _COMMENT.sub("", hashed[2]).strip()
    prose = word in ("define", "undef", "if", "elif") and _CODE.match(rest) is None
    return None if prose or _FORM[word].fullmatch(rest) is None else word


@lru_cache(1000)
def _nearest_directive(word: str) -> str | None:
    from difflib import get_close_matches

    known = [name for name in _FORM if name not in ("error", "warning")]  # prose begins with them
    near = [_LIKE[word]] if word in _LIKE else get_close_matches(word, known, 1, 0.8)
    return near[0] if near else None


def _without_comments(lines: tuple[str, ...]) -> Iterator[str | None]:
    """The lines without their `/* … */`; None for one that was nothing else.

    A comment begins its line and may have several, or stands behind white space and ends on the same line. Other `/*`
    are patterns of files.
    """
    inside = 0  # lines that still belong to a comment
    closings = [index for index, line in enumerate(lines) if "*/" in line]
    for index, line in enumerate(lines):
        if inside:
            inside -= 1
            line = "" if inside else line.partition("*/")[2]  # what is left of it
            yield line if line.strip() else None
            continue
        opening = _OPENING.match(line)
        if opening is None:
            yield line if _directive(line) == "directive" else _closed_comments_cut(line)
            continue
        end = _end_of_comment(line, index, opening.end(), closings)
        if end is None:
            yield line
        elif end > index:
            inside = end - index
            yield None
        else:
            rest = line[opening.end() :].partition("*/")[2]
            yield rest if rest.strip() else None


def _end_of_comment(line: str, index: int, at: int, closings: list[int]) -> int | None:
    """The index of the line in which the comment ends that begins at `line[at:]`; None if it is none.

    `closings` are the lines that hold a `*/`.
    """
    following = bisect_right(closings, index)
    if "*/" in line[at:] and re.match(r"[\s*!\w]", line[at : at + 1]):
        return index
    if not _BLOCK.match(line, at) or following == len(closings):
        return None
    return closings[following]


def _closed_comments_cut(line: str) -> str:
    """A line of text without comments behind white space that end on it; those in quotes are text."""
    if "/*" not in line or "*/" not in line or line.lstrip().startswith("#"):
        return line
    kept: list[str] = []
    copied = position = 0
    end = -1
    while (match := _TOKEN.search(line, position)) is not None:
        position = match.end()
        if match[0] != "/*":
            continue
        end = end if end >= position else line.find("*/", position)
        if end < 0:
            break
        if line[end - 1].isspace() and not line[end + 2 : end + 3].strip():
            kept.append(line[copied : match.start()])
            copied = position = end + 2
    return "".join((*kept, line[copied:])).rstrip() if kept else line


def decoded(line: str, kept: Sequence[str]) -> str:
    """A line that pcpp gave back, without guards, and with what `encoded` put into `kept`."""
    plain = line.replace(_GUARD, "").replace(LINE_END, "")
    return _PLACEHOLDER.sub(lambda match: kept[int(match[1])], plain)
