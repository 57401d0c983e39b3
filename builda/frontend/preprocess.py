"""`Containerfile.in` to Containerfile, by pcpp, with the place of every line kept.

pcpp never sees what it would spoil. Only real directives reach it as such (`#if`; `# if the` is a comment); comments,
shebangs, parser directives and heredoc bodies travel as placeholders, and `//`, `/*` and line ends are guarded, so that
URLs, globs and continuations survive. Macros are replaced in the rest, outside quotes, as `cpp -traditional` does.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from io import StringIO
from typing import Any, NamedTuple, NoReturn

from builda.errors import ContainerfileError, InvalidValue
from builda.frontend import heredoc
from builda.frontend.source import SourceText, decode
from builda.plan import Location

INCLUDE_DEPTH = 64
NOWHERE = Location("", 0)
OUTPUT_LINES = 1_000_000

# Private-use characters: no identifier, no operator, no white space to pcpp.
_END = "\ue00a"  # the end of a line of text: keeps a trailing backslash from joining lines
_GUARD = "\ue003"  # between two characters that would begin a comment
_OPEN, _CLOSE = "\ue001", "\ue002"  # a placeholder's number stands between them
_RESERVED = re.compile("[\ue000-\ue00f]")
_DIRECTIVE = re.compile(r"[ \t]*#(include|define|undef|ifdef|ifndef|if|elif|else|endif|error|warning)\b(.*)", re.S)
_NEEDS_ARGUMENT = frozenset({"include", "define", "undef", "ifdef", "ifndef", "if", "elif"})
_PLACEHOLDER = re.compile(f"{_OPEN}([0-9]+){_CLOSE}")


class Flags(NamedTuple):
    """What `--cpp-flag` and BUILDAH_CPPFLAGS say."""

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
    """The bytes of an included file; OSError when there is none."""
    with open(path, "rb") as file:
        return file.read()


def preprocess(
    data: bytes,
    file: str,
    *,
    context: str | None,
    flags: Flags = NO_FLAGS,
    read: Callable[[str], bytes] = read_include,
) -> Preprocessed:
    """The Containerfile that `data`, found in `file`, stands for.

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
            return "\n".join(_encoded(tuple(text.split("\n")), self.kept))

        def decode(self, line: str) -> str:
            plain = line.replace(_GUARD, "").replace(_END, "")
            return _PLACEHOLDER.sub(lambda match: self.kept[int(match[1])], plain)

        def on_comment(self, token: Any) -> bool:
            return True

        def on_error(self, source: str, line: int, message: str) -> None:
            text = message[:1].lower() + message[1:].rstrip()
            hint = "the file ends before its #endif" if text.startswith("unterminated") else None
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
            if malformed:
                self.fail(self.place, f"malformed #include: {path}", 'write #include "file" or #include <file>')
            where = "the -I directories" if system else "beside this file, in the context and the -I directories"
            self.fail(self.place, f"no such include file: {path}", f"looked {where if not system else 'in ' + where}")

        def on_file_open(self, system: bool, path: str) -> StringIO:
            if system and not any(_inside(path, directory) for directory in self.system_path):
                raise FileNotFoundError(path)
            data = read(path)
            real = os.path.realpath(path)
            if not any(_inside(real, os.path.realpath(directory)) for directory in self.allowed):
                self.fail(
                    self.place, f"include file lies outside the context: {path}", "add its directory with --cpp-flag -I"
                )
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


def _encoded(lines: tuple[str, ...], kept: list[str]) -> list[str]:
    """`lines` as pcpp shall see them; what must survive untouched goes to `kept` and leaves a placeholder."""
    result = list(lines)
    verbatim = {i for item in _logical_around_directives(lines) for i in _verbatim_lines(item, lines)}
    index = 0
    while index < len(lines):
        if index in verbatim:
            kept.append(lines[index])
            result[index] = f"{_OPEN}{len(kept) - 1}{_CLOSE}{_END}"
        elif _DIRECTIVE.match(lines[index]):
            while lines[index].endswith("\\") and index + 1 < len(lines):  # a directive's own continuation
                index += 1
        elif index + 1 < len(lines) or lines[index]:
            result[index] = lines[index].replace("/*", f"/{_GUARD}*").replace("//", f"/{_GUARD}/") + _END
        index += 1
    return result


def _logical_around_directives(lines: tuple[str, ...]) -> list[heredoc.Logical]:
    """Logical lines of the text between directives: comments, instructions with their heredocs."""
    escape = heredoc.escape_of(lines)
    return list(heredoc.iter_logical(lines, escape))


def _verbatim_lines(item: heredoc.Logical, lines: tuple[str, ...]) -> list[int]:
    """Indexes of comments (directives are none) and of heredoc bodies with their terminators."""
    comments = item.skipped if item.joined is not None else item.body
    found = [i for i in comments if lines[i].strip() and not _DIRECTIVE.match(lines[i])]
    if item.heredocs:
        found.extend(range(max(*item.body, *item.skipped, 0) + 1, item.end))
    return found
