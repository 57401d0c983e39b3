"""Questions to people, on their terminal."""

from __future__ import annotations

import click

from builda.errors import InvalidValue


def ask(question: str, *, hidden: bool = False, err: bool = False) -> str:
    """The answer; KeyboardInterrupt for ^C, InvalidValue at the input's end. `err` asks on standard error."""
    try:
        answer: str = click.prompt(question, hide_input=hidden, err=err)
    except click.Abort as aborted:
        if isinstance(aborted.__context__, EOFError):
            raise InvalidValue("the input ended where an answer was asked for") from aborted
        raise KeyboardInterrupt from aborted
    return answer
