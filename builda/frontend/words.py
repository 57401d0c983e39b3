"""Shell words of instructions: quotes, escapes and `$VAR` with every operator of the Dockerfile reference.

`expand` gives one word, `split` several; both are pure functions of the text and a lookup. A text is read once, from
left to right, and what is nested in it stands on a list: neither length nor depth can exhaust time or the stack.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache

from builda.errors import InvalidValue
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

Lookup: TypeAlias = Callable[[str], str | None]
"""The value of a variable, None when it is not set."""

BLANK = " \t\v\f\r\n"
"""White space that separates words, as for BuildKit; a no-break space is a character like all others."""

_BLANKS = re.compile(f"[{BLANK}]+")
_CLOSED = r"""(?s)\\.|"(?:\\.|[^"\\])*"|'[^']*'"""
_QUOTE = "a quote that is meant as a character has a backslash before it"
_OPERATORS = "after the name comes one of :- - :+ + :? ? # ## % %% / //"


def expand(text: str, lookup: Lookup, escape: str = "\\") -> str:
    """`text` as one word: variables replaced, quotes and escapes taken away. InvalidValue for what does not parse."""
    return _Lexer(text, lookup, escape).run()[0]


def split(text: str, lookup: Lookup, escape: str = "\\") -> tuple[str, ...]:
    """`text` as words: as `expand`, split at white space outside quotes, that of expanded variables included."""
    return tuple(_Lexer(text, lookup, escape).run()[1])


def keep_quotes(text: str, lookup: Lookup) -> str:
    """`text` with its variables replaced and its quotes left alone: bodies of unquoted heredocs.

    A backslash is removed whatever the escape directive says, and the character after it stays.
    """
    return _Lexer(text, lookup, "\\", quotes=False).run()[0]


def parts(text: str, escape: str = "\\") -> tuple[str, ...]:
    """`text` at white space outside quotes; quotes and escapes stay in the words. An escape at the very end goes."""
    ends = len(text) - len(text.rstrip(escape))
    return tuple(_part_pattern(escape).findall(text[:-1] if ends % 2 else text))


def first_part(text: str, escape: str = "\\") -> str:
    """The first of the `parts` of a text that begins with none of white space."""
    match = _part_pattern(escape).match(text)
    return "" if match is None else match[0]


def last(text: str) -> str:
    """The text after the last white space, inside quotes or not."""
    return _BLANKS.split(text.strip(BLANK))[-1]


def has_open_quote(text: str) -> bool:
    """Whether a quote in `text` is never closed (a backslash escapes), so that its words cannot be told apart."""
    return any(quote in re.sub(_CLOSED, "", text) for quote in "\"'")


@cache
def _name() -> re.Pattern[str]:
    return re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]+|[@*#?$!-]")


@cache
def _part_pattern(escape: str) -> re.Pattern[str]:
    at = re.escape(escape)
    double, single = rf'"(?:{at}.|[^"{at}]+)*(?:"|{at}?\Z)', r"'[^']*(?:'|\Z)"
    return re.compile(rf"""(?:{at}.|{double}|{single}|[^{BLANK}"'{at}]+|{at}\Z)+""", re.DOTALL)


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}…"


class _Frame:
    """A part of the text that ends at `stop`: all of it, the inside of double quotes, or a word of a `${…}`."""

    __slots__ = ("begins", "found", "quoted", "raw", "stop", "then")

    def __init__(self, stop: str, begins: int, *, raw: bool, then: Callable[[str], str | _Frame] | None = None) -> None:
        self.stop = stop
        self.begins = begins  # where it does in the text, for errors
        self.raw = raw  # escapes stay, for patterns
        self.then = then  # the value that the word gives, or what has to be read next
        self.quoted = stop == '"'
        self.found: list[str] = []


@cache
def _specials(escape: str, *, quotes: bool) -> Mapping[str, re.Pattern[str]]:
    """The characters that end a run of plain text in a frame, by the character that ends the frame."""
    marks = {stop: "\"'" if quotes and stop != '"' else "" for stop in ("", "}", "/", '"')}
    return {stop: re.compile(f"[{re.escape(f'${escape}{stop}{mark}')}]") for stop, mark in marks.items()}


