"""How a command line comes to its verb's function."""

from __future__ import annotations

from collections.abc import Sequence

from builda.cli.core.line import Given, Line, Odd, read
from builda.cli.core.verb import GLOBAL_OPTIONS, HELP, Verb, session_for
from builda.cli.verbs import GROUPS, OWN, member_named, verb_named

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def invoke(args: Sequence[str]) -> int:
    """Run one command line; its exit status."""
    given: Given = {}
    top = read(args or ["--help"], OWN, GLOBAL_OPTIONS, given, path="builda", interspersed=False)
    if top.options or not top.arguments:
        from builda.cli.core import commands

        commands.answer(top)
    name, *rest = top.arguments
    if name in GROUPS:
        inner = read(rest or ["--help"], (HELP,), GLOBAL_OPTIONS, given, path=f"builda {name}", interspersed=False)
        if inner.options or not inner.arguments:
            from builda.cli.core import commands

            print(commands.page(name))
            return 0
        member, *rest = inner.arguments
        verb, name = member_named(name, member), f"{name} {member}"
    else:
        verb = verb_named(name)
    values = _values(verb, name, verb.read(rest, given, path=f"builda {name}"))
    with session_for(given) as session:
        verb(session, values)
    return 0


def _values(verb: Verb, called: str, line: Line) -> dict[str, Any]:
    """What the verb's function gets. Where that is not plain, click shows the help or says what is wrong."""
    try:
        return line.values(verb.rows)
    except Odd:
        from builda.cli.core import commands

        return commands.values(verb, called, line)
