"""click's commands, made of the rows of verbs: they write help and manual pages, and say what is wrong with a line.

A line that simply says what to do never comes here (`invoke`), because click takes longer to import than most
verbs take to work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import click

from builda.cli.core.options import Argument, Option, Row, parse_duration, parse_size, split_commas
from builda.cli.core.verb import GLOBAL_OPTIONS, HELP, Verb
from builda.cli.core.versions import version_line
from builda.cli.verbs import ALIASES, GROUPS, OWN, VERBS, member_named, verb_named
from builda.errors import InvalidValue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn, TypeAlias

    from builda.cli.core.line import Line

if TYPE_CHECKING:
    _IntType: TypeAlias = click.ParamType[int]
else:
    _IntType = click.ParamType  # a generic class for type checkers, but not at run time in every click

LONGEST = 10
"""Characters of an alias that the page of builda lists beside its verb."""
_SETTINGS: Any = {"help_option_names": list(HELP.flags), "max_content_width": 110}


class Command(click.Command):
    """A verb as click has it."""

    def __init__(self, verb: Verb) -> None:
        params = [_parameter(row) for row in verb.rows]
        super().__init__(verb.name, params=params, help=verb.help, epilog=verb.example, context_settings=_SETTINGS)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options, those that belong together under one heading."""
        from builda.cli.guide.pages import sections, unbroken

        for title, params in sections(self.name or "", self.get_params(ctx)):
            records = [record for param in params if (record := param.get_help_record(ctx)) is not None]
            with formatter.section(title):
                formatter.write_dl([(name, unbroken(text)) for name, text in records])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Examples, then which of Buildah's options builda refuses, and where more is said."""
        from builda.cli.guide import pages

        if examples := pages.examples(self):
            with formatter.section("Examples" if len(examples) > 1 else "Example"):
                formatter.write_text("\b\n" + "\n".join(examples))
        rows = rows_of(self)
        if names := [row.flags[0] for row in rows if row.refusal]:
            with formatter.section("Options of Buildah and docker that are refused (using one says why)"):
                formatter.write_text(" ".join(names))
        if any(row.is_on for row in rows):
            formatter.write_paragraph()
            formatter.write_text(pages.SWITCHES)
        formatter.write_paragraph()
        formatter.write_text(f"Also: man builda-{self.name}; builda help {', '.join(pages.TOPICS)}.")

    def get_help(self, ctx: click.Context) -> str:
        """The page that --help shows."""
        from builda.cli.guide.pages import text_of

        return text_of(self, ctx)


class Verbs(click.Group):
    """A command that is followed by a verb."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, without their other names."""
        raise NotImplementedError

    def get_command(self, ctx: click.Context, name: str) -> click.Command:
        """The verb of this name; InvalidValue with the nearest name if there is none."""
        raise NotImplementedError

    def aliases_of(self, name: str) -> list[str]:
        """The other names of a verb."""
        return []

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The verbs, each with its other names."""
        from builda.cli.guide.pages import unbroken

        rows = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            others = ", ".join(alias for alias in self.aliases_of(name) if len(alias) <= LONGEST)
            rows.append((f"{name} ({others})" if others else name, unbroken(command.get_short_help_str(1000))))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def get_help(self, ctx: click.Context) -> str:
        """The page that --help shows."""
        from builda.cli.guide.pages import text_of

        return text_of(self, ctx)


class GroupOfVerbs(Verbs):
    """A word that another verb follows, as `create` follows `manifest`."""

    def __init__(self, name: str) -> None:
        super().__init__(name, help=GROUPS[name].help, context_settings=_SETTINGS)
        self.called = name

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs of the group."""
        return sorted(GROUPS[self.called].verbs)

    def get_command(self, ctx: click.Context, name: str) -> Command:
        """The verb of the group; InvalidValue with the nearest name if there is none."""
        return Command(member_named(self.called, name))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write where to find more help."""
        formatter.write_paragraph()
        formatter.write_text(f"builda {self.called} VERB --help tells more of a verb. Also: man builda-{self.called}.")


class Group(Verbs):
    """`builda` itself."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, without their other names, and the groups."""
        return sorted([*VERBS, *GROUPS])

    def get_command(self, ctx: click.Context, name: str) -> click.Command:
        """The verb or group of this name; InvalidValue with the nearest name if there is none."""
        return GroupOfVerbs(name) if name in GROUPS else Command(verb_named(name))

    def aliases_of(self, name: str) -> list[str]:
        """The other names of a verb."""
        return [alias for alias, meant in ALIASES.items() if meant == name]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write where to find more help."""
        from builda.cli.guide.pages import SWITCHES, TOPICS

        formatter.write_paragraph()
        formatter.write_text(SWITCHES)
        formatter.write_paragraph()
        formatter.write_text(
            f"builda VERB --help tells more of a verb, man builda of all; builda help {', '.join(TOPICS)} of the rest."
        )


def make_group() -> Group:
    """The command line."""
    return Group(
        "builda",
        params=[_parameter(row) for row in (*GLOBAL_OPTIONS, *OWN) if row is not HELP],
        help="Build OCI and Docker images without a daemon, from scripts and Containerfiles.",
        epilog="builda VERB --help, or builda help VERB, tells more of a verb.",
        context_settings=_SETTINGS,
    )


def root_context() -> click.Context:
    """The context of `builda` itself."""
    return click.Context(make_group(), info_name="builda", **_SETTINGS)


def page(*words: str) -> str:
    """The help of a verb, of a group of verbs, of a verb in it, or of builda; InvalidValue if there is none such."""
    context = root_context()
    for name in words:
        if not isinstance(context.command, Verbs):
            raise InvalidValue(f"help of one command at a time: {' '.join(words)}")
        command = context.command.get_command(context, name)
        context = click.Context(command, info_name=name, parent=context, **_SETTINGS)
    return context.command.get_help(context)


def answer(line: Line) -> NoReturn:
    """Show the help or the version that a line without a verb asks for; InvalidValue if it asks for nothing."""
    group = make_group()
    with _complaining(), group.make_context("builda", line.words()) as root:
        group.invoke(root)
    raise SystemExit(0)


def values(verb: Verb, called: str, line: Line) -> dict[str, Any]:
    """Parse a line with click: raises InvalidValue in most cases, SystemExit after it showed help."""
    with _complaining(), root_context() as root:
        return Command(verb).make_context(called, line.words(), parent=root).params


@contextmanager
def _complaining() -> Iterator[None]:
    """Turn exceptions of click into SystemExit and InvalidValue."""
    try:
        yield
    except click.exceptions.Exit as ended:
        raise SystemExit(ended.exit_code) from None
    except click.ClickException as error:
        raise in_our_words(error) from error


def in_our_words(error: click.ClickException) -> InvalidValue:
    """click's complaint as a BuildaError: in lower case, with the value at the end and a hint."""
    ctx = getattr(error, "ctx", None)
    hint = f"see {ctx.command_path} --help" if ctx is not None else None
    match error:
        case click.MissingParameter():
            return InvalidValue(f"missing argument: {_name_of(error.param)}", hint=hint)
        case click.BadParameter():
            name = _name_of(error.param)
            return InvalidValue(
                f"invalid value for {name}: {_sentence(error.message.partition(' Recognized values')[0])}", hint=hint
            )
        case _:
            return InvalidValue(_sentence(error.format_message()), hint=hint)


