"""The rows of which a verb's command line consists: its options and arguments, as plain values.

`line` reads a command line by them and gives the verb's function its values; `commands` makes click's options of them
where help, a manual page or a complaint is wanted; `completing` offers them. An option that builda does not have is
*declared* refused, with the reason that its use prints.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from builda.errors import InvalidValue
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal, TypeAlias

    from builda.cli.core.verbsession import Session

Kind: TypeAlias = "Literal['switch', 'text', 'number', 'size', 'duration', 'many', 'list', 'answer']"
"""What becomes of what is written: a boolean, the text, a whole number, bytes, nanoseconds, all texts as they are, all
texts split at commas. An "answer" is no value: --help and --version."""


class Option(NamedTuple):
    """An option as users write it (`flags`) and as the verb's function gets it (its argument `name`)."""

    flags: Sequence[str]
    name: str
    kind: Kind = "text"
    metavar: str | None = None
    help: str | None = None
    default: Any = None
    bare: str | None = None
    """Its value when it is written without one; None if it needs one."""
    is_on: bool = False
    """Whether a switch is on, or may be, where it is not written."""
    hidden: bool = False
    refusal: str | None = None
    has_off: bool = False
    """Whether =false is accepted for an option that is refused otherwise, because it asks for nothing."""

    @property
    def takes_none(self) -> bool:
        """Whether it is complete without a value; it has one only behind `=`."""
        return self.bare is not None or self.kind == "answer"

    @property
    def long(self) -> str:
        """The first name with two dashes; if there is none, the only name."""
        return next((flag for flag in self.flags if flag.startswith("--")), self.flags[0])


class Argument(NamedTuple):
    """A positional argument. `repeats`: the rest of the line is its value."""

    name: str
    required: bool = True
    repeats: bool = False
    choices: Sequence[str] = ()
    complete: Callable[[Session, str], list[str]] | None = None
    """The words for the shell that begin so."""


Row: TypeAlias = Option | Argument
Params: TypeAlias = tuple[Row, ...]


def switch(*names: str, default: bool | None = False, is_on: bool = False, **more: Any) -> Option:
    """A boolean option; `default=None` keeps "not said" apart. `is_on`: not said is on, or may be."""
    on = is_on or default is True
    return Option(*_named(names), "switch", default=default, bare="true", is_on=on, has_off=True, **more)


def text(*names: str, metavar: str = "TEXT", **more: Any) -> Option:
    """An option with one value."""
    return Option(*_named(names), metavar=metavar, **more)


def number(*names: str, metavar: str = "N", **more: Any) -> Option:
    """An option with one whole number."""
    return Option(*_named(names), "number", metavar, **more)


def size(*names: str, metavar: str = "SIZE", **more: Any) -> Option:
    """An option with a number of bytes: `64m`, `1g`, `100`, in units of 1024."""
    return Option(*_named(names), "size", metavar, **more)


def duration(*names: str, metavar: str = "DURATION", **more: Any) -> Option:
    """An option with a time in Go's syntax, given in nanoseconds: `1h30m`, `2.5s`, `300ms`."""
    return Option(*_named(names), "duration", metavar, **more)


def many(*names: str, metavar: str = "TEXT", **more: Any) -> Option:
    """A repeatable option whose values are taken whole (pflag's StringArray)."""
    return Option(*_named(names), "many", metavar, default=(), **more)


def listed(*names: str, metavar: str = "TEXT,…", **more: Any) -> Option:
    """A repeatable option whose values are split at commas (pflag's StringSlice)."""
    return Option(*_named(names), "list", metavar, default=(), **more)


def refused(*names: str, reason: str, takes_value: bool = True, has_off: bool = False) -> Option:
    """An option of Buildah or docker that builda does not have; using it prints `reason`.

    With `has_off`, or without a value, `--name=false` is taken: it asks for nothing.
    """
    row = text(*names) if takes_value else switch(*names)
    return row._replace(hidden=True, refusal=reason, has_off=has_off or not takes_value)


def answer(*names: str, help: str) -> Option:  # noqa: A002  # as in every row
    """An option that ends the line with an answer of its own."""
    return Option(*_named(names), "answer", help=help)


def argument(name: str, *, nargs: int = 1, required: bool | None = None, **more: Any) -> Argument:
    """A positional argument. nargs=-1 takes all that are left, even none, unless `required` is set."""
    repeats = nargs == -1
    return Argument(name, not repeats if required is None else required, repeats, **more)


def _named(names: Sequence[str]) -> tuple[Sequence[str], str]:
    """The flags, and the name of the value: the one without dashes, else the first long flag as Python spells it."""
    own = [name for name in names if not name.startswith("-")]
    if own:
        return [name for name in names if name.startswith("-")], own[0]
    long = next((name for name in names if name.startswith("--")), names[0])
    return names, long.lstrip("-").replace("-", "_")


def value_of(row: Option, texts: Sequence[str]) -> Any:
    """The argument of the verb's function for an option that is on the line with these texts.

    ValueError or InvalidValue if one of them means nothing.
    """
    match row.kind:
        case "switch":
            return boolean(texts[-1])
        case "number":
            return int(texts[-1])
        case "size":
            return parse_size(texts[-1])
        case "duration":
            return parse_duration(texts[-1])
        case "many":
            return tuple(texts)
        case "list":
            return split_commas(texts)
        case _:
            return texts[-1]


def boolean(value: str) -> bool:
    """A switch's value in the words that click takes; ValueError for another."""
    word = value.strip().lower()
    if word not in _ON | _OFF:
        raise ValueError(value)
    return word in _ON


_ON = frozenset({"1", "true", "t", "yes", "y", "on"})
_OFF = frozenset({"0", "false", "f", "no", "n", "off"})


def parse_size(value: str) -> int:
    """Bytes of `64m`, `1g` or `100`, in units of 1024; InvalidValue otherwise."""
    from builda.mounts import parse_size as parse

    return parse(value)


def parse_duration(value: str) -> int:
    """Nanoseconds of a duration in Go's syntax; InvalidValue otherwise."""
    from builda.oci.duration import nanoseconds

    found = nanoseconds(value.strip().lstrip("+"))
    if found is None:
        raise InvalidValue(f"not a duration: {value}", hint="write numbers with units, as in 1h30m, 10s or 300ms")
    return found


def split_commas(values: Sequence[str]) -> tuple[str, ...]:
    """Each value split at its commas; a part in double quotes keeps its own (CSV, as pflag's StringSlice)."""
    if not any('"' in value for value in values):
        return tuple(part for value in values for part in value.split(",") if value)
    import csv

    try:
        return tuple(part for row in csv.reader(values, strict=True) for part in row)
    except csv.Error as error:
        raise InvalidValue(f"list cannot be read: {error}: {','.join(values)}") from error
