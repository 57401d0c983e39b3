"""`help`: the page of builda, or of a verb, as --help shows it."""

from __future__ import annotations

from builda.cli.core.options import argument
from builda.cli.core.output import print_line
from builda.cli.core.verb import verb
from builda.cli.guide import complete

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.cli.core.verbsession import Session


@verb(argument("command", nargs=-1, complete=complete.verbs), example="builda help bud")
def help_(session: Session, *, command: tuple[str, ...]) -> None:
    """Show how builda, or one of its commands, is used.

    A command of a group is two words, as in `builda help manifest create`.

    COMMAND can also be status, environment or files: what builda exits with, and what it reads; or Containerfile.in:
    what a file of this name can have that a Containerfile cannot.
    """
    from builda.cli.core.commands import page, root_context
    from builda.cli.guide import pages

    if len(command) == 1 and command[0] in pages.TOPICS:
        print_line(pages.topic(command[0], root_context()))
    else:
        print_line(page(*command))
