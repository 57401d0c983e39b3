"""The kinds of options that Buildah's command line has, as tables of rows: what a verb takes is a list.

pflag's rules hold, not click's: a switch may be written `--quiet=false`, never `--quiet false`; options that split at
commas do so as CSV. An option that builda does not have is *declared* refused, with the reason that its use prints.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from builda.errors import InvalidValue

if TYPE_CHECKING:
    _IntType: TypeAlias = click.ParamType[int]
else:
    _IntType = click.ParamType  # a generic class for type checkers, but not at run time in every click

Params: TypeAlias = tuple[click.Parameter, ...]


class Option(click.Option):
    """An option that takes a value; `bare` is the value it has when written without one (None: it needs one)."""

    bare: str | None = None
    has_off = False
    """Whether a false value asks for nothing, so that an option that is refused is taken with it."""
    refusal: str | None = None

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Its names and help, with the value behind `=` where it can only stand there."""
        record = super().get_help_record(ctx)
        if record is None or self.bare is None or self.is_flag:
            return record
        return record[0].replace(f" {self.metavar}", f"[={self.metavar}]"), record[1]


class Switch(Option):
    """An option that is on when written bare; `--name=false` turns it off."""

    bare = "true"
    has_off = True

    def __init__(self, names: Sequence[str], *, is_on: bool = False, **attributes: Any) -> None:
        super().__init__(names, is_flag=True, **attributes)
        self.is_on = is_on

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Its names and help; with `[=false]` where it is on without being named."""
        record = super().get_help_record(ctx)
        return record if record is None or not self.is_on else (f"{record[0]}[=false]", record[1])

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Store the text that `verb.normalised` always gives, instead of a constant."""
        parser.add_option(obj=self, opts=self.opts, dest=self.name, action="store", nargs=1)


def switch(*names: str, default: bool | None = False, is_on: bool = False, **more: Any) -> Option:
    """A boolean option; `default=None` keeps "not said" apart. `is_on`: not said is on, or may be."""
    return Switch(names, default=default, type=click.BOOL, is_on=is_on or default is True, **more)


def text(*names: str, metavar: str = "TEXT", bare: str | None = None, **more: Any) -> Option:
    """An option with one value."""
    option = Option(names, metavar=metavar, **more)
    option.bare = bare
    return option


def number(*names: str, metavar: str = "N", **more: Any) -> Option:
    """An option with one whole number."""
    return Option(names, metavar=metavar, type=click.INT, **more)


def many(*names: str, metavar: str = "TEXT", **more: Any) -> Option:
    """A repeatable option whose values are taken whole (pflag's StringArray)."""
    return Option(names, metavar=metavar, multiple=True, **more)


def listed(*names: str, metavar: str = "TEXT,…", **more: Any) -> Option:
    """A repeatable option whose values are split at commas (pflag's StringSlice)."""
    return Option(names, metavar=metavar, multiple=True, callback=_split, **more)


def refused(*names: str, reason: str, takes_value: bool = True, has_off: bool = False) -> Option:
    """An option of Buildah or docker that builda does not have; using it prints `reason`.

    With `has_off`, or without a value, `--name=false` is taken: it asks for nothing.
    """
    kind = Option if takes_value else Switch
    option = kind(names, hidden=True, expose_value=False)
    option.has_off = has_off or not takes_value
    option.refusal = reason
    return option


def argument(name: str, *, complete: Callable[..., Any] | None = None, **more: Any) -> click.Argument:
    """A positional argument."""
    return click.Argument([name], shell_complete=complete, **more)


class Size(_IntType):
    """`64m`, `1g`, `100`: bytes, in units of 1024."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes of the text `value`."""
        from builda.mounts import parse_size

        return parse_size(value) if isinstance(value, str) else int(value)


class Duration(_IntType):
    """`1h30m`, `2.5s`, `300ms`: nanoseconds, in Go's syntax."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Nanoseconds of the text `value`."""
        return parse_duration(value) if isinstance(value, str) else int(value)


def parse_duration(value: str) -> int:
    """Nanoseconds of a duration in Go's syntax; InvalidValue otherwise."""
    from builda.oci.duration import nanoseconds

    found = nanoseconds(value.strip().lstrip("+"))
    if found is None:
        raise InvalidValue(f"not a duration: {value}", hint="write numbers with units, as in 1h30m, 10s or 300ms")
    return found


def _split(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    return split_commas(values)


def split_commas(values: Sequence[str]) -> tuple[str, ...]:
    """Each value split at its commas; a part in double quotes keeps its own (CSV, as pflag's StringSlice)."""
    if not any('"' in value for value in values):
        return tuple(part for value in values for part in value.split(",") if value)
    import csv

    try:
        return tuple(part for row in csv.reader(values, strict=True) for part in row)
    except csv.Error as error:
        raise InvalidValue(f"list cannot be read: {error}: {','.join(values)}") from error
