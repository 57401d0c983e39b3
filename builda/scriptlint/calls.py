"""A bash script as its commands: the words of each, what the shell puts into them, and where they stand.

The grammar is tree-sitter's. The text of a `trap`, which is a script itself, is taken apart too.
"""

from __future__ import annotations

from collections.abc import Iterator

from builda.errors import Unsupported
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tree_sitter import Node

_NAMES = frozenset({"builda", "buildah"})
"""Both: scripts written for Buildah run by `alias buildah=builda`."""
_STRINGS = frozenset({"string", "raw_string", "ansi_c_string", "translated_string"})
_MANY = ("@", "*")
_NO_WORDS = ("redirect", "assignment", "comment")


class Place(NamedTuple):
    """A line and column of a script; both count from 1."""

    line: int
    column: int


class Word(NamedTuple):
    """A word of a command. `text` is None where only the running shell knows it."""

    source: str
    text: str | None
    unquoted: tuple[str, ...]  # variables that the shell splits at blanks
    is_many: bool  # it may become any number of words
    at: Place


class Call(NamedTuple):
    """A command of a script.

    `assigned` is the variable that its output is assigned to, `function` the function that contains it. `verb` is set
    for a call of builda; None if only the shell knows it.
    """

    words: tuple[Word, ...]
    at: Place
    assigned: str | None = None
    function: str | None = None
    in_trap: bool = False
    verb: str | None = None

    @property
    def name(self) -> str | None:
        """The program, if the script says it in so many words."""
        return self.words[0].text

    @property
    def is_builda(self) -> bool:
        """Whether builda is called, by its name or that of Buildah."""
        return self.name is not None and self.name.rpartition("/")[2] in _NAMES


class Script(NamedTuple):
    """The commands of a script in their order, its first line, and the last place that is no bash."""

    calls: tuple[Call, ...]
    first_line: str
    broken: Place | None = None


def read_script(source: bytes, with_value: frozenset[str] = frozenset()) -> Script:
    """Take a script apart. `with_value` are the options before the verb that a word follows as their value.

    Unsupported if the packages with the grammar are missing.
    """
    root = _parsed(source)
    first = source.partition(b"\n")[0].decode("utf-8", "replace")
    broken = max((place_of(node) for node in _walk(root) if node.is_error or node.is_missing), default=None)
    calls = (call._replace(verb=_verb(call, with_value)) if call.is_builda else call for call in _calls(root))
    return Script(tuple(calls), first, broken)


def _verb(call: Call, with_value: frozenset[str]) -> str | None:
    words = iter(call.words[1:])
    for word in words:
        if word.text is None or not word.text.startswith("-"):
            return word.text
        if word.text in with_value:
            next(words, None)
    return None


def nodes(source: bytes) -> Iterator[Node]:
    """All nodes of the script's grammar, in its order."""
    yield from _walk(_parsed(source))


def _parsed(source: bytes) -> Node:
    try:
        import tree_sitter
        import tree_sitter_bash
    except ImportError as error:
        raise Unsupported(
            f"reading scripts needs the package {error.name}", hint="pip install 'builda[lint]'"
        ) from error
    language = tree_sitter.Language(tree_sitter_bash.language())
    return tree_sitter.Parser(language).parse(source).root_node


def _walk(top: Node) -> Iterator[Node]:
    """All nodes below `top` in the order of the script. The stack is ours: scripts may be nested deep."""
    pending = [top]
    while pending:
        node = pending.pop()
        yield node
        pending.extend(reversed(node.children))


def _calls(root: Node) -> Iterator[Call]:
    for node in _walk(root):
        if node.type != "command":
            continue
        words = tuple(_words(node))
        if not words:
            continue
        call = Call(words, words[0].at, _assigned(node), _function(node))
        yield call
        yield from _of_trap(call)


def _of_trap(call: Call) -> Iterator[Call]:
    """The commands in the text of a `trap`, at the place of the trap."""
    if call.name != "trap" or len(call.words) < 2 or not (text := call.words[1].text):
        return
    for node in _walk(_parsed(text.encode("utf-8", "surrogateescape"))):
        if node.type == "command" and (words := tuple(_words(node))):
            placed = tuple(word._replace(at=call.at) for word in words)
            yield Call(placed, call.at, None, call.function, in_trap=True)


def _words(command: Node) -> Iterator[Word]:
    for child in command.children:
        if child.type == "command_name" and child.children:
            yield _word(child.children[0])
        elif child.is_named and not child.type.endswith(_NO_WORDS):
            yield _word(child)


def _word(node: Node) -> Word:
    source = text_of(node)
    unquoted = tuple(_variables(node, quoted=False))
    many = any(name in _MANY or f"[{mark}]" in name for name in _variables(node, quoted=None) for mark in _MANY)
    return Word(source, static_text(node), unquoted, many or bool(unquoted) or _splits(node), place_of(node))


def _splits(node: Node) -> bool:
    return node.type in ("command_substitution", "brace_expression") or (
        node.type == "concatenation" and any(_splits(child) for child in node.children)
    )


def _variables(node: Node, *, quoted: bool | None) -> Iterator[str]:
    """The variables in a word: only those inside quotes, only the others, or all (None)."""
    pending = [(node, False)]
    while pending:
        here, inside = pending.pop()
        inside = inside or here.type in _STRINGS
        if here.type in ("simple_expansion", "expansion"):
            if quoted is None or quoted == inside:
                yield text_of(here).strip("${}")
            continue
        if here.type not in ("command_substitution", "process_substitution"):
            pending.extend((child, inside) for child in reversed(here.children))


def static_text(node: Node) -> str | None:
    """The text of a word that holds nothing to expand."""
    kind = node.type
    if kind == "raw_string":
        return text_of(node)[1:-1]
    if kind in ("word", "number", "string_content"):
        return text_of(node).replace("\\\n", "").replace("\\", "")
    if kind == "string":
        inner = [child for child in node.children if child.type != '"']
        if all(child.type == "string_content" for child in inner):
            return "".join(text_of(child) for child in inner)
        return None
    if kind == "concatenation":
        parts = [static_text(child) for child in node.children]
        return None if None in parts else "".join(part or "" for part in parts)
    return None


def _assigned(command: Node) -> str | None:
    """The variable that is set to a command's output: `c=$(builda from x)`, quoted or not."""
    node = command.parent
    while node is not None and node.type in ("command_substitution", "string", "pipeline", "list"):
        node = node.parent
    if node is None or node.type != "variable_assignment":
        return None
    return text_of(node.children[0])


def _function(node: Node) -> str | None:
    above = node.parent
    while above is not None:
        if above.type == "function_definition":
            name = above.child_by_field_name("name")
            return None if name is None else text_of(name)
        above = above.parent
    return None


def text_of(node: Node) -> str:
    """The script's text that a node stands for."""
    return (node.text or b"").decode("utf-8", "surrogateescape")


def place_of(node: Node) -> Place:
    """The place where a node begins."""
    row, column = node.start_point
    return Place(row + 1, column + 1)
