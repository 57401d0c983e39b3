"""One verb: a click command whose options are read by pflag's rules, because scripts were written for Buildah.

Options end at the first argument (unless the verb is `interspersed`), a switch takes a value only after `=`, and global
options may stand after the verb as well as before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from builda.cli.options import Option, Params, Switch, listed, refused, switch, text
from builda.errors import InvalidValue, Unsupported

if TYPE_CHECKING:
    from builda.cli.session import Session

ENTERING = frozenset(
    "add build commit copy from fsck prune rm rmi run umount unshare workdir".split(),
)
"""The verbs that work in trees, so where their mode does; the others only read and write records and blobs."""
COMPOSING = ENTERING - frozenset("run umount unshare".split())
"""Those of them that have something to do where no tree can be, too."""
_CGROUP = "a command stays in the cgroup of its caller; --cgroup-parent of run says another one"

GLOBAL_OPTIONS: Params = (
    text("--root", metavar="DIR", help="Keep images and working containers here.  [env: BUILDA_ROOT]"),
    text("--runroot", metavar="DIR", help="Keep what need not survive a reboot here.  [env: BUILDA_RUNROOT]"),
    text(
        "--storage-driver",
        metavar="DRIVER",
        help="overlay (default), fuse-overlayfs, plain (or vfs) or composed.  "
        "[env: BUILDA_STORAGE_DRIVER, STORAGE_DRIVER]",
    ),
    listed(
        "--storage-opt",
        metavar="OPTION,…",
        help="Taken for scripts; one that asks for something else than builda does is warned of.  "
        "[env: BUILDA_STORAGE_OPTS, STORAGE_OPTS]",
    ),
    text(
        "--log-level",
        metavar="LEVEL",
        help="trace, debug, info, warn (default), error, fatal or panic; debug tells what is decided, and why.",
    ),
    switch("--debug", hidden=True),
    text(
        "--registries-conf",
        metavar="FILE",
        help="Use this registries.conf.  [env: BUILDA_REGISTRIES_CONF, CONTAINERS_REGISTRIES_CONF]",
    ),
    text(
        "--events",
        metavar="FD",
        help="Write what happens as lines of JSON to this file descriptor.  [env: BUILDA_EVENTS]",
    ),
    text(
        "--mode",
        metavar="MODE",
        help="Work in this mode: auto (default), direct, userns, subid, single, chroot or traced.  [env: BUILDA_MODE]",
    ),
    listed(
        "--userns-uid-map",
        metavar="CONTAINER:HOST:SIZE,…",
        help="Map uids this way in from and build, unless they have such options of their own.",
    ),
    listed("--userns-gid-map", metavar="CONTAINER:HOST:SIZE,…", help="The same for gids; it needs a map of uids."),
    refused("--imagestore", reason="images and working containers share one store"),
    refused("--transient-store", reason="--runroot is the only volatile directory", takes_value=False),
    text("--registries-conf-dir", metavar="DIR", help="Read the drop-ins of registries.conf from here alone."),
    text(
        "--short-name-alias-conf", metavar="FILE", help="Read the short names that tools have learned from this file."
    ),
    refused("--cgroup-manager", reason=_CGROUP),
    text("--default-mounts-file", metavar="FILE", hidden=True, help="Use this mounts.conf."),
    refused("--cpu-profile", reason="builda is no Go program"),
    refused("--memory-profile", reason="builda is no Go program"),
)


def _show_help(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()


HELP = click.Option(
    ["--help", "-h", "_help"],
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_help,
    help="Show this message and exit.",
)
"""The option of all verbs. click would make one for each, and look for the words of it in the user's language."""
GIVEN = "builda.given"
"""Key of `Context.meta`: the global options that were given, name → values in order."""