def _name_of(param: click.Parameter | None) -> str:
    """The name of a parameter in messages: the long name of an option, an argument in capitals."""
    if param is None:
        return ""
    return max(param.opts, key=len) if isinstance(param, click.Option) else (param.name or "").upper()


def _sentence(message: str) -> str:
    message = message.rstrip(".")
    return message[:1].lower() + message[1:]


def rows_of(command: click.Command) -> Sequence[Option]:
    """The rows of a command's options."""
    return [param.row for param in command.params if isinstance(param, _Option)]


class _Option(click.Option):
    """An option made of a row."""

    def __init__(self, row: Option, **attributes: Any) -> None:
        super().__init__(
            [*row.flags, row.name],
            metavar=row.metavar,
            help=row.help,
            hidden=row.hidden,
            expose_value=row.refusal is None and row.kind != "answer",
            **attributes,
        )
        self.row = row

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Its names and help, with the value behind `=` where it can only stand there or is worth showing."""
        record = super().get_help_record(ctx)
        if record is None or self.row.bare is None:
            return record
        if self.row.kind == "switch":
            return (f"{record[0]}[=false]", record[1]) if self.row.is_on else record
        return record[0].replace(f" {self.metavar}", f"[={self.metavar}]"), record[1]

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Store the text of a switch, which `Line.words` always gives, instead of a constant."""
        if self.row.kind == "switch":
            parser.add_option(obj=self, opts=self.opts, dest=self.name, action="store", nargs=1)
        else:
            super().add_to_parser(parser, ctx)


def _parameter(row: Row) -> click.Parameter:
    if isinstance(row, Argument):
        kind = click.Choice(list(row.choices)) if row.choices else None
        return click.Argument([row.name], nargs=-1 if row.repeats else 1, required=row.required, type=kind)
    match row.kind:
        case "answer":
            return _Option(row, is_flag=True, is_eager=True, callback=_show_version)
        case "switch":
            return _Option(row, is_flag=True, type=click.BOOL, default=row.default)
        case "many":
            return _Option(row, multiple=True)
        case "list":
            return _Option(row, multiple=True, callback=_split)
        case "number":
            return _Option(row, type=click.INT, default=row.default)
        case "size":
            return _Option(row, type=_Parsed(parse_size), default=row.default)
        case "duration":
            return _Option(row, type=_Parsed(parse_duration), default=row.default)
        case "text":
            return _Option(row, default=row.default)


def _show_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from builda.cli.core.output import print_line

        print_line(version_line())
        ctx.exit()


def _split(_ctx: click.Context, _param: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    return split_commas(values)


class _Parsed(_IntType):
    """A number in words of its own."""

    name = "number"

    def __init__(self, parse: Callable[[str], int]) -> None:
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number that the text `value` means."""
        return self._parse(value) if isinstance(value, str) else int(value)
