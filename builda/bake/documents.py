"""JSON and YAML as values that know their line, within limits that a hostile file cannot pass."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Mapping

from builda.errors import InvalidValue, Unsupported
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    Expand: TypeAlias = Callable[[str, "Place"], Any]

SIZE_LIMIT = 1 << 20
"""Bytes of a file, and characters of a text after its variables are put in."""
DEPTH_LIMIT = 64
VALUE_LIMIT = 200_000
"""Values of a file, those that aliases repeat counted each time."""


class Place(NamedTuple):
    """Where a value stands; line 0: the file as a whole."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


class Node(NamedTuple):
    """None, a boolean, a number, a text, a list of nodes or a mapping of texts to nodes, and its place."""

    value: Any
    place: Place


def fault(place: Place, text: str, hint: str | None = None) -> InvalidValue:
    """The error about a value of a file."""
    return InvalidValue(f"{place}: {text}", hint=hint)


def kind_of(value: Any) -> str:
    """What a message calls the type of a value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a text"
    return "a list" if isinstance(value, list | tuple) else "a mapping"


class Budget:
    """How many values may still be taken from a file."""

    def __init__(self) -> None:
        self._left = VALUE_LIMIT

    def take(self, place: Place) -> None:
        """Count a value; InvalidValue for one too many."""
        self._left -= 1
        if self._left < 0:
            raise fault(place, f"file means more values than the limit, {VALUE_LIMIT}")


def plain(node: Node, expand: Expand, budget: Budget) -> Any:
    """The value without places, `expand` being what becomes of each text. Keys stay as they are."""
    budget.take(node.place)
    match node.value:
        case str(text):
            return expand(text, node.place)
        case list(items):
            return [plain(item, expand, budget) for item in items]
        case dict(pairs):
            return {key: plain(item, expand, budget) for key, item in pairs.items()}
        case other:
            return other


def mapping(node: Node, what: str) -> Mapping[str, Node]:
    """The nodes of a mapping; InvalidValue for something else."""
    if not isinstance(node.value, dict):
        raise fault(node.place, f"{what} is a mapping, not {kind_of(node.value)}")
    return node.value


def read_json(data: bytes, file: str) -> Node:
    """The value of a JSON file."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise fault(Place(file), "file is not UTF-8") from error
    return _Json(text, file).read()


_SPACE = re.compile(r"[ \t\r\n]*")
_WORD = re.compile(r"-?(?:0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?|true|false|null")


class _Json:
    def __init__(self, text: str, file: str) -> None:
        self._text = text
        self._file = file
        self._at = 0
        self._starts = [0, *(found.end() for found in re.finditer("\n", text))]
        self._budget = Budget()

    def read(self) -> Node:
        node = self._value(0)
        if self._next():
            raise self._wrong("there is something behind the value")
        return node

    def _place(self) -> Place:
        return Place(self._file, bisect_right(self._starts, self._at))

    def _wrong(self, what: str) -> InvalidValue:
        return fault(self._place(), f"file is no JSON: {what}")

    def _next(self) -> str:
        """The next character that is no space; nothing at the end."""
        found = _SPACE.match(self._text, self._at)
        assert found is not None
        self._at = found.end()
        return self._text[self._at : self._at + 1]

    def _value(self, depth: int) -> Node:
        character, place = self._next(), self._place()
        self._budget.take(place)
        if depth > DEPTH_LIMIT:
            raise fault(place, f"values are nested deeper than the limit, {DEPTH_LIMIT}")
        if character == "{":
            return Node(self._members(depth), place)
        if character == "[":
            return Node(self._items(depth), place)
        if character == '"':
            return Node(self._string(), place)
        found = _WORD.match(self._text, self._at)
        if found is None or not found[0]:
            raise self._wrong(f"unexpected {character!r}" if character else "it ends too early")
        self._at = found.end()
        return Node(_scalar(found), place)

    def _members(self, depth: int) -> dict[str, Node]:
        self._at += 1
        found: dict[str, Node] = {}
        if self._next() == "}":
            self._at += 1
            return found
        while True:
            if self._next() != '"':
                raise self._wrong("a name in double quotes is expected")
            key = self._string()
            if key in found:
                raise self._wrong(f"two members are called {key!r}")
            if self._next() != ":":
                raise self._wrong("a colon is expected")
            self._at += 1
            found[key] = self._value(depth + 1)
            if self._ends("}"):
                return found

    def _items(self, depth: int) -> list[Node]:
        self._at += 1
        found: list[Node] = []
        if self._next() == "]":
            self._at += 1
            return found
        while True:
            found.append(self._value(depth + 1))
            if self._ends("]"):
                return found

    def _ends(self, end: str) -> bool:
        character = self._next()
        if character not in (",", end) or not character:
            raise self._wrong(f"a comma or {end} is expected")
        self._at += 1
        return character == end

    def _string(self) -> str:
        from json.decoder import JSONDecodeError, scanstring  # type: ignore[attr-defined]  # typeshed has it not

        try:
            text, self._at = scanstring(self._text, self._at + 1, True)
        except JSONDecodeError as error:
            self._at = min(error.pos, len(self._text))
            raise self._wrong(error.msg.lower()) from error
        found: str = text
        return found


