"""`help`: the page of builda, or of a verb, as --help shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from builda.cli import complete
from builda.cli.options import argument
from builda.cli.output import print_line
from builda.cli.verb import verb
from builda.errors import InvalidValue

if TYPE_CHECKING:
    from builda.cli.session import Session


@verb(argument("command", nargs=-1, complete=complete.verbs), example="builda help bud")
def help_(session: Session, *, command: tuple[str, ...]) -> None:
    """Show how builda, or one of its commands, is used.

    COMMAND can also be status, environment or files: what builda exits with, and what it reads.
    """
    from builda.cli import pages

    if len(command) > 1:
        raise InvalidValue(f"help of one command at a time: {' '.join(command)}")
    root = click.get_current_context().find_root()
    group = root.command
    assert isinstance(group, click.Group)
    if not command:
        print_line(group.get_help(root))
        return
    if command[0] in pages.TOPICS:
        print_line(pages.topic(command[0], root))
        return
    name, found, _ = group.resolve_command(root, [command[0]])
    assert found is not None  # an unknown one has raised
    print_line(found.get_help(click.Context(found, info_name=name, parent=root, **found.context_settings)))
