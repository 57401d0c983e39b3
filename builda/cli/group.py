"""The verbs by name, each imported when it is called; and click's own complaints in builda's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module

import click

from builda.cli.verb import GLOBAL_OPTIONS, HELP, Verb, normalised
from builda.errors import BuildaError, InvalidValue

VERBS: Mapping[str, str] = {
    "add": "copy:add",
    "build": "build:build",
    "commit": "commit:commit",
    "completion": "system:completion",
    "config": "config:config",
    "containers": "containers:containers",
    "copy": "copy:copy",
    "doctor": "doctor:doctor",
    "from": "create:from_",
    "exists": "images:exists",
    "fsck": "fsck:fsck",
    "help": "help:help_",
    "images": "images:images",
    "info": "system:info",
    "inspect": "inspect:inspect",
    "login": "login:login",
    "logout": "login:logout",
    "mount": "containers:mount",
    "preprocess": "preprocess:preprocess",
    "prune": "images:prune",
    "pull": "registry:pull",
    "push": "registry:push",
    "rename": "containers:rename",
    "rm": "containers:rm",
    "rmi": "images:rmi",
    "run": "run:run",
    "tag": "images:tag",
    "umount": "containers:umount",
    "unshare": "unshare:unshare",
    "untag": "images:untag",
    "version": "system:version",
    "workdir": "workdir:workdir",
}
ALIASES: Mapping[str, str] = {
    "bud": "build",
    "build-using-dockerfile": "build",
    "delete": "rm",
    "list": "containers",
    "ls": "containers",
    "ps": "containers",
    "unmount": "umount",
}


LONGEST = 10
"""Characters of an alias that the page of builda lists beside its verb."""


class Group(click.Group):
    """`builda` itself: knows the names of its verbs, and imports the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, without their other names."""
        return sorted(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The verb of this name, imported now."""
        target = VERBS.get(ALIASES.get(name, name))
        if target is None:
            return None
        module, _, attribute = target.partition(":")
        command: Verb = getattr(import_module(f"builda.cli.{module}"), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The verb that `args` begin with; InvalidValue with the nearest name when there is none."""
        command = self.get_command(ctx, args[0])
        if command is None and not ctx.resilient_parsing:
            raise _unknown_verb(args[0])
        return args[0], command, args[1:]

    def get_help_option(self, ctx: click.Context) -> click.Option:
        """The option --help."""
        return HELP

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The global options."""
        return [*self.params, HELP]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take out the global options that stand before the verb."""
        return super().parse_args(ctx, normalised(args, ctx, self.get_params(ctx), interspersed=False))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The verbs, each with its other names."""
        from builda.cli.pages import unbroken

        rows = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            assert command is not None
            others = ", ".join(alias for alias, meant in ALIASES.items() if meant == name and len(alias) <= LONGEST)
            rows.append((f"{name} ({others})" if others else name, unbroken(command.get_short_help_str(1000))))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Where more is said."""
        from builda.cli.pages import SWITCHES, TOPICS

        formatter.write_paragraph()
        formatter.write_text(SWITCHES)
        formatter.write_paragraph()
        formatter.write_text(
            f"builda VERB --help tells more of a verb, man builda of all; builda help {', '.join(TOPICS)} of the rest."
        )

    def get_help(self, ctx: click.Context) -> str:
        """The page that --help shows."""
        from builda.cli.pages import text_of

        return text_of(self, ctx)


def _unknown_verb(name: str) -> BuildaError:
    from builda.cli import hints

    return InvalidValue(f"unknown command: {name}", hint=hints.of_verb(name, [*VERBS, *ALIASES]))


def make_group() -> Group:
    """The command line."""
    from builda.cli.system import version_option

    return Group(
        "builda",
        params=[*GLOBAL_OPTIONS, version_option()],
        help="Build OCI and Docker images without a daemon, from scripts and Containerfiles.",
        epilog="builda VERB --help, or builda help VERB, tells more of a verb.",
        context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 110},
    )


def invoke(args: Sequence[str]) -> int:
    """Run one command line; its exit status. Complaints of click come as InvalidValue."""
    group = make_group()
    try:
        with group.make_context("builda", list(args) or ["--help"]) as ctx:
            group.invoke(ctx)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.Abort as aborted:  # ^C or ^D at a prompt
        if isinstance(aborted.__context__, EOFError):
            raise InvalidValue("the input ended where an answer was asked for") from aborted
        raise KeyboardInterrupt from aborted
    except click.ClickException as error:
        raise in_our_words(error) from error
    return 0


def in_our_words(error: click.ClickException) -> InvalidValue:
    """A complaint of click as an error of ours: lower case, the value at the end, a way out."""
    ctx = getattr(error, "ctx", None)
    hint = f"see {ctx.command_path} --help" if ctx is not None else None
    match error:
        case click.NoSuchOption():
            return InvalidValue(f"unknown flag: {error.option_name}", hint=getattr(error, "way_out", None) or hint)
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
    """What the user calls it: the long name of an option, an argument in capitals."""
    if param is None:
        return ""
    return max(param.opts, key=len) if isinstance(param, click.Option) else (param.name or "").upper()


def _sentence(message: str) -> str:
    message = message.rstrip(".")
    return message[:1].lower() + message[1:]
