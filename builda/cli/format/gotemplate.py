"""Go's text/template, as far as `--format` of scripts goes: one text and one value make one text.

The template is parsed whole before anything is printed, so a mistake in it prints nothing. A field that a `Struct` does
not have is an error that names it; a key that a mapping does not have is `<no value>`, as in Go. What defines templates
(`define`, `block`, `template`) is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from builda.cli.format.gofuncs import FUNCTIONS, LAZY, Nil, Struct, TemplateFault, display, is_true
from builda.errors import InvalidValue
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn, TypeAlias

Value: TypeAlias = "Any"


class Template:
    """A parsed template; `render` may be called many times."""

    def __init__(self, text: str) -> None:
        """Parse `text`; InvalidValue says what is wrong with it, and where."""
        self._text = text
        try:
            self._body = _Parser(text).template()
        except RecursionError as error:
            raise InvalidValue("template cannot be read: it is nested too deep") from error

    def render(self, data: Value) -> str:
        """The text for `data`; InvalidValue names an unknown field or a value that a function cannot take."""
        out: list[str] = []
        scope = _Scope(data, {"$": data}, None)
        try:
            for node in self._body:
                node.run(scope, out)
        except TemplateFault as fault:
            raise InvalidValue(f"template cannot be filled in: {fault}", hint=fault.hint) from fault
        except (ArithmeticError, MemoryError, RecursionError, TypeError, ValueError) as error:
            said = f"{type(error).__name__}{f': {error}' if str(error) else ''}"
            raise InvalidValue(f"template cannot be filled in: {said}") from error
        return "".join(out)


# ---------------------------------------------------------------- what a template is made of


class _Break(Exception):
    """`{{break}}`."""


class _Continue(Exception):
    """`{{continue}}`."""


class _Scope:
    """The dot and the variables where a node runs."""

    __slots__ = ("_parent", "_variables", "dot")

    def __init__(self, dot: Value, variables: dict[str, Value], parent: _Scope | None) -> None:
        self.dot = dot
        self._variables = variables
        self._parent = parent

    def inner(self, dot: Value, variables: dict[str, Value]) -> _Scope:
        return _Scope(dot, variables, self)

    def declare(self, name: str, value: Value) -> None:
        self._variables[name] = value

    def assign(self, name: str, value: Value) -> None:
        scope: _Scope | None = self
        while scope is not None:
            if name in scope._variables:
                scope._variables[name] = value
                return
            scope = scope._parent
        raise TemplateFault(f"undefined variable: {name}")

    def variable(self, name: str) -> Value:
        scope: _Scope | None = self
        while scope is not None:
            if name in scope._variables:
                return scope._variables[name]
            scope = scope._parent
        raise TemplateFault(f"undefined variable: {name}")


class _Literal(NamedTuple):
    value: Value

    def value_in(self, scope: _Scope) -> Value:
        return self.value


class _Fields(NamedTuple):
    """`.A.B`, `$x.A.B` or `(pipeline).A`."""

    base: Any  # an operand, or None for the dot
    names: tuple[str, ...]

    def value_in(self, scope: _Scope) -> Value:
        value = scope.dot if self.base is None else self.base.value_in(scope)
        for name in self.names:
            value = _field(value, name)
        return value


class _Variable(NamedTuple):
    name: str

    def value_in(self, scope: _Scope) -> Value:
        return scope.variable(self.name)


class _Call(NamedTuple):
    """A function with its operands; the value piped into it comes last."""

    name: str
    operands: tuple[Any, ...]

    def value_in(self, scope: _Scope) -> Value:
        return self.call(scope, ())

    def call(self, scope: _Scope, piped: tuple[Value, ...]) -> Value:
        lazy = LAZY.get(self.name)
        if lazy is not None:  # `and` and `or` do not look at what they do not need
            return lazy([*(lambda o=o: o.value_in(scope) for o in self.operands), *(lambda v=v: v for v in piped)])
        function: Callable[..., Value] = FUNCTIONS[self.name]
        arguments = [*(operand.value_in(scope) for operand in self.operands), *piped]
        try:
            return function(*arguments)
        except (TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
            shown = " ".join(display(argument) for argument in arguments)
            raise TemplateFault(f"{self.name} cannot take: {shown}") from error


class _Pipeline(NamedTuple):
    declares: tuple[str, ...]
    assigns: bool
    commands: tuple[Any, ...]

    def value_in(self, scope: _Scope) -> Value:
        value = self.commands[0].value_in(scope)
        for command in self.commands[1:]:
            if not isinstance(command, _Call):
                raise TemplateFault(f"a value can be piped into a function only: {display(value)}")
            value = command.call(scope, (value,))
        if len(self.declares) == 1:
            (scope.assign if self.assigns else scope.declare)(self.declares[0], value)
        return value


class _Text(NamedTuple):
    text: str

    def run(self, scope: _Scope, out: list[str]) -> None:
        out.append(self.text)


class _Print(NamedTuple):
    pipeline: _Pipeline

    def run(self, scope: _Scope, out: list[str]) -> None:
        value = self.pipeline.value_in(scope)
        if not self.pipeline.declares:
            out.append("<no value>" if value is None else display(value))


class _If(NamedTuple):
    pipeline: _Pipeline
    body: tuple[Any, ...]
    otherwise: tuple[Any, ...]
    rebinds: bool  # `with`: the dot becomes the value

    def run(self, scope: _Scope, out: list[str]) -> None:
        inner = scope.inner(scope.dot, {})
        value = self.pipeline.value_in(inner)
        chosen = self.body if is_true(value) else self.otherwise
        if self.rebinds and chosen is self.body:
            inner.dot = value
        for node in chosen:
            node.run(inner, out)


class _Range(NamedTuple):
    pipeline: _Pipeline
    body: tuple[Any, ...]
    otherwise: tuple[Any, ...]

    def run(self, scope: _Scope, out: list[str]) -> None:
        names = self.pipeline.declares
        value = self.pipeline._replace(declares=()).value_in(scope)
        empty = True
        for key, item in _items(value):
            empty = False
            variables = dict(zip(names, (key, item) if len(names) == 2 else (item,), strict=False))
            inner = scope.inner(item, variables)
            try:
                for node in self.body:
                    node.run(inner, out)
            except _Continue:
                continue
            except _Break:
                break
        if empty:
            for node in self.otherwise:
                node.run(scope.inner(scope.dot, {}), out)


class _Jump(NamedTuple):
    kind: type[Exception]

    def run(self, scope: _Scope, out: list[str]) -> None:
        raise self.kind


def _field(value: Value, name: str) -> Value:
    if isinstance(value, Struct):
        if name in value:
            return value[name]
        raise TemplateFault(f"no such field: .{name}", hint="the fields are " + " ".join(f".{key}" for key in value))
    if isinstance(value, Mapping):
        return value.get(name)
    if value is None or isinstance(value, Nil):
        raise TemplateFault(f"nil has no fields: .{name}")
    raise TemplateFault(f"{display(value)!r} has no fields: .{name}")


def _items(value: Value) -> Iterator[tuple[Value, Value]]:
    if value is None:
        return iter(())
    if isinstance(value, Mapping) and not isinstance(value, Struct):
        return iter(sorted(value.items()))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return iter(enumerate(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return ((i, i) for i in range(value))
    raise TemplateFault(f"range cannot go over: {display(value)}")


# ---------------------------------------------------------------- reading it

_ACTION = re.compile(r"\{\{(- )?")
_COMMENT = re.compile(r"\{\{(?:- )?/\*.*?\*/(?P<trim> -)?\}\}", re.DOTALL)
_TOKEN = re.compile(
    r"""\s*(?:
      (?P<close>(?:\s-)?\}\})
    | (?P<string>"(?:[^"\\\n]|\\.)*")
    | (?P<raw>`[^`]*`)
    | (?P<char>'(?:[^'\\]|\\.)+')
    | (?P<number>[+-]?(?:0[xX][0-9a-fA-F]+|[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+))
    | (?P<field>\.[A-Za-z_][A-Za-z0-9_]*)
    | (?P<variable>\$[A-Za-z0-9_]*)
    | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<mark>:=|[=|(),.])
    )""",
    re.VERBOSE,
)
_TRIM_CLOSE = re.compile(r"\s-\}\}$")


class _Token(NamedTuple):
    kind: str
    text: str
    start: int
    spaced: bool  # white space stands before it


_CONSTANTS = {"true": True, "false": False, "nil": None}
_KEYWORDS = frozenset("if else end range with break continue define block template".split())


class _Parser:
    """Recursive descent over one text; `_at` is where it reads."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._trim = False
        self._line: list[_Token] = []
        self._loops = 0

    def template(self) -> tuple[Any, ...]:
        body, ended_by = self._nodes()
        if ended_by:
            self._fail(f"{{{{{ended_by}}}}} without something to end")
        return body

    def _nodes(self) -> tuple[tuple[Any, ...], str]:
        """The nodes before the next `end` or `else` of this level, and which of the two it was ("" at the end)."""
        nodes: list[Any] = []
        while True:
            if text := self._plain():
                nodes.append(_Text(text))
            if self._at >= len(self._text):
                return tuple(nodes), ""
            if self._comment():
                continue
            self._action()
            word = self._line[0].text if self._line and self._line[0].kind == "word" else ""
            if word in ("end", "else"):
                del self._line[0]
                return tuple(nodes), word
            nodes.append(self._node(word))

    def _plain(self) -> str:
        """The text before the next action, with the white space that trim markers take removed."""
        match = _ACTION.search(self._text, self._at)
        end = match.start() if match else len(self._text)
        text = self._text[self._at : end]
        if self._trim:
            text = text.lstrip(" \t\r\n")
        self._trim = False
        if match and match[1]:
            text = text.rstrip(" \t\r\n")
        self._at = end
        return text

    def _comment(self) -> bool:
        match = _COMMENT.match(self._text, self._at)
        if match is None:
            return False
        self._trim = match["trim"] is not None
        self._at = match.end()
        return True

    def _action(self) -> None:
        """Read the tokens of one `{{…}}` into `_line`."""
        start = self._at
        opened = _ACTION.match(self._text, self._at)
        assert opened is not None
        self._at = opened.end()
        self._line = []
        while True:
            match = _TOKEN.match(self._text, self._at)
            if match is None or match.lastgroup is None:
                rest = self._text[self._at :].strip()
                if not rest:
                    self._at = start
                    self._fail("action is not closed by }}")
                self._fail(f"unexpected {rest[0]!r} in an action")
            token = _Token(
                match.lastgroup,
                match[match.lastgroup],
                match.start(match.lastgroup),
                match.start(match.lastgroup) > match.start(),
            )
            self._at = match.end()
            if token.kind == "close":
                self._trim = _TRIM_CLOSE.search(match[0]) is not None
                return
            self._line.append(token)

    def _node(self, word: str) -> Any:
        if word in ("if", "with", "range"):
            del self._line[0]
            return self._block(word)
        if word in ("break", "continue"):
            if not self._loops:
                self._fail(f"{{{{{word}}}}} outside of range")
            return _Jump(_Break if word == "break" else _Continue)
        if word in _KEYWORDS:
            self._fail(f"{{{{{word}}}}} is not supported: --format takes one template")
        return _Print(self._whole_pipeline())

    def _block(self, word: str) -> Any:
        pipeline = self._whole_pipeline(pair=word == "range")
        self._loops += word == "range"
        body, ended_by = self._nodes()
        self._loops -= word == "range"
        otherwise: tuple[Any, ...] = ()
        if ended_by == "else":
            otherwise, ended_by = self._else(word)
        if ended_by != "end":
            self._fail(f"{{{{{word}}}}} has no {{{{end}}}}")
        if word == "range":
            return _Range(pipeline, body, otherwise)
        return _If(pipeline, body, otherwise, word == "with")

    def _else(self, word: str) -> tuple[tuple[Any, ...], str]:
        if self._line and self._line[0].text in ("if", "with") and word != "range":
            inner = self._line.pop(0).text
            return (self._block(inner),), "end"  # the inner block's end ends both
        return self._nodes()

    def _whole_pipeline(self, *, pair: bool = False) -> _Pipeline:
        pipeline = self._pipeline(pair=pair)
        if self._line:
            self._fail(f"unexpected {self._line[0].text!r} in an action")
        return pipeline

    def _pipeline(self, *, pair: bool = False) -> _Pipeline:
        declares, assigns = self._declaration(pair)
        commands = [self._command(first=True)]
        while self._line and self._line[0].text == "|":
            del self._line[0]
            commands.append(self._command(first=False))
        return _Pipeline(declares, assigns, tuple(commands))

    def _declaration(self, pair: bool) -> tuple[tuple[str, ...], bool]:
        texts = [token.text for token in self._line[:4]]
        kinds = [token.kind for token in self._line[:4]]
        if len(texts) > 1 and kinds[0] == "variable" and texts[1] in (":=", "="):
            del self._line[:2]
            return (texts[0],), texts[1] == "="
        if pair and len(texts) == 4 and kinds[0] == kinds[2] == "variable" and texts[1] == "," and texts[3] == ":=":
            del self._line[:4]
            return (texts[0], texts[2]), False
        return (), False

    def _command(self, *, first: bool) -> Any:
        if not self._line or self._line[0].text in ("|", ")"):
            self._fail("a value is missing")
        head = self._line[0]
        if head.kind == "word" and head.text not in _CONSTANTS:
            if head.text not in FUNCTIONS and head.text not in LAZY:
                self._fail(f"function is not defined: {head.text}")
            del self._line[0]
            operands = []
            while self._line and self._line[0].text not in ("|", ")"):
                operands.append(self._operand())
            return _Call(head.text, tuple(operands))
        if not first:
            self._fail(f"a value cannot be piped into {head.text!r}")
        operand = self._operand()
        if self._line and self._line[0].text not in ("|", ")"):
            self._fail(f"unexpected {self._line[0].text!r} after a value")
        return operand

    def _operand(self) -> Any:
        token = self._line.pop(0)
        base: Any
        if token.text == "(":
            base = self._pipeline()
            if not self._line or self._line.pop(0).text != ")":
                self._fail("( is not closed by )")
        elif token.kind == "variable":
            base = _Variable(token.text)
        elif token.kind == "field":
            return _Fields(None, (token.text[1:], *self._field_names()))
        elif token.text == ".":
            return _Fields(None, ())
        elif token.kind == "word":
            return self._word(token.text)
        else:
            return _Literal(self._literal(token))
        names = self._field_names()
        return _Fields(base, names) if names else base

    def _word(self, word: str) -> Any:
        if word in _CONSTANTS:
            return _Literal(_CONSTANTS[word])
        if word not in FUNCTIONS and word not in LAZY:
            self._fail(f"function is not defined: {word}")
        return _Call(word, ())

    def _field_names(self) -> tuple[str, ...]:
        names = []
        while self._line and self._line[0].kind == "field" and not self._line[0].spaced:
            names.append(self._line.pop(0).text[1:])
        return tuple(names)

    def _literal(self, token: _Token) -> Value:
        if token.kind == "raw":
            return token.text[1:-1]
        if token.kind == "number":
            return _number(token.text)
        if token.kind not in ("string", "char"):
            self._fail(f"unexpected {token.text!r} in an action")
        try:
            text = re.sub(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", _unescaped, token.text[1:-1])
        except (ValueError, OverflowError):
            self._fail(f"no such character: {token.text}")
        if token.kind == "string":
            return text
        if len(text) != 1:
            self._fail(f"not one character: {token.text}")
        return ord(text)

    def _fail(self, what: str) -> NoReturn:
        line = self._text.count("\n", 0, self._at) + 1
        raise InvalidValue(f"template cannot be read: {what}, in line {line} of: {self._text}")


_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "0": "\0"}


def _unescaped(match: re.Match[str]) -> str:
    code = match[1]
    return chr(int(code[1:], 16)) if len(code) > 1 else _ESCAPES.get(code, code)


def _number(text: str) -> int | float:
    try:
        return int(text, 16) if "x" in text.lower() else int(text)
    except ValueError:
        return float(text)