def _scalar(found: re.Match[str]) -> Any:
    word = found[0]
    if word in ("true", "false"):
        return word == "true"
    if word == "null":
        return None
    if len(word) > 30:
        return word
    return float(word) if found[1] or found[2] else int(word)


def read_yaml(data: bytes, file: str) -> Node:
    """The value of a YAML file. Its scalars are texts or null: the tag 1.10 is not 1.1."""
    try:
        import yaml
    except ImportError as error:
        raise Unsupported(f"{file}: reading YAML needs the package PyYAML", hint="pip install PyYAML") from error
    try:
        top = yaml.compose(data.decode("utf-8-sig"), yaml.SafeLoader)
        return Node(None, Place(file)) if top is None else _Yaml(yaml, file).node(top, 0)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = Place(file, 0 if mark is None else mark.line + 1)
        why = getattr(error, "problem", None) or "it is nested too deep" if _is_deep(error) else error
        raise fault(place, f"file is no YAML: {' '.join(str(why).split())}") from error


def _is_deep(error: Exception) -> bool:
    return isinstance(error, RecursionError)


class _Yaml:
    """Makes nodes of PyYAML's; an alias is the same node again."""

    def __init__(self, yaml: Any, file: str) -> None:
        self._yaml = yaml
        self._file = file
        self._made: dict[int, Node | None] = {}  # None: being made

    def node(self, found: Any, depth: int) -> Node:
        place = Place(self._file, found.start_mark.line + 1)
        if depth > DEPTH_LIMIT:
            raise fault(place, f"values are nested deeper than the limit, {DEPTH_LIMIT}")
        if id(found) in self._made:
            made = self._made[id(found)]
            if made is None:
                raise fault(place, "a value contains itself")
            return made
        self._made[id(found)] = None
        made = self._made[id(found)] = Node(self._value(found, place, depth), place)
        return made

    def _value(self, found: Any, place: Place, depth: int) -> Any:
        if isinstance(found, self._yaml.ScalarNode):
            return None if found.style is None and found.value in ("", "~", "null") else found.value
        if isinstance(found, self._yaml.SequenceNode):
            return [self.node(item, depth + 1) for item in found.value]
        merged: dict[str, Node] = {}
        own: dict[str, Node] = {}
        for key, value in found.value:
            if not isinstance(key, self._yaml.ScalarNode):
                raise fault(place, "a key is a text")
            node = self.node(value, depth + 1)
            if key.value == "<<" and key.style is None:
                for below in reversed(node.value if isinstance(node.value, list) else [node]):
                    merged.update(mapping(below, "what << merges"))
            elif key.value in own:
                raise fault(Place(self._file, key.start_mark.line + 1), f"two keys are {key.value!r}")
            else:
                own[key.value] = node
        return {**merged, **own}
