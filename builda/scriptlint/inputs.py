"""Files that a script reads by itself, so that no step of it has them in its key.

Found in the text: a word that names a file, in a command that is not builda's. What a copy into a mounted container
brings is not told, as it is detected there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from builda.scriptlint.calls import Place, nodes, place_of, read_script, static_text, text_of
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tree_sitter import Node

    from builda.scriptlint.calls import Call

_READ_NOTHING = frozenset(
    "alias cd chmod chown declare echo exit export local mkdir popd printf pushd read return rm rmdir set shift shopt "
    "touch trap true false unset wait".split()
)
_COPIES = frozenset({"cp", "install", "mv", "rsync", "tar", "ln", "tee"})


class Input(NamedTuple):
    """A file that the script reads: where it says so, and by what."""

    path: str
    at: Place
    by: str


def inputs_of(source: bytes, is_file: Callable[[str], bool]) -> Iterator[Input]:
    """The files that the script reads, each once, in the order of the script. `is_file` tells whether a path is a file.

    Unsupported if the packages with the grammar are missing.
    """
    told: set[str] = set()
    for found in sorted(_found(source), key=lambda one: one.at):
        if found.path not in told and is_file(found.path):
            told.add(found.path)
            yield found


def _found(source: bytes) -> Iterator[Input]:
    script = read_script(source)
    mounts = {call.assigned for call in script.calls if call.is_builda and call.verb == "mount" and call.assigned}
    for call in script.calls:
        if not call.is_builda and not _is_detected(call, mounts) and call.name not in _READ_NOTHING:
            name = call.name or call.words[0].source
            read = call.words[1:-1] if name in _COPIES else call.words[1:]
            yield from (Input(word.text, word.at, name) for word in read if word.text)
    for node in nodes(source):
        if node.type == "test_command":
            yield from _words_in(node, "a test")
        elif node.type == "file_redirect" and text_of(node).lstrip("0123456789").startswith("<"):
            yield from _words_in(node, "<")


def _is_detected(call: Call, mounts: set[str]) -> bool:
    """Whether the command copies into a mounted container, whose content is looked at."""
    used = {name for word in call.words for name in re.findall(r"\$\{?(\w+)", word.source)}
    return call.name in _COPIES and bool(used & mounts)


def _words_in(node: Node, by: str) -> Iterator[Input]:
    pending = list(node.children)
    while pending:
        child = pending.pop()
        text = static_text(child)
        if text is None:
            pending.extend(child.children)
        elif text:
            yield Input(text, place_of(child), by)
