"""A command line, read by pflag's rules because scripts were written for Buildah.

Options end at the first argument (unless the verb is `interspersed`), a switch has a value only after `=`
(`--quiet=false`, never `--quiet false`), and global options may stand after the verb as well as before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence

from builda.cli.core.options import Argument, Option, boolean, value_of
from builda.errors import InvalidValue, Unsupported
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from builda.cli.core.options import Row

Given: TypeAlias = MutableMapping[str, tuple[str, ...]]
"""The global options that stand on the line, by name, with their texts in order."""
Rows: TypeAlias = Sequence["Row"]


class Odd(Exception):
    """A command line that is left to click: it asks for help, or an argument is missing, superfluous or wrong."""


class Line(NamedTuple):
    """The part of a command line that belongs to one verb, taken apart but not understood yet."""

    options: Sequence[tuple[Option, str]]
    arguments: Sequence[str]

    def values(self, rows: Rows) -> dict[str, Any]:
        """The arguments of the verb's function by name; Odd if click has to read the line."""
        texts: dict[str, list[str]] = {}
        for option, text in self.options:
            if option.kind == "answer":
                raise Odd
            texts.setdefault(option.name, []).append(text)
        values = dict(self._positional([row for row in rows if isinstance(row, Argument)]))
        for row in rows:
            if isinstance(row, Option) and row.refusal is None:
                values[row.name] = _value(row, texts[row.name]) if row.name in texts else row.default
        return values

    def _positional(self, rows: Sequence[Argument]) -> Iterator[tuple[str, Any]]:
        left = deque(self.arguments)
        for row in rows:
            if row.required and not left:
                raise Odd
            if row.repeats:
                yield row.name, tuple(left)
                left.clear()
            else:
                yield row.name, _chosen(row, left.popleft() if left else None)
        if left:
            raise Odd

    def words(self) -> list[str]:
        """The same for a parser that knows no rules of pflag's: `--name=value … -- arguments`."""
        options = [f"{row.long}={text}" if text or row.kind != "answer" else row.long for row, text in self.options]
        return [*options, "--", *self.arguments]


def _value(row: Option, texts: Sequence[str]) -> Any:
    try:
        return value_of(row, texts)
    except (ValueError, InvalidValue) as error:
        raise Odd from error


def _chosen(row: Argument, text: str | None) -> str | None:
    if text is not None and row.choices and text not in row.choices:
        raise Odd
    return text


def read(
    args: Iterable[str],
    rows: Rows,
    everywhere: Rows,
    given: Given,
    *,
    path: str,
    interspersed: bool,
    keeps_dashes: bool = False,
) -> Line:
    """Take `args` apart by `rows`; options of `everywhere` go into `given` instead, unless the rows have them too.

    With `keeps_dashes` the `--` that ends the options is an argument too.

    InvalidValue for an unknown flag and one that lacks its value, Unsupported for one that is refused; `path` is how
    the user wrote builda and the verb.
    """
    own = by_flag(rows)
    reader = _Reader(deque(args), by_flag(everywhere) | own, path)
    options: list[tuple[Option, str]] = []
    arguments: list[str] = []
    while reader.queue:
        arg = reader.queue.popleft()
        if arg == "--":
            arguments.extend((arg, *reader.queue) if keeps_dashes else reader.queue)
            break
        if not arg.startswith("-") or arg == "-":
            arguments.append(arg)
            if not interspersed:
                arguments.extend(reader.queue)
                break
            continue
        for option, text in reader.options_in(arg):
            if own.get(option.flags[0]) is option:
                options.append((option, text))
            else:
                given[option.name] = (*given.get(option.name, ()), *_given(option, text))
    return Line(options, arguments)


def by_flag(rows: Rows) -> dict[str, Option]:
    """The options by all that they are called."""
    return {flag: row for row in rows if isinstance(row, Option) for flag in row.flags}


def _given(option: Option, text: str) -> tuple[str, ...]:
    """The values of a global option; none for a switch that is off."""
    if option.kind != "switch":
        return (text,)
    try:
        return ("true",) if boolean(text or "true") else ()
    except ValueError:
        raise InvalidValue(f"invalid value for {option.long}: {text!r} is not a valid boolean") from None


class _Reader(NamedTuple):
    """The words of a command line that are not read yet, and the options by their flags."""

    queue: deque[str]
    known: Mapping[str, Option]
    path: str

    def options_in(self, arg: str) -> Iterator[tuple[Option, str]]:
        """The options of one argument that begins with a dash, each with its text."""
        if arg.startswith("--"):
            name, equals, text = arg.partition("=")
            option = self.option(name)
            yield from _taken(name, option, text if equals else self.next_text(name, option))
            return
        letters = arg[1:]
        while letters:
            name, letters = f"-{letters[0]}", letters[1:]
            option = self.option(name)
            if not option.takes_none or letters.startswith("="):
                text = letters.removeprefix("=") if letters else self.next_text(name, option)
                yield from _taken(name, option, text)
                return
            yield from _taken(name, option, option.bare or "")

    def option(self, name: str) -> Option:
        """The option of the flag `name`; InvalidValue, with the nearest flag, if there is none."""
        option = self.known.get(name)
        if option is None:
            from builda.cli.core import hints

            visible = [flag for flag, row in self.known.items() if not row.hidden]
            hint = hints.of_flag(self.path.rpartition(" ")[2], name, visible) or f"see {self.path} --help"
            raise InvalidValue(f"unknown flag: {name}", hint=hint)
        return option

    def next_text(self, name: str, option: Option) -> str:
        """The text of an option that has none behind `=`."""
        if option.takes_none:
            return option.bare or ""
        if not self.queue:
            raise InvalidValue(f"flag needs an argument: {name}", hint=f"see {self.path} --help")
        return self.queue.popleft()


def _taken(name: str, option: Option, text: str) -> Iterator[tuple[Option, str]]:
    """The option, unless it is refused: then Unsupported, or nothing where it is switched off."""
    if option.refusal is None:
        yield option, text
    elif not option.has_off or text not in ("false", "False", "0", "f", "F", "FALSE"):
        raise Unsupported(f"{name} is not supported: {option.refusal}")
