"""`Containerfile.in` to Containerfile, by pcpp, with the place of every line kept.

pcpp never sees what it would spoil. Only real directives reach it as such (`#if`; `# if the` is a comment); comments,
shebangs and parser directives travel as placeholders, and `//`, `/*` and line ends are guarded, so that URLs, globs and
continuations survive. Macros are replaced in the rest, outside quotes, as `cpp -traditional` does. The lines of
heredocs are no exception, as cpp knows nothing of them.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from io import StringIO

from builda.errors import ContainerfileError, InvalidValue
from builda.frontend.sourcetext import SIZE_LIMIT, SourceText, decode
from builda.plan import Location
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal, NoReturn

INCLUDE_DEPTH = 64
NOWHERE = Location("", 0)
OUTPUT_LINES = 1_000_000

# Private-use characters: no identifier, no operator, no white space to pcpp.
_END = "\ue00a"  # the end of a line of text: keeps a trailing backslash from joining lines
_GUARD = "\ue003"  # between two characters that would begin a comment
_OPEN, _CLOSE = "\ue001", "\ue002"  # a placeholder's number stands between them
_RESERVED = re.compile("[\ue000-\ue00f]")
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
_NEEDS_ARGUMENT = frozenset({"include", "define", "undef", "ifdef", "ifndef", "if", "elif"})
_NOT_EVALUATED = re.compile(r"could not evaluate expression due to .* \(passed to evaluator: '(.*)'\)", re.S)
_HINTS = {"unterminated": "the file ends before its #endif", "malformed #include": 'write #include "file" or <file>'}
"""Ways out of what pcpp complains of, by how its message begins."""
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


class Flags(NamedTuple):
    """The macros and directories of `--cpp-flag` and BUILDAH_CPPFLAGS."""

    macros: tuple[tuple[str, str | None], ...]  # in order; None undefines
    include_dirs: tuple[str, ...]


NO_FLAGS = Flags((), ())


class Preprocessed(NamedTuple):
    """The plain Containerfile, the `#warning`s on the way and the files that were read."""

    source: SourceText
    warnings: tuple[tuple[Location, str], ...]
    files: tuple[str, ...]


def parse_flags(environment: str, flags: tuple[str, ...]) -> Flags:
    """`environment` split as shell words, then `flags` one by one: -DNAME[=VALUE], -UNAME, -IDIR, -iquote DIR.

    Raises InvalidValue for every other flag, since none can be honoured.
    """
    try:
        words = [*shlex.split(environment), *flags]
    except ValueError as error:
        raise InvalidValue(f"BUILDAH_CPPFLAGS cannot be split into words: {error}") from error
    macros: list[tuple[str, str | None]] = []
    directories: list[str] = []
    rest = iter(words)
    for word in rest:
        match = re.fullmatch(r"(-iquote|-[DUI])\s*(.*)", word, re.S)
        if match is None:
            raise InvalidValue(f"preprocessor flag is not supported: {word}", hint="use -D, -U and -I")
        value = match[2] or next(rest, "")
        if not value:
            raise InvalidValue(f"preprocessor flag needs a value: {word}")
        if match[1] in ("-I", "-iquote"):
            directories.append(value)
        elif match[1] == "-D":
            name, equals, text = value.partition("=")
            macros.append((name, text if equals else "1"))
        else:
            macros.append((value, None))
    return Flags(tuple(macros), tuple(directories))


def read_include(path: str) -> bytes:
    """The first bytes of an included file, one more than a Containerfile may have; OSError when there is none.

    InvalidValue for what is no regular file, which is never opened for reading: a pipe or a device may do harm.
    """
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise InvalidValue(f"include file is not a regular file: {path}")
        with open(f"/proc/self/fd/{handle}", "rb") as file:
            return file.read(SIZE_LIMIT + 1)
    finally:
        os.close(handle)


def preprocess(
    data: bytes,
    file: str,
    *,
    context: str | None,
    flags: Flags = NO_FLAGS,
    read: Callable[[str], bytes] = read_include,
) -> Preprocessed:
    """Preprocess `data`, the content of `file`, to a Containerfile.

    `#include "x"` looks beside the including file, in `context`, then in the -I directories; `<x>` in the latter only.
    What is included must lie in one of these. Raises ContainerfileError at the line of the directive that fails.
    """
    engine = _engine(file, context, flags, read)
    text = decode(data, file)
    engine.files.append(file)
    engine.parse(engine.encode(text, file), os.path.abspath(file))
    source = _collect(engine)
    return Preprocessed(source, tuple(engine.warnings), tuple(dict.fromkeys(engine.files)))


def _collect(engine: Any) -> SourceText:
    """pcpp's tokens as lines; a line's place is that of its first token."""
    lines: list[str] = []
    places: list[Location] = []
    line, place = "", NOWHERE
    while (token := engine.token()) is not None:
        if place is NOWHERE:
            place = Location(engine.shown(token.source), token.lineno)
        head, *more = token.value.split("\n")
        line += head
        for following in more:
            if _END in line:  # a line of text; those of directives and of branches not taken vanish
                lines.append(engine.decode(line))
                places.append(place)
            line, place = following, place if following else NOWHERE
        if len(lines) > OUTPUT_LINES:
            raise ContainerfileError(
                f"preprocessing gives more than {OUTPUT_LINES} lines", file=places[-1].file, line=places[-1].line
            )
    return SourceText(tuple(lines), tuple(places), tuple(dict.fromkeys(engine.included)))


def _engine(file: str, context: str | None, flags: Flags, read: Callable[[str], bytes]) -> Any:
    """A pcpp preprocessor with our guards; a function, so that pcpp is imported only when a `.in` file comes."""
    from pcpp import Preprocessor

    class Engine(Preprocessor):  # type: ignore[misc]  # pcpp ships no types
        def __init__(self) -> None:
            super().__init__()
            self.files: list[str] = []
            self.warnings: list[tuple[Location, str]] = []
            self.included: list[tuple[str, Location]] = []
            self.kept: list[str] = []
            self.names = {os.path.abspath(file): file}
            self.stack: list[str] = []
            self.auto_pragma_once_enabled = False
            for name in ("__DATE__", "__TIME__", "__PCPP__"):  # the first two would make builds differ
                self.undef(name)
            for name, value in flags.macros:
                if value is None:
                    self.undef(name)
                else:
                    self.define(f"{name} {value}")
            for directory in ([context] if context else []) + list(flags.include_dirs):
                self.add_path(directory)
            self.rewrite_paths: list[tuple[str, str]] = []  # add_path made some; `shown` says how files are called
            self.system_path = [os.path.abspath(directory) for directory in flags.include_dirs]
            self.allowed = [os.path.dirname(os.path.abspath(file)), *map(os.path.abspath, self.path)]

        def shown(self, source: str) -> str:
            return self.names.get(source, source)

        def fail(self, token: Any, message: str, hint: str | None = None) -> NoReturn:
            raise ContainerfileError(message, file=self.shown(token.source), line=token.lineno, hint=hint)

        def encode(self, text: str, shown: str) -> str:
            if (bad := _RESERVED.search(text)) is not None:
                line = text.count("\n", 0, bad.start()) + 1
                raise ContainerfileError(f"reserved character U+{ord(bad[0]):04X}", file=shown, line=line)
            lines = tuple(text.split("\n"))
            plain = _untouched_by(self.macros, lines)
            return "\n".join(_encoded(lines, self.kept, plain, lambda index, word: self.doubt(shown, index + 1, word)))

        def doubt(self, shown: str, line: int, word: str) -> None:
            message = f"line is a comment, and reads like a directive; written as #{word} it is one"
            self.warnings.append((Location(shown, line), message))

        def define(self, tokens: Any) -> None:
            if isinstance(tokens, str) and tokens.startswith('__FILE__ "'):  # a full path would make builds differ
                tokens = f'__FILE__ "{self.beside(tokens[10:-1])}"'
            try:
                super().define(tokens)
            except IndexError:  # pcpp's way to meet an empty parameter of several, as in X(, b)
                message = "a parameter of the macro has no name"
                if isinstance(tokens, str):
                    raise InvalidValue(f"{message}: {tokens}") from None  # a --cpp-flag
                self.fail(tokens[0], message)

        def beside(self, path: str) -> str:
            top = os.path.abspath(context or os.path.dirname(file))
            return os.path.relpath(path, top) if _inside(path, top) else os.path.basename(path)

        def decode(self, line: str) -> str:
            plain = line.replace(_GUARD, "").replace(_END, "")
            return _PLACEHOLDER.sub(lambda match: self.kept[int(match[1])], plain)

        def on_comment(self, token: Any) -> bool:
            return True

        def on_error(self, source: str, line: int, message: str) -> None:
            text = message[:1].lower() + message[1:].rstrip()
            hint = next((hint for start, hint in _HINTS.items() if text.startswith(start)), None)
            if (refused := _NOT_EVALUATED.fullmatch(text)) is not None:
                text = f"condition cannot be evaluated: {self.decode(refused[1])}"
            raise ContainerfileError(text, file=self.shown(source), line=line, hint=hint)

        def on_directive_handle(self, directive: Any, tokens: Any, ifpassthru: bool, preceding: Any) -> bool:
            if directive.value in _NEEDS_ARGUMENT and not tokens:
                self.fail(directive, f"#{directive.value} needs an argument")
            if directive.value == "include":
                self.place = directive
            return True

        def on_directive_unknown(self, directive: Any, tokens: Any, ifpassthru: bool, preceding: Any) -> bool:
            message = self.decode("".join(token.value for token in tokens)).strip()
            if directive.value == "error":
                self.fail(directive, f"#error {message}")
            self.warnings.append((Location(self.shown(directive.source), directive.lineno), f"#warning {message}"))
            return True

        def on_include_not_found(self, malformed: bool, system: bool, directory: str, path: str) -> None:
            if malformed or not path:
                self.fail(self.place, f"malformed #include: {path}", _HINTS["malformed #include"])
            where = "the -I directories" if system else "beside this file, in the context and the -I directories"
            self.fail(self.place, f"no such include file: {path}", f"looked {where if not system else 'in ' + where}")

        def on_file_open(self, system: bool, path: str) -> StringIO:
            if system and not any(_inside(path, directory) for directory in self.system_path):
                raise FileNotFoundError(path)
            if os.path.isdir(path):  # as for cpp, also where "" names the directory that is searched
                raise FileNotFoundError(path)
            real = os.path.realpath(path)
            if not any(_inside(real, os.path.realpath(directory)) for directory in self.allowed):
                os.stat(path)
                self.fail(
                    self.place, f"include file lies outside the context: {path}", "add its directory with --cpp-flag -I"
                )
            try:
                data = read(real)
            except InvalidValue as error:
                self.fail(self.place, str(error))
            if self.include_depth >= INCLUDE_DEPTH:
                self.fail(
                    self.place,
                    f"includes are nested more than {INCLUDE_DEPTH} deep: {path}",
                    "does a file include itself?",
                )
            shown = os.path.relpath(path) if not os.path.isabs(file) else path
            self.names[path] = shown
            self.included.append((shown, Location(self.shown(self.place.source), self.place.lineno)))
            self.files.append(path)
            return StringIO(self.encode(decode(data, shown), shown))

    return Engine()


def _inside(path: str, directory: str) -> bool:
    return os.path.commonpath((path, directory)) == directory


def _untouched_by(macros: Iterable[str], lines: tuple[str, ...]) -> Callable[[str], bool]:
    """Whether no macro can be in a line of text: pcpp, which is slow, need not see it then.

    Known only where `lines` include no file that may define others.
    """
    directives = [match for line in lines if "#" in line and (match := _DIRECTIVE.match(line))]
    if any(match[2] == "include" for match in directives):
        return lambda line: False
    names = {*macros, "__LINE__", *(name for match in directives for name in _ANY_NAME.findall(match[3]))}
    return lambda line: names.isdisjoint(_ANY_NAME.findall(line)) and _SEEN_BY_PCPP.search(line) is None


def _encoded(
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
            result[index] = ""  # without _END: the line goes
        elif (kind := _directive(line)) == "directive":
            while lines[index].endswith("\\") and index + 1 < len(lines):  # a directive's own continuation
                index += 1
                result[index] = lines[index]
        elif line.lstrip().startswith("#") or (line and plain(line)):
            if (word := _meant(line, kind)) is not None:
                doubtful(index, word)
            kept.append(line)
            result[index] = f"{_OPEN}{len(kept) - 1}{_CLOSE}{_END}"
        elif index + 1 < len(lines) or line:
            result[index] = _SPECIAL.sub(_guarded, line) + _END
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
