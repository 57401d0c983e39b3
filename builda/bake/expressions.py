"""Texts of bake files with `${…}`, in the part of HCL's expressions that has a meaning without HCL's own functions.

A text that is one expression has its value, of whatever type; others are texts with values put in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from builda.bake.documents import SIZE_LIMIT, Place, fault, kind_of
from builda.bake.functions import FUNCTIONS, as_text
from builda.errors import InvalidValue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    Names: TypeAlias = Callable[[str], Any]

DEPTH_LIMIT = 30
"""How deep expressions may be nested; each level takes a dozen of the interpreter's."""
_HINT = "docker buildx bake --print writes the file with all values in it"
_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?)|(?P<name>[A-Za-z_][\w-]*)|(?P<operator>==|!=|<=|>=|&&|\|\||[-+*/%<>!?:().,\[\]\"]))"
)
_LEVELS: tuple[tuple[str, ...], ...] = (
    ("||",),
    ("&&",),
    ("==", "!="),
    ("<", ">", "<=", ">="),
    ("+", "-"),
    ("*", "/", "%"),
)


def evaluate(text: str, place: Place, names: Names) -> Any:
    """The value of a text; `names` gives those of variables, and raises KeyError for what is none."""
    if "${" not in text and "%{" not in text:
        return text
    return _Template(text, place, names, 0).value()


class _Template:
    """A text in which `${…}` are expressions, `$${` is `${`."""

    def __init__(self, text: str, place: Place, names: Names, depth: int, at: int = 0) -> None:
        self._text = text
        self._place = place
        self._names = names
        self._depth = depth
        self._at = at

    def value(self) -> Any:
        """The value of the whole text."""
        parts = self._parts(end="")
        if len(parts) == 1 and not isinstance(parts[0], _Literal):
            return parts[0]
        return self._joined(parts)

    def quoted(self) -> tuple[str, int]:
        """The value of a text up to a closing quote, and the place behind it."""
        parts = self._parts(end='"')
        return self._joined(parts), self._at + 1

    def _joined(self, parts: list[Any]) -> str:
        found = ""
        for part in parts:
            try:
                found += part.text if isinstance(part, _Literal) else as_text(part)
            except InvalidValue as error:
                raise fault(self._place, f"what is put into a text is {error}: {self._text}") from error
            if len(found) > SIZE_LIMIT:
                raise fault(self._place, f"text is longer than the limit, {SIZE_LIMIT} characters")
        return found

    def _parts(self, end: str) -> list[Any]:
        parts: list[Any] = []
        plain = ""
        while self._at < len(self._text):
            rest = self._text[self._at : self._at + 3]
            if end and rest[0] == end:
                break
            if rest in ("$${", "%%{"):
                plain, self._at = plain + rest[1:], self._at + 3
            elif rest[:2] == "%{":
                raise fault(self._place, f"directives in texts are not supported: {self._text}", _HINT)
            elif rest[:2] == "${":
                if plain:
                    parts, plain = [*parts, _Literal(plain)], ""
                inner = _Expression(self._text, self._at + 2, self._place, self._names, self._depth + 1)
                parts.append(inner.value())
                self._at = inner.closed()
            elif end and rest[0] == "\\" and len(rest) > 1:
                plain, self._at = plain + {"n": "\n", "t": "\t", "r": "\r"}.get(rest[1], rest[1]), self._at + 2
            else:
                plain, self._at = plain + rest[0], self._at + 1
        else:
            if end:
                raise fault(self._place, f"expression has a text that does not end: {self._text}")
        return [*parts, _Literal(plain)] if plain or not parts else parts


class _Literal:
    """What stands between expressions."""

    def __init__(self, text: str) -> None:
        self.text = text


class _Expression:
    def __init__(self, text: str, at: int, place: Place, names: Names, depth: int) -> None:
        self._text = text
        self._at = at
        self._place = place
        self._names = names
        self._depth = depth
        self._kind = self._token = ""
        self._ahead()

    def closed(self) -> int:
        """The place behind the brace that ends the expression."""
        found = re.compile(r"\s*\}").match(self._text, self._before)
        if found is None:
            raise self._wrong()
        return found.end()

    def _wrong(self) -> InvalidValue:
        return fault(self._place, f"expression cannot be read: {self._text}", _HINT)

    def _ahead(self) -> None:
        """Take the next token; an empty one where none begins."""
        self._before = self._at
        found = _TOKEN.match(self._text, self._at)
        if found is None:
            self._kind = self._token = ""
            return
        self._kind, self._token, self._at = found.lastgroup or "", found[found.lastgroup or 0], found.end()

    def _takes(self, token: str) -> bool:
        if self._kind != "operator" or self._token != token:
            return False
        self._ahead()
        return True

    def _needs(self, token: str) -> None:
        if not self._takes(token):
            raise self._wrong()

    def value(self) -> Any:
        """The value of a condition, or of what stands in its place."""
        self._depth += 1
        if self._depth > DEPTH_LIMIT:
            raise fault(self._place, f"expression is nested deeper than the limit, {DEPTH_LIMIT}")
        found = self._level(0)
        if self._takes("?"):
            yes = self.value()
            self._needs(":")
            no = self.value()
            found = yes if self._truth(found) else no
        self._depth -= 1
        return found

    def _truth(self, value: Any) -> bool:
        if value in (True, "true"):
            return True
        if value in (False, "false"):
            return False
        raise fault(self._place, f"condition is {kind_of(value)}, not a boolean: {self._text}")

    def _level(self, level: int) -> Any:
        if level == len(_LEVELS):
            return self._unary()
        left = self._level(level + 1)
        while self._kind == "operator" and self._token in _LEVELS[level]:
            operator = self._token
            self._ahead()
            left = self._combined(operator, left, self._level(level + 1))
        return left

    def _combined(self, operator: str, left: Any, right: Any) -> Any:
        match operator:
            case "||":
                return self._truth(left) or self._truth(right)
            case "&&":
                return self._truth(left) and self._truth(right)
            case "==":
                return left == right
            case "!=":
                return left != right
            case _:
                pass
        return self._called(
            {"+": "add", "-": "subtract", "*": "multiply", "/": "divide", "%": "modulo"}.get(operator, operator),
            [left, right],
        )

    def _unary(self) -> Any:
        signs = []
        while self._kind == "operator" and self._token in ("!", "-"):
            signs.append(self._token)
            self._ahead()
        found = self._postfix()
        for sign in reversed(signs):
            found = not self._truth(found) if sign == "!" else self._called("subtract", [0, found])
        return found

    def _postfix(self) -> Any:
        found = self._primary()
        while True:
            if self._takes("."):
                key: Any = self._token
                if self._kind not in ("name", "number"):
                    raise self._wrong()
                self._ahead()
            elif self._takes("["):
                key = self.value()
                self._needs("]")
            else:
                return found
            found = self._member(found, key)

    def _member(self, value: Any, key: Any) -> Any:
        try:
            if isinstance(value, Mapping):
                return value[as_text(key)]
            if isinstance(value, list):
                return value[int(key)]
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise fault(self._place, f"there is no {key} in what the expression names: {self._text}") from error
        raise fault(self._place, f"{kind_of(value)} has no {key}: {self._text}")

    def _primary(self) -> Any:
        kind, token = self._kind, self._token
        if kind == "number":
            self._ahead()
            return float(token) if "." in token else int(token)
        if kind == "name":
            self._ahead()
            return self._named(token)
        if self._takes("("):
            found = self.value()
            self._needs(")")
            return found
        if self._takes("["):
            return self._listed("]")
        if kind == "operator" and token == '"':
            inner = _Template(self._text, self._place, self._names, self._depth + 1, self._at)
            if self._depth > DEPTH_LIMIT:
                raise fault(self._place, f"expression is nested deeper than the limit, {DEPTH_LIMIT}")
            text, self._at = inner.quoted()
            self._ahead()
            return text
        raise self._wrong()

    def _named(self, name: str) -> Any:
        if name in ("true", "false", "null"):
            return {"true": True, "false": False, "null": None}[name]
        if self._takes("("):
            return self._called(name, self._listed(")"))
        try:
            return self._names(name)
        except KeyError:
            raise fault(self._place, f"there is no variable {name}: {self._text}") from None

    def _listed(self, end: str) -> list[Any]:
        found: list[Any] = []
        while not self._takes(end):
            found.append(self.value())
            if not self._takes(","):
                self._needs(end)
                break
        return found

    def _called(self, name: str, arguments: list[Any]) -> Any:
        function = FUNCTIONS.get(name)
        if function is None:
            raise fault(self._place, f"there is no function {name} here: {self._text}", _HINT)
        try:
            found = function(*arguments)
        except (
            TypeError,
            ValueError,
            LookupError,
            ArithmeticError,
            AttributeError,
            StopIteration,
            InvalidValue,
        ) as error:
            raise fault(self._place, f"{name} cannot be had of these values: {self._text}") from error
        if isinstance(found, list | str) and len(found) > SIZE_LIMIT:
            raise fault(self._place, f"value is longer than the limit, {SIZE_LIMIT}: {self._text}")
        return found
