"""Calls a verb's function with the values of its command line."""

from __future__ import annotations

from collections.abc import Sequence

from builda.cli.core.line import Given, Line, Odd, read
from builda.cli.core.verb import GLOBAL_OPTIONS, HELP, Verb, session_for
from builda.cli.verbs import GROUPS, OWN, member_named, verb_named
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builda.cli.core.verbtrace import VerbTrace


class Chosen(NamedTuple):
    """A verb, what the user called it, and the words behind it taken apart."""

    verb: Verb
    called: str
    line: Line


def invoke(args: Sequence[str], trace: VerbTrace | None = None) -> int:
    """Run one command line; its exit status. `trace` gets its events."""
    given: Given = {}
    chosen = choose(args, given)
    if isinstance(chosen, Line):
        from builda.cli.core import commands

        commands.answer(chosen)
    if isinstance(chosen, str):
        from builda.cli.core import commands

        print(commands.page(chosen))
        return 0
    values = _values(chosen.verb, chosen.called, chosen.line)
    with session_for(given, trace) as session:
        chosen.verb(session, values)
    return 0


def choose(args: Sequence[str], given: Given) -> Chosen | Line | str:
    """The verb that a command line names; global options go into `given`. InvalidValue or Unsupported if it is wrong.

    A line that asks for the help of builda or for its version is given back, of one for a group's help the group.
    """
    top = read(args or ["--help"], OWN, GLOBAL_OPTIONS, given, path="builda", interspersed=False)
    if top.options or not top.arguments:
        return top
    name, *rest = top.arguments
    if name in GROUPS:
        inner = read(rest or ["--help"], (HELP,), GLOBAL_OPTIONS, given, path=f"builda {name}", interspersed=False)
        if inner.options or not inner.arguments:
            return name
        member, *rest = inner.arguments
        verb, name = member_named(name, member), f"{name} {member}"
    else:
        verb = verb_named(name)
    return Chosen(verb, name, verb.read(rest, given, path=f"builda {name}"))


def _values(verb: Verb, called: str, line: Line) -> dict[str, Any]:
    """The arguments of the verb's function. If the line asks for help or is wrong, click shows the help or raises."""
    try:
        return line.values(verb.rows)
    except Odd:
        from builda.cli.core import commands

        return commands.values(verb, called, line)


def end_cleanly(number: int, _frame: object) -> None:
    """End by a signal, as a handler of it."""
    raise SystemExit(128 + number)  # contexts are left on the way out: leases, locks, mounts