class Verb(click.Command):
    """A subcommand. `interspersed`: options may follow arguments; `order`: what later arguments must not look like."""

    interspersed = False
    checks_order = True

    def get_help_option(self, ctx: click.Context) -> click.Option:
        """The option --help."""
        return HELP

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """All parameters; click's method also searches for duplicates, each of the three times that it is called."""
        return [*self.params, HELP]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read `args` by pflag's rules; click only sees `--name=value`, `--` and arguments."""
        options = normalised(args, ctx, self.get_params(ctx), interspersed=self.interspersed)
        positional = options[options.index("--") + 1 :]
        if self.checks_order and not self.interspersed and not ctx.resilient_parsing:
            _check_order(positional)
        return super().parse_args(ctx, options)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options, those that belong together under one heading."""
        from builda.cli.pages import sections, unbroken

        for title, params in sections(self.name or "", self.get_params(ctx)):
            records = [record for param in params if (record := param.get_help_record(ctx)) is not None]
            with formatter.section(title):
                formatter.write_dl([(name, unbroken(text)) for name, text in records])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Examples, then which of Buildah's options builda refuses, and where more is said."""
        from builda.cli import pages

        if examples := pages.examples(self):
            with formatter.section("Examples" if len(examples) > 1 else "Example"):
                formatter.write_text("\b\n" + "\n".join(examples))
        names = [param.opts[0] for param in self.params if isinstance(param, Option) and param.refusal]
        if names:
            with formatter.section("Options of Buildah and docker that are refused (using one says why)"):
                formatter.write_text(" ".join(names))
        if any(isinstance(param, Switch) and param.is_on for param in self.params):
            formatter.write_paragraph()
            formatter.write_text(pages.SWITCHES)
        formatter.write_paragraph()
        formatter.write_text(f"Also: man builda-{self.name}; builda help {', '.join(pages.TOPICS)}.")

    def get_help(self, ctx: click.Context) -> str:
        """The page that --help shows."""
        from builda.cli.pages import text_of

        return text_of(self, ctx)


def verb(
    *params: click.Parameter | Iterable[click.Parameter],
    example: str,
    name: str | None = None,
    interspersed: bool = False,
    checks_order: bool = True,
) -> Callable[[Callable[..., None]], Verb]:
    """Make a function a verb: its docstring is the help, its first argument the Session of the command line."""
    flat = [one for param in params for one in ([param] if isinstance(param, click.Parameter) else param)]

    def decorated(function: Callable[..., None]) -> Verb:
        called = name or function.__name__.rstrip("_")

        def callback(**values: Any) -> None:
            session = session_of(click.get_current_context())
            if called in ENTERING:
                session.enter(composing=called in COMPOSING)
            function(session, **values)

        command = Verb(
            called,
            callback=callback,
            params=list(flat),
            help=function.__doc__,
            epilog=example,
            context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 110},
        )
        command.interspersed = interspersed
        command.checks_order = checks_order
        return command

    return decorated


def session_of(ctx: click.Context) -> Session:
    """The session of this command line, closed with its outermost context."""
    root = ctx.find_root()
    if root.obj is None:
        import os

        from builda.cli.session import Session
        from builda.cli.settings import caller, settings

        given = ctx.meta.get(GIVEN, {})
        root.obj = root.with_resource(
            Session(settings(given, os.environ, caller(os.environ, os.geteuid())), os.environ)
        )
    session: Session = root.obj
    return session


def normalised(
    args: Sequence[str], ctx: click.Context, params: Sequence[click.Parameter], *, interspersed: bool
) -> list[str]:
    """`args` as `--name=value …  -- arguments`; global options are taken out and kept in `ctx.meta`."""
    known = {name: option for option in (*GLOBAL_OPTIONS, *params) for name in option.opts}
    own = {id(param) for param in params}
    given: dict[str, tuple[str, ...]] = ctx.meta.setdefault(GIVEN, {})
    queue = deque(args)
    options: list[str] = []
    arguments: list[str] = []
    while queue:
        arg = queue.popleft()
        if arg == "--":
            arguments.extend(queue)
            break
        if not arg.startswith("-") or arg == "-":
            arguments.append(arg)
            if not interspersed:
                arguments.extend(queue)
                break
            continue
        for option, value in _read(arg, queue, known, ctx):
            if id(option) not in own or option in GLOBAL_OPTIONS:
                assert option.name is not None
                given[option.name] = (*given.get(option.name, ()), *_texts(option, value))
            else:
                options.append(option.opts[0] if value is None else f"{_long(option)}={value}")
    return [*options, "--", *arguments]