class _Lexer:
    """One pass over one text: the word, and the same split at white space."""

    def __init__(self, text: str, lookup: Lookup, escape: str, *, quotes: bool = True) -> None:
        self.text = text
        self.at = 0
        self.lookup = lookup
        self.escape = escape
        self.quotes = quotes
        self.words = _Words()
        self.frames = [_Frame("", 0, raw=False)]

    def run(self) -> tuple[str, list[str]]:
        special = _specials(self.escape, quotes=self.quotes)
        while self.at < len(self.text):
            frame = self.frames[-1]
            match = special[frame.stop].search(self.text, self.at)
            end = len(self.text) if match is None else match.start()
            if end > self.at:
                self._add(self.text[self.at : end])
                self.at = end
            elif self.text[end] == frame.stop:
                self.at += 1
                self._close(frame)
            else:
                self._at_special(frame, self.text[end])
        if len(self.frames) > 1:
            self._fail_open(self.frames[-1])
        return "".join(self.frames[0].found), self.words.finish()

    def _add(self, text: str, *, quoted: bool = False) -> None:
        """Text that belongs to the innermost frame; white space in it splits words unless it is quoted."""
        self.frames[-1].found.append(text)
        if len(self.frames) == 1:
            self.words.add(text, quoted=quoted)

    def _close(self, frame: _Frame) -> None:
        self.frames.pop()
        text = "".join(frame.found)
        value = text if frame.then is None else frame.then(text)
        if isinstance(value, _Frame):
            self.frames.append(value)
        else:
            self._add(value, quoted=frame.quoted)

    def _fail_open(self, frame: _Frame) -> None:
        if frame.quoted:
            raise InvalidValue(f"quote is not closed: {_short(self.text[frame.begins :])}", hint=_QUOTE)
        raise InvalidValue(f"substitution lacks its {frame.stop}: {_short(self.text[frame.begins :])}")

    def _at_special(self, frame: _Frame, char: str) -> None:
        if char == "$":
            self._dollar()
        elif char == self.escape:
            self._escaped(frame)
        elif char == "'":
            self._single(frame)
        else:
            self.frames.append(_Frame('"', self.at, raw=frame.raw))
            self.at += 1

    def _escaped(self, frame: _Frame) -> None:
        following = self.text[self.at + 1 : self.at + 2]
        self.at += 2
        if frame.quoted and following not in ('"', "$", self.escape):
            self.at -= 1  # the escape is a character like others, and what follows may be special
            self._add(self.escape)
        elif following:
            self._add(self.escape + following if frame.raw else following, quoted=True)
        elif frame.raw:
            self._add(self.escape)

    def _single(self, frame: _Frame) -> None:
        end = self.text.find("'", self.at + 1)
        if end < 0:
            raise InvalidValue(f"quote is not closed: {_short(self.text[self.at :])}", hint=_QUOTE)
        inner = self.text[self.at + 1 : end]
        self.at = end + 1
        self._add(_escaped_wildcards(inner, self.escape) if frame.raw else inner, quoted=True)

    def _take(self) -> str:
        char = self.text[self.at : self.at + 1]
        self.at += 1
        return char

    def _dollar(self) -> None:
        opened = self.at
        self.at += 1
        if self.text[self.at : self.at + 1] != "{":
            name = self._name()
            self._add((self.lookup(name) or "") if name else "$")
            return
        self.at += 1
        if self.text[self.at : self.at + 1] in ("{", "}", ":", ""):
            raise InvalidValue(f"bad substitution, it needs a name: {_short(self.text[opened:])}")
        name = self._name()
        char = self._take()
        if char == "}":
            self._add(self.lookup(name) or "")
        elif not char:
            raise InvalidValue(f"substitution lacks its }}: {_short(self.text[opened:])}")
        elif char in ("#", "%"):
            self.frames.append(_Frame("}", opened, raw=True, then=self._stripped(name, char)))
        elif char == "/":
            self._replace(name, opened)
        else:
            self._default(name, char, opened)

    def _name(self) -> str:
        match = _name().match(self.text, self.at)
        if match is None:
            return ""
        self.at = match.end()
        return match[0]

    def _default(self, name: str, char: str, opened: int) -> None:
        empty_counts = char != ":"
        operator = self._take() if char == ":" else char
        if not operator or operator not in "-+?":
            shown = _short(self.text[opened:])
            raise InvalidValue(f"unsupported modifier in a substitution: {shown}", hint=_OPERATORS)

        def value_for(word: str) -> str:
            value = self.lookup(name)
            is_set = value is not None and (empty_counts or value != "")
            if operator == "+":
                return word if is_set else ""
            if is_set:
                return value or ""
            if operator == "?":
                missing = f"not allowed to be {'unset' if empty_counts else 'empty'}"
                raise InvalidValue(f"{name}: {word or missing}")
            return word

        self.frames.append(_Frame("}", opened, raw=False, then=value_for))

    def _stripped(self, name: str, char: str) -> Callable[[str], str]:
        longest = self.text[self.at : self.at + 1] == char
        if longest:
            self.at += 1

        def stripped(pattern: str) -> str:
            value = self.lookup(name) or ""
            glob = _Glob.parse(pattern, self.escape)
            if char == "#":
                return value[glob.prefix(value, longest=longest) or 0 :]
            return value[: len(value) - (glob.reversed().prefix(value[::-1], longest=longest) or 0)]

        return stripped

    def _replace(self, name: str, opened: int) -> None:
        everywhere = self.text[self.at : self.at + 1] == "/"
        if everywhere:
            self.at += 1

        def then_replacement(pattern: str) -> _Frame:
            def replaced(replacement: str) -> str:
                value = self.lookup(name) or ""
                return _Glob.parse(pattern, self.escape).replaced(value, replacement, everywhere=everywhere)

            return _Frame("}", opened, raw=False, then=replaced)

        self.frames.append(_Frame("/", opened, raw=True, then=then_replacement))


