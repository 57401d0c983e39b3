"""Shell words of instructions: quotes, escapes and `$VAR` with every operator of the Dockerfile reference.

`expand` gives one word, `split` several; both are pure functions of the text and a lookup.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

from builda.errors import InvalidValue

Lookup: TypeAlias = Callable[[str], str | None]
"""The value of a variable, None when it is not set."""


def expand(text: str, lookup: Lookup, escape: str = "\\") -> str:
    """`text` as one word: variables replaced, quotes and escapes taken away. InvalidValue for what does not parse."""
    return _Lexer(text, lookup, escape).run()[0]


def split(text: str, lookup: Lookup, escape: str = "\\") -> tuple[str, ...]:
    """`text` as words: as `expand`, split at white space outside quotes, that of expanded variables included."""
    return tuple(_Lexer(text, lookup, escape).run()[1])


def keep_quotes(text: str, lookup: Lookup, escape: str = "\\") -> str:
    """`text` with its variables replaced and its quotes and escapes left alone: bodies of unquoted heredocs."""
    return _Lexer(text, lookup, escape, heredoc=True).run()[0]


_QUOTE = "a quote that is meant as a character has a backslash before it"
_OPERATORS = "after the name comes one of :- - :+ + :? ? # ## % %% / //"


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}…"


class _Lexer:
    """One pass over one text. `result` is the word, `words` the same split at white space."""

    def __init__(self, text: str, lookup: Lookup, escape: str, *, heredoc: bool = False) -> None:
        self.text = text
        self.at = 0
        self.lookup = lookup
        self.escape = escape
        self.heredoc = heredoc
        self.opened = 0  # where the innermost substitution begins

    def run(self) -> tuple[str, list[str]]:
        words = _Words()
        return self._until("", words, raw=False), words.finish()

    def _peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def _next(self) -> str:
        char = self._peek()
        self.at += 1
        return char

    def _until(self, stop: str, words: _Words, *, raw: bool) -> str:
        """Everything up to `stop`, which is consumed; `raw` keeps escapes, for patterns."""
        result = ""
        while self.at < len(self.text):
            char = self._peek()
            if stop and char == stop:
                self.at += 1
                return result
            if char == "'" and not self.heredoc:
                part = self._single(raw=raw)
                words.add_quoted(part)
            elif char == '"' and not self.heredoc:
                part = self._double(raw=raw)
                words.add_quoted(part)
            elif char == "$":
                part = self._dollar()
                words.add(part)
            elif char == self.escape:
                part = self._escaped(raw=raw)
                words.add_quoted(part)
            else:
                part = self._next()
                words.add(part)
            result += part
        if stop:
            raise InvalidValue(f"substitution lacks its {stop}: {_short(self.text[self.opened :])}")
        return result

    def _escaped(self, *, raw: bool) -> str:
        self.at += 1
        if self.at >= len(self.text):
            return self.escape if raw or self.heredoc else ""
        char = self._next()
        if self.heredoc and char not in ("$", self.escape):
            return self.escape + char
        return self.escape + char if raw else char

    def _single(self, *, raw: bool) -> str:
        end = self.text.find("'", self.at + 1)
        if end < 0:
            raise InvalidValue(f"quote is not closed: {_short(self.text[self.at :])}", hint=_QUOTE)
        inner = self.text[self.at + 1 : end]
        self.at = end + 1
        return re.sub(r"([*?\\])", r"\\\1", inner) if raw else inner

    def _double(self, *, raw: bool) -> str:
        opened = self.at
        self.at += 1
        result = ""
        while self.at < len(self.text):
            char = self._peek()
            if char == '"':
                self.at += 1
                return result
            if char == "$":
                result += self._dollar()
                continue
            self.at += 1
            if char == self.escape and self.at < len(self.text):
                following = self._next()
                kept = "" if following in ('"', "$", self.escape) else char
                result += char + following if raw else kept + following
            else:
                result += char
        raise InvalidValue(f"quote is not closed: {_short(self.text[opened:])}", hint=_QUOTE)

    def _dollar(self) -> str:
        opened = self.opened = self.at
        self.at += 1
        if self._peek() != "{":
            name = self._name()
            return (self.lookup(name) or "") if name else "$"
        self.at += 1
        if self._peek() in ("{", "}", ":") or not self._peek():
            raise InvalidValue(f"bad substitution, it needs a name: {_short(self.text[opened:])}")
        name = self._name()
        char = self._next()
        if char == "}":
            return self.lookup(name) or ""
        if not char:
            raise InvalidValue(f"substitution lacks its }}: {_short(self.text[opened:])}")
        if char in ("#", "%"):
            return self._strip(name, char)
        if char == "/":
            return self._replace(name)
        empty_counts = char != ":"
        operator = self._next() if char == ":" else char
        if not operator or operator not in "-+?":
            shown = _short(self.text[opened:])
            raise InvalidValue(f"unsupported modifier in a substitution: {shown}", hint=_OPERATORS)
        word = self._until("}", _Words(), raw=False)
        return self._default(name, operator, word, empty_counts=empty_counts)

    def _name(self) -> str:
        match = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]+|[@*#?$!-]").match(self.text, self.at)
        if match is None:
            return ""
        self.at = match.end()
        return match[0]

    def _default(self, name: str, operator: str, word: str, *, empty_counts: bool) -> str:
        value = self.lookup(name)
        is_set = value is not None and (empty_counts or value != "")
        if operator == "+":
            return word if is_set else ""
        if is_set:
            return value or ""
        if operator == "?":
            raise InvalidValue(
                f"{name}: {word or ('not allowed to be unset' if empty_counts else 'not allowed to be empty')}"
            )
        return word

    def _strip(self, name: str, char: str) -> str:
        greedy = self._peek() == char
        if greedy:
            self.at += 1
        pattern = self._until("}", _Words(), raw=True)
        value = self.lookup(name) or ""
        lengths = range(len(value) + 1)
        fits = re.compile(_to_regex(pattern, self.escape), re.DOTALL).fullmatch
        for length in reversed(lengths) if greedy else lengths:
            cut = value[:length] if char == "#" else value[len(value) - length :]
            if fits(cut):
                return value[length:] if char == "#" else value[: len(value) - length]
        return value

    def _replace(self, name: str) -> str:
        everywhere = self._peek() == "/"
        if everywhere:
            self.at += 1
        pattern = self._until("/", _Words(), raw=True)
        replacement = self._until("}", _Words(), raw=False)
        value = self.lookup(name) or ""
        if not pattern:
            return value
        regex = re.compile(_to_regex(pattern, self.escape), re.DOTALL)
        return regex.sub(lambda _: replacement, value, count=0 if everywhere else 1)


class _Words:
    """Collects words: unquoted white space ends one, a quoted part makes one even when empty."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.word = ""
        self.open = False

    def add(self, text: str) -> None:
        for char in text:
            if char.isspace():
                self._end()
            else:
                self.word += char
                self.open = True

    def add_quoted(self, text: str) -> None:
        self.word += text
        self.open = True

    def _end(self) -> None:
        if self.open:
            self.words.append(self.word)
        self.word, self.open = "", False

    def finish(self) -> list[str]:
        self._end()
        return self.words


def _to_regex(pattern: str, escape: str) -> str:
    """A shell pattern of `*`, `?` and escapes as a regular expression; everything else is literal."""
    result, index = "", 0
    while index < len(pattern):
        char = pattern[index]
        if char == escape and index + 1 < len(pattern):
            index += 1
            result += re.escape(pattern[index])
        else:
            result += {"*": ".*", "?": "."}.get(char, re.escape(char))
        index += 1
    return result