def _read(
    arg: str, queue: deque[str], known: dict[str, click.Parameter], ctx: click.Context
) -> list[tuple[click.Parameter, str | None]]:
    """The options in one argument with their values (None: a flag of click's own), refused ones raising."""
    if arg.startswith("--"):
        name, equals, value = arg.partition("=")
        option = _option(name, known, ctx)
        if option is None:
            return []
        return _checked(name, option, value if equals else _value(name, option, queue, ctx), ctx)
    found: list[tuple[click.Parameter, str | None]] = []
    letters = arg[1:]
    while letters:
        name, letters = f"-{letters[0]}", letters[1:]
        option = _option(name, known, ctx)
        if option is None:
            return found
        if _takes_none(option):
            value_given = letters.startswith("=")
            value_text = letters[1:] if value_given else getattr(option, "bare", None)
            letters = "" if value_given else letters
            found += _checked(name, option, value_text, ctx)
            continue
        value_text = letters.removeprefix("=") if letters else _value(name, option, queue, ctx)
        found += _checked(name, option, value_text, ctx)
        break
    return found


def _option(name: str, known: dict[str, click.Parameter], ctx: click.Context) -> click.Parameter | None:
    option = known.get(name)
    if option is None and not ctx.resilient_parsing:
        from builda.cli import hints

        visible = [other for other, param in known.items() if not getattr(param, "hidden", False)]
        raise UnknownFlag(name, ctx, hints.of_flag(ctx.info_name or "", name, visible))
    return option


class UnknownFlag(click.NoSuchOption):
    """A flag that a verb does not have; `way_out` says what was probably meant, None when nothing is near."""

    def __init__(self, name: str, ctx: click.Context, way_out: str | None) -> None:
        super().__init__(name, ctx=ctx)
        self.way_out = way_out


def _takes_none(option: click.Parameter) -> bool:
    return isinstance(option, click.Option) and (option.is_flag or getattr(option, "bare", None) is not None)


def _value(name: str, option: click.Parameter, queue: deque[str], ctx: click.Context) -> str | None:
    if _takes_none(option):
        return getattr(option, "bare", None)
    if queue:
        return queue.popleft()
    if ctx.resilient_parsing:
        return ""
    raise InvalidValue(f"flag needs an argument: {name}", hint=f"see {ctx.command_path} --help")


def _checked(
    name: str, option: click.Parameter, value: str | None, ctx: click.Context
) -> list[tuple[click.Parameter, str | None]]:
    refusal = getattr(option, "refusal", None)
    if refusal is None:
        return [(option, value)]
    if ctx.resilient_parsing or (
        getattr(option, "has_off", False) and value in ("false", "False", "0", "f", "F", "FALSE")
    ):
        return []  # switched off, it asks for nothing
    raise Unsupported(f"{name} is not supported: {refusal}")


def _long(option: click.Parameter) -> str:
    return next((name for name in option.opts if name.startswith("--")), option.opts[0])


def _texts(option: click.Parameter, value: str | None) -> tuple[str, ...]:
    if isinstance(option, Switch):
        return ("true",) if click.BOOL(value or "true") else ()
    return (value or "",)


def _check_order(positional: Sequence[str]) -> None:
    for arg in positional:
        if arg.startswith("-") and len(arg) > 1:
            raise InvalidValue(
                f"no options ({arg}) can be specified after the image or container name",
                hint="options stand before it; -- before the first argument ends them",
            )
