"""pcpp with builda's guards: what it may include, how it reports errors, and which texts it sees."""

from __future__ import annotations

import os
import re
from io import StringIO

from pcpp import Preprocessor

from builda.errors import ContainerfileError, InvalidValue
from builda.frontend.cpptext import RESERVED, decoded, encoded, untouched_by
from builda.frontend.sourcetext import decode
from builda.plan import Location

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from builda.frontend.cppflags import Flags

INCLUDE_DEPTH = 64
_NEEDS_ARGUMENT = frozenset({"include", "define", "undef", "ifdef", "ifndef", "if", "elif"})
_NOT_EVALUATED = re.compile(r"could not evaluate expression due to .* \(passed to evaluator: '(.*)'\)", re.S)
_HINTS = {"unterminated": "the file ends before its #endif", "malformed #include": 'write #include "file" or <file>'}
"""Ways out of what pcpp complains of, by how its message begins."""


class Engine(Preprocessor):  # type: ignore[misc]  # pcpp ships no types
    """A pcpp preprocessor of one file, which reads includes by `read` from the allowed directories only."""

    def __init__(self, file: str, context: str | None, flags: Flags, read: Callable[[str], bytes]) -> None:
        super().__init__()
        self._file, self._context, self._read = file, context, read
        self.files: list[str] = []
        self.warnings: list[tuple[Location, str]] = []
        self.included: list[tuple[str, Location]] = []
        self._kept: list[str] = []
        self._names = {os.path.abspath(file): file}
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
        self._system_path = [os.path.abspath(directory) for directory in flags.include_dirs]
        self._allowed = [os.path.dirname(os.path.abspath(file)), *map(os.path.abspath, self.path)]

    def shown(self, source: str) -> str:
        """What the user calls a file that pcpp read."""
        return self._names.get(source, source)

    def _fail(self, token: Any, message: str, hint: str | None = None) -> NoReturn:
        raise ContainerfileError(message, file=self.shown(token.source), line=token.lineno, hint=hint)

    def encode(self, text: str, shown: str) -> str:
        """The text of a file for pcpp; ContainerfileError if it has characters that builda puts there itself."""
        if (bad := RESERVED.search(text)) is not None:
            line = text.count("\n", 0, bad.start()) + 1
            raise ContainerfileError(f"reserved character U+{ord(bad[0]):04X}", file=shown, line=line)
        lines = tuple(text.split("\n"))
        plain = untouched_by(self.macros, lines)
        return "\n".join(encoded(lines, self._kept, plain, lambda index, word: self._doubt(shown, index + 1, word)))

    def _doubt(self, shown: str, line: int, word: str) -> None:
        message = f"line is a comment, and reads like a directive; written as #{word} it is one"
        self.warnings.append((Location(shown, line), message))

    def define(self, tokens: Any) -> None:
        if isinstance(tokens, str) and tokens.startswith('__FILE__ "'):  # a full path would make builds differ
            tokens = f'__FILE__ "{self._beside(tokens[10:-1])}"'
        try:
            super().define(tokens)
        except IndexError:  # pcpp's way to meet an empty parameter of several, as in X(, b)
            message = "a parameter of the macro has no name"
            if isinstance(tokens, str):
                raise InvalidValue(f"{message}: {tokens}") from None  # a --cpp-flag
            self._fail(tokens[0], message)

    def _beside(self, path: str) -> str:
        top = os.path.abspath(self._context or os.path.dirname(self._file))
        return os.path.relpath(path, top) if _inside(path, top) else os.path.basename(path)

    def decode(self, line: str) -> str:
        """A line that pcpp gave back, as it is in the Containerfile."""
        return decoded(line, self._kept)

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
            self._fail(directive, f"#{directive.value} needs an argument")
        if directive.value == "include":
            self._place = directive
        return True

    def on_directive_unknown(self, directive: Any, tokens: Any, ifpassthru: bool, preceding: Any) -> bool:
        message = self.decode("".join(token.value for token in tokens)).strip()
        if directive.value == "error":
            self._fail(directive, f"#error {message}")
        self.warnings.append((Location(self.shown(directive.source), directive.lineno), f"#warning {message}"))
        return True

    def on_include_not_found(self, malformed: bool, system: bool, directory: str, path: str) -> None:
        if malformed or not path:
            self._fail(self._place, f"malformed #include: {path}", _HINTS["malformed #include"])
        where = "the -I directories" if system else "beside this file, in the context and the -I directories"
        self._fail(self._place, f"no such include file: {path}", f"looked {where if not system else 'in ' + where}")

    def on_file_open(self, system: bool, path: str) -> StringIO:
        if system and not any(_inside(path, directory) for directory in self._system_path):
            raise FileNotFoundError(path)
        if os.path.isdir(path):  # as for cpp, also where "" names the directory that is searched
            raise FileNotFoundError(path)
        real = os.path.realpath(path)
        if not any(_inside(real, os.path.realpath(directory)) for directory in self._allowed):
            os.stat(path)
            self._fail(
                self._place, f"include file lies outside the context: {path}", "add its directory with --cpp-flag -I"
            )
        try:
            data = self._read(real)
        except InvalidValue as error:
            self._fail(self._place, str(error))
        if self.include_depth >= INCLUDE_DEPTH:
            self._fail(
                self._place,
                f"includes are nested more than {INCLUDE_DEPTH} deep: {path}",
                "does a file include itself?",
            )
        shown = os.path.relpath(path) if not os.path.isabs(self._file) else path
        self._names[path] = shown
        self.included.append((shown, Location(self.shown(self._place.source), self._place.lineno)))
        self.files.append(path)
        return StringIO(self.encode(decode(data, shown), shown))


def _inside(path: str, directory: str) -> bool:
    return os.path.commonpath((path, directory)) == directory
