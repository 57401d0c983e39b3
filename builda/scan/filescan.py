"""Secrets in one file: its content goes through a window, so that memory does not depend on its size.

Patterns look only where something cheap has found that they could match: runs of letters and digits that are long
enough for a token, fixed texts such as PRIVATE KEY, and in settings the words that name secrets. Archives inside a file
are not opened.
"""

from __future__ import annotations

import re

from builda.scan.secretkinds import BEFORE, LONGEST, RUN, WORDS, compiled
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from builda.oci.digest import Readable
    from builda.scan.secretkinds import Rule

WINDOW = 1 << 20
_KEPT = LONGEST + BEFORE
"""Bytes at the end of a window that the next one begins with: a match that begins there may not end in this one."""
_CLASSES = bytes(97 if (chr(byte).isalnum() and byte < 128) or byte in b"-_" else 0 for byte in range(256))
_RUN = b"a" * RUN
_ENDS = (
    ".env .ini .cfg .conf .cnf .config .yaml .yml .json .toml .properties .xml .sh .bash .zsh .profile .tf .tfvars "
    ".service .envrc .plist .credentials .secret .key .txt .sql"
)
_SETTINGS = re.compile(
    rf"(?:{'|'.join(re.escape(end) for end in _ENDS.split())})$|/\.[^/]*$|/(?:credentials|config|environment)$|"
    r"^/(?:etc|root|home/[^/]+|run/secrets|app|srv|opt)/(?:[^/]+/)?[^/.]+$"
)
_LIBRARIES = re.compile(
    r"/(?:site-packages|dist-packages|node_modules|share/(?:doc|man|locale|perl5?|javascript)|lib/python3[^/]*|"
    r"lib/[^/]*/?perl|testdata|go/pkg/mod)/"
)
_SYSTEM = re.compile(r"/(?:usr/)?(?:s?bin|lib[^/]*)/")
"""Where programs and libraries of a distribution are, whose tests of themselves have private keys."""


class Hit(NamedTuple):
    """A secret in a file, and the line that it begins in, from 1 on."""

    rule: Rule
    line: int


def secrets_in(content: Readable, path: str) -> Iterator[Hit]:
    """The secrets in a file, each once, in their order. `path` is absolute, inside the image."""
    data, lines, final, is_program = b"", 1, False, False
    while not final:
        piece = _filled(content, WINDOW)
        is_program = is_program or (not data and piece.startswith(b"\x7fELF"))
        final = len(piece) < WINDOW
        start = BEFORE if data else 0  # what is before it was looked at, and is there for what looks back
        data += piece
        end = len(data) if final else max(start, len(data) - LONGEST)
        counted = 0
        for at, rule in sorted(_found(data, path, is_program=is_program), key=lambda item: item[0]):
            if start <= at < end:
                lines += data.count(b"\n", counted, at)
                counted = at
                yield Hit(rule, lines)
        keep = 0 if final else max(0, len(data) - _KEPT)
        lines += data.count(b"\n", counted, keep) if keep >= counted else -data.count(b"\n", keep, counted)
        data = data[keep:]


def _filled(content: Readable, size: int) -> bytes:
    """The next `size` bytes, fewer only at the end."""
    pieces, left = [], size
    while left and (piece := content.read(left)):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _found(data: bytes, path: str, *, is_program: bool) -> Iterator[tuple[int, Rule]]:
    """The offsets and kinds of secrets in the window; of two with one offset, the kind that is first in the table."""
    seen: set[int] = set()
    anchored = () if is_program and _SYSTEM.match(path) else _at_anchors(data)
    for at, rule in (*_in_files(data, path), *_at_runs(data), *anchored, *_in_settings(data, path)):
        if at not in seen:
            seen.add(at)
            yield at, rule


def _at_runs(data: bytes) -> Iterator[tuple[int, Rule]]:
    rules = compiled()
    classes = data.translate(_CLASSES)
    end = 0
    while (start := classes.find(_RUN, end)) >= 0:
        end = classes.find(b"\0", start)
        end = len(data) if end < 0 else end
        match = rules.tokens.match(data, start)
        if (
            match is None
            and start
            and data[start - 1] in b"./"
            and _has(data[max(0, start - BEFORE) : start], rules.before)
        ):
            match = rules.behind.search(data, max(0, start - BEFORE), min(len(data), end + 2 * BEFORE))
        if match is not None and (rule := rules.by_group[match.lastgroup or ""]).matches(match):
            yield match.start(), rule


def _has(text: bytes, anchors: tuple[bytes, ...]) -> bool:
    return any(anchor in text for anchor in anchors)


def _at_anchors(data: bytes) -> Iterator[tuple[int, Rule]]:
    for anchor, rules in compiled().anchors.items():
        at = data.find(anchor)
        while at >= 0:
            for rule, pattern in rules:
                match = pattern.match(data, at)
                if match is not None and rule.matches(match):
                    yield at, rule
            at = data.find(anchor, at + len(anchor))


def _in_settings(data: bytes, path: str) -> Iterator[tuple[int, Rule]]:
    if _LIBRARIES.search(path) is not None or _SETTINGS.search(path) is None or b"\0" in data[:8192]:
        return
    lower = data.lower()
    for word in WORDS:
        at = lower.find(word)
        while at >= 0:
            for rule, pattern in compiled().settings:
                match = pattern.match(data, at)
                if match is not None and rule.matches(match):
                    yield at, rule
                    break
            at = lower.find(word, at + len(word))


def _in_files(data: bytes, path: str) -> Iterator[tuple[int, Rule]]:
    for rule, pattern in compiled().files:
        if path.endswith(rule.paths):
            for match in pattern.finditer(data):
                if rule.matches(match):
                    yield match.start(), rule