class _Words:
    """Collects words: unquoted white space ends one, a quoted part makes one even when empty."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.word: list[str] = []

    def add(self, text: str, *, quoted: bool) -> None:
        if quoted:
            self.word.append(text)
            return
        first, *more = _BLANKS.split(text)
        if first:
            self.word.append(first)
        for following in more:
            self._end()
            if following:
                self.word.append(following)

    def _end(self) -> None:
        if self.word:
            self.words.append("".join(self.word))
        self.word = []

    def finish(self) -> list[str]:
        self._end()
        return self.words


def _escaped_wildcards(text: str, escape: str) -> str:
    return re.sub(rf"([*?{re.escape(escape)}])", lambda match: escape + match[0], text)


class _Glob(NamedTuple):
    """A shell pattern of `*` and `?`, matched in time that grows with pattern and value, never with their powers.

    `pieces` stand between the `*`: characters, None for any one.
    """

    pieces: tuple[tuple[str | None, ...], ...]

    @classmethod
    def parse(cls, pattern: str, escape: str) -> _Glob:
        pieces: list[list[str | None]] = [[]]
        escaped = False
        for char in pattern:
            if escaped or char not in (escape, "*", "?"):
                pieces[-1].append(char)
                escaped = False
            elif char == escape:
                escaped = True
            elif char == "?":
                pieces[-1].append(None)
            else:
                pieces.append([])
        if escaped:
            pieces[-1].append(escape)
        return cls(tuple(map(tuple, pieces)))

    def reversed(self) -> _Glob:
        return _Glob(tuple(piece[::-1] for piece in self.pieces[::-1]))

    def prefix(self, value: str, *, longest: bool, start: int = 0) -> int | None:
        """The end of the match that begins at `start`; None if there is none."""
        first = _regex(self.pieces[0]).match(value, start)
        if first is None:
            return None
        at = first.end()
        for piece in self.pieces[1:-1]:
            found = _regex(piece).search(value, at)
            if found is None:
                return None
            at = found.end()
        if len(self.pieces) == 1:
            return at
        last = self.pieces[-1]
        if longest:  # from the end, in the reversed text
            behind = _regex(last[::-1]).search(value[::-1], 0, len(value) - at)
            return None if behind is None else len(value) - behind.start()
        found = _regex(last).search(value, at)
        return None if found is None else found.end()

    def replaced(self, value: str, replacement: str, *, everywhere: bool) -> str:
        """`value` with its first match, or all of them, replaced; each is as long as it can be."""
        if self.pieces == ((),):
            return value
        if len(self.pieces) == 1:
            return _regex(self.pieces[0]).sub(lambda _: replacement, value, count=0 if everywhere else 1)
        found = _regex(self.pieces[0]).search(value)
        if found is None or (end := self.prefix(value, longest=True, start=found.start())) is None:
            return value
        return value[: found.start()] + replacement + value[end:]  # nothing behind the longest one matches again


def _regex(piece: tuple[str | None, ...]) -> re.Pattern[str]:
    return re.compile("".join("." if char is None else re.escape(char) for char in piece), re.DOTALL)
